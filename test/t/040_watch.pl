# Waiting: woken by the commit and by nothing else, holding up nobody; and how a wait ends otherwise: time, cancel, DROP, REVOKE, a client that has gone, shutdown.
# No wait leaves its slot behind.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use KvsTest;

my $node = kvs_node('watch', conf => "max_connections = 100\nlog_statement = none\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Until a query gives "t"; false after 20 s.
sub wait_for
{
	my ($query) = @_;
	my $start = time;

	while (time - $start < 20)
	{
		return 1 if sql($query) eq 't';
		usleep(10_000);
	}
	return 0;
}

sub waiting { return wait_for("SELECT count(DISTINCT pid) = $_[0] FROM kvstore.waiters()"); }

# A waiter registers, then looks, then sleeps.
sub asleep { return wait_for("SELECT count(*) > 0 AND bool_and(a.wait_event_type = 'Extension') FROM kvstore.waiters() w JOIN pg_stat_activity a USING (pid)"); }

# A session of its own that runs some SQL; end_of() gives what it printed.
sub start_of
{
	my (@statements) = @_;
	my $session = { out => '', err => '', started => time };

	$session->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres'), map { ('-c', $_) } @statements ],
		'<', \'', '>', \$session->{out}, '2>', \$session->{err}, IPC::Run::timeout(60));
	return $session;
}

sub end_of
{
	my ($session) = @_;

	eval { $session->{run}->finish; 1 } or $session->{err} .= 'does not end';
	$session->{took} = time - $session->{started};
	my $result = $session->{out} . $session->{err};
	$result =~ s/\n\z//;
	return $result;
}

# What a waiting statement gives once another session has done something; "before" is done before that, and must not wake it.
sub woken_by
{
	my ($name, $wait, $before, $waker, $expected) = @_;
	my $session = start_of(ref $wait ? @$wait : $wait);

	ok(waiting(1), "$name: waits");
	sql($_) for @$before;
	ok(@$before == 0 || waiting(1), "$name: is not woken by what is none of its business");
	sql($waker);
	is(end_of($session), $expected, $name);
	ok(waiting(0), "$name: the slot is free again");
	return $session->{took};
}

