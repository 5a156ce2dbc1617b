-- Counters and checks: kv_incr and kv_check.
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_store('counter');
SELECT kv_create_store('counter_ttl', default_ttl => '1 hour');

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
    RETURN concat_ws(' | ', state, message, nullif(regexp_replace(detail, '\d+', 'N'), ''), nullif(hint, ''));
END $$;
CREATE FUNCTION pg_temp.entries(store text DEFAULT 'counter') RETURNS TABLE (key jsonb, value jsonb, bytes bytea, kind text, expires text) LANGUAGE sql AS $$
    SELECT key, value, bytes, kind, round(extract(epoch FROM expires_at - clock_timestamp()) / 60) || ' min' FROM kv_list(kv_key(), store => store)
$$;

--
-- kv_incr
--

SELECT kv_incr('n', store => 'counter'), kv_incr(kv_key('n', 1), store => 'counter');
SELECT kv_incr('n', store => 'counter'), kv_incr(kv_key('n', 1), 5, store => 'counter');
SELECT kv_incr('n', -10, store => 'counter'), kv_incr('n', 0, store => 'counter');
-- Exact, and of any size.
SELECT kv_incr('d', 0.1, store => 'counter');
SELECT kv_incr('d', 0.2, store => 'counter');
SELECT kv_incr('d', 1e30, store => 'counter');
SELECT kv_incr('d', -0.30, store => 'counter');
SELECT kv_incr('d', 0.000000000000000000000000000000000001, store => 'counter');
-- Counting twice in a statement counts twice.
SELECT kv_incr('n', 100, store => 'counter') FROM generate_series(1, 3);
-- An entry that kv_set wrote; it gets a new versionstamp.
SELECT kv_set('s', '41', store => 'counter') AS stamp \gset
SELECT kv_incr('s', store => 'counter');
SELECT versionstamp > :stamp AS later, value FROM kv_entry('s', 'counter');
SELECT key, value, kind, expires FROM pg_temp.entries();

-- ttl is for the entry that this call creates; an expiry that is there stays.
SELECT kv_incr('t', ttl => '10 min', store => 'counter'), kv_incr('t', ttl => '20 min', store => 'counter'), kv_incr('t', store => 'counter');
SELECT kv_set('u', '1', ttl => '5 min', store => 'counter') > 0 AS set, kv_set('v', '1', store => 'counter') > 0 AS set;
SELECT kv_incr('u', ttl => '20 min', store => 'counter'), kv_incr('v', ttl => '20 min', store => 'counter');
SELECT key, value, expires FROM pg_temp.entries() WHERE key ->> 0 IN ('t', 'u', 'v');
-- The default of the store, for what is created.
SELECT kv_incr('a', store => 'counter_ttl'), kv_incr('b', ttl => '5 min', store => 'counter_ttl'), kv_set('c', '1', expires_at => 'infinity', store => 'counter_ttl') > 0 AS set;
SELECT kv_incr('a', store => 'counter_ttl'), kv_incr('b', store => 'counter_ttl'), kv_incr('c', store => 'counter_ttl');
SELECT key, value, expires FROM pg_temp.entries('counter_ttl');
-- An expired entry is absent: the count starts anew, whatever it held, with an expiry of its own.
SELECT kv_set('over', '100', ttl => '0', store => 'counter') > 0 AS set, kv_set_bytes('over2', 'x', ttl => '0', store => 'counter') > 0 AS set,
    kv_set('over3', '"text"', expires_at => '2000-01-01', store => 'counter') > 0 AS set;
SELECT ok FROM kv_atomic('[{"set": {"key": "over4", "u64": "7", "ttl_ms": 0}}]', 'counter');
SELECT kv_incr('over', 2, store => 'counter'), kv_incr('over2', 3, ttl => '10 min', store => 'counter'), kv_incr('over3', 4, store => 'counter'),
    kv_incr('over4', 0.5, store => 'counter');
SELECT * FROM pg_temp.entries() WHERE key ->> 0 LIKE 'over%';
SELECT kv_incr('gone', ttl => '0', store => 'counter'), kv_incr('gone', 2, ttl => '0', store => 'counter'), kv_exists('gone', 'counter');

-- u64: stays u64, wraps at 2^64.
SELECT ok FROM kv_atomic('[{"set": {"key": "u64", "u64": "18446744073709551615", "ttl_ms": 600000}}]', 'counter');
SELECT kv_incr('u64', store => 'counter'), kv_incr('u64', -1, store => 'counter'), kv_incr('u64', 2.0, store => 'counter'), kv_incr('u64', 18446744073709551616 * 3 + 4, store => 'counter');
SELECT * FROM pg_temp.entries() WHERE key = '["u64"]';
SELECT kv_export('u64', 'counter') -> 'u64' ->> 'u64' AS exported;

-- What is no number, and arguments without a meaning.
SELECT kv_set_bytes('bytes', 'abc', store => 'counter') > 0 AS set, kv_set('text', '"5"', store => 'counter') > 0 AS set, kv_set('null', 'null', store => 'counter') > 0 AS set,
    kv_set('array', '[1]', store => 'counter') > 0 AS set, kv_set('object', '{"n": 1}', store => 'counter') > 0 AS set, kv_set('true', 'true', store => 'counter') > 0 AS set;
