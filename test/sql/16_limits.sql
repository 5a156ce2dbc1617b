-- Limits and bad input: sizes of keys and values, empty paths, stores that are not there, NULLs.
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_store('lm');

--
-- Keys: 2048 encoded bytes, in every function that takes one
--

-- A string of n ASCII characters has n + 2 encoded bytes; each U+0000 and each byte 00 has two.
CREATE FUNCTION pg_temp.every(key text) RETURNS TABLE (call text, outcome text) LANGUAGE sql AS $$
    SELECT replace(c, 'KEY', '...'), left(outcome(replace(c, 'KEY', key)), 120) FROM unnest(ARRAY['kv_set(KEY, ''1'', store => ''lm'') > 0', 'kv_set_bytes(KEY, ''1'', store => ''lm'') > 0', 'kv_get_bytes(KEY, ''lm'')', 'kv_set(KEY, ''1'', if_version => 1, store => ''lm'')',
        'kv_exists(KEY, ''lm'')', '(SELECT versionstamp > 0 FROM kv_entry(KEY, ''lm''))', 'kv_expire(KEY, store => ''lm'')', 'kv_delete(KEY, store => ''lm'')', 'kv_take(KEY, ''lm'')', 'kv_get(KEY, ''lm'')',
        '(SELECT count(*) FROM kv_list(KEY, store => ''lm''))', 'kv_count(KEY, ''lm'')', '(SELECT count(*) FROM kv_list(KEY, start_key => KEY, end_key => KEY, after => KEY, store => ''lm''))', 'kv_export(KEY, ''lm'')']) c
$$;
SELECT * FROM pg_temp.every($$repeat('x', 2046)$$);
SELECT * FROM pg_temp.every($$repeat('x', 2047)$$);
SELECT * FROM pg_temp.every($$kv_key('path', repeat('x', 2040))$$);
SELECT * FROM pg_temp.every($$kv_key('path', repeat('x', 2041))$$);
SELECT outcome($$(SELECT count(*) FROM kv_get_many(ARRAY['a', repeat('x', 2046)], 'lm'))$$), outcome($$(SELECT count(*) FROM kv_get_many(ARRAY['a', repeat('x', 2047)], 'lm'))$$),
       outcome($$(SELECT count(*) FROM kv_get_many_paths(jsonb_build_array(repeat('x', 2046)), 'lm'))$$), outcome($$(SELECT count(*) FROM kv_get_many_paths(jsonb_build_array(jsonb_build_array(repeat('x', 2047))), 'lm'))$$),
       outcome($$kv_set(repeat('é', 1023), '1', store => 'lm') > 0$$), outcome($$kv_set(repeat('é', 1024), '1', store => 'lm')$$), outcome($$kv_set(repeat('x', 100000000), '1', store => 'lm')$$);

SELECT kv_delete(repeat('é', 1023), store => 'lm');

-- The empty path is no key; '' is one.
SELECT * FROM pg_temp.every('kv_key()');
SELECT * FROM pg_temp.every('''''');
SELECT kv_count(kv_key(), 'lm') AS left_over;

--
-- Values: the setting, and the store's limit if that is smaller
--

SHOW kvstore.max_value_size;
-- JSON counts as jsonb stores it: a string of n bytes has n + 8, a number and bytes are what they are.
SELECT kv_alter_store('lm', max_value_size => 100);
SELECT outcome($$kv_set('v', to_jsonb(repeat('x', 92)), store => 'lm') > 0$$), outcome($$kv_set('v', to_jsonb(repeat('x', 93)), store => 'lm')$$),
       outcome($$kv_set_bytes('v', decode(repeat('00', 100), 'hex'), store => 'lm') > 0$$), outcome($$kv_set_bytes('v', decode(repeat('00', 101), 'hex'), store => 'lm')$$),
       outcome($$kv_import(jsonb_build_object('v', jsonb_build_object('value', repeat('x', 93))), 'lm')$$);