sql("CREATE EXTENSION kvstore; SELECT kv_create_store(); SELECT kv_set('k', '\"old\"')");
sql("CREATE TABLE place AS SELECT kv_feed_position() AS position");
sql("CREATE FUNCTION watch_k(wait interval) RETURNS TABLE (key text, value jsonb) LANGUAGE sql AS \$\$
	SELECT key, value FROM kv_watch('{k,new}', (SELECT array_agg(versionstamp) FROM kv_get_many('{k,new}')), wait) \$\$");

sub move_position { sql("UPDATE place SET position = kv_feed_position()"); return; }

# A client that does not wait for the poll: what is told in less than this was told by the commit.  A poll that comes once a minute makes sure.
sql("ALTER SYSTEM SET kvstore.fallback_poll = '1min'");
sql("SELECT pg_reload_conf()");
ok(wait_for("SELECT current_setting('kvstore.fallback_poll') = '1min'"), 'no poll helps');

# ---- kv_watch ----

my $watch = "SELECT * FROM watch_k('1 minute')";

woken_by('a set', $watch, [], q{SELECT kv_set('k', '"set"')}, 'k|"set"');
woken_by('a new key', $watch, [ q{SELECT kv_set('other', '1')}, q{BEGIN; SELECT kv_set('k', '2'); ROLLBACK} ], q{SELECT kv_set('new', '1')}, 'new|1');
woken_by('a bulk set', $watch, [], q{SELECT kv_set_many('{a,new}', '{1,2}')}, 'new|2');
woken_by('kv_atomic', $watch, [], q{SELECT kv_atomic('[{"sum": {"key": "new", "value": 5}}]')}, 'new|7');
woken_by('a delete', $watch, [], q{SELECT kv_delete('new')}, 'new|');
woken_by('an import', $watch, [], q{SELECT kv_import('{"new": {"value": 8}}')}, 'new|8');
woken_by('a deleted prefix', $watch, [], q{SELECT kv_delete_prefix('ne')}, 'new|');
woken_by('by hand', $watch, [], q{UPDATE kvstore.s_default SET value = '"by hand"' WHERE key = kv_key('k')}, 'k|"by hand"');
woken_by('savepoints', $watch, [], q{BEGIN; SELECT kv_set('k', '1'); SAVEPOINT a; SELECT kv_set('new', '1'); ROLLBACK TO a; COMMIT}, 'k|1');
woken_by('a prepared statement of many keys', q{SELECT count(*) FROM kv_watch((SELECT array_agg('m' || i) FROM generate_series(1, 50) i), array_fill(0, '{50}'))}, [], q{SELECT kv_set('m33', '1')}, '1');
woken_by('paths', q{SELECT key, value FROM kv_watch_paths('["x", ["p", 1]]', '{0,0}')}, [], q{SELECT kv_set(kv_key('p', 1), '1')}, '["p", 1]|1');
# (a statement that has read the store holds its lock, and would hold up the TRUNCATE)
woken_by('a truncate', "SELECT key, value FROM kv_watch('{k}', '{" . sql("SELECT versionstamp FROM kv_entry('k')") . "}', '1 minute')", [], q{TRUNCATE kvstore.s_default}, 'k|');
sql(q{SELECT kv_set('k', '1')});
cmp_ok(woken_by('an expiry, when its time comes', $watch, [], q{SELECT kv_expire('k', ttl => '0.3 s')}, 'k|'), '<', 30, 'and not at the next poll');
ok(wait_for('SELECT count(*) = 0 FROM kvstore.s_default'), 'it is swept');

# ---- kv_changes, kv_wait_changes ----

my $changes = "SELECT operation, key FROM kv_changes((SELECT position FROM place), '%s', '1 minute')";

move_position();
woken_by('kv_changes: a set', sprintf($changes, ''), [], q{SELECT kv_set('k', '1')}, "set|k\nprogress|");
move_position();
woken_by('kv_changes: a prefix', sprintf($changes, 'n'), [ q{SELECT kv_set('k', '1')} ], q{SELECT kv_set_many('{k,new,nil}', '{1,2,3}')}, "set|new\nset|nil\nprogress|");
move_position();
woken_by('kv_changes: a prefix is deleted', sprintf($changes, 'ne'), [ q{SELECT kv_delete_prefix('k')} ], q{SELECT kv_delete_prefix('n')}, "delete_prefix|n\nprogress|");
# who has locked the row keeps it from being removed until somebody waits for that
my $locker = $node->background_psql('postgres');
$locker->query_safe(q{SELECT kv_set('k', '1', ttl => '1 s')});
$locker->query_safe(q{BEGIN; SELECT FROM kvstore.s_default FOR UPDATE});
move_position();
my $free = 'SELECT pg_terminate_backend(' . $locker->query_safe('SELECT pg_backend_pid()') . ')';
woken_by('kv_changes: an expiry', sprintf($changes, ''), [], $free, "expire|k\nprogress|");
eval { $locker->quit };
move_position();
woken_by('kv_wait_changes', "CALL kv_wait_changes('" . sql('SELECT position FROM place') . "', 'n', '1 minute')", [ q{SELECT kv_set('k', '1')} ], q{SELECT kv_set('new', '1')}, '');

# It holds no snapshot, and kv_changes() holds that of its statement.
my $position = sql('SELECT kv_feed_position()');
my $holds = "SELECT a.backend_xmin IS NOT NULL FROM kvstore.waiters() w JOIN pg_stat_activity a USING (pid) LIMIT 1";
my $session = start_of("CALL kv_wait_changes('$position', '', '1 minute')");
waiting(1) && asleep();
is(sql($holds), 'f', 'kv_wait_changes() holds no snapshot');
is(sql("SELECT count(*) FROM pg_locks l JOIN kvstore.waiters() w USING (pid) WHERE l.locktype = 'relation'"), '0', 'and no lock of a table');
sql(q{SELECT kv_set('k', '2')});
end_of($session);

# Nor does kv_wait_watch(), and kv_watch() holds that of its statement.
sql(q{SELECT kv_delete('new'), kv_set('k', '1')});
woken_by('kv_wait_watch', "CALL kv_wait_watch('{k,new}', '{" . sql("SELECT versionstamp FROM kv_entry('k')") . ",0}', '1 minute')", [ q{SELECT kv_set('other', '1')} ], q{SELECT kv_set('new', '1')}, '');
woken_by('kv_wait_watch_paths', q{CALL kv_wait_watch_paths('[["p", 2]]', '{0}', '1 minute')}, [], q{SELECT kv_set(kv_key('p', 2), '1')}, '');
$session = start_of("CALL kv_wait_watch('{none}', '{0}', '1 minute')");
waiting(1) && asleep();
is(sql($holds), 'f', 'kv_wait_watch() holds no snapshot');
is(sql("SELECT count(*) FROM pg_locks l JOIN kvstore.waiters() w USING (pid) WHERE l.locktype = 'relation'"), '0', 'and no lock of a table');
sql(q{SELECT kv_set('none', '2')});
end_of($session);
sql(q{SELECT kv_delete('none')});
$session = start_of("SELECT operation FROM kv_changes('" . sql('SELECT kv_feed_position()') . "', '', '1 minute')");
waiting(1) && asleep();
is(sql($holds), 't', 'kv_changes() holds the snapshot of its statement');
is(sql("SELECT count(*) FROM pg_locks l JOIN kvstore.waiters() w USING (pid) WHERE l.relation = 'kvstore.s_default'::regclass"), '0', 'and no lock of the store');
sql(q{SELECT kv_set('k', '3')});
is(end_of($session), "set\nprogress", 'until it is woken');

# A waiter uses no CPU.
sub cpu_of
{
	my ($pid) = @_;
	my @fields = split / /, slurp_file("/proc/$pid/stat") =~ s/^.*\) //r;
	return $fields[11] + $fields[12];
}
SKIP:
{
	skip 'no /proc here', 1 unless -r '/proc/self/stat';
	$session = start_of($watch);
	waiting(1) && asleep();
	my $pid = sql("SELECT min(pid) FROM kvstore.waiters()");
	my $before = cpu_of($pid);
	sleep 2;
	cmp_ok(cpu_of($pid) - $before, '<=', 1, 'a waiter uses no CPU');
	sql(q{SELECT kv_set('k', '4')});
	end_of($session);
}

