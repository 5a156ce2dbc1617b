# A standby answers reads and refuses writes; promoted, it never gives a number again that the old primary has given, seen by the standby
# or not.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $primary = kvs_node('primary', init => { allows_streaming => 1 });
my $jump = 1 << 24;

$primary->safe_psql('postgres', q{
	CREATE EXTENSION kvstore;
	SELECT kv_create_store();
	SELECT kv_create_store('fast', unlogged => true);
	SELECT kv_create_store('rows');
	SELECT kv_set('a', '1'), kv_set('b', '2', ttl => '1 day'), kv_set('gone', '3', ttl => '0'), kv_set(kv_key('users', 42), '{"x": 1}'), kv_set_bytes('bytes', '\xff');
	SELECT kv_set('a', '1', store => 'fast');
	SELECT kv_set('mine', '1', store => 'rows'), kv_set('theirs', '2', store => 'rows');
	CREATE ROLE reader;
	GRANT SELECT ON kvstore.s_rows TO reader;
	ALTER TABLE kvstore.s_rows ENABLE ROW LEVEL SECURITY;
	CREATE POLICY mine ON kvstore.s_rows USING (key = kv_key('mine'));
});
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', q{SELECT kv_set('after', '"the backup"')});
$primary->wait_for_catchup($standby);

# ---- Reads ----

my %reads = (
	q{SELECT kv_get('a')} => '1',
	q{SELECT kv_get('after')} => '"the backup"',
	q{SELECT kv_get('gone') IS NULL} => 't',
	q{SELECT kv_get(kv_key('users', 42))} => '{"x": 1}',
	q{SELECT kv_get_bytes('bytes')} => '\xff',
	q{SELECT kv_exists('a'), kv_exists('none')} => 't|f',
	q{SELECT key, value, versionstamp > 0, expires_at > now() FROM kv_entry('b')} => 'b|2|t|t',
	q{SELECT key, value FROM kv_get_many('{b,none,a}')} => "b|2\nnone|\na|1",
	q{SELECT key, value FROM kv_get_many_paths('[["users", 42]]')} => '["users", 42]|{"x": 1}',
	q{SELECT string_agg(key, ' ') FROM kv_list('')} => 'a after b bytes',
	q{SELECT key FROM kv_list(kv_key('users'), reverse => true, page_size => 1)} => '["users", 42]',
	q{SELECT kv_count(''), kv_count(kv_key())} => '4|5',
	q{SELECT kv_export('a')} => '{"a": {"value": 1}, "after": {"value": "the backup"}}',
	q{SELECT count(*) FROM kvstore.v_default} => '5',
	q{SELECT store, unlogged FROM kv_stores ORDER BY store} => "default|f\nfast|t\nrows|f",
	q{SELECT status, in_recovery, stores FROM kv_health()} => 'read-only|t|3',
	q{SET ROLE reader; SELECT kv_get('mine', 'rows'), kv_get('theirs', 'rows') IS NULL, kv_count('', 'rows')} => '1|t|1');
is(kvs_outcome($standby, $_), $reads{$_}, "standby: $_") for sort keys %reads;

# ---- Writes ----

like(kvs_outcome($standby, "SELECT $_"), qr/^ERROR 25006: cannot execute kv_\w+\(\) in a read-only transaction/, "standby refuses $_")
  for q{kv_set('a', '1')}, q{kv_set(kv_key('a'), '1')}, q{kv_set_bytes('a', '1')}, q{kv_delete('a')}, q{kv_take('a')}, q{kv_expire('a')}, q{kv_import('{}')},
  q{kv_create_store('new')}, q{kv_create_store(if_not_exists => true)}, q{kv_alter_store(default_ttl => '1 s')}, q{kv_drop_store()};
like(kvs_outcome($standby, q{SELECT kvstore.next_versionstamp()}), qr/^ERROR 25006: cannot execute kvstore.next_versionstamp\(\)/, 'standby gives no number');

# Bad arguments are told before that a standby cannot do it, or after: an error in any case, and never a crash.
like(kvs_outcome($standby, q{SELECT kv_set(NULL::text, NULL)}), qr/^ERROR (22004|25006)/, 'standby: NULL');
like(kvs_outcome($standby, q{SELECT kv_get('a', 'none')}), qr/^ERROR 42P01/, 'standby: unknown store');

is(kvs_outcome($standby, q{SELECT kv_get('a', 'fast')}), 'ERROR 0A000: store "fast" is unlogged and cannot be read during recovery', 'standby: unlogged store');
like(kvs_outcome($standby, $_), qr/^ERROR 0A000/, "standby: unlogged store: $_")
  for q{SELECT * FROM kv_list('', store => 'fast')}, q{SELECT kv_count('', 'fast')}, q{SELECT * FROM kv_get_many('{a}', 'fast')}, q{SELECT kv_export('', 'fast')};

# ---- Promotion ----

# This session has used its plans and caches in recovery, and lives through the promotion.
my $live = $standby->background_psql('postgres');
is($live->query_safe(q{SELECT kv_get('a')}), '1', 'live session reads in recovery');

# What the standby never hears of: numbers given while it is away, some committed, some not.  What has expired is gone there, or its removal would take a
# number after the promotion.
$primary->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM kvstore.s_default WHERE expires_at < now())}) or die 'the worker does not come';
$primary->wait_for_catchup($standby);
$standby->stop;
my $highest = $primary->safe_psql('postgres', q{SELECT max(kv_set('lost' || i, '1')) FROM generate_series(1, 1000) i});
my $open = $primary->background_psql('postgres');
$highest = $open->query_safe(q{BEGIN; SELECT kv_set('uncommitted', '1')});
$primary->stop('immediate');
eval { $open->quit };
eval { $live->quit };
$standby->start;
$live = $standby->background_psql('postgres');
is($live->query_safe(q{SELECT kv_get('a')}), '1', 'live session reads in recovery again');
like(kvs_outcome($standby, q{SELECT kv_set('a', '2')}), qr/^ERROR 25006/, 'still a standby');
$standby->promote;

my $first = $live->query_safe(q{SELECT kv_set('a', '"promoted"')});
cmp_ok($first, '>', $highest, "the live session's number after promotion is above all that the old primary gave");
cmp_ok($first, '>=', $jump, 'it has jumped');
my $second = $standby->safe_psql('postgres', q{SELECT kv_set('a', '"again"')});
is($second, $first + 1, 'once');
is($live->query_safe(q{SELECT kv_get('a')}), '"again"', 'the live session reads and writes on');
is($live->query_safe(q{SELECT kv_get('a', 'fast') IS NULL}), 't', 'unlogged store: empty after promotion');
is($live->query_safe(q{SELECT kv_set('a', '1', store => 'fast') > 0}), 't', 'and written again');
$live->quit;

# A second promotion jumps again: its timeline is another one.
$standby->backup('second');
my $third = PostgreSQL::Test::Cluster->new('third');
$third->init_from_backup($standby, 'second', has_streaming => 1);
$third->start;
$standby->wait_for_catchup($third);
$third->promote;
cmp_ok($third->safe_psql('postgres', q{SELECT kv_set('a', '"third"')}), '>=', $second + $jump - 100, 'promoted again: jumped again');
ok($third->poll_query_until('postgres', q{SELECT status = 'ok' AND NOT in_recovery FROM kv_health()}), 'and healthy, once the launcher has started');

done_testing();
