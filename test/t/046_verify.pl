# No message is stranded: an arrival is noted where the row has come to in the end, and what comes in past the guard is found by the worker, or by kv_maintain() at once.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('verify', init => { allows_streaming => 'logical' }, conf => "max_worker_processes = 16\n");
sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]) }

# Send a message and take it, so that the head moves over it.  "verify-soon": have the worker look below the head now, and not in a minute; it comes when the
# lease is over, and ends it should the acknowledgement be later.
sub move_head
{
	my ($point, $lease) = @_;
	return sql(qq{SET kvstore.test_point = '$point'; SELECT kv_enqueue('q', '1');
		SELECT kv_ack(receipt) FROM kv_dequeue('q', lease => '$lease')});
}

# As pg_restore --data-only --disable-triggers does.
sub restore
{
	my ($values) = @_;
	sql(qq{ALTER TABLE kvstore.q_q DISABLE TRIGGER ALL;
		COPY kvstore.q_q (ready_at, enqueued_at, priority, payload) FROM STDIN;
$values\\.
		ALTER TABLE kvstore.q_q ENABLE TRIGGER ALL;
		ALTER TABLE kvstore.q_q ENABLE ALWAYS TRIGGER kvstore_guard, ENABLE ALWAYS TRIGGER kvstore_guard_after, ENABLE ALWAYS TRIGGER kvstore_guard_truncate});
}

my $take_all = q{SELECT count(kv_ack(receipt)) FROM kv_dequeue('q', 10000, lease => '1 hour')};

# How many are taken in the end by one who comes back again and again, with nothing but that to bring the worker.
sub taken
{
	my ($expected, $name, $point) = @_;
	my $all = 0;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	my $session = $node->background_psql('postgres');

	$session->query_safe("SET kvstore.test_point = '" . ($point // 'verify-soon') . "'");
	$all += $session->query_safe($take_all) while $all < $expected && time < $end;
	$session->quit;
	return is($all, $expected, $name);
}

sql(q{CREATE EXTENSION kvstore; SELECT kv_create_queue('q')});
my $offset = -s $node->logfile;

# ---- Below a head that has moved ----

move_head('', '1 hour');
restore("2000-01-01\t2000-01-01\t0\t\"stranded\"\n");
is(sql($take_all), '0', 'a dequeue does not find what was restored with triggers disabled');
move_head('verify-soon', '10 ms');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM kv_dequeue('q', lease => '1 hour') WHERE payload = '"stranded"'}), 'the worker does');
ok($node->wait_for_log(qr/message \d+ of queue "q" would not have been delivered/, $offset), 'and says so');
sql(q{SELECT kv_purge_queue('q')});

# ---- Where nothing is said to be, in a queue that has run empty; of all priorities, more than one look sees ----

sql($take_all);
restore(join('', map { "2020-01-01\t2020-01-01\t" . $_ % 10 . "\t$_\n" } 1 .. 2000));
$offset = -s $node->logfile;
taken(2000, 'an empty queue: one verification finds all');
my $lines = () = slurp_file($node->logfile, $offset) =~ /would not have been delivered/g;
cmp_ok($lines, '<=', 10, "with $lines lines in the log");

# Above the head, where a dequeue does not look: nothing is said to be there.
sql($take_all);
restore("2020-01-01\t2020-01-01\t3\t1\n");
taken(1, 'above the head');

# One who waits: it is the wait that brings the worker.
sql($take_all);
my $waiter = $node->background_psql('postgres');
$waiter->query_safe(q{SET kvstore.test_point = 'verify-soon'});
$waiter->query_until(qr/begun/, q{\echo begun
SELECT count(kv_ack(receipt)) AS woken FROM kv_dequeue('q', 10, wait => '10 min');
});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM kvstore.waiters()}), 'somebody waits');
is(sql(q{CREATE ROLE onlooker; SET ROLE onlooker; SELECT count(*) FROM kvstore.waiters()}), '0', 'which is not for everybody to know');
is(sql(q{GRANT pg_monitor TO onlooker; SET ROLE onlooker; SELECT count(*) FROM kvstore.waiters()}), '1', 'but for who watches the server');
restore("2020-01-01\t2020-01-01\t5\t1\n");
$waiter->query_safe('SELECT 1');
is(sql(q{SELECT count(*) FROM kv_peek('q')}), '0', 'and gets it');
$waiter->quit;