# ---- The time is over ----

cmp_ok(kvs_outcome($node, "SELECT count(*) FROM watch_k('0.2 s')"), 'eq', '0', 'the time is over: no rows');
is(kvs_outcome($node, "SELECT operation FROM kv_changes(kv_feed_position(), '', '0.2 s')"), 'progress', 'the time is over: progress');
is(end_of(start_of("CALL kv_wait_changes('" . sql('SELECT kv_feed_position()') . "', '', '0.2 s')", 'SELECT 1')), '1', 'the time is over: CALL returns');
is(end_of(start_of("SET statement_timeout = '200ms'", $watch, 'RESET statement_timeout', 'SELECT count(*) FROM kvstore.waiters()')), "0\nERROR:  57014", 'statement_timeout');
is(end_of(start_of("BEGIN", "SAVEPOINT a", "SET LOCAL statement_timeout = '200ms'", $watch, "ROLLBACK TO a", 'SELECT count(*) FROM kvstore.waiters()', "COMMIT")), "0\nERROR:  57014", 'in a savepoint');
is(kvs_outcome($node, q{DO $$ BEGIN
		SET LOCAL statement_timeout = '10s';
		PERFORM * FROM kv_watch('{a}', '{0}', '1 minute', 'none');
	EXCEPTION WHEN OTHERS THEN IF SQLSTATE <> '42P01' OR EXISTS (SELECT FROM kvstore.waiters()) THEN RAISE; END IF; END $$; SELECT 1}), '1', 'an error that is caught');

# ---- DROP and REVOKE, noticed at the next look ----

sql("ALTER SYSTEM SET kvstore.fallback_poll = '1s'");
sql("CREATE ROLE reader; GRANT SELECT ON kvstore.s_default, place TO reader; SELECT kv_create_store('gone')");

# A change of the setting reaches who waits already.
$session = start_of($watch);
waiting(1);
sql("SELECT pg_reload_conf()");
sql(q{SELECT kv_set('k', '5')});
end_of($session);

