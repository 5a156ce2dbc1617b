-- What an operator asks: version, health, counts.

CREATE FUNCTION kv_version() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_version';
COMMENT ON FUNCTION kv_version() IS 'version of the library that is loaded';

CREATE FUNCTION kvstore.shared_since() RETURNS timestamptz
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_shared_since';
COMMENT ON FUNCTION kvstore.shared_since() IS 'since when kvstore has its shared memory; NULL: it is not in shared_preload_libraries';

CREATE FUNCTION kvstore.may_see(relid oid) RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_may_see';
COMMENT ON FUNCTION kvstore.may_see(oid) IS 'may you know the counts of this table: may you SELECT it, or read all statistics?';

-- Counts

CREATE FUNCTION kvstore.stat_counters(OUT kind text, OUT name text, OUT help text) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_stat_counters';
COMMENT ON FUNCTION kvstore.stat_counters() IS 'what is counted, of each store or (kind error) of the database';

CREATE FUNCTION kvstore.stat_counts(OUT relid oid, OUT counter text, OUT count bigint, OUT since timestamptz) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_stat_counts';
COMMENT ON FUNCTION kvstore.stat_counts() IS 'counts of each table, and (relid 0) of the database; see the view pg_stat_kvstore and kv_metrics()';

CREATE VIEW pg_stat_kvstore AS
    SELECT k.store, c.gets, c.hits, c.lists, c.sets, c.deletes, c.conflicts, c.expired, c.swept, c.overruns, c.since
    FROM kv_stores k
    JOIN (SELECT relid,
                 pg_catalog.max(count) FILTER (WHERE counter = 'gets') AS gets,
                 pg_catalog.max(count) FILTER (WHERE counter = 'hits') AS hits,
                 pg_catalog.max(count) FILTER (WHERE counter = 'lists') AS lists,
                 pg_catalog.max(count) FILTER (WHERE counter = 'sets') AS sets,
                 pg_catalog.max(count) FILTER (WHERE counter = 'deletes') AS deletes,
                 pg_catalog.max(count) FILTER (WHERE counter = 'conflicts') AS conflicts,
                 pg_catalog.max(count) FILTER (WHERE counter = 'expired') AS expired,
                 pg_catalog.max(count) FILTER (WHERE counter = 'swept') AS swept,
                 pg_catalog.max(count) FILTER (WHERE counter = 'overruns') AS overruns,
                 pg_catalog.min(since) AS since
          FROM kvstore.stat_counts() GROUP BY relid) c ON c.relid = pg_catalog.to_regclass(k.table_name);
GRANT SELECT ON pg_stat_kvstore TO PUBLIC;
COMMENT ON VIEW pg_stat_kvstore IS
    'what happened in each store since then (needs shared_preload_libraries); sessions add their counts at the end of a transaction, at most once a second';

CREATE VIEW pg_stat_kvstore_queue AS
    SELECT k.queue, c.enqueued, c.delivered, c.redelivered, c.acked, c.retried, c.released, c.dead, c.expired, c.cancelled, c.purged,
           c.waits, c.wakeups, c.since
    FROM kv_queues k
    JOIN (SELECT relid,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_enqueued') AS enqueued,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_delivered') AS delivered,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_redelivered') AS redelivered,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_acked') AS acked,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_retried') AS retried,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_released') AS released,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_dead') AS dead,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_expired') AS expired,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_cancelled') AS cancelled,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_purged') AS purged,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_failures_forgotten') AS failures_forgotten,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_waits') AS waits,
                 pg_catalog.max(count) FILTER (WHERE counter = 'queue_wakeups') AS wakeups,
                 pg_catalog.min(since) AS since
          FROM kvstore.stat_counts() GROUP BY relid) c ON c.relid = pg_catalog.to_regclass(k.table_name);
GRANT SELECT ON pg_stat_kvstore_queue TO PUBLIC;
COMMENT ON VIEW pg_stat_kvstore_queue IS
    'what happened in each queue since then (needs shared_preload_libraries), also in transactions that were rolled back; as pg_stat_kvstore';

CREATE FUNCTION kv_stat_reset() RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_stat_reset';
COMMENT ON FUNCTION kv_stat_reset() IS
    'set all counts of this database to 0; false: there are none, for kvstore is not in shared_preload_libraries. For superusers, and roles that they grant EXECUTE';
REVOKE ALL ON FUNCTION kv_stat_reset() FROM PUBLIC;

-- Sweeping what has expired

