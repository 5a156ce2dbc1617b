# pg_dump and restore: a store, a queue and a snapshot store are the user's own tables and come back whole, with values, versionstamps, expiries, settings, grants,
# indexes, constraints, policies and triggers; new numbers are above the stored ones, also in a database whose own had gone further.
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
	-- far above what a new database gives
	SELECT setval('kvstore.versionstamp', 3000000);
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
	SELECT kv_create_snapshot_store(), kv_create_snapshot_store('week', default_ttl => '7 days');
	SELECT count(kv_snapshot_append('c' || i % 3, jsonb_build_object('step', i, 'text', repeat(md5(i::text), 200)), metadata => '{"by": "test"}')) FROM generate_series(1, 60) i;
	SELECT kv_snapshot_append('w', '1', store => 'week');
	GRANT SELECT ON kvstore.p_default TO reader;
	SELECT kv_create_queue(), kv_create_queue('mail', lease => '5 min', max_attempts => 1, backoff => '{1s}'), kv_pause_queue('mail');
	SELECT count(kv_enqueue('default', to_jsonb(i), priority => i % 3, headers => '{"h": 1}', dedupe_key => 'd' || i)) FROM generate_series(1, 30) i;
	SELECT kv_enqueue('mail', '"delayed"', delay => '1 day') > 0, kv_enqueue('mail', '"dead"') > 0, kv_resume_queue('mail');
	SELECT kv_nack(receipt, error => 'no', dead => true) FROM kv_dequeue('mail');
	SELECT kv_pause_queue('mail');
	GRANT INSERT ON kvstore.q_default TO reader;
});

# All that must come back, as text.
my $contents = q{
	SELECT format('%s %s', s.store, t) FROM (VALUES ('default'), ('sessions'), ('fast')) s(store), LATERAL (SELECT 1) x,
		LATERAL (SELECT string_agg(r::text, E'\n' ORDER BY r.key) AS t FROM (SELECT * FROM kvstore.s_default WHERE s.store = 'default' UNION ALL SELECT * FROM kvstore.s_sessions WHERE s.store = 'sessions'
			UNION ALL SELECT * FROM kvstore.s_fast WHERE s.store = 'fast') r) y;
	SELECT store, table_name, owner, unlogged, default_ttl, max_value_size FROM kv_stores ORDER BY store;
	SELECT * FROM kvstore.stores ORDER BY store;
	SELECT 'p', p FROM (SELECT * FROM kvstore.p_default UNION ALL SELECT * FROM kvstore.p_week) p ORDER BY seq, context;
	SELECT 'q', q FROM (SELECT * FROM kvstore.q_default UNION ALL SELECT * FROM kvstore.q_mail) q ORDER BY id, payload;
	SELECT 'd', d FROM kvstore.d_mail d;
	SELECT store, table_name, owner, default_ttl FROM kv_snapshot_stores ORDER BY store;
	SELECT * FROM kvstore.snapshot_stores ORDER BY store;
	SELECT * FROM kvstore.queues ORDER BY queue;
	SELECT queue, table_name, owner, lease, paused FROM kv_queues ORDER BY queue;
	SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'kvstore' ORDER BY sequencename;
	SELECT attrelid::regclass, attname, attcompression FROM pg_attribute WHERE attrelid = 'kvstore.p_default'::regclass AND attcompression <> '';
	SELECT tgrelid::regclass, tgname, tgenabled, tgfoid::regproc FROM pg_trigger WHERE tgname LIKE 'kvstore%' ORDER BY tgrelid::regclass::text, tgname;
	SELECT oid::regclass, relacl, reloptions, relrowsecurity, obj_description(oid) FROM pg_class WHERE relnamespace = 'kvstore'::regnamespace ORDER BY relname;
	SELECT indexdef FROM pg_indexes WHERE schemaname = 'kvstore' ORDER BY indexname;
	SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'kvstore'::regnamespace ORDER BY conname;
	SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy;
	SELECT nspacl FROM pg_namespace WHERE nspname = 'kvstore';
	SELECT (SELECT count(*) FROM kvstore.v_default), kv_count(kv_key()), kv_get('a'), kv_get_bytes('bytes'), (SELECT kind FROM kv_entry('u64')), kv_exists(repeat('k', 2046)), kv_get('expired') IS NULL};
