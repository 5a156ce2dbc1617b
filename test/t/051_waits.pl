# Waiting for messages: who is woken, by what, and everything that can end a wait.
#
# In the first part a waiter's own look after kvstore.fallback_poll is a minute away, and a wait longer than any test may take, so that only wake-ups bring waiters
# on.  isolationtester cannot do that: it lets a step that sleeps come to its end before it goes on.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use KvsTest;

my $node = kvs_node('waits', conf => "fsync = off\nkvstore.fallback_poll = '1min'\nkvstore.max_waiters = 20\n");
my $soon = 20;                     # seconds; less than the fallback, more than a slow machine needs
my $take = q{SELECT count(*) FROM kv_dequeue('q', lease => '1 hour', wait => '2 minutes')};
my $call = q{CALL kv_wait_queue('q', '2 minutes')};

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub until_true
{
	my ($query, $name) = @_;
	ok($node->poll_query_until('postgres', $query), $name) or BAIL_OUT('no use to go on');
}

# A session of its own for one statement.
my @sessions;

sub start
{
	my ($statement, $options) = @_;
	local $ENV{PGOPTIONS} = $options // '';
	my %new;

	$new{handle} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-v', 'VERBOSITY=verbose', '-c', $statement ],
		'<', \undef, '>', \$new{out}, '2>', \$new{err});
	push @sessions, \%new;
	return \%new;
}

# What it gave, or the SQLSTATE of its error; an end that comes only by a fallback is too late.
sub ending
{
	my ($session) = @_;
	my $start = time;

	$session->{handle}->finish;
	return 'too late' if time - $start > $soon;
	return $1 if $session->{err} =~ /(?:ERROR|FATAL|WARNING):  (\w{5}):/;
	return $session->{err} || $session->{out} =~ s/\n$//r;
}

sub endings { return join(' ', map { ending($_) } @_) }

# So many wait, and sleep.
my $asleep = q{FROM kvstore.waiters() JOIN pg_stat_activity USING (pid) WHERE wait_event_type = 'Extension'};

sub are_asleep { return "SELECT (SELECT count(*) FROM kvstore.waiters()) = $_[0] AND count(*) = $_[0] $asleep" }

