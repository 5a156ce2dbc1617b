# Queues through the real pgbouncer, with transaction pooling: a message is received, extended and acknowledged on different server connections, and
# waiters have a pool of their own, in which none waits for another.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $pgbouncer = $ENV{KVS_PGBOUNCER};
plan skip_all => 'no pgbouncer here' unless $pgbouncer;

my $waiters = 20;
my $node = kvs_node('pgbouncer');
my $dir = PostgreSQL::Test::Utils::tempdir_short;
my $user = getpwuid($<);
my ($host, $port) = ($node->host, $node->port);

sub sql { return $node->safe_psql('postgres', $_[0]) }

# ---- The proxy: "work" and "wait" are pools of the same database ----

append_to_file("$dir/pgbouncer.ini", <<"CONF");
[databases]
work = host=$host port=$port dbname=postgres user=$user pool_size=2
wait = host=$host port=$port dbname=postgres user=$user pool_size=$waiters
[pgbouncer]
pool_mode = transaction
auth_type = any
listen_addr =
listen_port = 6432
unix_socket_dir = $dir
logfile = $dir/log
pidfile = $dir/pid
CONF

my ($out, $err);
my $proxy = IPC::Run::start([ $pgbouncer, '--quiet', "$dir/pgbouncer.ini" ], '<', \undef, '>', \$out, '2>', \$err);
END { local $?; $proxy->kill_kill if $proxy && $proxy->pumpable }

# As the node, but reached through the proxy.
my $through = bless { %$node, _host => $dir, _port => 6432 }, ref $node;

my $answers;
for my $try (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	# not from stdin: a psql that finds no server is gone before it is written to
	$answers = IPC::Run::run([ 'psql', '-XAtq', '-d', $through->connstr('work'), '-c', 'SELECT 1' ], '<', \undef, '>', \my $one, '2>', \my $why);
	last if $answers || !$proxy->pumpable;
	select(undef, undef, undef, 0.1);
}
ok($answers, 'pgbouncer runs') or diag($err, slurp_file("$dir/log")), BAIL_OUT('no use to go on');

sql(q{CREATE EXTENSION kvstore; SELECT kv_create_queue('q')});
my $consumer = $through->background_psql('work');
my $other = $through->background_psql('work');

# ---- On different server connections ----

$consumer->query_safe(q{SELECT kv_enqueue('q', '1'), kv_enqueue('q', '2')});
my ($first, $extended, $acked) = split /\|/, $consumer->query_safe(q{SELECT pg_backend_pid(), min(receipt), max(receipt) FROM kv_dequeue('q', 2)});
# The connection that was used last is given away first.
$other->query_safe('BEGIN');
is($other->query_safe('SELECT pg_backend_pid()'), $first, 'another client has the connection on which two messages were received');
is( $consumer->query_safe(
		"SELECT pg_backend_pid() <> $first, kv_extend('$extended', '1 hour') > now() + interval '59 minutes', kv_ack('$acked')"),
	't|t|t', 'so they are extended and acknowledged on a different one');
$other->query_safe('COMMIT');
is($consumer->query_safe("SELECT pg_backend_pid() = $first, kv_ack('$extended')"), 't|t', 'and acknowledged on the first one');
is(sql(q{SELECT count(*) FROM kv_peek('q')}), 0, 'and both are gone');

# ---- A pool for waiters, with as many connections as there are waiters ----

sub start_waiting
{
	my ($statement) = @_;
	my %new;

	$new{handle} = IPC::Run::start([ 'psql', '-XAtq', '-d', $through->connstr('wait'), '-c', $statement ], '<', \undef, '>', \$new{out}, '2>', \$new{err});
	return \%new;
}

sub all_wait
{
	my ($count) = @_;
	ok($node->poll_query_until('postgres', "SELECT count(*) = $count FROM kvstore.waiters()"), "$count wait");
}

my @waiting = map { start_waiting(q{SELECT id FROM kv_dequeue('q', lease => '1 hour', wait => '10 minutes')}) } 1 .. $waiters;
all_wait($waiters);
is($consumer->query_safe("SELECT count(*) FROM kv_enqueue_many('q', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, $waiters) i))"), $waiters,
	'sending is not held up by those who wait');
$_->{handle}->finish foreach @waiting;
is(join(',', sort { $a <=> $b } map { $_->{out} =~ /(\d+)/g } @waiting), join(',', 3 .. $waiters + 2), 'each has got one');
is(sql('SELECT count(*) FROM kvstore.waiters()'), 0, 'nobody waits any longer');
sql(q{SELECT kv_purge_queue('q')});

# Waiting by CALL, then receiving through the other pool.
@waiting = map { start_waiting(q{CALL kv_wait_queue('q', '10 minutes')}) } 1 .. $waiters;
all_wait($waiters);
$consumer->query_safe("SELECT count(*) FROM kv_enqueue_many('q', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, $waiters) i))");
$_->{handle}->finish foreach @waiting;
is(join('', map { $_->{err} // '' } @waiting), '', 'all come back from CALL');
is($consumer->query_safe("SELECT count(*), sum(kv_ack(receipt)::int) FROM kv_dequeue('q', 100)"), "$waiters|$waiters", 'and the messages are received');

# A client that has gone: pgbouncer ends the connection, and the server notices.
@waiting = map { start_waiting(q{CALL kv_wait_queue('q', '10 minutes')}) } 1 .. 3;
all_wait(3);
$_->{handle}->signal('KILL') foreach @waiting;
$_->{handle}->finish foreach @waiting;
all_wait(0);

# ---- The example ----

SKIP:
{
	my $example = "$FindBin::RealBin/../../examples/consumer";

	skip 'no node, or no npm', 1 unless -d "$example/node_modules";
	sql('CREATE TABLE processed (id bigint, consumer int)');
	local %ENV = (%ENV, PGHOST => $dir, PGPORT => 6432, PGUSER => $user, PGDATABASE => 'work', WAIT_DATABASE => 'wait', QUEUE => 'q');
	my @consumers = map { my %new; $new{handle} = IPC::Run::start([ 'node', "$example/consumer.js" ], '<', \undef, '>', \$new{out}, '2>', \$new{err}); \%new } 1 .. 2;
	all_wait(2);
	sql("SELECT count(*) FROM kv_enqueue_many('q', ARRAY(SELECT '{}'::jsonb FROM generate_series(1, 500)))");
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 500 AND count(DISTINCT id) = 500 FROM processed}), 'the example works through it');
	all_wait(2);
	$_->{handle}->signal('TERM') foreach @consumers;
	ok($_->{handle}->finish, 'and stops') or diag($_->{err}) foreach @consumers;
	is(join('', map { $_->{err} } @consumers), '', 'without a complaint');
}

$_->quit foreach $consumer, $other;
$proxy->signal('TERM');
$proxy->finish;
$node->stop;
done_testing();
