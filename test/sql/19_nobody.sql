-- A role without any right calls every function of the extension, with arguments made from the catalogue: what works on a store or a queue refuses, and nothing
-- shows what is stored.  Only what breaks that rule is printed, so a new function is tested here without being named.
\pset format unaligned
\pset fieldsep ' | '

CREATE ROLE regress_kvs_none;
SELECT kv_create_store('nb'), kv_create_snapshot_store('nb');
SELECT kv_set('k', '"hidden"', ttl => '1 day', store => 'nb') > 0, kv_set_bytes('hidden-key', '\x68696464656e', store => 'nb') > 0, kv_set(kv_key('hidden', 1), '"hidden"', store => 'nb') > 0, kv_set('n', '1', store => 'nb') > 0;
SELECT kv_snapshot_append('c', '"hidden"', metadata => '"hidden"', hash => 'h', store => 'nb');
-- Messages can be sent with preload only.
SELECT kv_create_queue('nb');
DO $$ BEGIN
    IF kvstore.shared_since() IS NOT NULL THEN
        PERFORM kv_enqueue('nb', '"hidden"', headers => '"hidden"', dedupe_key => 'hidden'), kv_enqueue('nb', '"hidden"');
    END IF;
END $$;
-- A receipt that is somebody's.
SELECT 'k' AS receipt, kvstore.shared_since() IS NOT NULL AS preloaded \gset
\if :preloaded
SELECT receipt FROM kv_dequeue('nb') \gset
\endif
SET client_min_messages = error;

-- What to give for an argument; the first row that fits by name, type and function counts, NULL fits all.
CREATE TEMP TABLE nb_values (priority int, name text, type regtype, expression text, function text);
INSERT INTO nb_values VALUES (1, '^(store|queue|undelivered_store)', 'text', $$'nb'$$), (1, 'if_not_exists', 'boolean', 'false'), (1, 'operations', NULL, $$'[{"set": {"key": "k", "value": 1}}]'$$),
    (1, 'data', 'jsonb', $$'{"k": {"value": 1}}'$$), (1, '^wait', 'interval', $$'0'$$), (1, '^purpose$', 'text', $$'latest'$$), (1, 'versionstamps', 'bigint[]', 'NULL'), (1, '^(ready_at|expires_at)$', NULL, 'NULL'),
    (1, 'keys_if_undelivered', NULL, 'NULL'), (1, '^lease$', NULL, $$'1 min'$$), (2, NULL, '"char"', $$'j'$$), (1, '^context', 'text', $$'c'$$), (1, '^hash', 'text', $$'h'$$), (1, '^priority$', NULL, '0'),
    (1, '^(start_key|end_key|after)$', 'text', 'NULL'), (1, '^(start_key|end_key|after)$', 'kvkey', 'NULL'), (1, 'new_values', 'jsonb', $$'[1]'$$), (1, '^cron$', 'text', $$'* * * * *'$$), (1, '^parts$', 'jsonb', $$'["a"]'$$),
    (2, NULL, 'text', $$'k'$$), (2, NULL, 'kvkey', $$kv_key('k')$$), (2, NULL, 'text[]', $$ARRAY['k']$$), (2, NULL, 'jsonb', $$'["k"]'$$), (2, NULL, 'jsonb[]', $$ARRAY['1']::jsonb[]$$), (2, NULL, 'bytea', $$'\x00'$$),
    (2, NULL, 'bigint', '1'), (2, NULL, 'integer', '1'), (2, NULL, 'bigint[]', 'ARRAY[1]'), (2, NULL, 'numeric', '1'), (2, NULL, 'double precision', '1'), (2, NULL, 'boolean', 'true'), (2, NULL, 'interval', $$'1 day'$$),
    (2, NULL, 'interval[]', $$'{1 s}'$$), (2, NULL, 'timestamptz', $$'2100-01-01'$$), (2, NULL, 'oid', '1259'), (2, NULL, 'smallint', '1'), (2, NULL, '"any"', '1');
INSERT INTO nb_values VALUES (0, '^after$', 'text', 'kv_feed_position()', 'changes');
INSERT INTO nb_values VALUES (0, '^receipt$', 'text', quote_literal(:'receipt')), (0, '^receipts$', 'text[]', format('ARRAY[%L]', :'receipt'));

