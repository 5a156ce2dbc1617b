-- The schema of the tables, the registries, the versionstamp's sequence, and what runs without a user's calling it.
-- Functions that users call go where CREATE EXTENSION puts them; the tables are always in the schema kvstore.

DO $$
BEGIN
    IF pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE EXCEPTION 'kvstore needs a database with encoding UTF8'
            USING ERRCODE = 'feature_not_supported',
                  DETAIL = pg_catalog.format('This database has encoding %s; keys are UTF-8.', pg_catalog.current_setting('server_encoding')),
                  HINT = 'Use a database made with CREATE DATABASE ... TEMPLATE template0 ENCODING ''UTF8''.';
    END IF;
END
$$;

CREATE SCHEMA kvstore;
GRANT USAGE ON SCHEMA kvstore TO PUBLIC;
COMMENT ON SCHEMA kvstore IS 'tables of kvstore: stores are s_<name>, shown without expired entries by v_<name>';

-- Settings of stores that differ from the defaults.  A table of the right name and shape without a row here is a store with default settings.
CREATE TABLE kvstore.stores (
    store text PRIMARY KEY,
    default_ttl interval,
    max_value_size bigint
);
GRANT SELECT ON kvstore.stores TO PUBLIC;
COMMENT ON TABLE kvstore.stores IS 'settings of stores that differ from the defaults; see the view kv_stores';
COMMENT ON COLUMN kvstore.stores.store IS 'name of the store';
COMMENT ON COLUMN kvstore.stores.default_ttl IS 'how long an entry lives that is written without ttl and expires_at; NULL: for ever';
COMMENT ON COLUMN kvstore.stores.max_value_size IS 'largest value in bytes; NULL: the setting kvstore.max_value_size alone';

CREATE SEQUENCE kvstore.versionstamp;
COMMENT ON SEQUENCE kvstore.versionstamp IS 'the numbers of all writes of this database; nobody needs a right on it';

SELECT pg_catalog.pg_extension_config_dump('kvstore.stores', '');
SELECT pg_catalog.pg_extension_config_dump('kvstore.versionstamp', '');

CREATE FUNCTION kvstore.next_versionstamp() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_next_versionstamp';
COMMENT ON FUNCTION kvstore.next_versionstamp() IS 'the next versionstamp, for the statements inside kvstore; writers need not call it';

CREATE FUNCTION kvstore.guard() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_guard';
COMMENT ON FUNCTION kvstore.guard() IS 'trigger on every store: only the owner writes it by plain SQL, and versionstamps stay right';
-- Keys: the type kvkey, kv_key(), and what indexes and sorts keys.  The code is in src/key*.c.

-- The type.  Its bytes are the order, so they are never compressed, and comparing and hashing are bytea's own functions.

CREATE TYPE kvkey;

CREATE FUNCTION kvkey_in(cstring) RETURNS kvkey
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_in';
COMMENT ON FUNCTION kvkey_in(cstring) IS 'input of kvkey: a JSON array of parts';

CREATE FUNCTION kvkey_out(kvkey) RETURNS cstring
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_out';
COMMENT ON FUNCTION kvkey_out(kvkey) IS 'output of kvkey: a JSON array of parts';

CREATE FUNCTION kvkey_recv(internal) RETURNS kvkey
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_recv';
COMMENT ON FUNCTION kvkey_recv(internal) IS 'binary input of kvkey: the encoded bytes, validated';

CREATE FUNCTION kvkey_send(kvkey) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_send';
COMMENT ON FUNCTION kvkey_send(kvkey) IS 'binary output of kvkey: the encoded bytes';

CREATE TYPE kvkey (
    INPUT = kvkey_in,
    OUTPUT = kvkey_out,
    RECEIVE = kvkey_recv,
    SEND = kvkey_send,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = int4,
    STORAGE = external,
    CATEGORY = 'U'      -- and not preferred: an untyped literal has to go on choosing text
);
COMMENT ON TYPE kvkey IS
    'key of an entry: a path of parts, each a string, number, boolean, bytes or bigint, such as ["users", 42]; ordered as Deno KV orders keys';

-- Building a key.  STABLE, because renaming an enum's label changes the key made from it (enum_out() is STABLE for the same
-- reason), and the volatility cannot depend on the argument.  Index expressions and generated columns, which need IMMUTABLE,
-- can use kv_key_from_json().