# So that what there is does not change while we look.
$node->poll_query_until('source', q{SELECT NOT EXISTS (SELECT FROM kvstore.s_default WHERE expires_at < now())}) or die 'the worker does not come';
my $before = $node->safe_psql('source', $contents);
like($before, qr/many:500/, 'there is something to dump');
like($before, qr/^p\|.*step"": 60/m, 'snapshots');
like($before, qr/^q\|.*delayed/m, 'messages');
like($before, qr/^d\|.*dead/m, 'a dead letter');
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
	is(kvs_outcome($node, q{SET ROLE reader; SELECT count(*) FROM kv_snapshot_load('c1')}, $database), '20', "$how: snapshots can be read");
	is($node->safe_psql($database, q{SELECT kv_snapshot_append('c1', '"new"', hash => 'new'); SELECT hash FROM kv_snapshot_latest('c1')}), "new\nnew", "$how: a new snapshot is the latest");
	is($node->safe_psql($database, q{SELECT expires_at > now() + interval '6 days' FROM kv_snapshot_latest('w', 'week')}), 't', "$how: settings of snapshot stores");
	is($node->safe_psql($database, q{SELECT kv_enqueue('default', '"new"') > 30}), 't', "$how: a new message is the last");
	is($node->safe_psql($database, q{SELECT string_agg(payload::text, ' ' ORDER BY n) FROM kv_dequeue('default', 3) WITH ORDINALITY q(id, payload, receipt, attempts, priority, headers, enqueued_at, leased_until, n)}), '2 5 8',
		"$how: messages are delivered in order");
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

# A table with its definition, restored by a plain owner: its rows come before its triggers, and its sequence does not come at all.  No key goes back
# from the first write on; all is one transaction, so that no worker can have been there.
append_to_file("$dir/first_writes", q{
	SET client_min_messages = warning; SET search_path = public;
	CREATE TEMP TABLE before AS SELECT * FROM kvstore.s_default;
	CREATE FUNCTION pg_temp.grew(key text) RETURNS boolean LANGUAGE sql AS $$ SELECT e.versionstamp > b.versionstamp FROM kv_entry($1) e, before b WHERE b.key = kv_key($1) $$;
	SELECT count(kv_set('many:1', '1')), count(kv_set_many('{many:2,new}', ARRAY[jsonb '1', '2'])), count(kv_import('{"many:3": {"value": 1}}')), count(kv_set_bytes('bytes', ''));
	SELECT ok FROM kv_atomic('[{"set": {"key": "many:4", "value": 1}}]');
	SELECT last_value < (SELECT min(versionstamp) FROM before WHERE key = kv_key('many:1')) FROM pg_sequences WHERE sequencename = 'versionstamp';
	SELECT kv_delete('many:5'), kv_delete_many('{many:6}'), kv_delete_prefix('many:7');
	SELECT count(kv_set(key, '2')) FROM unnest('{many:5,many:6,many:7,many:70}'::text[]) key;
	SELECT coalesce(string_agg(key, ' '), 'none') FROM unnest('{many:1,many:2,many:3,many:4,many:5,many:6,many:7,many:70,bytes}'::text[]) key WHERE pg_temp.grew(key) IS NOT TRUE});
