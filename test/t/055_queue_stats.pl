# kv_queue_stats: its numbers are those of the rows, whoever wrote them and however his transaction ended; counted while others go on writing; right again after a
# crash and a restart; an estimate says so.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('qstats', conf => "kvstore.max_queues = 8\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

my $rows = q{SELECT (SELECT count(*) FROM kvstore.q_mail WHERE ready_at <= now()), (SELECT count(*) FROM kvstore.q_mail WHERE ready_at > now())};
my $exact = q{SELECT exact FROM kv_queue_stats('mail')};

# Nothing is leased: are the numbers those of the rows, from shared memory if "counted"?
sub numbers_are_right
{
	my ($name) = @_;

	is(sql(q{SELECT ready, delayed, leased FROM kv_queue_stats('mail')}), sql($rows) . '|0', $name);
	is(sql(q{SELECT messages = (SELECT count(*) FROM kvstore.q_mail) FROM kvstore.queue_counts() WHERE relid = 'kvstore.q_mail'::regclass}), 't', "$name, in shared memory");
}

# Only a queue that somebody receives from has a place in memory where its number is kept.
sub wait_until_counted
{
	my ($name) = @_;

	sql(q{SELECT kv_release(receipt) FROM kv_dequeue('mail')});
	sql($exact);
	ok($node->poll_query_until('postgres', q{SELECT messages IS NOT NULL FROM kvstore.queue_counts() WHERE relid = 'kvstore.q_mail'::regclass}), $name);
}

sql(q{CREATE EXTENSION kvstore; SELECT kv_create_queue('mail', max_attempts => 1, backoff => '{}')});

# ---- What changes the number ----

# A message that was dequeued and rolled back has failed as often as it may here: the worker makes it a dead letter, in its own time. The numbers are compared
# when it has.
my $rolled_back = q{BEGIN; SELECT kv_ack(receipt) FROM kv_dequeue('mail', 5); SELECT kv_enqueue('mail', '1'); ROLLBACK};

sql(q{SELECT count(*) FROM kv_enqueue_many('mail', array_fill('1'::jsonb, ARRAY[100]))});
wait_until_counted('it is counted once somebody has asked');
numbers_are_right('once it was counted');
sql($_), numbers_are_right($_) for (
	q{SELECT kv_enqueue('mail', '1'), kv_enqueue('mail', '1', priority => 5), kv_enqueue('mail', '1', delay => '1 hour')},
	q{SELECT kv_enqueue('mail', '1', dedupe_key => 'k'), kv_enqueue('mail', '1', dedupe_key => 'k')},
	q{SELECT kv_ack(receipt) FROM kv_dequeue('mail', 5)});