CREATE FUNCTION kv_sweep(max_count bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_sweep';
COMMENT ON FUNCTION kv_sweep(bigint) IS
    'remove up to max_count expired entries (NULL: all) of the stores on which you have DELETE; returns how many. The worker does this by itself';

CREATE FUNCTION kv_maintain() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_maintain';
COMMENT ON FUNCTION kv_maintain() IS
    'remove what has expired from all stores on which you have DELETE, and move the versionstamps above all stored ones; for pg_cron without preload, and after a restore; returns how many were removed';

CREATE FUNCTION kvstore.announce() RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_announce';
COMMENT ON FUNCTION kvstore.announce() IS 'tell the launcher that this database has kvstore; called by CREATE EXTENSION';
REVOKE ALL ON FUNCTION kvstore.announce() FROM PUBLIC;

CREATE FUNCTION kvstore.worker_running() RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_worker_running';
COMMENT ON FUNCTION kvstore.worker_running() IS 'does the launcher run, which starts a worker for each database that has something to do?';

CREATE FUNCTION kvstore.oldest_due() RETURNS timestamptz
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_oldest_due';
COMMENT ON FUNCTION kvstore.oldest_due() IS 'since when an expired entry of this database may be waiting for its removal, in tables that are not set aside; NULL: none is';

CREATE FUNCTION kvstore.troubles(OUT relid oid, OUT failures bigint, OUT sqlstate text, OUT since timestamptz, OUT until timestamptz) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'kvstore_troubles';
COMMENT ON FUNCTION kvstore.troubles() IS
    'tables of this database that the worker has set aside: failures in a row, the last SQLSTATE (a step that took too long: see kvstore.trouble_reason()), since when, and until when';

CREATE FUNCTION kvstore.trouble_reason() RETURNS text
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_trouble_reason';
COMMENT ON FUNCTION kvstore.trouble_reason() IS 'what kv_health() says of kvstore.troubles(); NULL: there are none';

CREATE FUNCTION kvstore.stuck_reason() RETURNS text
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_stuck_reason';
COMMENT ON FUNCTION kvstore.stuck_reason() IS 'what kv_health() says of messages that the worker could not settle; NULL: there are none';

CREATE FUNCTION kvstore.memory_in_use(OUT what text, OUT used bigint, OUT room bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 4 AS 'MODULE_PATHNAME', 'kvstore_memory_in_use';
COMMENT ON FUNCTION kvstore.memory_in_use() IS
    'how much of the fixed shared memory is in use, all databases: leases, queues with leases, sessions that wait, and what they wait for; 0 when all queues are empty and nobody waits';

CREATE FUNCTION kvstore.expiry_map(OUT relid oid, OUT first_block bigint, OUT due timestamptz) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 1000 AS 'MODULE_PATHNAME', 'kvstore_expiry_map';
COMMENT ON FUNCTION kvstore.expiry_map() IS
    'where expired entries may be from when on: groups of blocks of a table, or (first_block NULL) the table as a whole';

SELECT kvstore.announce();

CREATE FUNCTION kvstore.store_counts(OUT stores bigint, OUT keys_estimate bigint)
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_store_counts';
COMMENT ON FUNCTION kvstore.store_counts() IS 'how many stores there are, and how many keys they have, estimated; with a thousand stores and more both may be 10 seconds old';

-- It must answer while anything else waits or is broken, so it reads catalogs, statistics and shared memory, and locks no table of a user and no registry.
-- Nothing is counted: an estimate is the larger of what VACUUM or ANALYZE found and what the statistics system knows to be live.
CREATE FUNCTION kv_health() RETURNS TABLE (status text, reason text, connected boolean, preloaded boolean,
    worker_running boolean, in_recovery boolean, version text, started_at timestamptz, stores bigint, keys_estimate bigint,
    queues bigint, ready bigint, leased bigint, dead bigint, oldest_expired_age_s numeric)
    LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN s.in_recovery OR s.read_only THEN 'read-only' WHEN r.reason IS NOT NULL THEN 'degraded' ELSE 'ok' END,
           CASE WHEN s.in_recovery THEN 'the server is a standby'
                WHEN s.read_only THEN 'default_transaction_read_only is on'
                ELSE r.reason END,
           true, s.shared_since IS NOT NULL, s.worker_running, s.in_recovery, s.version, pg_postmaster_start_time(),
           k.stores, k.keys_estimate,
           q.queues, q.ready, q.leased, q.dead,
           s.oldest_age
    FROM (SELECT pg_is_in_recovery() AS in_recovery, current_setting('default_transaction_read_only')::boolean AS read_only,
                 kvstore.shared_since() AS shared_since, kvstore.worker_running() AS worker_running, @extschema@.kv_version() AS version,
                 (SELECT extversion FROM pg_extension WHERE extname = 'kvstore') AS installed,
                 concat_ws('; ', kvstore.trouble_reason(), kvstore.stuck_reason()) AS trouble,
                 EXTRACT(epoch FROM clock_timestamp() - kvstore.oldest_due()) AS oldest_age) s,
         LATERAL (SELECT CASE
                WHEN s.version <> s.installed THEN format('the library is %s, the extension %s: ALTER EXTENSION kvstore UPDATE, or restart the server', s.version, s.installed)
                WHEN s.shared_since IS NULL THEN 'kvstore is not in shared_preload_libraries'
                WHEN NOT s.worker_running THEN 'the launcher of the workers does not run'
                WHEN s.trouble <> '' THEN s.trouble
                WHEN s.oldest_age > 300 THEN format('what expired %s seconds ago is not removed yet', round(s.oldest_age)) END AS reason) r,
         kvstore.store_counts() k,
         (SELECT count(*) AS queues, COALESCE(sum(n.leased), 0)::bigint AS leased,
                 COALESCE(sum(GREATEST(COALESCE(n.messages, GREATEST(c.reltuples, pg_stat_get_live_tuples(c.oid))) - COALESCE(n.leased, 0), 0)) FILTER (WHERE kvstore.may_see(c.oid)), 0)::bigint AS ready,
                 COALESCE(sum((SELECT GREATEST(d.reltuples, pg_stat_get_live_tuples(d.oid), 0) FROM pg_class d
                               WHERE d.relnamespace = c.relnamespace AND d.relname = 'd_' || substr(c.relname, 3) AND d.relowner = c.relowner)) FILTER (WHERE kvstore.may_see(c.oid)), 0)::bigint AS dead
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 2 AND a.attname = 'ready_at' AND a.atttypid = 'timestamptz'::regtype
          LEFT JOIN kvstore.queue_counts() n ON n.relid = c.oid
          WHERE c.relnamespace = 'kvstore'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^q_') q
$$;
COMMENT ON FUNCTION kv_health() IS 'one row, whatever happens: is all well (status ok, degraded, read-only), and if not, why; numbers of keys, ready and dead messages may be estimates';

-- Metrics, of this database: names of stores, never of keys.

-- A sample of a metric for each row; label_name NULL: it has no label.
CREATE FUNCTION kvstore.metrics() RETURNS TABLE (metric text, type text, help text, label_name text, label_value text, value numeric)
    LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'kvstore_' || g.name, 'gauge', g.help, g.label_name, g.label_value, g.value
    FROM @extschema@.kv_health() h,
         LATERAL (VALUES
            ('info', 'Version of the library.', 'version', h.version, 1::numeric),
            ('healthy', 'Is the status of kv_health() ok?', NULL, NULL, (h.status = 'ok')::int),
            ('preloaded', 'Is kvstore in shared_preload_libraries?', NULL, NULL, h.preloaded::int),
            ('worker_running', 'Does the launcher of the workers run?', NULL, NULL, h.worker_running::int),
            ('in_recovery', 'Is the server a standby?', NULL, NULL, h.in_recovery::int),
            ('start_time_seconds', 'When the server started, in seconds since 1970.', NULL, NULL, extract(epoch FROM h.started_at)),
            ('stores', 'Number of stores.', NULL, NULL, h.stores),
            ('queues', 'Number of queues.', NULL, NULL, h.queues),
            ('oldest_expired_age_seconds', 'How long ago the entry expired that waits longest for its removal, 0: none does; tables that are set aside do not count.', NULL, NULL, COALESCE(h.oldest_expired_age_s, 0)),
            ('tables_set_aside', 'Stores, snapshot stores and queues that the worker sets aside for a while, for it could not work on them.', NULL, NULL, (SELECT count(*) FROM kvstore.troubles()))
         ) g(name, help, label_name, label_value, value)
    UNION ALL
    SELECT v.* FROM kvstore.memory_in_use() m, LATERAL (VALUES
            ('kvstore_memory_used', 'gauge', 'Entries in use of what is fixed in shared memory, all databases.', 'what', m.what, m.used::numeric),
            ('kvstore_memory_room', 'gauge', 'Entries for which there is room in shared memory.', 'what', m.what, m.room::numeric)) v
    UNION ALL
    SELECT v.* FROM (SELECT * FROM @extschema@.kv_stores WHERE kvstore.may_see(to_regclass(table_name))) s, LATERAL (VALUES
            ('kvstore_store_keys', 'gauge', 'Entries of the store, estimated.', 'store', s.store, GREATEST(s.keys_estimate, pg_stat_get_live_tuples(to_regclass(s.table_name)))::numeric),
            ('kvstore_store_size_bytes', 'gauge', 'Size of the store with its indexes.', 'store', s.store, s.total_bytes)) v
    UNION ALL
    SELECT v.* FROM (SELECT * FROM @extschema@.kv_snapshot_stores WHERE kvstore.may_see(to_regclass(table_name))) s, LATERAL (VALUES
            ('kvstore_snapshots', 'gauge', 'Snapshots of the snapshot store, estimated.', 'store', s.store, GREATEST(s.snapshots_estimate, pg_stat_get_live_tuples(to_regclass(s.table_name)))::numeric),
            ('kvstore_snapshot_store_size_bytes', 'gauge', 'Size of the snapshot store with its indexes.', 'store', s.store, s.total_bytes)) v
    UNION ALL
    SELECT v.* FROM (SELECT q.queue, to_regclass(q.table_name) AS relid, (SELECT d.oid FROM pg_class d WHERE d.relnamespace = 'kvstore'::regnamespace AND d.relname = 'd_' || q.queue AND pg_get_userbyid(d.relowner) = q.owner) AS dead, q.messages_estimate, q.total_bytes FROM @extschema@.kv_queues q WHERE kvstore.may_see(to_regclass(q.table_name))) q
        LEFT JOIN kvstore.queue_counts() n ON n.relid = q.relid, LATERAL (VALUES
            ('kvstore_queue_messages', 'gauge', 'Messages of the queue: ready, delayed and leased; estimated until they have been counted once.', 'queue', q.queue,
             COALESCE(n.messages, GREATEST(q.messages_estimate, pg_stat_get_live_tuples(q.relid)))::numeric),
            ('kvstore_queue_leased', 'gauge', 'Messages of the queue that are leased.', 'queue', q.queue, COALESCE(n.leased, 0)),
            ('kvstore_queue_dying', 'gauge', 'Messages of the queue that are given up, and are to become dead letters.', 'queue', q.queue, COALESCE(n.dying, 0)),
            ('kvstore_queue_stuck', 'gauge', 'Messages of the queue that the worker could not settle; the view kv_leases says why.', 'queue', q.queue, COALESCE(n.stuck, 0)),
            ('kvstore_queue_dead_letters', 'gauge', 'Dead letters of the queue, estimated.', 'queue', q.queue, COALESCE(pg_stat_get_live_tuples(q.dead), 0)),
            ('kvstore_queue_size_bytes', 'gauge', 'Size of the queue with its indexes.', 'queue', q.queue, q.total_bytes)) v
    UNION ALL
    SELECT 'kvstore_' || d.name || '_total', 'counter', d.help, 'store', s.store, COALESCE(c.count, 0)
    FROM kvstore.stat_counters() d
    CROSS JOIN @extschema@.kv_stores s
    LEFT JOIN kvstore.stat_counts() c ON c.relid = to_regclass(s.table_name) AND c.counter = d.name
    WHERE d.kind = 'store' AND kvstore.shared_since() IS NOT NULL AND kvstore.may_see(to_regclass(s.table_name))
    UNION ALL
    SELECT 'kvstore_' || d.name || '_total', 'counter', d.help, 'queue', q.queue, COALESCE(c.count, 0)
    FROM kvstore.stat_counters() d
    CROSS JOIN @extschema@.kv_queues q
    LEFT JOIN kvstore.stat_counts() c ON c.relid = to_regclass(q.table_name) AND c.counter = d.name
    WHERE d.kind = 'queue' AND kvstore.shared_since() IS NOT NULL AND kvstore.may_see(to_regclass(q.table_name))
    UNION ALL
    SELECT 'kvstore_errors_total', 'counter', d.help, 'class', d.name, COALESCE(c.count, 0)
    FROM kvstore.stat_counters() d
    LEFT JOIN kvstore.stat_counts() c ON c.relid = 0 AND c.counter = d.name
    WHERE d.kind = 'error' AND kvstore.shared_since() IS NOT NULL
$$;
COMMENT ON FUNCTION kvstore.metrics() IS 'samples for kv_metrics() and kv_metrics_prometheus()';

CREATE FUNCTION kv_metrics() RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_object_agg(short, CASE WHEN label_name IS NULL THEN single ELSE labelled END)
    FROM (SELECT substr(metric, 9) AS short, min(label_name) AS label_name, to_jsonb(min(value)) AS single,
                 jsonb_object_agg(COALESCE(label_value, ''), value) AS labelled
          FROM kvstore.metrics() GROUP BY metric) m
$$;
COMMENT ON FUNCTION kv_metrics() IS 'all metrics as one JSON object; those of stores, and errors by class of SQLSTATE, are objects by name';

CREATE FUNCTION kv_metrics_prometheus() RETURNS text
    LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format(E'# HELP %1$s %2$s\n# TYPE %1$s %3$s\n%4$s', metric, help, type, samples), '' ORDER BY metric)
    FROM (SELECT metric, help, type,
                 string_agg(metric || CASE WHEN label_name IS NULL THEN '' ELSE format('{%s="%s"}', label_name,
                    replace(replace(replace(label_value, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n')) END || ' ' || value || E'\n', ''
                    ORDER BY label_value) AS samples
          FROM kvstore.metrics() GROUP BY metric, help, type) m
$$;
COMMENT ON FUNCTION kv_metrics_prometheus() IS 'all metrics in the text format of Prometheus';
