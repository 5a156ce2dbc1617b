# Tables that were queues and are none any more: their leases expire all the same, and are forgotten after a minute, also when a restart has brought them back.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('queue_strange');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub wait_until
{
	my ($query, $name) = @_;

	return ok($node->poll_query_until('postgres', $query), $name);
}

sql('CREATE EXTENSION kvstore');
sql("SELECT kv_create_queue(q, lease => CASE q WHEN 'long' THEN interval '10 min' ELSE '0.5 s' END), kv_enqueue(q, '1') FROM unnest('{away,moved,other,secure,long}'::text[]) q");
sql("SELECT count(*) FROM kv_dequeue('$_')") for qw(away moved other secure long);
sql('CREATE SCHEMA elsewhere; ALTER TABLE kvstore.q_away RENAME TO d_ren; ALTER TABLE kvstore.q_moved SET SCHEMA elsewhere; ALTER TABLE kvstore.q_other ALTER priority TYPE int;
	ALTER TABLE kvstore.q_secure ENABLE ROW LEVEL SECURITY; ALTER TABLE kvstore.q_long RENAME TO x_long');
is(sql("SELECT count(*), string_agg(queue, ' ' ORDER BY queue) FROM kv_leases"), '5|other secure', 'no other table is called a queue');
wait_until("SELECT count(*) = 4 AND bool_and(attempts = 1) FROM kv_leases WHERE state = 'returned'", 'their leases expire')
  or diag(sql('SELECT * FROM kv_leases'));
$node->restart;
wait_until("SELECT count(*) = 0 FROM kv_leases", 'and are forgotten after a minute, though a restart has brought them back')
  or diag(sql('SELECT * FROM kv_leases'));
is(sql("SELECT count(*) FROM kvstore.queue_counts()"), '0', 'with their places');
wait_until("SELECT status = 'ok' FROM kv_health()", 'and all is well');
sql('ALTER TABLE kvstore.q_secure DISABLE ROW LEVEL SECURITY; ALTER TABLE kvstore.d_ren RENAME TO q_away');
is(sql("SELECT payload FROM kv_dequeue('$_')"), '1', "a queue again: $_") for qw(secure away);
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|terminated by signal/, 'nothing crashed');
$node->stop;

done_testing();
