-- Snapshots: states of a context, in the order in which they were appended.  A snapshot store is a table of the user's own, kvstore.p_<store>.
-- All functions run with the caller's rights; what has expired is hidden by the clock, read once in a call.  Where a page is read, the table's indexes give
-- it in order, whether or not there are statistics yet: hence enable_bitmapscan = off, for a bitmap has to read and sort all of the context.

-- Settings of snapshot stores; without a row here one has a ttl of one day.
CREATE TABLE kvstore.snapshot_stores (
    store text PRIMARY KEY,
    default_ttl interval CHECK (default_ttl > '0')
);
CREATE TRIGGER kvstore_settings BEFORE INSERT ON kvstore.snapshot_stores FOR EACH ROW EXECUTE FUNCTION kvstore.settings_inserted();
ALTER TABLE kvstore.snapshot_stores ENABLE ALWAYS TRIGGER kvstore_settings;
GRANT INSERT ON kvstore.snapshot_stores TO pg_database_owner;
GRANT SELECT ON kvstore.snapshot_stores TO PUBLIC;
COMMENT ON TABLE kvstore.snapshot_stores IS 'settings of snapshot stores; see the view kv_snapshot_stores';
COMMENT ON COLUMN kvstore.snapshot_stores.store IS 'name of the snapshot store';
COMMENT ON COLUMN kvstore.snapshot_stores.default_ttl IS 'how long a snapshot lives that is appended without ttl; NULL: for ever';
SELECT pg_catalog.pg_extension_config_dump('kvstore.snapshot_stores', '');