-- The kept value is the last that was not too large.
SELECT length(kv_get_bytes('v', 'lm'));
-- What is stored already stays readable when the limit falls.
SELECT kv_alter_store('lm', max_value_size => 1);
SELECT length(kv_get_bytes('v', 'lm')), outcome($$kv_expire('v', '1 hour', store => 'lm')$$), outcome($$kv_set_bytes('v', '\x0000', store => 'lm')$$), outcome($$kv_set_bytes('v', '\x00', store => 'lm') > 0$$), outcome($$kv_set_bytes('v', '', store => 'lm') > 0$$);
SELECT kv_alter_store('lm', max_value_size => 0);
SET kvstore.max_value_size = '1kB';
SELECT outcome($$kv_set_bytes('v', decode(repeat('00', 1024), 'hex'), store => 'lm') > 0$$), outcome($$kv_set_bytes('v', decode(repeat('00', 1025), 'hex'), store => 'lm')$$);
-- The smaller of the two counts; a store's limit never lifts the setting's.
SELECT kv_alter_store('lm', max_value_size => 2000);
SELECT outcome($$kv_set_bytes('v', decode(repeat('00', 1025), 'hex'), store => 'lm')$$);
RESET kvstore.max_value_size;
SELECT outcome($$kv_set_bytes('v', decode(repeat('00', 1025), 'hex'), store => 'lm') > 0$$), outcome($$kv_set_bytes('v', decode(repeat('00', 2001), 'hex'), store => 'lm')$$);
SELECT kv_alter_store('lm', max_value_size => 0);
-- Uncompressed bytes count, whatever they are compressed to, also when they come from a table.
CREATE TEMP TABLE lm_large AS SELECT decode(repeat('00', 16777216), 'hex') AS just, decode(repeat('00', 16777217), 'hex') AS over;
SELECT outcome($$(SELECT kv_set_bytes('v', just, store => 'lm') > 0 FROM lm_large)$$), outcome($$(SELECT kv_set_bytes('v', over, store => 'lm') FROM lm_large)$$);
SELECT length(kv_get_bytes('v', 'lm'));
-- Later versions give the limits their units.
SELECT value, regexp_replace(outcome_of(format('SET kvstore.max_value_size = %L', value)), '(\d) B(?= \.\.|\))', '\1', 'g') AS outcome_of FROM unnest(ARRAY['64MB', '1B', '0', '-1', '65MB', '1GB', 'x', '']) value;
SELECT outcome($$(SELECT kv_set_bytes('v', over, store => 'lm') FROM lm_large)$$) AS one_byte_is_the_limit;
SET kvstore.max_value_size = '64MB';
SELECT outcome($$(SELECT kv_set_bytes('v', over || just || just || just, store => 'lm') FROM lm_large)$$) AS over_64mb, outcome($$(SELECT kv_set_bytes('v', just || just || just || just, store => 'lm') > 0 FROM lm_large)$$) AS just_64mb;
SELECT length(kv_get_bytes('v', 'lm')), length(bytes) FROM kv_entry('v', 'lm');
SELECT kv_delete('v', store => 'lm');
RESET kvstore.max_value_size;
-- A superuser's setting.
CREATE ROLE regress_kvs_limits;
SET ROLE regress_kvs_limits;
SELECT outcome_of('SET kvstore.max_value_size = 1'), outcome_of('SHOW kvstore.max_value_size');
RESET ROLE;
DROP ROLE regress_kvs_limits;
-- No setting of ours that does not exist can be made up.
SELECT outcome_of('SET kvstore.no_such_setting = 1');

--
-- Stores that are not there, and NULL as their name: in every function
--

SELECT c AS call, left(outcome(replace(c, 'STORE', '''nowhere''')), 100) AS nowhere, left(outcome(replace(c, 'STORE', 'NULL')), 60) AS "null", left(outcome(replace(c, 'STORE', '''No Name''')), 60) AS bad_name
    FROM unnest(ARRAY['kv_get(''k'', STORE)', 'kv_get(kv_key(''k''), STORE)', 'kv_get_bytes(''k'', STORE)', 'kv_exists(''k'', STORE)', '(SELECT key FROM kv_entry(''k'', STORE))', '(SELECT key FROM kv_get_many(''{k}'', STORE))', '(SELECT key FROM kv_get_many_paths(''["k"]'', STORE))',
        '(SELECT key FROM kv_list('''', store => STORE))', 'kv_count(kv_key(), STORE)', 'kv_set(''k'', ''1'', store => STORE)', 'kv_set_bytes(kv_key(''k''), ''1'', store => STORE)', 'kv_delete(''k'', store => STORE)', 'kv_take(''k'', STORE)',
        'kv_expire(''k'', store => STORE)', 'kv_import(''{}'', STORE)', 'kv_export('''', STORE)', 'kv_alter_store(STORE)', 'kv_drop_store(STORE)']) c;
-- The default store has a hint of its own.
SELECT outcome($$kv_set('k', '1')$$);

-- A call that fails leaves nothing behind, and the transaction as it was before the savepoint.
BEGIN;
SELECT kv_set('kept', '1', store => 'lm') > 0;
SAVEPOINT s;
SELECT kv_set('kept', '2', ttl => '-1 s', store => 'lm');
ROLLBACK TO s;
SELECT kv_set(repeat('x', 3000), '2', store => 'lm');
ROLLBACK TO s;
SELECT kv_get('kept', 'lm');
COMMIT;
SELECT key, value FROM kv_list(kv_key(), store => 'lm');

SELECT kv_drop_store('lm');
