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
COMMENT ON SCHEMA kvstore IS 'tables of kvstore: stores are s_<name>, shown without expired entries by v_<name>; queues are q_<name>, their dead letters d_<name>';

-- Settings of stores.  A table of the right name and shape without a row here is a store with default
-- settings, and the first use in each session warns.
CREATE TABLE kvstore.stores (
    store text PRIMARY KEY,
    default_ttl interval CHECK (default_ttl > '0'),
    max_value_size bigint CHECK (max_value_size > 0)
);
GRANT SELECT ON kvstore.stores TO PUBLIC;
COMMENT ON TABLE kvstore.stores IS 'settings of stores, NULL: the default; see the view kv_stores';
COMMENT ON COLUMN kvstore.stores.store IS 'name of the store';
COMMENT ON COLUMN kvstore.stores.default_ttl IS 'how long an entry lives that is written without ttl and expires_at; NULL: for ever';
COMMENT ON COLUMN kvstore.stores.max_value_size IS 'largest value in bytes; NULL: the setting kvstore.max_value_size alone';

-- The same for queues.
CREATE TABLE kvstore.queues (
    queue text PRIMARY KEY,
    lease interval CHECK (lease > '0' AND lease <= '12 hours'),
    max_attempts integer CHECK (max_attempts > 0),
    backoff interval[] CHECK (cardinality(backoff) <= 16 AND COALESCE(array_ndims(backoff), 1) = 1
        AND array_position(backoff, NULL) IS NULL AND '0' <= ALL (backoff)),
    keep_dead boolean,
    paused boolean
);
GRANT SELECT ON kvstore.queues TO PUBLIC;
COMMENT ON TABLE kvstore.queues IS 'settings of queues, NULL: the default; see the view kv_queues';
COMMENT ON COLUMN kvstore.queues.queue IS 'name of the queue';
COMMENT ON COLUMN kvstore.queues.lease IS 'how long a consumer has a message to itself; NULL: 30 s';
COMMENT ON COLUMN kvstore.queues.max_attempts IS 'deliveries of a message that may fail before it is dead; NULL: 10';
COMMENT ON COLUMN kvstore.queues.backoff IS 'delays after the first, second and further failed deliveries; NULL: {1s,5s,30s,2min,10min,30min,1h}';
COMMENT ON COLUMN kvstore.queues.keep_dead IS 'are dead letters kept?  NULL: yes';
COMMENT ON COLUMN kvstore.queues.paused IS 'gives the queue no messages at present?  NULL: it does';

CREATE SEQUENCE kvstore.versionstamp;
COMMENT ON SEQUENCE kvstore.versionstamp IS 'the numbers of all writes of this database; nobody needs a right on it';

SELECT pg_catalog.pg_extension_config_dump('kvstore.stores', '');
SELECT pg_catalog.pg_extension_config_dump('kvstore.queues', '');
SELECT pg_catalog.pg_extension_config_dump('kvstore.versionstamp', '');

-- Whoever owns the database may dump it, and restore the settings of their own tables.
CREATE FUNCTION kvstore.settings_inserted() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_settings_inserted';
COMMENT ON FUNCTION kvstore.settings_inserted() IS
    'trigger on the registries: settings that a restore brings replace those that are there, and are for tables of the role that restores';
CREATE TRIGGER kvstore_settings BEFORE INSERT ON kvstore.stores FOR EACH ROW EXECUTE FUNCTION kvstore.settings_inserted();
CREATE TRIGGER kvstore_settings BEFORE INSERT ON kvstore.queues FOR EACH ROW EXECUTE FUNCTION kvstore.settings_inserted();
ALTER TABLE kvstore.stores ENABLE ALWAYS TRIGGER kvstore_settings;
ALTER TABLE kvstore.queues ENABLE ALWAYS TRIGGER kvstore_settings;
GRANT INSERT ON kvstore.stores, kvstore.queues TO pg_database_owner;
GRANT SELECT ON SEQUENCE kvstore.versionstamp TO pg_database_owner;

CREATE FUNCTION kvstore.next_versionstamp(above bigint DEFAULT 0) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_next_versionstamp';
COMMENT ON FUNCTION kvstore.next_versionstamp(bigint) IS 'a versionstamp above this one, for the statements inside kvstore; writers need not call it';

CREATE FUNCTION kvstore.guard() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_guard';
COMMENT ON FUNCTION kvstore.guard() IS 'trigger on every store and queue: only the owner writes it by plain SQL, and what kvstore knows of its rows stays right';