sub asleep
{
	my ($count, $name) = @_;
	until_true(are_asleep($count), $name // "$count wait");
}

# The same where there is little time, by a session that is there already.
sub soon_asleep
{
	my ($session, $count) = @_;
	my $query = are_asleep($count);
	my $end = time + $soon;

	usleep(2_000) until $session->query_safe($query) eq 't' || time > $end;
	ok(time <= $end, "$count wait, soon") or BAIL_OUT('no use to go on');
}

sub start_sleeper
{
	my ($statement, $options) = @_;
	my $count = sql('SELECT count(*) FROM kvstore.waiters()');
	my $session = start($statement, $options);

	asleep($count + 1);
	$session->{pid} = sql('SELECT pid FROM kvstore.waiters() ORDER BY since DESC LIMIT 1');
	return $session;
}

sub is_empty
{
	is(sql('SELECT count(*) FROM kvstore.waiters()'), 0, 'nobody waits any longer');
	sql(q{SELECT kv_purge_queue('q')});
}

END
{
	$_->{handle}->kill_kill foreach grep { $_->{handle}->pumpable } @sessions;
}

sql(q{CREATE EXTENSION kvstore; SELECT kv_create_queue('q')});

# ---- One message, one waiter ----

my ($first, $second) = map { start_sleeper($take) } 1 .. 2;
sql(q{SELECT kv_enqueue('q', '1')});
is(ending($first), 1, 'a message wakes who has waited longest');
asleep(1, 'and nobody else');
sql(q{SELECT kv_enqueue('q', '2')});
is(ending($second), 1, 'the next one wakes the other');
is_empty();

for my $statement ($take, $call)
{
	my @both = map { start_sleeper($statement) } 1 .. 2;
	sql(q{SELECT count(*) FROM kv_enqueue_many('q', '{1,2}')});
	is(endings(@both), $statement eq $take ? '1 1' : ' ', 'two messages in one transaction wake two');
	is_empty();
}

my $greedy = start_sleeper(q{SELECT count(*) FROM kv_dequeue('q', 10, '1 hour', wait => '2 minutes')});
sql(q{BEGIN; SELECT kv_enqueue('q', '1'); SELECT kv_enqueue('q', '2'); SAVEPOINT s; SELECT kv_enqueue('q', '3'); ROLLBACK TO s; COMMIT});
is(ending($greedy), 2, 'one who wants many gets what is there');
is_empty();

my $sender = $node->background_psql('postgres');
$sender->query_safe(q{BEGIN; SELECT kv_enqueue('q', '1')});
$first = start_sleeper($take);
$sender->query_safe('COMMIT');
is(ending($first), 1, 'a message that was sent before the wait, and is committed in it, wakes too');
is_empty();

# ---- Delayed messages ----

# The first in line learns of the earliest, once; nobody is woken by those that are ready later.
my $wakeups = q{SELECT COALESCE((SELECT wakeups FROM pg_stat_kvstore_queue WHERE queue = 'q'), 0)};
my $before = sql($wakeups);
my @line = map { start_sleeper($take) } 1 .. 5;
# until it has looked it is told again, which on a slow machine is often
sql(q{SELECT kv_enqueue('q', '1', delay => '1 hour')});
asleep(5, 'all five sleep on');
sql(q{DO $$ BEGIN FOR i IN 1 .. 199 LOOP PERFORM kv_enqueue('q', '1', delay => '1 hour'); COMMIT; END LOOP; END $$});
asleep(5, 'all five sleep on');
sql(q{SELECT count(*) FROM kv_enqueue_many('q', '{1,2,3}', delay => '2 hours')});
sql(q{SELECT count(*) FROM kv_enqueue_many('q', '{1,2,3,4,5}')});
is(endings(@line), '1 1 1 1 1', 'those that are ready wake all five');
$_->{handle}->finish foreach @line;
until_true(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query ~ 'kv_dequeue'}, 'they have ended');
my $woken = sql($wakeups) - $before;
cmp_ok($woken, '<=', 12, "203 delayed messages and five that were ready: $woken wake-ups");
is_empty();
# One that is ready earlier than all others does wake.
$first = start_sleeper($take);
sql(q{SELECT kv_enqueue('q', '1', delay => '1 hour')});
asleep(1);
sql(q{SELECT kv_enqueue('q', '2', delay => '1 s')});
is(ending($first), 1, 'an earlier one sets the timer anew');
is_empty();

# ---- Resumed ----

for my $statement ($take, $call)
{
	sql(q{SELECT kv_pause_queue('q'), count(*) FROM kv_enqueue_many('q', '{1,2}')});
	my @both = map { start_sleeper($statement) } 1 .. 2;
	$sender->query_safe(q{BEGIN; SELECT kv_resume_queue('q')});
	$sender->query_safe('ROLLBACK');
	asleep(2, 'a resume that is rolled back wakes nobody');
	$sender->query_safe(q{BEGIN; SAVEPOINT s; SELECT kv_resume_queue('q'); RELEASE s; COMMIT});
	is(endings(@both), $statement eq $take ? '1 1' : ' ', 'a resume wakes who waits for what is there: ' . substr($statement, 0, 6));
	is_empty();
}
# One that has the table locked already, and so hears of nothing by itself.
sql(q{SELECT kv_pause_queue('q')});
$first = start_sleeper(q{BEGIN; SELECT kv_enqueue('q', '0', delay => '1 day') > 0; } . "$take; COMMIT");
sql(q{SELECT kv_enqueue('q', '1'); SELECT kv_resume_queue('q')});
is(ending($first), "t\n1", 'also a transaction that has sent to it');
is_empty();

# ---- Given back ----

