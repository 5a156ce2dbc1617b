-- The contract as drivers see it: names, arguments, defaults, results, volatility, rights, comments.  A function that is not listed here is an error,
-- so that a new one is looked at.
BEGIN;
SELECT no_plan();

CREATE VIEW pg_temp.member_function AS
    SELECT p.oid, p.proname::text AS name, n.nspname::text AS schema, p.provolatile, p.proparallel, p.proisstrict, p.prosecdef, p.proconfig, p.prolang, p.prorettype, p.proretset,
           p.proargnames, p.proargmodes, p.proallargtypes, p.proargtypes::oid[] AS proargtypes,
           replace(replace(regexp_replace(pg_get_function_arguments(p.oid), '::(text|interval|boolean|bigint|jsonb|timestamp with time zone|kvkey)(\[\])?|\mIN ', '', 'g'), 'timestamp with time zone', 'timestamptz'), 'DEFAULT ', '= ') AS arguments,
           replace(pg_get_function_result(p.oid), 'timestamp with time zone', 'timestamptz') AS result
    FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'kvstore';

-- KEY is text and kvkey; OUT is what shows it, text and jsonb; ROW the columns of an entry, SNAPSHOT those of a snapshot.
CREATE TEMP TABLE promised (name text, arguments text, result text, kind text);
INSERT INTO promised VALUES
    ('kv_create_store', $$store text = 'default', unlogged boolean = false, default_ttl interval = NULL, max_value_size bigint = NULL, if_not_exists boolean = false$$, 'text', 'write'),
    ('kv_alter_store', $$store text = 'default', default_ttl interval = NULL, max_value_size bigint = NULL$$, 'boolean', 'write'),
    ('kv_drop_store', $$store text = 'default'$$, 'boolean', 'write'),
    ('kv_get', $$key KEY, store text = 'default'$$, 'jsonb', 'read'),
    ('kv_get_bytes', $$key KEY, store text = 'default'$$, 'bytea', 'read'),
    ('kv_exists', $$key KEY, store text = 'default'$$, 'boolean', 'read'),
    ('kv_entry', $$key KEY, store text = 'default'$$, 'ROW', 'read'),
    ('kv_get_many', $$keys text[], store text = 'default'$$, 'TABLE(key text, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)', 'read'),
    ('kv_get_many_paths', $$keys jsonb, store text = 'default'$$, 'TABLE(key jsonb, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)', 'read'),
    ('kv_set', $$key KEY, value jsonb, ttl interval = NULL, expires_at timestamptz = NULL, if_version bigint = NULL, keep_ttl boolean = false, store text = 'default'$$, 'bigint', 'write'),
    ('kv_set_bytes', $$key KEY, bytes bytea, ttl interval = NULL, expires_at timestamptz = NULL, if_version bigint = NULL, keep_ttl boolean = false, store text = 'default'$$, 'bigint', 'write'),
    ('kv_set_many', $$keys text[], new_values jsonb[], ttl interval = NULL, expires_at timestamptz = NULL, store text = 'default'$$, 'bigint', 'write'),
    ('kv_set_many_paths', $$keys jsonb, new_values jsonb, ttl interval = NULL, expires_at timestamptz = NULL, store text = 'default'$$, 'bigint', 'write'),
    ('kv_delete', $$key KEY, if_version bigint = NULL, store text = 'default'$$, 'boolean', 'write'),
    ('kv_take', $$key KEY, store text = 'default'$$, 'jsonb', 'write'),
    ('kv_delete_many', $$keys text[], store text = 'default'$$, 'bigint', 'write'),
    ('kv_delete_many_paths', $$keys jsonb, store text = 'default'$$, 'bigint', 'write'),
    ('kv_delete_prefix', $$prefix KEY, store text = 'default'$$, 'bigint', 'write'),
    ('kv_clear', $$store text = 'default'$$, 'bigint', 'write'),
    ('kv_expire', $$key KEY, ttl interval = NULL, expires_at timestamptz = NULL, if_version bigint = NULL, store text = 'default'$$, 'boolean', 'write'),
    ('kv_incr', $$key KEY, by numeric = 1, ttl interval = NULL, store text = 'default'$$, 'numeric', 'write'),
    ('kv_list', $$prefix KEY, start_key KEY = NULL, end_key KEY = NULL, after KEY = NULL, page_size bigint = NULL, reverse boolean = false, keys_only boolean = false, store text = 'default'$$, 'ROW', 'read'),
    ('kv_count', $$prefix KEY, store text = 'default'$$, 'bigint', 'read'),
    ('kv_check', $$key KEY, versionstamp bigint, store text = 'default'$$, 'boolean', 'write'),
    ('kv_atomic', $$operations jsonb, store text = 'default'$$, 'TABLE(ok boolean, versionstamp bigint, failed_checks bigint[])', 'write'),
    ('kv_import', $$data jsonb, store text = 'default'$$, 'bigint', 'write'),
    ('kv_export', $$prefix KEY, store text = 'default'$$, 'jsonb', 'read'),
    ('kv_create_snapshot_store', $$store text = 'default', default_ttl interval = '1 day', if_not_exists boolean = false$$, 'text', 'write'),
    ('kv_alter_snapshot_store', $$store text = 'default', default_ttl interval = NULL$$, 'boolean', 'write'),
    ('kv_drop_snapshot_store', $$store text = 'default'$$, 'boolean', 'write'),
    ('kv_snapshot_append', $$context text, state jsonb, ttl interval = NULL, metadata jsonb = NULL, hash text = NULL, keep bigint = NULL, store text = 'default', if_latest text = NULL$$, 'text', 'write'),
    ('kv_snapshot_has', $$hash text, context text = NULL, store text = 'default'$$, 'boolean', 'read'),
    ('kv_snapshot_get', $$hash text, context text = NULL, store text = 'default'$$, 'SNAPSHOT', 'read'),
    ('kv_snapshot_latest', $$context text, store text = 'default'$$, 'SNAPSHOT', 'read'),
    ('kv_snapshot_load', $$context text, after_seq bigint = NULL, max_count bigint = NULL, store text = 'default'$$, 'SNAPSHOT', 'read'),
    ('kv_snapshot_hashes', $$context text, store text = 'default'$$, 'TABLE(hash text)', 'read'),
    ('kv_snapshot_delete', $$context text, store text = 'default', hash text = NULL$$, 'bigint', 'write'),
    ('kv_snapshot_fork', $$context text, into_context text, hash text = NULL, store text = 'default'$$, 'bigint', 'write'),
    ('kv_snapshot_prune', $$before timestamptz = NULL, keep bigint = NULL, store text = 'default'$$, 'bigint', 'write'),
    ('kv_snapshot_stats', $$context text = NULL, store text = 'default'$$, 'TABLE(item_count bigint, total_size bigint, average_item_size numeric, given_size bigint)', 'read'),
    ('kv_watch', $$keys text[], versionstamps bigint[] = NULL, wait interval = '00:00:30', store text = 'default'$$, 'TABLE(key text, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)', 'write'),
    ('kv_watch_paths', $$keys jsonb, versionstamps bigint[] = NULL, wait interval = '00:00:30', store text = 'default'$$, 'TABLE(key jsonb, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)', 'write'),
    ('kv_wait_watch', $$keys text[], versionstamps bigint[] = NULL, wait interval = '00:00:30', store text = 'default'$$, NULL, 'write'),
    ('kv_wait_watch_paths', $$keys jsonb, versionstamps bigint[] = NULL, wait interval = '00:00:30', store text = 'default'$$, NULL, 'write'),
    ('kv_feed_position', '', 'text', 'write'),
    ('kv_changes', $$after text, prefix KEY, wait interval = '00:00:00', max_count bigint = 1000, store text = 'default'$$, 'CHANGE', 'write'),
    ('kv_wait_changes', $$after text, prefix KEY, wait interval = '00:00:30', store text = 'default'$$, NULL, 'write'),
    ('kv_create_queue', $$queue text = 'default', lease interval = '00:00:30', max_attempts bigint = 10, backoff interval[] = '{00:00:01,00:00:05,00:00:30,00:02:00,00:10:00,00:30:00,01:00:00}', unlogged boolean = false, keep_dead boolean = true, if_not_exists boolean = false$$, 'text', 'write'),
    ('kv_alter_queue', $$queue text = 'default', lease interval = NULL, max_attempts bigint = NULL, backoff interval[] = NULL, keep_dead boolean = NULL$$, 'boolean', 'write'),
    ('kv_drop_queue', $$queue text = 'default'$$, 'boolean', 'write'),
    ('kv_pause_queue', $$queue text = 'default'$$, 'boolean', 'write'),
    ('kv_resume_queue', $$queue text = 'default'$$, 'boolean', 'write'),
    ('kv_purge_queue', $$queue text = 'default'$$, 'bigint', 'write'),
    ('kv_enqueue', $$queue text, payload jsonb, delay interval = NULL, ready_at timestamptz = NULL, priority bigint = 0, headers jsonb = NULL, max_attempts bigint = NULL, backoff interval[] = NULL, ttl interval = NULL, dedupe_key text = NULL, keys_if_undelivered jsonb = NULL, undelivered_store text = 'default'$$, 'bigint', 'write'),
    ('kv_enqueue_many', $$queue text, payloads jsonb[], delay interval = NULL, ready_at timestamptz = NULL, priority bigint = 0, headers jsonb = NULL, max_attempts bigint = NULL, backoff interval[] = NULL, ttl interval = NULL, dedupe_key text = NULL, keys_if_undelivered jsonb = NULL, undelivered_store text = 'default'$$, 'TABLE(id bigint)', 'write'),
    ('kv_wait_queue', $$queue text, wait interval = '00:00:30'$$, NULL, 'write'),
    ('kv_dequeue', $$queue text, max_count bigint = 1, lease interval = NULL, wait interval = '00:00:00'$$,
        'TABLE(id bigint, payload jsonb, receipt text, attempts bigint, priority bigint, headers jsonb, enqueued_at timestamptz, leased_until timestamptz)', 'write'),
    ('kv_ack', 'receipt text', 'boolean', 'write'),
    ('kv_ack_many', 'receipts text[]', 'bigint', 'write'),
    ('kv_ack_each', 'receipts text[]', 'TABLE(receipt text, ok boolean)', 'write'),
    ('kv_nack', 'receipt text, delay interval = NULL, error text = NULL, dead boolean = false', 'text', 'write'),
    ('kv_nack_many', 'receipts text[], delay interval = NULL, error text = NULL, dead boolean = false', 'bigint', 'write'),
    ('kv_nack_each', 'receipts text[], delay interval = NULL, error text = NULL, dead boolean = false', 'TABLE(receipt text, result text)', 'write'),
    ('kv_release', $$receipt text, delay interval = '00:00:00'$$, 'boolean', 'write'),
    ('kv_release_many', $$receipts text[], delay interval = '00:00:00'$$, 'bigint', 'write'),
    ('kv_release_each', $$receipts text[], delay interval = '00:00:00'$$, 'TABLE(receipt text, ok boolean)', 'write'),
    ('kv_extend', 'receipt text, lease interval = NULL', 'timestamptz', 'write'),
    ('kv_extend_many', 'receipts text[], lease interval = NULL', 'bigint', 'write'),
    ('kv_extend_each', 'receipts text[], lease interval = NULL', 'TABLE(receipt text, leased_until timestamptz)', 'write'),
    ('kv_release_id', 'queue text, id bigint', 'boolean', 'write'),
    ('kv_cancel', 'queue text, id bigint', 'boolean', 'write'),
    ('kv_queue_stats', 'queue text = NULL', 'TABLE(queue text, ready bigint, delayed bigint, leased bigint, dead bigint, oldest_age_s numeric, enqueued bigint, delivered bigint, acked bigint, retried bigint, '
        'expired bigint, paused boolean, exact boolean, dead_exact boolean, dying bigint, stuck bigint)', 'write'),
    ('kv_peek', 'queue text, max_count bigint = 10, after bigint = NULL, id bigint = NULL', 'TABLE(id bigint, payload jsonb, status text, ready_at timestamptz, priority bigint, attempts bigint, '
        'max_attempts bigint, headers jsonb, dedupe_key text, last_error text, enqueued_at timestamptz, leased_until timestamptz)', 'read'),
    ('kv_dead_letters', 'queue text, max_count bigint = 10, after bigint = NULL, id bigint = NULL',
        'TABLE(id bigint, original_id bigint, payload jsonb, headers jsonb, error text, attempts bigint, enqueued_at timestamptz, failed_at timestamptz)', 'read'),
    ('kv_dead_requeue', 'queue text, id bigint', 'bigint', 'write'),
    ('kv_dead_requeue_all', 'queue text', 'bigint', 'write'),
    ('kv_dead_delete', 'queue text, id bigint', 'boolean', 'write'),
    ('kv_dead_purge', 'queue text', 'bigint', 'write'),
    ('kv_sweep', 'max_count bigint = NULL', 'bigint', 'write'),
    ('kv_maintain', '', 'bigint', 'write'),
    ('kv_version', '', 'text', 'read'),
    ('kv_health', '', 'TABLE(status text, reason text, connected boolean, preloaded boolean, worker_running boolean, in_recovery boolean, version text, started_at timestamptz, stores bigint, keys_estimate bigint, '
        'queues bigint, ready bigint, leased bigint, dead bigint, oldest_expired_age_s numeric)', 'look'),
    ('kv_metrics', '', 'jsonb', 'look'),
    ('kv_metrics_prometheus', '', 'text', 'look'),
    ('kv_stat_reset', '', 'boolean', 'write'),
    ('kv_schedule', 'name text, cron text, queue text, payload jsonb, dedupe_key text = NULL', 'bigint', 'write'),
    ('kv_unschedule', 'name text', 'boolean', 'write'),
    ('kv_key', '', 'kvkey', 'pure'),
    ('kv_key', 'VARIADIC parts "any"', 'kvkey', 'read'),
    ('kv_key_from_json', 'parts jsonb', 'kvkey', 'pure'),
    ('kv_key_to_json', 'key kvkey', 'jsonb', 'pure');
