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

--
-- The oldest message is found whatever lies before it
--

SELECT kv_create_queue('qo');
SELECT oldest_age_s FROM kv_queue_stats('qo');
-- One batch, all ready at one time, of which some are leased.
SELECT count(*) FROM kv_enqueue_many('qo', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 1000) i));
SELECT count(*) FROM kv_dequeue('qo', 150);
SELECT ready, leased, oldest_age_s IS NOT NULL AS known FROM kv_queue_stats('qo');
-- All are leased: none is ready.
SELECT count(*) FROM kv_dequeue('qo', 1000);
SELECT ready, leased, oldest_age_s IS NOT NULL AS known FROM kv_queue_stats('qo');
-- More entries of what was never committed than are looked at.
BEGIN;
SELECT count(*) FROM kv_enqueue_many('qo', array_fill('1'::jsonb, ARRAY[20000]));
ROLLBACK;
SELECT kv_enqueue('qo', '"late"') > 0;
SELECT oldest_age_s IS NOT NULL AS known FROM kv_queue_stats('qo');
SELECT kv_purge_queue('qo') > 0;
-- The first of all priorities.
SELECT kv_enqueue('qo', '1', priority => 9) > 0, pg_sleep(0.02) IS NOT NULL, kv_enqueue('qo', '2', delay => '1 hour') > 0, kv_enqueue('qo', '3', priority => 3) > 0;
SELECT delayed, oldest_age_s > 0.02 AS first FROM kv_queue_stats('qo');
SELECT kv_drop_queue('qo');
