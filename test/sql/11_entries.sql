-- Entries: every function of one key, with text keys and with paths; get_many.
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_store('en');
SELECT kv_create_store('en_ttl', default_ttl => '1 hour');

-- Each statement is run for both forms of key: KEY stands for a text key, then for a path.  What cannot be the same twice is made so:
-- versionstamps are compared, never shown.
CREATE FUNCTION pg_temp.both(expression text) RETURNS TABLE (form text, outcome text) LANGUAGE sql AS $$
    SELECT 'text', outcome(replace(expression, 'KEY', quote_literal('k')))
    UNION ALL SELECT 'path', outcome(replace(expression, 'KEY', $q$kv_key('users', 42, true)$q$))
$$;
-- When the entry expires: rounded to whole minutes from now.
CREATE FUNCTION pg_temp.minutes(expires_at timestamptz) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN expires_at = '-infinity' THEN 'ever gone' ELSE coalesce(round(extract(epoch FROM expires_at - clock_timestamp()) / 60)::text || ' min', 'never') END
$$;
-- What kv_entry() says, without numbers that differ.
CREATE FUNCTION pg_temp.entry(key text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', key, coalesce(value::text, '-'), coalesce(bytes::text, '-'), coalesce(kind, '-'), CASE versionstamp WHEN 0 THEN 'absent' ELSE 'present' END,
        pg_temp.minutes(expires_at)) FROM kv_entry(key, 'en')
$$;
CREATE FUNCTION pg_temp.entry(key kvkey) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', key, coalesce(value::text, '-'), coalesce(bytes::text, '-'), coalesce(kind, '-'), CASE versionstamp WHEN 0 THEN 'absent' ELSE 'present' END,
        pg_temp.minutes(expires_at)) FROM kv_entry(key, 'en')
$$;

--
-- Absent
--