UPDATE promised SET result = 'TABLE(context text, hash text, seq bigint, state jsonb, metadata jsonb, created_at timestamptz, expires_at timestamptz)' WHERE result = 'SNAPSHOT';
CREATE TEMP TABLE expected AS
    SELECT name, replace(arguments, 'KEY', type) AS arguments, replace(replace(result, 'ROW', format('TABLE(key %s, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)', shown)),
        'CHANGE', format('TABLE(feed_position text, operation text, key %s, versionstamp bigint)', shown)) AS result, kind
    FROM promised, (VALUES ('text', 'text'), ('kvkey', 'jsonb')) f(type, shown)
    WHERE type = 'text' OR arguments LIKE '%KEY%';

-- ---- Signatures ----

SELECT is((SELECT f.result FROM pg_temp.member_function f WHERE f.name = e.name AND f.arguments = e.arguments AND f.schema = 'public'), e.result, format('%s(%s)', e.name, e.arguments))
    FROM expected e ORDER BY e.name, e.arguments;
SELECT is_empty($$SELECT f.oid::regprocedure FROM pg_temp.member_function f WHERE f.schema = 'public' AND f.name LIKE 'kv\_%' AND NOT EXISTS (SELECT FROM expected e WHERE (e.name, e.arguments) = (f.name, f.arguments))$$,
    'no other function, and no other overload, than those');
