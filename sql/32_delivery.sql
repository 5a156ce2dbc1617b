-- Receiving messages: leases and receipts.

CREATE FUNCTION kv_dequeue(queue text, max_count bigint DEFAULT 1, lease interval DEFAULT NULL, wait interval DEFAULT '0')
    RETURNS TABLE (id bigint, payload jsonb, receipt text, attempts bigint, priority bigint, headers jsonb, enqueued_at timestamptz, leased_until timestamptz)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'kvstore_dequeue';
COMMENT ON FUNCTION kv_dequeue(text, bigint, interval, interval) IS
    'lease up to max_count messages; show each receipt to kv_ack() before leased_until, or it is delivered again; a wait holds a snapshot, CALL kv_wait_queue() does not';

CREATE PROCEDURE kv_wait_queue(queue text, wait interval DEFAULT '30 s')
    LANGUAGE c AS 'MODULE_PATHNAME', 'kvstore_wait_queue';
COMMENT ON PROCEDURE kv_wait_queue(text, interval) IS
    'wait until kv_dequeue() would give a message, or until the time is over; holds no snapshot, so not in a transaction block';

CREATE FUNCTION kv_ack(receipt text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_ack';
COMMENT ON FUNCTION kv_ack(text) IS 'the message is processed: delete it; false if it is gone or another consumer has it';

CREATE FUNCTION kv_ack_many(receipts text[]) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_ack_many';
COMMENT ON FUNCTION kv_ack_many(text[]) IS 'kv_ack() for many receipts; returns how many were good; NULL and a text that is no receipt count as stale';

CREATE FUNCTION kv_ack_each(receipts text[]) RETURNS TABLE (receipt text, ok boolean)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'kvstore_ack_each';
COMMENT ON FUNCTION kv_ack_each(text[]) IS 'kv_ack() for many receipts, and what it says of each, in the order given';

CREATE FUNCTION kv_nack(receipt text, delay interval DEFAULT NULL, error text DEFAULT NULL, dead boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_nack';
COMMENT ON FUNCTION kv_nack(text, interval, text, boolean) IS
    'the message failed: retry after delay (NULL: the backoff), or dead after max_attempts; returns retry, dead, or NULL if another consumer has it';

CREATE FUNCTION kv_nack_many(receipts text[], delay interval DEFAULT NULL, error text DEFAULT NULL, dead boolean DEFAULT false) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_nack_many';
COMMENT ON FUNCTION kv_nack_many(text[], interval, text, boolean) IS 'kv_nack() for many receipts; returns how many were good';

CREATE FUNCTION kv_nack_each(receipts text[], delay interval DEFAULT NULL, error text DEFAULT NULL, dead boolean DEFAULT false)
    RETURNS TABLE (receipt text, result text)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'kvstore_nack_each';
COMMENT ON FUNCTION kv_nack_each(text[], interval, text, boolean) IS 'kv_nack() for many receipts, and what it says of each, in the order given';

CREATE FUNCTION kv_release(receipt text, delay interval DEFAULT '0') RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_release';
COMMENT ON FUNCTION kv_release(text, interval) IS
    'return the message, at once or after delay, without counting the attempt; without delay another consumer may have it before this transaction ends';

CREATE FUNCTION kv_release_many(receipts text[], delay interval DEFAULT '0') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_release_many';
COMMENT ON FUNCTION kv_release_many(text[], interval) IS 'kv_release() for many receipts; returns how many were good';

CREATE FUNCTION kv_release_each(receipts text[], delay interval DEFAULT '0') RETURNS TABLE (receipt text, ok boolean)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'kvstore_release_each';
COMMENT ON FUNCTION kv_release_each(text[], interval) IS 'kv_release() for many receipts, and what it says of each, in the order given';

CREATE FUNCTION kv_extend(receipt text, lease interval DEFAULT NULL) RETURNS timestamptz
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_extend';
COMMENT ON FUNCTION kv_extend(text, interval) IS
    'hold the message for that long from now on (NULL: the queue''s lease); returns until when, NULL if another consumer has it; a rollback does not undo it';

CREATE FUNCTION kv_extend_many(receipts text[], lease interval DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_extend_many';
COMMENT ON FUNCTION kv_extend_many(text[], interval) IS 'kv_extend() for many receipts; returns how many were good';

CREATE FUNCTION kv_extend_each(receipts text[], lease interval DEFAULT NULL) RETURNS TABLE (receipt text, leased_until timestamptz)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'kvstore_extend_each';
COMMENT ON FUNCTION kv_extend_each(text[], interval) IS 'kv_extend() for many receipts, and what it says of each, in the order given';

CREATE FUNCTION kv_release_id(queue text, id bigint) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kvstore_release_id';
COMMENT ON FUNCTION kv_release_id(text, bigint) IS
    'take a message of your queue from whoever holds it, and deliver it again; false if nobody does';

CREATE FUNCTION kvstore.leases(OUT relid oid, OUT id bigint, OUT pid integer, OUT since timestamptz, OUT leased_until timestamptz,
    OUT attempts integer, OUT state text, OUT error text) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 1000 AS 'MODULE_PATHNAME', 'kvstore_leases';
COMMENT ON FUNCTION kvstore.leases() IS 'see the view kv_leases';

CREATE VIEW kv_leases AS
    SELECT CASE WHEN c.relnamespace = 'kvstore'::pg_catalog.regnamespace AND pg_catalog.starts_with(c.relname, 'q_') THEN pg_catalog.substr(c.relname, 3) END AS queue, l.id, l.pid, l.since, l.leased_until, l.attempts::bigint AS attempts, l.state, l.error
    FROM kvstore.leases() l
    JOIN pg_catalog.pg_class c ON c.oid = l.relid;
GRANT SELECT ON kv_leases TO PUBLIC;
COMMENT ON VIEW kv_leases IS
    'which session holds which message until when (queue NULL: its table is no longer a queue; state leased; ending: a transaction is about to settle it; returned: no session holds it, its failure is not written down yet; dying: given up, to become a dead letter; stuck: that could not be done, error says why); for roles that may read all statistics';
