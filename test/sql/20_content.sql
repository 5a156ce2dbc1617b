-- What is in a row is trusted as little as the shape of its table.  An owner who leaves the guard out, or makes the table, can write anything: every
-- function gives an answer or an error, and none crashes.
\pset format unaligned
\pset fieldsep ' | '

-- A call, or several divided by THEN, and all undone: what the last one gives, or its error.
CREATE FUNCTION pg_temp.tried(calls text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    call text;
    said text;
BEGIN
    FOREACH call IN ARRAY string_to_array(calls, ' THEN ') LOOP
        said := coalesce(outcome(call), 'NULL');
    END LOOP;
    RAISE EXCEPTION '%', said USING ERRCODE = 'ZZ000';
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    RETURN SQLERRM;
END $$;

CREATE TABLE kvstore.s_content (key kvkey NOT NULL UNIQUE, value jsonb, bytes bytea, kind "char" NOT NULL, versionstamp bigint NOT NULL, expires_at timestamptz);
INSERT INTO kvstore.s_content SELECT kv_key(k), value, bytes, kind, 7 FROM (VALUES
    ('j null', NULL::jsonb, NULL::bytea, 'j'::"char"), ('u null', NULL, NULL, 'u'), ('b null', NULL, NULL, 'b'), ('z null', NULL, NULL, 'z'),
    ('j bytes', NULL, '\x01', 'j'), ('u bytes', NULL, '\x01', 'u'), ('b value', '1', NULL, 'b'), ('j both', '1', '\x01', 'j'), ('u both', '1', '\x01', 'u'),
    ('b both', '1', '\x01', 'b'), ('z value', '1', NULL, 'z'), ('z bytes', NULL, '\x01', 'z'), ('no kind', '1', NULL, ''),
    ('u text', '"x"', NULL, 'u'), ('u object', '{"a": 1}', NULL, 'u'), ('u 1.5', '1.5', NULL, 'u'), ('u -1', '-1', NULL, 'u'),
    ('u 2^64', '18446744073709551616', NULL, 'u'), ('u 1e400', '1e400', NULL, 'u'),
    ('good j', '1', NULL, 'j'), ('good b', NULL, '\x01', 'b'), ('good u', '18446744073709551615', NULL, 'u')) v(k, value, bytes, kind);
INSERT INTO kvstore.s_content VALUES ('[]', '1', NULL, 'j', 7);

-- The error, once in full.
SELECT outcome($$kv_get('j null', 'content')$$);
SELECT outcome($$(SELECT value FROM kv_list(kv_key('z bytes'), store => 'content'))$$);

-- Functions that give what an entry holds, and functions that count on it.
SELECT name, kind_of, count(*) AS entries, string_agg(key, ', ' ORDER BY key) AS entries_of_this
    FROM (SELECT name, key, split_part(pg_temp.tried(replace(call, 'K', quote_literal(key))), ' | ', 1) AS kind_of
        FROM (SELECT kv_key_to_json(s.key) ->> 0 AS key FROM kvstore.s_content s WHERE s.key <> '[]') k,
            (VALUES ('get', $$kv_get(K, 'content') IS NOT NULL$$), ('get_bytes', $$kv_get_bytes(K, 'content') IS NOT NULL$$),
                ('entry', $$(SELECT num_nonnulls(value, bytes) FROM kv_entry(K, 'content'))$$),
                ('get_many', $$(SELECT num_nonnulls(value, bytes) FROM kv_get_many(ARRAY[K], 'content'))$$),
                ('list', $$(SELECT num_nonnulls(value, bytes) FROM kv_list(K, store => 'content'))$$),
                ('list by call', $$(SELECT num_nonnulls(value, bytes) FROM kv_list(K, store => 'content') WITH ORDINALITY)$$),
                ('export', $$kv_export(K, 'content') IS NOT NULL$$), ('export paths', $$kv_export(kv_key(K), 'content') IS NOT NULL$$),
                ('take', $$kv_take(K, 'content') IS NOT NULL$$), ('incr', $$kv_incr(K, store => 'content') IS NOT NULL$$),
                ('sum', $$(SELECT ok FROM kv_atomic(('[{"sum": {"key": "' || K || '", "value": 1}}]')::jsonb, 'content'))$$),
                ('min u64', $$(SELECT ok FROM kv_atomic(('[{"min": {"key": "' || K || '", "u64": "1"}}]')::jsonb, 'content'))$$),
                ('add', $$(SELECT kvstore.add(value, bytes, kind, 1) IS NOT NULL FROM kvstore.s_content WHERE key = kv_key(K))$$)) f(name, call)) x
    GROUP BY name, kind_of ORDER BY name, kind_of;

-- Functions that do not look at it: the same for all entries.
SELECT name, array_agg(DISTINCT pg_temp.tried(replace(call, 'K', quote_literal(key))))
    FROM (SELECT kv_key_to_json(s.key) ->> 0 AS key FROM kvstore.s_content s WHERE s.key <> '[]') k,
        (VALUES ('exists', $$kv_exists(K, 'content')$$), ('count', $$kv_count(K, 'content')$$),
            ('keys_only', $$(SELECT num_nonnulls(value, bytes) FROM kv_list(K, keys_only => true, store => 'content'))$$),
            ('check', $$kv_check(K, 7, 'content')$$), ('atomic check', $$(SELECT ok FROM kv_atomic(('[{"check": {"key": "' || K || '", "versionstamp": 7}}]')::jsonb, 'content'))$$),
            ('expire', $$kv_expire(K, '1 day', if_version => 7, store => 'content')$$), ('delete', $$kv_delete(K, if_version => 7, store => 'content')$$),
            ('atomic delete', $$(SELECT ok FROM kv_atomic(('[{"delete": {"key": "' || K || '"}}]')::jsonb, 'content'))$$),
            ('delete_many', $$kv_delete_many(ARRAY[K], 'content')$$), ('delete_prefix', $$kv_delete_prefix(K, 'content')$$),
            ('set', $$kv_set(K, '2', if_version => 7, store => 'content') IS NOT NULL THEN kv_get(K, 'content')$$), ('set_bytes', $$kv_set_bytes(K, '\x02', keep_ttl => true, store => 'content') IS NOT NULL THEN kv_get_bytes(K, 'content')$$),
            ('set_many', $$kv_set_many(ARRAY[K], ARRAY['2'::jsonb], store => 'content') IS NOT NULL THEN kv_get(K, 'content')$$),
            ('import', $$kv_import(jsonb_build_object(K, '{"value": 2}'::jsonb), 'content') THEN kv_get(K, 'content')$$),
            ('atomic set', $$(SELECT ok FROM kv_atomic(('[{"check": {"key": "' || K || '", "versionstamp": 7}}, {"set": {"key": "' || K || '", "value": 2}}]')::jsonb, 'content')) THEN kv_get(K, 'content')$$)) f(name, call)
    GROUP BY name ORDER BY name;
SELECT key, kind FROM kv_list(kv_key(), keys_only => true, store => 'content') WHERE kind IS NULL OR key = '[]';
-- All of them at once, also where the executor reads and writes: a policy, a trigger, an index of the owner's.
SELECT outcome($$(SELECT count(value) FROM kv_list(kv_key(), store => 'content'))$$), outcome($$kv_count(kv_key(), 'content')$$), outcome($$kv_export(kv_key(), 'content')$$);
CREATE ROLE regress_kvs_content;
GRANT ALL ON kvstore.s_content TO regress_kvs_content;
ALTER TABLE kvstore.s_content ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON kvstore.s_content USING (true);
SET ROLE regress_kvs_content;
SELECT call, count(*), outcomes FROM (SELECT call, array_agg(split_part(pg_temp.tried(replace(call, 'K', quote_literal(key))), ' | ', 1) ORDER BY key)::text AS outcomes
    FROM unnest(ARRAY['j null', 'u null', 'z value', 'u text']) key, unnest(ARRAY[$$kv_get(K, 'content')$$, $$kv_exists(K, 'content')$$, $$kv_take(K, 'content')$$,
        $$kv_incr(K, store => 'content')$$, $$(SELECT ok FROM kv_atomic(('[{"delete": {"key": "' || K || '"}}]')::jsonb, 'content'))$$, $$kv_set(K, '2', store => 'content') IS NOT NULL$$, $$kv_delete(K, if_version => 7, store => 'content')$$]) call
    GROUP BY call) x GROUP BY call, outcomes ORDER BY call;
RESET ROLE;
ALTER TABLE kvstore.s_content DISABLE ROW LEVEL SECURITY;
DROP OWNED BY regress_kvs_content;
DROP ROLE regress_kvs_content;

-- Numbers and times at the ends of their types.
TRUNCATE kvstore.s_content;
INSERT INTO kvstore.s_content SELECT kv_key(k), '1', NULL, 'j', versionstamp, expires_at::timestamptz FROM (VALUES
    ('negative', -7, NULL), ('zero', 0, NULL), ('lowest', -9223372036854775808, NULL), ('gone', 5, '-infinity'), ('for ever', 5, 'infinity'), ('long ago', 5, '4713-01-01 BC'), ('late', 5, '294276-12-31')) v(k, versionstamp, expires_at);
SELECT key, versionstamp, expires_at IS NOT NULL AS expires FROM kv_list('', store => 'content');
SELECT key, pg_temp.tried(replace($$kv_set(K, '2', store => 'content') IS NOT NULL$$, 'K', quote_literal(key))) AS set, pg_temp.tried(replace($$kv_set(K, '2', if_version => 0, store => 'content') IS NOT NULL$$, 'K', quote_literal(key))) AS if_absent,
    split_part(pg_temp.tried(replace($$kv_check(K, 0, 'content')$$, 'K', quote_literal(key))), ' | ', 1) AS check_absent,
    pg_temp.tried(replace($$(SELECT ok FROM kv_atomic(('[{"check": {"key": "' || K || '", "versionstamp": 0}}, {"set": {"key": "' || K || '", "value": 1}}]')::jsonb, 'content'))$$, 'K', quote_literal(key))) AS atomic,
    pg_temp.tried(replace($$kv_incr(K, store => 'content')$$, 'K', quote_literal(key))) AS incr, pg_temp.tried(replace($$kv_delete(K, store => 'content')$$, 'K', quote_literal(key))) AS delete
    FROM unnest(ARRAY['negative', 'zero', 'lowest', 'gone', 'for ever', 'long ago', 'late']) key;
SELECT kv_export('for', 'content'), kv_export('late', 'content') -> 'late' -> 'expiresAt' > '0' AS late;

-- The sweep, too, and ranges that are read from the table instead of the index.
INSERT INTO kvstore.s_content SELECT kv_key('many', i), CASE WHEN i % 3 = 0 THEN '1'::jsonb END, NULL, CASE WHEN i % 2 = 0 THEN 'j'::"char" ELSE 'q' END, i, CASE WHEN i % 5 = 0 THEN '-infinity'::timestamptz END FROM generate_series(1, 30000) i;
SELECT kv_count(kv_key('many'), 'content'), kv_delete_prefix(kv_key('many'), 'content');
SELECT kv_count(kv_key('many'), 'content');
SELECT kv_sweep(100000) >= 6002 AS swept;
SELECT count(*) FROM kvstore.s_content;
SELECT key FROM kv_list(kv_key(), store => 'content');

-- A key that lies out of line, a value that is compressed and one that is both.
TRUNCATE kvstore.s_content;
ALTER TABLE kvstore.s_content ALTER key SET STORAGE external;
INSERT INTO kvstore.s_content SELECT kv_key(repeat('k', 1990) || i), to_jsonb(repeat('x', 100 * i) || (SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 10 * i) n)), NULL, 'j', i FROM generate_series(1, 40) i;
SELECT count(kv_get(key, 'content')), count(DISTINCT kv_get(key, 'content')), (SELECT count(value) FROM kv_list('kkk', store => 'content')), kv_count('kkk', 'content') FROM kv_list('', store => 'content');
SELECT count(kv_take(key, 'content')) FROM kv_list('', page_size => 10, store => 'content');
SELECT count(*) FROM kvstore.s_content;

