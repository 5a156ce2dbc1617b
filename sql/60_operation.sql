-- What an operator asks: version, health, counts.

CREATE FUNCTION kv_version() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_version';
COMMENT ON FUNCTION kv_version() IS 'version of the library that is loaded';

CREATE FUNCTION kvstore.shared_since() RETURNS timestamptz
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_shared_since';
COMMENT ON FUNCTION kvstore.shared_since() IS 'since when kvstore has its shared memory; NULL: it is not in shared_preload_libraries';

CREATE FUNCTION kvstore.stat_stores(OUT relid oid, OUT gets bigint, OUT hits bigint, OUT lists bigint,
    OUT sets bigint, OUT deletes bigint, OUT conflicts bigint, OUT expired bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_stat_stores';
COMMENT ON FUNCTION kvstore.stat_stores() IS 'counts of each table; see the view pg_stat_kvstore';

CREATE VIEW pg_stat_kvstore AS
    SELECT k.store, c.gets, c.hits, c.lists, c.sets, c.deletes, c.conflicts, c.expired
    FROM kv_stores k
    JOIN kvstore.stat_stores() c ON c.relid = pg_catalog.to_regclass(k.table_name);
GRANT SELECT ON pg_stat_kvstore TO PUBLIC;
COMMENT ON VIEW pg_stat_kvstore IS
    'what happened in each store since the server started (needs shared_preload_libraries); other sessions'' counts appear within a second of their last transaction';

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
COMMENT ON FUNCTION kvstore.oldest_due() IS 'since when an expired entry of this database may be waiting for its removal; NULL: none is';

CREATE FUNCTION kvstore.expiry_map(OUT relid oid, OUT first_block bigint, OUT due timestamptz) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 1000 AS 'MODULE_PATHNAME', 'kvstore_expiry_map';
COMMENT ON FUNCTION kvstore.expiry_map() IS
    'where expired entries may be from when on: groups of blocks of a table, or (first_block NULL) the table as a whole';

SELECT kvstore.announce();

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
           0::bigint, 0::bigint, 0::bigint, 0::bigint,  -- of queues
           s.oldest_age
    FROM (SELECT pg_is_in_recovery() AS in_recovery, current_setting('default_transaction_read_only')::boolean AS read_only,
                 kvstore.shared_since() AS shared_since, kvstore.worker_running() AS worker_running, @extschema@.kv_version() AS version,
                 (SELECT extversion FROM pg_extension WHERE extname = 'kvstore') AS installed,
                 EXTRACT(epoch FROM clock_timestamp() - kvstore.oldest_due()) AS oldest_age) s,
         LATERAL (SELECT CASE
                WHEN s.version <> s.installed THEN format('the library is %s, the extension %s: ALTER EXTENSION kvstore UPDATE, or restart the server', s.version, s.installed)
                WHEN s.shared_since IS NULL THEN 'kvstore is not in shared_preload_libraries'
                WHEN NOT s.worker_running THEN 'the launcher of the workers does not run'
                WHEN s.oldest_age > 300 THEN format('what expired %s seconds ago is not removed yet', round(s.oldest_age)) END AS reason) r,
         (SELECT count(*) AS stores, COALESCE(sum(GREATEST(c.reltuples, pg_stat_get_live_tuples(c.oid))), 0)::bigint AS keys_estimate
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1 AND a.attname = 'key' AND a.atttypid = '@extschema@.kvkey'::regtype
          WHERE c.relnamespace = 'kvstore'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^s_') k
$$;
COMMENT ON FUNCTION kv_health() IS 'one row, whatever happens: is all well (status ok, degraded, read-only), and if not, why; numbers of keys are estimates';
