-- Receiving: what a dequeue gives and in what order, ack, nack, release, extend, their forms for many, receipts, bad input, rights, owners' triggers.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_queue('dl', lease => '1 min', max_attempts => 3, backoff => '{}');
-- The receipts that were given, and what was said of them.
CREATE TABLE dl_got (n serial, payload jsonb, receipt text, attempts bigint);
CREATE FUNCTION dl_get(maximum bigint DEFAULT 1) RETURNS TABLE (payload jsonb, attempts bigint, priority bigint, headers jsonb) LANGUAGE sql AS $$
    WITH m AS (SELECT * FROM kv_dequeue('dl', maximum)), i AS (INSERT INTO dl_got (payload, receipt, attempts) SELECT m.payload, m.receipt, m.attempts FROM m)
    SELECT m.payload, m.attempts, m.priority, m.headers FROM m
$$;
CREATE FUNCTION dl_receipt(what jsonb) RETURNS text LANGUAGE sql AS $$ SELECT receipt FROM dl_got WHERE payload = what ORDER BY n DESC LIMIT 1 $$;

--
-- Order: priority, then ready_at, then id
--

SELECT count(kv_enqueue('dl', to_jsonb(p), priority => p)) FROM generate_series(0, 9) p;
SELECT kv_enqueue('dl', '"second"', priority => 4) > 0, kv_enqueue('dl', '"headers"', headers => '{"a": [1]}', priority => 9) > 0;
SELECT count(*) FROM kv_enqueue_many('dl', '{"\"m1\"", "\"m2\"", "\"m3\""}', priority => 2);
SELECT kv_enqueue('dl', '"later"', delay => '1 hour') > 0, kv_enqueue('dl', '"past"', ready_at => '2001-01-01') > 0;
SELECT * FROM dl_get(3);
SELECT payload, priority FROM dl_get(100);
SELECT count(*) FROM dl_get(100);
SELECT kv_ack_many(array_agg(receipt)) FROM dl_got;
SELECT payload, status FROM kv_peek('dl');
-- What is delayed comes when its time has come, and not before.
SET kvstore.test_clock = 3540;
SELECT * FROM dl_get();
SET kvstore.test_clock = 3610;
SELECT * FROM dl_get();
RESET kvstore.test_clock;
SELECT kv_ack(dl_receipt('"later"')), kv_ack(dl_receipt('"later"'));
-- The columns.
SELECT kv_enqueue('dl', '{"a": null}') AS id \gset
SELECT id = :id AS id, payload, length(receipt), attempts, priority, headers, enqueued_at BETWEEN now() - interval '1 min' AND clock_timestamp() AS enqueued,
    leased_until - clock_timestamp() BETWEEN interval '55 s' AND interval '60 s' AS leased, receipt AS receipt FROM kv_dequeue('dl') \gset
\echo :id :payload :length :attempts :priority :enqueued :leased
SELECT kv_ack(:'receipt');
-- Several at once, none, and more than there are.
SELECT count(*) FROM kv_enqueue_many('dl', (SELECT array_agg(to_jsonb(g)) FROM generate_series(1, 1000) g));
SELECT count(*) FROM dl_get(0);
SELECT count(*), min(payload::int), max(payload::int) FROM dl_get(400);
SELECT count(*), min(payload::int), max(payload::int) FROM dl_get(10000);
SELECT queue, count(*), min(attempts), bool_and(pid = pg_backend_pid()), min(state) FROM kv_leases WHERE queue = 'dl' GROUP BY queue;
SELECT kv_ack_many((SELECT array_agg(receipt) FROM dl_got));
SELECT count(*) FROM kvstore.q_dl;
SELECT count(*) FROM kv_leases WHERE queue = 'dl';
-- A lease of one's own length.
SELECT kv_enqueue('dl', '"x"') > 0;
SELECT leased_until - clock_timestamp() BETWEEN interval '719 min' AND interval '12 hours' AS longest, receipt FROM kv_dequeue('dl', lease => '12 hours') \gset
SELECT :'longest' AS longest, kv_extend(:'receipt') - clock_timestamp() BETWEEN interval '55 s' AND interval '60 s' AS usual, kv_extend(:'receipt', '3 hours') > now() + interval '179 min' AS longer;
SELECT kv_extend_many(ARRAY[:'receipt', :'receipt'], '2 hours') AS extended;
SELECT leased_until < now() + interval '121 min' AS shorter FROM kv_leases WHERE queue = 'dl';
SELECT kv_ack(:'receipt'), kv_extend(:'receipt') IS NULL AS gone;

-- Late ones, as a restore brings them, each far behind where a receiver has come to: more than there is room for, the last one of a priority that has none yet.
SELECT kv_create_queue('late');
SELECT count(kv_enqueue('late', '0', priority => i)) FROM generate_series(0, 1) i;
SELECT count(kv_ack(receipt)) FROM kv_dequeue('late', 10);
DO $$ BEGIN
    FOR i IN 1..71 LOOP
        INSERT INTO kvstore.q_late (id, priority, ready_at, enqueued_at, payload)
            VALUES (1000 + i, i / 71, '2001-01-01'::timestamptz + (i * 37 % 71) * interval '1 day', '2001-01-01', to_jsonb(i));
        COMMIT;
    END LOOP;
END $$;
SELECT count(*), count(DISTINCT payload), bool_and(kv_ack(receipt)) FROM kv_dequeue('late', 1000);
SELECT count(*) FROM kvstore.q_late;
SELECT kv_drop_queue('late');

