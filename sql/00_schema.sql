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