SELECT * FROM pg_temp.both($$kv_get(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_get_bytes(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_exists(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_delete(KEY, store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_delete(KEY, 5, 'en')$$);
SELECT * FROM pg_temp.both($$kv_delete(KEY, 0, 'en')$$);
SELECT * FROM pg_temp.both($$kv_take(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_expire(KEY, '1 hour', store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_expire(KEY, store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '1', if_version => 5, store => 'en')$$);
SELECT * FROM pg_temp.both($$(SELECT count(*) FROM kv_entry(KEY, 'en'))$$);
SELECT count(*) FROM kvstore.s_en;

-- One row, complete, for an absent entry too.
SELECT * FROM kv_entry('nobody', 'en');
SELECT * FROM kv_entry(kv_key('nobody', 1), 'en');

--
-- Set and get
--

SELECT * FROM pg_temp.both($$kv_set(KEY, '{"a": [1, null, "x"]}', store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$kv_get(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_exists(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
-- A JSON null is a value, and not absent.
SELECT * FROM pg_temp.both($$kv_set(KEY, 'null', store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$kv_get(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_get(KEY, 'en') IS NULL$$);
-- Each write has a number above the one before, and what kv_entry() shows is what kv_set() returned.
SELECT * FROM pg_temp.both($$kv_set(KEY, '1', store => 'en') < kv_set(KEY, '2', store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '3', store => 'en') < kv_set_bytes(KEY, 'x', store => 'en')$$);
SELECT kv_set('k', '4', store => 'en') AS stamp \gset
SELECT versionstamp = :stamp AS same FROM kv_entry('k', 'en');
SELECT kv_set(kv_key('users', 42, true), '4', store => 'en') > :stamp AS higher;

-- Keys are data: text is never parsed, and a string key is the path of that one string.
SELECT kv_set('["users", 42, true]', '"a string"', store => 'en') > 0, kv_set('users', '"plain"', store => 'en') > 0;
SELECT kv_get('["users", 42, true]', 'en') AS text, kv_get('["users", 42, true]'::kvkey, 'en') AS path, kv_get('["users", 42, true]'::jsonb, 'en') AS jsonb,
       kv_get(kv_key('users'), 'en') AS one_part, kv_get(kv_key('users', 42), 'en') AS other;
-- Any text is a key, '' too.
SELECT count(kv_set(key, to_jsonb(key), store => 'en')) FROM unnest(ARRAY['', ' ', '%', 'a"b''c\', E'\n', chr(1), 'schlüssel', '😀', chr(1114111)]) key;
SELECT bool_and(kv_get(key, 'en') = to_jsonb(key)) AS all_found FROM unnest(ARRAY['', ' ', '%', 'a"b''c\', E'\n', chr(1), 'schlüssel', '😀', chr(1114111)]) key;
SELECT kv_get('😀 ', 'en') AS other, kv_get(kv_key(''), 'en') AS path;

-- Through parameters of drivers: the one form that suits every one.
PREPARE set_text AS SELECT kv_set($1::text, $2::jsonb, ttl => $3 * interval '1 ms', store => 'en') > 0 AS set;
EXECUTE set_text('p', '{"p": 1}', 60000);
EXECUTE set_text('p', '{"p": 2}', NULL);
PREPARE get_path AS SELECT kv_get($1::kvkey, 'en') AS value;
EXECUTE get_path('["p"]');
EXECUTE get_path('["users", 42.0, true]');
SELECT pg_temp.entry('p');
DEALLOCATE ALL;

-- Values that are toasted: compressed, and out of line; and the same again after an overwrite.
SELECT kv_set('big', to_jsonb(repeat('x', 1000000)), store => 'en') > 0, kv_set_bytes('bytes', decode(repeat('00ff', 500000), 'hex'), store => 'en') > 0;
SELECT length(kv_get('big', 'en') #>> '{}'), length(kv_get_bytes('bytes', 'en'));
SELECT kv_set('noise', (SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 5000) i), store => 'en') > 0;
SELECT kv_get('noise', 'en') = (SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 5000) i) AS same, length(kv_take('big', 'en') #>> '{}') AS taken, kv_get('big', 'en') IS NULL AS in_this_statement;
SELECT key, length(value::text), length(bytes), kind FROM kv_get_many(ARRAY['noise', 'bytes', 'big'], 'en');

--
-- Bytes, and functions that cannot give what an entry holds: KV005
--

SELECT * FROM pg_temp.both($$kv_set_bytes(KEY, '\x00ff', store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$kv_get_bytes(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_get(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_take(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_exists(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_set_bytes(KEY, '', store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$kv_get_bytes(KEY, 'en')$$);
-- An overwrite changes the kind.
SELECT * FROM pg_temp.both($$kv_set(KEY, '7', store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$kv_get_bytes(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
-- A number of kind u64 is JSON to every function; all of its 64 bits.
SELECT kv_import('[{"key": ["users", 42, true], "u64": "18446744073709551615"}, {"key": "k", "u64": "0"}]', 'en');
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_get(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_get_bytes(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_take(KEY, 'en')$$);

--
-- if_version
--

SELECT * FROM pg_temp.both($$kv_set(KEY, '"first"', if_version => 0, store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '"second"', if_version => 0, store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_set_bytes(KEY, '\x00', if_version => 0, store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_get(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '"third"', if_version => (SELECT versionstamp FROM kv_entry(KEY, 'en')), store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '"fourth"', if_version => (SELECT versionstamp - 1 FROM kv_entry(KEY, 'en')), store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '"fourth"', if_version => 9223372036854775807, store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_get(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '"fifth"', if_version => NULL, store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$kv_set_bytes(KEY, '\x06', if_version => (SELECT versionstamp FROM kv_entry(KEY, 'en')), store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_expire(KEY, '1 hour', if_version => (SELECT versionstamp + 1 FROM kv_entry(KEY, 'en')), store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_expire(KEY, '1 hour', if_version => 0, store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_expire(KEY, '1 hour', if_version => (SELECT versionstamp FROM kv_entry(KEY, 'en')), store => 'en')$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_delete(KEY, if_version => 0, store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_delete(KEY, if_version => (SELECT versionstamp - 1 FROM kv_entry(KEY, 'en')), store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_exists(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_delete(KEY, if_version => (SELECT versionstamp FROM kv_entry(KEY, 'en')), store => 'en')$$);
SELECT * FROM pg_temp.both($$kv_exists(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_delete(KEY, store => 'en')$$);
SELECT expression, outcome(expression) FROM unnest(ARRAY[
    $$kv_set('k', '1', if_version => -1, store => 'en')$$, $$kv_set_bytes('k', '', if_version => -1, store => 'en')$$, $$kv_delete(kv_key('k'), -9223372036854775808, 'en')$$,
    $$kv_expire('k', if_version => -1, store => 'en')$$]) expression;
-- A renewal leaves the versionstamp alone.
SELECT kv_set('k', '1', store => 'en') AS stamp \gset
SELECT kv_expire('k', '5 min', if_version => :stamp, store => 'en'), kv_expire('k', '15 min', if_version => :stamp, store => 'en');
SELECT versionstamp = :stamp AS same, pg_temp.minutes(expires_at) FROM kv_entry('k', 'en');

--
-- Expiry
--

SELECT * FROM pg_temp.both($$kv_set(KEY, '1', ttl => '10 min', store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
-- A set clears an old expiry, unless keep_ttl says not to.
SELECT * FROM pg_temp.both($$kv_set(KEY, '2', keep_ttl => true, store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '2', keep_ttl => true, if_version => (SELECT versionstamp FROM kv_entry(KEY, 'en')), store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_set_bytes(KEY, '\x02', keep_ttl => true, store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '3', keep_ttl => NULL, store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '3', expires_at => clock_timestamp() + '20 min', store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_set(KEY, '3', if_version => (SELECT versionstamp FROM kv_entry(KEY, 'en')), store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
-- keep_ttl with a ttl: that is for an entry which is not there.
SELECT * FROM pg_temp.both($$kv_set(KEY, '4', ttl => '30 min', keep_ttl => true, store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_delete(KEY, store => 'en') AND kv_set(KEY, '4', ttl => '30 min', keep_ttl => true, store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
-- kv_expire() renews, and with neither removes.
SELECT * FROM pg_temp.both($$kv_expire(KEY, '40 min', store => 'en')$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_expire(KEY, expires_at => clock_timestamp() + '50 min', store => 'en')$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_expire(KEY, store => 'en')$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);
SELECT * FROM pg_temp.both($$kv_expire(KEY, expires_at => 'infinity', store => 'en')$$);
SELECT * FROM pg_temp.both($$pg_temp.entry(KEY)$$);

-- ttl 0, and a time in the past: absent at once, to every function that reads, counts, renews or compares.
DO $do$
DECLARE
    key text;
    how text;
    look text;
    seen text[];
BEGIN
    FOREACH key IN ARRAY ARRAY[$$'k'$$, $$kv_key('users', 42, true)$$] LOOP
        FOREACH how IN ARRAY ARRAY[$$kv_set(KEY, '1', ttl => '0', store => 'en') > 0$$, $$kv_set(KEY, '1', expires_at => clock_timestamp() - interval '1 us', store => 'en') > 0$$,
                $$kv_set(KEY, '1', expires_at => '-infinity', store => 'en') > 0$$, $$kv_set_bytes(KEY, '1', ttl => '0', store => 'en') > 0$$,
                $$kv_set(KEY, '1', store => 'en') > 0 AND kv_expire(KEY, '0', store => 'en')$$,
                $$kv_set(KEY, '1', store => 'en') > 0 AND kv_expire(KEY, expires_at => '1970-01-01', store => 'en')$$,
                $$kv_set(KEY, '1', ttl => '1 hour -60 min', store => 'en') > 0$$] LOOP
            RAISE NOTICE '%: %', replace(how, 'KEY', key), outcome(replace(how, 'KEY', key));
            seen := '{}';
            FOREACH look IN ARRAY ARRAY[$$kv_get(KEY, 'en')$$, $$kv_get_bytes(KEY, 'en')$$, $$kv_exists(KEY, 'en')$$, $$pg_temp.entry(KEY)$$,
                    $$(SELECT min(versionstamp) FROM kv_get_many_paths('["k", ["users", 42, true]]', 'en'))$$, $$(SELECT count(*) FROM kv_list('', store => 'en') WHERE key = 'k')$$,
                    $$kv_count(kv_key(), 'en') - (SELECT count(*) FROM kvstore.v_en)$$, $$kv_count('k', 'en') + kv_count(kv_key('users'), 'en')$$,
                    $$kv_expire(KEY, '1 hour', store => 'en')$$, $$kv_delete(KEY, store => 'en')$$, $$kv_take(KEY, 'en')$$,
                    $$kv_set(KEY, '1', if_version => (SELECT max(versionstamp) FROM kvstore.s_en), store => 'en')$$] LOOP
                seen := seen || outcome(replace(look, 'KEY', key));
            END LOOP;
            RAISE NOTICE '    %', array_to_string(seen, ', ', 'NULL');
        END LOOP;
    END LOOP;
END $do$;
-- if_version 0 sees an expired entry as absent, and its number goes on growing.
SELECT kv_set('k', '1', ttl => '0', store => 'en') AS stamp \gset
SELECT kv_set('k', '2', if_version => :stamp, store => 'en') AS stale, kv_delete('k', :stamp, 'en') AS deleted, kv_expire('k', '1 min', if_version => :stamp, store => 'en') AS expired;
SELECT kv_set('k', '2', if_version => 0, store => 'en') > :stamp AS higher;
SELECT pg_temp.entry('k');
-- The same through keep_ttl: an expiry that has passed is not kept.
SELECT kv_set('k', '1', ttl => '0', store => 'en') > 0, kv_set('k', '2', keep_ttl => true, store => 'en') > 0;
SELECT pg_temp.entry('k');

-- infinity is never; a store's default applies when nothing is given.
SELECT kv_set('plain', '1', store => 'en_ttl') > 0, kv_set('forever', '1', expires_at => 'infinity', store => 'en_ttl') > 0, kv_set('short', '1', ttl => '10 min', store => 'en_ttl') > 0,
    kv_set_bytes('bytes', '1', store => 'en_ttl') > 0, kv_set('now', '1', ttl => '0', store => 'en_ttl') > 0, kv_import('{"imported": {"value": 1}}', 'en_ttl');
SELECT key, pg_temp.minutes(expires_at) FROM kv_list('', store => 'en_ttl');
SELECT kv_set('plain', '1', if_version => (SELECT versionstamp FROM kv_entry('plain', 'en_ttl')), store => 'en_ttl') > 0, kv_set('new', '1', if_version => 0, store => 'en_ttl') > 0,
    kv_set('forever', '2', keep_ttl => true, store => 'en_ttl') > 0, kv_set('short', '2', keep_ttl => true, store => 'en_ttl') > 0, kv_set('kept', '2', keep_ttl => true, store => 'en_ttl') > 0,
    kv_expire('bytes', store => 'en_ttl');
SELECT key, pg_temp.minutes(expires_at) FROM kv_list('', store => 'en_ttl');
SELECT kv_set('forever', '3', store => 'en_ttl') > 0;
SELECT key, pg_temp.minutes(expires_at) FROM kv_entry('forever', 'en_ttl');
-- Months and days are those of the calendar in UTC, whatever the session's time zone: late on a day that is the last of a month the two differ.
SET timezone = 'America/Los_Angeles';
SELECT kv_set('month', '1', ttl => '1 month 1 day', store => 'en') > 0;
SET timezone = 'UTC';
SELECT expires_at BETWEEN clock_timestamp() - interval '1 min' + '1 month 1 day' AND clock_timestamp() + '1 month 1 day' AS calendar FROM kv_entry('month', 'en');
RESET timezone;

-- The clock is read in the call, and hides in old snapshots too.
-- How soon the first look comes is the machine's affair: it is set for longer and longer until that comes in time.
CREATE FUNCTION pg_temp.tick() RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    there jsonb;
BEGIN
    FOR i IN 0 .. 9 LOOP
        PERFORM kv_set('tick', '1', ttl => 2 ^ i * interval '50 ms', store => 'en');
        there := kv_get('tick', 'en');
        EXIT WHEN there IS NOT NULL;
    END LOOP;
    RETURN there;
END $$;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.tick() AS there;
SELECT pg_sleep(greatest(0, extract(epoch FROM expires_at - clock_timestamp()) + 0.001)) FROM kvstore.s_en WHERE key = kv_key('tick');
SELECT kv_get('tick', 'en') AS gone, (SELECT versionstamp FROM kv_entry('tick', 'en')), kv_exists('tick', 'en'), kv_count('tick', 'en');
COMMIT;
-- It hides and never makes visible again: a statement that ran past the time sees it gone, though the transaction began before.
BEGIN;
SELECT kv_set('tick', '1', expires_at => now() + '50 ms', store => 'en') > 0;
SELECT pg_sleep(0.06);
SELECT kv_get('tick', 'en'), now() < expires_at AS by_transaction_time FROM kvstore.s_en WHERE key = kv_key('tick');
COMMIT;

SELECT expression, outcome(expression) FROM unnest(ARRAY[
    $$kv_set('k', '1', ttl => '-1 us', store => 'en')$$, $$kv_set('k', '1', ttl => '-1 day', store => 'en')$$, $$kv_set('k', '1', ttl => '1 month -32 days', store => 'en')$$,
    $$kv_set_bytes('k', '', ttl => '-1 s', store => 'en')$$, $$kv_expire('k', '-1 s', store => 'en')$$,
    $$kv_set('k', '1', ttl => '1 s', expires_at => 'infinity', store => 'en')$$, $$kv_set_bytes('k', '', '1 s', now(), store => 'en')$$, $$kv_expire('k', '1 s', now(), store => 'en')$$,
    $$kv_set('k', '1', ttl => '300000 years', store => 'en')$$]) expression;
SELECT pg_temp.entry('k');

--
-- Take
--

SELECT * FROM pg_temp.both($$kv_set(KEY, '{"take": "me"}', store => 'en') > 0$$);
SELECT * FROM pg_temp.both($$kv_take(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_take(KEY, 'en')$$);
SELECT * FROM pg_temp.both($$kv_exists(KEY, 'en')$$);

--
-- NULL: 22004 where it has no meaning
--

SELECT expression, outcome(expression) FROM unnest(ARRAY[
    $$kv_get(NULL::text, 'en')$$, $$kv_get(NULL::kvkey, 'en')$$, $$kv_get_bytes(NULL::text, 'en')$$, $$kv_get_bytes(NULL::kvkey, 'en')$$, $$kv_exists(NULL::text, 'en')$$, $$kv_exists(NULL::kvkey, 'en')$$,
    $$(SELECT key FROM kv_entry(NULL::text, 'en'))$$, $$(SELECT key FROM kv_entry(NULL::kvkey, 'en'))$$,
    $$kv_set(NULL::text, '1', store => 'en')$$, $$kv_set(NULL::kvkey, '1', store => 'en')$$, $$kv_set('k', NULL, store => 'en')$$, $$kv_set(kv_key('k'), NULL, store => 'en')$$,
    $$kv_set_bytes(NULL::text, '', store => 'en')$$, $$kv_set_bytes(NULL::kvkey, '', store => 'en')$$, $$kv_set_bytes('k', NULL, store => 'en')$$, $$kv_set_bytes(kv_key('k'), NULL, store => 'en')$$,
    $$kv_delete(NULL::text, store => 'en')$$, $$kv_delete(NULL::kvkey, store => 'en')$$, $$kv_take(NULL::text, 'en')$$, $$kv_take(NULL::kvkey, 'en')$$,
    $$kv_expire(NULL::text, store => 'en')$$, $$kv_expire(NULL::kvkey, store => 'en')$$, $$(SELECT count(*) FROM kv_get_many(NULL, 'en'))$$, $$(SELECT count(*) FROM kv_get_many_paths(NULL, 'en'))$$,
    $$(SELECT count(*) FROM kv_get_many(ARRAY['k', NULL], 'en'))$$, $$(SELECT count(*) FROM kv_get_many_paths('["k", null]', 'en'))$$,
    $$kv_get('k', NULL)$$, $$kv_set('k', '1', store => NULL)$$, $$kv_delete('k', store => NULL)$$, $$(SELECT count(*) FROM kv_get_many('{k}', NULL))$$]) expression;

--
-- Many keys
--

SELECT count(kv_set('m' || i, to_jsonb(i), store => 'en')) FROM generate_series(1, 5) i;
SELECT kv_set_bytes('m6', 'six', store => 'en') > 0, kv_set('m7', '7', ttl => '0', store => 'en') > 0, kv_set(kv_key('m', 8), '8', ttl => '1 hour', store => 'en') > 0;
-- In the order given, twice when given twice, absent and expired ones too.
SELECT key, value, bytes, kind, versionstamp > 0 AS present, expires_at FROM kv_get_many(ARRAY['m3', 'm1', 'm7', 'm3', 'none', 'm6', ''], 'en');
SELECT key, value, bytes, kind, versionstamp > 0 AS present, pg_temp.minutes(expires_at) FROM kv_get_many_paths('[["m", 8], "m3", ["m3"], ["m", 9], "m7", ["m6"], ["m", {"bigint": "8"}]]', 'en');
SELECT count(*) FROM kv_get_many('{}', 'en');
SELECT count(*) FROM kv_get_many_paths('[]', 'en');
SELECT outcome($$(SELECT array_agg(value::int) FROM kv_get_many(ARRAY[['m1', 'm2'], ['m3', 'm4']], 'en'))$$);
SELECT count(*), count(value) FROM kv_get_many((SELECT array_agg('m' || i) FROM generate_series(1, 10000) i), 'en');
SELECT bool_and(m.versionstamp = e.versionstamp) AS same FROM kv_get_many(ARRAY['m1', 'm2', 'none'], 'en') m, kv_entry(m.key, 'en') e;
SELECT expression, outcome(expression) FROM unnest(ARRAY[
    $$(SELECT count(*) FROM kv_get_many_paths('"m1"', 'en'))$$, $$(SELECT count(*) FROM kv_get_many_paths('{"m1": 1}', 'en'))$$, $$(SELECT count(*) FROM kv_get_many_paths('null', 'en'))$$,
    $$(SELECT count(*) FROM kv_get_many_paths('[1]', 'en'))$$, $$(SELECT count(*) FROM kv_get_many_paths('["m1", {"bytes": ""}]', 'en'))$$, $$(SELECT count(*) FROM kv_get_many_paths('["m1", []]', 'en'))$$,
    $$(SELECT count(*) FROM kv_get_many_paths('[["a", null]]', 'en'))$$, $$(SELECT count(*) FROM kv_get_many_paths('[["a", 9007199254740993]]', 'en'))$$]) expression;

--
-- A statement does not see its own writes; the next one does
--

SELECT kv_delete('own', store => 'en');
SELECT kv_set('own', '1', store => 'en') > 0 AS set, kv_get('own', 'en') AS same_statement;
SELECT kv_get('own', 'en') AS next_statement;
BEGIN;
SELECT kv_set('own', '2', store => 'en') > 0;
SELECT kv_get('own', 'en');
SAVEPOINT s;
SELECT kv_delete('own', store => 'en');
SELECT kv_get('own', 'en');
ROLLBACK TO s;
SELECT kv_get('own', 'en');
ROLLBACK;
SELECT kv_get('own', 'en');
-- Two writes of one key in one statement: the later has the higher number, and stays.
SELECT kv_set('own', '1', store => 'en') < kv_set('own', '2', store => 'en') AS grows;
SELECT kv_get('own', 'en');
-- Deleted and made again in one statement.
SELECT kv_set('own', '3', store => 'en') AS a, kv_delete('own', store => 'en') AS deleted, kv_set('own', '4', if_version => 0, store => 'en') AS b \gset
SELECT :'deleted' AS deleted, :b > :a AS grows, kv_get('own', 'en');
-- In a read-only transaction.
BEGIN READ ONLY;
SELECT kv_get('own', 'en');
SELECT expression, outcome(expression) FROM unnest(ARRAY[
    $$kv_set('k', '1', store => 'en')$$, $$kv_set_bytes('k', '1', store => 'en')$$, $$kv_delete('k', store => 'en')$$, $$kv_take('k', 'en')$$, $$kv_expire('k', store => 'en')$$, $$kv_import('{}', 'en')$$,
    $$kv_create_store('en2')$$, $$kv_alter_store('en')$$, $$kv_drop_store('en')$$]) expression;
COMMIT;

-- Reading in parallel workers gives the same.
SELECT count(kv_set('w' || i, to_jsonb(i), store => 'en')) FROM generate_series(1, 1000) i;
CREATE TABLE en_keys AS SELECT 'w' || i AS key FROM generate_series(1, 1000) i;
ALTER TABLE en_keys SET (parallel_workers = 2);
-- 16 renamed the first setting.
SELECT count(set_config(name, 'on', false)) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SELECT sum(kv_get(key, 'en')::int) FROM en_keys;
RESET ALL;
DROP TABLE en_keys;

-- A key index with further columns is right after every write.
SELECT kv_create_store('en_cover');
ALTER TABLE kvstore.s_en_cover DROP CONSTRAINT s_en_cover_pkey, ADD PRIMARY KEY (key) INCLUDE (kind, versionstamp, expires_at, value);
SELECT count(kv_set('a', to_jsonb(i), store => 'en_cover')) FROM generate_series(1, 10) i;
SELECT kv_incr('a', store => 'en_cover'), kv_expire('a', ttl => '1 hour', store => 'en_cover');
SELECT count(kv_set_many('{a,b}', ARRAY[to_jsonb(i), '1'], store => 'en_cover')) FROM generate_series(1, 3) i;
VACUUM kvstore.s_en_cover;
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT i.versionstamp = e.versionstamp AS same, i.value FROM (SELECT versionstamp, value FROM kvstore.s_en_cover WHERE key = kv_key('a')) i, kv_entry('a', 'en_cover') e;
RESET enable_seqscan; RESET enable_bitmapscan;
SELECT kv_drop_store('en_cover');

SELECT kv_drop_store('en'), kv_drop_store('en_ttl');
