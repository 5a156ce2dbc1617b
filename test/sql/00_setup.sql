-- The extension, for all tests that follow, and two functions that report errors as rows, with SQLSTATE, message, detail and hint.

SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kvstore;
RESET client_min_messages;

-- The value of an expression as text, or its error.
CREATE FUNCTION outcome(expression text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    state text;
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE 'SELECT (' || expression || ')::text' INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', state, message, nullif(detail, ''), nullif(hint, ''));
END $$;

-- How many rows a statement wrote, or its error.
CREATE FUNCTION outcome_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    count bigint;
    state text;
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    GET DIAGNOSTICS count = ROW_COUNT;
    RETURN count || ' rows';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', state, message, nullif(detail, ''), nullif(hint, ''));
END $$;

-- An extension of its own objects only: no store yet, and nothing in the registry.
SELECT extversion = kv_version() AS library_is_of_this_version FROM pg_extension WHERE extname = 'kvstore';
SELECT count(*) FROM kv_stores;
SELECT count(*) FROM kvstore.stores;
SELECT outcome($$kv_get('a')$$);
SELECT connected, in_recovery, stores, keys_estimate, queues, ready, leased, dead, oldest_expired_age_s FROM kv_health();