SELECT set_eq($$SELECT name FROM pg_temp.member_function WHERE schema = 'public' GROUP BY name HAVING count(*) > 1$$,
    $$SELECT name FROM promised WHERE arguments LIKE '%KEY%' UNION SELECT 'kv_key'$$, 'overloaded are the functions of one key or prefix alone');
SELECT is_empty($$SELECT name FROM pg_temp.member_function WHERE schema = 'public' GROUP BY name HAVING count(*) > 2$$, 'with two signatures each');
SELECT is_empty($$SELECT f.oid::regprocedure, a.name FROM pg_temp.member_function f, unnest(proargnames) a(name) WHERE schema = 'public' AND quote_ident(a.name) <> a.name$$, 'argument and column names need no quotes');
SELECT is_empty($$SELECT oid::regprocedure FROM pg_temp.member_function WHERE schema = 'public' AND name LIKE 'kv\_%' AND cardinality(proargtypes) > cardinality(array_remove(proargnames, ''))$$, 'every argument has a name');

-- ---- Types at the boundary ----

SELECT is_empty($$SELECT f.oid::regprocedure, t::regtype FROM pg_temp.member_function f, unnest(proargtypes) t WHERE schema = 'public' AND name LIKE 'kv\_%' AND name <> 'kv_key'
    AND t::regtype::text NOT IN ('text', 'text[]', 'jsonb', 'jsonb[]', 'bytea', 'bigint', 'bigint[]', 'numeric', 'boolean', 'timestamp with time zone', 'interval', 'interval[]', 'kvkey')$$, 'arguments are of types that drivers have');