SELECT expression, pg_temp.outcome(expression) FROM unnest(ARRAY[
    $$kv_incr('bytes', store => 'counter')$$, $$kv_incr('text', store => 'counter')$$, $$kv_incr('null', store => 'counter')$$, $$kv_incr('array', store => 'counter')$$,
    $$kv_incr('object', store => 'counter')$$, $$kv_incr('true', store => 'counter')$$, $$kv_incr('u64', 0.5, store => 'counter')$$,
    $$kv_incr('u64', 'NaN', store => 'counter')$$, $$kv_incr('u64', 'Infinity', store => 'counter')$$,
    $$kv_incr('n', 'NaN', store => 'counter')$$, $$kv_incr('n', '-Infinity', store => 'counter')$$, $$kv_incr('new', 'NaN', store => 'counter')$$,
    $$kv_incr('new', 'Infinity', store => 'counter')$$, $$kv_incr('n', NULL, store => 'counter')$$, $$kv_incr(NULL::text, store => 'counter')$$, $$kv_incr(NULL::kvkey, store => 'counter')$$,
    $$kv_incr(kv_key(), store => 'counter')$$, $$kv_incr('n', ttl => '-1 s', store => 'counter')$$, $$kv_incr('n', store => NULL)$$, $$kv_incr('n', store => 'nowhere')$$,
    $$kv_incr(repeat('x', 2047), store => 'counter')$$]) expression;
SELECT kv_exists('new', 'counter'), kv_get('n', 'counter'), kv_get('u64', 'counter');
-- So large that no numeric holds the sum: an error, and the entry stays.
SELECT kv_incr('huge', ('9' || repeat('0', 131071))::numeric, store => 'counter') > 0 AS huge;
SELECT pg_temp.outcome($$kv_incr('huge', ('9' || repeat('0', 131071))::numeric, store => 'counter')$$);
SELECT kv_get('huge', 'counter')::numeric = ('9' || repeat('0', 131071))::numeric AS stays, kv_delete('huge', store => 'counter');
BEGIN;
SELECT kv_incr('n', 1000, store => 'counter');
ROLLBACK;
SELECT kv_get('n', 'counter');

--
-- kv_check
--

SELECT kv_set('k', '1', store => 'counter') AS stamp, kv_set(kv_key('k', 1), '1', store => 'counter') AS path_stamp \gset
SELECT kv_check('k', :stamp, 'counter'), kv_check(kv_key('k', 1), :path_stamp, 'counter'), kv_check('nothing', 0, 'counter'), kv_check(kv_key('nothing'), NULL, 'counter'),
    kv_check('gone', 0, 'counter');
SELECT expression, pg_temp.outcome(expression) FROM unnest(ARRAY[
    $$kv_check('k', 0, 'counter')$$, $$kv_check('k', NULL, 'counter')$$, $$kv_check('k', 9223372036854775807, 'counter')$$, $$kv_check(kv_key('k', 1), 1, 'counter')$$,
    $$kv_check('nothing', 1, 'counter')$$, $$kv_check('gone', 1, 'counter')$$, $$kv_check('k', -1, 'counter')$$, $$kv_check(NULL::text, 0, 'counter')$$,
    $$kv_check(NULL::kvkey, 0, 'counter')$$, $$kv_check(kv_key(), 0, 'counter')$$, $$kv_check('k', 0, NULL)$$, $$kv_check('k', 0, 'nowhere')$$]) expression;
-- Twice, and after one's own writes.
BEGIN;
SELECT kv_check('nothing', 0, 'counter'), kv_check('nothing', 0, 'counter');
SELECT kv_check('nothing', 0, 'counter');
SELECT kv_set('nothing', '1', store => 'counter') AS stamp \gset
SELECT kv_check('nothing', :stamp, 'counter');
SELECT kv_delete('nothing', :stamp, 'counter');
SELECT kv_check('nothing', 0, 'counter');
SAVEPOINT s;
\set VERBOSITY terse
SELECT kv_check('k', 0, 'counter');
\set VERBOSITY default
ROLLBACK TO s;
SELECT kv_check('nothing', 0, 'counter'), kv_incr('nothing', 5, store => 'counter');
COMMIT;
SELECT kv_get('nothing', 'counter'), kv_delete('nothing', store => 'counter');
-- Nothing is left of a check, neither row nor lock.
SELECT count(*) FROM kvstore.s_counter WHERE key = kv_key('nothing');
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory';
-- Many in one transaction.
SELECT count(kv_check('absent' || n, 0, 'counter')) FROM generate_series(1, 100) n;
-- Without shared memory a row holds the place for a moment; the owner's triggers and constraints are not to see it.
CREATE FUNCTION pg_temp.check_with(own text, removed text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    said text;
BEGIN
    EXECUTE 'ALTER TABLE kvstore.s_counter ' || own;
    said := outcome($c$kv_check('absent', 0, 'counter')$c$);
    EXECUTE 'ALTER TABLE kvstore.s_counter ' || removed;
    RETURN said = CASE WHEN current_setting('shared_preload_libraries') = 'kvstore' THEN 'true'
        ELSE '0A000 | cannot check that an entry is absent in a store with constraints or triggers of its own | Add kvstore to shared_preload_libraries and restart the server.' END;
END $$;
SELECT pg_temp.check_with($$ADD CONSTRAINT mine CHECK (kind <> 'x')$$, 'DROP CONSTRAINT mine');
-- Who may check: it locks, so it needs what a write needs.
CREATE ROLE kvs_counter_reader;
GRANT SELECT ON kvstore.s_counter TO kvs_counter_reader;
SET ROLE kvs_counter_reader;
SELECT pg_temp.outcome($$kv_check('k', 0, 'counter')$$), pg_temp.outcome($$kv_incr('n', store => 'counter')$$);
RESET ROLE;
BEGIN READ ONLY;
SELECT pg_temp.outcome($$kv_check('k', 0, 'counter')$$), pg_temp.outcome($$kv_incr('n', store => 'counter')$$);
COMMIT;
DROP OWNED BY kvs_counter_reader;
DROP ROLE kvs_counter_reader;

SELECT kv_drop_store('counter'), kv_drop_store('counter_ttl');