--
-- Attempts: nack counts, release does not
--

SELECT kv_enqueue('dl', '"fails"') > 0;
SELECT payload, attempts FROM dl_get();
SELECT kv_nack(dl_receipt('"fails"'), error => 'first');
SELECT payload, status, attempts, max_attempts, last_error FROM kv_peek('dl');
SELECT payload, attempts FROM dl_get();
SELECT kv_release(dl_receipt('"fails"')), kv_release(dl_receipt('"fails"'));
SELECT payload, attempts FROM dl_get();
SELECT kv_nack(dl_receipt('"fails"'));
SELECT payload, status, attempts, last_error FROM kv_peek('dl');
SELECT payload, attempts FROM dl_get();
SELECT kv_release(dl_receipt('"fails"'), '10 min');
SELECT payload, status, attempts FROM kv_peek('dl');
SET kvstore.test_clock = 601;
SELECT payload, attempts FROM dl_get();
RESET kvstore.test_clock;
SELECT kv_nack(dl_receipt('"fails"'), delay => '1 hour', error => 'third'), kv_nack(dl_receipt('"fails"')) AS again;
SELECT original_id = max(n.id) OVER () IS NOT NULL AS numbered, payload, error, attempts, enqueued_at < failed_at AS in_order FROM kv_dead_letters('dl') n;
SELECT count(*) FROM kvstore.q_dl;
SELECT kv_dead_purge('dl');
-- Dead at once; without an error.
SELECT kv_enqueue('dl', '"no use"') > 0;
SELECT payload FROM dl_get();
SELECT kv_nack(dl_receipt('"no use"'), dead => true);
SELECT payload, error, attempts FROM kv_dead_letters('dl');
SELECT kv_dead_purge('dl');
-- A message's own limit and backoff; its delays are its own, the last one repeats.
SELECT kv_alter_queue('dl', backoff => '{1s,2s}');
SELECT kv_enqueue('dl', '"own"', max_attempts => 5, backoff => '{10s,20s,30s}') > 0, kv_enqueue('dl', '"queue"', max_attempts => 5) > 0;
CREATE FUNCTION dl_fail(what jsonb, delay interval) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    before timestamptz;
BEGIN
    PERFORM set_config('kvstore.test_clock', '100000', true);
    PERFORM dl_get(10);
    PERFORM set_config('kvstore.test_clock', '0', true);
    before := clock_timestamp();
    PERFORM kv_nack(dl_receipt(what));
    RETURN (SELECT ready_at - delay BETWEEN before AND clock_timestamp() FROM kvstore.q_dl WHERE payload = what);
END $$;
SELECT dl_fail('"own"', '10 s'), dl_fail('"queue"', '1 s');
SELECT dl_fail('"own"', '20 s'), dl_fail('"queue"', '2 s');
SELECT dl_fail('"own"', '30 s'), dl_fail('"queue"', '2 s');
SELECT dl_fail('"own"', '30 s'), dl_fail('"queue"', '2 s');
SELECT payload, attempts, max_attempts FROM kv_peek('dl');
SELECT dl_fail('"own"', '30 s') IS NULL AS dead, dl_fail('"queue"', '2 s') IS NULL AS dead;
SELECT payload, attempts FROM kv_dead_letters('dl');
SELECT kv_dead_purge('dl'), kv_alter_queue('dl', backoff => '{}', keep_dead => false);
-- A queue that keeps none.
SELECT kv_enqueue('dl', '"gone"') > 0;
SELECT payload FROM dl_get();
SELECT kv_nack(dl_receipt('"gone"'), dead => true), (SELECT count(*) FROM kvstore.q_dl), (SELECT count(*) FROM kvstore.d_dl);
SELECT kv_alter_queue('dl', keep_dead => true);

--
-- Many: each receipt for itself
--

SELECT count(*) FROM kv_enqueue_many('dl', '{1,2,3,4}');
SELECT count(*) FROM dl_get(10);
CREATE TABLE dl_four AS SELECT payload, receipt FROM dl_got ORDER BY n DESC LIMIT 4;
SELECT kv_nack_many(array_agg(receipt), error => 'all') FROM dl_four WHERE payload IN ('1', '2');
SELECT kv_nack_many(array_agg(receipt), dead => true) FROM dl_four WHERE payload IN ('2', '3');
SELECT kv_ack_many(array_agg(receipt)) FROM dl_four WHERE payload IN ('3', '4');
SELECT payload, attempts, last_error FROM kv_peek('dl');
SELECT payload, error FROM kv_dead_letters('dl') ORDER BY payload;
SELECT payload FROM dl_get(10);
SELECT kv_release_many(ARRAY[dl_receipt('1'), dl_receipt('2'), dl_receipt('1')]), kv_extend_many('{}'), kv_ack_many('{}'), kv_nack_many('{}'), kv_release_many('{}');
SELECT payload FROM dl_get(10);
SELECT kv_release_many(ARRAY[dl_receipt('1')], '1 hour');
SELECT payload, status FROM kv_peek('dl');
SELECT kv_purge_queue('dl'), kv_dead_purge('dl');
-- Receipts of two queues in one call.
SELECT kv_create_queue('dl2');
SELECT kv_enqueue('dl', '1') > 0, kv_enqueue('dl2', '2') > 0, kv_enqueue('dl', '3') > 0;
SELECT kv_ack_many(array_agg(receipt ORDER BY payload)) FROM (SELECT payload, receipt FROM kv_dequeue('dl', 5) UNION ALL SELECT payload, receipt FROM kv_dequeue('dl2', 5)) u;

