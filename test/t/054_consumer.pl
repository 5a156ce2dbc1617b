# The program in examples/consumer keeps what it promises: of three processes one is killed, one is stopped, and each of 10,000 messages is processed exactly
# once; what the stopped one held is delivered to the others at once.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $dir = "$FindBin::RealBin/../../examples/consumer";
plan skip_all => 'no node, or no npm to install what examples/consumer needs' unless -d "$dir/node_modules";

my $messages = 10_000;
my $node = kvs_node('consumer', conf => "fsync = off\nlog_statement = none\n");
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PGDATABASE} = 'postgres';
local $ENV{PGUSER} = getpwuid($<);
local $ENV{QUEUE} = 'jobs';

sub sql { return $node->safe_psql('postgres', $_[0]) }

# Wait until a query gives 't'.
sub until_true
{
	my ($query, $name) = @_;
	ok($node->poll_query_until('postgres', $query), $name) or BAIL_OUT('no use to go on');
}

# Start a consumer whose leases have this length.
my %process;

sub start
{
	my ($name, $lease_ms) = @_;
	local $ENV{LEASE_MS} = $lease_ms;
	my %new = (err => '');

	$new{handle} = IPC::Run::start([ 'node', "$dir/consumer.js" ], '<', \undef, '>', \$new{out}, '2>', \$new{err});
	$process{$name} = \%new;
}

END
{
	$_->{handle}->kill_kill foreach grep { $_->{handle}->pumpable } values %process;
}

# Those that are leased for longer than anybody but the patient one leases.
my $long = q{FROM kv_leases WHERE leased_until > now() + '5 minutes'};

sql('CREATE EXTENSION kvstore; CREATE TABLE processed (id bigint, consumer int)');
sql(q{SELECT kv_create_queue('jobs')});

# ---- Three at work ----

# All stop at their first message, with a batch in their hands.
my $gate = $node->background_psql('postgres');
$gate->query_safe('BEGIN; LOCK TABLE processed IN SHARE MODE');
start('killed', 3_000);
start('stopped', 3_600_000);
start('third', 3_000);
until_true(q{SELECT count(DISTINCT pid) = 3 FROM kvstore.waiters() WHERE kind = 'queue'}, 'three wait');
sql("SELECT count(*) FROM kv_enqueue_many('jobs', ARRAY(SELECT '{}'::jsonb FROM generate_series(1, $messages)))");
until_true(q{SELECT count(*) = 3 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^INSERT INTO processed'}, 'three are at work');
is(sql("SELECT count(*) $long"), 20, 'the one with long leases has a batch');

$process{killed}{handle}->signal('KILL');
$process{stopped}{handle}->signal('TERM');
$process{killed}{handle}->finish;
$gate->query_safe('COMMIT');
$gate->quit;

ok($process{stopped}{handle}->finish, 'the one that was stopped has ended with status 0')
  or diag($process{stopped}{err});
is(sql("SELECT count(*) $long"), 0, 'and holds no message');
like($process{stopped}{err}, qr/gave back 1\d messages/, 'it gave back what it had not done');

until_true("SELECT count(*) >= $messages FROM processed", 'all are processed');
until_true(q{SELECT count(*) = 0 FROM kv_peek('jobs')}, 'and acknowledged');
is(sql('SELECT count(*), count(DISTINCT id), count(DISTINCT consumer) BETWEEN 1 AND 2 FROM processed'), "$messages|$messages|t", 'each exactly once');
is(sql(q{SELECT count(*) FROM kv_dead_letters('jobs')}), 0, 'none is a dead letter');

# ---- Work that takes longer than the lease; nobody else gets the message ----

start('fourth', 1_000);
sql(q{SELECT kv_enqueue('jobs', '{"ms": 2500}') FROM generate_series(1, 2)});
until_true("SELECT count(*) = $messages + 2 FROM processed", 'long work is done');
is(sql('SELECT count(DISTINCT id) FROM processed'), $messages + 2, 'once');

# ---- Their connections end, while they wait and in the middle of work ----

my $kill = q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()};
until_true(q{SELECT count(DISTINCT pid) = 2 FROM kvstore.waiters() WHERE kind = 'queue'}, 'both wait');
sql($kill);
until_true(q{SELECT count(DISTINCT pid) = 2 FROM kvstore.waiters() WHERE kind = 'queue'}, 'they wait again when their connections have ended');
sql(q{SELECT kv_alter_queue('jobs', backoff => '{100 ms}', max_attempts => 100); SELECT kv_enqueue('jobs', '{"ms": 100}') FROM generate_series(1, 40)});
for my $round (1 .. 3)
{
	until_true(q{SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'idle in transaction'}, "they are at work, $round");
	sql($kill);
}
until_true("SELECT count(*) = $messages + 42 FROM processed", 'all is done, whenever their connections ended');
is(sql('SELECT count(DISTINCT id) FROM processed'), $messages + 42, 'once');
until_true(q{SELECT count(*) = 0 FROM kv_peek('jobs')}, 'and acknowledged');
is(sql(q{SELECT count(*) FROM kv_dead_letters('jobs')}), 0, 'none is a dead letter');

# ---- The server restarts under them; idle ones stop at once ----

$node->restart;
sql(q{SELECT kv_enqueue('jobs', '{}')});
until_true("SELECT count(*) = $messages + 43 FROM processed", 'they find the server again');
until_true(q{SELECT count(DISTINCT pid) = 2 FROM kvstore.waiters()}, 'and wait');
for my $name ('third', 'fourth')
{
	$process{$name}{handle}->signal('TERM');
	ok($process{$name}{handle}->finish, "$name: stopped while it waits") or diag($process{$name}{err});
}
until_true('SELECT count(*) = 0 FROM kvstore.waiters()', 'nobody waits any longer');
$node->stop;

done_testing();
