-- Stores: create, alter, drop, names, registry, views.
\pset format unaligned
\pset fieldsep ' | '

--
-- Create
--

-- The first statement of every README.
SELECT kv_create_store();
SELECT outcome('kv_create_store()');
SELECT kv_create_store(if_not_exists => true);
SELECT kv_drop_store();
SELECT kv_drop_store();
SELECT outcome($$kv_get('a')$$);

SELECT kv_create_store('st_plain');
SELECT kv_create_store('st_fast', unlogged => true);
SELECT kv_create_store('st_short', default_ttl => '1 hour', max_value_size => 100);
SELECT kv_create_store('st_zero', default_ttl => '0', max_value_size => 0);
SELECT * FROM kvstore.stores ORDER BY store;
SELECT store, table_name, owner = current_user AS mine, unlogged, default_ttl, max_value_size, keys_estimate >= 0 AS keys, total_bytes >= 8192 AS bytes
    FROM kv_stores ORDER BY store;

-- What exists stays as it is, whatever is asked for.
SELECT outcome($$kv_create_store('st_plain')$$);
SELECT kv_create_store('st_plain', unlogged => true, default_ttl => '1 s', max_value_size => 1, if_not_exists => true);
SELECT store, unlogged, default_ttl, max_value_size FROM kv_stores WHERE store = 'st_plain';

-- The name returned is what GRANT wants.
SELECT format('GRANT SELECT ON %s TO PUBLIC', kv_create_store('st_plain', if_not_exists => true)) \gexec
SELECT has_table_privilege('public', 'kvstore.s_st_plain', 'SELECT') AS granted;

-- An ordinary table of the caller's own, not a member of the extension.
SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns
    WHERE table_schema = 'kvstore' AND table_name = 's_st_plain' ORDER BY ordinal_position;
SELECT reloptions, relpersistence FROM pg_class WHERE oid = 'kvstore.s_st_plain'::regclass;
SELECT indexrelid::regclass, indisprimary FROM pg_index WHERE indrelid = 'kvstore.s_st_plain'::regclass;
SELECT tgname, tgenabled, tgfoid::regproc FROM pg_trigger WHERE tgrelid = 'kvstore.s_st_plain'::regclass ORDER BY tgname;
SELECT count(*) AS members FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND objid IN ('kvstore.s_st_plain'::regclass, 'kvstore.v_st_plain'::regclass);
SELECT relpersistence FROM pg_class WHERE oid = 'kvstore.s_st_fast'::regclass;

--
-- Names: quoting is never a hole, because nothing that needs quotes is a name
--

SELECT left(name, 60) AS name, left(outcome(format('kv_create_store(%L)', name)), 60) AS outcome FROM unnest(ARRAY[
    '', ' ', 'A', 'Abc', 'a-b', 'a b', 'a.b', 'é', 'aé', '1a', '0', 'a"b', '"a"', 'a''b', 'a;b', 'a)', 'a$', 'a%s', 'a\b', E'a\nb', E'a\n', ' a', 'a ', '*', NULL,
    'x; DROP TABLE kvstore.stores; --', 'x(i int); --', repeat('a', 49), repeat('a', 10000)]) name;
SELECT outcome($$kv_create_store('9')$$);
-- These are names, some of them odd: the longest, key words, what looks like the names of our own tables.
SELECT left(name, 20) AS name, outcome(format('kv_create_store(%L)', name)) AS created, outcome(format($$kv_set('k', '1', store => %L) > 0$$, name)) AS set,
       outcome(format('kv_get(%L, %L)', 'k', name)) AS got, outcome(format('(SELECT value FROM kvstore.v_%s)', name)) AS viewed,
       outcome(format('kv_alter_store(%L, max_value_size => 10)', name)) AS altered, outcome(format('kv_drop_store(%L)', name)) AS dropped
    FROM unnest(ARRAY['a', '_', '_1', 'select', 'table', 'user', 'null', 'stores', 's_a', 'v_a', 'versionstamp', 'pg_class', repeat('z', 48)]) name;
SELECT count(*) FROM kvstore.stores WHERE store NOT LIKE 'st\_%';
-- Not only kv_create_store() checks them.
SELECT call, outcome(call) AS outcome FROM unnest(ARRAY[
    $$kv_get('a', 'A"')$$, $$kv_get('a', '')$$, $$kv_set('a', '1', store => 'a.b')$$, $$kv_count('', 'a b')$$, $$kv_alter_store('É')$$, $$kv_drop_store('"st_plain"')$$, $$kv_import('{}', 'a;')$$]) call;

--
-- Settings
--

SELECT kv_set('k', '1', store => 'st_short') > 0;
SELECT expires_at BETWEEN clock_timestamp() + '59 min' AND clock_timestamp() + '1 hour' AS in_an_hour FROM kv_entry('k', 'st_short');

-- NULL leaves a setting alone, zero removes it.
SELECT kv_alter_store('st_short', default_ttl => '2 hours');
SELECT * FROM kvstore.stores ORDER BY store;
SELECT kv_alter_store('st_short', max_value_size => 200);
SELECT kv_alter_store('st_short');
SELECT * FROM kvstore.stores ORDER BY store;
SELECT kv_set('k', '1', store => 'st_short') > 0;
SELECT expires_at BETWEEN clock_timestamp() + '119 min' AND clock_timestamp() + '2 hours' AS in_two_hours FROM kv_entry('k', 'st_short');
SELECT kv_alter_store('st_short', default_ttl => '0');
SELECT * FROM kvstore.stores ORDER BY store;
SELECT kv_set('k', '1', store => 'st_short') > 0;
SELECT expires_at FROM kv_entry('k', 'st_short');
SELECT kv_alter_store('st_short', max_value_size => 0);
SELECT * FROM kvstore.stores ORDER BY store;
SELECT kv_alter_store('st_plain', '1 month', 64 * 1024 * 1024);
SELECT default_ttl, max_value_size FROM kv_stores WHERE store = 'st_plain';