--
-- Transactions
--

-- Its own messages; gone with a rollback.
BEGIN;
SELECT kv_enqueue('dl', '"own"', priority => 3) > 0;
SELECT payload, attempts FROM dl_get();
SELECT kv_ack(dl_receipt('"own"'));
SELECT count(*) FROM dl_get();
ROLLBACK;
SELECT count(*) FROM dl_get();
-- Acknowledged in a subtransaction that is rolled back: it is still leased.
BEGIN;
SELECT kv_enqueue('dl', '"held"') > 0;
SELECT payload, attempts FROM dl_get();
SAVEPOINT a;
SELECT kv_ack(dl_receipt('"held"')), (SELECT state FROM kv_leases WHERE queue = 'dl');
ROLLBACK TO a;
COMMIT;
SELECT count(*) FROM dl_get();
SELECT state FROM kv_leases WHERE queue = 'dl';
SELECT kv_ack(dl_receipt('"held"'));
-- So it is when work with an exception block around it fails; that which took it, too, gives it back.
DO $$ BEGIN
    PERFORM kv_enqueue('dl', '"work"');
    PERFORM dl_get();
    BEGIN
        PERFORM kv_ack(dl_receipt('"work"')), 1 / 0;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
END $$;
SELECT count(*) FROM dl_get();
SELECT kv_ack(dl_receipt('"work"'));
BEGIN;
SELECT kv_enqueue('dl', '"both in one"') > 0;
SAVEPOINT a;
SELECT kv_ack(receipt) FROM kv_dequeue('dl');
ROLLBACK TO a;
SELECT kv_ack(receipt) FROM kv_dequeue('dl');
SELECT count(*) FROM kv_leases WHERE queue = 'dl';
COMMIT;
SELECT count(*) FROM kvstore.q_dl;
-- In one command.
SELECT m.payload, kv_ack(m.receipt) FROM (SELECT kv_enqueue('dl', '"one command"') OFFSET 0) s, LATERAL (SELECT * FROM kv_dequeue('dl') WHERE s IS NOT NULL) m;
SELECT count(*) FROM kvstore.q_dl;
-- Rolled back: at once the first time.  From the second on the failures are written down first, by the worker or kv_maintain(); dead after max_attempts.
SELECT kv_enqueue('dl', '"poison"') > 0, kv_enqueue('dl', '"behind"') > 0;
BEGIN; SELECT payload, attempts FROM dl_get(); ROLLBACK;
BEGIN; SAVEPOINT s; SELECT payload, attempts FROM dl_get(); ROLLBACK TO s; SELECT payload, attempts FROM dl_get(); ROLLBACK;
SELECT attempts, state FROM kv_leases WHERE queue = 'dl' ORDER BY attempts;
SELECT payload, attempts FROM kvstore.q_dl ORDER BY id;
SELECT kv_maintain() >= 0;
SELECT payload, attempts FROM kvstore.q_dl ORDER BY id;
BEGIN; SELECT payload, attempts FROM dl_get(2); ROLLBACK;
SELECT payload, status, attempts FROM kv_peek('dl');
SELECT kv_maintain() >= 0;
SELECT payload, error, attempts FROM kv_dead_letters('dl');
SELECT payload, status, attempts FROM kv_peek('dl');
SELECT kv_purge_queue('dl'), kv_dead_purge('dl');
SELECT count(*) FROM kv_leases WHERE queue = 'dl';
-- A failed attempt makes those that were rolled back count, too.
SELECT kv_enqueue('dl', '"both"') > 0;
BEGIN; SELECT payload, attempts FROM dl_get(); ROLLBACK;
SELECT payload, attempts FROM dl_get();
SELECT kv_nack(dl_receipt('"both"'));
SELECT payload, attempts FROM kv_peek('dl');
SELECT payload, attempts FROM dl_get();
SELECT kv_nack(dl_receipt('"both"'));
SELECT payload, attempts FROM kv_dead_letters('dl');
SELECT kv_dead_purge('dl');
-- PREPARE is refused.
BEGIN; SELECT kv_enqueue('dl', '1') > 0; PREPARE TRANSACTION 'dl';
SELECT kv_enqueue('dl', '"p"') > 0;
BEGIN; SELECT payload FROM dl_get(); PREPARE TRANSACTION 'dl';
SELECT payload, attempts FROM dl_get();
BEGIN; SELECT kv_ack(dl_receipt('"p"')); PREPARE TRANSACTION 'dl';
SELECT kv_ack(dl_receipt('"p"'));

--
-- Leases that expire, kv_release_id, pause
--