# ---- kv_maintain() ----

sql($take_all);
restore(join('', map { "2020-01-01\t2020-01-01\t" . $_ % 10 . "\t$_\n" } 1 .. 100));
is(sql($take_all), '0', 'restored past the guard');
sql(q{CREATE ROLE nobody; SET ROLE nobody; SELECT kv_maintain()});
is(sql($take_all), '0', 'kv_maintain() by a role without rights changes nothing');
sql(q{CREATE ROLE cleaner; GRANT DELETE ON kvstore.q_q TO cleaner; SET ROLE cleaner; SELECT kv_maintain()});
is(sql($take_all), '100', 'by one with DELETE: all is found at once');
$waiter = $node->background_psql('postgres');
$waiter->query_until(qr/begun/, q{\echo begun
SELECT count(kv_ack(receipt)) AS woken FROM kv_dequeue('q', 10, wait => '10 min');
});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM kvstore.waiters()}), 'somebody waits');
restore("2020-01-01\t2020-01-01\t5\t1\n");
sql('SELECT kv_maintain()');
$waiter->query_safe('SELECT 1');
is(sql(q{SELECT count(*) FROM kv_peek('q')}), '0', 'who waits gets it');
$waiter->quit;

# ---- Triggers of the owner's whose names sort behind the guard's ----

sql(q{
	CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		NEW.priority := 7; NEW.ready_at := '2001-02-03'; RETURN NEW;
	END $$;
	CREATE TRIGGER zz_other BEFORE INSERT OR UPDATE ON kvstore.q_q FOR EACH ROW EXECUTE FUNCTION other()});
sql($take_all);
my $row = q{(ready_at, enqueued_at, payload) VALUES (now(), now(), '1')};
my %ways = (
	'INSERT' => "INSERT INTO kvstore.q_q $row",
	'INSERT ON CONFLICT' => q{INSERT INTO kvstore.q_q (id, ready_at, enqueued_at, payload) VALUES (1000000, now() + '1 day', now(), '1'); UPDATE kvstore.q_q SET attempts = 0 WHERE id = 1000000;
		INSERT INTO kvstore.q_q (id, ready_at, enqueued_at, payload) VALUES (1000000, now(), now(), '1') ON CONFLICT (id) DO UPDATE SET headers = '1'},
	'COPY' => "COPY kvstore.q_q (ready_at, enqueued_at, payload) FROM STDIN;\n2030-01-01\t2020-01-01\t1\n\\.\n",
	'MERGE' => qq{MERGE INTO kvstore.q_q USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT $row},
	'kv_enqueue' => q{SELECT kv_enqueue('q', '1', delay => '1 day')});
for my $way (sort keys %ways)
{
	sql($ways{$way});
	is(sql($take_all), '1', "delivered where the trigger has put it: $way");
}
sql(q{ALTER TABLE kvstore.q_q DISABLE TRIGGER zz_other; SELECT kv_enqueue('q', '1', delay => '1 day'); ALTER TABLE kvstore.q_q ENABLE TRIGGER zz_other});
sql($take_all);
sql(q{UPDATE kvstore.q_q SET headers = '2'});
is(sql($take_all), '1', 'delivered where the trigger has put it: UPDATE');
# A trigger cannot put it where no queue has a message.
sql(q{CREATE OR REPLACE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.priority := 10; RETURN NEW; END $$});
like(kvs_outcome($node, "INSERT INTO kvstore.q_q $row"), qr/^ERROR 23514: priority must be between 0 and 9/, 'but within bounds');
sql(q{CREATE OR REPLACE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.ready_at := 'infinity'; RETURN NEW; END $$});
like(kvs_outcome($node, "INSERT INTO kvstore.q_q $row"), qr/^ERROR 23514: ready_at must not be infinite/, 'nor put it off for ever');
# One AFTER that writes the row again.
sql(q{
	CREATE OR REPLACE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		UPDATE kvstore.q_q SET priority = 2, ready_at = '2001-01-01' WHERE id = NEW.id AND priority <> 2; RETURN NULL;
	END $$;
	DROP TRIGGER zz_other ON kvstore.q_q;
	CREATE TRIGGER zz_other AFTER INSERT ON kvstore.q_q FOR EACH ROW EXECUTE FUNCTION other()});
