-- Operations that read and write in one step, and operations on many keys.

-- Inside the statements of kvstore

CREATE FUNCTION kvstore.add(value jsonb, bytes bytea, kind "char", by numeric) RETURNS jsonb
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_add';
COMMENT ON FUNCTION kvstore.add(jsonb, bytea, "char", numeric) IS 'what an entry that holds a number holds after kv_incr, for the statements inside kvstore';

CREATE FUNCTION kvstore.is_text(key kvkey) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_is_text';
COMMENT ON FUNCTION kvstore.is_text(kvkey) IS 'is this a plain-string key, one that the text functions see?';

-- In one step

CREATE FUNCTION kv_atomic(operations jsonb, store text DEFAULT 'default') RETURNS TABLE (ok boolean, versionstamp bigint, failed_checks bigint[])
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'kvstore_atomic';
COMMENT ON FUNCTION kv_atomic(jsonb, text) IS
    'checks, then set, delete, sum, min, max, enqueue, all or nothing with one versionstamp; failed_checks are 1-based positions';

CREATE FUNCTION kv_check(key text, versionstamp bigint, store text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_check';
COMMENT ON FUNCTION kv_check(text, bigint, text) IS
    'true if the entry has this versionstamp (0: is absent), else KV001; nobody else changes it before this transaction ends';

CREATE FUNCTION kv_check(key kvkey, versionstamp bigint, store text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_check_path';
COMMENT ON FUNCTION kv_check(kvkey, bigint, text) IS
    'true if the entry has this versionstamp (0: is absent), else KV001; nobody else changes it before this transaction ends';

CREATE FUNCTION kv_incr(key text, by numeric DEFAULT 1, ttl interval DEFAULT NULL, store text DEFAULT 'default') RETURNS numeric
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_incr';
COMMENT ON FUNCTION kv_incr(text, numeric, interval, text) IS
    'add to an entry that holds a number and return the sum; ttl applies to an entry that this call creates';

CREATE FUNCTION kv_incr(key kvkey, by numeric DEFAULT 1, ttl interval DEFAULT NULL, store text DEFAULT 'default') RETURNS numeric
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_incr_path';
COMMENT ON FUNCTION kv_incr(kvkey, numeric, interval, text) IS
    'add to an entry that holds a number and return the sum; ttl applies to an entry that this call creates';

-- Many keys

CREATE FUNCTION kv_set_many(keys text[], new_values jsonb[], ttl interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_set_many';
COMMENT ON FUNCTION kv_set_many(text[], jsonb[], interval, timestamptz, text) IS
    'write many entries with one versionstamp, which is returned; of a key given twice the last value wins';

CREATE FUNCTION kv_set_many_paths(keys jsonb, new_values jsonb, ttl interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_set_many_path';
COMMENT ON FUNCTION kv_set_many_paths(jsonb, jsonb, interval, timestamptz, text) IS
    'write many entries with one versionstamp; keys and values are JSON arrays';

CREATE FUNCTION kv_delete_many(keys text[], store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_delete_many';
COMMENT ON FUNCTION kv_delete_many(text[], text) IS
    'delete the entries of these keys; returns how many there were';

CREATE FUNCTION kv_delete_many_paths(keys jsonb, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_delete_many_path';
COMMENT ON FUNCTION kv_delete_many_paths(jsonb, text) IS
    'delete the entries of these keys, a JSON array; returns how many there were';

CREATE FUNCTION kv_delete_prefix(prefix text, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_delete_prefix';
COMMENT ON FUNCTION kv_delete_prefix(text, text) IS
    'delete the entries with this prefix; returns how many there were';

CREATE FUNCTION kv_delete_prefix(prefix kvkey, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_delete_prefix_path';
COMMENT ON FUNCTION kv_delete_prefix(kvkey, text) IS
    'delete the entries with this prefix; returns how many there were';

CREATE FUNCTION kv_clear(store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_clear';
COMMENT ON FUNCTION kv_clear(text) IS
    'delete all entries of a store; returns how many there were';

-- How far they are

CREATE FUNCTION kvstore.stat_progress(OUT pid integer, OUT command text, OUT relid oid, OUT items_done bigint,
    OUT items_total bigint, OUT started_at timestamptz) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_stat_progress';
COMMENT ON FUNCTION kvstore.stat_progress() IS 'long operations that run now; see the view kv_stat_progress';

CREATE VIEW kv_stat_progress AS
    SELECT pid, command, relid::pg_catalog.regclass::pg_catalog.text AS object, items_done, items_total, started_at
    FROM kvstore.stat_progress();
GRANT SELECT ON kv_stat_progress TO PUBLIC;
COMMENT ON VIEW kv_stat_progress IS
    'operations on many keys that run now, and how far they are; those of other roles to pg_read_all_stats only; items_total NULL: not known';