SELECT kv_enqueue('dl', '"slow"') > 0;
SELECT payload, attempts FROM dl_get();
SET kvstore.test_clock = 61;
SELECT payload, attempts FROM dl_get();
RESET kvstore.test_clock;
SELECT payload, attempts, last_error FROM kv_peek('dl');
SELECT id, kv_release_id('dl', id) AS released, kv_release_id('dl', id) AS again FROM kv_peek('dl') \gset
SELECT :'released' AS released, :'again' AS again, kv_release_id('dl', 0) AS unknown, kv_ack(dl_receipt('"slow"')) AS "while nobody has it";
-- A delivery fails once: the lease of an older receipt that is extended, and expires again, does not count again.
SELECT kv_enqueue('dl', '"twice"') > 0;
SELECT attempts FROM dl_get();
SET kvstore.test_clock = 61;
SELECT attempts FROM dl_get();
SET kvstore.test_clock = 122;
SELECT kv_maintain() >= 0;
SELECT kv_extend(receipt) IS NOT NULL AS extended FROM dl_got WHERE payload = '"twice"' AND attempts = 1;
SELECT kv_extend(receipt, '2 min') IS NOT NULL AS again FROM dl_got WHERE payload = '"twice"' AND attempts = 1;
SET kvstore.test_clock = 300;
SELECT attempts AS third FROM dl_get();
RESET kvstore.test_clock;
SELECT kv_nack(dl_receipt('"twice"'), dead => true);
SELECT payload, attempts FROM kv_dead_letters('dl');
SELECT kv_dead_purge('dl');
-- No number of failures in a row makes a receipt that is none.
SELECT kv_enqueue('dl', '"many"', max_attempts => 2147483647) > 0;
UPDATE kvstore.q_dl SET attempts = 2147483646 WHERE payload = '"many"';
SELECT payload, attempts > 1000000000 AS many FROM dl_get();
SELECT kv_extend(dl_receipt('"many"')) IS NOT NULL AS extended, kv_ack(dl_receipt('"many"'));
SELECT kv_pause_queue('dl'), kv_enqueue('dl', '"paused"') > 0;
SELECT count(*) FROM dl_get();
SELECT kv_resume_queue('dl');
SELECT payload FROM dl_get();
SELECT kv_pause_queue('dl'), kv_ack(dl_receipt('"paused"')), kv_resume_queue('dl');

--
-- Messages that expire; a dedupe_key is free again
--

SELECT kv_enqueue('dl', '"short"', ttl => '0', dedupe_key => 'k') > 0;
SELECT count(*) FROM dl_get();
SELECT kv_enqueue('dl', '"short"', ttl => '1 hour', dedupe_key => 'k') AS id \gset
SELECT kv_enqueue('dl', '"twice"', dedupe_key => 'k') = :id AS same;
SELECT payload FROM dl_get(2);
SELECT kv_enqueue('dl', '"twice"', dedupe_key => 'k') = :id AS same, kv_ack(dl_receipt('"short"')), kv_enqueue('dl', '"again"', dedupe_key => 'k') > :id AS other;
SELECT payload FROM dl_get(2);
SELECT kv_purge_queue('dl') >= 1 AS purged;

--
-- Receipts: damaged, forged, of another queue, of a queue that is gone, of another database
--

