-- Sending: kv_enqueue, kv_enqueue_many and their options; looking and cancelling: kv_peek, kv_cancel, kv_purge_queue.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_queue('se');

--
-- One message
--

SELECT kv_enqueue('se', '{"a": [1, 2.50, null]}') AS id;
SELECT id, payload, status, ready_at = enqueued_at AS at_once, clock_timestamp() - ready_at < '1 min' AS now, priority, attempts, max_attempts, headers, dedupe_key, last_error, leased_until FROM kv_peek('se');
SELECT kv_enqueue('se', '"all"', delay => '1 hour', priority => 9, headers => '{"h": 1}', max_attempts => 7, backoff => '{1s,2s}', ttl => '1 day', dedupe_key => 'key') AS id;
SELECT payload, priority, headers, max_attempts, backoff, ready_at - enqueued_at AS delay, expires_at - enqueued_at AS ttl, dedupe_key, keys_if_undelivered, undelivered_store, attempts FROM kvstore.q_se WHERE id = 2;
SELECT kv_enqueue('se', 'null') AS json_null, kv_enqueue('se', '1', ready_at => '2100-01-01 00:00:00.123456Z') AS later, kv_enqueue('se', '1', ready_at => '2000-01-01') AS past, kv_enqueue('se', '1', ready_at => '-infinity') AS long_past,
    kv_enqueue('se', '1', delay => '0') AS no_delay, kv_enqueue('se', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) AS nulls, kv_enqueue('se', '1', ttl => '0') AS gone, kv_enqueue('se', '1', backoff => '{}') AS at_once;
SELECT id, status, CASE WHEN ready_at > '2099-01-01' THEN ready_at AT TIME ZONE 'UTC' END AS ready_at, ready_at = enqueued_at AS now, priority FROM kv_peek('se', 100);
-- The order in which they are delivered: priority, time, id.
SELECT kv_purge_queue('se');
SELECT kv_enqueue('se', to_jsonb(p), priority => p) > 0 FROM generate_series(0, 9) p;
SELECT string_agg(payload::text, ' ') FROM kv_dequeue('se', 10);
SELECT kv_purge_queue('se');

SELECT call, outcome(call) AS outcome FROM unnest(ARRAY[
    $$kv_enqueue('none', '1')$$, $$kv_enqueue(NULL, '1')$$, $$kv_enqueue('A', '1')$$, $$kv_enqueue('se', NULL)$$, $$kv_enqueue('se', '1', priority => 10)$$, $$kv_enqueue('se', '1', priority => -1)$$, $$kv_enqueue('se', '1', priority => 4294967296)$$,
    $$kv_enqueue('se', '1', delay => '-1 us')$$, $$kv_enqueue('se', '1', delay => '1 s', ready_at => now())$$, $$kv_enqueue('se', '1', ready_at => 'infinity')$$, $$kv_enqueue('se', '1', delay => '300000 years')$$,
    $$kv_enqueue('se', '1', ttl => '-1 s')$$, $$kv_enqueue('se', '1', max_attempts => 0)$$, $$kv_enqueue('se', '1', max_attempts => 2147483648)$$, $$kv_enqueue('se', '1', backoff => '{-1s}')$$, $$kv_enqueue('se', '1', backoff => '{NULL}')$$,
    $$kv_enqueue('se', '1', backoff => array_fill('1 s'::interval, ARRAY[17]))$$, $$kv_enqueue('se', '1', dedupe_key => repeat('x', 2049))$$, $$kv_enqueue('se', '1', keys_if_undelivered => '{"a": 1}')$$, $$kv_enqueue('se', '1', keys_if_undelivered => '"a"')$$,
    $$kv_enqueue('se', '1', keys_if_undelivered => '[1]')$$, $$kv_enqueue('se', '1', keys_if_undelivered => '[[]]')$$, $$kv_enqueue('se', '1', keys_if_undelivered => '["a"]')$$, $$kv_enqueue('se', '1', keys_if_undelivered => '["a"]', undelivered_store => NULL)$$,
    $$(SELECT count(*) FROM kv_enqueue_many('se', NULL))$$, $$(SELECT count(*) FROM kv_enqueue_many('se', '{1,NULL}'))$$, $$(SELECT count(*) FROM kv_enqueue_many('se', '{1,2}', priority => 10))$$, $$(SELECT count(*) FROM kv_enqueue_many('se', '{}', priority => 10))$$,
    $$(SELECT count(*) FROM kv_enqueue_many('se', '{1,2}', dedupe_key => 'x'))$$, $$(SELECT count(*) FROM kv_enqueue_many('none', '{}'))$$,
    $$(SELECT count(*) FROM kv_peek('se', -1))$$, $$(SELECT count(*) FROM kv_peek(NULL))$$, $$(SELECT count(*) FROM kv_peek('none'))$$, $$kv_cancel('se', NULL)$$, $$kv_cancel('none', 1)$$, $$kv_cancel(NULL, 1)$$]) call;
