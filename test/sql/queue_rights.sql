-- Rights on queues: send, receive, dead letters and administration apart; every function as an unprivileged role; the guard.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '

CREATE ROLE regress_kvs_queue_owner;
CREATE ROLE regress_kvs_queue_sender;
CREATE ROLE regress_kvs_queue_receiver;
CREATE ROLE regress_kvs_queue_looker;
CREATE ROLE regress_kvs_queue_cleaner;
CREATE ROLE regress_kvs_queue_undertaker;
CREATE ROLE regress_kvs_queue_nobody;
GRANT CREATE ON SCHEMA kvstore TO regress_kvs_queue_owner;

SET ROLE regress_kvs_queue_owner;
SELECT kv_create_queue('rq', max_attempts => 1);
GRANT INSERT ON kvstore.q_rq TO regress_kvs_queue_sender;
GRANT SELECT, UPDATE, DELETE ON kvstore.q_rq TO regress_kvs_queue_receiver;
GRANT SELECT ON kvstore.q_rq TO regress_kvs_queue_looker;
GRANT DELETE ON kvstore.q_rq TO regress_kvs_queue_cleaner;
GRANT SELECT, DELETE ON kvstore.d_rq TO regress_kvs_queue_undertaker;
GRANT INSERT ON kvstore.q_rq TO regress_kvs_queue_undertaker;
SELECT kv_enqueue('rq', '"dead"') > 0;
SELECT kv_nack(receipt, error => 'x') FROM kv_dequeue('rq');
RESET ROLE;

-- Every function of the extension that takes a queue, from the catalogue: a function without a call here is listed, so that none is forgotten.
CREATE TABLE rq_calls (function regprocedure PRIMARY KEY, call text, needs text);
INSERT INTO rq_calls VALUES
    ('kv_create_queue(text,interval,bigint,interval[],boolean,boolean,boolean)', $$kv_create_queue('rq_new')$$, 'create'),
    ('kv_alter_queue(text,interval,bigint,interval[],boolean)', $$kv_alter_queue('rq', lease => '1 min')$$, 'own'),
    ('kv_pause_queue(text)', $$kv_pause_queue('rq')$$, 'own'), ('kv_resume_queue(text)', $$kv_resume_queue('rq')$$, 'own'), ('kv_drop_queue(text)', $$kv_drop_queue('rq')$$, 'own'),
    ('kv_release_id(text,bigint)', $$kv_release_id('rq', 1)$$, 'own'),
    ('kv_enqueue(text,jsonb,interval,timestamptz,bigint,jsonb,bigint,interval[],interval,text,jsonb,text)', $$kv_enqueue('rq', '1', delay => '1 hour', dedupe_key => 'a') > 0$$, 'send'),
    ('kv_enqueue_many(text,jsonb[],interval,timestamptz,bigint,jsonb,bigint,interval[],interval,text,jsonb,text)', $$(SELECT count(*) FROM kv_enqueue_many('rq', '{1}', delay => '1 hour'))$$, 'send'),
    ('kv_dequeue(text,bigint,interval,interval)', $$(SELECT count(*) FROM kv_dequeue('rq', 0 + 1))$$, 'receive'),
    ('kv_peek(text,bigint,bigint,bigint)', $$(SELECT count(*) >= 0 FROM kv_peek('rq'))$$, 'look'), ('kv_queue_stats(text)', $$(SELECT count(*) FROM kv_queue_stats('rq'))$$, 'look'),
    ('kv_cancel(text,bigint)', $$kv_cancel('rq', -1)$$, 'delete'), ('kv_purge_queue(text)', $$kv_purge_queue('rq') >= 0$$, 'delete'),
    ('kv_dead_letters(text,bigint,bigint,bigint)', $$(SELECT count(*) FROM kv_dead_letters('rq'))$$, 'dead'), ('kv_dead_delete(text,bigint)', $$kv_dead_delete('rq', -1)$$, 'dead'),
    ('kv_dead_purge(text)', $$kv_dead_purge('rq') >= 0$$, 'dead'), ('kv_dead_requeue(text,bigint)', $$kv_dead_requeue('rq', -1) IS NULL$$, 'dead'), ('kv_dead_requeue_all(text)', $$kv_dead_requeue_all('rq') >= 0$$, 'dead');
SELECT p.oid::regprocedure AS without_a_call FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    WHERE p.prokind = 'f' AND p.proargnames @> '{queue}' AND (p.proargmodes IS NULL OR p.proargmodes[array_position(p.proargnames, 'queue')] = 'i') AND p.proname <> 'kv_schedule' AND p.oid NOT IN (SELECT function FROM rq_calls) ORDER BY 1;
GRANT SELECT ON rq_calls TO PUBLIC;