SELECT kv_enqueue('dl', '"r"') > 0;
SELECT payload FROM dl_get();
SELECT dl_receipt('"r"') AS receipt \gset
-- 4 bytes each: database, queue; 8 each: id, time, token; 4 each: number of the delivery, checksum; 2 zeros
CREATE FUNCTION dl_bits(receipt text) RETURNS bytea LANGUAGE sql AS $$ SELECT decode(receipt, 'base64') $$;
SELECT what, outcome(format('%s(%L)', f, bad)) FROM unnest(ARRAY['kv_ack', 'kv_nack', 'kv_release', 'kv_extend']) f,
    (VALUES ('empty', ''), ('text', 'no receipt'), ('too short', left(:'receipt', 52)), ('too long', :'receipt' || 'AAAA'), ('much too long', repeat(:'receipt', 100)), ('a letter changed', overlay(:'receipt' PLACING CASE substr(:'receipt', 20, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM 20)),
        ('a token made up', encode(set_byte(dl_bits(:'receipt'), 25, 255 - get_byte(dl_bits(:'receipt'), 25)), 'base64')), ('not base64', overlay(:'receipt' PLACING '*' FROM 5)), ('spaces', ' ' || :'receipt')) v(what, bad);
SELECT outcome($$kv_ack(NULL)$$), outcome($$kv_nack(NULL)$$), outcome($$kv_release(NULL)$$), outcome($$kv_extend(NULL)$$);
-- All correct, but the token: as if somebody else had it.  The checksum is not a secret; this is CRC-32C.
CREATE FUNCTION dl_crc(data bytea) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    crc bigint := 4294967295;
BEGIN
    FOR i IN 0 .. length(data) - 1 LOOP
        crc := crc # get_byte(data, i);
        FOR j IN 1 .. 8 LOOP
            crc := CASE WHEN crc & 1 = 1 THEN (crc >> 1) # 2197175160 ELSE crc >> 1 END;
        END LOOP;
    END LOOP;
    RETURN crc # 4294967295;
END $$;
CREATE FUNCTION dl_forge(receipt text, place int, bytes bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    body bytea := overlay(substr(decode(receipt, 'base64'), 1, 36) PLACING bytes FROM place + 1);
    crc bigint := dl_crc(body);
BEGIN
    RETURN encode(body || decode(lpad(to_hex(((crc & 255) << 24) | (((crc >> 8) & 255) << 16) | (((crc >> 16) & 255) << 8) | (crc >> 24)), 8, '0') || '0000', 'hex'), 'base64');
END $$;
SELECT dl_forge(:'receipt', 0, '') = :'receipt' AS we_can_forge;
SELECT outcome(format('%s(%L)', f, dl_forge(:'receipt', 24, '\x0102030405060708'))) AS token FROM unnest(ARRAY['kv_ack', 'kv_nack', 'kv_release', 'kv_extend']) f;
SELECT outcome(format('%s(%L)', f, dl_forge(:'receipt', 24, '\x0000000000000000'))) AS no_token FROM unnest(ARRAY['kv_ack', 'kv_nack', 'kv_release', 'kv_extend']) f;
SELECT outcome(format('%s(%L)', f, dl_forge(:'receipt', 8, '\x0000000000000070'))) AS no_such_id FROM unnest(ARRAY['kv_ack', 'kv_nack', 'kv_release', 'kv_extend']) f;
SELECT outcome(format('%s(%L)', f, dl_forge(:'receipt', 16, '\x0000000000000000'))) AS other_time FROM unnest(ARRAY['kv_ack', 'kv_nack', 'kv_release', 'kv_extend']) f;
SELECT outcome(format('%s(%L)', f, dl_forge(:'receipt', 0, '\x01000000'))) AS other_database FROM unnest(ARRAY['kv_ack', 'kv_nack', 'kv_release', 'kv_extend']) f;
-- Other queues: one that does not exist, a catalogue, a store, a sequence, an index, the dead letters, another queue that has this id.
CREATE FUNCTION dl_oid(relation oid) RETURNS bytea LANGUAGE sql AS $$
    SELECT decode(string_agg(lpad(to_hex(relation::bigint >> (8 * i) & 255), 2, '0'), '' ORDER BY i), 'hex') FROM generate_series(0, 3) i $$;
SELECT kv_create_store('dl_store'), outcome_of('SELECT FROM kv_enqueue(''dl2'', ''1'') UNION ALL SELECT FROM kv_dequeue(''dl2'')');
SELECT relation, outcome(format('%s(%L)', f, dl_forge(:'receipt', 4, dl_oid(CASE relation WHEN 'none' THEN 1 ELSE relation::regclass END)))) FROM unnest(ARRAY['kv_ack', 'kv_nack', 'kv_release', 'kv_extend']) f,
    unnest(ARRAY['none', 'pg_class', 'kvstore.s_dl_store', 'kvstore.versionstamp', 'kvstore.q_dl_pkey', 'kvstore.d_dl', 'kvstore.q_dl2', 'kv_queues', 'dl_got']) relation;
SELECT status FROM kv_peek('dl');
SELECT kv_ack(:'receipt'), kv_ack(:'receipt');
-- A queue that is gone.
SELECT kv_enqueue('dl2', '1') > 0;
SELECT receipt FROM kv_dequeue('dl2') LIMIT 1 \gset
SELECT kv_drop_queue('dl2');
SELECT kv_ack(:'receipt'), kv_nack(:'receipt'), kv_release(:'receipt'), kv_extend(:'receipt'), kv_ack_many(ARRAY[:'receipt', :'receipt']);

--
-- Bad input
--

SELECT call, outcome(call) FROM unnest(ARRAY[$$(SELECT id FROM kv_dequeue('nope'))$$, $$(SELECT id FROM kv_dequeue(NULL))$$, $$(SELECT id FROM kv_dequeue('No Name'))$$, $$(SELECT id FROM kv_dequeue('dl', -1))$$,
    $$(SELECT id FROM kv_dequeue('dl', NULL))$$, $$(SELECT id FROM kv_dequeue('dl', lease => '-1 s'))$$, $$(SELECT id FROM kv_dequeue('dl', lease => '0'))$$, $$(SELECT id FROM kv_dequeue('dl', lease => '12 hours 1 us'))$$,
    $$(SELECT id FROM kv_dequeue('dl', lease => '1 month'))$$, $$(SELECT id FROM kv_dequeue('dl', lease => '178000000 years'))$$,
    $$kv_enqueue('nope', '1')$$, $$kv_enqueue(NULL, '1')$$, $$kv_enqueue('dl', NULL)$$, $$kv_enqueue('dl', '1', priority => 10)$$, $$kv_enqueue('dl', '1', priority => -1)$$, $$kv_enqueue('dl', '1', delay => '-1 s')$$, $$kv_enqueue('dl', '1', delay => '1 s', ready_at => now())$$,
    $$kv_enqueue('dl', '1', ready_at => 'infinity')$$, $$kv_enqueue('dl', '1', ttl => '-1 s')$$, $$kv_enqueue('dl', '1', max_attempts => 0)$$, $$kv_enqueue('dl', '1', backoff => '{-1s}')$$, $$kv_enqueue('dl', '1', dedupe_key => repeat('k', 3000))$$,
    $$(SELECT count(*) FROM kv_enqueue_many('dl', '{}'))$$, $$(SELECT count(*) FROM kv_enqueue_many('dl', NULL))$$, $$(SELECT count(*) FROM kv_enqueue_many('dl', '{1,NULL}'))$$, $$(SELECT count(*) FROM kv_enqueue_many('dl', '{1,2}', dedupe_key => 'k'))$$,
    $$kv_release_id('dl', NULL)$$, $$kv_release_id('nope', 1)$$, $$(SELECT count(*) FROM kv_peek('nope'))$$, $$kv_cancel('dl', NULL)$$, $$kv_purge_queue('nope')$$, $$(SELECT count(*) FROM kv_dead_letters('nope'))$$]) call;
SELECT kv_purge_queue('dl');
SELECT kv_enqueue('dl', '"bad"') > 0;
SELECT payload FROM dl_get();
SELECT call, outcome(format(call, dl_receipt('"bad"'))) FROM unnest(ARRAY['kv_nack(%L, delay => ''-1 s'')', 'kv_nack(%L, delay => ''178000000 years'')', 'kv_nack(%L, dead => NULL)', 'kv_release(%L, ''-1 us'')', 'kv_extend(%L, ''0'')', 'kv_extend(%L, ''-1 s'')', 'kv_extend(%L, ''13 hours'')']) call;
SELECT kv_ack(dl_receipt('"bad"'));
BEGIN READ ONLY;
SELECT call, outcome(call) FROM unnest(ARRAY[$$(SELECT id FROM kv_dequeue('dl'))$$, $$kv_ack('x')$$, $$kv_ack_many('{}')$$, $$kv_nack('x')$$, $$kv_release('x')$$, $$kv_extend('x')$$, $$kv_enqueue('dl', '1')$$, $$kv_release_id('dl', 1)$$, $$kv_purge_queue('dl')$$, $$kv_cancel('dl', 1)$$]) call;
COMMIT;
-- Tables of another shape under a queue's name, or with row-level security.
CREATE TABLE kvstore.q_shape (id bigint, ready_at timestamptz);
SELECT outcome($$(SELECT id FROM kv_dequeue('shape'))$$), outcome($$kv_enqueue('shape', '1')$$);
DROP TABLE kvstore.q_shape;
CREATE VIEW kvstore.q_shape AS SELECT * FROM kvstore.q_dl;
SELECT outcome($$(SELECT id FROM kv_dequeue('shape'))$$), outcome($$kv_enqueue('shape', '1')$$);
DROP VIEW kvstore.q_shape;
SELECT kv_enqueue('dl', '"rls"') > 0;
SELECT payload FROM dl_get();
ALTER TABLE kvstore.q_dl ENABLE ROW LEVEL SECURITY;
SELECT outcome($$(SELECT id FROM kv_dequeue('dl'))$$), outcome($$kv_enqueue('dl', '1')$$), outcome($$kv_ack(dl_receipt('"rls"'))$$);
ALTER TABLE kvstore.q_dl DISABLE ROW LEVEL SECURITY;
ALTER TABLE kvstore.q_dl RENAME COLUMN payload TO other;
SELECT outcome($$(SELECT id FROM kv_dequeue('dl'))$$), outcome($$kv_enqueue('dl', '1')$$), outcome($$kv_ack(dl_receipt('"rls"'))$$);
ALTER TABLE kvstore.q_dl RENAME COLUMN other TO payload;
SELECT kv_ack(dl_receipt('"rls"'));

--

--
-- Rights: receive needs SELECT, UPDATE, DELETE together; send INSERT alone; neither says anything about the other
--

CREATE ROLE regress_kvs_q_sender;
CREATE ROLE regress_kvs_q_consumer;
CREATE ROLE regress_kvs_q_half;
GRANT INSERT ON kvstore.q_dl TO regress_kvs_q_sender;
GRANT SELECT, UPDATE, DELETE ON kvstore.q_dl TO regress_kvs_q_consumer;
GRANT SELECT, DELETE ON kvstore.q_dl TO regress_kvs_q_half;
SELECT kv_enqueue('dl', '"rights"') > 0;
SELECT receipt FROM kv_dequeue('dl') \gset
CREATE TABLE dl_calls AS SELECT * FROM (VALUES ('send', $$kv_enqueue('dl', '"s"') > 0$$), ('send', $$(SELECT count(*) FROM kv_enqueue_many('dl', '{}'))$$), ('send', $$kv_enqueue('dl', '"s"', dedupe_key => 'd') > 0$$),
    ('receive', $$(SELECT count(*) FROM kv_dequeue('dl', 0))$$), ('receive', format('kv_extend(%L) IS NULL', :'receipt')), ('receive', format('kv_nack(%L)', :'receipt')), ('receive', format('kv_release(%L)', :'receipt')), ('receive', format('kv_ack(%L)', :'receipt')),
    ('receive', format('kv_ack_many(%L)', ARRAY[:'receipt'])), ('receive', format('kv_nack_many(%L)', ARRAY[:'receipt'])), ('receive', format('kv_release_many(%L)', ARRAY[:'receipt'])), ('receive', format('kv_extend_many(%L)', ARRAY[:'receipt'])),
    ('own', $$kv_release_id('dl', 1)$$)) v(needs, call);
GRANT SELECT ON dl_calls TO PUBLIC;
CREATE FUNCTION dl_denied() RETURNS TABLE (needs text, calls bigint, denied bigint) LANGUAGE sql AS $$
    SELECT needs, count(*), count(*) FILTER (WHERE outcome(call) LIKE '42501%') FROM dl_calls GROUP BY needs ORDER BY needs $$;
SET ROLE regress_kvs_q_half;
SELECT * FROM dl_denied();
SELECT outcome($$(SELECT count(*) FROM kv_dequeue('dl', 0))$$);
SET ROLE regress_kvs_q_sender;
SELECT * FROM dl_denied();
SET ROLE regress_kvs_q_consumer;
SELECT * FROM dl_denied();
RESET ROLE;
-- A consumer fails messages to the dead letters without any right on those, and sees no leases.
SELECT kv_purge_queue('dl') > 0, kv_enqueue('dl', '"dead"') > 0;
SET ROLE regress_kvs_q_consumer;
SELECT kv_nack(receipt, dead => true) FROM kv_dequeue('dl');
SELECT outcome($$(SELECT count(*) FROM kvstore.d_dl)$$), outcome($$(SELECT count(*) FROM kv_dead_letters('dl'))$$), outcome($$(SELECT count(*) FROM kv_leases)$$), outcome($$kv_pause_queue('dl')$$);
RESET ROLE;
SELECT payload FROM kv_dead_letters('dl');
DROP OWNED BY regress_kvs_q_sender, regress_kvs_q_consumer, regress_kvs_q_half;
DROP ROLE regress_kvs_q_sender, regress_kvs_q_consumer, regress_kvs_q_half;

--
-- A table with something of the owner's on it: the same, by statements; triggers that have plans of their own
--

CREATE INDEX ON kvstore.q_dl ((payload ->> 'x'));
SELECT count(*) FROM kv_enqueue_many('dl', '{1,2,3}');
SELECT payload, attempts FROM dl_get(3);
SELECT kv_ack(dl_receipt('1')), kv_ack(dl_receipt('1')), kv_nack(dl_receipt('2')), kv_release(dl_receipt('3'), '1 hour');
SELECT payload, status, attempts FROM kv_peek('dl');
SELECT kv_purge_queue('dl');
CREATE FUNCTION dl_suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION dl_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.ready_at := '2001-01-01'; NEW.priority := 7; RETURN NEW; END $$;
-- A purge takes the leases with the rows, also where it is a statement, and not those of rows that a trigger keeps.
SELECT count(*) FROM kv_enqueue_many('dl', '{1,2}');
SELECT count(*) FROM kv_dequeue('dl', 2, lease => '12 hours');
CREATE TRIGGER suppress BEFORE DELETE ON kvstore.q_dl FOR EACH ROW WHEN (OLD.payload = '2') EXECUTE FUNCTION dl_suppress();
BEGIN; SELECT kv_purge_queue('dl'); ROLLBACK;
SELECT count(*) FROM kv_leases WHERE queue = 'dl';
SELECT kv_purge_queue('dl');
SELECT count(*) FROM kv_leases WHERE queue = 'dl';
SELECT payload, status FROM kv_peek('dl');
DROP TRIGGER suppress ON kvstore.q_dl;
SELECT kv_purge_queue('dl');
SELECT count(*) FROM kv_leases WHERE queue = 'dl';
-- A message is known by its id and enqueued_at, which a trigger has to leave alone.
CREATE FUNCTION dl_rename() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := NEW.id + 1000000; RETURN NEW; END $$;
CREATE FUNCTION dl_redate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.enqueued_at := '2001-01-01'; RETURN NEW; END $$;
CREATE TRIGGER rename BEFORE INSERT ON kvstore.q_dl FOR EACH ROW EXECUTE FUNCTION dl_rename();
SELECT call, outcome(call) FROM unnest(ARRAY[$$kv_enqueue('dl', '1')$$, $$(SELECT count(*) FROM kv_enqueue_many('dl', '{1,2}'))$$, $$kv_enqueue('dl', '1', dedupe_key => 'k')$$]) call;
DROP TRIGGER rename ON kvstore.q_dl;
SELECT kv_enqueue('dl', '"known"') > 0;
SELECT payload FROM dl_get();
CREATE TRIGGER rename BEFORE UPDATE ON kvstore.q_dl FOR EACH ROW EXECUTE FUNCTION dl_rename();
SELECT outcome($$kv_nack(dl_receipt('"known"'))$$) AS nack, outcome($$kv_release(dl_receipt('"known"'), '1 s')$$) AS release;
DROP TRIGGER rename ON kvstore.q_dl;
CREATE TRIGGER redate BEFORE UPDATE ON kvstore.q_dl FOR EACH ROW EXECUTE FUNCTION dl_redate();
SELECT outcome($$kv_nack(dl_receipt('"known"'))$$) AS nack, outcome($$kv_nack(dl_receipt('"known"'), dead => true)$$) AS dead;
DROP TRIGGER redate ON kvstore.q_dl;
SELECT kv_nack(dl_receipt('"known"'));
SELECT payload, attempts FROM dl_get();
SELECT kv_ack(dl_receipt('"known"'));
SELECT kv_enqueue('dl', '"kept"') > 0;
SELECT payload, attempts FROM dl_get();
CREATE TRIGGER suppress BEFORE DELETE ON kvstore.q_dl FOR EACH ROW EXECUTE FUNCTION dl_suppress();
SELECT outcome($$kv_ack(dl_receipt('"kept"'))$$), kv_nack(dl_receipt('"kept"'), dead => true), (SELECT status FROM kv_peek('dl')) AS kept;
-- It is given up, so nobody gets it, and what keeps it from becoming a dead letter is told.
SELECT count(*) FROM dl_get();
SELECT kv_maintain() >= 0;
SELECT state, error FROM kv_leases WHERE queue = 'dl';
SELECT dying, stuck FROM kv_queue_stats('dl');
DROP TRIGGER suppress ON kvstore.q_dl;
SET kvstore.test_clock = 10;
SELECT kv_maintain() >= 0;
RESET kvstore.test_clock;
SELECT payload, attempts FROM kv_dead_letters('dl');
SELECT kv_dead_purge('dl'), kv_enqueue('dl', '"kept"') > 0;
SELECT payload, attempts FROM dl_get();
CREATE TRIGGER suppress BEFORE UPDATE ON kvstore.q_dl FOR EACH ROW EXECUTE FUNCTION dl_suppress();
SELECT kv_nack(dl_receipt('"kept"'));
SELECT payload, attempts FROM dl_get();
DROP TRIGGER suppress ON kvstore.q_dl;
CREATE TRIGGER move BEFORE UPDATE ON kvstore.q_dl FOR EACH ROW EXECUTE FUNCTION dl_move();
SELECT kv_enqueue('dl', '"other"') > 0;
SELECT payload FROM dl_get();
SELECT kv_nack(dl_receipt('"kept"'));
SELECT payload, attempts, priority FROM dl_get();
DROP TRIGGER move ON kvstore.q_dl;
-- A priority that no queue has, for which the guard must be off.
ALTER TABLE kvstore.q_dl DISABLE TRIGGER USER;
UPDATE kvstore.q_dl SET priority = 32000 WHERE payload = '"kept"';
SELECT kv_nack(dl_receipt('"kept"'));
SELECT count(*) FROM dl_get();
SELECT kv_purge_queue('dl');

-- TRUNCATE takes leases along, also one that was extended after it.
SELECT kv_create_queue('dl_gone');
SELECT kv_enqueue('dl_gone', '1') > 0;
SELECT receipt FROM kv_dequeue('dl_gone') \gset
BEGIN;
TRUNCATE kvstore.q_dl_gone;
SELECT kv_extend(:'receipt') IS NOT NULL;
COMMIT;
SELECT count(*) FROM kv_leases WHERE queue = 'dl_gone';
SELECT kv_drop_queue('dl_gone');

-- Rows that were rewritten where they are, as after a rolled-back delivery, are looked for and then received: none is passed over.
SELECT kv_create_queue('dl_twice', max_attempts => 9, backoff => '{0}');
SELECT count(*) FROM kv_enqueue_many('dl_twice', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 200) i));
BEGIN;
SELECT count(*) FROM kv_dequeue('dl_twice', 200);
ROLLBACK;
SET kvstore.test_clock = 10;
SELECT kv_maintain() >= 0;
RESET kvstore.test_clock;
SELECT attempts, count(*) FROM kvstore.q_dl_twice GROUP BY 1;
CALL kv_wait_queue('dl_twice', '1 s');
CALL kv_wait_queue('dl_twice', '1 s');
CALL kv_wait_queue('dl_twice', '1 s');
SELECT array_agg(payload) FROM kv_dequeue('dl_twice', 6);
SELECT kv_drop_queue('dl_twice');

