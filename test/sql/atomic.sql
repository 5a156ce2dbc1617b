-- kv_atomic: what each operation does, all or nothing, and every way to write an operation wrongly.
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_store('atomic');
SELECT kv_create_store('atomic_ttl', default_ttl => '1 hour', max_value_size => 1000);

-- The outcome of a call.  An error: SQLSTATE, message, detail, and which operation it was.
CREATE FUNCTION pg_temp.atomic(operations jsonb, store text DEFAULT 'atomic') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result record;
    state text;
    message text;
    detail text;
    context text;
BEGIN
    SELECT * INTO result FROM kv_atomic(operations, store);
    RETURN concat_ws(' ', CASE WHEN result.ok THEN 'ok' ELSE 'failed' END, result.failed_checks,
        CASE WHEN result.ok <> (result.versionstamp IS NOT NULL) THEN 'wrong versionstamp' END);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, context = PG_EXCEPTION_CONTEXT;
    RETURN concat_ws(' | ', state, message, nullif(detail, ''), substring(context FROM 'operation \d+'));
END $$;

-- What is in the store: expiry in minutes from now, and how many versionstamps are higher.
CREATE FUNCTION pg_temp.entries(store text DEFAULT 'atomic')
    RETURNS TABLE (key jsonb, value jsonb, bytes bytea, kind text, expires text, behind bigint) LANGUAGE sql AS $$
    SELECT key, value, bytes, kind, round(extract(epoch FROM expires_at - clock_timestamp()) / 60) || ' min', dense_rank() OVER (ORDER BY versionstamp DESC) - 1
    FROM kv_list(kv_key(), store => store) ORDER BY key::kvkey
$$;