SELECT is_empty($$SELECT f.oid::regprocedure, t::regtype FROM pg_temp.member_function f, LATERAL (SELECT u.t FROM unnest(proallargtypes, proargmodes) u(t, m) WHERE m = 't' UNION ALL SELECT prorettype WHERE proallargtypes IS NULL) u(t)
    WHERE schema = 'public' AND name LIKE 'kv\_%' AND name NOT IN ('kv_key', 'kv_key_from_json') AND result IS NOT NULL
    AND t::regtype::text NOT IN ('text', 'jsonb', 'bytea', 'bigint', 'numeric', 'boolean', 'timestamp with time zone', 'bigint[]')$$, 'and so are results: no interval, composite, void or type of our own');
SELECT is_empty($$SELECT f.oid::regprocedure FROM pg_temp.member_function f WHERE schema = 'public' AND name LIKE 'kv\_%' AND proretset AND proargmodes IS NULL$$, 'sets are RETURNS TABLE');

-- ---- Behaviour that the planner is told ----

SELECT is((SELECT format('%s%s%s', provolatile, proparallel, CASE WHEN proisstrict THEN ' strict' ELSE '' END) FROM pg_temp.member_function f WHERE f.name = e.name AND f.arguments = e.arguments AND f.schema = 'public'),
          CASE e.kind WHEN 'read' THEN 'ss' WHEN 'look' THEN 'sr' WHEN 'write' THEN 'vu' ELSE 'is' END || CASE WHEN e.name IN ('kv_key_from_json', 'kv_key_to_json') THEN ' strict' ELSE '' END,
          format('%s(%s): volatility, parallel safety, strictness', e.name, e.arguments))
    FROM expected e ORDER BY e.name, e.arguments;