--
-- Others have all the leases: what is late can still be acknowledged, failed and released
--

SELECT kv_create_queue('full', backoff => '{}');
SELECT count(*) FROM kv_enqueue_many('full', '{1,2,3,4,5,6}');
INSERT INTO dl_got (payload, receipt) SELECT payload, receipt FROM kv_dequeue('full', 6);
SET kvstore.test_clock = 3600;
SELECT kv_maintain() >= 0;
SET kvstore.test_clock = 3610;
SELECT kv_maintain() >= 0;
SELECT count(*) FROM kv_leases WHERE queue = 'full';
ALTER SYSTEM SET kvstore.max_leases_per_queue = 10;
SELECT pg_reload_conf();
\c -
SELECT count(*) FROM kv_enqueue_many('full', array_fill('0'::jsonb, ARRAY[10]), priority => 9);
SELECT count(*) FROM kv_dequeue('full', 10);
SELECT outcome($$(SELECT count(*) FROM kv_dequeue('full'))$$), outcome($$kv_extend(dl_receipt('1'))$$);
BEGIN;
SELECT kv_ack(dl_receipt('1')), kv_nack(dl_receipt('2')), kv_release(dl_receipt('4'));
ROLLBACK;
SELECT payload, status, attempts, last_error FROM kv_peek('full', 20) WHERE payload <> '0';
SELECT kv_ack(dl_receipt('1')) AS acked, kv_ack(dl_receipt('1')) AS again, kv_nack(dl_receipt('2'), error => 'late'), kv_nack(dl_receipt('3'), dead => true), kv_release(dl_receipt('4')), kv_release(dl_receipt('5'), '1 hour');
SELECT payload, status, attempts, last_error FROM kv_peek('full', 20) WHERE payload <> '0';
SELECT payload, attempts FROM kv_dead_letters('full');
-- Also where it is given up by the worker.
SELECT kv_create_store('full');
UPDATE kvstore.q_full SET keys_if_undelivered = '["u"]', undelivered_store = 'full', sender = current_user WHERE payload = '6';
SELECT kv_nack(dl_receipt('6'), dead => true), kv_nack(dl_receipt('6')) IS NULL AS is_over;
SELECT count(*) FROM kv_leases WHERE queue = 'full';
ALTER SYSTEM RESET kvstore.max_leases_per_queue;
SELECT pg_reload_conf();
\c -
-- All of it comes about.
SELECT payload, attempts FROM kv_dequeue('full', 10);
-- An old receipt takes no failure away from what is given up.
SELECT kv_release(dl_receipt('6')), kv_extend(dl_receipt('6')) IS NULL AS is_over;
SET kvstore.test_clock = 10;
SELECT kv_maintain() >= 0;
SELECT payload, attempts FROM kv_dead_letters('full') WHERE payload = '6';
SELECT kv_drop_queue('full'), kv_drop_store('full');

SELECT kv_drop_queue('dl'), kv_drop_store('dl_store');
DROP FUNCTION dl_get, dl_receipt, dl_fail, dl_bits, dl_crc, dl_forge, dl_oid, dl_denied, dl_suppress, dl_move, dl_rename, dl_redate;
DROP TABLE dl_got, dl_four, dl_calls;
