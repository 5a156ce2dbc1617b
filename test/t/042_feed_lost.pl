# A follower whose place is lost is told so, and listing again helps: overrun, crash, restart, promotion.  One of a quiet prefix or a quiet database goes on.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use KvsTest;

my $node = kvs_node('feed', init => { allows_streaming => 1 }, conf => "kvstore.feed_size = '256kB'\nrestart_after_crash = on\n");

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }
sub position { return sql('SELECT kv_feed_position()', $_[0]); }
sub changes { return kvs_outcome($node, "SELECT operation, key FROM kv_changes('$_[0]', '" . ($_[1] // '') . "')", $_[2]); }
my $lost = 'ERROR KV003: feed position is lost';

sql('CREATE DATABASE other');
sql('CREATE EXTENSION kvstore; SELECT kv_create_store()', $_) for qw(postgres other);

# ---- Overrun ----

my $old = position();
sql(q{SELECT kv_set('quiet:1', '1')});
my $quiet = position('other');
sql(q{SELECT kv_set('quiet', '1')}, 'other');
is(changes($old), "set|quiet:1\nprogress|", 'before: all is there');
# as many transactions as fill the feed several times
sql(q{DO $$ BEGIN FOR i IN 1 .. 20000 LOOP PERFORM kv_set('busy:' || i, '1'); COMMIT; END LOOP; END $$});
is(changes($old), $lost, 'overrun: told so');
is(changes($old, 'quiet:'), $lost, 'whatever the prefix');
is(kvs_outcome($node, "CALL kv_wait_changes('$old', '')"), $lost, 'and by kv_wait_changes()');
ok($node->poll_query_until('postgres', q{SELECT overruns = 3 FROM pg_stat_kvstore WHERE store = 'default'}), 'each is counted');
is(changes($quiet, '', 'other'), "set|quiet\nprogress|", 'a quiet database keeps its changes');
is(changes(position()), 'progress|', 'a new position works');

# One that writes little takes pages from the one that has most, not the other way round.
my $mine = position('other');
sql(q{DO $$ BEGIN FOR i IN 1 .. 500 LOOP PERFORM kv_set('o' || i, '1'); COMMIT; END LOOP; END $$}, 'other');
sql(q{DO $$ BEGIN FOR i IN 1 .. 20000 LOOP PERFORM kv_set('busy:' || i, '2'); COMMIT; END LOOP; END $$});
is(sql("SELECT count(*) FROM kv_changes('$mine', '')", 'other'), '501', 'a database with less than its share keeps it');

# A follower of a quiet prefix goes on beside a busy one, in calls and in one that waits.
my $place = position();
my $rounds = 0;
for my $round (1 .. 20)
{
	sql("DO \$\$ BEGIN FOR i IN 1 .. 1000 LOOP PERFORM kv_set('busy:' || i, '$round'); COMMIT; END LOOP; END \$\$");
	$place = sql("SELECT feed_position FROM kv_changes('$place', 'quiet:') WHERE operation = 'progress'");
	$rounds++ if length $place;
}
is($rounds, 20, 'progress rows lead a follower of a quiet prefix through a busy feed');
sql("ALTER SYSTEM SET kvstore.fallback_poll = '1min'");
sql('SELECT pg_reload_conf()');
$node->poll_query_until('postgres', q{SELECT current_setting('kvstore.fallback_poll') = '1min'});
my ($out, $err) = ('', '');
my $waiter = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SELECT operation, key FROM kv_changes('$place', 'quiet:', '1 minute')" ], '<', \'', '>', \$out, '2>', \$err, IPC::Run::timeout(100));
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM kvstore.waiters()');
# So many changes fill more than the quarter of the feed after which it is woken; before the next ones it must have slept again.
my $follower = sql('SELECT pid FROM kvstore.waiters()');
sub sleeps { return -r "/proc/$follower/status" ? (slurp_file("/proc/$follower/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m)[0] : -1; }
for my $round (1 .. 14)
{
	my ($before, $start) = (sleeps(), time);

	sql(q{DO $$ BEGIN FOR i IN 1 .. 1500 LOOP PERFORM kv_set('busy:' || i, '3'); COMMIT; END LOOP; END $$});
	usleep(1000) while sleeps() == $before && time - $start < ($before < 0 ? 0.1 : 30);
}
sql(q{SELECT kv_set('quiet:2', '1')});
$waiter->finish;
is("$out$err", "set|quiet:2\nprogress|\n", 'one that is waiting is led through it too');
sql("ALTER SYSTEM RESET kvstore.fallback_poll");

# ---- Positions of others ----

is(changes(position('other')), 'ERROR 22023: feed position is of another database', 'a position of another database');
sql('CREATE DATABASE copy TEMPLATE other');
is(changes($mine, '', 'copy'), 'ERROR 22023: feed position is of another database', 'or of that which this one is a copy of');
is(changes(position('copy'), '', 'copy'), 'progress|', 'a copy has a feed of its own');
sql('DROP DATABASE copy');

# ---- A row that is locked, a change that is not there yet ----

$place = position();
my $writer = $node->background_psql('postgres');
$writer->query_safe(q{BEGIN; SELECT kv_set('open', '1')});
is(changes($place), 'progress|', 'nothing before the commit');
$writer->query_safe('COMMIT');
is(changes($place), "set|open\nprogress|", 'and all after it');

# ---- Restart and crash ----

$place = position();
$node->restart;
is(changes($place), $lost, 'a restart');
sub follows
{
	my ($name) = @_;
	my $place = position();
	my $known = sql(q{SELECT string_agg(key, ' ') FROM kv_list('k')});

	sql(q{SELECT kv_set('k1', '1'), kv_delete('k1')});
	is(changes($place), "set|k1\ndelete|k1\nprogress|", "$name: position, list, follow work again");
	return;
}
follows('a restart');
$place = position();
$writer = $node->background_psql('postgres');
my $pid = $writer->query_safe('SELECT pg_backend_pid()');
my $started = sql('SELECT kvstore.shared_since()');
kill 'KILL', $pid;
usleep(10_000) until eval { $node->safe_psql('postgres', 'SELECT kvstore.shared_since()') ne $started };
eval { $writer->quit };
is(changes($place), $lost, 'a crash');
follows('a crash');

# ---- Standby and promotion ----

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('feed_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$place = position();
$node->wait_for_catchup($standby);
is(kvs_outcome($standby, 'SELECT kv_feed_position()'), 'ERROR 25006: cannot execute kv_feed_position() during recovery', 'standby: no position');
is(kvs_outcome($standby, "SELECT * FROM kv_changes('$place', '')"), 'ERROR 25006: cannot execute kv_changes() during recovery', 'standby: no changes');
is(kvs_outcome($standby, "CALL kv_wait_changes('$place', '')"), 'ERROR 25006: cannot execute kv_wait_changes() during recovery', 'standby: no waiting for them');
is(kvs_outcome($standby, q{SELECT key, value FROM kv_watch('{k,quiet:1}', '{0,0}')}), 'quiet:1|1', 'standby: kv_watch() gives what differs');
($out, $err) = ('', '');
$waiter = IPC::Run::start([ 'psql', '-XAtq', '-d', $standby->connstr('postgres'), '-c', "SELECT key, value FROM kv_watch('{late}', '{0}', '1 minute')" ], '<', \'', '>', \$out, '2>', \$err, IPC::Run::timeout(100));
$standby->poll_query_until('postgres', 'SELECT count(*) = 1 FROM kvstore.waiters()');
sql(q{SELECT kv_set('late', '1')});
$waiter->finish;
is("$out$err", "late|1\n", 'standby: kv_watch() waits by looking now and then');
($out, $err) = ('', '');
$waiter = IPC::Run::start([ 'psql', '-XAtq', '-d', $standby->connstr('postgres'), '-c', "SELECT key, value FROM kv_watch('{later}', '{0}', '1 minute')" ], '<', \'', '>', \$out, '2>', \$err, IPC::Run::timeout(100));
$standby->poll_query_until('postgres', 'SELECT count(*) = 1 FROM kvstore.waiters()');
$node->stop;
$standby->promote;
is(kvs_outcome($standby, "SELECT * FROM kv_changes('$place', '')"), $lost, 'promotion: old positions are refused');
$standby->safe_psql('postgres', q{SELECT kv_set('later', '1')});
$waiter->finish;
is("$out$err", "later|1\n", 'promotion: who was waiting is woken by the new primary');
$node = $standby;
follows('promotion');
$standby->stop;

# ---- Without preload ----

$node = kvs_node('unshared', preload => 0);
sql('CREATE EXTENSION kvstore; SELECT kv_create_store()');
is(kvs_outcome($node, $_), 'ERROR 55000: ' . (/(kv_\w+)/)[0] . '() needs kvstore in shared_preload_libraries', "without preload: $_")
  for 'SELECT kv_feed_position()', q{SELECT * FROM kv_changes('x', '')}, q{SELECT * FROM kv_watch('{a}')}, q{SELECT * FROM kv_watch('{a}', wait => '0')}, q{CALL kv_wait_changes('x', '')};
is(sql(q{BEGIN; SELECT kv_set('k', '1'); DELETE FROM kvstore.s_default; SELECT kv_clear(); COMMIT; SELECT count(*) FROM kvstore.waiters()}), "1\n0\n0", 'without preload: writing notes nothing');

done_testing();