for my $back ('SELECT kv_release(receipt) FROM kv_leases_of_q', q{SELECT kv_nack(receipt, delay => '0') FROM kv_leases_of_q},
	q{SELECT kv_release_id('q', id) FROM kv_leases WHERE queue = 'q'}, 'ROLLBACK')
{
	sql(q{SELECT kv_enqueue('q', '1')});
	$sender->query_safe('BEGIN');
	$sender->query_safe(q{CREATE TEMP TABLE kv_leases_of_q ON COMMIT DROP AS SELECT receipt FROM kv_dequeue('q')});
	$first = start_sleeper($take);
	$sender->query_safe($back);
	$sender->query_safe('COMMIT') unless $back eq 'ROLLBACK';
	is(ending($first), 1, 'a message that is given back wakes: ' . $back =~ s/ FROM.*//r);
	is_empty();
}

# ---- A rollback wakes nobody ----

# Whoever looks, stops at the gate.
my $gate = $node->background_psql('postgres');
$first = start_sleeper($take, '-c kvstore.test_point=dequeue-surveyed');
$gate->query_safe('SELECT pg_advisory_lock(7777)');
$sender->query_safe($_) foreach 'BEGIN', q{SELECT kv_enqueue('q', '1')}, 'SAVEPOINT s', q{SELECT count(*) FROM kv_enqueue_many('q', '{2,3}')}, 'ROLLBACK TO s', 'ROLLBACK';
$sender->query_safe($_) foreach 'BEGIN', 'SAVEPOINT s', q{SELECT kv_enqueue('q', '4')}, 'ROLLBACK TO s', 'COMMIT';
sql('SELECT pg_sleep(0.2)');       # time to go wrong
asleep(1, 'a rollback wakes nobody');

# ---- A wake-up that meets a waiter who is cancelled is passed on ----

# The first one looks, because a delayed message has arrived; then a message is committed, meant for him, and he is cancelled before he finds it.
$second = start_sleeper($take);
my $held = qq{SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $first->{pid} AND wait_event_type = 'Lock'};
sql(q{SELECT kv_enqueue('q', '1', delay => '1 hour')});
until_true($held, 'the first one looks');
sql(q{SELECT kv_enqueue('q', '2')});
sql("SELECT pg_cancel_backend($first->{pid})");
is(endings($first, $second), '57014 1', 'cancelled while it looks: the other gets the message');
$gate->query_safe('SELECT pg_advisory_unlock(7777)');
$_->quit foreach $sender, $gate;
is_empty();

# The same, cancelled after it was woken and before it could look; or its process ends.
for my $how ('cancel', 'terminate')
{
	($first, $second) = map { start_sleeper($take) } 1 .. 2;
	kill 'STOP', $first->{pid};
	sql(q{SELECT kv_enqueue('q', '1')});
	sql("SELECT pg_${how}_backend($first->{pid})");
	kill 'CONT', $first->{pid};
	is(endings($first, $second), ($how eq 'cancel' ? '57014' : '57P01') . ' 1', "$how before it looks: the other gets the message");
	is_empty();
}

# A client that was told of a message and ends instead of receiving it; or is told of one of another queue, before it ends.  The queue is a new one: the
# index entry of a delayed message that has gone would make the first in line hold the timer, and leave that to the other.
for my $told (q{CALL kv_wait_queue('new', '2 minutes')}, qq{DO \$\$ BEGIN CALL kv_wait_queue('new', '2 minutes'); $call; END \$\$})
{
	sql($_) foreach q{SELECT kv_create_queue('new')}, q{SELECT kv_enqueue('q', '1')};
	($first, $second) = map { start_sleeper($_) } $told, $take =~ s/'q'/'new'/r;
	sql(q{SELECT kv_enqueue('new', '1')});
	is(endings($first, $second), ' 1', 'a session that was told of a message ends: the other gets it');
	sql(q{SELECT kv_drop_queue('new')});
	is_empty();
}

# One who need not wait wakes another one, if there is more; there are some in line who were woken and have not looked.
my @three = map { start_sleeper($take) } 1 .. 3;
kill 'STOP', map { $_->{pid} } @three[ 0, 1 ];
sql(q{SELECT count(*) FROM kv_enqueue_many('q', '{1,2}')});
is(kvs_outcome($node, $call), '', 'a CALL that need not wait');
is(ending($three[2]), 1, 'wakes who waits for the message behind');
sql("SELECT pg_cancel_backend($three[0]{pid})");
kill 'CONT', map { $_->{pid} } @three[ 0, 1 ];
is(endings(@three[ 0, 1 ]), '57014 1', 'and the others go on');
is_empty();

# ---- Delayed messages ----

sub send_delayed { return "SELECT count(*) FROM kv_enqueue_many('q', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, $_[0]) i), delay => '1.5 s')" }
sub delayed { return sql(send_delayed(@_)) }

# Not before their time: the receipts are from after it.
sub not_early
{
	is(sql(q{SELECT bool_and(since >= ready_at) FROM kv_leases JOIN kvstore.q_q USING (id)}), 't', 'not before its time');
}

$first = start_sleeper($take);
delayed(1);
is(ending($first), 1, 'a delayed message wakes at its time');
not_early();
is_empty();

delayed(1);
is(ending(start($take)), 1, 'one that was there before the wait, too');
not_early();
is_empty();

my @five = map { start_sleeper($take) } 1 .. 5;
delayed(5);
is(endings(@five), '1 1 1 1 1', 'five of one instant wake five');
not_early();
is_empty();

@five = map { start_sleeper($call) } 1 .. 5;
delayed(5);
is(endings(@five), '    ', 'those in CALL, too');
is_empty();

my $quick = $node->background_psql('postgres');
($first, $second) = map { start_sleeper($take) } 1 .. 2;
$quick->query_safe(send_delayed(1));
soon_asleep($quick, 2);
$quick->query_safe("SELECT pg_cancel_backend($first->{pid})");
is(endings($first, $second), '57014 1', 'who keeps the time is cancelled: the next one does');
is_empty();

# Somebody whose clock is ahead had it, and has given it back.
sql(q{SELECT kv_enqueue('q', '1', delay => '3 s')});
my $ahead = $node->background_psql('postgres');
$ahead->query_safe($_) foreach 'SET kvstore.test_clock = 10', 'BEGIN', q{SELECT count(*) FROM kv_dequeue('q')};
$first = start_sleeper($take);
$ahead->query_safe('ROLLBACK');
is(ending($first), 1, 'a message that is returned before it is ready wakes at its time');
not_early();
$ahead->quit;
is_empty();

# ---- Leases that end ----

sql(q{SELECT kv_enqueue('q', '1', backoff => '{}'); SELECT id FROM kv_dequeue('q', lease => '1.5 s')});
is(ending(start($take)), 1, 'a lease that ends wakes');
is_empty();

# ---- What a wait holds ----

$first = start_sleeper($call);
is(sql("SELECT backend_xid, backend_xmin FROM pg_stat_activity WHERE pid = $first->{pid}"), '|', 'CALL holds no snapshot');
is(sql("SELECT string_agg(locktype, ' ') FROM pg_locks WHERE pid = $first->{pid}"), 'virtualxid', '... and no lock');
$second = start_sleeper($take);
is(sql("SELECT string_agg(locktype, ' ') FROM pg_locks WHERE pid = $second->{pid}"), 'virtualxid', 'kv_dequeue() holds no lock');
sql('ALTER TABLE kvstore.q_q SET (autovacuum_enabled = true)');
sql(q{SELECT count(*) FROM kv_enqueue_many('q', '{1,2}')});
is(endings($first, $second), ' 1', 'and both wake after an ALTER TABLE');
is_empty();

# ---- Where one cannot wait ----

for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	like(kvs_outcome($node, "BEGIN ISOLATION LEVEL $level; SELECT FROM kv_dequeue('q', wait => '1 s')"), qr/^ERROR 25001/, "kv_dequeue() at $level");
	$first = start_sleeper($call, '-c default_transaction_isolation=' . lc($level) =~ s/ /\\ /r);
	sql(q{SELECT kv_enqueue('q', '1')});
	is(ending($first), '', "CALL begins transactions of its own, whatever the default: $level");
	is_empty();
}
like(kvs_outcome($node, "BEGIN; $call"), qr/^ERROR 25001/, 'CALL in a transaction block');
like(kvs_outcome($node, "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS 'BEGIN $call; END'" =~ s/'(q|2 minutes)'/''$1''/gr . '; SELECT f()'), qr/^ERROR 25001/, 'CALL in a function');
is(kvs_outcome($node, q{SET default_transaction_isolation = 'repeatable read';
	DO $$ BEGIN CALL kv_wait_queue('q', '1 ms'); RAISE EXCEPTION '%', current_setting('transaction_isolation'); END $$}), 'ERROR P0001: repeatable read',
	'a DO block may CALL, and goes on as it was');
