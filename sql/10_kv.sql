-- Stores and entries.  Functions of one key come in pairs: key text is a plain string key, key kvkey a path.
-- Reading functions are STABLE: they see what their statement sees.

-- Stores

CREATE FUNCTION kv_create_store(store text DEFAULT 'default', unlogged boolean DEFAULT false, default_ttl interval DEFAULT NULL,
    max_value_size bigint DEFAULT NULL, if_not_exists boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_create_store';
COMMENT ON FUNCTION kv_create_store(text, boolean, interval, bigint, boolean) IS
    'create a store, a table kvstore.s_<store> of your own; returns its qualified name, for GRANT';

CREATE FUNCTION kv_alter_store(store text DEFAULT 'default', default_ttl interval DEFAULT NULL, max_value_size bigint DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_alter_store';
COMMENT ON FUNCTION kv_alter_store(text, interval, bigint) IS
    'change settings of a store you own: NULL leaves a setting alone, zero removes it';

CREATE FUNCTION kv_drop_store(store text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_drop_store';
COMMENT ON FUNCTION kv_drop_store(text) IS
    'drop a store you own with all its entries; false if there is none';

CREATE FUNCTION kvstore.table_bytes(relid oid) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_table_bytes';
COMMENT ON FUNCTION kvstore.table_bytes(oid) IS 'size of a table with its indexes, in bytes; NULL, instead of waiting, if somebody has locked it';

CREATE VIEW kv_stores AS
    SELECT pg_catalog.substr(c.relname, 3) AS store,
           pg_catalog.format('kvstore.%I', c.relname) AS table_name,
           pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text AS owner,
           c.relpersistence = 'u' AS unlogged,
           s.default_ttl,
           s.max_value_size,
           pg_catalog.int8(GREATEST(c.reltuples, 0)) AS keys_estimate,
           kvstore.table_bytes(c.oid) AS total_bytes
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1 AND a.attname = 'key'
        AND a.atttypid = 'kvkey'::pg_catalog.regtype
    LEFT JOIN kvstore.stores s ON s.store = pg_catalog.substr(c.relname, 3)
    WHERE c.relnamespace = 'kvstore'::pg_catalog.regnamespace AND c.relkind = 'r' AND c.relname ~ '^s_';
GRANT SELECT ON kv_stores TO PUBLIC;
COMMENT ON VIEW kv_stores IS 'the stores of this database and their settings; keys_estimate is as old as the last VACUUM or ANALYZE';

-- Reading

CREATE FUNCTION kv_get(key text, store text DEFAULT 'default') RETURNS jsonb
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_get';
COMMENT ON FUNCTION kv_get(text, text) IS
    'the value of an entry; NULL if absent, KV005 if it holds bytes';

CREATE FUNCTION kv_get(key kvkey, store text DEFAULT 'default') RETURNS jsonb
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_get_path';
COMMENT ON FUNCTION kv_get(kvkey, text) IS
    'the value of an entry; NULL if absent, KV005 if it holds bytes';

CREATE FUNCTION kv_get_bytes(key text, store text DEFAULT 'default') RETURNS bytea
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_get_bytes';
COMMENT ON FUNCTION kv_get_bytes(text, text) IS
    'the bytes of an entry; NULL if absent, KV005 if it holds no bytes';

CREATE FUNCTION kv_get_bytes(key kvkey, store text DEFAULT 'default') RETURNS bytea
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_get_bytes_path';
COMMENT ON FUNCTION kv_get_bytes(kvkey, text) IS
    'the bytes of an entry; NULL if absent, KV005 if it holds no bytes';

CREATE FUNCTION kv_exists(key text, store text DEFAULT 'default') RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_exists';
COMMENT ON FUNCTION kv_exists(text, text) IS
    'is there an entry with this key?';

CREATE FUNCTION kv_exists(key kvkey, store text DEFAULT 'default') RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_exists_path';
COMMENT ON FUNCTION kv_exists(kvkey, text) IS
    'is there an entry with this key?';

CREATE FUNCTION kv_entry(key text, store text DEFAULT 'default') RETURNS TABLE(key text, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)
    LANGUAGE c STABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'kvstore_entry';
COMMENT ON FUNCTION kv_entry(text, text) IS
    'everything about an entry: always one row, with versionstamp 0 if absent';

CREATE FUNCTION kv_entry(key kvkey, store text DEFAULT 'default') RETURNS TABLE(key jsonb, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)
    LANGUAGE c STABLE PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'kvstore_entry_path';
COMMENT ON FUNCTION kv_entry(kvkey, text) IS
    'everything about an entry: always one row, with versionstamp 0 if absent';

CREATE FUNCTION kv_get_many(keys text[], store text DEFAULT 'default') RETURNS TABLE(key text, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)
    LANGUAGE c STABLE PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'kvstore_get_many';
COMMENT ON FUNCTION kv_get_many(text[], text) IS
    'the entries of these keys, a row for each in the order given; versionstamp 0: absent';

CREATE FUNCTION kv_get_many_paths(keys jsonb, store text DEFAULT 'default') RETURNS TABLE(key jsonb, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)
    LANGUAGE c STABLE PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'kvstore_get_many_paths';
COMMENT ON FUNCTION kv_get_many_paths(jsonb, text) IS
    'the entries of these keys, a JSON array whose elements are a string or an array of parts; a row for each';

CREATE FUNCTION kv_list(prefix text, start_key text DEFAULT NULL, end_key text DEFAULT NULL, after text DEFAULT NULL,
    page_size bigint DEFAULT NULL, reverse boolean DEFAULT false, keys_only boolean DEFAULT false, store text DEFAULT 'default') RETURNS TABLE(key text, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)
    LANGUAGE c STABLE PARALLEL SAFE ROWS 1000 AS 'MODULE_PATHNAME', 'kvstore_list';
COMMENT ON FUNCTION kv_list(text, text, text, text, bigint, boolean, boolean, text) IS
    'entries by prefix in key order, from start_key (inclusive) to end_key (exclusive); page on with after => the last key';

CREATE FUNCTION kv_list(prefix kvkey, start_key kvkey DEFAULT NULL, end_key kvkey DEFAULT NULL, after kvkey DEFAULT NULL,
    page_size bigint DEFAULT NULL, reverse boolean DEFAULT false, keys_only boolean DEFAULT false, store text DEFAULT 'default') RETURNS TABLE(key jsonb, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)
    LANGUAGE c STABLE PARALLEL SAFE ROWS 1000 AS 'MODULE_PATHNAME', 'kvstore_list_path';
COMMENT ON FUNCTION kv_list(kvkey, kvkey, kvkey, kvkey, bigint, boolean, boolean, text) IS
    'entries by prefix in key order, from start_key (inclusive) to end_key (exclusive); page on with after => the last key';

CREATE FUNCTION kv_count(prefix text, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_count';
COMMENT ON FUNCTION kv_count(text, text) IS
    'how many entries have this prefix';

CREATE FUNCTION kv_count(prefix kvkey, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_count_path';
COMMENT ON FUNCTION kv_count(kvkey, text) IS
    'how many entries have this prefix';

-- Writing

CREATE FUNCTION kv_set(key text, value jsonb, ttl interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    if_version bigint DEFAULT NULL, keep_ttl boolean DEFAULT false, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_set';
COMMENT ON FUNCTION kv_set(text, jsonb, interval, timestamptz, bigint, boolean, text) IS
    'write an entry; returns its new versionstamp, NULL if if_version (0: must be absent) did not match';

CREATE FUNCTION kv_set(key kvkey, value jsonb, ttl interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    if_version bigint DEFAULT NULL, keep_ttl boolean DEFAULT false, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_set_path';
COMMENT ON FUNCTION kv_set(kvkey, jsonb, interval, timestamptz, bigint, boolean, text) IS
    'write an entry; returns its new versionstamp, NULL if if_version (0: must be absent) did not match';

CREATE FUNCTION kv_set_bytes(key text, bytes bytea, ttl interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    if_version bigint DEFAULT NULL, keep_ttl boolean DEFAULT false, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_set_bytes';
COMMENT ON FUNCTION kv_set_bytes(text, bytea, interval, timestamptz, bigint, boolean, text) IS
    'write an entry that holds bytes; otherwise as kv_set';

CREATE FUNCTION kv_set_bytes(key kvkey, bytes bytea, ttl interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    if_version bigint DEFAULT NULL, keep_ttl boolean DEFAULT false, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_set_bytes_path';
COMMENT ON FUNCTION kv_set_bytes(kvkey, bytea, interval, timestamptz, bigint, boolean, text) IS
    'write an entry that holds bytes; otherwise as kv_set';

CREATE FUNCTION kv_delete(key text, if_version bigint DEFAULT NULL, store text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_delete';
COMMENT ON FUNCTION kv_delete(text, bigint, text) IS
    'delete an entry; false if it was absent or if_version did not match';

CREATE FUNCTION kv_delete(key kvkey, if_version bigint DEFAULT NULL, store text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_delete_path';
COMMENT ON FUNCTION kv_delete(kvkey, bigint, text) IS
    'delete an entry; false if it was absent or if_version did not match';

CREATE FUNCTION kv_take(key text, store text DEFAULT 'default') RETURNS jsonb
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_take';
COMMENT ON FUNCTION kv_take(text, text) IS
    'delete an entry and return its value; NULL if absent';

CREATE FUNCTION kv_take(key kvkey, store text DEFAULT 'default') RETURNS jsonb
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_take_path';
COMMENT ON FUNCTION kv_take(kvkey, text) IS
    'delete an entry and return its value; NULL if absent';

CREATE FUNCTION kv_expire(key text, ttl interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL, if_version bigint DEFAULT NULL,
    store text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_expire';
COMMENT ON FUNCTION kv_expire(text, interval, timestamptz, bigint, text) IS
    'set when an entry expires, never if neither is given; its versionstamp stays; false if absent or if_version did not match';

CREATE FUNCTION kv_expire(key kvkey, ttl interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL, if_version bigint DEFAULT NULL,
    store text DEFAULT 'default') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_expire_path';
COMMENT ON FUNCTION kv_expire(kvkey, interval, timestamptz, bigint, text) IS
    'set when an entry expires, never if neither is given; its versionstamp stays; false if absent or if_version did not match';

-- Many entries as one JSON document

CREATE FUNCTION kv_import(data jsonb, store text DEFAULT 'default') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_import';
COMMENT ON FUNCTION kv_import(jsonb, text) IS
    'write the entries of a JSON document as kv_export gives it, all or nothing; returns how many, without those expired';

CREATE FUNCTION kv_export(prefix text, store text DEFAULT 'default') RETURNS jsonb
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_export_entries';
COMMENT ON FUNCTION kv_export(text, text) IS
    'the entries of a prefix as one JSON document, with their expiry';

CREATE FUNCTION kv_export(prefix kvkey, store text DEFAULT 'default') RETURNS jsonb
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_export_entries_path';
COMMENT ON FUNCTION kv_export(kvkey, text) IS
    'the entries of a prefix as one JSON document, with their expiry';
