-- Queues: messages with leases, retries and dead letters.  What sends or receives needs shared_preload_libraries.

-- Queues

CREATE FUNCTION kv_create_queue(queue text DEFAULT 'default', lease interval DEFAULT '30 s', max_attempts bigint DEFAULT 10,
    backoff interval[] DEFAULT '{1s,5s,30s,2min,10min,30min,1h}', unlogged boolean DEFAULT false, keep_dead boolean DEFAULT true,
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

CREATE FUNCTION kv_purge_queue(queue text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_purge_queue';
COMMENT ON FUNCTION kv_purge_queue(text) IS
    'delete all messages of a queue, leased ones too, whose ack is then false; one that is just being acknowledged is left to its consumer; returns how many';

CREATE VIEW kv_queues AS
    SELECT pg_catalog.substr(c.relname, 3) AS queue,
           pg_catalog.format('kvstore.%I', c.relname) AS table_name,
           pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text AS owner,
           c.relpersistence = 'u' AS unlogged,
           COALESCE(q.lease, '30 s') AS lease,
           COALESCE(q.max_attempts, 10)::bigint AS max_attempts,
           COALESCE(q.backoff, '{1s,5s,30s,2min,10min,30min,1h}') AS backoff,
           COALESCE(q.keep_dead, true) AS keep_dead,
           COALESCE(q.paused, false) AS paused,
           pg_catalog.int8(GREATEST(c.reltuples, 0)) AS messages_estimate,
           kvstore.table_bytes(c.oid) AS total_bytes
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

CREATE FUNCTION kv_cancel(queue text, id bigint) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_cancel';
COMMENT ON FUNCTION kv_cancel(text, bigint) IS
    'delete a message that nobody has leased; false if it is leased or gone';

-- Looking

CREATE FUNCTION kv_peek(queue text, max_count bigint DEFAULT 10, after bigint DEFAULT NULL, id bigint DEFAULT NULL) RETURNS TABLE(id bigint, payload jsonb,
    status text, ready_at timestamptz, priority bigint, attempts bigint, max_attempts bigint, headers jsonb, dedupe_key text, last_error text,
    enqueued_at timestamptz, leased_until timestamptz)
    LANGUAGE c STABLE PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'kvstore_peek';
COMMENT ON FUNCTION kv_peek(text, bigint, bigint, bigint) IS
    'messages in the order of their ids, without leasing them: ready, delayed, leased, or dying (given up, to become a dead letter); page on with after => the last id';

CREATE FUNCTION kv_queue_stats(queue text DEFAULT NULL) RETURNS TABLE(queue text, ready bigint, delayed bigint, leased bigint, dead bigint, oldest_age_s numeric,
    enqueued bigint, delivered bigint, acked bigint, retried bigint, expired bigint, paused boolean, exact boolean, dead_exact boolean,
    dying bigint, stuck bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'kvstore_queue_stats';
COMMENT ON FUNCTION kv_queue_stats(text) IS
    'how many messages there are, of one queue or (NULL) all you may SELECT; exact false: estimated; dying: given up, to become dead letters; stuck: that could not be done, see kv_leases';

CREATE FUNCTION kvstore.queue_counts(OUT relid oid, OUT messages bigint, OUT leased bigint, OUT dying bigint, OUT stuck bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_queue_counts';
COMMENT ON FUNCTION kvstore.queue_counts() IS
    'what shared memory knows of queues: how many messages there are (NULL: not counted yet, the worker will), and how many of them are leased, given up to become dead letters, or could not be settled';

-- Dead letters

CREATE FUNCTION kv_dead_letters(queue text, max_count bigint DEFAULT 10, after bigint DEFAULT NULL, id bigint DEFAULT NULL) RETURNS TABLE(id bigint,
    original_id bigint, payload jsonb, headers jsonb, error text, attempts bigint, enqueued_at timestamptz, failed_at timestamptz)
    LANGUAGE c STABLE PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'kvstore_dead_letters';
COMMENT ON FUNCTION kv_dead_letters(text, bigint, bigint, bigint) IS
    'messages that were given up, in the order of their ids; page on with after => the last id';

CREATE FUNCTION kv_dead_requeue(queue text, id bigint) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_dead_requeue';
COMMENT ON FUNCTION kv_dead_requeue(text, bigint) IS
    'send a dead letter again as it was sent, with no failed attempts and its ttl anew; returns the new id, NULL if there is no such dead letter; 23505 if its dedupe_key is in use';

CREATE FUNCTION kv_dead_requeue_all(queue text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_dead_requeue_all';
COMMENT ON FUNCTION kv_dead_requeue_all(text) IS
    'send the dead letters of a queue again, likewise; returns how many; those that kv_dead_requeue() would refuse stay';

CREATE FUNCTION kv_dead_delete(queue text, id bigint) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_dead_delete';
COMMENT ON FUNCTION kv_dead_delete(text, bigint) IS
    'delete a dead letter; false if there is none with this id';

CREATE FUNCTION kv_dead_purge(queue text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_dead_purge';
COMMENT ON FUNCTION kv_dead_purge(text) IS
    'delete all dead letters of a queue; returns how many';
