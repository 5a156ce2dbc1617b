# Queues in trouble: no worker, a worker that is terminated, a poison message, no room for leases or for queues, no
# preload.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use KvsTest;

my $node = kvs_node('queue_trouble', conf => "fsync = off\nlog_statement = none\nkvstore.max_leases = 20\nkvstore.max_leases_per_queue = 0\nkvstore.max_queues = 3\nautovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Until a query gives "t"; fails after a minute.
sub wait_until
{
	my ($query, $name) = @_;

	return ok($node->poll_query_until('postgres', $query), $name);
}

sql('CREATE EXTENSION kvstore');

# ---- The worker ends leases, though nobody looks ----

my $worker = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'kvstore worker' AND datname = current_database()";
sql("SELECT kv_create_queue('lapse', lease => '0.5 s', max_attempts => 2, backoff => '{}')");
sql("SELECT kv_enqueue('lapse', '1')");
sql("SELECT count(*) FROM kv_dequeue('lapse')");
wait_until("SELECT attempts = 1 AND last_error = 'lease expired' AND status = 'ready' FROM kv_peek('lapse')", 'a lease that lapses is a failed attempt, though nobody looks');
sql("SELECT count(*) FROM kv_dequeue('lapse')");
wait_until("SELECT count(*) = 1 FROM kv_dead_letters('lapse') WHERE error = 'lease expired' AND attempts = 2", 'the second one is the end of it');
wait_until("SELECT count(*) = 0 FROM kvstore.q_lapse", 'it is in the queue no more');

# Terminated while it has something to do, it comes again.
sql("SELECT count(*) FROM kv_enqueue_many('lapse', array_fill('1'::jsonb, ARRAY[10]), max_attempts => 1)");
sql("SELECT count(*) FROM kv_dequeue('lapse', 5, '2 s'); SELECT count(*) FROM kv_dequeue('lapse', 5, '3 s')");
wait_until("SELECT EXISTS ($worker)", 'a worker is there');
sql("SELECT pg_terminate_backend(($worker))");
wait_until("SELECT count(*) = 11 FROM kv_dead_letters('lapse', 100)", 'a worker that was terminated comes again, and goes on');
wait_until("SELECT count(*) = 0 FROM kv_leases", 'no lease is left');

# One that has locked a row is not waited for, and the others do not wait either.
my $other = $node->background_psql('postgres');
sql("SELECT kv_dead_purge('lapse'); SELECT count(*) FROM kv_enqueue_many('lapse', '{1,2,3}', max_attempts => 1)");
$other->query_safe("BEGIN; SELECT FROM kvstore.q_lapse WHERE payload = '1' FOR UPDATE");
sql("SELECT count(*) FROM kv_dequeue('lapse', 3)");
wait_until("SELECT count(*) = 2 FROM kv_dead_letters('lapse')", 'a locked row does not hold up the others');
is(sql("SELECT payload FROM kvstore.q_lapse"), '1', 'and is passed over');
$other->query_safe('COMMIT');
wait_until("SELECT count(*) = 3 FROM kv_dead_letters('lapse')", 'until it is free');

# One whose table its owner has altered cannot be read: it keeps its leases until it can.  He has it to himself meanwhile, so that the worker comes too late.
sql("SELECT kv_enqueue('lapse', '4', max_attempts => 1)");
sql("BEGIN; LOCK TABLE kvstore.q_lapse; SELECT count(*) FROM kv_dequeue('lapse'); ALTER TABLE kvstore.q_lapse RENAME payload TO content; COMMIT");
wait_until("SELECT count(*) = 1 FROM kv_leases WHERE state = 'dying' AND attempts = 1", 'a lease of a queue that cannot be read ends in memory');
sql('ALTER TABLE kvstore.q_lapse RENAME content TO payload');
wait_until("SELECT count(*) = 4 FROM kv_dead_letters('lapse')", 'when it can be read, the message is a dead letter');

# ---- A consumer that always fails inside its transaction ----

sql("SELECT kv_create_queue('poison', max_attempts => 3, backoff => '{}'); SELECT kv_enqueue('poison', '\"poison\"'), kv_enqueue('poison', '\"behind\"')");
my @seen;
for (1 .. 1000)
{
	push @seen, sql("BEGIN; SELECT payload #>> '{}', attempts FROM kv_dequeue('poison'); ROLLBACK");
	last if $seen[-1] =~ /behind/;
	usleep(10_000) if $seen[-1] eq '';
}
is(join(' ', grep { $_ ne '' } @seen), 'poison|1 poison|2 poison|3 behind|1', 'a message that fails its transaction is tried until max_attempts, and the queue behind it moves on');
wait_until("SELECT count(*) = 1 FROM kv_dead_letters('poison') WHERE error = 'rolled back' AND attempts = 3", 'it is dead');
is(sql("SELECT bool_and(kv_ack(receipt)) FROM kv_dequeue('poison', 5)"), 't', 'what is behind can be processed');
is(sql("SELECT count(*) FROM kvstore.q_poison"), '0', 'nothing is left');
sql("SELECT kv_drop_queue('poison'), kv_drop_queue('lapse')");

# ---- Messages that take too long, and messages that cannot be settled ----

# Slow ones do not hold up one behind them: each alone is put off.
$node->append_conf('postgresql.conf', "kvstore.step_timeout = '500 ms'");
$node->reload;
sql(q{SELECT kv_create_queue('slow', max_attempts => 1);
	CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.payload = '"slow"' THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$;
	CREATE TRIGGER slow BEFORE INSERT ON kvstore.d_slow FOR EACH ROW EXECUTE FUNCTION slow();
	SELECT count(*) FROM kv_enqueue_many('slow', array_fill('"slow"'::jsonb, ARRAY[8])); SELECT kv_enqueue('slow', '"good"')});
my $start = time;
is(sql("SELECT count(kv_nack(receipt)) FROM kv_dequeue('slow', 9)"), '9', 'nine are given up');
wait_until("SELECT count(*) = 1 FROM kv_dead_letters('slow') WHERE payload = '\"good\"'", 'eight that take too long do not keep the ninth from the dead letters');
cmp_ok(time - $start, '<', 60, 'at least not for long');
wait_until("SELECT count(*) = 8 AND bool_or(error ~ 'took too long') FROM kv_leases WHERE queue = 'slow' AND state IN ('stuck', 'ending')", 'they are stuck, and why is told');
is(sql("SELECT count(*) FROM kvstore.troubles()"), '0', 'but the queue is not set aside');
sql("DROP TRIGGER slow ON kvstore.d_slow; SELECT kv_purge_queue('slow'), kv_dead_purge('slow')");
# Keys of a store whose owner's code takes too long, though it catches the cancel, are given up.
sql(q{SELECT kv_create_store('slow');
	CREATE FUNCTION catching() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; EXCEPTION WHEN query_canceled THEN RETURN NEW; END $$;
	CREATE TRIGGER catching BEFORE INSERT ON kvstore.s_slow FOR EACH ROW EXECUTE FUNCTION catching();
	SELECT kv_enqueue('slow', '1', keys_if_undelivered => '["k"]', undelivered_store => 'slow')});
is(sql("SELECT kv_nack(receipt, error => 'why') FROM kv_dequeue('slow')"), 'dead', 'one with keys');
wait_until("SELECT count(*) = 1 FROM kv_dead_letters('slow') WHERE error = 'why; undelivered keys not written: they took too long, see kvstore.step_timeout'", 'is a dead letter without them in the end');
$node->append_conf('postgresql.conf', "kvstore.step_timeout = '5 s'\nkvstore.max_leases_per_queue = 6");
$node->reload;
sql("SELECT kv_drop_queue('slow'), kv_drop_store('slow'); DROP FUNCTION slow, catching");
# Those that cannot be settled take no room from consumers.
sql(q{SELECT kv_create_queue('stuck');
	CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'stuck' USING errcode = '40001'; END $$;
	CREATE TRIGGER stuck BEFORE INSERT ON kvstore.d_stuck FOR EACH ROW EXECUTE FUNCTION stuck()});
wait_until("SELECT current_setting('kvstore.max_leases_per_queue') = '6'", 'six leases for a queue');
sql("SELECT count(*) FROM kv_enqueue_many('stuck', array_fill('1'::jsonb, ARRAY[10]))");
is(sql("SELECT count(kv_nack(receipt, dead => true)) FROM kv_dequeue('stuck', 5)"), '5', 'five are given up') for 1 .. 2;
wait_until("SELECT count(*) BETWEEN 1 AND 3 AND bool_and(state = 'stuck') FROM kv_leases", 'what cannot be settled is known to memory up to a limit');
sql("SELECT count(*) FROM kv_enqueue_many('stuck', array_fill('2'::jsonb, ARRAY[10]))");
is(sql("SELECT count(*) FROM kv_dequeue('stuck', 100)"), '6', 'and consumers lease as many as ever');
like(kvs_outcome($node, "SELECT count(*) FROM kv_dequeue('stuck')"), qr/^ERROR KV004: queue "stuck" has too many leases/, 'and no more');
sql("DROP TRIGGER stuck ON kvstore.d_stuck");
wait_until("SELECT count(*) = 10 FROM kv_dead_letters('stuck', 100)", 'when they can be settled, all of them are, by their rows');
sql("SELECT kv_drop_queue('stuck'); DROP FUNCTION stuck");
$node->append_conf('postgresql.conf', 'kvstore.max_leases_per_queue = 0');
$node->reload;
wait_until("SELECT current_setting('kvstore.max_leases_per_queue') = '0'", 'no limit');

# ---- No room for leases ----

sql("SELECT kv_create_queue('full', lease => '1 hour'), kv_create_queue('full2', lease => '1 hour'); SELECT count(*) FROM kv_enqueue_many('full', array_fill('1'::jsonb, ARRAY[100])); SELECT kv_enqueue('full2', '1')");
my @receipts = split /\n/, sql("SELECT receipt FROM kv_dequeue('full', 100)");
cmp_ok(scalar @receipts, '>=', 16, 'a dequeue gives what there is room for: ' . @receipts);
cmp_ok(scalar @receipts, '<', 100, 'and no more');
like(kvs_outcome($node, "SELECT count(*) FROM kv_dequeue('$_')"), qr/^ERROR KV004: too many leases/, "then it is KV004: $_") for qw(full full2);
my ($status, $out, $err) = $node->psql('postgres', "SELECT count(*) FROM kv_dequeue('full')");
like($err, qr/HINT:  Acknowledge messages, or increase "kvstore.max_leases", which is 20, and restart the server\./, 'with a hint');
is(sql("BEGIN; SELECT kv_cancel('full2', 1); ROLLBACK"), 't', 'kv_cancel() needs none');
is(sql("SELECT count(*) FROM (SELECT kv_enqueue('full', '1')) s"), '1', 'sending goes on');
is(sql("SELECT kv_ack('$receipts[0]'), kv_nack('$receipts[1]') IS NOT NULL, kv_extend('$receipts[2]') IS NOT NULL"), 't|t|t', 'and so does all with the leases that there are');
is(sql("SELECT kv_ack_many(array_agg(receipt)) FROM kv_dequeue('full2')"), '1', 'what becomes free others can use');
sql("SELECT kv_ack_many('{" . join(',', @receipts[ 2 .. $#receipts ]) . "}')");
my $received = 0;
for (1 .. 200)
{
	$received += sql("SELECT coalesce(kv_ack_many(array_agg(receipt)), 0) FROM kv_dequeue('full', 7)");
	last if sql("SELECT count(*) FROM kvstore.q_full") == 0;
	usleep(10_000);
}
is($received + @receipts - 1, 101, 'nothing is lost');
# A rollback of a dequeue that was refused, and of one that filled it.
sql("SELECT count(*) FROM kv_enqueue_many('full', array_fill('1'::jsonb, ARRAY[40]))");
# (in one call: two seconds later the worker writes down that they have failed)
is(sql("BEGIN; SELECT count(*) FROM kv_dequeue('full', 100); ROLLBACK; SELECT count(*) FROM kv_leases WHERE state = 'returned'"),
	@receipts . "\n" . @receipts, 'returned ones take room, and kv_leases shows them all');
is(sql("SELECT count(*) > 0 FROM kv_dequeue('full', 100)"), 't', 'and are given');
sql("SELECT kv_purge_queue('full')");
$node->append_conf('postgresql.conf', 'kvstore.max_leases_per_queue = 3');
$node->reload;
sql("SELECT count(kv_release_id('full', id)) FROM kv_leases; SELECT count(*) FROM kv_dequeue('full', 100)");
is(sql("SELECT state, count(*), min(id), max(id) FROM kv_leases GROUP BY 1"), '', 'leases of what is gone are forgotten');
wait_until("SELECT current_setting('kvstore.max_leases_per_queue') = '3'", 'a limit for one queue');
sql("SELECT count(*) FROM kv_enqueue_many('full', array_fill('1'::jsonb, ARRAY[10])); SELECT kv_enqueue('full2', '1')");
is(sql("SELECT count(*) FROM kv_dequeue('full', 100)"), '3', 'three of the one');
like(kvs_outcome($node, "SELECT count(*) FROM kv_dequeue('full')"), qr/^ERROR KV004: queue "full" has too many leases/, 'and no more');
is(sql("SELECT count(*) FROM kv_dequeue('full2')"), '1', 'that does not concern the other');
# A late receipt needs no lease.  Whoever has leased the message while it is used keeps it; whoever comes later does not get it.
sql("SELECT kv_purge_queue('full'), kv_purge_queue('full2'), kv_create_queue('late', lease => '1 s', backoff => '{}'); SELECT kv_enqueue('late', '1')");
sub late_ack
{
	my ($point, $receipt, $meanwhile) = @_;
	my $gate = $node->background_psql('postgres');
	my $acker = $node->background_psql('postgres');

	wait_until("SELECT attempts > 0 FROM kvstore.q_late WHERE NOT EXISTS (SELECT FROM kv_leases WHERE queue = 'late')", "$point: its lease is gone");
	sql("SELECT count(*) FROM kv_enqueue_many('late', '{2,3,4}', priority => 9)");
	is(sql("SELECT count(*) FROM kv_dequeue('late', 3, lease => '1 hour')"), '3', "$point: others have all leases");
	$gate->query_safe('SELECT pg_advisory_lock(7777)');
	$acker->query_safe("SET kvstore.test_point = '$point'");
	$acker->query_until(qr/begun/, "\\echo begun\nSELECT kv_ack('$receipt') AS late;\n\\echo ended\n");
	wait_until("SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", "$point: it is being acknowledged");
	sql("SELECT count(kv_release_id('late', id)) FROM kv_leases WHERE queue = 'late'");
	sql("SELECT kv_cancel('late', id) FROM kv_peek('late', 100) WHERE payload <> '1'");
	is(sql("SELECT count(*) FROM kv_dequeue('late', 5, lease => '1 hour')"), $meanwhile, "$point: meanwhile it is given $meanwhile times");
	$gate->quit;
	$acker->query_until(qr/ended/, '');
	$acker->quit;
}
my $late = sql("SELECT receipt FROM kv_dequeue('late')");
late_ack('settle', $late, 1);
is(sql("SELECT (SELECT count(*) FROM kvstore.q_late), (SELECT count(*) FROM kv_leases WHERE queue = 'late')"), '1|1', 'who has it keeps it');
sql("SELECT kv_purge_queue('late'); SELECT kv_enqueue('late', '1')");
$late = sql("SELECT receipt FROM kv_dequeue('late')");
late_ack('unleased', $late, 0);
is(sql("SELECT (SELECT count(*) FROM kvstore.q_late), (SELECT count(*) FROM kv_leases WHERE queue = 'late')"), '0|0', 'it was acknowledged');
sql("SELECT kv_drop_queue('late')");
# By default a queue gets half of all, and a dequeue says which of the two limits it has met.
$node->append_conf('postgresql.conf', 'kvstore.max_leases_per_queue = -1');
$node->reload;
wait_until("SELECT current_setting('kvstore.max_leases_per_queue') = '-1'", 'the default limit');
is(sql("SELECT boot_val FROM pg_settings WHERE name = 'kvstore.max_leases_per_queue'"), '-1', 'which it is');
sql("SELECT count(*) FROM kv_enqueue_many('full', array_fill('1'::jsonb, ARRAY[30])); SELECT count(*) FROM kv_enqueue_many('full2', array_fill('1'::jsonb, ARRAY[30])); SELECT kv_create_queue('full3'); SELECT kv_enqueue('full3', '1')");
sql("SELECT count(*) FROM kv_dequeue('full', 100)");
is(sql("SELECT count(*) FROM kv_leases WHERE queue = 'full'"), '10', 'half of 20 for the greedy one');
like(kvs_outcome($node, "SELECT count(*) FROM kv_dequeue('full')"), qr/^ERROR KV004: queue "full" has too many leases/, 'and no more');
sql("SELECT count(*) FROM kv_dequeue('full2', 100)");
is(sql("SELECT count(*) FROM kv_leases WHERE queue = 'full2'"), '10', 'the other half for the other');
$node->append_conf('postgresql.conf', 'kvstore.max_leases_per_queue = 0');
$node->reload;
wait_until("SELECT current_setting('kvstore.max_leases_per_queue') = '0'", 'no limit');
sql("SELECT count(*) FROM kv_dequeue('full2', 100)");
$node->append_conf('postgresql.conf', 'kvstore.max_leases_per_queue = -1');
$node->reload;
wait_until("SELECT current_setting('kvstore.max_leases_per_queue') = '-1'", 'the default again');
like(kvs_outcome($node, "SELECT count(*) FROM kv_dequeue('full3')"), qr/^ERROR KV004: too many leases/, 'a queue that has none meets the limit of all');
$node->append_conf('postgresql.conf', 'kvstore.max_leases_per_queue = 0');
$node->reload;
sql("SELECT kv_drop_queue('full'), kv_drop_queue('full2'), kv_drop_queue('full3')");

# ---- More queues than there are places ----

# A queue that was dropped keeps its place until its leases have lapsed; so begin without any.
$other->quit;
$node->stop('immediate');
$node->start;
$other = $node->background_psql('postgres');
# Each in a transaction of its own, for until it ends it has a lease.
sub pass_on { return sql(join '; ', map { "SELECT payload, kv_ack(receipt) FROM kv_dequeue('n$_')" } @_); }
sql("SELECT kv_create_queue('n' || i, lease => '10 min') FROM generate_series(1, 8) i");
for my $round (1 .. 3)
{
	is(sql("SELECT count(kv_enqueue('n' || i, to_jsonb(i))) FROM generate_series(1, 8) i"), '8', "round $round: more queues than places: sending");
	is(pass_on(1 .. 8), join("\n", map { "$_|t" } 1 .. 8), "round $round: receiving, one after the other");
}
# One that commits late, when its queue's place has been another's for long; and behind a head that has moved.
$other->query_safe("BEGIN; SELECT kv_enqueue('n1', '\"late\"')");
sql("SELECT kv_enqueue('n1', '\"early\"')");
is(sql("SELECT payload, kv_ack(receipt) FROM kv_dequeue('n1', 5)"), '"early"|t', 'a later one goes first');
sql("SELECT kv_enqueue('n' || i, '1') FROM generate_series(2, 8) i");
pass_on(2 .. 8);
$other->query_safe('COMMIT');
is(sql("SELECT payload, kv_ack(receipt) FROM kv_dequeue('n1', 5)"), '"late"|t', 'a place was given away meanwhile: the message is found');
$other->quit;
sql("SELECT kv_create_queue('load')");
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|terminated by signal|would not have been delivered/, 'nothing crashed, nothing was lost');
$node->stop;

# ---- Not preloaded ----

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
for my $call (q{kv_enqueue('load', '1')}, q{(SELECT count(*) FROM kv_enqueue_many('load', '{1}'))}, q{(SELECT count(*) FROM kv_dequeue('load'))}, q{kv_ack('x')}, q{kv_ack_many('{}')}, q{kv_nack('x')},
	q{kv_nack_many('{}')}, q{kv_release('x')}, q{kv_release_many('{}')}, q{kv_extend('x')}, q{kv_extend_many('{}')}, q{kv_release_id('load', 1)})
{
	($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");
	like($err, qr/ERROR:  55000: .*\n(?:.*\n)*HINT: .*shared_preload_libraries/, "not preloaded: $call") or diag($err);
}
is(sql("SELECT count(*) FROM kv_leases"), '0', 'not preloaded: no leases');
is(sql("SELECT count(*) FROM kv_peek('load')"), '0', 'not preloaded: kv_peek() works');
is(sql("SELECT kv_create_queue('noload'), kv_alter_queue('noload', lease => '1 s'), kv_pause_queue('noload'), kv_purge_queue('noload'), kv_drop_queue('noload')"), 'kvstore.q_noload|t|t|0|t',
	'not preloaded: so do settings, purge and drop');
$node->stop;

done_testing();
