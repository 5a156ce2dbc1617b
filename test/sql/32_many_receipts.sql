-- kvs: needs preload
-- Many receipts in one call: how many were good, and which.
\pset format unaligned
\pset fieldsep ' | '
SELECT kv_create_queue('mr', backoff => '{1h}', max_attempts => 3);

CREATE TEMP TABLE mr_got (payload jsonb, receipt text);
CREATE FUNCTION mr_send(count int) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM kv_enqueue_many('mr', (SELECT array_agg(to_jsonb(g)) FROM generate_series(1, count) g)) $$;
CREATE FUNCTION mr_take() RETURNS bigint LANGUAGE sql AS $$
    DELETE FROM mr_got;
    INSERT INTO mr_got SELECT payload, receipt FROM kv_dequeue('mr', 100);
    SELECT count(*) FROM mr_got $$;
CREATE FUNCTION mr(n int) RETURNS text LANGUAGE sql AS $$ SELECT receipt FROM mr_got WHERE payload = to_jsonb(n) $$;
-- Which receipt of those that were taken it is, or what else.
CREATE FUNCTION mr_name(r text) RETURNS text LANGUAGE sql AS $$ SELECT COALESCE((SELECT payload::text FROM mr_got WHERE receipt = r), r, 'null') $$;

--
-- None
--

SELECT kv_ack_many(NULL), kv_nack_many(NULL), kv_release_many(NULL), kv_extend_many(NULL);
SELECT kv_ack_many('{}'), kv_nack_many('{}'), kv_release_many('{}'), kv_extend_many('{}');
SELECT kv_ack_many(array_agg(receipt)) FROM kv_dequeue('mr', 10);
SELECT * FROM kv_ack_each(NULL);
SELECT * FROM kv_nack_each('{}'), kv_release_each(NULL), kv_extend_each('{}');

--
-- What is no receipt is stale, and the others are settled
--

SELECT mr_send(5);
SELECT mr_take();
SELECT kv_ack_many(ARRAY[mr(1), 'x', NULL, '', mr(1), left(mr(2), 44), mr(2)]) AS two;
SELECT kv_nack_many(ARRAY['x', mr(3)]), kv_release_many(ARRAY[NULL, mr(4), mr(4)], '1 h'), kv_extend_many(ARRAY[mr(5), 'y'], '1 h');
SELECT payload, status, attempts FROM kv_peek('mr');
-- One alone is still told apart from a stale one.
SELECT outcome($$kv_ack('x')$$), outcome($$kv_nack(NULL)$$);
SELECT kv_purge_queue('mr');

--
-- Which
--

SELECT mr_send(8);
SELECT mr_take();
SELECT kv_ack(mr(1));
SELECT row_number() OVER () AS n, mr_name(receipt) AS receipt, ok FROM kv_ack_each(ARRAY[mr(2), mr(1), NULL, 'x', mr(3), mr(2)]);
SELECT mr_name(receipt) AS receipt, result FROM kv_nack_each(ARRAY[mr(1), mr(4), 'x', NULL, mr(4)], error => 'no');
SELECT mr_name(receipt) AS receipt, result FROM kv_nack_each(ARRAY[mr(5), mr(2)], dead => true);
SELECT mr_name(receipt) AS receipt, ok FROM kv_release_each(ARRAY[NULL, mr(6), mr(6), mr(3)]);
SELECT mr_name(receipt) AS receipt, ok FROM kv_release_each(ARRAY[mr(7), mr(1)], delay => '1 h');
SELECT mr_name(receipt) AS receipt, leased_until > clock_timestamp() + '59 min' AS for_an_hour FROM kv_extend_each(ARRAY[mr(8), 'x', mr(1), NULL, mr(8)], '1 h');
SELECT mr_name(receipt) AS receipt, leased_until < clock_timestamp() + '31 s' AS as_the_queue FROM kv_extend_each(ARRAY[mr(8)]);
SELECT payload, status, attempts, last_error FROM kv_peek('mr');
SELECT payload, attempts FROM kv_dead_letters('mr');

-- As one transaction: what is rolled back was not acknowledged.
BEGIN;
SELECT mr_name(receipt) AS receipt, ok FROM kv_ack_each(ARRAY[mr(8), mr(1)]);
ROLLBACK;
SELECT ok FROM kv_ack_each(ARRAY[mr(8)]);

-- Receipts of several queues, one of which is gone, in any order.
SELECT kv_create_queue('mr2'), kv_create_queue('mr3'), kv_enqueue('mr2', '20') > 0, kv_enqueue('mr3', '30') > 0;
INSERT INTO mr_got SELECT q.payload, q.receipt FROM unnest(ARRAY['mr2', 'mr3']) n, LATERAL kv_dequeue(n) q;
SELECT kv_drop_queue('mr3');
SELECT mr_name(receipt) AS receipt, ok FROM kv_ack_each(ARRAY[mr(30), mr(20), mr(7), mr(20)]);

--
-- Arguments, rights, transactions
--

SELECT call, outcome('(SELECT count(*) FROM ' || call || ')') FROM unnest(ARRAY[$$kv_nack_each('{}', delay => '-1 s')$$, $$kv_release_each('{}', '-1 s')$$, $$kv_nack_each(NULL, delay => '300000 years')$$]) call;
SELECT outcome(format('(SELECT count(*) FROM kv_extend_each(%L, ''13 hours''))', ARRAY[mr(20)]));
CREATE ROLE regress_kvs_mr;
SELECT kv_enqueue('mr', '40') > 0 AS sent, mr_take() AS taken;
SELECT mr(40) AS receipt \gset
SET ROLE regress_kvs_mr;
SELECT call, outcome(format('(SELECT count(*) FROM %s(%L))', call, ARRAY[:'receipt'])) FROM unnest(ARRAY['kv_ack_each', 'kv_nack_each', 'kv_release_each', 'kv_extend_each']) call;
RESET ROLE;
BEGIN READ ONLY;
SELECT call, outcome(format('(SELECT count(*) FROM %s(%L))', call, '{}')) FROM unnest(ARRAY['kv_ack_each', 'kv_nack_each', 'kv_release_each', 'kv_extend_each']) call;
ROLLBACK;
DROP ROLE regress_kvs_mr;

--
-- An error is kept, but not more of it than 8 kB
--

SELECT kv_purge_queue('mr') > 0;
SELECT mr_send(4) AS sent, mr_take() AS taken;
SELECT kv_nack(mr(1), error => repeat('x', 100000)), kv_nack(mr(2), error => repeat('é', 5000), dead => true), kv_nack(mr(3), error => 'y' || repeat('€', 5000)), kv_nack(mr(4), error => '');
SELECT payload, octet_length(last_error) AS bytes, length(last_error) AS characters, right(last_error, 1) AS last FROM kv_peek('mr');
SELECT payload, octet_length(error) AS bytes, right(error, 1) AS last FROM kv_dead_letters('mr') WHERE payload = '2';

SELECT kv_drop_queue('mr'), kv_drop_queue('mr2');
DROP FUNCTION mr_send, mr_take, mr, mr_name;
