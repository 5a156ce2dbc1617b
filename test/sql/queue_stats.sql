-- Counts of queues: pg_stat_kvstore_queue, metrics.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_queue('qs', backoff => '{}', max_attempts => 2);
CREATE VIEW qs_counts AS SELECT enqueued, delivered, redelivered, acked, retried, released, dead, expired, cancelled, purged FROM pg_stat_kvstore_queue WHERE queue = 'qs';

--
-- What is counted
--

SELECT count(*) FROM kv_enqueue_many('qs', '{1,2,3,4,5,6}');
SELECT kv_ack(receipt) FROM kv_dequeue('qs');
SELECT kv_nack(receipt) FROM kv_dequeue('qs');
SELECT kv_nack(receipt) FROM kv_dequeue('qs');
SELECT kv_release(receipt) FROM kv_dequeue('qs');
SELECT kv_release_id('qs', id) FROM kv_dequeue('qs');
SELECT kv_release(receipt, '1 hour') FROM kv_dequeue('qs');
SELECT kv_nack(receipt, dead => true) FROM kv_dequeue('qs');
SELECT kv_cancel('qs', min(id)), kv_cancel('qs', 0) FROM kv_peek('qs');
SELECT kv_purge_queue('qs');
SELECT * FROM qs_counts;
SELECT kv_dead_requeue_all('qs');
SELECT enqueued FROM qs_counts;
-- One whose dedupe_key is taken is not sent.
SELECT kv_purge_queue('qs');
SELECT kv_enqueue('qs', '1', dedupe_key => 'a') = kv_enqueue('qs', '1', dedupe_key => 'a') AS same;
SELECT kv_cancel('qs', min(id)) FROM kv_peek('qs');
SELECT enqueued FROM qs_counts;
-- What a rollback undoes has happened.
BEGIN;
SELECT count(*) FROM kv_enqueue_many('qs', '{1,2}');
ROLLBACK;
SELECT enqueued FROM qs_counts;
-- Waiting.  On a slow machine the time may be over with the first look, without a sleep: for longer and longer, until there was one.
DO $$ BEGIN
    FOR i IN 0 .. 9 LOOP
        ASSERT NOT EXISTS (SELECT FROM kv_dequeue('qs', wait => 2 ^ i * interval '10 ms'));
        EXIT WHEN (SELECT waits FROM pg_stat_kvstore_queue WHERE queue = 'qs') > 0;
    END LOOP;
    FOR i IN 0 .. 9 LOOP
        CALL kv_wait_queue('qs', 2 ^ i * interval '10 ms');
        EXIT WHEN (SELECT waits FROM pg_stat_kvstore_queue WHERE queue = 'qs') > 1;
    END LOOP;
END $$;
SELECT waits, wakeups FROM pg_stat_kvstore_queue WHERE queue = 'qs';
-- Metrics go by the table of counters; names of queues are labels.
SELECT m -> 'queue_enqueued_total' ->> 'qs' AS enqueued, m -> 'queue_dead_total' ->> 'qs' AS dead FROM kv_metrics() m;
SELECT line FROM regexp_split_to_table(kv_metrics_prometheus(), '\n') line WHERE line ~ 'queue_acked' AND line !~ '"' OR line ~ 'queue_acked.*"qs"';

DROP VIEW qs_counts;
SELECT kv_drop_queue('qs');
