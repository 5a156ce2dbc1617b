-- kv_import() and kv_export(): both forms of document, round trips, errors that name the entry.
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_store('tr');
SELECT kv_create_store('tr2', default_ttl => '1 hour');

--
-- The file of system 1: an object of keys, with "expiresAt" in epoch milliseconds where an entry expires
--

SELECT kv_import('{"slack:connection:conn_1": {"value": {"connectionId": "conn_1", "meshUrl": "https://m.example", "nested": {"list": [1, 2.50, null, true]}}, "expiresAt": 4102444800000},
                   "slack:connection:conn_2": {"value": {"connectionId": "conn_2"}},
                   "gone": {"value": 1, "expiresAt": 1000}, "going": {"value": 1, "expiresAt": -5},
                   "never": {"value": "x", "expiresAt": null}, "far": {"value": "x", "expiresAt": 1e300}, "zero": {"value": 0, "expiresAt": 0}}', 'tr');
SELECT key, value, kind, versionstamp > 0 AS stamped, expires_at AT TIME ZONE 'UTC' AS expires FROM kv_list('', store => 'tr');
SELECT jsonb_pretty(kv_export('', 'tr'));
SELECT kv_export('slack:connection:conn_1', 'tr');
SELECT kv_export('none', 'tr') AS none, kv_export(kv_key('none'), 'tr') AS none_of_paths;
-- One number for all of an import.
SELECT count(DISTINCT versionstamp) FROM kv_list('', store => 'tr');

--
-- Bytes and u64, and paths
--

SELECT kv_set_bytes('bytes', '\x00ff61', store => 'tr') > 0, kv_set_bytes('bytes:none', '', store => 'tr') > 0;
SELECT kv_import('{"u64": {"u64": "18446744073709551615", "expiresAt": 4102444800001}, "bytes:in": {"bytes": "AP9h"}}', 'tr');
SELECT kv_export('bytes', 'tr'), kv_export('u64', 'tr'), kv_get_bytes('bytes:in', 'tr');
SELECT kv_import('[{"key": ["users", 42], "value": {"name": "x"}}, {"key": ["users", {"bigint": "42"}, {"bytes": "AA=="}, true], "bytes": "/w==", "expiresAt": 4102444800000},
                   {"key": "plain", "u64": "5"}, {"key": ["users", "gone"], "value": 1, "expiresAt": 1000}, {"key": ["users", 43], "value": null}]', 'tr');
SELECT jsonb_pretty(kv_export(kv_key('users'), 'tr'));
SELECT kv_export('plain', 'tr');
-- A text prefix exports plain strings only, a path prefix what lies under it.
SELECT (SELECT count(*) FROM jsonb_object_keys(kv_export('', 'tr'))) AS text, jsonb_array_length(kv_export(kv_key(), 'tr')) AS paths, kv_count('', 'tr') AS plain_strings, kv_count(kv_key(), 'tr') AS entries;

-- What was exported comes back the same, into a store whose default TTL it does not get: keys, values, kinds, expiries to the millisecond.
SELECT kv_set('fraction', '1', expires_at => '2100-01-01 00:00:00.000001Z', store => 'tr') > 0;
SELECT kv_import(kv_export(kv_key(), 'tr'), 'tr2') = kv_count(kv_key(), 'tr') AS all_of_them;
SELECT count(*) AS different FROM kv_list(kv_key(), store => 'tr') a FULL JOIN kv_list(kv_key(), store => 'tr2') b USING (key)
    WHERE (a.value, a.bytes, a.kind, a.expires_at) IS DISTINCT FROM (b.value, b.bytes, b.kind, b.expires_at) AND key <> '["fraction"]';
SELECT expires_at AT TIME ZONE 'UTC' AS not_earlier FROM kv_entry('fraction', 'tr2');
SELECT kv_export(kv_key(), 'tr2') = kv_export(kv_key(), 'tr') AS same_paths, kv_export('', 'tr2') = kv_export('', 'tr') AS same_text;
SELECT kv_drop_store('tr2'), kv_create_store('tr2');
SELECT kv_import(kv_export('', 'tr'), 'tr2') = kv_count('', 'tr') AS all_of_them;
SELECT kv_export('', 'tr2') = kv_export('', 'tr') AS same_text;

-- Random entries of every kind.
SELECT kv_drop_store('tr2'), kv_create_store('tr2');
SELECT count(CASE i % 3 WHEN 0 THEN kv_set(kv_key(md5(i::text), i), jsonb_build_object('i', i, 'text', repeat(md5(i::text), i % 100)), store => 'tr2')
                        WHEN 1 THEN kv_set_bytes(kv_key(i / 4.0, decode(md5(i::text), 'hex')), decode(repeat(md5(i::text), i % 100), 'hex'), ttl => i * interval '1 day', store => 'tr2')
                        ELSE kv_set(md5(i::text), to_jsonb(i::text), expires_at => '2100-01-01', store => 'tr2') END) FROM generate_series(1, 2000) i;
SELECT kv_export(kv_key(), 'tr2') AS document \gset
SELECT kv_drop_store('tr2'), kv_create_store('tr2');
SELECT kv_import(:'document', 'tr2');
SELECT kv_export(kv_key(), 'tr2') = :'document' AS same;

--
-- Overwriting, and one key twice
--