SELECT call, outcome(call) AS outcome FROM unnest(ARRAY[
    $$kv_create_store('st_bad', default_ttl => '-1 s')$$, $$kv_create_store('st_bad', default_ttl => '1 day -25 hours')$$, $$kv_create_store('st_bad', max_value_size => -1)$$,
    $$kv_create_store('st_bad', max_value_size => 64 * 1024 * 1024 + 1)$$, $$kv_alter_store('st_plain', '-1 us')$$, $$kv_alter_store('st_plain', max_value_size => -5)$$,
    $$kv_alter_store('st_plain', max_value_size => 67108865)$$, $$kv_alter_store('st_none')$$, $$kv_alter_store(NULL)$$, $$kv_drop_store(NULL)$$, $$kv_create_store(NULL)$$]) call;
SELECT count(*) FROM kv_stores WHERE store = 'st_bad';
SELECT default_ttl, max_value_size FROM kv_stores WHERE store = 'st_plain';

-- All within the caller's transaction.
BEGIN;
SELECT kv_create_store('st_gone', default_ttl => '1 min');
SELECT kv_alter_store('st_plain', default_ttl => '5 min');
SELECT kv_set('k', '1', store => 'st_gone') > 0 AS set;
SELECT kv_drop_store('st_fast');
ROLLBACK;
SELECT outcome($$kv_get('k', 'st_gone')$$);
SELECT default_ttl FROM kv_stores WHERE store = 'st_plain';
SELECT kv_exists('k', 'st_fast');

--
-- Drop
--

SELECT kv_drop_store('st_none');
SELECT kv_drop_store('st_plain');
SELECT to_regclass('kvstore.s_st_plain') AS store_table, to_regclass('kvstore.v_st_plain') AS view, (SELECT count(*) FROM kvstore.stores) AS settings;
SELECT outcome($$kv_get('k', 'st_plain')$$);
-- The new one of that name starts with nothing of the old one, also when that was dropped by hand.
SELECT kv_create_store('st_plain', default_ttl => '1 min');
SELECT outcome_of('DROP TABLE kvstore.s_st_plain');
DROP TABLE kvstore.s_st_plain CASCADE;
SELECT kv_drop_store('st_plain');
SELECT kv_create_store('st_plain');
SELECT default_ttl FROM kv_stores WHERE store = 'st_plain';
SELECT kv_set('k', '1', store => 'st_plain') > 0;
SELECT expires_at FROM kv_entry('k', 'st_plain');
-- What hangs on a store is not dropped with it.
CREATE VIEW st_view AS SELECT value FROM kvstore.s_st_plain;
SELECT outcome($$kv_drop_store('st_plain')$$);
DROP VIEW st_view;
SELECT kv_exists('k', 'st_plain');

--
-- The view over a store hides what has expired
--

SELECT kv_set('gone', '2', expires_at => '2000-01-01', store => 'st_plain') > 0 AND kv_set('later', '3', ttl => '1 hour', store => 'st_plain') > 0
    AND kv_set_bytes('bytes', '\x00ff', store => 'st_plain') > 0 AND kv_import('{"number": {"u64": "18446744073709551615"}}', 'st_plain') = 1 AS set;
SELECT key, value, bytes, kind, versionstamp > 0 AS stamped, expires_at > now() AS expires FROM kvstore.v_st_plain ORDER BY key;
SELECT count(*) FROM kvstore.s_st_plain;
SELECT reloptions FROM pg_class WHERE oid = 'kvstore.v_st_plain'::regclass;

-- The user's own index on the store's table serves the view, and the store goes on working.
CREATE INDEX ON kvstore.s_st_plain ((value ->> 'team'));
SELECT count(kv_set('team' || i, jsonb_build_object('team', 't' || i % 100), store => 'st_plain')) FROM generate_series(1, 2000) i;
ANALYZE kvstore.s_st_plain;
SET plan_cache_mode = force_custom_plan;
SELECT key, value FROM kvstore.v_st_plain WHERE value ->> 'team' = 't7' ORDER BY key LIMIT 2;
EXPLAIN (COSTS off) SELECT key, value FROM kvstore.v_st_plain WHERE value ->> 'team' = 't7';
RESET plan_cache_mode;
-- So does a CHECK constraint as the value's schema.
ALTER TABLE kvstore.s_st_plain ADD CONSTRAINT team_is_text CHECK (jsonb_typeof(value -> 'team') IN ('string'));
SELECT left(outcome($$kv_set('x', '{"team": 5}', store => 'st_plain')$$), 85), outcome($$kv_set('x', '{"team": "5"}', store => 'st_plain') > 0$$);
SELECT keys_estimate > 1000 AS estimated FROM kv_stores WHERE store = 'st_plain';
SELECT stores, keys_estimate > 1000 AS estimated FROM kv_health();

SELECT store, kv_drop_store(store) FROM kv_stores WHERE store LIKE 'st\_%' ORDER BY store;
SELECT count(*) AS left_behind FROM kvstore.stores;
