-- Dead letters: list, send again, delete.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_queue('dl', max_attempts => 3);
-- As the queue itself would, only faster.
INSERT INTO kvstore.d_dl (original_id, payload, headers, error, attempts, enqueued_at, failed_at, priority, max_attempts, backoff)
    SELECT 100 + i, to_jsonb(i), CASE WHEN i % 2 = 0 THEN '{"h": 1}'::jsonb END, 'failed ' || i, 3, '2000-01-01', '2000-01-02', i % 10, CASE WHEN i % 3 = 0 THEN 7 END, CASE WHEN i % 5 = 0 THEN '{1s,2s}'::interval[] END
    FROM generate_series(1, 25) i;

SELECT id, original_id, payload, headers, error, attempts, enqueued_at = '2000-01-01' AS enqueued, failed_at = '2000-01-02' AS failed FROM kv_dead_letters('dl', 3);
SELECT count(*) AS default_page FROM kv_dead_letters('dl');
SELECT string_agg(id::text, ' ') FROM kv_dead_letters('dl', 100, after => 22);
SELECT payload FROM kv_dead_letters('dl', id => 7);
SELECT count(*) FROM kv_dead_letters('dl', id => 99);

-- Sent again: new id, no attempts, everything else is kept.
SELECT kv_dead_requeue('dl', 15) AS id \gset
SELECT :id > 0 AS new_id;
SELECT payload, status, priority, attempts, max_attempts, headers, enqueued_at > '2001-01-01' AS now FROM kv_peek('dl');
SELECT backoff, max_attempts, last_error FROM kvstore.q_dl;
SELECT payload, attempts FROM kv_dequeue('dl');
SELECT kv_dead_requeue('dl', 15) IS NULL AS gone, kv_dead_requeue('dl', 99) IS NULL AS none;
SELECT kv_dead_delete('dl', 1), kv_dead_delete('dl', 1) AS gone;
BEGIN;
SELECT kv_dead_requeue_all('dl'), (SELECT count(*) FROM kv_dead_letters('dl', 100)) AS not_seen_in_this_statement;
SELECT count(*) FROM kv_dead_letters('dl', 100);
ROLLBACK;
SELECT count(*) FROM kv_dead_letters('dl', 100);
SELECT kv_dead_requeue_all('dl'), kv_dead_requeue_all('dl') AS nothing_left;
SELECT count(*), count(DISTINCT priority), sum(attempts), count(headers), count(*) FILTER (WHERE max_attempts = 7) FROM kv_peek('dl', 100);
-- All of them can be delivered.
SELECT count(*), string_agg(DISTINCT attempts::text, ' ') FROM kv_dequeue('dl', 100);
SELECT kv_purge_queue('dl');
INSERT INTO kvstore.d_dl (original_id, payload, attempts, enqueued_at, failed_at, priority) SELECT i, '1', 3, now(), now(), i FROM unnest(ARRAY[-5, 5, 99]) i;
SELECT kv_dead_requeue_all('dl');
SELECT priority FROM kv_peek('dl');
INSERT INTO kvstore.d_dl (original_id, payload, attempts, enqueued_at, failed_at) SELECT i, '1', 3, now(), now() FROM generate_series(1, 3) i;
SELECT kv_dead_purge('dl'), kv_dead_purge('dl');

-- The queue's own way there.
SELECT kv_purge_queue('dl') > 0;
SELECT kv_enqueue('dl', '"poison"', max_attempts => 1, priority => 4, headers => '"h"') AS id \gset
SELECT kv_nack(receipt, error => 'no good') FROM kv_dequeue('dl');
SELECT original_id = :id AS original, payload, headers, error, attempts FROM kv_dead_letters('dl');
SELECT kv_dead_requeue('dl', (SELECT id FROM kv_dead_letters('dl'))) > :id AS new_id;
SELECT payload, priority, headers, attempts, max_attempts, last_error FROM kv_peek('dl');

