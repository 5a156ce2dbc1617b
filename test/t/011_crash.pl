# A number that somebody saw is never given again: after a crash the first number of each database jumps; after a clean restart nothing jumps.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $jump = 1 << 24;
my $node = kvs_node('crash', conf => "restart_after_crash = on\n");

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql($_, q{CREATE EXTENSION kvstore; SELECT kv_create_store(); SELECT kv_create_store('fast', unlogged => true)}) for qw(postgres other);

sub next_number { return $node->safe_psql($_[0] // 'postgres', q{SELECT kv_set('k', '1')}) }

# ---- Clean restarts ----

my $number = next_number();
cmp_ok($number, '<', 100, 'a new server starts low');
for my $mode (qw(fast smart))
{
	$node->stop($mode);
	$node->start;
	is(next_number(), ++$number, "no jump after a $mode stop");
}
$node->safe_psql('postgres', q{SELECT kv_set('more' || i, '1') FROM generate_series(1, 100) i});
$number += 100;
$node->restart;
is(next_number(), ++$number, 'no number is lost in a restart either');

# ---- Immediate stop: numbers that were seen and never committed ----

my $session = $node->background_psql('postgres');
my $seen = $session->query_safe(q{BEGIN; SELECT max(kv_set('open' || i, '1')) FROM generate_series(1, 200) i});
$node->stop('immediate');
eval { $session->quit };
$node->start;
is($node->safe_psql('postgres', q{SELECT kv_count('open'), kv_get('k')}), '0|1', 'what was committed is there, the rest is not');
$number = next_number();
cmp_ok($number, '>', $seen, 'the next number is above all that was seen');
cmp_ok($number, '>=', $jump, 'it has jumped');
is(next_number(), $number + 1, 'once');
my $other = next_number('other');
cmp_ok($other, '>=', $jump, 'the other database jumps too, though nobody had taken a number there');
is(next_number('other'), $other + 1, 'once');
is($node->safe_psql('postgres', q{SELECT kv_count('', 'fast')}), '0', 'an unlogged store is empty, and answers');

# The jump itself is safe on disk before its first number is given.
$session = $node->background_psql('postgres');
$node->stop('immediate');
eval { $session->quit };
$node->start;
$session = $node->background_psql('postgres');
my $after_jump = $session->query_safe(q{BEGIN; SELECT kv_set('k', '2')});
cmp_ok($after_jump, '>=', $number + $jump - 100, 'jumped again after a second crash');
$node->stop('immediate');
eval { $session->quit };
$node->start;
$number = next_number();
cmp_ok($number, '>', $after_jump, 'a crash right after the first number of a jump, not committed: still above it');

# ---- A backend is killed: the server restarts by itself, with the same postmaster ----

$session = $node->background_psql('postgres');
$seen = $session->query_safe(q{BEGIN; SELECT kv_set('k', '3')});
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $since = $node->safe_psql('postgres', 'SELECT kvstore.shared_since()');
kill 'KILL', $pid;
# the postmaster need not have noticed yet
ok($node->poll_query_until('postgres', "SELECT kvstore.shared_since() > '$since'"), 'restarted by itself');
eval { $session->quit };
my $after = next_number();
cmp_ok($after, '>', $seen, 'above what the killed session had seen');
cmp_ok($after, '>=', $number + $jump - 100, 'jumped');
is(next_number(), $after + 1, 'once');

# ---- And clean again: the crash is forgotten ----

$node->restart;
is(next_number(), $after + 2, 'no jump after a clean restart that follows a crash');
ok($node->poll_query_until('postgres', q{SELECT status = 'ok' FROM kv_health()}), 'healthy, once the launcher has started');

# ---- A store's rows bring numbers along (a restore): above them from the commit on, whatever happens then ----

my $brought = $node->safe_psql('postgres', q{INSERT INTO kvstore.s_default (key, value, versionstamp) VALUES (kv_key('brought'), '1', 1000000000000) RETURNING versionstamp});
$node->stop('immediate');
$node->start;
cmp_ok(next_number(), '>', $brought, 'above a number that a row brought along, after a crash');

done_testing();
