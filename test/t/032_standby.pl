# A standby does no work; after its promotion the worker starts by itself.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use KvsTest;

my $primary = kvs_node('primary', init => { allows_streaming => 1 });
my $workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'kvstore%'";

$primary->safe_psql('postgres', 'CREATE EXTENSION kvstore; SELECT kv_create_store()');
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
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
sleep 1;
is($standby->safe_psql('postgres', 'SELECT count(*) FROM kvstore.s_default'), '2', 'nothing is removed');
$standby->promote;
my $start = time;
usleep(20_000) while time - $start < 10 && $standby->safe_psql('postgres', 'SELECT count(*) FROM kvstore.s_default') ne '1';
is($standby->safe_psql('postgres', "SELECT key FROM kvstore.s_default"), '["b"]', 'after the promotion what has expired goes, and nothing else');
is($standby->safe_psql('postgres', 'SELECT worker_running, status FROM kv_health()'), 't|ok', 'kv_health() says so');
$standby->safe_psql('postgres', "SELECT kv_set('c', '1', ttl => '0.1 s')");
$start = time;
usleep(20_000) while time - $start < 10 && $standby->safe_psql('postgres', 'SELECT count(*) FROM kvstore.s_default') ne '1';
cmp_ok(time - $start, '<', 3, 'and goes on');
$standby->stop;

done_testing();