CREATE FUNCTION kv_key(VARIADIC parts "any") RETURNS kvkey
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_key';
COMMENT ON FUNCTION kv_key("any") IS
    'the key with these parts: text, name, enum and uuid are strings, any SQL number a number, boolean, bytea, and jsonb is one part in JSON form';

CREATE FUNCTION kv_key() RETURNS kvkey
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_key';
COMMENT ON FUNCTION kv_key() IS 'the key without parts: as a prefix, every key begins with it';

-- Conversions

CREATE FUNCTION kv_key_from_json(parts jsonb) RETURNS kvkey
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_key_from_json';
COMMENT ON FUNCTION kv_key_from_json(jsonb) IS
    'the key of a JSON array of parts; {"bytes": base64}, {"bigint": decimal}, {"number": "NaN"} and {"utf8": base64} say what JSON cannot';

CREATE FUNCTION kv_key_to_json(key kvkey) RETURNS jsonb
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_key_to_json';
COMMENT ON FUNCTION kv_key_to_json(kvkey) IS 'the JSON form of a key, an array of parts; kv_key_from_json reads it back exactly';

CREATE FUNCTION kvkey_from_bytea(bytea) RETURNS kvkey
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_from_bytea';
COMMENT ON FUNCTION kvkey_from_bytea(bytea) IS 'the key with these encoded bytes, validated: the cast from bytea to kvkey';

CREATE CAST (jsonb AS kvkey) WITH FUNCTION kv_key_from_json(jsonb) AS IMPLICIT;
COMMENT ON CAST (jsonb AS kvkey) IS 'the key of a JSON array of parts';

CREATE CAST (kvkey AS jsonb) WITH FUNCTION kv_key_to_json(kvkey);
COMMENT ON CAST (kvkey AS jsonb) IS 'the JSON form of a key';

CREATE CAST (bytea AS kvkey) WITH FUNCTION kvkey_from_bytea(bytea);
COMMENT ON CAST (bytea AS kvkey) IS 'the key with these encoded bytes, validated';

CREATE CAST (kvkey AS bytea) WITHOUT FUNCTION;
COMMENT ON CAST (kvkey AS bytea) IS 'the encoded bytes of a key';

-- Comparison: unsigned bytes, a prefix before what is longer

CREATE FUNCTION kvkey_lt(kvkey, kvkey) RETURNS boolean
    LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'bytealt';
COMMENT ON FUNCTION kvkey_lt(kvkey, kvkey) IS 'implementation of < operator';

CREATE FUNCTION kvkey_le(kvkey, kvkey) RETURNS boolean
    LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'byteale';
COMMENT ON FUNCTION kvkey_le(kvkey, kvkey) IS 'implementation of <= operator';

CREATE FUNCTION kvkey_eq(kvkey, kvkey) RETURNS boolean
    LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'byteaeq';
COMMENT ON FUNCTION kvkey_eq(kvkey, kvkey) IS 'implementation of = operator';

CREATE FUNCTION kvkey_ne(kvkey, kvkey) RETURNS boolean
    LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'byteane';
COMMENT ON FUNCTION kvkey_ne(kvkey, kvkey) IS 'implementation of <> operator';

CREATE FUNCTION kvkey_ge(kvkey, kvkey) RETURNS boolean
    LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'byteage';
COMMENT ON FUNCTION kvkey_ge(kvkey, kvkey) IS 'implementation of >= operator';

CREATE FUNCTION kvkey_gt(kvkey, kvkey) RETURNS boolean
    LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'byteagt';
COMMENT ON FUNCTION kvkey_gt(kvkey, kvkey) IS 'implementation of > operator';

CREATE FUNCTION kvkey_cmp(kvkey, kvkey) RETURNS integer
    LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'byteacmp';
COMMENT ON FUNCTION kvkey_cmp(kvkey, kvkey) IS 'less-equal-greater comparison of keys, for btree';

CREATE FUNCTION kvkey_hash(kvkey) RETURNS integer
    LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'hashvarlena';
COMMENT ON FUNCTION kvkey_hash(kvkey) IS 'hash of a key';

CREATE FUNCTION kvkey_hash_extended(kvkey, bigint) RETURNS bigint
    LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'hashvarlenaextended';
COMMENT ON FUNCTION kvkey_hash_extended(kvkey, bigint) IS 'seeded 64-bit hash of a key';

