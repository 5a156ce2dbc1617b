-- Queues: messages with leases, retries and dead letters.  What sends or receives needs shared_preload_libraries.

-- Queues

CREATE FUNCTION kv_create_queue(queue text DEFAULT 'default', lease interval DEFAULT '30 s', max_attempts bigint DEFAULT 5,
    backoff interval[] DEFAULT '{100ms,1s,5s,30s,60s}', unlogged boolean DEFAULT false, keep_dead boolean DEFAULT true,
    if_not_exists boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_create_queue';
COMMENT ON FUNCTION kv_create_queue(text, interval, bigint, interval[], boolean, boolean, boolean) IS
    'create a queue, a table kvstore.q_<queue> of your own, and kvstore.d_<queue> for its dead letters; returns the qualified name, for GRANT';

CREATE FUNCTION kv_alter_queue(queue text DEFAULT 'default', lease interval DEFAULT NULL, max_attempts bigint DEFAULT NULL,
    backoff interval[] DEFAULT NULL, keep_dead boolean DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_alter_queue';
COMMENT ON FUNCTION kv_alter_queue(text, interval, bigint, interval[], boolean) IS
    'change settings of a queue you own: NULL leaves a setting alone';

CREATE FUNCTION kv_drop_queue(queue text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_drop_queue';
COMMENT ON FUNCTION kv_drop_queue(text) IS
    'drop a queue you own with all its messages and dead letters; false if there is none';

CREATE FUNCTION kv_pause_queue(queue text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_pause_queue';
COMMENT ON FUNCTION kv_pause_queue(text) IS
    'let a queue you own give no messages until kv_resume_queue(); sending goes on; false if it is paused already';

CREATE FUNCTION kv_resume_queue(queue text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_resume_queue';
COMMENT ON FUNCTION kv_resume_queue(text) IS
    'let a paused queue you own give messages again; false if it is not paused';

CREATE VIEW kv_queues AS
    SELECT pg_catalog.substr(c.relname, 3) AS queue,
           pg_catalog.format('kvstore.%I', c.relname) AS table_name,
           pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text AS owner,
           c.relpersistence = 'u' AS unlogged,
           COALESCE(q.lease, '30 s') AS lease,
           COALESCE(q.max_attempts, 5)::bigint AS max_attempts,
           COALESCE(q.backoff, '{100ms,1s,5s,30s,60s}') AS backoff,
           COALESCE(q.keep_dead, true) AS keep_dead,
           COALESCE(q.paused, false) AS paused,
           pg_catalog.int8(GREATEST(c.reltuples, 0)) AS messages_estimate,
           pg_catalog.pg_total_relation_size(c.oid) AS total_bytes
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = 2 AND a.attname = 'ready_at'
        AND a.atttypid = 'pg_catalog.timestamptz'::pg_catalog.regtype
    LEFT JOIN kvstore.queues q ON q.queue = pg_catalog.substr(c.relname, 3)
    WHERE c.relnamespace = 'kvstore'::pg_catalog.regnamespace AND c.relkind = 'r' AND c.relname ~ '^q_';
GRANT SELECT ON kv_queues TO PUBLIC;
COMMENT ON VIEW kv_queues IS 'the queues of this database and their settings; messages_estimate is as old as the last VACUUM or ANALYZE';

-- Sending

CREATE FUNCTION kv_enqueue(queue text, payload jsonb, delay interval DEFAULT NULL, ready_at timestamptz DEFAULT NULL, priority bigint DEFAULT 0,
    headers jsonb DEFAULT NULL, max_attempts bigint DEFAULT NULL, backoff interval[] DEFAULT NULL, ttl interval DEFAULT NULL,
    dedupe_key text DEFAULT NULL, keys_if_undelivered jsonb DEFAULT NULL, undelivered_store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_enqueue';
COMMENT ON FUNCTION kv_enqueue(text, jsonb, interval, timestamptz, bigint, jsonb, bigint, interval[], interval, text, jsonb, text) IS
    'send a message; returns its id, or that of the message that has the dedupe_key already; it is delivered after the commit';

CREATE FUNCTION kv_enqueue_many(queue text, payloads jsonb[], delay interval DEFAULT NULL, ready_at timestamptz DEFAULT NULL, priority bigint DEFAULT 0,
    headers jsonb DEFAULT NULL, max_attempts bigint DEFAULT NULL, backoff interval[] DEFAULT NULL, ttl interval DEFAULT NULL,
    dedupe_key text DEFAULT NULL, keys_if_undelivered jsonb DEFAULT NULL, undelivered_store text DEFAULT 'default') RETURNS TABLE(id bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'kvstore_enqueue_many';
COMMENT ON FUNCTION kv_enqueue_many(text, jsonb[], interval, timestamptz, bigint, jsonb, bigint, interval[], interval, text, jsonb, text) IS
    'send messages with the same options; returns their ids in the order given';
