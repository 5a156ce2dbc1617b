-- kvs: needs preload
-- How long a time is: a day has 24 hours, whatever the time zone, and nothing is longer than what can be kept.
\pset format unaligned
\pset fieldsep ' | '
SELECT kv_create_store('du'), kv_create_queue('du'), kv_create_queue('du_days', backoff => '{200 days,3 months}', max_attempts => 9);

-- Somewhere within these days the clocks change, in all of these zones.
CREATE TEMP TABLE du_zones (zone text);
INSERT INTO du_zones VALUES ('UTC'), ('America/New_York'), ('Europe/Berlin'), ('Australia/Lord_Howe'), ('Asia/Kolkata');
CREATE TEMP TABLE du_length (zone text, what text, length interval);
CREATE PROCEDURE du_measure(zone text) LANGUAGE plpgsql AS $$
DECLARE
    t timestamptz;
    r text;
BEGIN
    PERFORM set_config('timezone', zone, false);
    t := clock_timestamp();
    PERFORM kv_set('k', '1', ttl => '200 days', store => 'du');
    INSERT INTO du_length SELECT zone, 'ttl of an entry', expires_at - t FROM kv_entry('k', 'du');
    PERFORM kv_expire('k', ttl => '3 months', store => 'du');
    INSERT INTO du_length SELECT zone, 'ttl of 3 months', (expires_at AT TIME ZONE 'UTC') - (t AT TIME ZONE 'UTC' + interval '3 months') FROM kv_entry('k', 'du');
    PERFORM kv_enqueue('du', '1', delay => '200 days', ttl => '300 days');
    INSERT INTO du_length SELECT zone, 'delay', ready_at - enqueued_at FROM kvstore.q_du;
    INSERT INTO du_length SELECT zone, 'ttl of a message', expires_at - enqueued_at FROM kvstore.q_du;
    COMMIT;
    PERFORM kv_purge_queue('du');
    PERFORM kv_enqueue('du_days', '1');
    t := clock_timestamp();
    PERFORM kv_nack(receipt) FROM kv_dequeue('du_days');
    -- the jitter of backoff is up to a fifth
    INSERT INTO du_length SELECT zone, 'backoff', CASE WHEN ready_at - t BETWEEN interval '160 days' AND interval '240 days 1 min' THEN interval '200 days' END FROM kvstore.q_du_days;
    COMMIT;
    PERFORM kv_purge_queue('du_days');
    PERFORM kv_enqueue('du_days', '1');
    t := clock_timestamp();
    PERFORM kv_nack(receipt, delay => '200 days') FROM kv_dequeue('du_days');
    INSERT INTO du_length SELECT zone, 'delay of a nack', ready_at - t FROM kvstore.q_du_days;
    COMMIT;
    PERFORM kv_purge_queue('du_days');
    PERFORM kv_enqueue('du_days', '1');
    t := clock_timestamp();
    PERFORM kv_release(receipt, delay => '200 days') FROM kv_dequeue('du_days');
    INSERT INTO du_length SELECT zone, 'delay of a release', ready_at - t FROM kvstore.q_du_days;
    COMMIT;
    PERFORM kv_purge_queue('du_days');
END $$;
SELECT format('CALL du_measure(%L)', zone) FROM du_zones \gexec
SET timezone = 'UTC';
SELECT what, count(*) AS zones, min(date_trunc('minute', length + interval '30 s')) AS shortest, max(date_trunc('minute', length + interval '30 s')) AS longest FROM du_length GROUP BY 1 ORDER BY 1;
-- A default ttl, too.
SELECT kv_alter_store('du', default_ttl => '200 days');
SET timezone = 'Europe/Berlin';
SELECT kv_set('d', '1', store => 'du') > 0 AS set;
SET timezone = 'UTC';
SELECT justify_hours(date_trunc('minute', expires_at - clock_timestamp() + interval '30 s')) AS default_ttl FROM kv_entry('d', 'du');

--
-- Bounds of what is sent
--

