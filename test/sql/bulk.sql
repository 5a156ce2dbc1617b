-- Many keys at once: kv_set_many, kv_delete_many, kv_delete_prefix, kv_clear, kv_get_many with thousands of keys; kv_stat_progress.
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_store('bulk');
SELECT kv_create_store('bulk_ttl', default_ttl => '1 hour', max_value_size => 1000);

-- The value of an expression as text, or its error.
CREATE FUNCTION pg_temp.outcome(expression text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    state text;
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE 'SELECT (' || expression || ')::text' INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', state, message, nullif(detail, ''), nullif(hint, ''));
END $$;

-- What is in the store: expiry in minutes from now, and how many versionstamps are higher.
CREATE FUNCTION pg_temp.entries(store text DEFAULT 'bulk') RETURNS TABLE (key jsonb, value jsonb, expires text, behind bigint) LANGUAGE sql AS $$
    SELECT key, value, round(extract(epoch FROM expires_at - clock_timestamp()) / 60) || ' min', dense_rank() OVER (ORDER BY versionstamp DESC) - 1
    FROM kv_list(kv_key(), store => store) ORDER BY key::kvkey
$$;

--
-- kv_set_many
--

SELECT kv_set_many(ARRAY['b', 'a', 'c'], ARRAY['1', 'null', '[3]']::jsonb[], store => 'bulk') AS stamp \gset
SELECT * FROM pg_temp.entries();
SELECT bool_and(versionstamp = :stamp) FROM kv_list('', store => 'bulk');
-- Overwrites, clears an expiry, and of a key given twice the last value wins.
SELECT kv_expire('a', '10 min', store => 'bulk'), kv_expire('b', '10 min', store => 'bulk'), kv_set_bytes('c', 'x', store => 'bulk') > 0 AS set;
SELECT kv_set_many(ARRAY['d', 'a', 'a', 'c', 'd', 'a'], ARRAY['4', '"x"', '"y"', '7', '5', '"z"']::jsonb[], store => 'bulk') > :stamp AS later;
SELECT * FROM pg_temp.entries();
SELECT kv_set_many(ARRAY['a', 'b'], ARRAY['1', '2']::jsonb[], ttl => '20 min', store => 'bulk') > :stamp AS later;
SELECT kv_set_many(ARRAY['c', 'd'], ARRAY['3', '4']::jsonb[], expires_at => clock_timestamp() + interval '30 min', store => 'bulk') > :stamp AS later;
SELECT kv_set_many(ARRAY['e', 'f'], ARRAY['5', '6']::jsonb[], ttl => '0', store => 'bulk') > :stamp AS later;
SELECT * FROM pg_temp.entries();
SELECT kv_set_many(ARRAY['a', 'b'], ARRAY['1', '2']::jsonb[], store => 'bulk_ttl') > 0 AS set,
    kv_set_many(ARRAY['c'], ARRAY['3']::jsonb[], ttl => '5 min', store => 'bulk_ttl') > 0 AS set,
    kv_set_many(ARRAY['d'], ARRAY['3']::jsonb[], expires_at => 'infinity', store => 'bulk_ttl') > 0 AS set;
SELECT key, value, expires FROM pg_temp.entries('bulk_ttl');
SELECT kv_set_many('{}', '{}', store => 'bulk') > 0 AS nothing_is_fine;
-- A key that is never parsed, and one that looks like a path.
SELECT kv_set_many(ARRAY['["a"]', '', E'line\nline'], ARRAY['1', '2', '3']::jsonb[], store => 'bulk') > 0 AS set;
SELECT key, value FROM pg_temp.entries() WHERE behind = 0;
-- An array of arrays is refused; lower bounds do not matter.
SELECT outcome($$kv_set_many('{p,q}', ARRAY[['1'], ['2']]::jsonb[], store => 'bulk')$$);
SELECT kv_set_many('[5:6]={p,q}'::text[], ARRAY['1', '2']::jsonb[], store => 'bulk') > 0 AS set;
SELECT key, value FROM pg_temp.entries() WHERE behind = 0;

--
-- The paths form
--

SELECT kv_clear('bulk') > 0 AS cleared;
SELECT kv_set_many_paths('["s", ["s"], ["u", 1], ["u", 2, true], [{"bytes": "AA=="}], ["u", 1.0]]', '[1, 2, {"a": null}, [null], null, "again"]', store => 'bulk') > 0 AS set;
SELECT * FROM pg_temp.entries();
SELECT kv_set_many_paths('[["u", 1]]', '[0]', ttl => '10 min', store => 'bulk') > 0 AS set, kv_set_many_paths('[]', '[]', store => 'bulk') > 0 AS set;
SELECT key, value, expires FROM pg_temp.entries() WHERE behind = 0;

--
-- Written wrongly
--

SELECT expression, pg_temp.outcome(expression || ', store => ''bulk'')') FROM unnest(ARRAY[
    $$kv_set_many(ARRAY['a', 'b'], ARRAY['1']::jsonb[]$$, $$kv_set_many('{}', ARRAY['1']::jsonb[]$$, $$kv_set_many(NULL, ARRAY['1']::jsonb[]$$,
    $$kv_set_many(ARRAY['a'], NULL$$, $$kv_set_many(ARRAY['a', NULL], ARRAY['1', '2']::jsonb[]$$, $$kv_set_many(ARRAY['a', 'b'], ARRAY['1', NULL]::jsonb[]$$,
    $$kv_set_many(ARRAY['a'], ARRAY['1']::jsonb[], ttl => '-1 s'$$, $$kv_set_many(ARRAY['a'], ARRAY['1']::jsonb[], ttl => '1 s', expires_at => now()$$,
    $$kv_set_many(ARRAY['a', repeat('x', 2047)], ARRAY['1', '2']::jsonb[]$$,
    $$kv_set_many_paths('["a", "b"]', '[1]'$$, $$kv_set_many_paths('[]', '[1]'$$, $$kv_set_many_paths(NULL, '[1]'$$, $$kv_set_many_paths('["a"]', NULL$$,
    $$kv_set_many_paths('"a"', '[1]'$$, $$kv_set_many_paths('{"a": 1}', '[1]'$$, $$kv_set_many_paths('["a"]', '1'$$, $$kv_set_many_paths('["a"]', '{}'$$,
    $$kv_set_many_paths('["a", null]', '[1, 2]'$$, $$kv_set_many_paths('["a", []]', '[1, 2]'$$, $$kv_set_many_paths('["a", 5]', '[1, 2]'$$,
    $$kv_set_many_paths('["a", ["b", null]]', '[1, 2]'$$, $$kv_set_many_paths('["a", {"bytes": "AA=="}]', '[1, 2]'$$,
    $$kv_delete_many(NULL$$, $$kv_delete_many(ARRAY['a', NULL]$$, $$kv_delete_many_paths(NULL$$, $$kv_delete_many_paths('"a"'$$, $$kv_delete_many_paths('["a", []]'$$,
    $$kv_delete_prefix(NULL::text$$, $$kv_delete_prefix(NULL::kvkey$$, $$kv_delete_prefix(''$$, $$kv_delete_prefix(kv_key()$$,
    $$SELECT count(*) FROM kv_get_many(ARRAY['a', NULL]$$, $$SELECT count(*) FROM kv_get_many(NULL$$]) expression;
SELECT pg_temp.outcome(replace(expression, 'STORE', store)) FROM unnest(ARRAY[$$kv_set_many(ARRAY['a'], ARRAY['1']::jsonb[], store => STORE)$$,
    $$kv_delete_many(ARRAY['a'], STORE)$$, $$kv_delete_prefix('a', STORE)$$, $$kv_clear(STORE)$$]) expression, unnest(ARRAY['NULL', $$'nowhere'$$]) store;
-- The whole call fails, and leaves nothing.
SELECT pg_temp.outcome($$kv_set_many(ARRAY['x', 'y', 'z'], ARRAY['1', to_jsonb(repeat('y', 1000)), '3']::jsonb[], store => 'bulk_ttl')$$);
SELECT key, value, expires FROM pg_temp.entries('bulk_ttl');
SELECT key, value FROM pg_temp.entries();

--
-- kv_delete_many: in any order, duplicates and absent ones count not
--

SELECT kv_set_many(ARRAY['a', 'b', 'c', 'd'], ARRAY['1', '2', '3', '4']::jsonb[], store => 'bulk') > 0 AS set, kv_set('over', '1', ttl => '0', store => 'bulk') > 0 AS set;
SELECT kv_delete_many(ARRAY['d', 'a', 'nothing', 'd', 'over', 'c'], 'bulk');
SELECT kv_delete_many(ARRAY['d', 'a'], 'bulk'), kv_delete_many('{}', 'bulk');
SELECT key FROM pg_temp.entries();
SELECT kv_delete_many_paths('[["u", 2, true], "b", ["s"], ["u"], ["u", 1.0], "b"]', 'bulk'), kv_delete_many_paths('[]', 'bulk');
SELECT key FROM pg_temp.entries();

--
-- kv_delete_prefix: text prefixes leave the paths between them alone, path prefixes take all below
--

SELECT kv_clear('bulk') > 0 AS cleared;
CREATE FUNCTION pg_temp.fill() RETURNS text LANGUAGE sql AS $$
    SELECT kv_set_many_paths('["a", "a:1", "a:2", "ab", "b", "", "ä", ["a", 1], ["a", 2, 3], ["a", {"bytes": ""}], ["a:1", 1], ["a:1", true], ["ab", 1], ["b", "a"], [1], [true],
            [{"utf8": "YQBi"}], [{"utf8": "YQ=="}, 5], [{"bytes": "YQ=="}]]', (SELECT jsonb_agg(n) FROM generate_series(1, 19) n), store => 'bulk')::text
    WHERE kv_set_many(ARRAY['a:3', 'a:4'], ARRAY['1', '2']::jsonb[], ttl => '0', store => 'bulk') > 0
$$;
SELECT pg_temp.fill() IS NOT NULL AS filled;
SELECT key FROM pg_temp.entries();
SELECT kv_count('a', 'bulk'), kv_delete_prefix('a', 'bulk'), kv_delete_prefix('a', 'bulk');
SELECT key FROM pg_temp.entries();
SELECT pg_temp.fill() IS NOT NULL AS filled;
SELECT kv_count('a:', 'bulk'), kv_delete_prefix('a:', 'bulk'), kv_delete_prefix('zz', 'bulk'), kv_delete_prefix('ä', 'bulk');
SELECT count(*) FROM pg_temp.entries();
SELECT pg_temp.fill() IS NOT NULL AS filled;
SELECT kv_count(kv_key('a'), 'bulk'), kv_delete_prefix(kv_key('a'), 'bulk'), kv_delete_prefix(kv_key('a'), 'bulk');
SELECT key FROM pg_temp.entries();
SELECT kv_delete_prefix(kv_key('a:1', 1), 'bulk'), kv_delete_prefix(kv_key(1), 'bulk'), kv_delete_prefix(kv_key(2), 'bulk'), kv_delete_prefix('[{"utf8": "YQBi"}]'::kvkey, 'bulk');
SELECT key FROM pg_temp.entries();

-- The same with an index of the owner's on the table.
CREATE INDEX bulk_kind ON kvstore.s_bulk (kind);
SELECT pg_temp.fill() IS NOT NULL AS filled;
SELECT kv_delete_prefix('a:', 'bulk'), kv_delete_prefix('ab', 'bulk'), kv_delete_prefix(kv_key('a:1'), 'bulk'), kv_delete_many(ARRAY['b', 'a', 'none', 'a:3'], 'bulk');
SELECT key FROM pg_temp.entries();
SELECT pg_temp.fill() IS NOT NULL AS filled;
SELECT kv_set_many(ARRAY['b', 'a', 'new'], ARRAY['0', '0', '0']::jsonb[], store => 'bulk') > 0 AS set;
SELECT key, value FROM pg_temp.entries() WHERE behind = 0;
SELECT kv_clear('bulk');
DROP INDEX kvstore.bulk_kind;

--
-- kv_clear
--

SELECT pg_temp.fill() IS NOT NULL AS filled;
SELECT kv_clear('bulk'), kv_count(kv_key(), 'bulk_ttl') AS others_stay;
SELECT kv_clear('bulk'), kv_count(kv_key(), 'bulk');
-- What has expired was not counted; what had not is gone.
SELECT count(*) FROM kvstore.s_bulk WHERE expires_at IS NULL;
BEGIN;
SELECT kv_set('a', '1', store => 'bulk') > 0 AS set;
SELECT kv_clear('bulk');
ROLLBACK;
SELECT kv_clear('bulk');

--
-- 5,000 keys: in the order given, absent ones too, a key twice twice
--

SELECT kv_set_many((SELECT array_agg('k' || n ORDER BY hashint4(n)) FROM generate_series(1, 5000) n), (SELECT array_agg(to_jsonb(n) ORDER BY hashint4(n)) FROM generate_series(1, 5000) n),
    store => 'bulk') > 0 AS set;
SELECT count(*), count(DISTINCT versionstamp), bool_and(key = 'k' || value::text) FROM kv_list('', store => 'bulk');
SELECT count(*), bool_and(key = CASE WHEN n % 5 = 0 THEN 'x' || n ELSE 'k' || n END) AS in_order, bool_and((versionstamp = 0) = (n % 5 = 0)) AS absent_ones,
    count(value), sum(value::int)
FROM kv_get_many((SELECT array_agg(CASE WHEN n % 5 = 0 THEN 'x' || n ELSE 'k' || n END ORDER BY n) FROM generate_series(1, 5000) n), 'bulk') WITH ORDINALITY
    AS e (key, value, bytes, kind, versionstamp, expires_at, n);
SELECT key, value FROM kv_get_many(ARRAY['k5', 'k4', 'k5', 'none', 'k1'], 'bulk');
SELECT count(*), bool_and(key = to_jsonb(ARRAY['k' || n])) AS in_order, sum(value::int)
FROM kv_get_many_paths((SELECT jsonb_agg(CASE WHEN n % 2 = 0 THEN to_jsonb('k' || n) ELSE jsonb_build_array('k' || n) END ORDER BY n) FROM generate_series(1, 5000) n), 'bulk') WITH ORDINALITY
    AS e (key, value, bytes, kind, versionstamp, expires_at, n);
SELECT kv_delete_many((SELECT array_agg('k' || n ORDER BY hashint4(n)) FROM generate_series(1001, 6000) n), 'bulk');
SELECT kv_delete_prefix('k1', 'bulk'), kv_count('', 'bulk');

-- a prefix that is most of a large table; between its keys lie paths, beside them expired entries
SELECT kv_create_store('large');
SELECT kv_set_many((SELECT array_agg('k' || n) FROM generate_series(1, 25000) n), (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 25000) n), store => 'large') > 0 AS set,
    kv_set_many_paths((SELECT jsonb_agg(jsonb_build_array('k' || n, n)) FROM generate_series(1, 3000) n), (SELECT jsonb_agg(n) FROM generate_series(1, 3000) n), store => 'large') > 0 AS set,
    kv_set_many(ARRAY['j', 'l', 'k~', repeat('k', 2000)], ARRAY['1', '2', '3', '4']::jsonb[], store => 'large') > 0 AS set;
SELECT kv_set_many((SELECT array_agg('k' || n) FROM generate_series(1, 500) n), (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 500) n), ttl => '0', store => 'large') > 0 AS expired;
VACUUM ANALYZE kvstore.s_large;
SELECT kv_count('k', 'large'), kv_delete_prefix('k', 'large'), kv_delete_prefix('k', 'large');
SELECT kv_count('', 'large') AS texts, kv_count(kv_key(), 'large') AS entries, (SELECT count(*) FROM kvstore.s_large WHERE expires_at < now()) AS expired;
SELECT kv_clear('large'), kv_drop_store('large');
-- Whatever the session thinks of index scans: the order of the locks must not depend on it.
SET enable_indexscan = off;
SELECT kv_delete_many(ARRAY['k2', 'k3'], 'bulk'), kv_delete_prefix('k9', 'bulk'), kv_clear('bulk');
-- And what the session has set stays as it was.
SELECT name, setting FROM pg_settings WHERE name IN ('enable_indexscan', 'enable_seqscan', 'enable_bitmapscan') ORDER BY name;
RESET enable_indexscan;

-- Cancelled at once: in one of many rows.
SELECT kv_set_many((SELECT array_agg('k' || n) FROM generate_series(1, 2000) n), (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 2000) n), store => 'bulk') > 0 AS set;
CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN coalesce(NEW, OLD); END $$;
CREATE TRIGGER slow BEFORE INSERT OR UPDATE OR DELETE ON kvstore.s_bulk FOR EACH ROW EXECUTE FUNCTION pg_temp.slow();
\set VERBOSITY terse
SET statement_timeout = '100ms';
SELECT kv_set_many((SELECT array_agg('k' || n) FROM generate_series(1, 2000) n), (SELECT array_agg('0'::jsonb) FROM generate_series(1, 2000) n), store => 'bulk');
SELECT kv_delete_many((SELECT array_agg('k' || n) FROM generate_series(1, 2000) n), 'bulk');
SELECT kv_delete_prefix('k', 'bulk');
SELECT kv_clear('bulk');
RESET statement_timeout;
\set VERBOSITY default
DROP TRIGGER slow ON kvstore.s_bulk;
SELECT count(*), sum(value::int) FROM kv_list('', store => 'bulk');

--
-- Progress
--

\d kv_stat_progress
SELECT count(*) FROM kv_stat_progress;
-- A trigger on the store sees how far the statement that fires it is: every 64 entries it says so.
CREATE TABLE pg_temp.seen (command text, object text, items_done bigint, items_total bigint, own boolean, started boolean);
CREATE FUNCTION pg_temp.look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pg_temp.seen SELECT command, object, items_done, items_total, pid = pg_backend_pid(), started_at <= clock_timestamp() FROM kv_stat_progress;
    PERFORM pg_stat_clear_snapshot();
    RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER look BEFORE INSERT OR UPDATE OR DELETE ON kvstore.s_bulk FOR EACH ROW EXECUTE FUNCTION pg_temp.look();
SELECT kv_set_many((SELECT array_agg('k' || n) FROM generate_series(1, 150) n), (SELECT array_agg('0'::jsonb) FROM generate_series(1, 150) n), store => 'bulk') > 0 AS set;
SELECT kv_import((SELECT jsonb_object_agg('k' || n, '{"value": 1}'::jsonb) FROM generate_series(1, 150) n), 'bulk');
SELECT kv_delete_many((SELECT array_agg('k' || n) FROM generate_series(1, 150) n), 'bulk');
SELECT kv_delete_prefix('k1', 'bulk');
SELECT kv_clear('bulk');
DROP TRIGGER look ON kvstore.s_bulk;
SELECT command, object, items_total, min(items_done), max(items_done) / 64 AS steps, bool_and(own) AND bool_and(started) AS own FROM pg_temp.seen GROUP BY 1, 2, 3 ORDER BY 1;
-- Over when the statement is, also by an error.
SELECT count(*) FROM kv_stat_progress;
SELECT pg_temp.outcome($$kv_set_many(ARRAY['a', 'b'], ARRAY['1', '2']::jsonb[], store => 'nowhere')$$);
SELECT count(*) FROM kv_stat_progress;
-- Everybody may look; what others do only those who may read all statistics see, which a spec shows (progress).
CREATE ROLE kvs_bulk_nobody;
SET ROLE kvs_bulk_nobody;
SELECT count(*) FROM kv_stat_progress;
SELECT pg_temp.outcome(expression) FROM unnest(ARRAY[$$kv_set_many(ARRAY['a'], ARRAY['1']::jsonb[], store => 'bulk')$$, $$kv_delete_many(ARRAY['a'], 'bulk')$$,
    $$kv_delete_prefix('a', 'bulk')$$, $$kv_clear('bulk')$$]) expression;
RESET ROLE;
DROP ROLE kvs_bulk_nobody;
SELECT kv_drop_store('bulk'), kv_drop_store('bulk_ttl');

-- A cancel is seen while the arrays are read, before what is wrong at their end.
CREATE FUNCTION pg_temp.cancelled(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
BEGIN
    EXECUTE 'SELECT ' || replace(call, 'WHEN', 'CASE WHEN pg_cancel_backend(pg_backend_pid()) THEN') INTO said;
    RETURN said;
EXCEPTION
    WHEN query_canceled THEN
        RETURN 'cancelled';
    WHEN OTHERS THEN
        RETURN SQLSTATE;
END $$;
SELECT kv_create_store('cancel');
SELECT split_part(call, '(', 1) AS function, pg_temp.cancelled(call) FROM unnest(ARRAY[
    $$kv_get_many(WHEN '{a,NULL}'::text[] END, 'cancel')$$, $$kv_get_many_paths(WHEN '["a", 1]'::jsonb END, 'cancel')$$,
    $$kv_set_many(WHEN '{a,NULL}'::text[] END, '{1,2}', store => 'cancel')$$, $$kv_set_many('{a,b}', WHEN '{1,NULL}'::jsonb[] END, store => 'cancel')$$,
    $$kv_set_many_paths(WHEN '["a", 1]'::jsonb END, '[1, 2]', store => 'cancel')$$,
    $$kv_delete_many(WHEN '{a,NULL}'::text[] END, 'cancel')$$, $$kv_delete_many_paths(WHEN '["a", 1]'::jsonb END, 'cancel')$$,
    $$kv_import(WHEN '{"a": {"value": 1}, "b": 1}'::jsonb END, 'cancel')$$]) call;
-- More keys than one statement deletes, in any order and some of them twice.
SELECT kv_set_many(array_agg('k' || i), array_agg('1'::jsonb), store => 'cancel') > 0 FROM generate_series(1, 25000) i;
SELECT kv_delete_many(array_agg('k' || i % 30000 ORDER BY md5(i::text)), 'cancel') FROM generate_series(1, 35000) i;
SELECT kv_count('', 'cancel');
SELECT kv_drop_store('cancel');