-- ---- Safety ----

SELECT is_empty($$SELECT oid::regprocedure FROM pg_temp.member_function WHERE prosecdef$$, 'no SECURITY DEFINER');
SELECT is_empty($$SELECT oid::regprocedure FROM pg_temp.member_function WHERE prolang IN (SELECT oid FROM pg_language WHERE lanname IN ('sql', 'plpgsql')) AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)$$,
    'functions in SQL and PL/pgSQL have a search_path of their own');
SELECT ok(has_schema_privilege('public', 'kvstore', 'USAGE'), 'USAGE on the schema kvstore is PUBLIC');
SELECT ok(NOT has_schema_privilege('public', 'kvstore', 'CREATE'), 'CREATE on it is not');
CREATE VIEW pg_temp.member_relation AS
    SELECT c.oid, c.oid::regclass::text AS name, c.relkind, c.reloptions FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'kvstore';
SELECT is_empty($$SELECT name FROM pg_temp.member_relation WHERE relkind IN ('r', 'v') AND NOT has_table_privilege('public', oid, 'SELECT')$$, 'SELECT on registries and views is PUBLIC');
SELECT is_empty($$SELECT name, p FROM pg_temp.member_relation, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p WHERE relkind IN ('r', 'v') AND has_table_privilege('public', oid, p)$$, 'and nothing more');
SELECT ok(NOT has_sequence_privilege('public', 'kvstore.versionstamp', p), p || ' on the sequence is not PUBLIC') FROM unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) p;
SELECT set_has($$SELECT name FROM pg_temp.member_relation WHERE relkind = 'v'$$, $$VALUES ('kv_stores'), ('kv_snapshot_stores'), ('pg_stat_kvstore'), ('pg_stat_kvstore_queue')$$, 'the views are there');
SELECT set_eq($$SELECT unnest(extconfig)::regclass::text FROM pg_extension WHERE extname = 'kvstore'$$, $$VALUES ('kvstore.stores'), ('kvstore.queues'), ('kvstore.snapshot_stores'), ('kvstore.versionstamp')$$, 'pg_dump takes the registries and the sequence along');
SELECT is((SELECT count(*) FROM kvstore.stores) + (SELECT count(*) FROM kvstore.snapshot_stores), 0::bigint, 'the registries are empty after CREATE EXTENSION');
SELECT is((SELECT count(*) FROM pg_class WHERE relnamespace = 'kvstore'::regnamespace AND relname ~ '^[sqdp]_'), 0::bigint, 'and there is no store and no queue');