SELECT call, outcome(call) FROM unnest(ARRAY[
    $$kv_enqueue('du', '1', backoff => '{300000 years}')$$, $$kv_enqueue('du', '1', backoff => '{1 year 1 s}')$$, $$kv_enqueue('du', '1', backoff => '{1s,367 days}')$$, $$kv_enqueue('du', '1', backoff => '{-1 s}')$$,
    $$kv_enqueue('du', '1', backoff => '{1 month -32 days}')$$, $$kv_enqueue('du', '1', backoff => '{-2147483648 days}')$$, $$kv_enqueue('du', '1', backoff => '{2147483647 days}')$$, $$kv_enqueue('du', '1', backoff => '{178956970 years}')$$,
    $$(SELECT count(*) FROM kv_enqueue_many('du', '{1,2}', backoff => '{300000 years}'))$$, $$kv_create_queue('du_bad', backoff => '{1 s,13 months}')$$, $$kv_alter_queue('du', backoff => '{300000 years}')$$,
    $$(SELECT ok FROM kv_atomic('[{"enqueue": {"queue": "du", "payload": 1, "backoff_ms": [31708800000]}}]', 'du'))$$, $$(SELECT ok FROM kv_atomic('[{"enqueue": {"queue": "du", "payload": 1, "delay_ms": 252000000000000}}]', 'du'))$$,
    $$(SELECT ok FROM kv_atomic('[{"enqueue": {"queue": "du", "payload": 1, "ttl_ms": 252000000000000}}]', 'du'))$$,
    $$kv_enqueue('du', '1', delay => '8000 years')$$, $$kv_enqueue('du', '1', delay => '300000 years')$$, $$kv_enqueue('du', '1', delay => '-300000 years')$$, $$kv_enqueue('du', '1', delay => '-1 day')$$,
    $$kv_enqueue('du', '1', ttl => '8000 years')$$, $$kv_enqueue('du', '1', ttl => '300000 years')$$, $$kv_enqueue('du', '1', ttl => '-1 us')$$,
    $$kv_enqueue('du', '1', ready_at => '10000-01-01')$$, $$kv_enqueue('du', '1', ready_at => '294276-01-01')$$, $$kv_enqueue('du', '1', ready_at => 'infinity')$$]) call;
SELECT count(*) FROM kv_peek('du');
-- The last that is allowed, and the shortest.
SELECT kv_enqueue('du', '1', ready_at => '9999-12-31 23:59:59.999999', ttl => '7900 years', backoff => '{1 year,366 days,0,1 us}') > 0 AS sent, kv_enqueue('du', '2', ready_at => '-infinity') > 0 AS now;
SELECT payload, status, ready_at < '9999-01-01' AS soon FROM kv_peek('du');

-- What a consumer asks for.
SELECT receipt FROM kv_dequeue('du') \gset
SELECT call, outcome(format(call, :'receipt')) FROM unnest(ARRAY['kv_nack(%L, delay => ''300000 years'')', 'kv_nack(%L, delay => ''8000 years'')', 'kv_release(%L, ''300000 years'')', 'kv_extend(%L, ''300000 years'')']) call;
SELECT outcome($$(SELECT count(*) FROM kv_dequeue('du', lease => '300000 years'))$$), outcome($$(SELECT count(*) FROM kv_dequeue('du', lease => '-300000 years'))$$), outcome($$(SELECT count(*) FROM kv_dequeue('du', wait => '-300000 years'))$$);
SELECT kv_nack(:'receipt', delay => '7000 years');

--
-- What came past those bounds does no harm: it is cut to them
--

ALTER TABLE kvstore.q_du DISABLE TRIGGER ALL;
INSERT INTO kvstore.q_du (ready_at, enqueued_at, payload, backoff) VALUES (now(), now(), '"long"', '{300000 years}'), (now(), now(), '"odd"', ARRAY[NULL, interval '-5 s']), (now(), now(), '"square"', '{{1 min,2 min},{3 min,4 min}}'),
    (now(), now(), '"many"', array_fill('1 min'::interval, ARRAY[40]));
ALTER TABLE kvstore.q_du ENABLE ALWAYS TRIGGER kvstore_guard;
ALTER TABLE kvstore.q_du ENABLE ALWAYS TRIGGER kvstore_guard_after;
SELECT kv_enqueue('du', '"wake"') > 0;
SELECT count(kv_nack(receipt)) FROM kv_dequeue('du', 10);
SELECT payload, CASE WHEN ready_at < clock_timestamp() + '1 s' THEN 'at once' WHEN ready_at < clock_timestamp() + '2 min' THEN 'soon' WHEN ready_at < clock_timestamp() + '500 days' THEN 'within a year or so' END AS again
    FROM kvstore.q_du WHERE jsonb_typeof(payload) = 'string' AND payload <> '"wake"' ORDER BY payload::text;
UPDATE kvstore.queues SET backoff = '{300000 years}' WHERE queue = 'du_days';
SELECT kv_enqueue('du_days', '1') > 0;
SELECT outcome('(SELECT kv_nack(receipt) FROM kv_dequeue(''du_days''))');

SELECT kv_drop_store('du'), kv_drop_queue('du'), kv_drop_queue('du_days');
DROP PROCEDURE du_measure;