SET ROLE regress_kvs_queue_nobody;
SELECT split_part(call, '(', 1) || CASE WHEN left(call, 1) = '(' THEN call ELSE '' END AS call, outcome(call) FROM rq_calls ORDER BY needs, function::text;
-- What everybody may: see which queues there are, and the settings; nothing of their contents.
SELECT queue, owner, max_attempts FROM kv_queues WHERE queue = 'rq';
SELECT queue, max_attempts FROM kvstore.queues WHERE queue = 'rq';
SELECT statement, outcome_of(statement) FROM unnest(ARRAY[$$INSERT INTO kvstore.queues VALUES ('rq')$$, $$UPDATE kvstore.queues SET paused = true$$, $$DELETE FROM kvstore.queues$$, $$TRUNCATE kvstore.queues$$, $$SELECT nextval('kvstore.q_rq_id_seq')$$,
    $$SELECT count(*) FROM kvstore.q_rq$$, $$SELECT count(*) FROM kvstore.d_rq$$, $$CREATE TABLE kvstore.q_x (i int)$$]) statement;
RESET ROLE;

-- Each role may what it is for.
SET ROLE regress_kvs_queue_sender;
SELECT needs, count(*), count(*) FILTER (WHERE outcome(call) LIKE '42501%') AS denied FROM rq_calls GROUP BY needs ORDER BY needs;
RESET ROLE;
SET ROLE regress_kvs_queue_receiver;
SELECT needs, count(*), count(*) FILTER (WHERE outcome(call) LIKE '42501%') AS denied FROM rq_calls GROUP BY needs ORDER BY needs;
RESET ROLE;
SET ROLE regress_kvs_queue_looker;
SELECT needs, count(*), count(*) FILTER (WHERE outcome(call) LIKE '42501%') AS denied FROM rq_calls GROUP BY needs ORDER BY needs;
RESET ROLE;
SET ROLE regress_kvs_queue_cleaner;
SELECT needs, count(*), count(*) FILTER (WHERE outcome(call) LIKE '42501%') AS denied FROM rq_calls GROUP BY needs ORDER BY needs;
RESET ROLE;
SET ROLE regress_kvs_queue_undertaker;
SELECT needs, count(*), count(*) FILTER (WHERE outcome(call) LIKE '42501%') AS denied FROM rq_calls GROUP BY needs ORDER BY needs;
RESET ROLE;
-- To send a dead letter again one must be allowed to send.
SET ROLE regress_kvs_queue_owner;
INSERT INTO kvstore.d_rq (original_id, payload, attempts, enqueued_at, failed_at) VALUES (1, '1', 1, now(), now());
REVOKE INSERT ON kvstore.q_rq FROM regress_kvs_queue_undertaker;
RESET ROLE;
SET ROLE regress_kvs_queue_undertaker;
SELECT outcome($$kv_dead_requeue_all('rq')$$), outcome($$(SELECT count(*) FROM kv_dead_letters('rq'))$$);
RESET ROLE;

-- A receipt is no right: who may not receive cannot acknowledge either.
SET ROLE regress_kvs_queue_owner;
SELECT kv_purge_queue('rq') >= 0, kv_enqueue('rq', '1') > 0;
SELECT receipt FROM kv_dequeue('rq') \gset
RESET ROLE;
SET ROLE regress_kvs_queue_sender;
SELECT outcome(format('kv_ack(%L)', :'receipt')), outcome(format('kv_nack(%L)', :'receipt')), outcome(format('kv_release(%L)', :'receipt')), outcome(format('kv_extend(%L)', :'receipt'));
RESET ROLE;
SET ROLE regress_kvs_queue_receiver;
SELECT outcome(format('kv_ack(%L)', :'receipt'));
RESET ROLE;

-- GRANT and REVOKE are seen by the next call of a live session.
SET ROLE regress_kvs_queue_sender;
SELECT outcome($$kv_enqueue('rq', '1') > 0$$);
RESET ROLE;
REVOKE INSERT ON kvstore.q_rq FROM regress_kvs_queue_sender;
SET ROLE regress_kvs_queue_sender;
SELECT outcome($$kv_enqueue('rq', '1') > 0$$), outcome($$(SELECT count(*) FROM kv_enqueue_many('rq', '{1}'))$$), outcome($$kv_enqueue('rq', '1', dedupe_key => 'b')$$);
-- Nothing to send is refused, too.
SELECT outcome($$(SELECT count(*) FROM kv_enqueue_many('rq', '{}'))$$), outcome($$(SELECT count(*) FROM kv_enqueue_many('rq', '{}', dedupe_key => 'b'))$$);
RESET ROLE;

--
-- The guard: a right to write the table is no right to write it by plain SQL
--

GRANT ALL ON kvstore.q_rq TO regress_kvs_queue_sender;
SET ROLE regress_kvs_queue_sender;
SELECT statement, outcome_of(statement) FROM unnest(ARRAY[$$INSERT INTO kvstore.q_rq (ready_at, enqueued_at, payload) VALUES (now(), now(), '1')$$, $$UPDATE kvstore.q_rq SET attempts = 0$$, $$UPDATE kvstore.q_rq SET priority = 9 WHERE id = 1$$, $$DELETE FROM kvstore.q_rq$$,
    $$TRUNCATE kvstore.q_rq$$, $$UPDATE kvstore.q_rq SET payload = '2' WHERE false$$]) statement;