sql($take_all);
sql("INSERT INTO kvstore.q_q $row");
is(sql($take_all), '1', 'an AFTER trigger');
sql(q{DROP TRIGGER zz_other ON kvstore.q_q});

# An UPDATE that is rolled back, while somebody looks: the row is where it was.
sql(q{SELECT kv_enqueue('q', '"back"')});
my $owner = $node->background_psql('postgres');
$owner->query_safe(q{BEGIN; UPDATE kvstore.q_q SET ready_at = now() + '1 day'});
sql(q{SELECT count(*) FROM kv_dequeue('q')}) for 1 .. 2;
$owner->query_safe('ROLLBACK');
$owner->quit;
is(sql(q{SELECT count(*) FROM kv_peek('q') WHERE status = 'leased'}) + sql($take_all), '1', 'an UPDATE that is rolled back strands nothing');
sql(q{SELECT kv_purge_queue('q')});

# ---- A subscription ----

sql('CREATE DATABASE origin');
sql(q{CREATE EXTENSION kvstore; SELECT kv_create_queue('q'); CREATE PUBLICATION p FOR TABLE kvstore.q_q; SELECT pg_create_logical_replication_slot('kvs', 'pgoutput')}, 'origin');
sql(q{CREATE OR REPLACE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.priority := 7; NEW.ready_at := '2001-02-03'; RETURN NEW; END $$;
	CREATE TRIGGER zz_other BEFORE INSERT OR UPDATE ON kvstore.q_q FOR EACH ROW EXECUTE FUNCTION other();
	ALTER TABLE kvstore.q_q ENABLE ALWAYS TRIGGER zz_other});
sql($take_all);
sql("CREATE SUBSCRIPTION s CONNECTION '" . $node->connstr('origin') =~ s/'/''/gr . "' PUBLICATION p WITH (create_slot = false, slot_name = kvs)");
sql(q{SELECT kv_enqueue('q', '"applied"')}, 'origin');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM kvstore.q_q}), 'a row has come by a subscription');
# As long as the subscription goes on, the queue is a copy that nobody receives from.
sql('ALTER SUBSCRIPTION s DISABLE');
is(sql($take_all), '1', 'and is delivered where the trigger has put it');
sql('ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s; DROP TRIGGER zz_other ON kvstore.q_q');
sql(q{SELECT pg_drop_replication_slot('kvs')}, 'origin') if $node->poll_query_until('postgres', q{SELECT NOT active FROM pg_replication_slots});

# ---- What is no reason to say anything ----

$offset = -s $node->logfile;
# What has expired is not missed by anybody.
sql(q{SELECT kv_enqueue('q', '"short-lived"', ttl => '1 ms')});
sql(q{SELECT pg_sleep(0.01)});
# What is found by a dequeue.
sql(q{SELECT kv_enqueue('q', to_jsonb(i), priority => i % 10) FROM generate_series(1, 100) i; SELECT id FROM kv_dequeue('q', 50);
	BEGIN; SELECT id FROM kv_dequeue('q', 25); ROLLBACK});
move_head('verify-soon', '10 ms');
sql(q{SELECT kv_nack(receipt, '0') FROM kv_dequeue('q', 3)});
move_head('verify-soon', '10 ms');
$node->stop;
unlike(slurp_file($node->logfile, $offset), qr/would not have been delivered/, 'nothing else is reported');
done_testing();