CREATE TEMP TABLE nb_calls AS
    SELECT p.oid, p.prokind, p.proretset,
           format('%s(%s)', p.oid::regproc, string_agg(format('%s::%s', CASE WHEN p.proname ~ '^kv_create' THEN replace(v.expression, 'nb', 'nb_new') ELSE v.expression END, CASE WHEN a.type = '"any"'::regtype THEN 'integer' ELSE a.type::regtype::text END), ', ' ORDER BY a.n)) AS call,
           format('%s(%s)', p.oid::regproc, string_agg(format('NULL::%s', CASE WHEN a.type = '"any"'::regtype THEN 'integer' ELSE a.type::regtype::text END), ', ' ORDER BY a.n)) AS null_call,
           count(*) FILTER (WHERE a.n IS NOT NULL AND v.expression IS NULL) AS unknown,
           bool_or(a.name ~ '^(store|queue|receipt)') AS guarded
    FROM pg_proc p
    JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'kvstore'
    LEFT JOIN LATERAL unnest(p.proargtypes::oid[], p.proargnames[1:p.pronargs]) WITH ORDINALITY a(type, name, n) ON true
    LEFT JOIN LATERAL (SELECT expression FROM nb_values v WHERE (v.function IS NULL OR p.proname ~ v.function) AND (v.type IS NULL OR v.type = a.type) AND (v.name IS NULL OR COALESCE(a.name, '') ~ v.name) ORDER BY priority, v.name LIMIT 1) v ON true
    WHERE p.prorettype NOT IN ('trigger'::regtype, 'internal'::regtype, 'cstring'::regtype) AND NOT p.proargtypes::oid[] && ARRAY['internal', 'cstring']::regtype[]::oid[]
    GROUP BY p.oid;
-- A position has to be one.
UPDATE nb_calls SET call = replace(call, 'kv_changes(NULL::text', 'kv_changes(kv_feed_position()') WHERE call ~ 'kv_changes';
SELECT oid::regprocedure AS argument_without_a_value FROM nb_calls WHERE unknown > 0 ORDER BY 1;
SELECT count(*) > 60 AS many_functions, count(*) FILTER (WHERE guarded) > 40 AS many_on_stores FROM nb_calls;
GRANT SELECT ON nb_calls TO PUBLIC;

-- All of its rows as one text.
CREATE FUNCTION nb_outcome(kind "char", call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    state text;
    message text;
BEGIN
    IF kind = 'p' THEN
        EXECUTE 'CALL ' || call;
        RETURN 'called';
    END IF;
    EXECUTE 'SELECT COALESCE(string_agg(r::text, '' ''), '''') FROM ' || call || ' r' INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
    RETURN 'ERROR ' || state || ' ' || message;
END $$;

SET ROLE regress_kvs_none;
CREATE TEMP TABLE nb_outcomes AS SELECT oid, prokind, guarded, call, nb_outcome(prokind, call) AS outcome, nb_outcome(prokind, null_call) AS null_outcome FROM nb_calls ORDER BY call;
RESET ROLE;
-- Without shared memory some functions cannot even begin (55000); a procedure that commits must not be
-- called in a function (25001, 2D000); the name of a table is no secret.
SELECT call, outcome AS not_refused FROM nb_outcomes WHERE guarded AND outcome !~ '^ERROR 42501'
    AND NOT (outcome ~ '^ERROR 55000' AND kvstore.shared_since() IS NULL) AND call !~ '^kvstore.snapshot_table'
    AND NOT (outcome ~ '^ERROR (25001|2D000)' AND prokind = 'p') ORDER BY call COLLATE "C";
SELECT call, outcome AS unexpected_error FROM nb_outcomes WHERE NOT guarded AND outcome ~ '^ERROR' AND outcome !~ '^ERROR (42501|55000|22023|KV|42P01|22P02|22P03|XX000: .*)' ORDER BY call COLLATE "C";
SELECT call, outcome, null_outcome FROM nb_outcomes WHERE outcome ~* 'hidden|68696464656e' OR null_outcome ~* 'hidden|68696464656e' ORDER BY call COLLATE "C";
SELECT count(*) FILTER (WHERE guarded AND outcome ~ '^ERROR 42501') > 40 AS many_refused FROM nb_outcomes;

-- The same of each relation: those of the extension show nothing, those of users refuse.
SET ROLE regress_kvs_none;
CREATE TEMP TABLE nb_relations AS
    SELECT c.oid::regclass::text AS name, nb_outcome('f', CASE WHEN c.relkind = 'S' THEN format('(SELECT last_value FROM %s)', c.oid::regclass) ELSE c.oid::regclass::text END) AS outcome, EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') AS member
    FROM pg_class c WHERE c.relkind IN ('r', 'v', 'S', 'm') AND (c.relnamespace = 'kvstore'::regnamespace OR EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'kvstore'
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'));
RESET ROLE;
SELECT name, outcome AS shown FROM nb_relations WHERE outcome ~* 'hidden|68696464656e' OR (NOT member AND outcome !~ '^ERROR 42501') OR (member AND outcome ~ '^ERROR' AND outcome !~ '^ERROR (42501|55000)') ORDER BY name COLLATE "C";
SELECT count(*) FILTER (WHERE member) >= 8 AS members, count(*) FILTER (WHERE NOT member) >= 3 AS tables_of_users FROM nb_relations;

-- And nothing was changed.
SELECT key, value, bytes FROM kv_list(kv_key(), store => 'nb');
SELECT hash, state FROM kv_snapshot_load('c', store => 'nb');
SELECT count(*) = CASE WHEN kvstore.shared_since() IS NULL THEN 0 ELSE 2 END AS messages_are_there FROM kvstore.q_nb;

DROP FUNCTION nb_outcome("char", text);
SELECT kv_drop_store('nb'), kv_drop_snapshot_store('nb'), kv_drop_queue('nb');
RESET client_min_messages;
DROP OWNED BY regress_kvs_none;
DROP ROLE regress_kvs_none;