like(kvs_outcome($node, q{SELECT FROM kv_dequeue('q', wait => '-1 s')}), qr/^ERROR 22023/, 'no negative wait');
is(kvs_outcome($node, q{SELECT count(*) FROM kv_dequeue('q', wait => '10 ms')}), 0, 'no message in that time: no row');
is(kvs_outcome($node, q{SELECT count(*) FROM kv_dequeue('q', 0, wait => '2 minutes')}), 0, 'who wants none does not wait');

# ---- What becomes ready together, or is left behind ----

for my $case (
	[ 'two that were rolled back twice', q{SELECT count(*) FROM kv_enqueue_many('q', '{1,2}')}, (q{BEGIN; SELECT count(*) FROM kv_dequeue('q', 2); ROLLBACK}) x 2 ],
	[ 'two delayed of different priority', q{SELECT kv_enqueue('q', '1', delay => '1 s', priority => 5)}, q{SELECT kv_enqueue('q', '2', delay => '1 s')} ])
{
	my ($name, @statements) = @$case;

	sql($_) foreach @statements;
	is(endings(map { start($take) } 1 .. 2), '1 1', "$name: both waiters get one");
	is_empty();
}

($first, $second) = map { start_sleeper($take) } 1 .. 2;
$quick->query_safe(send_delayed(1));
soon_asleep($quick, 2);
$quick->query_safe(q{SELECT kv_enqueue('q', '2', priority => 5)});
is(endings($first, $second), '1 1', 'who held the timer and gets another message leaves the timer to the next');
$quick->quit;
is_empty();

