# Snapshots on a running server: the worker sweeps them, a page of a large context costs what it costs in a small one, recovery after a crash,
# many sessions append at once.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('snapshot', conf => "autovacuum = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

# ---- The worker ----

sql("CREATE EXTENSION kvstore; SELECT kv_create_snapshot_store(); SELECT kv_create_snapshot_store('kept', default_ttl => '0')");
sql("SELECT kv_snapshot_append('c', '1', ttl => '0.3 s'), kv_snapshot_append('c', '2'), kv_snapshot_append('c', '3', store => 'kept')");
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM kvstore.p_default"), 'an expired snapshot is removed by the worker');
sql("SELECT count(kv_snapshot_append('many', to_jsonb(i), ttl => i * interval '10 ms')) FROM generate_series(1, 300) i");
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM kvstore.p_default WHERE context = 'many'"), 'so are many, one after another');
is(sql("SELECT state FROM kv_snapshot_load('c') UNION ALL SELECT state FROM kv_snapshot_load('c', store => 'kept')"), "2\n3", 'the others stay');

# A foreign key of the user's is a trigger on DELETE: such rows go one by one, and the reference is honoured.
sql(q{
	CREATE TABLE note (context text, seq bigint, FOREIGN KEY (context, seq) REFERENCES kvstore.p_default ON DELETE CASCADE);
	BEGIN;
	SELECT kv_snapshot_append('noted', '1', ttl => '0.5 s');
	INSERT INTO note SELECT context, seq FROM kvstore.p_default WHERE context = 'noted';
	COMMIT});
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM kvstore.p_default WHERE context = 'noted'"), 'a snapshot that is referenced is swept');
is(sql("SELECT count(*) FROM note"), '0', 'and what references it');
sql("DROP TABLE note");

# ---- A page of 100,000 snapshots, without statistics ----

sql(q{
	INSERT INTO kvstore.p_default (context, hash, state, created_at, state_size)
		SELECT 'big', 'h' || i, jsonb_build_object('step', i, 'text', repeat('x', 200)), now(), 300 FROM generate_series(1, 100000) i;
	SELECT kv_snapshot_append('small', to_jsonb(i), hash => 's' || i) FROM generate_series(1, 200) i});

sub blocks
{
	my ($call) = @_;
	my $plan = sql("EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT * FROM $call");

	return ($plan =~ /"Shared Hit Blocks": (\d+)/)[0] + ($plan =~ /"Shared Read Blocks": (\d+)/)[0];
}
sql("SELECT 1");
my ($first) = split /\n/, sql("SELECT min(seq) FROM kvstore.p_default WHERE context = 'big'");
for my $after (0, $first + 49_999, $first + 99_000)
{
	is(sql("SELECT count(*), min(seq), max(seq) FROM kv_snapshot_load('big', $after, 100)"), join('|', 100, ($after || $first - 1) + 1, ($after || $first - 1) + 100), "a page after $after");
	# most of it is the look-up of catalogs by a new session
	cmp_ok(blocks("kv_snapshot_load('big', $after, 100)"), '<', 700, 'reads few blocks');
}
cmp_ok(blocks("kv_snapshot_latest('big')"), '<', 700, 'so does the latest');
is(sql("SELECT state ->> 'step' FROM kv_snapshot_latest('big')"), '100000', 'which is the last');
is(sql("SELECT count(*) FROM kv_snapshot_load('big')"), '100000', 'and all of it can be read at once');
cmp_ok(blocks("kv_snapshot_append('big', '\"last\"')"), '<', 700, 'appending reads few blocks');
sql("SELECT kv_snapshot_append('big', '\"more\"', keep => 99999)");
is(sql("SELECT count(*) FROM kv_snapshot_hashes('big')"), '99999', 'keep keeps so many');

# ---- A crash: what was committed is there, and new numbers are above ----

my $last = sql("SELECT kv_snapshot_append('crash', '\"before\"', ttl => '2 s'); SELECT seq FROM kv_snapshot_latest('crash')");
$node->stop('immediate');
$node->start;
is(sql("SELECT item_count FROM kv_snapshot_stats('small')"), '200', 'after a crash all are there');
sql("SELECT kv_snapshot_append('crash', '\"after\"')");
cmp_ok(sql("SELECT max(seq) FROM kv_snapshot_load('crash')"), '>', (split /\n/, $last)[1], 'and order goes on');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM kvstore.p_default WHERE context = 'crash'"), 'what expired meanwhile is removed');

# ---- Many sessions append, the same states and others, while readers follow ----

kvs_storm($node, {
	append => "\\set c random(1, 3)\n\\set n random(1, 50)\nSELECT kv_snapshot_append('storm' || :c, to_jsonb(:n::int), ttl => '0.2 s');\n",
	keep => "\\set c random(1, 3)\nSELECT kv_snapshot_append('storm' || :c, to_jsonb(clock_timestamp()), keep => 20);\n",
	clear => "\\set c random(1, 3)\nSELECT kv_snapshot_delete('storm' || :c);\n",
	chain => "\\set c random(1, 2)\nSELECT kv_snapshot_append('chain' || :c, jsonb_build_object('after', hash, 'at', clock_timestamp()), if_latest => hash)
		FROM COALESCE((SELECT hash FROM kv_snapshot_latest('chain' || :c)), '') hash;\n",
	prune => "SELECT kv_snapshot_prune(clock_timestamp() - interval '0.3 s', keep => 25);\n",
	fork => "\\set c random(1, 2)\nSELECT kv_snapshot_fork('chain' || :c, 'fork' || :client_id || ' ' || clock_timestamp());\n",
	sweep => "SELECT kv_sweep(10);\n",
}, 3);
is(sql("SELECT count(*) FROM (SELECT context FROM kvstore.p_default GROUP BY context, hash HAVING count(*) > 1) d"), '0', 'a state is one snapshot of its context');
is(sql("SELECT bool_and(hash = encode(sha256(convert_to(state::text, 'UTF8')), 'hex')) FROM kvstore.p_default WHERE context LIKE 'storm%'") || 't', 't', 'under its hash');

# Each went on from the one before, in forks as well; what the first went on from may be pruned.
is(sql(q{SELECT count(*) FROM (SELECT state ->> 'after' AS after, lag(hash) OVER (PARTITION BY context ORDER BY seq) AS before FROM kvstore.p_default WHERE context ~ '^(chain|fork)') c WHERE after <> before}), '0', 'no chain has forked');
cmp_ok(sql("SELECT count(*) FROM kv_snapshot_load('chain1')"), '>', 1, 'and there is one');
cmp_ok(sql("SELECT count(*) FROM kvstore.p_default WHERE context = 'chain1' AND created_at < now() - interval '1 hour'"), '<=', 25, 'old ones are pruned');

# ---- Many contexts: pruning needs memory and locks for one at a time ----

sql(q{INSERT INTO kvstore.p_default (context, hash, state, created_at, state_size)
	SELECT 'tenant' || i % 30000, i, '1', now(), 1 FROM generate_series(1, 90000) i});
is(sql("SELECT kv_snapshot_prune(keep => 2)") >= 30000, 1, 'as many contexts as there are no locks for are pruned');
is(sql("SELECT count(*) FROM kvstore.p_default WHERE context LIKE 'tenant%'"), '60000', 'each to its last two');

$node->stop;
done_testing();
