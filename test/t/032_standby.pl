# A standby does no work; after its promotion the worker starts by itself.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

# No worker on the primary, so that what expires there is not removed before the promotion.
my $primary = kvs_node('primary', init => { allows_streaming => 1 }, conf => "max_worker_processes = 0\n");
my $workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'kvstore%'";

$primary->safe_psql('postgres', 'CREATE EXTENSION kvstore; SELECT kv_create_store()');
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'max_worker_processes = 8');
$standby->start;
$primary->safe_psql('postgres', "SELECT kv_set('a', '1', ttl => '1 s'), kv_set('b', '1', ttl => '1 hour')");
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

is($standby->safe_psql('postgres', $workers), '0', 'a standby has no launcher and no worker');
is($standby->safe_psql('postgres', 'SELECT worker_running, in_recovery, status FROM kv_health()'), 'f|t|read-only', 'kv_health() says so');
for my $function ('kv_sweep()', 'kv_maintain()')
{
	my ($result, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT $function");
	like($err, qr/ERROR:  25006/, "$function is refused there");
}

# The entry expires while there is nobody to remove it.
$primary->stop('immediate');
ok($standby->poll_query_until('postgres', q{SELECT count(*) = 1 FROM kvstore.s_default WHERE expires_at < clock_timestamp()}), 'an entry expires');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM kvstore.s_default'), '2', 'nothing is removed');
$standby->promote;
ok($standby->poll_query_until('postgres', 'SELECT count(*) = 1 FROM kvstore.s_default'), 'the worker comes by itself');
is($standby->safe_psql('postgres', "SELECT key FROM kvstore.s_default"), '["b"]', 'after the promotion what has expired goes, and nothing else');
is($standby->safe_psql('postgres', 'SELECT worker_running, status FROM kv_health()'), 't|ok', 'kv_health() says so');
$standby->safe_psql('postgres', "SELECT kv_set('c', '1', ttl => '0.1 s')");
my $start = time;
$standby->poll_query_until('postgres', 'SELECT count(*) = 1 FROM kvstore.s_default');
# well before it would read all stores again, a minute after it has come
cmp_ok(time - $start, '<', 30, 'and goes on');
$standby->stop;

done_testing();