SELECT outcome($$kv_enqueue('rq', '1') > 0$$), outcome($$(SELECT count(*) FROM kv_dequeue('rq'))$$), outcome($$kv_purge_queue('rq') > 0$$);
RESET ROLE;
-- What a user's trigger does inside a function of ours is guarded again, and runs with the caller's rights.
CREATE FUNCTION rq_side() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN UPDATE kvstore.q_rq SET priority = 9; RETURN NULL; END $$;
CREATE TRIGGER rq_side AFTER INSERT ON kvstore.q_rq FOR EACH STATEMENT EXECUTE FUNCTION rq_side();
SELECT kv_purge_queue('rq') >= 0;
SELECT kv_enqueue('rq', '1') > 0 AS as_superuser;
SET ROLE regress_kvs_queue_sender;
SELECT split_part(outcome($$kv_enqueue('rq', '1')$$), ' | ', 1) AS outcome;
RESET ROLE;
DROP TRIGGER rq_side ON kvstore.q_rq;
DROP FUNCTION rq_side();

-- Nor may who can write the dead letters make one up, and send a message in somebody's name.
GRANT ALL ON kvstore.d_rq TO regress_kvs_queue_sender;
SET ROLE regress_kvs_queue_sender;
SELECT statement, outcome_of(statement) FROM unnest(ARRAY[$$INSERT INTO kvstore.d_rq (original_id, payload, attempts, enqueued_at, failed_at, sender) VALUES (1, '1', 1, now(), now(), 'postgres')$$, $$UPDATE kvstore.d_rq SET sender = 'postgres'$$,
    $$DELETE FROM kvstore.d_rq$$]) statement;
RESET ROLE;

--
-- The dead letters are found by name: where they are somebody else's, nothing of theirs is touched
--

CREATE ROLE regress_kvs_queue_stranger;
GRANT CREATE ON SCHEMA kvstore TO regress_kvs_queue_stranger;
SELECT kv_purge_queue('rq') >= 0, kv_enqueue('rq', '"stays"', max_attempts => 1) > 0;
ALTER TABLE kvstore.d_rq OWNER TO regress_kvs_queue_stranger;
SELECT call, outcome(call) FROM unnest(ARRAY[$$kv_alter_queue('rq', max_attempts => 3)$$, $$(SELECT count(*) FROM kv_dead_letters('rq'))$$, $$kv_dead_requeue('rq', 1)$$, $$kv_dead_requeue_all('rq')$$, $$kv_dead_delete('rq', 1)$$,
    $$kv_dead_purge('rq')$$, $$kv_drop_queue('rq')$$, $$(SELECT kv_nack(receipt) FROM kv_dequeue('rq'))$$]) call;
-- What is given up is kept until they agree, and seen.
SELECT kv_maintain() >= 0;
SELECT payload, status, attempts FROM kv_peek('rq');
SELECT state, error FROM kv_leases WHERE queue = 'rq';
SELECT dead, dying, stuck FROM kv_queue_stats('rq');
-- Not in kv_drop_queue() by its own owner either, who does not own the queue.
SET ROLE regress_kvs_queue_stranger;
SELECT outcome($$kv_drop_queue('rq')$$);
RESET ROLE;
ALTER TABLE kvstore.d_rq OWNER TO regress_kvs_queue_owner;
SET kvstore.test_clock = 10;
SELECT kv_maintain() >= 0;
RESET kvstore.test_clock;
SELECT kv_alter_queue('rq', max_attempts => 3), payload, sender IS NOT NULL AS sent FROM kvstore.d_rq;
-- A table of dead letters that is there before its queue.
SET ROLE regress_kvs_queue_stranger;
CREATE TABLE kvstore.d_rq_squat (i int);
RESET ROLE;
SELECT outcome($$kv_create_queue('rq_squat')$$), outcome($$kv_create_queue('rq_squat', if_not_exists => true)$$);
DROP OWNED BY regress_kvs_queue_stranger;
DROP ROLE regress_kvs_queue_stranger;

-- Row-level security is refused, for the owner and a superuser too.
ALTER TABLE kvstore.q_rq ENABLE ROW LEVEL SECURITY;
SELECT outcome($$kv_enqueue('rq', '1')$$), outcome($$(SELECT count(*) FROM kv_peek('rq'))$$);
ALTER TABLE kvstore.q_rq DISABLE ROW LEVEL SECURITY;
-- Dropping is the owner's, who needs no other right.
SET ROLE regress_kvs_queue_owner;
SELECT kv_drop_queue('rq');
RESET ROLE;
DROP TABLE rq_calls;
DROP OWNED BY regress_kvs_queue_owner;
DROP ROLE regress_kvs_queue_owner, regress_kvs_queue_sender, regress_kvs_queue_receiver, regress_kvs_queue_looker, regress_kvs_queue_cleaner, regress_kvs_queue_undertaker, regress_kvs_queue_nobody;
