-- What an operator asks: version, health, counts.

CREATE FUNCTION kv_version() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_version';
COMMENT ON FUNCTION kv_version() IS 'version of the library that is loaded';

CREATE FUNCTION kvstore.shared_since() RETURNS timestamptz
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_shared_since';
COMMENT ON FUNCTION kvstore.shared_since() IS 'since when kvstore has its shared memory; NULL: it is not in shared_preload_libraries';

CREATE FUNCTION kvstore.stat_stores(OUT relid oid, OUT gets bigint, OUT hits bigint, OUT lists bigint,
    OUT sets bigint, OUT deletes bigint, OUT conflicts bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_stat_stores';
COMMENT ON FUNCTION kvstore.stat_stores() IS 'counts of each table; see the view pg_stat_kvstore';

CREATE VIEW pg_stat_kvstore AS
    SELECT k.store, c.gets, c.hits, c.lists, c.sets, c.deletes, c.conflicts
    FROM kv_stores k
    JOIN kvstore.stat_stores() c ON c.relid = pg_catalog.to_regclass(k.table_name);
GRANT SELECT ON pg_stat_kvstore TO PUBLIC;
COMMENT ON VIEW pg_stat_kvstore IS
    'what happened in each store since the server started (needs shared_preload_libraries); other sessions'' counts appear within a second of their last transaction';

CREATE FUNCTION kv_health() RETURNS TABLE (status text, reason text, connected boolean, preloaded boolean,
    worker_running boolean, in_recovery boolean, version text, started_at timestamptz, stores bigint, keys_estimate bigint,
    queues bigint, ready bigint, leased bigint, dead bigint, oldest_expired_age_s numeric)
    LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN s.in_recovery THEN 'read-only' WHEN s.shared_since IS NULL THEN 'degraded' ELSE 'ok' END,
           CASE WHEN s.in_recovery THEN 'the server is a standby'
                WHEN s.shared_since IS NULL THEN 'kvstore is not in shared_preload_libraries' END,
           true, s.shared_since IS NOT NULL, false, s.in_recovery, @extschema@.kv_version(), pg_postmaster_start_time(),
           k.stores, k.keys_estimate, 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::numeric
    FROM (SELECT pg_is_in_recovery() AS in_recovery, kvstore.shared_since() AS shared_since) s,
         (SELECT count(*) AS stores, COALESCE(sum(keys_estimate), 0)::bigint AS keys_estimate FROM @extschema@.kv_stores) k
$$;
COMMENT ON FUNCTION kv_health() IS 'one row: is all well (status ok, degraded, read-only), and if not, why';