sql($rolled_back);
ok($node->poll_query_until('postgres', q{SELECT dead = 5 AND leased = 0 FROM kv_queue_stats('mail')}), 'five were rolled back too often, and are dead letters');
numbers_are_right($rolled_back);
sql($_), numbers_are_right($_) for (
	q{BEGIN; SELECT kv_enqueue('mail', '1'); SAVEPOINT a; SELECT count(*) FROM kv_enqueue_many('mail', '{1,2,3}'); ROLLBACK TO a; SELECT kv_enqueue('mail', '1'); SAVEPOINT b; SELECT kv_ack(receipt) FROM kv_dequeue('mail', 2); RELEASE b; COMMIT},
	q{SELECT kv_nack(receipt) FROM kv_dequeue('mail', 3)},
	q{SELECT kv_dead_requeue_all('mail')},
	q{SELECT kv_cancel('mail', min(id)) FROM kv_peek('mail')},
	q{SELECT kv_release(receipt, '1 hour') FROM kv_dequeue('mail', 2)},
	q{INSERT INTO kvstore.q_mail (ready_at, enqueued_at, payload) SELECT now(), now(), '1' FROM generate_series(1, 5)},
	q{INSERT INTO kvstore.q_mail (id, ready_at, enqueued_at, payload) SELECT id, now(), now(), '1' FROM kvstore.q_mail ON CONFLICT DO NOTHING},
	q{DELETE FROM kvstore.q_mail WHERE id IN (SELECT id FROM kv_peek('mail', 7))},
	q{UPDATE kvstore.q_mail SET ready_at = now() + '1 hour' WHERE id IN (SELECT id FROM kv_peek('mail', 3))},
	q{BEGIN; DELETE FROM kvstore.q_mail; ROLLBACK},
	q{BEGIN; TRUNCATE kvstore.q_mail; ROLLBACK},
	q{SELECT kv_enqueue('mail', '1'); BEGIN; SELECT kv_enqueue('mail', '1'); TRUNCATE kvstore.q_mail; SELECT count(*) FROM kv_enqueue_many('mail', '{1,2}'); SAVEPOINT a; TRUNCATE kvstore.q_mail; ROLLBACK TO a; SELECT kv_enqueue('mail', '1'); COMMIT},
	q{SELECT count(*) FROM kv_enqueue_many('mail', '{1,2}', delay => '1 hour'); SELECT kv_purge_queue('mail')},
	q{SELECT count(*) FROM kv_enqueue_many('mail', '{1,2,3,4,5,6}'); SELECT count(*) FROM kv_dequeue('mail', 2); SELECT kv_purge_queue('mail'); SELECT kv_enqueue('mail', '1')},
	q{SELECT count(*) FROM kv_dequeue('mail', 1); DELETE FROM kvstore.q_mail; SELECT kv_enqueue('mail', '1')},
	q{SELECT count(*) FROM kv_dequeue('mail', 1); TRUNCATE kvstore.q_mail RESTART IDENTITY; SELECT count(*) FROM kv_enqueue_many('mail', '{1,2}')});
is(sql(q{SELECT count(*) FROM kv_dequeue('mail', 1); SELECT ready, leased FROM kv_queue_stats('mail')}), "1\n1|1", 'leased ones');
is(sql(q{BEGIN; SELECT count(*) FROM kv_enqueue_many('mail', '{1,2}', delay => '1 hour'); SELECT ready, delayed, leased FROM kv_queue_stats('mail'); ROLLBACK}), "2\n1|2|1", 'a transaction sees its own');
like($node->psql('postgres', q{BEGIN; SELECT kv_purge_queue('mail'); PREPARE TRANSACTION 'p'}) . '', qr/3/, 'what deleted messages is not prepared');
sql(q{SELECT kv_purge_queue('mail')});

# ---- Counting while others write, and who commits when ----

# One that is committed, and publishes only after the count.
my $late = $node->background_psql('postgres');
$late->query_safe(q{SET kvstore.test_point = 'arrival'});
$late->query_safe(q{SELECT kv_enqueue('mail', '1')});
sql('SELECT kv_maintain()');
wait_until_counted('counted with a transaction that has committed and not published');
numbers_are_right('it is in the count');
$late->query_safe(q{RESET kvstore.test_point});
$late->query_safe(q{SELECT kv_enqueue('mail', '1')});
numbers_are_right('and is not added when it publishes');
# One that the count does not see.
$late->query_safe(q{BEGIN});
$late->query_safe(q{SELECT count(*) FROM kv_enqueue_many('mail', '{1,2,3}')});
sql('SELECT kv_maintain()');
wait_until_counted('counted with a transaction that goes on');
numbers_are_right('it is not in the count');
$late->query_safe(q{COMMIT});
numbers_are_right('and is added when it commits');
$late->quit;

# Many counts under load; each is right at the end, or the last one would not be.
my $script = $node->basedir . '/load.sql';
append_to_file($script, q{
SELECT kv_enqueue('mail', '1');
BEGIN;
SELECT count(*) FROM kv_enqueue_many('mail', '{1,2,3}', delay => '1 hour');
SAVEPOINT a;
SELECT kv_enqueue('mail', '2', dedupe_key => (random() * 100)::int::text);
ROLLBACK TO a;
COMMIT;
SELECT kv_ack(receipt) FROM kv_dequeue('mail', 2);
SELECT kv_cancel('mail', id) FROM kv_peek('mail', 1) WHERE status = 'delayed';
});
my $wrong = 0;
for my $round (1 .. 5)
{
	my $load = IPC::Run::start([ 'pgbench', '-n', '-c', '4', '-t', '200', '-f', $script, $node->connstr('postgres') ], '>', \my $out, '2>', \my $err);

	sql('SELECT kv_maintain()');
	sql('SELECT kv_maintain(); ' . $exact) for 1 .. 5;
	ok($load->finish, "load, round $round") || diag($err);
	wait_until_counted("counted, round $round");
	$wrong++ if sql(q{SELECT messages <> (SELECT count(*) FROM kvstore.q_mail) FROM kvstore.queue_counts() WHERE relid = 'kvstore.q_mail'::regclass}) ne 'f';
}
is($wrong, 0, 'no count was wrong');