$sender = $node->background_psql('postgres');
sql(q{SELECT kv_enqueue('q', '1')});
$sender->query_safe($_) foreach 'BEGIN', q{SELECT kv_cancel('q', id) FROM kvstore.q_q};
$first = start_sleeper($take);
$sender->query_safe('ROLLBACK');
is(ending($first), 1, 'a cancel that is rolled back wakes');
is_empty();

sql(q{SELECT kv_enqueue('q', '1'); CREATE TABLE receipts AS SELECT receipt FROM kv_dequeue('q', lease => '1 hour')});
$sender->query_safe($_) foreach 'BEGIN', q{SELECT kv_extend(receipt, '1 s'), kv_ack(receipt) FROM receipts};
$first = start_sleeper($take);
sql('SELECT pg_sleep(7)');         # the worker comes, and leaves again
$sender->query_safe('ROLLBACK');
is(ending($first), 1, 'an ack that is rolled back when the lease is over lets the worker end it');
$sender->quit;
is_empty();

# kv_wait_queue takes nothing for leased because of a lease that the id had before.
sql($_) foreach q{SELECT kv_enqueue('q', '1')}, q{SELECT count(*) FROM kv_dequeue('q', lease => '1 hour')}, 'TRUNCATE kvstore.q_q RESTART IDENTITY',
	q{SELECT kv_enqueue('q', '2')}, q{CALL kv_wait_queue('q', '0')};
is(sql(q{SELECT payload FROM kv_dequeue('q')}), 2, 'a message that has the id of one that was leased before TRUNCATE');
is_empty();

# ---- Pause ----

sql(q{SELECT kv_pause_queue('q')});
$first = start_sleeper($take);
$second = start_sleeper($call);
sql(q{SELECT count(*) FROM kv_enqueue_many('q', '{1,2}')});
is(sql(q{SELECT count(*) FROM kv_dequeue('q', wait => '500 ms')}), 0, 'a paused queue gives nothing');
asleep(2, 'and ends no wait');

# ---- Looking by oneself; sleepers read settings anew ----

$node->append_conf('postgresql.conf', "kvstore.fallback_poll = '1s'");
$node->reload;
sql(q{SELECT kv_resume_queue('q')});
is(endings($first, $second), '1 ', 'when it goes on, waiters notice');
is_empty();

sub both_end
{
	my ($name, $do, $expected) = @_;
	my ($dequeuer, $caller) = (start_sleeper($take), start_sleeper($call));

	$do->($dequeuer->{pid}, $caller->{pid});
	is(endings($dequeuer, $caller), $expected, "$name ends both kinds of wait");
	until_true('SELECT count(*) = 0 FROM kvstore.waiters()', '... and leaves no slot') if $node->safe_psql('postgres', q{SELECT to_regproc('kvstore.waiters') IS NOT NULL}) eq 't';
}

both_end('DROP QUEUE', sub { sql(q{SELECT kv_drop_queue('q')}) }, '42P01 42P01');
sql(q{SELECT kv_create_queue('q')});
both_end('pg_cancel_backend', sub { sql("SELECT pg_cancel_backend(pid) FROM unnest(ARRAY[$_[0], $_[1]]) pid") }, '57014 57014');
both_end('pg_terminate_backend', sub { sql("SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[$_[0], $_[1]]) pid") }, '57P01 57P01');