-- Types and columns that the executor would see to: a time without fractions, a number that is always the table's own.
ALTER TABLE kvstore.s_content ALTER expires_at TYPE timestamptz(0);
SELECT kv_set('t', '1', expires_at => '2100-01-01 00:00:00.7', store => 'content') > 0, kv_set('t', '1', expires_at => '2100-01-01 00:00:00.7', store => 'content') > 0;
SELECT extract(microsecond FROM expires_at) AS rounded FROM kv_entry('t', 'content');
ALTER TABLE kvstore.s_content ALTER versionstamp ADD GENERATED ALWAYS AS IDENTITY;
SELECT outcome($$kv_set('t', '1', store => 'content')$$), outcome($$kv_incr('t', store => 'content')$$);

-- Domains are other types; NULL in a column that does not allow it, which 18 can have, is another shape.
SELECT regexp_replace(made, '.*s_content |, ADD CONSTRAINT .*', '', 'g'), split_part(pg_temp.tried(format('outcome_of(%L) THEN kv_get(''k'', ''content'')', made)), ' | ', 3)
    FROM unnest(ARRAY['ALTER TABLE kvstore.s_content ALTER key DROP NOT NULL', 'ALTER TABLE kvstore.s_content ALTER versionstamp DROP IDENTITY, ALTER versionstamp DROP NOT NULL', 'ALTER TABLE kvstore.s_content ALTER kind DROP NOT NULL',
        'DO $x$BEGIN CREATE DOMAIN content_key AS kvkey; ALTER TABLE kvstore.s_content ALTER key TYPE content_key; END$x$', 'DO $x$BEGIN CREATE DOMAIN content_value AS jsonb; ALTER TABLE kvstore.s_content ALTER value TYPE content_value; END$x$',
        CASE WHEN current_setting('server_version_num')::int >= 180000 THEN 'ALTER TABLE kvstore.s_content ALTER key DROP NOT NULL, ADD CONSTRAINT later NOT NULL key NOT VALID' ELSE 'ALTER TABLE kvstore.s_content ALTER key DROP NOT NULL' END]) WITH ORDINALITY v(made, i)
    ORDER BY i;
DROP TABLE kvstore.s_content;

-- The guard lets nothing of this in, where it is left on; the bytes of a key are checked wherever they come from.
SELECT kv_create_store('content');
SELECT kv_set('a', '1', store => 'content') > 0;
SELECT outcome_of($$UPDATE kvstore.s_content SET value = NULL$$), outcome_of($$UPDATE kvstore.s_content SET kind = 'z'$$);
SELECT outcome_of($$INSERT INTO kvstore.s_content (key, value) VALUES ('\x02ff00'::bytea::kvkey, '1')$$), outcome_of($$INSERT INTO kvstore.s_content (key, value) VALUES (repeat('x', 3000)::bytea::kvkey, '1')$$);
ALTER TABLE kvstore.s_content DISABLE TRIGGER kvstore_guard;
UPDATE kvstore.s_content SET value = NULL;
SELECT outcome($$(SELECT ok FROM kv_atomic('[{"sum": {"key": "a", "value": 1}}]', 'content'))$$);
SELECT kv_set('a', '1', store => 'content') > 0, kv_incr('a', store => 'content');
SELECT kv_drop_store('content');