-- Sent again it has what it had; its time to live counts from now on.
SELECT kv_purge_queue('dl') > 0;
SELECT kv_create_store('dl');
CREATE ROLE regress_kvs_dead_sender;
CREATE FUNCTION dl_bury() RETURNS bigint LANGUAGE sql AS $$ SELECT count(kv_nack(receipt, dead => true)) FROM kv_dequeue('dl', 100) $$;
SELECT kv_enqueue('dl', '"all"', priority => 7, headers => '{"h": 1}', max_attempts => 9, backoff => '{3s}', ttl => '1 hour', dedupe_key => 'k', keys_if_undelivered => '["u"]', undelivered_store => 'dl') > 0;
UPDATE kvstore.q_dl SET enqueued_at = enqueued_at - interval '59 min', expires_at = expires_at - interval '59 min', sender = 'regress_kvs_dead_sender';
GRANT SELECT, INSERT, UPDATE ON kvstore.s_dl TO regress_kvs_dead_sender;
SELECT dl_bury();
SELECT kv_maintain() >= 0 AS moved;
SELECT payload, error, ttl, dedupe_key, keys_if_undelivered, undelivered_store, sender FROM kvstore.d_dl;
SELECT kv_take('u', 'dl');
SELECT kv_dead_requeue('dl', (SELECT id FROM kvstore.d_dl)) > 0;
SELECT payload, priority, headers, attempts, max_attempts, backoff, dedupe_key, keys_if_undelivered, undelivered_store, sender, last_error, expires_at - enqueued_at AS ttl, ready_at = enqueued_at AS at_once, now() - enqueued_at < '1 min' AS now FROM kvstore.q_dl;
SELECT count(*) FROM kv_dead_letters('dl');
-- Written again when it is given up again.
SELECT dl_bury(), (SELECT kv_get('u', 'dl')) IS NULL AS not_yet;
SELECT kv_maintain() >= 0 AS moved;
SELECT kv_get('u', 'dl');
-- Whoever sends it again lends its sender no rights.
REVOKE UPDATE ON kvstore.s_dl FROM regress_kvs_dead_sender;
SELECT outcome(format($$kv_dead_requeue('dl', %s)$$, id)) FROM kvstore.d_dl;
SELECT kv_dead_requeue_all('dl'), (SELECT count(*) FROM kvstore.d_dl) AS letters;
GRANT UPDATE ON kvstore.s_dl TO regress_kvs_dead_sender;
ALTER TABLE kvstore.s_dl ENABLE ROW LEVEL SECURITY;
SELECT split_part(outcome(format($$kv_dead_requeue('dl', %s)$$, id)), ' | ', 1) AS outcome FROM kvstore.d_dl;
SELECT kv_dead_requeue_all('dl');
ALTER TABLE kvstore.s_dl DISABLE ROW LEVEL SECURITY;
-- A dedupe_key is in use: the letter stays, and those that can be sent are.
SELECT kv_enqueue('dl', '"has it"', dedupe_key => 'k') AS holder \gset
SELECT replace(outcome(format($$kv_dead_requeue('dl', %s)$$, id)), :'holder', 'N') FROM kvstore.d_dl;
INSERT INTO kvstore.d_dl (original_id, payload, attempts, enqueued_at, failed_at, dedupe_key) SELECT i, to_jsonb(i), 3, now(), now(), 'k' || i / 2 FROM generate_series(2, 5) i;
INSERT INTO kvstore.d_dl (original_id, payload, attempts, enqueued_at, failed_at) SELECT i, to_jsonb(i), 3, now(), now() FROM generate_series(6, 7) i;
SELECT kv_dead_requeue_all('dl');
SELECT payload, dedupe_key FROM kv_dead_letters('dl') JOIN (SELECT id, dedupe_key FROM kvstore.d_dl) d USING (id);
SELECT payload, dedupe_key FROM kv_peek('dl') ORDER BY payload::text;
-- One that has expired keeps nothing.
SELECT kv_purge_queue('dl') > 0;
SELECT kv_enqueue('dl', '"expired"', dedupe_key => 'k', ttl => '0') > 0;
SELECT kv_dead_requeue_all('dl');
SELECT payload, dedupe_key FROM kv_peek('dl') ORDER BY payload::text;
SELECT kv_purge_queue('dl') > 0, kv_drop_store('dl');
DROP FUNCTION dl_bury;
DROP ROLE regress_kvs_dead_sender;

-- A trigger keeps the message out: the letter stays.
CREATE FUNCTION dl_filter() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN NEW.payload <> '"no"' THEN NEW END; END $$;
CREATE TRIGGER dl_filter BEFORE INSERT ON kvstore.q_dl FOR EACH ROW EXECUTE FUNCTION dl_filter();
SELECT kv_dead_purge('dl') >= 0;
INSERT INTO kvstore.d_dl (original_id, payload, attempts, enqueued_at, failed_at, dedupe_key) VALUES (1, '"yes"', 3, now(), now(), NULL), (2, '"no"', 3, now(), now(), NULL), (3, '"no"', 3, now(), now(), 'key'), (4, '"yes"', 3, now(), now(), 'other');
SELECT outcome(format($$kv_dead_requeue('dl', %s)$$, id)) FROM kvstore.d_dl WHERE payload = '"no"' ORDER BY id;
SELECT kv_dead_requeue_all('dl');
SELECT original_id, payload FROM kv_dead_letters('dl');
SELECT payload, dedupe_key FROM kv_peek('dl');
DROP TRIGGER dl_filter ON kvstore.q_dl;
DROP FUNCTION dl_filter;
SELECT kv_dead_requeue_all('dl'), kv_purge_queue('dl');
-- A time to live that ends after all times, or before it begins, stops nobody.
INSERT INTO kvstore.d_dl (original_id, payload, attempts, enqueued_at, failed_at, ttl) VALUES (1, '"long"', 3, now(), now(), '178000000 years'), (2, '"other"', 3, now(), now(), NULL), (3, '"over"', 3, now(), now(), '-178000000 years');
SELECT kv_dead_requeue_all('dl');
SELECT payload, expires_at - enqueued_at AS ttl FROM kvstore.q_dl ORDER BY id;
SELECT kv_purge_queue('dl') > 0;

