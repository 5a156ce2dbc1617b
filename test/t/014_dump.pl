# pg_dump and restore: a store is the user's own table and comes back whole, with values, versionstamps, expiries, settings, grants, indexes,
# constraints, policies and the guard; new numbers are above the stored ones.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('dump');
my $dir = PostgreSQL::Test::Utils::tempdir;

$node->safe_psql('postgres', q{CREATE ROLE owner; CREATE ROLE reader; CREATE DATABASE source OWNER owner});
$node->safe_psql('source', q{
	CREATE EXTENSION kvstore;
	GRANT CREATE ON SCHEMA kvstore TO owner;
	SET ROLE owner;
	SELECT kv_create_store();
	SELECT kv_create_store('sessions', default_ttl => '30 min', max_value_size => 5000);
	SELECT kv_create_store('fast', unlogged => true);
	SELECT kv_create_store('gone', default_ttl => '1 min');
	SELECT kv_drop_store('gone');
	SELECT kv_set('a', '{"team": "x", "n": 1.50}'), kv_set('b', 'null', expires_at => '2100-01-01 00:00:00.123456Z'), kv_set('expired', '1', ttl => '0'),
		kv_set(kv_key('users', 42, true, '\x00'::bytea, '{"bigint": "-5"}'::jsonb), '"path"'), kv_set_bytes('bytes', '\x00ff61'), kv_import('{"u64": {"u64": "18446744073709551615"}}');
	SELECT count(kv_set('many:' || i, jsonb_build_object('team', i % 10, 'text', repeat(md5(i::text), 100)))) FROM generate_series(1, 500) i;
	SELECT kv_set('s', '1', store => 'sessions'), kv_set('f', '1', store => 'fast');
	SELECT kv_set(repeat('k', 2046), '"long key"');
	CREATE INDEX by_team ON kvstore.s_default ((value ->> 'team'));
	ALTER TABLE kvstore.s_sessions ADD CONSTRAINT small CHECK (length(value::text) < 100);
	ALTER TABLE kvstore.s_sessions ENABLE ROW LEVEL SECURITY;
	CREATE POLICY everyone ON kvstore.s_sessions USING (key <> kv_key('hidden'));
	GRANT SELECT ON kvstore.s_default TO reader;
	GRANT SELECT, INSERT, UPDATE ON kvstore.s_sessions TO reader;
	COMMENT ON TABLE kvstore.s_default IS 'mine';
});

# All that must come back, as text.
my $contents = q{
	SELECT format('%s %s', s.store, t) FROM (VALUES ('default'), ('sessions'), ('fast')) s(store), LATERAL (SELECT 1) x,
		LATERAL (SELECT string_agg(r::text, E'\n' ORDER BY r.key) AS t FROM (SELECT * FROM kvstore.s_default WHERE s.store = 'default' UNION ALL SELECT * FROM kvstore.s_sessions WHERE s.store = 'sessions'
			UNION ALL SELECT * FROM kvstore.s_fast WHERE s.store = 'fast') r) y;
	SELECT store, table_name, owner, unlogged, default_ttl, max_value_size FROM kv_stores ORDER BY store;
	SELECT * FROM kvstore.stores ORDER BY store;
	SELECT tgrelid::regclass, tgname, tgenabled, tgfoid::regproc FROM pg_trigger WHERE tgname LIKE 'kvstore%' ORDER BY tgrelid::regclass::text, tgname;
	SELECT oid::regclass, relacl, reloptions, relrowsecurity, obj_description(oid) FROM pg_class WHERE relnamespace = 'kvstore'::regnamespace ORDER BY relname;
	SELECT indexdef FROM pg_indexes WHERE schemaname = 'kvstore' ORDER BY indexname;
	SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'kvstore'::regnamespace ORDER BY conname;
	SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy;
	SELECT nspacl FROM pg_namespace WHERE nspname = 'kvstore';
	SELECT (SELECT count(*) FROM kvstore.v_default), kv_count(kv_key()), kv_get('a'), kv_get_bytes('bytes'), (SELECT kind FROM kv_entry('u64')), kv_exists(repeat('k', 2046)), kv_get('expired') IS NULL};
my $before = $node->safe_psql('source', $contents);
like($before, qr/many:500/, 'there is something to dump');
my $highest = $node->safe_psql('source', q{SELECT max(versionstamp) FROM kvstore.s_default});

