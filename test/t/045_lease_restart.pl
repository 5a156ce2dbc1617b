# Leases over a restart: a clean one keeps them, with returned messages and what was counted; a crash does not, and what was delivered is delivered again.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

# Without workers, so that nothing ends a lease but what is tested.
my $node = kvs_node('leases', conf => "max_worker_processes = 0\nkvstore.max_leases = 100\nkvstore.max_leases_per_queue = 0\n");

sub sql { return $node->safe_psql('postgres', $_[0]) }
my $leases = q{SELECT string_agg(id || ' ' || state || ' ' || attempts, ', ' ORDER BY id) FROM kv_leases};

sql(q{CREATE EXTENSION kvstore; SELECT kv_create_queue('q', backoff => '{1h}'); SELECT kv_enqueue('q', to_jsonb(i), priority => 9 - i) FROM generate_series(1, 4) i});
my $held = sql(q{SELECT receipt FROM kv_dequeue('q', lease => '1 hour')});
my $lapsing = sql(q{SELECT receipt FROM kv_dequeue('q', lease => '1 ms')});
sql(q{BEGIN; SELECT id FROM kv_dequeue('q'); ROLLBACK});
my $until = sql(q{SELECT leased_until FROM kv_leases WHERE id = 1});
is(sql($leases), '1 leased 1, 2 returned 1, 3 returned 1', 'before the restart one message is held, one has expired, one was rolled back');

$node->restart;
is(sql($leases), '1 leased 1, 2 returned 1, 3 returned 1', 'a clean restart keeps that');
is(sql(q{SELECT leased_until FROM kv_leases WHERE id = 1}), $until, '... and the deadline');
is(sql(q{SELECT string_agg(id || ' ' || attempts, ', ' ORDER BY id) FROM kv_dequeue('q', 10, '12 hours')}), '3 2, 4 1',
	'what is held is not delivered, nor what waits for its backoff; what was rolled back is, and is known to have been');
is(sql("SELECT kv_ack('$held'), kv_ack('$held')"), 't|f', 'the receipt from before the restart is good, once');
is(sql(q{SET kvstore.test_clock = 7200; SELECT id, attempts FROM kv_dequeue('q', 10, '12 hours')}), '2|2', 'what has expired is delivered after its backoff');
is(sql("SELECT kv_ack('$lapsing')"), 'f', 'the receipt of the one that has expired is stale');
is(sql($leases), '2 leased 2, 3 leased 2, 4 leased 1', 'three are held');

my $old = sql(q{SELECT kv_enqueue('q', '5'); SELECT receipt FROM kv_dequeue('q')});
$old =~ s/.*\n//;
$node->stop('immediate');
$node->start;
is(sql($leases), '', 'after a crash there are no leases');
is(sql(q{SELECT string_agg(id::text, ', ' ORDER BY id) FROM kv_dequeue('q', 3)}), '2, 3, 4', 'all is delivered again');
is(sql("SELECT kv_ack('$old')"), 't', 'and an old receipt acknowledges what nobody else holds');

sql(q{SELECT kv_enqueue('q', to_jsonb(i)) FROM generate_series(1, 50) i; SELECT id FROM kv_dequeue('q', 50)});
$node->append_conf('postgresql.conf', 'kvstore.max_leases = 16');
my $offset = -s $node->logfile;
$node->restart;
like(slurp_file($node->logfile, $offset), qr/not all leases could be restored/, 'with less room for leases the server says so');
cmp_ok(sql('SELECT count(*) FROM kv_leases'), '>=', 16, 'and keeps as many as it can');

done_testing();
