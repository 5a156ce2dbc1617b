# Queues that are dropped, with and without the extension, while clients send and receive; and the horizon pinned by somebody's old snapshot.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('queue_drop', conf => "fsync = off\nlog_statement = none\nautovacuum = off\n");
my $dir = PostgreSQL::Test::Utils::tempdir;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Until a query gives "t"; fails after some minutes.
sub wait_until
{
	my ($query, $name) = @_;

	return ok($node->poll_query_until('postgres', $query), $name);
}

sql('CREATE EXTENSION kvstore');

# ---- Queues and the extension are dropped under load ----

append_to_file("$dir/any", <<'SQL');
SELECT what(CASE floor(random() * 3) WHEN 0 THEN 'SELECT kv_enqueue(''load'', ''1'')' WHEN 1 THEN 'SELECT kv_ack(receipt) FROM kv_dequeue(''load'', 3)'
    ELSE 'SELECT kv_nack(receipt) FROM kv_dequeue(''load'', 2, ''0.1 s'')' END);
SQL
sql(q{
	CREATE TABLE states (state text, n int);
	CREATE UNLOGGED TABLE done (n int);
	-- Whoever is in the middle of it gets an error that says what is missing, and can go on.
	CREATE FUNCTION what(statement text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE statement;
		INSERT INTO done VALUES (1);
		RETURN NULL;
	EXCEPTION WHEN undefined_table OR undefined_function OR object_not_in_prerequisite_state OR deadlock_detected THEN
		RETURN SQLSTATE;
	END $$});
my $load = '';
my $handle = IPC::Run::start([ 'pgbench', '-n', '-c', 8, '-T', 600, '-f', "$dir/any", '-h', $node->host, '-p', $node->port, 'postgres' ], '<', \undef, '>', \$load, '2>&1');
for my $how ("SELECT kv_drop_queue('load')", 'SET client_min_messages = error; DROP EXTENSION kvstore CASCADE; DROP TABLE IF EXISTS kvstore.q_load, kvstore.d_load; DROP SCHEMA IF EXISTS kvstore CASCADE; CREATE EXTENSION kvstore')
{
	for my $round (1 .. 5)
	{
		sql("SELECT kv_create_queue('load', backoff => '{10ms}', max_attempts => 3)");
		my $before = sql('SELECT count(*) FROM done');
		wait_until("SELECT count(*) > $before + 100 FROM done", 'messages pass');
		my $outcome;
		# who drops several tables, and who receives while they go, may wait for each other, as with any DDL
		do { $outcome = kvs_outcome($node, $how) } while ($outcome =~ /^ERROR 40P01/);
		unlike($outcome, qr/^ERROR/, "dropped under load: " . substr($how, 0, 50));
	}
}
ok($handle->pumpable, 'the clients go on');
$handle->kill_kill;
unlike($load, qr/ERROR|aborted/, 'and have met no other error') or diag($load);
wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'SELECT what(%' AND pid <> pg_backend_pid()", 'they have ended');
sql("SELECT kv_create_queue('load')");
is(sql("SELECT count(*) FROM (SELECT kv_enqueue('load', '1')) s"), '1', 'afterwards a queue takes messages');
is(sql("SELECT kv_ack(receipt) FROM kv_dequeue('load')"), 't', 'and gives them');
wait_until("SELECT count(*) = 0 FROM kv_leases", 'no lease is left');

# Its leases do not wait for their deadlines.
sql("SELECT kv_enqueue('load', '1'); SELECT id FROM kv_dequeue('load', lease => '12 hours')");
is(sql("SELECT count(*) FROM kvstore.leases()"), '1', 'a lease of twelve hours');
sql("SELECT kv_drop_queue('load')");
wait_until("SELECT count(*) = 0 FROM kvstore.leases()", 'goes with its queue');
sql("SELECT kv_create_queue('load')");

# The worker stops where it has found what has expired, in a store and in a queue.  It has locks, and needs more of them: so DROP EXTENSION has to wait before
# it has any.
my $gate = $node->background_psql('postgres');
sql('SELECT kv_create_store()');
for my $expired ("kv_set(gen_random_uuid()::text, '1', ttl => '0')", "kv_enqueue('load', '1', ttl => '0')")
{
	$gate->query_safe('SELECT pg_advisory_lock(7777)');
	sql("ALTER SYSTEM SET kvstore.test_point = 'found'; SELECT pg_reload_conf()");
	# what was removed before the worker has read the setting is followed by more
	wait_until("SELECT (SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted) FROM $expired", 'the worker is at it');
	my $drop = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SET client_min_messages = error', '-c', 'DROP EXTENSION kvstore CASCADE' ],
		'<', \undef, '>', \my $said, '2>', \my $complaint);
	wait_until("SELECT count(*) = 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted", 'DROP EXTENSION waits');
	sql('ALTER SYSTEM RESET kvstore.test_point; SELECT pg_reload_conf()');
	$gate->query_safe('SELECT pg_advisory_unlock(7777)');
	$drop->finish;
	is($complaint, '', 'and drops the extension when the worker has done that');
	sql("SET client_min_messages = error; DROP SCHEMA IF EXISTS kvstore CASCADE; CREATE EXTENSION kvstore; SELECT kv_create_queue('load')");
}
$gate->quit;

# ---- The horizon is pinned ----

my $other = $node->background_psql('postgres');
# What is dead stays in the table and its index; yet a dequeue looks at a handful of pages.
$other->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM kvstore.q_load");
sql(q{
	CREATE FUNCTION pass(number int) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. number LOOP
			PERFORM kv_enqueue_many('load', '{1,2,3,4,5,6,7,8,9,10}');
			PERFORM kv_ack_many((SELECT array_agg(receipt) FROM kv_dequeue('load', 10)));
		END LOOP;
	END $$});
my $pages = sub {
	sql("SELECT kv_enqueue('load', '1')");
	my ($buffers) = sql("SELECT kv_ack_many(array_agg(receipt)) FROM kv_dequeue('load'); SELECT kv_enqueue('load', '1'); EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, COSTS OFF, SUMMARY OFF) SELECT kv_ack(receipt) FROM kv_dequeue('load')")
	  =~ /Buffers: shared hit=(\d+)/;
	return $buffers;
};
$pages->();
my $at_first = $pages->();
# each batch in its own transactions, so that each is committed
sql(join ';', map { 'SELECT pass(20)' } 1 .. 100);
is(sql("SELECT count(*) FROM kvstore.q_load"), '0', '20,000 messages have passed');
my $later = $pages->();
cmp_ok($later, '<=', $at_first + 20, "a dequeue looks at as many pages as before: $at_first, $later");
# One that comes late does not lead back to the bottom.
my $late = $node->background_psql('postgres');
$late->query_safe("BEGIN; SELECT kv_enqueue('load', '\"late\"')");
sql(join ';', map { 'SELECT pass(20)' } 1 .. 20);
$late->query_safe('COMMIT');
is(sql("SELECT payload, kv_ack(receipt) FROM kv_dequeue('load')"), '"late"|t', 'one that commits late is found');
$later = $pages->();
cmp_ok($later, '<=', $at_first + 20, "and then it is as before: $later");
$late->quit;
$other->query_safe('COMMIT');
$other->quit;
$node->stop;

done_testing();