sub check_restored
{
	my ($database, $how) = @_;

	is($node->safe_psql($database, $contents), $before, "$how: all is the same");
	cmp_ok($node->safe_psql($database, q{SELECT kv_set('a', '"new"')}), '>', $highest, "$how: new versionstamps are above the stored ones");
	is($node->safe_psql($database, q{SELECT kv_set('new', '1', store => 'sessions') > 0, expires_at > now() FROM kv_entry('s', 'sessions')}), 't|t', "$how: settings work");
	like(kvs_outcome($node, q{SET ROLE reader; INSERT INTO kvstore.s_sessions (key, value) VALUES (kv_key('x'), '1')}, $database), qr/^ERROR 42501: only the owner/, "$how: the guard stands");
	is(kvs_outcome($node, q{SET ROLE reader; SELECT kv_get('b'), kv_set('r', '1', store => 'sessions') > 0, (SELECT count(*) FROM kvstore.v_sessions)}, $database), 'null|t|2', "$how: grants work");
	like(kvs_outcome($node, q{SET ROLE reader; SELECT kv_set('b', '1')}, $database), qr/^ERROR 42501/, "$how: and no others");
	is(kvs_outcome($node, q{SET ROLE owner; SELECT kv_alter_store('sessions', default_ttl => '0'), kv_drop_store('fast')}, $database), 't|t', "$how: it is the owner's");
}

# ---- The usual ways ----

command_ok([ 'pg_dump', '-Fc', '-f', "$dir/custom", $node->connstr('source') ], 'pg_dump -Fc');
$node->safe_psql('postgres', 'CREATE DATABASE custom OWNER owner');
command_ok([ 'pg_restore', '-e', '-d', $node->connstr('custom'), "$dir/custom" ], 'pg_restore');
check_restored('custom', 'custom format');

command_ok([ 'pg_dump', '-f', "$dir/plain", $node->connstr('source') ], 'pg_dump, plain');
$node->safe_psql('postgres', 'CREATE DATABASE plain OWNER owner');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', "$dir/psql.out", '-d', $node->connstr('plain'), '-f', "$dir/plain" ], 'restored by psql');
check_restored('plain', 'plain format');

command_ok([ 'pg_dump', '-Fd', '-j', '2', '-f', "$dir/directory", $node->connstr('source') ], 'pg_dump -Fd -j 2');
$node->safe_psql('postgres', 'CREATE DATABASE directory OWNER owner');
command_ok([ 'pg_restore', '-e', '-j', '2', '-d', $node->connstr('directory'), "$dir/directory" ], 'pg_restore -j 2');
check_restored('directory', 'directory format');

# ---- Schema first, data later: the guard sees each row, keeps its number and goes above it ----

$node->safe_psql('postgres', 'CREATE DATABASE parts OWNER owner');
command_ok([ 'pg_restore', '-e', '--schema-only', '-d', $node->connstr('parts'), "$dir/custom" ], 'the schema alone');
is($node->safe_psql('parts', q{SELECT kv_count(kv_key()), (SELECT count(*) FROM kvstore.stores)}), '0|0', 'has no entries and no settings');
$node->safe_psql('parts', q{SELECT count(kv_set('early' || i, '1')) FROM generate_series(1, 3) i; DELETE FROM kvstore.s_default});
command_ok([ 'pg_restore', '-e', '--data-only', '-d', $node->connstr('parts'), "$dir/custom" ], 'the data alone');
check_restored('parts', 'schema and data apart');

# A table alone into a database whose numbers are lower.
$node->safe_psql('postgres', 'CREATE DATABASE alone OWNER owner');
$node->safe_psql('alone', q{CREATE EXTENSION kvstore; GRANT CREATE ON SCHEMA kvstore TO owner; SET ROLE owner; SELECT kv_create_store()});
command_ok([ 'pg_restore', '-e', '--data-only', '-t', 's_default', '-d', $node->connstr('alone'), "$dir/custom" ], 'the data of one store into another database');
is($node->safe_psql('alone', q{SELECT kv_get('a'), kv_count('many:')}), '{"n": 1.50, "team": "x"}|500', 'its entries are there');
cmp_ok($node->safe_psql('alone', q{SELECT kv_set('a', '"new"')}), '>', $highest, 'new versionstamps are above the stored ones');

# ---- DROP EXTENSION takes no store along ----

is(kvs_outcome($node, 'DROP EXTENSION kvstore', 'source'), 'ERROR 2BP01: cannot drop extension kvstore because other objects depend on it', 'DROP EXTENSION is refused while there is a store');
is($node->safe_psql('source', q{SELECT kv_get('b')}), 'null', 'which is still there');
$node->safe_psql('source', q{SELECT kv_drop_store(store) FROM kv_stores; DROP EXTENSION kvstore});
is($node->safe_psql('source', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'kvstore'}), '0', 'without stores it leaves nothing behind');

done_testing();