CREATE FUNCTION kv_create_snapshot_store(store text DEFAULT 'default', default_ttl interval DEFAULT '1 day', if_not_exists boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_create_snapshot_store';
COMMENT ON FUNCTION kv_create_snapshot_store(text, interval, boolean) IS
    'create a snapshot store, a table kvstore.p_<store> of your own; default_ttl 0: snapshots stay; returns its qualified name, for GRANT';

CREATE FUNCTION kv_drop_snapshot_store(store text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_drop_snapshot_store';
COMMENT ON FUNCTION kv_drop_snapshot_store(text) IS
    'drop a snapshot store you own with all its snapshots; false if there is none';

CREATE FUNCTION kv_alter_snapshot_store(store text DEFAULT 'default', default_ttl interval DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_alter_snapshot_store';
COMMENT ON FUNCTION kv_alter_snapshot_store(text, interval) IS
    'change how long snapshots of a store you own live that are appended from now on without ttl: NULL leaves it alone, zero: they stay';

CREATE FUNCTION kvstore.snapshot_table(store text) RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_snapshot_table';
COMMENT ON FUNCTION kvstore.snapshot_table(text) IS 'the qualified name of a snapshot store''s table, whose shape is checked';

CREATE FUNCTION kvstore.snapshot_written() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_snapshot_written';
COMMENT ON FUNCTION kvstore.snapshot_written() IS 'trigger on every snapshot store: notes when a row expires';

CREATE VIEW kv_snapshot_stores AS
    SELECT pg_catalog.substr(c.relname, 3) AS store,
           pg_catalog.format('kvstore.%I', c.relname) AS table_name,
           pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text AS owner,
           CASE WHEN s.store IS NULL THEN '1 day'::pg_catalog.interval ELSE s.default_ttl END AS default_ttl,
           pg_catalog.int8(GREATEST(c.reltuples, 0)) AS snapshots_estimate,
           kvstore.table_bytes(c.oid) AS total_bytes
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1 AND a.attname = 'context'
    LEFT JOIN kvstore.snapshot_stores s ON s.store = pg_catalog.substr(c.relname, 3)
    WHERE c.relnamespace = 'kvstore'::pg_catalog.regnamespace AND c.relkind = 'r' AND c.relname ~ '^p_';
GRANT SELECT ON kv_snapshot_stores TO PUBLIC;
COMMENT ON VIEW kv_snapshot_stores IS
    'the snapshot stores of this database; default_ttl NULL: snapshots stay; snapshots_estimate is as old as the last VACUUM or ANALYZE';

-- Writing

CREATE FUNCTION kv_snapshot_append(context text, state jsonb, ttl interval DEFAULT NULL, metadata jsonb DEFAULT NULL, hash text DEFAULT NULL,
    keep bigint DEFAULT NULL, store text DEFAULT 'default', if_latest text DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
    AS 'MODULE_PATHNAME', 'kvstore_snapshot_append';
COMMENT ON FUNCTION kv_snapshot_append(text, jsonb, interval, jsonb, text, bigint, text, text) IS
    'append a state; returns its hash. A known hash is renewed, the newest again; keep: the last n stay; if_latest: NULL unless the newest has that hash ('''': there is none)';

CREATE FUNCTION kv_snapshot_delete(context text, store text DEFAULT 'default', hash text DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'kvstore_snapshot_delete';
COMMENT ON FUNCTION kv_snapshot_delete(text, text, text) IS 'delete the snapshot of a context with this hash, or (NULL) all of them; returns how many';

CREATE FUNCTION kv_snapshot_prune(before timestamptz DEFAULT NULL, keep bigint DEFAULT NULL, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'kvstore_snapshot_prune';
COMMENT ON FUNCTION kv_snapshot_prune(timestamptz, bigint, text) IS
    'delete the snapshots of all contexts that were made before a time and are not among the last n of their context; returns how many';

CREATE FUNCTION kv_snapshot_fork(context text, into_context text, hash text DEFAULT NULL, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'kvstore_snapshot_fork';
COMMENT ON FUNCTION kv_snapshot_fork(text, text, text, text) IS
    'copy the snapshots of a context up to the one with this hash, or (NULL) all, into a context that has none; returns how many';

-- Reading

CREATE FUNCTION kv_snapshot_has(hash text, context text DEFAULT NULL, store text DEFAULT 'default') RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result boolean;
BEGIN
    IF hash IS NULL THEN
        RAISE EXCEPTION 'hash must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM %s WHERE hash = $1 AND ($2 IS NULL OR context = $2) AND (expires_at IS NULL OR expires_at > $3))',
        kvstore.snapshot_table(store))
        INTO result USING hash, context, clock_timestamp();
    RETURN result;
END
$$;
COMMENT ON FUNCTION kv_snapshot_has(text, text, text) IS 'is there a snapshot with this hash, in the context or (NULL) in any?';

-- Whoever may create a store may create functions in the schema kvstore: all arguments have exactly the declared types, so that none of those fits better.
-- For the next three, whose result has columns of the same names as their arguments, which PL/pgSQL does not allow.
CREATE FUNCTION kvstore.read_snapshots(purpose text, store_name text, hash_wanted text, context_wanted text, above bigint, most bigint)
    RETURNS TABLE(context text, hash text, seq bigint, state jsonb, metadata jsonb, created_at timestamptz, expires_at timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
BEGIN
    IF purpose = 'get' AND hash_wanted IS NULL THEN
        RAISE EXCEPTION 'hash must not be null' USING ERRCODE = 'null_value_not_allowed';
    ELSIF purpose <> 'get' AND context_wanted IS NULL THEN
        RAISE EXCEPTION 'context must not be null' USING ERRCODE = 'null_value_not_allowed';
    ELSIF most < 0 THEN
        RAISE EXCEPTION 'max_count must not be negative' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT context, hash, seq, state, metadata, created_at, expires_at FROM %s
         WHERE ($1 IS NULL OR hash = $1) AND ($2 IS NULL OR context = $2) AND ($3 IS NULL OR seq > $3) AND (expires_at IS NULL OR expires_at > $5)
         ORDER BY seq %s LIMIT $4', kvstore.snapshot_table(store_name), CASE WHEN purpose = 'load' THEN 'ASC' ELSE 'DESC' END)
        USING hash_wanted, context_wanted, above, most, clock_timestamp();
END
$$;
COMMENT ON FUNCTION kvstore.read_snapshots(text, text, text, text, bigint, bigint) IS
    'what kv_snapshot_get, kv_snapshot_latest and kv_snapshot_load have in common';

CREATE FUNCTION kv_snapshot_get(hash text, context text DEFAULT NULL, store text DEFAULT 'default')
    RETURNS TABLE(context text, hash text, seq bigint, state jsonb, metadata jsonb, created_at timestamptz, expires_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM kvstore.read_snapshots('get'::text, $3, $1, $2, NULL::bigint, 1::bigint) $$;
COMMENT ON FUNCTION kv_snapshot_get(text, text, text) IS 'the snapshot with this hash, in the context or (NULL) the newest of all contexts; no row: there is none';

CREATE FUNCTION kv_snapshot_latest(context text, store text DEFAULT 'default')
    RETURNS TABLE(context text, hash text, seq bigint, state jsonb, metadata jsonb, created_at timestamptz, expires_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM kvstore.read_snapshots('latest'::text, $2, NULL::text, $1, NULL::bigint, 1::bigint) $$;
COMMENT ON FUNCTION kv_snapshot_latest(text, text) IS 'the last snapshot of a context, to go on from; no row: there is none';

CREATE FUNCTION kv_snapshot_load(context text, after_seq bigint DEFAULT NULL, max_count bigint DEFAULT NULL, store text DEFAULT 'default')
    RETURNS TABLE(context text, hash text, seq bigint, state jsonb, metadata jsonb, created_at timestamptz, expires_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM kvstore.read_snapshots('load'::text, $4, NULL::text, $1, $2, $3) $$;
COMMENT ON FUNCTION kv_snapshot_load(text, bigint, bigint, text) IS
    'the snapshots of a context in order, up to max_count (NULL: all); page on with after_seq => the last seq';

CREATE FUNCTION kv_snapshot_hashes(context text, store text DEFAULT 'default') RETURNS TABLE(hash text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF $1 IS NULL THEN
        RAISE EXCEPTION 'context must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT hash FROM %s WHERE context = $1 AND (expires_at IS NULL OR expires_at > $2) ORDER BY seq',
        kvstore.snapshot_table($2))
        USING $1, clock_timestamp();
END
$$;
COMMENT ON FUNCTION kv_snapshot_hashes(text, text) IS 'the hashes of the snapshots of a context, in order';

CREATE FUNCTION kv_snapshot_stats(context text DEFAULT NULL, store text DEFAULT 'default')
    RETURNS TABLE(item_count bigint, total_size bigint, average_item_size numeric, given_size bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT count(*), COALESCE(sum(pg_column_size(state)), 0)::bigint, COALESCE(round(avg(pg_column_size(state)), 1), 0),
                COALESCE(sum(state_size), 0)::bigint
         FROM %s WHERE ($1 IS NULL OR context = $1) AND (expires_at IS NULL OR expires_at > $2)',
        kvstore.snapshot_table($2))
        USING $1, clock_timestamp();
END
$$;
COMMENT ON FUNCTION kv_snapshot_stats(text, text) IS
    'how many snapshots a context has (NULL: all contexts), the bytes of their states as stored (compressed), and as given (JSON text)';