-- A check of the versionstamp that the entry has now.
CREATE FUNCTION pg_temp.check_now(key text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('check', jsonb_build_object('key', key, 'versionstamp', versionstamp)) FROM kv_entry(key, 'atomic')
$$;

--
-- Each operation, on keys that are absent; one versionstamp for all
--

SELECT pg_temp.atomic('[
    {"set": {"key": "json", "value": {"a": [1, null]}}},
    {"set": {"key": "null", "value": null}},
    {"set": {"key": "bytes", "bytes": "AAH/"}},
    {"set": {"key": "no bytes", "bytes": ""}},
    {"set": {"key": "u64", "u64": "18446744073709551615"}},
    {"set": {"key": "ttl", "value": 1, "ttl_ms": 600000}},
    {"set": {"key": "no ttl", "value": 1, "ttl_ms": null}},
    {"set": {"key": "gone", "value": 1, "ttl_ms": 0}},
    {"set": {"key": ["users", 42, true, {"bytes": "AA=="}, {"bigint": "7"}], "value": "path"}},
    {"delete": {"key": "nothing"}},
    {"sum": {"key": "sum", "value": 1.50}},
    {"min": {"key": "min", "value": -3}},
    {"max": {"key": "max", "value": 3}},
    {"sum": {"key": "sum64", "u64": "5"}},
    {"min": {"key": "min64", "u64": "6"}},
    {"max": {"key": "max64", "u64": "7"}}]');
SELECT * FROM pg_temp.entries();
SELECT kv_exists('gone', 'atomic'), kv_exists('nothing', 'atomic');
-- The number is the one that all have.
SELECT ok, versionstamp = (SELECT versionstamp FROM kv_entry('json', 'atomic')) AS older, failed_checks
FROM kv_atomic('[{"set": {"key": "json", "value": 2}}, {"set": {"key": ["json"], "value": 3}}]', 'atomic');
SELECT * FROM pg_temp.entries() WHERE behind = 0;

-- On keys that are there.
SELECT pg_temp.atomic('[
    {"set": {"key": "ttl", "value": 2}},
    {"set": {"key": "json", "bytes": "/w=="}},
    {"set": {"key": "bytes", "u64": "1"}},
    {"delete": {"key": "null"}},
    {"delete": {"key": ["no bytes"]}},
    {"sum": {"key": "sum", "value": 0.25}},
    {"min": {"key": "min", "value": -2}},
    {"max": {"key": "max", "value": 4}},
    {"sum": {"key": "sum64", "value": 5}},
    {"min": {"key": "min64", "u64": "5"}},
    {"max": {"key": "max64", "value": 6}}]');
SELECT * FROM pg_temp.entries();

-- Nothing to do, or only to look.
SELECT pg_temp.atomic('[]');
SELECT pg_temp.atomic('[{"check": {"key": "nothing", "versionstamp": 0}}]');
SELECT pg_temp.atomic('[{"check": {"key": "nothing", "versionstamp": null}}, {"check": {"key": "nothing", "versionstamp": "0"}}]');
SELECT pg_temp.atomic(jsonb_build_array(pg_temp.check_now('sum'), pg_temp.check_now('nothing')));

--
-- Several operations on one key: in their order, each sees those before it
--

SELECT kv_clear('atomic') > 0 AS cleared;
SELECT kv_set('there', '10', store => 'atomic') > 0 AS set, kv_set('there too', '10', ttl => '10 min', store => 'atomic') > 0 AS set,
    kv_set_bytes('bytes', 'abc', store => 'atomic') > 0 AS set;
SELECT pg_temp.atomic('[
    {"set": {"key": "last wins", "value": 1}}, {"set": {"key": "last wins", "value": 2}},
    {"set": {"key": "gone again", "value": 1}}, {"delete": {"key": "gone again"}},
    {"delete": {"key": "there"}}, {"sum": {"key": "there", "value": 5}},
    {"sum": {"key": "there too", "value": 5}}, {"delete": {"key": "there too"}}, {"set": {"key": "there too", "value": 6}},
    {"sum": {"key": "a", "value": 1}}, {"sum": {"key": "a", "value": 2}}, {"max": {"key": "a", "value": 2}}, {"min": {"key": "a", "value": 100}},
    {"set": {"key": "b", "u64": "3", "ttl_ms": 600000}}, {"sum": {"key": "b", "u64": "4"}},
    {"set": {"key": "bytes", "value": 1}}, {"sum": {"key": "bytes", "value": 1}},
    {"set": {"key": "expires at once", "value": 1, "ttl_ms": 0}}, {"sum": {"key": "expires at once", "value": 5}},
    {"set": {"key": ["a", 1], "value": 1}}, {"sum": {"key": ["a"], "value": 10}},
    {"sum": {"key": "nothing left", "value": 1}}, {"delete": {"key": "nothing left"}}, {"delete": {"key": "nothing left"}}]');
SELECT * FROM pg_temp.entries();
-- A row for each entry that does not expire (the worker removes what has), and none for what came and went.
SELECT count(*) FROM kvstore.s_atomic WHERE expires_at IS NULL;

-- In the order of the operations, whatever the order of the keys.
SELECT pg_temp.atomic('[{"set": {"key": "z", "value": 1}}, {"set": {"key": "y", "value": 1}}, {"sum": {"key": "z", "value": 1}}, {"sum": {"key": "y", "value": 2}}]');
SELECT kv_get('z', 'atomic'), kv_get('y', 'atomic');

--
-- u64: wraps at 2^64, and takes no operand that is not an integer
--

SELECT kv_clear('atomic') > 0 AS cleared;
SELECT pg_temp.atomic('[
    {"set": {"key": "u", "u64": "18446744073709551615"}}, {"sum": {"key": "u", "u64": "1"}},
    {"set": {"key": "v", "u64": "18446744073709551615"}}, {"sum": {"key": "v", "u64": "18446744073709551615"}},
    {"set": {"key": "w", "u64": "5"}}, {"sum": {"key": "w", "value": -7}},
    {"set": {"key": "x", "u64": "5"}}, {"sum": {"key": "x", "value": 36893488147419103233}},
    {"set": {"key": "y", "u64": "5"}}, {"sum": {"key": "y", "value": 1.0}},
    {"set": {"key": "z", "u64": "9223372036854775808"}}, {"min": {"key": "z", "u64": "9223372036854775809"}},
    {"set": {"key": "zz", "u64": "0"}}, {"max": {"key": "zz", "u64": "18446744073709551615"}},
    {"set": {"key": "n", "value": 18446744073709551615}}, {"sum": {"key": "n", "u64": "1"}}]');
SELECT key, value, kind FROM pg_temp.entries();
SELECT pg_temp.atomic(jsonb_build_array(jsonb_build_object(operation, jsonb_build_object('key', 'u', 'value', operand))))
FROM (VALUES ('sum', 0.5), ('min', 0.5), ('max', -1), ('min', 18446744073709551616), ('max', 18446744073709551615), ('min', 18446744073709551614)) t (operation, operand);
SELECT key, value, kind FROM pg_temp.entries() WHERE key = '["u"]';

--
-- Expiry: sum, min and max keep it; set has its own, or the store's
--

SELECT kv_clear('atomic') > 0 AS cleared;
SELECT kv_set('e', '1', ttl => '10 min', store => 'atomic') > 0 AS set, kv_set('f', '1', ttl => '10 min', store => 'atomic') > 0 AS set,
    kv_set('g', '1', ttl => '10 min', store => 'atomic') > 0 AS set, kv_set('h', '1', ttl => '10 min', store => 'atomic') > 0 AS set,
    kv_set('over', '100', expires_at => now() - interval '1 s', store => 'atomic') > 0 AS set,
    kv_set('over too', '100', expires_at => now() - interval '1 s', store => 'atomic') > 0 AS set,
    kv_set_bytes('over three', 'x', expires_at => now() - interval '1 s', store => 'atomic') > 0 AS set;
SELECT pg_temp.atomic('[
    {"sum": {"key": "e", "value": 1}}, {"min": {"key": "f", "value": 0}}, {"max": {"key": "g", "value": 1}}, {"set": {"key": "h", "value": 2}},
    {"check": {"key": "over", "versionstamp": 0}}, {"sum": {"key": "over", "value": 1}}, {"min": {"key": "over too", "value": 200}},
    {"sum": {"key": "over three", "value": 3}}]');
SELECT * FROM pg_temp.entries();

SELECT kv_set('s', '1', expires_at => 'infinity', store => 'atomic_ttl') > 0 AS set;
SELECT pg_temp.atomic('[{"set": {"key": "a", "value": 1}}, {"set": {"key": "b", "value": 1, "ttl_ms": 600000}}, {"set": {"key": "c", "value": 1, "ttl_ms": null}},
    {"sum": {"key": "d", "value": 1}}, {"sum": {"key": "s", "value": 1}},
    {"set": {"key": "x", "value": 1, "ttl_ms": 600000}}, {"sum": {"key": "x", "value": 1}}]', 'atomic_ttl');
SELECT * FROM pg_temp.entries('atomic_ttl');
SELECT pg_temp.atomic('[{"delete": {"key": "s"}}, {"sum": {"key": "s", "value": 1}}]', 'atomic_ttl');
SELECT * FROM pg_temp.entries('atomic_ttl') WHERE key = '["s"]';

--
-- A failed check: which ones, in the order of the operations; nothing is written, and the transaction goes on
--

SELECT kv_clear('atomic') > 0 AS cleared;
SELECT kv_set('k', '1', store => 'atomic') > 0 AS set, kv_set('l', '1', store => 'atomic') > 0 AS set;
BEGIN;
SELECT pg_temp.atomic('[
    {"check": {"key": "z", "versionstamp": 1}},
    {"set": {"key": "b", "value": 1}},
    {"check": {"key": "k", "versionstamp": 0}},
    {"set": {"key": "k", "value": 2}},
    {"check": {"key": "a", "versionstamp": 0}},
    {"set": {"key": "a", "value": 1}},
    {"check": {"key": ["a"], "versionstamp": 9223372036854775807}},
    {"sum": {"key": "c", "value": 1}},
    {"delete": {"key": "l"}},
    {"set": {"key": "zz", "value": 1}},
    {"check": {"key": "k", "versionstamp": "1"}}]');
SELECT * FROM pg_temp.entries();
SELECT kv_set('m', '1', store => 'atomic') > 0 AS transaction_is_usable;
COMMIT;
SELECT * FROM pg_temp.entries();
SELECT count(*) FROM kvstore.s_atomic WHERE expires_at IS NULL;
-- One after the other: what one call wrote, the next one checks.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.atomic(jsonb_build_array(pg_temp.check_now('k'), '{"set": {"key": "k", "value": 5}}'::jsonb));
SELECT pg_temp.atomic(jsonb_build_array(pg_temp.check_now('k'), '{"sum": {"key": "k", "value": 5}}'::jsonb));
SELECT pg_temp.atomic(jsonb_build_array('{"check": {"key": "n", "versionstamp": 0}}'::jsonb, '{"sum": {"key": "n", "value": 5}}'::jsonb));
SELECT pg_temp.atomic(jsonb_build_array(pg_temp.check_now('n'), '{"delete": {"key": "n"}}'::jsonb));
SELECT pg_temp.atomic(jsonb_build_array('{"check": {"key": "n", "versionstamp": 0}}'::jsonb, '{"check": {"key": "k", "versionstamp": 0}}'::jsonb,
    '{"set": {"key": "n", "value": 6}}'::jsonb));
SELECT pg_temp.atomic(jsonb_build_array('{"check": {"key": "n", "versionstamp": 0}}'::jsonb, '{"set": {"key": "n", "value": 6}}'::jsonb));
COMMIT;
SELECT key, value FROM pg_temp.entries();
-- An expired entry is absent, its old versionstamp is no match.
SELECT kv_set('over', '1', ttl => '0', store => 'atomic') AS stamp \gset
SELECT pg_temp.atomic(jsonb_build_array(jsonb_build_object('check', jsonb_build_object('key', 'over', 'versionstamp', :stamp))));
SELECT pg_temp.atomic('[{"check": {"key": "over", "versionstamp": 0}}, {"delete": {"key": "over"}}]');
-- Check and delete, check and set, as one.
SELECT pg_temp.atomic(jsonb_build_array('{"delete": {"key": "m"}}'::jsonb, pg_temp.check_now('m')));
SELECT kv_exists('m', 'atomic');

--
-- An error in the middle leaves nothing
--

SELECT kv_set_bytes('p', 'abc', store => 'atomic') > 0 AS set;
SELECT pg_temp.atomic('[{"set": {"key": "o", "value": 1}}, {"sum": {"key": "n", "value": 1}}, {"delete": {"key": "k"}}, {"sum": {"key": "p", "value": 1}},
    {"set": {"key": "q", "value": 1}}]');
SELECT pg_temp.atomic('[{"set": {"key": "o", "value": 1}}, {"set": {"key": "q", "value": "text"}}, {"max": {"key": "q", "value": 1}}]');
SELECT pg_temp.atomic('[{"set": {"key": "o", "value": 1}}, {"set": {"key": "q", "value": [1]}}]', 'nowhere');
SELECT key, value, bytes FROM pg_temp.entries();
-- A constraint of the owner's.
ALTER TABLE kvstore.s_atomic ADD CONSTRAINT no_seven CHECK (value <> '7');
SELECT left(pg_temp.atomic('[{"set": {"key": "o", "value": 1}}, {"sum": {"key": "n", "value": 1}}, {"delete": {"key": "k"}}, {"set": {"key": "zz", "value": 2}}]'), 5);
SELECT key, value, bytes FROM pg_temp.entries();
ALTER TABLE kvstore.s_atomic DROP CONSTRAINT no_seven;

--
-- Written wrongly
--

SELECT operations, pg_temp.atomic(operations::jsonb) AS outcome FROM unnest(ARRAY[
    -- not operations at all
    'null', '1', '"set"', '{}', '{"set": {"key": "k", "value": 1}}', '[1]', '["set"]', '[null]', '[[]]', '[[{"set": {"key": "k", "value": 1}}]]', '[{}]',
    '[{"set": {"key": "k", "value": 1}, "delete": {"key": "k"}}]',
    -- unknown names
    '[{"put": {"key": "k"}}]', '[{"Set": {"key": "k", "value": 1}}]', '[{"": {"key": "k"}}]', '[{"mutate": {}}]', '[{"se": {"key": "k", "value": 1}}]',
    '[{"delete": {"key": "k"}}, {"set": {"key": "k", "value": 1}}, {"nonsense": null}]',
    -- arguments missing or of the wrong shape
    '[{"set": null}]', '[{"set": []}]', '[{"set": "k"}]', '[{"set": {}}]', '[{"set": {"value": 1}}]', '[{"set": {"key": "k"}}]', '[{"set": {"key": "k", "ttl_ms": 1}}]',
    '[{"set": {"key": "k", "value": 1, "u64": "1"}}]', '[{"set": {"key": "k", "bytes": "", "value": null}}]',
    '[{"delete": {}}]', '[{"delete": "k"}]', '[{"check": {"key": "k"}}]', '[{"check": {"versionstamp": 0}}]', '[{"sum": {"key": "k"}}]', '[{"min": {"value": 1}}]',
    '[{"max": {"key": "k", "value": 1, "u64": "1"}}]',
    -- unknown fields
    '[{"set": {"key": "k", "value": 1, "ttl": 5}}]', '[{"set": {"key": "k", "value": 1, "versionstamp": 0}}]', '[{"delete": {"key": "k", "value": 1}}]',
    '[{"check": {"key": "k", "versionstamp": 0, "value": 1}}]', '[{"sum": {"key": "k", "value": 1, "ttl_ms": 1}}]', '[{"sum": {"key": "k", "bytes": "AA=="}}]',
    '[{"set": {"key": "k", "value": 1, "Key": "k"}}]',
    -- keys
    '[{"set": {"key": 1, "value": 1}}]', '[{"set": {"key": null, "value": 1}}]', '[{"set": {"key": true, "value": 1}}]', '[{"set": {"key": {}, "value": 1}}]',
    '[{"set": {"key": [], "value": 1}}]', '[{"delete": {"key": [[]]}}]', '[{"delete": {"key": [null]}}]', '[{"delete": {"key": ["a", {"b": 1}]}}]',
    '[{"check": {"key": "a", "versionstamp": 0}}, {"check": {"key": [[["a"]]], "versionstamp": 0}}]', '[{"delete": {"key": [{"bigint": 5}]}}]',
    -- versionstamps
    '[{"check": {"key": "k", "versionstamp": -1}}]', '[{"check": {"key": "k", "versionstamp": 1.5}}]', '[{"check": {"key": "k", "versionstamp": "x"}}]',
    '[{"check": {"key": "k", "versionstamp": ""}}]', '[{"check": {"key": "k", "versionstamp": [0]}}]', '[{"check": {"key": "k", "versionstamp": true}}]',
    '[{"check": {"key": "k", "versionstamp": 9223372036854775808}}]', '[{"check": {"key": "k", "versionstamp": "-0"}}]', '[{"check": {"key": "k", "versionstamp": 1e100}}]',
    -- values
    '[{"set": {"key": "k", "bytes": "A"}}]', '[{"set": {"key": "k", "bytes": "AAA"}}]', '[{"set": {"key": "k", "bytes": "A A="}}]', '[{"set": {"key": "k", "bytes": 1}}]',
    '[{"set": {"key": "k", "bytes": null}}]', '[{"set": {"key": "k", "bytes": "AB=="}}, {"set": {"key": "k", "bytes": "===="}}]',
    '[{"set": {"key": "k", "u64": "18446744073709551616"}}]', '[{"set": {"key": "k", "u64": "-1"}}]', '[{"set": {"key": "k", "u64": ""}}]',
    '[{"set": {"key": "k", "u64": 5}}]', '[{"set": {"key": "k", "u64": "1.0"}}]', '[{"set": {"key": "k", "u64": "0x10"}}]', '[{"set": {"key": "k", "u64": " 1"}}]',
    '[{"set": {"key": "k", "u64": "000000000000000000001"}}]', '[{"set": {"key": "k", "u64": null}}]',
    '[{"sum": {"key": "k", "value": "1"}}]', '[{"sum": {"key": "k", "value": null}}]', '[{"min": {"key": "k", "value": [1]}}]', '[{"max": {"key": "k", "value": {}}}]',
    '[{"max": {"key": "k", "u64": "-1"}}]',
    -- ttl
    '[{"set": {"key": "k", "value": 1, "ttl_ms": -1}}]', '[{"set": {"key": "k", "value": 1, "ttl_ms": "5"}}]', '[{"set": {"key": "k", "value": 1, "ttl_ms": 1e30}}]',
    '[{"set": {"key": "k", "value": 1, "ttl_ms": true}}]', '[{"set": {"key": "k", "value": 1, "ttl_ms": -0.0001}}]'
    ]) operations;
SELECT * FROM pg_temp.entries() WHERE key = '["k"]' AND value <> '10';
SELECT pg_temp.atomic(NULL);
SELECT pg_temp.atomic('[]', NULL);
SELECT pg_temp.atomic('[]', 'No Store');
SELECT pg_temp.atomic('[]', 'nowhere');

-- Too large: the key, the value, the value for this store.
SELECT pg_temp.atomic(jsonb_build_array('{"delete": {"key": "k"}}'::jsonb, jsonb_build_object('delete', jsonb_build_object('key', repeat('x', 2047)))));
SELECT pg_temp.atomic(jsonb_build_array(jsonb_build_object('delete', jsonb_build_object('key', repeat('x', 2046)))));
SELECT pg_temp.atomic(jsonb_build_array('{"delete": {"key": "k"}}'::jsonb, jsonb_build_object('check', jsonb_build_object('versionstamp', 0, 'key',
    jsonb_build_array('a', repeat('x', 2045))))));
SELECT pg_temp.atomic(jsonb_build_array('{"delete": {"key": "k"}}'::jsonb, jsonb_build_object('set', jsonb_build_object('key', 'a', 'value', repeat('x', 1000)))), 'atomic_ttl');
SELECT pg_temp.atomic(jsonb_build_array('{"delete": {"key": "k"}}'::jsonb, jsonb_build_object('set', jsonb_build_object('key', 'a', 'value', repeat('x', 900)))), 'atomic_ttl');
-- A long unknown name is cut short, between characters.
SELECT pg_temp.atomic(jsonb_build_array(jsonb_build_object('ä' || repeat('ö', 100), 1)));
-- Deep nonsense is a value like any other, and no operation.
SELECT pg_temp.atomic(('[{"set": {"key": "deep", "value": ' || repeat('[', 500) || repeat(']', 500) || '}}]')::jsonb);
SELECT pg_temp.atomic((repeat('[', 500) || repeat(']', 500))::jsonb);
SELECT length(kv_get('deep', 'atomic')::text), kv_delete('deep', store => 'atomic');

-- 1,000 operations, and one more.
SELECT kv_clear('atomic') > 0 AS cleared;
SELECT pg_temp.atomic((SELECT jsonb_agg(jsonb_build_object('set', jsonb_build_object('key', 'k' || n, 'value', n))) FROM generate_series(1, 1000) n));
SELECT count(*), count(DISTINCT versionstamp), sum(value::int) FROM kv_list('k', store => 'atomic');
SELECT pg_temp.atomic((SELECT jsonb_agg(jsonb_build_object('sum', jsonb_build_object('key', 'k' || n, 'value', 1)) ORDER BY hashint4(n)) FROM generate_series(1, 1000) n));
SELECT count(*), count(DISTINCT versionstamp), sum(value::int) FROM kv_list('k', store => 'atomic');
SELECT pg_temp.atomic((SELECT jsonb_agg(jsonb_build_object('sum', jsonb_build_object('key', 'one', 'value', n))) FROM generate_series(1, 1000) n));
SELECT kv_get('one', 'atomic');
SELECT pg_temp.atomic((SELECT jsonb_agg(jsonb_build_object('check', jsonb_build_object('key', 'k' || n, 'versionstamp', CASE WHEN n % 100 = 0 THEN 0 ELSE versionstamp END)) ORDER BY n)
    FROM generate_series(1, 1000) n, kv_entry('k' || n, 'atomic')));
SELECT pg_temp.atomic((SELECT jsonb_agg(jsonb_build_object('set', jsonb_build_object('key', 'k' || n, 'value', 0))) FROM generate_series(1, 1001) n));
SELECT pg_temp.atomic((SELECT jsonb_agg(jsonb_build_object('set', jsonb_build_object('key', 'k' || n, 'value', 0))) FROM generate_series(1, 10000) n));
SELECT count(*), sum(value::int) FROM kv_list('k', store => 'atomic');

-- For whom: writes need SELECT, INSERT and UPDATE, deletes DELETE.
CREATE ROLE kvs_atomic_reader;
CREATE ROLE kvs_atomic_writer;
GRANT SELECT ON kvstore.s_atomic TO kvs_atomic_reader;
GRANT SELECT, INSERT, UPDATE ON kvstore.s_atomic TO kvs_atomic_writer;
SET ROLE kvs_atomic_reader;
SELECT left(pg_temp.atomic(operations::jsonb), 5) FROM unnest(ARRAY['[{"set": {"key": "k1", "value": 1}}]', '[{"check": {"key": "k1", "versionstamp": 0}}]',
    '[{"sum": {"key": "k1", "value": 1}}]', '[{"delete": {"key": "k1"}}]']) operations;
SET ROLE kvs_atomic_writer;
SELECT left(pg_temp.atomic(operations::jsonb), 5) FROM unnest(ARRAY['[{"set": {"key": "k1", "value": 1}}]', '[{"check": {"key": "k1", "versionstamp": 0}}]',
    '[{"sum": {"key": "k1", "value": 1}}]', '[{"delete": {"key": "k1"}}]']) operations;
RESET ROLE;
BEGIN READ ONLY;
SELECT pg_temp.atomic('[]');
COMMIT;

DROP OWNED BY kvs_atomic_reader, kvs_atomic_writer;
DROP ROLE kvs_atomic_reader, kvs_atomic_writer;
SELECT kv_drop_store('atomic'), kv_drop_store('atomic_ttl');