for my $part ('-t kvstore.s_default', '-n kvstore')
{
	my $name = 'part' . ($part =~ /^-(.)/)[0];

	$node->safe_psql('postgres', "CREATE DATABASE $name OWNER owner");
	$node->safe_psql($name, q{CREATE EXTENSION kvstore; GRANT CREATE ON SCHEMA kvstore TO owner});
	command_ok([ 'pg_dump', split(/ /, $part), '--role=owner', '-f', "$dir/$name.all", $node->connstr('source') ], "pg_dump $part");
	# the schema is there, and its settings are not the owner's
	append_to_file("$dir/$name", join('', grep { !/^(CREATE|COMMENT ON|GRANT .* ON) SCHEMA|setval\('kvstore.versionstamp'/ } slurp_file("$dir/$name.all") =~ /.*\n/g));
	local $ENV{PGOPTIONS} = '-c role=owner';
	$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-1', '-o', "$dir/$name.out", '-d', $node->connstr($name), '-f', "$dir/$name", '-f', "$dir/first_writes" ], "$part restored by its owner");
	my @lines = split /\n/, slurp_file("$dir/$name.out");
	is(join("\n", @lines[-6 .. -1]), "1|1|1|1\nt\nt\nt|1|11\n4\nnone", "$part: no key goes back, and the sequence stays until something is deleted") or diag("@lines");
}

# ---- Into a database that goes on and whose own numbers had gone further ----

# All of the source but the tables that are there as well; the dump sets the sequence to what it was there.
$node->safe_psql('postgres', 'CREATE DATABASE ahead OWNER owner');
$node->safe_psql('ahead', q{
	BEGIN;
	CREATE EXTENSION kvstore; GRANT CREATE ON SCHEMA kvstore TO owner; SET ROLE owner; SELECT kv_create_store('own');
	SELECT kv_set('mine', '1', store => 'own');
	INSERT INTO kvstore.s_own (key, value, versionstamp) VALUES (kv_key('high'), '1', 5000000000);
	COMMIT});
# The worker reads a new store once, and moves the sequence above what it finds: before, and not when the dump has set it back.
$node->poll_query_until('ahead', q{SELECT swept > 0 FROM pg_stat_kvstore WHERE store = 'own'}) or die 'the worker does not come';
my $seen = $node->safe_psql('ahead', q{SELECT kv_set('deleted', '1', store => 'own')});
$node->safe_psql('ahead', q{SELECT kv_delete('deleted', store => 'own')});
cmp_ok($seen, '>', $highest + 1_000_000, 'a database is ahead');
my $session = $node->background_psql('ahead');
$session->query_safe(q{SELECT kv_set('warm', '1', store => 'own')}) if $session->can('query_safe');
command_ok([ 'pg_restore', '-e', '-j', '2', '-d', $node->connstr('ahead'), "$dir/directory" ], 'pg_restore -j 2 into it');
cmp_ok($node->safe_psql('ahead', q{SELECT last_value FROM kvstore.versionstamp}), '<', $seen, 'the dump has set the sequence back');
my $stored = 'SELECT max(versionstamp) FROM (SELECT versionstamp FROM kvstore.s_default UNION ALL SELECT versionstamp FROM kvstore.s_own UNION ALL SELECT versionstamp FROM kvstore.s_sessions) s';
my $new = $node->safe_psql('ahead', q{SELECT kv_set('brand new', '1')});
cmp_ok($new, '>', $seen, 'a new number is above every number that was given before');
is($node->safe_psql('ahead', "SELECT ($stored) = $new"), 't', 'and above all that are stored');
cmp_ok($session->query_safe(q{SELECT kv_set('deleted', '2', store => 'own')}), '>', $new, 'a session that was there before gets the next ones') if $session->can('query_safe');
$session->quit;
is($node->safe_psql('ahead', q{SELECT kv_get('a'), kv_get('mine', 'own'), (SELECT count(*) FROM kv_snapshot_load('c1'))}), '{"n": 1.50, "team": "x"}|1|20', 'all is there, old and new');

# The same without preload: kv_maintain() does it.
my $other = kvs_node('noload', preload => 0);
$other->safe_psql('postgres', q{CREATE ROLE owner; CREATE ROLE reader; CREATE EXTENSION kvstore; SELECT kv_create_store('own');
	INSERT INTO kvstore.s_own (key, value, versionstamp) VALUES (kv_key('high'), '1', 5000000000)});
$other->safe_psql('postgres', q{SELECT kv_set('own', '1', store => 'own')});
command_ok([ 'pg_restore', '-e', '-d', $other->connstr('postgres'), "$dir/custom" ], 'pg_restore into a database that is ahead, without preload');
$other->safe_psql('postgres', q{SELECT kv_maintain()});
$new = $other->safe_psql('postgres', q{SELECT kv_set('brand new', '1')});
is($other->safe_psql('postgres', "SELECT ($stored) = $new"), 't', 'after kv_maintain() a new number is above all that are stored');
$other->stop;

# ---- DROP EXTENSION takes no store along ----

is(kvs_outcome($node, 'DROP EXTENSION kvstore', 'source'), 'ERROR 2BP01: cannot drop extension kvstore because other objects depend on it', 'DROP EXTENSION is refused while there is a store');
is($node->safe_psql('source', q{SELECT kv_get('b')}), 'null', 'which is still there');
$node->safe_psql('source', q{SELECT kv_drop_store(store) FROM kv_stores; SELECT kv_drop_snapshot_store(store) FROM kv_snapshot_stores; SELECT kv_drop_queue(queue) FROM kv_queues; DROP EXTENSION kvstore});
is($node->safe_psql('source', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'kvstore'}), '0', 'without stores it leaves nothing behind');

done_testing();