sub noticed
{
	my ($name, $wait, $event, $expected) = @_;
	my $session = start_of(@$wait);

	waiting(1);
	my $start = time;
	sql($event);
	my $held_up = time - $start;
	is(end_of($session), $expected, $name);
	cmp_ok($held_up, '<', 5, "$name: nobody is held up");
	ok(waiting(0), "$name: the slot is free again");
	return;
}
noticed('REVOKE, kv_watch', [ 'SET ROLE reader', "SELECT * FROM kv_watch('{none}', '{0}', '1 minute')" ], 'REVOKE SELECT ON kvstore.s_default FROM reader', 'ERROR:  42501');
sql('GRANT SELECT ON kvstore.s_default TO reader');
noticed('REVOKE, kv_changes', [ 'SET ROLE reader', "SELECT * FROM kv_changes('" . sql('SELECT kv_feed_position()') . "', '', '1 minute')" ], 'REVOKE SELECT ON kvstore.s_default FROM reader', 'ERROR:  42501');
sql('GRANT SELECT ON kvstore.s_default TO reader');
noticed('REVOKE, kv_wait_changes', [ 'SET ROLE reader', "CALL kv_wait_changes('" . sql('SELECT kv_feed_position()') . "', '', '1 minute')" ], 'REVOKE SELECT ON kvstore.s_default FROM reader', 'ERROR:  42501');
noticed('DROP, kv_watch', [ "SELECT * FROM kv_watch('{none}', '{0}', '1 minute', 'gone')" ], "SELECT kv_drop_store('gone')", 'ERROR:  42P01');
sql("SELECT kv_create_store('gone')");
noticed('DROP, kv_changes', [ "SELECT * FROM kv_changes('" . sql('SELECT kv_feed_position()') . "', '', '1 minute', store => 'gone')" ], "SELECT kv_drop_store('gone')", 'ERROR:  42P01');
sql("SELECT kv_create_store('gone')");
noticed('created anew', [ "SELECT * FROM kv_changes('" . sql('SELECT kv_feed_position()') . "', '', '1 minute', store => 'gone')" ], "SELECT kv_drop_store('gone'), kv_create_store('gone')", 'ERROR:  KV003');
noticed('created anew, kv_watch goes on', [ "SELECT key, value FROM kv_watch('{n}', '{0}', '1 minute', 'gone')" ], "SELECT kv_drop_store('gone'), kv_create_store('gone'); SELECT kv_set('n', '1', store => 'gone')", 'n|1');

# ---- A client that has gone ----

$session = start_of($watch);
waiting(1);
my $backend = sql("SELECT min(pid) FROM kvstore.waiters()");
$session->{run}->kill_kill;
ok(wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $backend)"), 'a client that has gone is noticed');
ok(waiting(0), 'and its slot is free');

# ---- Cancel and terminate ----

for my $how (qw(pg_cancel_backend pg_terminate_backend))
{
	$session = start_of($watch);
	waiting(1);
	sql("SELECT $how(pid) FROM (SELECT DISTINCT pid FROM kvstore.waiters()) w");
	like(end_of($session), $how =~ /cancel/ ? qr/^ERROR:  57014/ : qr/^FATAL:  57P01/, $how);
	ok(waiting(0), "$how: the slot is free again");
}

# 10,000 waits that a timeout cancels leave no slot: ten sessions, a thousand each.  The first ones are long, for on a slow machine the others may never come to wait.
my $file = PostgreSQL::Test::Utils::tempdir . '/waits.sql';
my @waits = map { "SELECT * FROM kv_watch('{none$_,x,y}', '{0,0,0}', '1 minute');\n" } 1 .. 1000;
append_to_file($file, join('', "SET statement_timeout = '2s';\n", @waits[ 0, 1 ], "SET statement_timeout = '3ms';\n", @waits[ 2 .. $#waits ]));
my @sessions = map {
	my $s = { out => '', err => '' };
	$s->{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres'), '-f', $file ], '<', \'', '>', \$s->{out}, '2>', \$s->{err}, IPC::Run::timeout(600));
	$s;
} 1 .. 10;
ok($node->poll_query_until('postgres', 'SELECT count(*) > 0 FROM kvstore.waiters()'), 'they wait');
my $cancelled = 0;
for (@sessions)
{
	$_->{run}->finish;
	$cancelled += () = $_->{err} =~ /ERROR:  57014/g;
}
is($cancelled, 10_000, '10,000 cancelled waits');
is(sql('SELECT count(*) FROM kvstore.waiters()'), '0', 'leave no slot');

# ---- Full, and shutdown ----

sql("ALTER SYSTEM SET kvstore.max_waiters = 8");
$node->restart;
@sessions = map { start_of($watch) } 1 .. 8;
waiting(8);
is(kvs_outcome($node, $watch), 'ERROR 53400: too many sessions are waiting', 'more than kvstore.max_waiters');
is(kvs_outcome($node, "SELECT count(*) FROM kv_watch('{k}')"), '1', 'who need not wait needs no slot');
sql(q{SELECT kv_set('k', '6')});
is(join(' ', map { end_of($_) } @sessions), join(' ', ('k|6') x 8), 'all are woken');
$session = start_of($watch);
my $other = start_of("CALL kv_wait_changes('" . sql('SELECT kv_feed_position()') . "', '', '1 minute')");
waiting(2);
my $start = time;
$node->stop('fast');
cmp_ok(time - $start, '<', 10, 'a shutdown does not wait for waiters');
like(end_of($_), qr/57P01|closed/, 'they are told') for $session, $other;

done_testing();