CREATE OPERATOR < (
    FUNCTION = kvkey_lt, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = >, NEGATOR = >=, RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR < (kvkey, kvkey) IS 'less than';

CREATE OPERATOR <= (
    FUNCTION = kvkey_le, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = >=, NEGATOR = >, RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
COMMENT ON OPERATOR <= (kvkey, kvkey) IS 'less than or equal';

CREATE OPERATOR = (
    FUNCTION = kvkey_eq, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES
);
COMMENT ON OPERATOR = (kvkey, kvkey) IS 'equal';

CREATE OPERATOR <> (
    FUNCTION = kvkey_ne, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR <> (kvkey, kvkey) IS 'not equal';

CREATE OPERATOR >= (
    FUNCTION = kvkey_ge, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = <=, NEGATOR = <, RESTRICT = scalargesel, JOIN = scalargejoinsel
);
COMMENT ON OPERATOR >= (kvkey, kvkey) IS 'greater than or equal';

CREATE OPERATOR > (
    FUNCTION = kvkey_gt, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = <, NEGATOR = <=, RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
COMMENT ON OPERATOR > (kvkey, kvkey) IS 'greater than';

-- bytea_sortsupport() sorts by bytes (with abbreviated keys) whatever the type; btequalimage() allows deduplication: equal keys
-- have equal bytes.

CREATE OPERATOR FAMILY kvkey_ops USING btree;
COMMENT ON OPERATOR FAMILY kvkey_ops USING btree IS 'order of keys: that of their encoded bytes';

CREATE OPERATOR CLASS kvkey_ops DEFAULT FOR TYPE kvkey USING btree FAMILY kvkey_ops AS
    OPERATOR 1 <,
    OPERATOR 2 <=,
    OPERATOR 3 =,
    OPERATOR 4 >=,
    OPERATOR 5 >,
    FUNCTION 1 kvkey_cmp(kvkey, kvkey),
    FUNCTION 2 (kvkey, kvkey) pg_catalog.bytea_sortsupport(internal),
    FUNCTION 4 (kvkey, kvkey) pg_catalog.btequalimage(oid);
COMMENT ON OPERATOR CLASS kvkey_ops USING btree IS 'order of keys: that of their encoded bytes';

CREATE OPERATOR FAMILY kvkey_ops USING hash;
COMMENT ON OPERATOR FAMILY kvkey_ops USING hash IS 'equality of keys';

CREATE OPERATOR CLASS kvkey_ops DEFAULT FOR TYPE kvkey USING hash FAMILY kvkey_ops AS
    OPERATOR 1 =,
    FUNCTION 1 kvkey_hash(kvkey),
    FUNCTION 2 kvkey_hash_extended(kvkey, bigint);
COMMENT ON OPERATOR CLASS kvkey_ops USING hash IS 'equality of keys';
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

CREATE VIEW kv_stores AS
    SELECT pg_catalog.substr(c.relname, 3) AS store,
           pg_catalog.format('kvstore.%I', c.relname) AS table_name,
           pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text AS owner,
           c.relpersistence = 'u' AS unlogged,
           s.default_ttl,
           s.max_value_size,
           pg_catalog.int8(GREATEST(c.reltuples, 0)) AS keys_estimate,
           pg_catalog.pg_total_relation_size(c.oid) AS total_bytes
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
    queues bigint, ready bigint, leased bigint, dead bigint, oldest_expired_age_s double precision)
    LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 1 SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN s.in_recovery THEN 'read-only' WHEN s.shared_since IS NULL THEN 'degraded' ELSE 'ok' END,
           CASE WHEN s.in_recovery THEN 'the server is a standby'
                WHEN s.shared_since IS NULL THEN 'kvstore is not in shared_preload_libraries' END,
           true, s.shared_since IS NOT NULL, false, s.in_recovery, @extschema@.kv_version(), pg_postmaster_start_time(),
           k.stores, k.keys_estimate, 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::double precision
    FROM (SELECT pg_is_in_recovery() AS in_recovery, kvstore.shared_since() AS shared_since) s,
         (SELECT count(*) AS stores, COALESCE(sum(keys_estimate), 0)::bigint AS keys_estimate FROM @extschema@.kv_stores) k
$$;
COMMENT ON FUNCTION kv_health() IS 'one row: is all well (status ok, degraded, read-only), and if not, why';