SELECT kv_set('over', '"old"', ttl => '1 hour', store => 'tr') AS stamp \gset
SELECT kv_import('{"over": {"value": "new"}, "also": {"value": 1}}', 'tr');
SELECT value, versionstamp > :stamp AS higher, expires_at FROM kv_entry('over', 'tr');
SELECT kv_import('[{"key": "twice", "value": 1}, {"key": ["other"], "value": 0}, {"key": ["twice"], "value": 2}, {"key": "twice", "bytes": "AA=="}]', 'tr');
SELECT kv_get_bytes('twice', 'tr');
-- An entry that has expired is skipped: it deletes nothing, and does not hide an earlier one.
SELECT kv_import('[{"key": "over", "value": "expired", "expiresAt": 1000}, {"key": "twice", "value": 3}, {"key": "twice", "value": 4, "expiresAt": 1000}]', 'tr');
SELECT kv_get('over', 'tr'), kv_get('twice', 'tr');
SELECT kv_import('{}', 'tr'), kv_import('[]', 'tr'), kv_import('{"a": {"value": 1, "expiresAt": 1}}', 'tr');

--
-- Errors: 22023 with the first bad entry; all or nothing
--

SELECT kv_count(kv_key(), 'tr') AS entries \gset
SELECT data, outcome(format('kv_import(%L, ''tr'')', data)) FROM unnest(ARRAY['1', '"a"', 'null', 'true',
    '{"ok": {"value": 1}, "zz bad": 5}', '{"ok": {"value": 1}, "zz bad": [1]}', '{"a": null}', '{"a": {}}', '{"a": {"expiresAt": 5}}', '{"a": {"value": 1, "bytes": ""}}', '{"a": {"u64": "1", "bytes": ""}}',
    '{"a": {"value": 1, "ttl": 5}}', '{"a": {"Value": 1}}', '{"a": {"value": 1, "key": "b"}}', '{"a": {"value": 1, "expiresAt": "soon"}}', '{"a": {"value": 1, "expiresAt": true}}', '{"a": {"value": 1, "expiresAt": {}}}',
    '{"a": {"bytes": 5}}', '{"a": {"bytes": "!"}}', '{"a": {"bytes": "QQ"}}', '{"a": {"bytes": null}}', '{"a": {"u64": 5}}', '{"a": {"u64": "-1"}}', '{"a": {"u64": ""}}', '{"a": {"u64": "18446744073709551616"}}',
    '{"a": {"u64": "99999999999999999999"}}', '{"a": {"u64": "1.5"}}', '{"a": {"u64": "184467440737095516150"}}',
    '[{"key": "ok", "value": 1}, {"key": ["x"]}]', '[{"key": "ok", "value": 1}, {"value": 1}]', '[{"key": "ok", "value": 1}, 5]', '[[]]', '[null]', '["a"]', '[{"key": [], "value": 1}]', '[{"key": 5, "value": 1}]', '[{"key": null, "value": 1}]',
    '[{"key": {"bytes": ""}, "value": 1}]', '[{"key": ["a", null], "value": 1}]', '[{"key": ["a", 9007199254740993], "value": 1}]', '[{"key": ["a"], "value": 1, "other": 2}]', '[{"key": ["a"], "value": 1, "u64": "5"}]',
    '[{"key": ["a", {"bytes": "?"}], "value": 1}]']) data;
-- A bad entry that has expired is bad all the same.
SELECT outcome($$kv_import('{"a": {"value": 1, "expiresAt": 5, "x": 1}}', 'tr')$$);
SELECT kv_count(kv_key(), 'tr') = :entries AS nothing_written;
SELECT outcome($$kv_import(NULL, 'tr')$$), outcome($$kv_import('{}', NULL)$$), outcome($$kv_import('{}', 'tr_none')$$), outcome($$kv_export(NULL::text, 'tr')$$), outcome($$kv_export(NULL::kvkey, 'tr')$$), outcome($$kv_export('', 'tr_none')$$);

-- Key or value too large: KV002, and the context tells which.
SELECT kv_alter_store('tr', max_value_size => 40);
\set VERBOSITY default
\set SHOW_CONTEXT errors
SELECT kv_import(jsonb_build_object('small', '{"value": 1}'::jsonb, 'the large one', jsonb_build_object('value', repeat('x', 50))), 'tr');
SELECT kv_import(jsonb_build_array('{"key": "small", "value": 1}'::jsonb, jsonb_build_object('key', jsonb_build_array(repeat('x', 2047)), 'value', 1)), 'tr');
SELECT kv_import(jsonb_build_object('bytes', jsonb_build_object('bytes', encode(decode(repeat('00', 41), 'hex'), 'base64'))), 'tr');
SELECT kv_import('[{"key": "a", "value": 1}, {"key": [], "value": 1}]', 'tr');
SELECT kv_import('[{"key": "a", "value": 1}, {"key": ["a", {"bytes": "?"}], "value": 1}]', 'tr');
-- A long name is shortened in messages, by whole characters.
SELECT kv_import(jsonb_build_object(repeat('€', 1000), 5), 'tr');
SELECT kv_import(jsonb_build_object('a', jsonb_build_object(repeat('€', 1000), 5)), 'tr');
\set SHOW_CONTEXT never
SELECT kv_import(jsonb_build_object('bytes', jsonb_build_object('bytes', encode(decode(repeat('00', 40), 'hex'), 'base64'))), 'tr');
SELECT kv_count(kv_key(), 'tr') - :entries AS written;

-- More than jsonb holds: 54000, hint pg_dump.
SELECT kv_drop_store('tr2'), kv_create_store('tr2');
SELECT count(kv_set_bytes('large' || i, decode(repeat('00', 15000000), 'hex'), store => 'tr2')) FROM generate_series(1, 14) i;
SELECT outcome($$length(kv_export('large', 'tr2')::text)$$);

SELECT kv_drop_store('tr'), kv_drop_store('tr2');
