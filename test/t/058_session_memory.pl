# What a session remembers of queues: a pooled one comes by many, and its memory stays small.  And what is let go of is never a plan that is running.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('session_memory', conf => "fsync = off\nlog_statement = none\nautovacuum = off\nmax_locks_per_transaction = 500\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{
	CREATE EXTENSION kvstore;
	-- Every kept statement of delivery, and some more.
	CREATE PROCEDURE use_queue(queue text) LANGUAGE plpgsql AS $$
	DECLARE r text;
	BEGIN
		PERFORM kv_enqueue(queue, '1');
		SELECT receipt INTO r FROM kv_dequeue(queue);
		PERFORM kv_nack(r, delay => '0');
		COMMIT;
		SELECT receipt INTO r FROM kv_dequeue(queue);
		PERFORM kv_nack(r, dead => true);
		PERFORM count(*) FROM kv_peek(queue);
		PERFORM count(*) FROM kv_dead_letters(queue);
		COMMIT;
	END $$;
	-- What a session has kept: megabytes of all its memory, and the kept statements.
	CREATE VIEW kept AS SELECT sum(total_bytes) / 1048576 AS megabytes, count(*) FILTER (WHERE name = 'CachedPlanSource') AS statements
		FROM pg_backend_memory_contexts});

# ---- Queues that come and go ----

my ($megabytes, $statements) = split /\|/, sql(q{
	DO $$ BEGIN
		FOR i IN 1 .. 1000 LOOP
			PERFORM kv_create_queue('q' || i);
			CALL use_queue('q' || i);
			PERFORM kv_drop_queue('q' || i);
			COMMIT;
		END LOOP;
	END $$;
	SELECT * FROM kept});
cmp_ok($megabytes, '<', 12, 'a session that has made, used and dropped 1,000 queues has ' . int($megabytes) . ' MB');
cmp_ok($statements, '<', 100, "and keeps $statements statements");

# The same when somebody else drops them.
sql(q{DO $$ BEGIN FOR i IN 1 .. 200 LOOP PERFORM kv_create_queue('q' || i); COMMIT; END LOOP; END $$});
my $session = $node->background_psql('postgres');
$session->query_safe("CALL use_queue('q$_')") for 1 .. 40;
my $before = $session->query_safe('SELECT statements FROM kept');
sql(q{DO $$ BEGIN FOR i IN 1 .. 39 LOOP PERFORM kv_drop_queue('q' || i); COMMIT; END LOOP; END $$});
$session->query_safe("CALL use_queue('q40')");
$session->query_safe("CALL use_queue('q41')");
my $after = $session->query_safe('SELECT statements FROM kept');
cmp_ok($before - $after, '>=', 39 * 4 - 4 - 4, "dropped by another session: of $before statements $after stay");

# ---- Queues that stay ----

$session->query_safe("CALL use_queue('q$_')") for 42 .. 200;
my $many = $session->query_safe('SELECT statements FROM kept');
cmp_ok($many, '<', 64 * 4 + 20, "160 queues in use: $many statements");
$session->query_safe("CALL use_queue('q$_')") for 42 .. 60;
is($session->query_safe('SELECT statements FROM kept'), $many, 'however often they take turns');

is(sql("SELECT count(*) FROM kv_dead_letters('q60')"), 2, 'and what they do is right');

# ---- Subtransactions, one in the other ----

my $top = sql('BEGIN;' . "SAVEPOINT s; DO \$\$ BEGIN PERFORM kv_enqueue('q60', '1'); END \$\$;" x 5000 .
	q{COMMIT; SELECT (total_bytes - free_bytes) / 1024 FROM pg_backend_memory_contexts WHERE name = 'TopMemoryContext'});
cmp_ok($top, '<', 1000, "after 5,000 of them, in each of which a message was sent, a session keeps $top kB");
sql(q{SELECT kv_purge_queue('q60')});

# ---- Renamed ----

sql('ALTER TABLE kvstore.q_q60 RENAME TO q_new; ALTER TABLE kvstore.d_q60 RENAME TO d_new');
# (it warns that the settings of a new name are not known)
$session->query_safe('SET client_min_messages = error');
$session->query_safe("CALL use_queue('new')");
is($session->query_safe('SELECT statements FROM kept'), $many, 'a queue that was renamed has no statements of its old name');
is($session->query_safe("SELECT count(*) FROM kv_dead_letters('new')"), 3, 'it works under its new name');
$session->quit;

# ---- A statement is running while its plan is let go of: triggers call us again ----

sql(q{
	SELECT kv_create_queue('outer'), kv_create_store();
	CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
	DECLARE n bigint := 0;
	BEGIN
		-- more queues than keep their plans
		FOR i IN 61 .. 140 LOOP
			n := n + (SELECT count(*) FROM kv_peek('q' || i));
			n := n + (SELECT count(*) FROM kv_dead_letters('q' || i));
		END LOOP;
		-- and another name for this one
		IF TG_ARGV[0] = 'rename' THEN
			ALTER TABLE kvstore.q_outer RENAME TO q_other;
			PERFORM kv_peek('other');
			ALTER TABLE kvstore.q_other RENAME TO q_outer;
			PERFORM kv_peek('outer');
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER m1 BEFORE INSERT ON kvstore.q_outer FOR EACH ROW EXECUTE FUNCTION meddle('rename');
	CREATE TRIGGER m2 AFTER INSERT OR UPDATE ON kvstore.q_outer FOR EACH ROW EXECUTE FUNCTION meddle('use');
	CREATE TRIGGER m3 BEFORE INSERT ON kvstore.d_outer FOR EACH ROW EXECUTE FUNCTION meddle('use')});
is( sql(q{
	SELECT count(*) FROM kv_enqueue_many('outer', '{1,2,3}');
	SELECT kv_nack(receipt, delay => '0') FROM kv_dequeue('outer', 2);
	SELECT kv_nack(receipt, dead => true) FROM kv_dequeue('outer', 3);
	SELECT kv_enqueue('outer', '4', dedupe_key => 'k') = kv_enqueue('outer', '5', dedupe_key => 'k');
	SELECT count(*) FROM kv_peek('outer');
	SELECT count(*) FROM kv_dead_letters('outer')}),
	"3\nretry\nretry\ndead\ndead\ndead\nt\n1\n3", 'triggers that use many queues, and rename their own, while a statement of it runs');

$node->stop;
done_testing();