# ---- Estimates ----

# Not by kv_purge_queue(): index entries of what the load has left would be looked at, too, and their number is chance.
sql(q{TRUNCATE kvstore.q_mail; SELECT count(*) FROM kv_enqueue_many('mail', array_fill('"0123456789012345678901234567890123456789"'::jsonb, ARRAY[20000])); SELECT count(*) FROM kv_enqueue_many('mail', array_fill('1'::jsonb, ARRAY[9000]), delay => '1 hour')});
is(sql($exact), 't', 'up to 10,000 delayed messages are counted');
numbers_are_right('with 9,000 of them');
sql(q{SELECT count(*) FROM kv_enqueue_many('mail', array_fill('1'::jsonb, ARRAY[4000]), delay => '1 hour')});
is(sql($exact), 'f', 'more are estimated');
is(sql(q{SELECT ready + delayed = (SELECT count(*) FROM kvstore.q_mail) FROM kv_queue_stats('mail')}), 't', 'but not the sum');
sql(q{DELETE FROM kvstore.q_mail WHERE ready_at > now()});

for my $how ('fast', 'immediate')
{
	$node->stop($how);
	$node->start;
	is(sql($exact), 'f', "after a stop ($how) nobody knows how many there are in a large table");
	is(sql(q{SELECT ready BETWEEN n * 0.5 AND n * 2 FROM kv_queue_stats('mail'), (SELECT count(*) AS n FROM kvstore.q_mail) c}), 't', 'there is an estimate');
	wait_until_counted('the worker counts');
	is(sql($exact), 't', 'it is exact again');
	numbers_are_right("after a stop ($how)");
}

# Another queue takes the place of this one.
sql(qq{SELECT kv_create_queue('other$_'); SELECT kv_enqueue('other$_', '1')}) for 1 .. 8;
is(sql($exact), 't', 'sending takes no place from another');
sql(qq{SELECT kv_release(receipt) FROM kv_dequeue('other$_')}) for 1 .. 8;
is(sql($exact), 'f', 'a queue that has lost its place is not counted');
is(sql(q{SELECT count(*) FROM kvstore.queue_counts()}), '8', 'and to ask takes no place from another');
sql(q{SELECT kv_drop_queue('other1'); SELECT kv_maintain()});
ok($node->poll_query_until('postgres', 'SELECT bool_and(messages IS NOT NULL) FROM kvstore.queue_counts()'), 'the others are counted');

# ---- Many queues, rights, looks ----

is(sql(q{SELECT string_agg(queue, ' ' ORDER BY queue) FROM kv_queue_stats()}), 'mail other2 other3 other4 other5 other6 other7 other8', 'all queues');
sql(q{CREATE ROLE reader; GRANT SELECT ON kvstore.q_other3 TO reader});
is(sql(q{SET ROLE reader; SELECT string_agg(queue, ' ') FROM kv_queue_stats()}), 'other3', 'those that one may read');
like(kvs_outcome($node, q{SET ROLE reader; SELECT ready FROM kv_queue_stats('mail')}), qr/^ERROR 42501/, 'others are refused');
is(sql(q{SELECT ready, delayed, leased, dead, exact, dead_exact, oldest_age_s > 0 FROM kv_queue_stats('other3')}), '1|0|0|0|t|t|t', 'a small queue is exact at once');
is(sql(q{SELECT queues, ready >= 7, leased, dead FROM kv_health()}), '8|t|0|0', 'health');
is(sql(q{SELECT kv_metrics() -> 'queue_messages' ->> 'other3'}), '1', 'metrics');

$node->stop;
done_testing();
