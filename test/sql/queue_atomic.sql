-- kv_atomic with messages: sent with the entries or not at all.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_queue('qa'), kv_create_store('qa');
CREATE FUNCTION qa(operations jsonb) RETURNS text LANGUAGE sql AS $$ SELECT concat_ws(' ', ok, versionstamp > 0, failed_checks) FROM kv_atomic(operations, 'qa') $$;
CREATE FUNCTION qa_state() RETURNS text LANGUAGE sql AS $$ SELECT concat((SELECT string_agg(payload::text, ' ' ORDER BY id) FROM kvstore.q_qa), ' / ', kv_get('k', 'qa')) $$;

SELECT qa('[{"set": {"key": "k", "value": 1}}, {"enqueue": {"queue": "qa", "payload": {"a": [1, null]}}}, {"enqueue": {"queue": "qa", "payload": null}}, {"sum": {"key": "k", "value": 2}}]'), qa_state();
SELECT qa_state();
SELECT payload, receipt IS NOT NULL AS leased FROM kv_dequeue('qa', 10);
SELECT kv_purge_queue('qa');
-- All options.
SELECT qa('[{"enqueue": {"queue": "qa", "payload": "all", "delay_ms": 60000, "priority": 9, "headers": {"h": [1]}, "max_attempts": 7, "backoff_ms": [100, 0.4, 2000], "ttl_ms": 3600000, "dedupe_key": "d", "keys_if_undelivered": ["k", ["a", 1]], "undelivered_store": "qa"}}]');
SELECT payload, ready_at - enqueued_at AS delay, priority, headers, max_attempts, backoff, expires_at - enqueued_at AS ttl, dedupe_key, keys_if_undelivered, undelivered_store FROM kvstore.q_qa;
SELECT qa('[{"enqueue": {"queue": "qa", "payload": "nulls", "delay_ms": null, "priority": null, "headers": null, "max_attempts": null, "backoff_ms": null, "ttl_ms": null, "dedupe_key": null, "keys_if_undelivered": null, "undelivered_store": null}}]');
SELECT payload, ready_at - enqueued_at AS delay, priority, headers, max_attempts, backoff, expires_at, dedupe_key, keys_if_undelivered, undelivered_store FROM kvstore.q_qa WHERE dedupe_key IS NULL;
-- One that has its dedupe_key is not sent again, and that is no failure; those without one keep their order.
SELECT qa('[{"enqueue": {"queue": "qa", "payload": 1}}, {"enqueue": {"queue": "qa", "payload": "z", "dedupe_key": "z"}}, {"enqueue": {"queue": "qa", "payload": 2}}, {"enqueue": {"queue": "qa", "payload": "again", "dedupe_key": "d"}}, {"enqueue": {"queue": "qa", "payload": 3}}]'), qa_state();
SELECT kv_purge_queue('qa');

--
-- Not at all
--

SELECT qa('[{"enqueue": {"queue": "qa", "payload": 1}}, {"check": {"key": "k", "versionstamp": 900000000000000}}, {"set": {"key": "k", "value": 5}}]');
SELECT qa_state();
SELECT operations, outcome(format('qa(%L)', operations)) AS outcome FROM unnest(ARRAY[
    '[{"enqueue": {}}]', '[{"enqueue": 1}]', '[{"enqueue": {"queue": "qa"}}]', '[{"enqueue": {"payload": 1}}]', '[{"set": {"key": "k", "value": 6}}, {"enqueue": {"queue": "none", "payload": 1}}]',
    '[{"set": {"key": "k", "value": 6}}, {"enqueue": {"queue": "qa", "payload": 1, "key": "k"}}]', '[{"enqueue": {"queue": 1, "payload": 1}}]', '[{"enqueue": {"queue": "QA", "payload": 1}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "priority": 10}}]',
    '[{"enqueue": {"queue": "qa", "payload": 1, "priority": 1.5}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "priority": 65536}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "priority": 1e100}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "priority": -4294967296}}]',
    '[{"enqueue": {"queue": "qa", "payload": 1, "priority": "1"}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "delay_ms": -1}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "delay_ms": 1e30}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "ttl_ms": "1"}}]',
    '[{"enqueue": {"queue": "qa", "payload": 1, "max_attempts": 0}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "max_attempts": 1e10}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "backoff_ms": 5}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "backoff_ms": {}}}]',
    '[{"enqueue": {"queue": "qa", "payload": 1, "backoff_ms": [-5]}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "backoff_ms": [null]}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "backoff_ms": [[1]]}}]',
    '[{"enqueue": {"queue": "qa", "payload": 1, "backoff_ms": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "dedupe_key": 1}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "keys_if_undelivered": "k"}}]',
    '[{"enqueue": {"queue": "qa", "payload": 1, "keys_if_undelivered": [1]}}]', '[{"enqueue": {"queue": "qa", "payload": 1, "keys_if_undelivered": ["k"], "undelivered_store": "none"}}]', '[{"enqueue": {"queue": "qa", "payload": 1}, "set": {"key": "k", "value": 1}}]']) operations;
SELECT qa_state();
-- Rights are those of sending.
CREATE ROLE regress_kvs_qa;
GRANT SELECT, INSERT, UPDATE, DELETE ON kvstore.s_qa TO regress_kvs_qa;
SET ROLE regress_kvs_qa;
SELECT outcome($$qa('[{"set": {"key": "k", "value": 7}}, {"enqueue": {"queue": "qa", "payload": 1}}]')$$);
RESET ROLE;
GRANT INSERT ON kvstore.q_qa TO regress_kvs_qa;
SET ROLE regress_kvs_qa;
SELECT outcome($$qa('[{"set": {"key": "k", "value": 7}}, {"enqueue": {"queue": "qa", "payload": 1}}]')$$);
RESET ROLE;
SELECT qa_state();

SELECT kv_drop_queue('qa'), kv_drop_store('qa');
DROP FUNCTION qa, qa_state;
DROP ROLE regress_kvs_qa;
