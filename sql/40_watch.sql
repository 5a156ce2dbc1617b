-- Watch: changes without polling.  All of it needs shared_preload_libraries.

CREATE FUNCTION kv_watch(keys text[], versionstamps bigint[] DEFAULT NULL, wait interval DEFAULT '30 s', store text DEFAULT 'default')
    RETURNS TABLE(key text, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'kvstore_watch';
COMMENT ON FUNCTION kv_watch(text[], bigint[], interval, text) IS
    'the entries whose versionstamps differ from those given, at once or as soon as one does; none: the time is over; waits inside the statement, which holds a snapshot: CALL kv_wait_watch() holds none';

CREATE FUNCTION kv_watch_paths(keys jsonb, versionstamps bigint[] DEFAULT NULL, wait interval DEFAULT '30 s', store text DEFAULT 'default')
    RETURNS TABLE(key jsonb, value jsonb, bytes bytea, kind text, versionstamp bigint, expires_at timestamptz)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'kvstore_watch_paths';
COMMENT ON FUNCTION kv_watch_paths(jsonb, bigint[], interval, text) IS
    'kv_watch for keys given as a JSON array whose elements are a string or an array of parts';

CREATE PROCEDURE kv_wait_watch(keys text[], versionstamps bigint[] DEFAULT NULL, wait interval DEFAULT '30 s', store text DEFAULT 'default')
    LANGUAGE c AS 'MODULE_PATHNAME', 'kvstore_wait_watch';
COMMENT ON PROCEDURE kv_wait_watch(text[], bigint[], interval, text) IS
    'wait until kv_watch() would give an entry, or until the time is over; holds no snapshot, so not in a transaction block';

CREATE PROCEDURE kv_wait_watch_paths(keys jsonb, versionstamps bigint[] DEFAULT NULL, wait interval DEFAULT '30 s', store text DEFAULT 'default')
    LANGUAGE c AS 'MODULE_PATHNAME', 'kvstore_wait_watch_paths';
COMMENT ON PROCEDURE kv_wait_watch_paths(jsonb, bigint[], interval, text) IS
    'kv_wait_watch for keys given as a JSON array whose elements are a string or an array of parts';

CREATE FUNCTION kv_feed_position() RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_feed_position';
COMMENT ON FUNCTION kv_feed_position() IS
    'the present position in the feed of changes: take it in a statement of its own, then list, then follow kv_changes, and nothing is missed';

CREATE FUNCTION kv_changes(after text, prefix text, wait interval DEFAULT '0', max_count bigint DEFAULT 1000, store text DEFAULT 'default')
    RETURNS TABLE(feed_position text, operation text, key text, versionstamp bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'kvstore_changes';
COMMENT ON FUNCTION kv_changes(text, text, interval, bigint, text) IS
    'what changed below a prefix after a position, go on from the last row; waits inside the statement, which holds a snapshot: CALL kv_wait_changes() holds none';

CREATE FUNCTION kv_changes(after text, prefix kvkey, wait interval DEFAULT '0', max_count bigint DEFAULT 1000, store text DEFAULT 'default')
    RETURNS TABLE(feed_position text, operation text, key jsonb, versionstamp bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'kvstore_changes_path';
COMMENT ON FUNCTION kv_changes(text, kvkey, interval, bigint, text) IS
    'what changed below a prefix after a position, go on from the last row; waits inside the statement, which holds a snapshot: CALL kv_wait_changes() holds none';

CREATE PROCEDURE kv_wait_changes(after text, prefix text, wait interval DEFAULT '30 s', store text DEFAULT 'default')
    LANGUAGE c AS 'MODULE_PATHNAME', 'kvstore_wait_changes';
COMMENT ON PROCEDURE kv_wait_changes(text, text, interval, text) IS
    'wait until kv_changes() would give a change, or until the time is over; holds no snapshot, so not in a transaction block';

CREATE PROCEDURE kv_wait_changes(after text, prefix kvkey, wait interval DEFAULT '30 s', store text DEFAULT 'default')
    LANGUAGE c AS 'MODULE_PATHNAME', 'kvstore_wait_changes_path';
COMMENT ON PROCEDURE kv_wait_changes(text, kvkey, interval, text) IS
    'wait until kv_changes() would give a change, or until the time is over; holds no snapshot, so not in a transaction block';

CREATE FUNCTION kvstore.waiters(OUT pid integer, OUT kind text, OUT relid oid, OUT since timestamptz) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kvstore_waiters';
COMMENT ON FUNCTION kvstore.waiters() IS 'the sessions of this database that wait for changes or messages: a row for each key, prefix or queue';