SET kvstore.max_value_size = 100;
SELECT call, outcome(call) AS outcome FROM unnest(ARRAY[$$kv_enqueue('se', to_jsonb(repeat('x', 100)))$$, $$kv_enqueue('se', '1', headers => to_jsonb(repeat('x', 100)))$$, $$(SELECT count(*) FROM kv_enqueue_many('se', ARRAY['1', to_jsonb(repeat('x', 100))]))$$,
    $$kv_enqueue('se', to_jsonb(repeat('x', 80))) > 0$$]) call;
RESET kvstore.max_value_size;
SELECT kv_purge_queue('se');

--
-- Many
--

SELECT count(*) = 5 AND min(id) + 4 = max(id) AS five FROM kv_enqueue_many('se', '{"\"a\"", "[]", "3", "null", "{}"}', priority => 3, headers => '"h"');
SELECT payload, priority, headers FROM kv_peek('se', 100);
SELECT count(*), count(DISTINCT ready_at), count(DISTINCT enqueued_at) FROM kvstore.q_se;
SELECT count(*) AS none FROM kv_enqueue_many('se', '{}');
-- More than are handed to the table at once, of sizes that go out of line.
SELECT count(*), count(DISTINCT id) FROM kv_enqueue_many('se', (SELECT array_agg(to_jsonb(repeat(md5(i::text), i % 200))) FROM generate_series(1, 2000) i));
SELECT count(*), sum(length(payload #>> '{}')) FROM kvstore.q_se WHERE priority = 0;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
-- All three indexes know them.
SELECT count(*) FROM kvstore.q_se WHERE id > 0;
SELECT count(*) FROM (SELECT FROM kvstore.q_se ORDER BY priority DESC, ready_at, id) x;
RESET enable_seqscan;
RESET enable_bitmapscan;
SELECT kv_purge_queue('se');
-- In the target list, and of the order given.
SELECT kv_enqueue_many('se', '{1,2,3}') > 0;
SELECT payload FROM kv_peek('se') ORDER BY id;
SELECT kv_purge_queue('se');

--
-- A key that one message holds
--

SELECT kv_enqueue('se', '"first"', dedupe_key => 'k') AS first \gset
SELECT kv_enqueue('se', '"second"', dedupe_key => 'k') = :first AS same, kv_enqueue('se', '"third"', priority => 5, dedupe_key => 'k') = :first AS same, kv_enqueue('se', '"other"', dedupe_key => 'K') > :first AS other, kv_enqueue('se', '""', dedupe_key => '') > 0 AS empty;
SELECT (SELECT id FROM kv_enqueue_many('se', '{5}', dedupe_key => 'k')) = :first AS same;
SELECT payload, dedupe_key FROM kv_peek('se') ORDER BY id;
SELECT kv_cancel('se', :first), kv_enqueue('se', '"fourth"', dedupe_key => 'k') > :first AS free_again;
-- Held while it is leased, free with the ack.
SELECT kv_purge_queue('se'), kv_enqueue('se', '"first"', dedupe_key => 'k') AS first \gset
SELECT receipt FROM kv_dequeue('se') \gset
SELECT kv_enqueue('se', '"second"', dedupe_key => 'k') = :first AS same;
SELECT kv_ack(:'receipt'), kv_enqueue('se', '"second"', dedupe_key => 'k') > :first AS free_again;
-- One that expires while somebody works on it stays, without its key.
SELECT kv_purge_queue('se') > 0;
SELECT kv_enqueue('se', '"slow"', dedupe_key => 'k') AS first \gset
SELECT receipt FROM kv_dequeue('se', lease => '12 hours') \gset
UPDATE kvstore.q_se SET expires_at = '2000-01-01';
BEGIN;
SELECT kv_enqueue('se', '"undone"', dedupe_key => 'k') > :first AS free;
ROLLBACK;
SELECT payload, dedupe_key FROM kvstore.q_se ORDER BY id;
SELECT kv_enqueue('se', '"anew"', dedupe_key => 'k') > :first AS free;
SELECT payload, dedupe_key FROM kvstore.q_se ORDER BY id;
SELECT kv_extend(:'receipt') IS NOT NULL AS extended, kv_ack(:'receipt');
SELECT payload, dedupe_key FROM kvstore.q_se ORDER BY id;
SELECT payload FROM kv_dequeue('se');
-- A message that has expired holds nothing.
SELECT kv_purge_queue('se'), kv_enqueue('se', '"first"', dedupe_key => 'k', ttl => '0') AS first \gset
SELECT kv_enqueue('se', '"second"', dedupe_key => 'k') > :first AS free;
-- One that was removed for another, which was rolled back, is still expired.
SELECT kv_enqueue('se', '"first"', dedupe_key => 'sub', ttl => '0') AS first \gset
BEGIN;
SAVEPOINT s;
SELECT kv_enqueue('se', '"undone"', dedupe_key => 'sub') > :first AS free;
ROLLBACK TO s;
SELECT payload FROM kvstore.q_se WHERE dedupe_key = 'sub';
SELECT kv_enqueue('se', '"second"', dedupe_key => 'sub') > :first AS free;
COMMIT;
SELECT kv_cancel('se', id), payload FROM kv_peek('se') WHERE dedupe_key = 'sub';
SELECT count(*) FROM kv_leases WHERE queue = 'se';
SELECT payload FROM kvstore.q_se;
-- What cannot be removed for a subscriber is not removed behind his back.
SELECT kv_create_queue('rep'), kv_enqueue('rep', '1', dedupe_key => 'k', ttl => '0') > 0;
SET client_min_messages = error;
CREATE PUBLICATION se_publication FOR TABLE kvstore.q_rep;
RESET client_min_messages;
ALTER TABLE kvstore.q_rep REPLICA IDENTITY NOTHING;
SELECT split_part(outcome($$kv_enqueue('rep', '2', dedupe_key => 'k')$$), ' |', 1);
DROP PUBLICATION se_publication;
SELECT kv_drop_queue('rep');
-- Nor does one in a table with a trigger of the owner's, which sees that it goes, though the sender may not delete.
CREATE FUNCTION se_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'deleted: %', OLD.payload; RETURN OLD; END $$;
CREATE TRIGGER se_note BEFORE DELETE ON kvstore.q_se FOR EACH ROW EXECUTE FUNCTION se_note();
CREATE ROLE se_sender;
GRANT INSERT ON kvstore.q_se TO se_sender;
SET ROLE se_sender;
SELECT kv_enqueue('se', '"first"', dedupe_key => 'e', ttl => '0') AS first \gset
SELECT kv_enqueue('se', '"second"', dedupe_key => 'e') > :first AS free;
RESET ROLE;
DROP OWNED BY se_sender;
DROP ROLE se_sender;
-- Nor one where a trigger might have kept the next one out.
CREATE FUNCTION se_pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER se_pass BEFORE INSERT ON kvstore.q_se FOR EACH ROW EXECUTE FUNCTION se_pass();
SELECT kv_enqueue('se', '"first"', dedupe_key => 'p', ttl => '0') AS first \gset
SELECT kv_enqueue('se', '"third"', dedupe_key => 'p') > :first AS free;
-- One that expires while it is delivered, and is put back and replaced in one transaction.
SELECT kv_enqueue('se', '"slow"', dedupe_key => 'n', priority => 9) AS first \gset
SELECT receipt FROM kv_dequeue('se') \gset
UPDATE kvstore.q_se SET expires_at = '2000-01-01' WHERE id = :first;
BEGIN;
SELECT kv_nack(:'receipt', delay => '0');
SELECT kv_enqueue('se', '"anew"', dedupe_key => 'n') > :first AS free;
COMMIT;
SELECT payload FROM kvstore.q_se WHERE dedupe_key = 'n';
DELETE FROM kvstore.q_se WHERE dedupe_key = 'n';
-- Nor does one that a trigger keeps: it loses its key.
CREATE FUNCTION se_keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER se_keep BEFORE DELETE ON kvstore.q_se FOR EACH ROW EXECUTE FUNCTION se_keep();
SELECT kv_enqueue('se', '"kept"', dedupe_key => 'kept', ttl => '0') AS first \gset
SELECT kv_enqueue('se', '"after it"', dedupe_key => 'kept') > :first AS free;
SELECT payload, dedupe_key FROM kvstore.q_se WHERE id >= :first ORDER BY id;
DROP TRIGGER se_keep ON kvstore.q_se;
DROP FUNCTION se_keep;
DELETE FROM kvstore.q_se WHERE id >= :first;
DROP TRIGGER se_pass ON kvstore.q_se;
DROP TRIGGER se_note ON kvstore.q_se;
SELECT payload FROM kvstore.q_se ORDER BY id;
-- The key is taken within one transaction, and free with its rollback.
SELECT kv_purge_queue('se');
BEGIN;
SELECT kv_enqueue('se', '1', dedupe_key => 't') = kv_enqueue('se', '2', dedupe_key => 't') AS same;
SAVEPOINT s;
SELECT kv_enqueue('se', '1', dedupe_key => 'u') > 0;
ROLLBACK TO s;
SELECT payload, dedupe_key FROM kv_peek('se');
ROLLBACK;
SELECT count(*) FROM kv_peek('se');

--
-- Keys to write if it is not delivered: checked now
--

SELECT kv_create_store('se_store');
SELECT kv_enqueue('se', '1', keys_if_undelivered => '["a", ["users", 42]]', undelivered_store => 'se_store') > 0;
SELECT keys_if_undelivered, undelivered_store FROM kvstore.q_se;
SELECT kv_enqueue('se', '1', undelivered_store => 'none') > 0;
SELECT count(*) FROM kvstore.q_se WHERE undelivered_store IS NULL;
CREATE ROLE regress_kvs_sender;
GRANT INSERT ON kvstore.q_se TO regress_kvs_sender;
SET ROLE regress_kvs_sender;
SELECT outcome($$kv_enqueue('se', '1', keys_if_undelivered => '["a"]', undelivered_store => 'se_store')$$), outcome($$kv_enqueue('se', '1') > 0$$);
RESET ROLE;
GRANT SELECT, INSERT, UPDATE ON kvstore.s_se_store TO regress_kvs_sender;
SET ROLE regress_kvs_sender;
SELECT outcome($$kv_enqueue('se', '1', keys_if_undelivered => '["a"]', undelivered_store => 'se_store') > 0$$);
RESET ROLE;
SELECT kv_drop_store('se_store'), kv_purge_queue('se');

--
-- INSERT is all that a sender needs, whatever the table has
--

CREATE FUNCTION se_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.payload = '"drop"' THEN
        RETURN NULL;
    END IF;
    NEW.priority := 8;
    NEW.headers := '"by trigger"';
    RETURN NEW;
END $$;
CREATE FUNCTION pg_temp.sends() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL ROLE regress_kvs_sender;
    RETURN concat_ws(' ', outcome($q$kv_enqueue('se', '1') > 0$q$), outcome($q$(SELECT count(*) FROM kv_enqueue_many('se', '{1,2,3}'))$q$), outcome($q$kv_enqueue('se', '1', dedupe_key => 'd') > 0$q$), outcome($q$kv_enqueue('se', '1', dedupe_key => 'd') > 0$q$),
        outcome($q$(SELECT count(*) FROM kv_peek('se'))$q$));
END $$;
SELECT pg_temp.sends();
SELECT count(*), count(DISTINCT id) FROM kvstore.q_se;
ALTER TABLE kvstore.q_se ADD CONSTRAINT se_check CHECK (payload <> '"bad"'), ADD extra text DEFAULT 'x';
CREATE INDEX se_index ON kvstore.q_se ((payload ->> 'a'));
SELECT pg_temp.sends();
SELECT left(outcome($$kv_enqueue('se', '"bad"')$$), 75), left(outcome($$(SELECT count(*) FROM kv_enqueue_many('se', '{1, "\"bad\""}'))$$), 75);
SELECT count(*), count(DISTINCT id), count(extra) FROM kvstore.q_se;
-- A unique index of the owner's has its say, and is not taken for that of dedupe_key; nor is an id that was given by hand.
CREATE UNIQUE INDEX se_unique ON kvstore.q_se ((payload ->> 'u'));
SELECT kv_enqueue('se', '{"u": 1}', dedupe_key => 'u1') > 0 AS sent, left(outcome($$kv_enqueue('se', '{"u": 1}', dedupe_key => 'u2')$$), 72) AS refused, kv_enqueue('se', '{"u": 2}', dedupe_key => 'u2') > 0 AS sent;
DROP INDEX kvstore.se_unique;
INSERT INTO kvstore.q_se (id, ready_at, enqueued_at, payload) SELECT last_value + i, now(), now(), '"by hand"' FROM pg_sequences, generate_series(1, 3) i WHERE sequencename = 'q_se_id_seq';
SELECT kv_enqueue('se', '1', dedupe_key => 'u3') > 0 AS sent;
-- Rights on single columns are rights too.
REVOKE INSERT ON kvstore.q_se FROM regress_kvs_sender;
SELECT pg_temp.sends();
GRANT INSERT (id, payload, ready_at, enqueued_at, priority, headers, max_attempts, backoff, expires_at, dedupe_key, keys_if_undelivered, undelivered_store, sender) ON kvstore.q_se TO regress_kvs_sender;
SELECT pg_temp.sends();
-- A trigger of the owner's may change a message, which is then delivered as it has become, or keep it out.
CREATE TRIGGER se_trigger BEFORE INSERT ON kvstore.q_se FOR EACH ROW EXECUTE FUNCTION se_trigger();
SELECT kv_purge_queue('se') > 0;
SELECT pg_temp.sends();
SELECT id IS NULL AS kept_out FROM kv_enqueue_many('se', '{"\"drop\"", "1"}');
SELECT kv_enqueue('se', '"drop"') IS NULL AS kept_out, kv_enqueue('se', '"drop"', dedupe_key => 'x') IS NULL AS kept_out;
SELECT count(*), min(priority), max(priority), min(headers #>> '{}') FROM kv_dequeue('se', 100);
-- A priority that there is not.
CREATE OR REPLACE FUNCTION se_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.priority := 10; RETURN NEW; END $$;
SELECT outcome($$kv_enqueue('se', '1')$$);
DROP TRIGGER se_trigger ON kvstore.q_se;
-- One that keeps a message whose time is over from being removed.
CREATE OR REPLACE FUNCTION se_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER se_trigger BEFORE DELETE ON kvstore.q_se FOR EACH ROW EXECUTE FUNCTION se_trigger();
SELECT kv_enqueue('se', '"over"', ttl => '0') > 0;
SELECT kv_sweep();
SELECT count(*) FROM kvstore.q_se WHERE payload = '"over"';
DROP TRIGGER se_trigger ON kvstore.q_se;
SET kvstore.test_clock = 3600;
SELECT kv_sweep();
RESET kvstore.test_clock;
SELECT count(*) FROM kvstore.q_se WHERE payload = '"over"';
DROP FUNCTION se_trigger();
DROP INDEX kvstore.se_index;
ALTER TABLE kvstore.q_se DROP CONSTRAINT se_check, DROP extra;
DROP OWNED BY regress_kvs_sender;
DROP ROLE regress_kvs_sender;

--
-- Look, cancel, purge
--

SELECT kv_drop_queue('se'), kv_create_queue('se');
SELECT count(*) FROM kv_enqueue_many('se', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 25) i));
SELECT count(*) AS default_page FROM kv_peek('se');
SELECT count(*) AS default_page FROM kv_peek('se', NULL);
SELECT string_agg(id::text, ' ') FROM kv_peek('se', 3, after => 5);
SELECT string_agg(id::text, ' ') FROM kv_peek('se', 100, after => 23);
SELECT id, payload FROM kv_peek('se', id => 7);
SELECT count(*) FROM kv_peek('se', id => 26);
SELECT count(*) FROM kv_peek('se', id => 7, after => 7);
SELECT count(*) FROM kv_peek('se', 0);
SELECT count(*) FROM kv_peek('se', 5, after => 9223372036854775807);
SELECT count(*) FROM kv_peek('se', 100, after => -9223372036854775808);
SELECT kv_enqueue('se', '26', delay => '1 hour');
SELECT id AS leased, receipt FROM kv_dequeue('se') \gset
SELECT status, count(*), count(leased_until), bool_and(leased_until > now()) FROM kv_peek('se', 100) GROUP BY status ORDER BY status;
SELECT kv_cancel('se', :leased) AS leased, kv_cancel('se', 2), kv_cancel('se', 2) AS gone, kv_cancel('se', 26) AS delayed, kv_cancel('se', 1000) AS none;
SELECT count(*) FROM kv_peek('se', 100);
BEGIN;
SELECT kv_cancel('se', 3);
ROLLBACK;
SELECT kv_cancel('se', 3);
-- The ack of a message that was purged is false.
SELECT kv_purge_queue('se'), kv_purge_queue('se');
SELECT kv_ack(:'receipt');
SELECT kv_enqueue('se', '1') > 0;
BEGIN;
SELECT kv_purge_queue('se');
ROLLBACK;
SELECT count(*) FROM kv_peek('se');
SELECT kv_drop_queue('se');