sql(q{CREATE ROLE consumer LOGIN; GRANT SELECT, UPDATE, DELETE ON kvstore.q_q TO consumer});
for my $statement ($take, $call)
{
	$first = start_sleeper($statement, '-c role=consumer');
	my $start = time;
	sql('REVOKE ALL ON kvstore.q_q FROM consumer');
	is(ending($first), '42501', 'REVOKE ends a wait');
	note(sprintf('after %.1f s', time - $start));
	sql('GRANT SELECT, UPDATE, DELETE ON kvstore.q_q TO consumer');
}

for my $statement ($take, $call)
{
	$first = start($statement, '-c statement_timeout=200ms');
	is(ending($first), '57014', 'statement_timeout ends a wait');
}
asleep(0);

# Vanished clients: nobody reads what the server would say.
($first, $second) = (start_sleeper($take), start_sleeper($call));
$_->{handle}->kill_kill foreach $first, $second;
until_true("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid IN ($first->{pid}, $second->{pid})", 'a client that has gone is noticed');
sql(q{SELECT kv_enqueue('q', '1')});
is(sql(q{SELECT count(*) FROM kv_dequeue('q')}), 1, 'it takes no message with it');
is_empty();

# ---- A thousand waits that were cancelled; there are 20 slots ----

my ($out, $err) = ('', '');
$node->psql('postgres', "SET statement_timeout = '3ms';\n" . "$take;\n$call;\n" x 500, stdout => \$out, stderr => \$err, on_error_stop => 0);
is(scalar(() = $err =~ /canceling statement due to statement timeout/g), 1000, 'a thousand waits are cancelled');
is(scalar(() = $err =~ /ERROR/g), 1000, 'none ends otherwise');
is_empty();
is(kvs_outcome($node, q{DO $$ BEGIN FOR i IN 1 .. 100 LOOP BEGIN PERFORM kv_dequeue('nosuch', wait => '1 s'); EXCEPTION WHEN undefined_table THEN END; END LOOP; END $$}), '',
	'errors that are caught');
my @crowd = map { start($take) } 1 .. 20;
asleep(20);
like(kvs_outcome($node, q{SELECT FROM kv_dequeue('q', wait => '1 s')}), qr/^ERROR 53400/, 'one too many is told so');
sql("SELECT count(*) FROM kv_enqueue_many('q', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 20) i))");
is(endings(@crowd), join(' ', (1) x 20), 'twenty messages wake twenty');
is_empty();

# ---- Nobody ends a lease that has lapsed ----

$node->append_conf('postgresql.conf', "kvstore.fallback_poll = '1min'\nmax_worker_processes = 0");
$node->restart;
sql(q{SELECT kv_alter_queue('q', backoff => '{1s}'); SELECT kv_enqueue('q', '1'); SELECT count(*) FROM kv_dequeue('q', lease => '1 ms'); SELECT kv_enqueue('q', '2', priority => 5)});
sql(q{BEGIN; SELECT count(*) FROM kv_dequeue('q', lease => '1 hour'); ROLLBACK}) foreach 1 .. 2;
is(ending(start($take)), 1, 'a message that was rolled back is delivered after its backoff, whatever has lapsed');
is_empty();
$node->append_conf('postgresql.conf', "kvstore.fallback_poll = '1s'\nmax_worker_processes = 8");
$node->restart;

# ---- The extension goes, the server goes ----

both_end('DROP EXTENSION', sub { sql('DROP EXTENSION kvstore CASCADE; DROP SCHEMA IF EXISTS kvstore') }, '55000 55000');
sql(q{CREATE EXTENSION kvstore; SELECT kv_create_queue('q')});
both_end('a fast shutdown', sub { $node->restart }, '57P01 57P01');
both_end('a crash of another session', sub {
		$node->append_conf('postgresql.conf', 'restart_after_crash = on');
		$node->reload;
		my $victim = start('SELECT pg_sleep(600)');
		until_true(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'}, 'a session is there to crash');
		kill 'KILL', sql(q{SELECT pid FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'});
		$victim->{handle}->finish;
		# not before the postmaster has noticed
		until_true("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid IN ($_[0], $_[1])", 'the server is back');
	}, '57P02 57P02');

$node->stop;
done_testing();