SELECT call, outcome(call) AS outcome FROM unnest(ARRAY[$$(SELECT count(*) FROM kv_dead_letters('none'))$$, $$(SELECT count(*) FROM kv_dead_letters(NULL))$$, $$(SELECT count(*) FROM kv_dead_letters('dl', -1))$$, $$kv_dead_requeue('none', 1)$$, $$kv_dead_requeue('dl', NULL)$$,
    $$kv_dead_requeue_all('none')$$, $$kv_dead_requeue_all(NULL)$$, $$kv_dead_delete('none', 1)$$, $$kv_dead_delete('dl', NULL)$$, $$kv_dead_purge('none')$$]) call;
-- Renamed by its owner: the session's kept statements are those of the new name.
SELECT kv_enqueue('dl', '"renamed"', max_attempts => 1, priority => 9) > 0;
ALTER TABLE kvstore.q_dl RENAME TO q_other;
ALTER TABLE kvstore.d_dl RENAME TO d_other;
SELECT payload, kv_nack(receipt) FROM kv_dequeue('other');
SELECT payload FROM kv_dead_letters('other');
ALTER TABLE kvstore.q_other RENAME TO q_dl;
ALTER TABLE kvstore.d_other RENAME TO d_dl;
SELECT kv_dead_purge('dl');
-- Code of the owner's behind the table never runs in a consumer: the worker writes the letter.
SELECT kv_create_queue('dc', max_attempts => 1);
CREATE FUNCTION dc_give_up() RETURNS text LANGUAGE sql AS $$ SELECT kv_enqueue('dc', '1'); SELECT kv_nack(receipt, error => 'no good') FROM kv_dequeue('dc') $$;
CREATE FUNCTION dc_code(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE EXCEPTION 'code of the owner'; END $$;
SELECT dc_give_up(), (SELECT count(*) FROM kv_leases WHERE queue = 'dc') AS leases;
SELECT count(*) AS letters FROM kvstore.d_dc;
ALTER TABLE kvstore.d_dc DROP CONSTRAINT d_dc_pkey;
CREATE INDEX dc_index ON kvstore.d_dc ((CASE WHEN id = 1 THEN 0 ELSE dc_code(id) END));
SELECT outcome('dc_give_up()');
DROP INDEX kvstore.dc_index;
ALTER TABLE kvstore.d_dc ADD PRIMARY KEY (id), ALTER error SET DEFAULT dc_code(1)::text;
SELECT outcome('dc_give_up()');
ALTER TABLE kvstore.d_dc ALTER error DROP DEFAULT, ALTER id DROP IDENTITY, ALTER id SET DEFAULT dc_code(1);
SELECT outcome('dc_give_up()');
SELECT state, count(*) FROM kv_leases WHERE queue = 'dc' GROUP BY state;
ALTER TABLE kvstore.d_dc ALTER id DROP DEFAULT, ALTER id ADD GENERATED BY DEFAULT AS IDENTITY (START 10);
SELECT kv_maintain() >= 0 AS moved;
-- Somebody has used the id that comes next: the consumer does not fail.
INSERT INTO kvstore.d_dc (id, original_id, payload, attempts, enqueued_at, failed_at) VALUES (12, 1, '1', 1, now(), now());
SELECT outcome('dc_give_up()');
SELECT state, count(*) FROM kv_leases WHERE queue = 'dc' GROUP BY state;
SELECT kv_maintain() >= 0 AS moved;
SELECT count(*) AS letters FROM kvstore.d_dc;
-- Deferred triggers fire at once, as the owner; those of the transaction's own tables wait.
CREATE FUNCTION dc_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% on %', TG_OP, TG_TABLE_NAME; RETURN NULL; END $$;
CREATE TABLE dc_mine (n int);
CREATE CONSTRAINT TRIGGER dc_note AFTER INSERT ON dc_mine DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dc_note();
CREATE CONSTRAINT TRIGGER dc_note_q AFTER UPDATE OR DELETE ON kvstore.q_dc DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dc_note();
CREATE CONSTRAINT TRIGGER dc_note_d AFTER INSERT ON kvstore.d_dc DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dc_note();
BEGIN;
INSERT INTO dc_mine VALUES (1);
SELECT kv_enqueue('dc', '2', max_attempts => 2) > 0;
SELECT kv_nack(receipt, delay => '0') FROM kv_dequeue('dc');
COMMIT;
SELECT kv_nack(receipt) FROM kv_dequeue('dc');
SELECT kv_maintain() >= 0 AS moved;
SELECT count(*) AS letters FROM kvstore.d_dc;
SELECT kv_drop_queue('dc');
DROP TABLE dc_mine;
DROP FUNCTION dc_give_up, dc_code, dc_note;
-- A table of another shape in its place.
ALTER TABLE kvstore.d_dl ALTER payload TYPE text;
SELECT call, outcome(call) AS outcome FROM unnest(ARRAY[$$(SELECT count(*) FROM kv_dead_letters('dl'))$$, $$kv_dead_requeue('dl', 1)$$, $$kv_dead_purge('dl')$$]) call;
SELECT kv_drop_queue('dl');