-- ---- Comments: \df+ is the first manual ----

SELECT is_empty($$SELECT oid::regprocedure FROM pg_temp.member_function WHERE coalesce(obj_description(oid, 'pg_proc'), '') = '' AND name !~ '^kvkey_|_support$'$$, 'every function has a comment');
SELECT is_empty($$SELECT name FROM pg_temp.member_relation WHERE relkind IN ('r', 'v', 'S') AND coalesce(obj_description(oid, 'pg_class'), '') = ''$$, 'every table, view and sequence');
SELECT is_empty($$SELECT m.name, a.attname FROM pg_temp.member_relation m JOIN pg_attribute a ON a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE relkind = 'r' AND m.name LIKE 'kvstore.%' AND coalesce(col_description(m.oid, a.attnum), '') = ''$$, 'every column of a registry');
SELECT isnt(obj_description('kvkey'::regtype, 'pg_type'), NULL, 'the type');
SELECT isnt(obj_description('kvstore'::regnamespace, 'pg_namespace'), NULL, 'the schema');
SELECT isnt((SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'kvstore'), NULL, 'the extension');
LOAD 'kvstore';
SELECT is_empty($$SELECT name FROM pg_settings WHERE name LIKE 'kvstore.%' AND coalesce(short_desc, '') = ''$$, 'every setting');
SELECT isnt_empty($$SELECT name FROM pg_settings WHERE name LIKE 'kvstore.%'$$, 'and there are settings');
-- A comment says what happens, in one piece that \df+ can show.
SELECT is_empty($$SELECT oid::regprocedure FROM pg_temp.member_function WHERE length(obj_description(oid, 'pg_proc')) > 200 OR obj_description(oid, 'pg_proc') LIKE E'%\n%'$$, 'comments are short');
SELECT is_empty($$SELECT a.name FROM pg_temp.member_function a JOIN pg_temp.member_function b ON a.name = b.name AND a.oid < b.oid WHERE a.name <> 'kv_key' AND obj_description(a.oid, 'pg_proc') <> obj_description(b.oid, 'pg_proc')$$, 'both signatures of a function say the same');

-- ---- The type ----

SELECT is((SELECT format('%s %s %s', typcategory, typispreferred, typlen) FROM pg_type WHERE oid = 'kvkey'::regtype), 'U f -1', 'kvkey is no string type: an untyped literal chooses text');
SELECT set_eq($$SELECT castsource::regtype::text, casttarget::regtype::text, castcontext::text FROM pg_cast WHERE 'kvkey'::regtype IN (castsource, casttarget)$$,
    $$VALUES ('jsonb', 'kvkey', 'i'), ('kvkey', 'jsonb', 'e'), ('kvkey', 'bytea', 'e'), ('bytea', 'kvkey', 'e')$$, 'casts');

SELECT * FROM finish();
ROLLBACK;
