-- Queues: create, alter, pause, drop; names, settings, shape, storage; the owner's plain SQL.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '

--
-- Create
--

SELECT kv_create_queue();
SELECT outcome('kv_create_queue()');
SELECT kv_create_queue(if_not_exists => true);
SELECT kv_enqueue('default', '"first"'), (SELECT payload FROM kv_peek('default'));
SELECT kv_drop_queue();
SELECT kv_drop_queue();
SELECT outcome($$kv_enqueue('default', '1')$$);

SELECT kv_create_queue('qu_plain');
SELECT kv_create_queue('qu_fast', unlogged => true);
SELECT kv_create_queue('qu_set', lease => '2 min', max_attempts => 3, backoff => '{1s,1min}', keep_dead => false);
SELECT kv_create_queue('qu_default', lease => '30000 ms', max_attempts => 10, backoff => '{1s,5s,30s,120s,10min,1800s,60min}', keep_dead => true);
SELECT kv_create_queue('qu_null', NULL, NULL, NULL, NULL, NULL, NULL);
SELECT kv_create_queue('qu_none', backoff => '{}');
SELECT * FROM kvstore.queues ORDER BY queue;
SELECT queue, table_name, owner = current_user AS mine, unlogged, lease, max_attempts, backoff, keep_dead, paused, messages_estimate >= 0 AS messages, total_bytes >= 8192 AS bytes
    FROM kv_queues WHERE queue LIKE 'qu\_%' ORDER BY queue;

-- What exists stays as it is, whatever is asked for.
SELECT outcome($$kv_create_queue('qu_plain')$$);
SELECT kv_create_queue('qu_plain', lease => '1 s', unlogged => true, if_not_exists => true);
SELECT unlogged, lease FROM kv_queues WHERE queue = 'qu_plain';

-- The name returned is what GRANT wants.
SELECT format('GRANT INSERT ON %s TO PUBLIC', kv_create_queue('qu_plain', if_not_exists => true)) \gexec
SELECT has_table_privilege('public', 'kvstore.q_qu_plain', 'INSERT') AS granted, has_table_privilege('public', 'kvstore.d_qu_plain', 'SELECT') AS not_granted;

-- Ordinary tables of the caller's own, not members of the extension.
SELECT table_name, column_name, data_type, is_nullable, column_default, identity_generation FROM information_schema.columns
    WHERE table_schema = 'kvstore' AND table_name IN ('q_qu_plain', 'd_qu_plain') ORDER BY table_name DESC, ordinal_position;
SELECT relname, reloptions, relpersistence FROM pg_class WHERE oid IN ('kvstore.q_qu_plain'::regclass, 'kvstore.d_qu_plain'::regclass, 'kvstore.q_qu_fast'::regclass, 'kvstore.d_qu_fast'::regclass) ORDER BY relname;
-- Large payloads, too, are vacuumed often, and never locked to be truncated.
SELECT c.relname, t.reloptions FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = 'kvstore.q_qu_plain'::regclass;
SELECT regexp_replace(indexdef, ' ON kvstore\.', ' ON ') FROM pg_indexes WHERE tablename IN ('q_qu_plain', 'd_qu_plain') ORDER BY indexname;
SELECT tgname, tgenabled, tgfoid::regproc FROM pg_trigger WHERE tgrelid = 'kvstore.q_qu_plain'::regclass ORDER BY tgname;
SELECT count(*) AS members FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND objid IN ('kvstore.q_qu_plain'::regclass, 'kvstore.d_qu_plain'::regclass);

-- A name is a name, as for stores.
SELECT left(name, 20) AS name, left(outcome(format('kv_create_queue(%L)', name)), 60) AS outcome FROM unnest(ARRAY['', 'A', 'a-b', '1a', 'a"b', 'a;b', 'a%s', ' a', NULL, repeat('a', 49)]) name;
SELECT left(name, 20) AS name, outcome(format('kv_create_queue(%L)', name)) AS created, outcome(format('kv_enqueue(%L, ''1'')', name)) AS sent, outcome(format('(SELECT payload FROM kv_peek(%L))', name)) AS seen,
       outcome(format('kv_purge_queue(%L)', name)) AS purged, outcome(format('kv_alter_queue(%L, max_attempts => 7)', name)) AS altered, outcome(format('kv_drop_queue(%L)', name)) AS dropped
    FROM unnest(ARRAY['a', 'select', 'queues', 'q_a', 'd_a', repeat('z', 48)]) name;
-- A store and a queue of one name are two things.
SELECT kv_create_store('qu_plain'), kv_set('k', '1', store => 'qu_plain') > 0 AS set, kv_enqueue('qu_plain', '1') AS sent, kv_drop_store('qu_plain');
SELECT id, payload FROM kv_peek('qu_plain');
SELECT kv_purge_queue('qu_plain');

--
-- Settings
--

-- NULL leaves a setting alone; a row with nothing but defaults goes.
SELECT kv_alter_queue('qu_set', lease => '3 min');
SELECT * FROM kvstore.queues WHERE queue = 'qu_set';
SELECT kv_alter_queue('qu_set', max_attempts => 1, keep_dead => true);
SELECT * FROM kvstore.queues WHERE queue = 'qu_set';
SELECT kv_alter_queue('qu_set');
SELECT kv_alter_queue('qu_set', lease => '30 s', max_attempts => 10, backoff => '{1s,5s,30s,2min,10min,30min,1h}');
SELECT * FROM kvstore.queues WHERE queue = 'qu_set';
SELECT kv_alter_queue('qu_set', lease => '12 hours', backoff => array_fill('1 month'::interval, ARRAY[16]), max_attempts => 2147483647);
SELECT lease, max_attempts, cardinality(backoff) FROM kv_queues WHERE queue = 'qu_set';
SELECT kv_enqueue('qu_set', '1') > 0, (SELECT max_attempts FROM kv_peek('qu_set'));

SELECT call, outcome(call) AS outcome FROM unnest(ARRAY[
    $$kv_create_queue('qu_bad', lease => '0')$$, $$kv_create_queue('qu_bad', lease => '-1 s')$$, $$kv_create_queue('qu_bad', lease => '12 hours 1 us')$$, $$kv_create_queue('qu_bad', lease => '1 month')$$,
    $$kv_create_queue('qu_bad', max_attempts => 0)$$, $$kv_create_queue('qu_bad', max_attempts => -1)$$, $$kv_create_queue('qu_bad', max_attempts => 2147483648)$$,
    $$kv_create_queue('qu_bad', backoff => '{1s,-1s}')$$, $$kv_create_queue('qu_bad', backoff => '{1s,NULL}')$$, $$kv_create_queue('qu_bad', backoff => array_fill('1 s'::interval, ARRAY[17]))$$,
    $$kv_create_queue('qu_bad', backoff => '{{1s,2s},{3s,4s}}')$$, $$kv_alter_queue('qu_plain', lease => '13 hours')$$, $$kv_alter_queue('qu_plain', max_attempts => 0)$$, $$kv_alter_queue('qu_plain', backoff => '{-1 us}')$$,
    $$kv_alter_queue('qu_gone')$$, $$kv_alter_queue(NULL)$$, $$kv_drop_queue(NULL)$$, $$kv_pause_queue('qu_gone')$$, $$kv_resume_queue(NULL)$$, $$kv_purge_queue('qu_gone')$$, $$kv_purge_queue(NULL)$$]) call;
SELECT count(*) FROM kv_queues WHERE queue = 'qu_bad';

-- Paused: sending goes on.
SELECT kv_pause_queue('qu_plain'), kv_pause_queue('qu_plain'), (SELECT paused FROM kvstore.queues WHERE queue = 'qu_plain');
SELECT paused, outcome($$kv_enqueue('qu_plain', '1') > 0$$) FROM kv_queues WHERE queue = 'qu_plain';
SELECT count(*) AS given FROM kv_dequeue('qu_plain');
SELECT kv_alter_queue('qu_plain', lease => '1 min');
SELECT paused FROM kv_queues WHERE queue = 'qu_plain';
SELECT kv_resume_queue('qu_plain'), kv_resume_queue('qu_plain');
SELECT * FROM kvstore.queues WHERE queue = 'qu_plain';
SELECT count(*) AS given FROM kv_dequeue('qu_plain');
SELECT kv_purge_queue('qu_plain');

-- All within the caller's transaction.
BEGIN;
SELECT kv_create_queue('qu_gone', lease => '1 min');
SELECT kv_enqueue('qu_gone', '1');
SELECT kv_alter_queue('qu_plain', lease => '5 min');
SELECT kv_pause_queue('qu_plain');
SELECT kv_drop_queue('qu_fast');
ROLLBACK;
SELECT outcome($$kv_enqueue('qu_gone', '1')$$), kv_enqueue('qu_fast', '1') > 0 AS still_there;
SELECT lease, paused FROM kv_queues WHERE queue = 'qu_plain';

-- Dropped by hand a queue leaves settings and dead letters behind: the new one has none of them.
SELECT kv_create_queue('qu_hand', lease => '1 min');
DROP TABLE kvstore.q_qu_hand;
SELECT outcome($$kv_create_queue('qu_hand')$$);
SELECT kv_drop_queue('qu_hand'), kv_drop_queue('qu_hand');
SELECT kv_create_queue('qu_hand'), (SELECT count(*) FROM kvstore.queues WHERE queue = 'qu_hand');
DROP TABLE kvstore.q_qu_hand, kvstore.d_qu_hand;
SELECT kv_create_queue('qu_hand'), kv_enqueue('qu_hand', '1');
DROP TABLE kvstore.d_qu_hand;
SELECT kv_enqueue('qu_hand', '1'), outcome($$(SELECT count(*) FROM kv_dead_letters('qu_hand'))$$), kv_drop_queue('qu_hand');
-- What hangs on a queue is not dropped with it.
CREATE VIEW qu_view AS SELECT payload FROM kvstore.q_qu_plain;
SELECT outcome($$kv_drop_queue('qu_plain')$$);
DROP VIEW qu_view;

--
-- Shape: altered in a live session and back again, 42809 or it works
--

CREATE FUNCTION pg_temp.queue_access(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    call text;
    said text;
    seen text[] := '{}';
BEGIN
    FOREACH call IN ARRAY ARRAY['kv_enqueue(%L, ''1'') > 0', '(SELECT count(*) FROM kv_enqueue_many(%L, ''{1,2}''))', 'kv_enqueue(%L, ''1'', dedupe_key => ''a'') > 0', '(SELECT count(*) FROM kv_peek(%L, 1))', 'kv_cancel(%L, -5)',
            '(SELECT count(*) FROM kv_dequeue(%L))', 'kv_alter_queue(%L)', 'kv_pause_queue(%L)', 'kv_resume_queue(%L)', 'kv_dead_requeue_all(%L)', 'kv_purge_queue(%L) >= 0'] LOOP
        said := outcome(format(call, name));
        said := CASE WHEN said ~ '^[0-9A-Z]{5} \| ' THEN regexp_replace(said, ' \| (Undo the change|Failing row|Use one queue|Create it).*', '') ELSE 'works' END;
        IF said <> ALL (seen) THEN
            seen := seen || said;
        END IF;
    END LOOP;
    RETURN array_to_string(seen, E'\n');
END $$;
CREATE FUNCTION pg_temp.queue_altered(change text, back text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
    after text;
BEGIN
    EXECUTE change;
    said := pg_temp.queue_access('qu_plain');
    EXECUTE back;
    after := pg_temp.queue_access('qu_plain');
    RETURN said || CASE WHEN after <> 'works' THEN E'\nthen: ' || after ELSE '' END;
END $$;
SELECT pg_temp.queue_access('qu_plain');
CREATE FUNCTION qu_nothing() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN COALESCE(NEW, OLD); END $$;
SELECT change, pg_temp.queue_altered(change, back) FROM (VALUES
    ('ALTER TABLE kvstore.q_qu_plain DROP CONSTRAINT q_qu_plain_pkey', 'ALTER TABLE kvstore.q_qu_plain ADD PRIMARY KEY (id)'),
    ('DROP INDEX kvstore.q_qu_plain_priority_ready_at_id_idx', 'CREATE INDEX ON kvstore.q_qu_plain (priority DESC, ready_at, id)'),
    ('DROP INDEX kvstore.q_qu_plain_dedupe_key_idx', 'CREATE UNIQUE INDEX ON kvstore.q_qu_plain (dedupe_key) WHERE dedupe_key IS NOT NULL'),
    ('ALTER TABLE kvstore.q_qu_plain ALTER id DROP IDENTITY', 'ALTER TABLE kvstore.q_qu_plain ALTER id ADD GENERATED BY DEFAULT AS IDENTITY (START 100000)'),
    ('ALTER TABLE kvstore.q_qu_plain RENAME payload TO body', 'ALTER TABLE kvstore.q_qu_plain RENAME body TO payload'),
    ('ALTER TABLE kvstore.q_qu_plain ALTER attempts DROP NOT NULL', 'ALTER TABLE kvstore.q_qu_plain ALTER attempts SET NOT NULL'),
    ('ALTER TABLE kvstore.q_qu_plain ALTER max_attempts TYPE int8', 'ALTER TABLE kvstore.q_qu_plain ALTER max_attempts TYPE int4'),
    ('ALTER TABLE kvstore.q_qu_plain ALTER headers SET NOT NULL', 'ALTER TABLE kvstore.q_qu_plain ALTER headers DROP NOT NULL'),
    ('ALTER TABLE kvstore.q_qu_plain ADD extra text DEFAULT ''x''', 'ALTER TABLE kvstore.q_qu_plain DROP extra'),
    ('ALTER TABLE kvstore.q_qu_plain ADD extra text GENERATED ALWAYS AS (payload ->> ''a'') STORED', 'ALTER TABLE kvstore.q_qu_plain DROP extra'),
    ('ALTER TABLE kvstore.q_qu_plain RENAME TO q_qu_away', 'ALTER TABLE kvstore.q_qu_away RENAME TO q_qu_plain'),
    ('ALTER TABLE kvstore.q_qu_plain SET SCHEMA public', 'ALTER TABLE public.q_qu_plain SET SCHEMA kvstore'),
    ('CREATE TABLE qu_child () INHERITS (kvstore.q_qu_plain)', 'DROP TABLE qu_child'),
    ('CREATE RULE qu_rule AS ON INSERT TO kvstore.q_qu_plain DO INSTEAD NOTHING', 'DROP RULE qu_rule ON kvstore.q_qu_plain'),
    ('CREATE INDEX qu_index ON kvstore.q_qu_plain (enqueued_at)', 'DROP INDEX kvstore.qu_index'),
    ('ALTER TABLE kvstore.q_qu_plain SET UNLOGGED', 'ALTER TABLE kvstore.q_qu_plain SET LOGGED'),
    ('ALTER TABLE kvstore.q_qu_plain ADD CONSTRAINT qu_check CHECK (payload <> ''"bad"'')', 'ALTER TABLE kvstore.q_qu_plain DROP CONSTRAINT qu_check'),
    ('ALTER TABLE kvstore.q_qu_plain ADD CONSTRAINT qu_check CHECK (priority < 0) NOT VALID', 'ALTER TABLE kvstore.q_qu_plain DROP CONSTRAINT qu_check'),
    ('CREATE TRIGGER qu_trigger BEFORE INSERT OR DELETE ON kvstore.q_qu_plain FOR EACH ROW EXECUTE FUNCTION qu_nothing()', 'DROP TRIGGER qu_trigger ON kvstore.q_qu_plain'),
    ('ALTER TABLE kvstore.q_qu_plain ENABLE ROW LEVEL SECURITY', 'ALTER TABLE kvstore.q_qu_plain DISABLE ROW LEVEL SECURITY'),
    ('ALTER TABLE kvstore.d_qu_plain RENAME error TO reason', 'ALTER TABLE kvstore.d_qu_plain RENAME reason TO error'),
    ('ALTER TABLE kvstore.d_qu_plain RENAME TO d_qu_away', 'ALTER TABLE kvstore.d_qu_away RENAME TO d_qu_plain'),
    ('DROP TRIGGER kvstore_guard ON kvstore.q_qu_plain', 'CREATE TRIGGER kvstore_guard BEFORE INSERT OR UPDATE OR DELETE ON kvstore.q_qu_plain FOR EACH ROW EXECUTE FUNCTION kvstore.guard()'),
    ('CLUSTER kvstore.q_qu_plain USING q_qu_plain_pkey', 'ALTER TABLE kvstore.q_qu_plain SET WITHOUT CLUSTER')) v(change, back);
-- Nothing but the very indexes will do.
DROP INDEX kvstore.q_qu_plain_priority_ready_at_id_idx;
SELECT definition, pg_temp.queue_altered('CREATE INDEX qu_index ON kvstore.q_qu_plain ' || definition, 'DROP INDEX kvstore.qu_index') LIKE 'works%' AS works FROM unnest(ARRAY['(priority, ready_at, id)', '(priority DESC, ready_at DESC, id)',
    '(priority DESC NULLS LAST, ready_at, id)', '(priority DESC, ready_at)', '(priority DESC, ready_at, id, attempts)', '(priority DESC, ready_at, id) INCLUDE (attempts)', '(priority DESC, ready_at, id) WHERE attempts = 0', '(priority DESC, ready_at, id)']) definition;
CREATE INDEX q_qu_plain_priority_ready_at_id_idx ON kvstore.q_qu_plain (priority DESC, ready_at, id);
DROP INDEX kvstore.q_qu_plain_dedupe_key_idx;
SELECT definition, pg_temp.queue_altered('CREATE ' || definition, 'DROP INDEX kvstore.qu_index') LIKE 'works%' AS works FROM unnest(ARRAY['INDEX qu_index ON kvstore.q_qu_plain (dedupe_key) WHERE dedupe_key IS NOT NULL',
    'UNIQUE INDEX qu_index ON kvstore.q_qu_plain (dedupe_key)', 'UNIQUE INDEX qu_index ON kvstore.q_qu_plain (dedupe_key) WHERE dedupe_key IS NOT NULL AND attempts = 0', 'UNIQUE INDEX qu_index ON kvstore.q_qu_plain (dedupe_key) WHERE payload IS NOT NULL',
    'UNIQUE INDEX qu_index ON kvstore.q_qu_plain (dedupe_key, id) WHERE dedupe_key IS NOT NULL', 'UNIQUE INDEX qu_index ON kvstore.q_qu_plain (dedupe_key) WHERE dedupe_key IS NOT NULL']) definition;
CREATE UNIQUE INDEX ON kvstore.q_qu_plain (dedupe_key) WHERE dedupe_key IS NOT NULL;
SELECT pg_temp.queue_access('qu_plain');
VACUUM FULL kvstore.q_qu_plain;
REINDEX TABLE kvstore.q_qu_plain;
SELECT pg_temp.queue_access('qu_plain');
-- Something else under a queue's name.
CREATE TABLE kvstore.q_qu_evil (id int, payload int);
CREATE VIEW kvstore.q_qu_view AS SELECT 1 AS id;
CREATE TABLE kvstore.q_qu_parts (id int8) PARTITION BY RANGE (id);
CREATE SEQUENCE kvstore.q_qu_sequence;
SELECT name, pg_temp.queue_access(name) FROM unnest(ARRAY['qu_evil', 'qu_view', 'qu_parts', 'qu_sequence']) name;
SELECT outcome($$kv_create_queue('qu_evil', if_not_exists => true)$$), outcome($$kv_create_queue('qu_view')$$);
SELECT queue FROM kv_queues WHERE queue IN ('qu_evil', 'qu_view', 'qu_parts');
DROP TABLE kvstore.q_qu_evil, kvstore.q_qu_parts;
DROP VIEW kvstore.q_qu_view;
DROP SEQUENCE kvstore.q_qu_sequence;

--
-- The owner's plain SQL: rows that the queue can order and count
--

SELECT statement, regexp_replace(outcome_of(statement), 'Failing row.*', '') FROM unnest(ARRAY[$$INSERT INTO kvstore.q_qu_plain (ready_at, enqueued_at, payload) VALUES (now(), now(), '"by hand"')$$,
    $$INSERT INTO kvstore.q_qu_plain (ready_at, enqueued_at, payload, priority) VALUES (now(), now(), '1', 10)$$, $$INSERT INTO kvstore.q_qu_plain (ready_at, enqueued_at, payload, priority) VALUES (now(), now(), '1', -1)$$,
    $$INSERT INTO kvstore.q_qu_plain (ready_at, enqueued_at, payload) VALUES ('infinity', now(), '1')$$, $$INSERT INTO kvstore.q_qu_plain (ready_at, enqueued_at, payload) VALUES ('-infinity', now(), '1')$$,
    $$INSERT INTO kvstore.q_qu_plain (ready_at, enqueued_at, payload) VALUES (NULL, now(), '1')$$, $$INSERT INTO kvstore.q_qu_plain (ready_at, enqueued_at) VALUES (now(), now())$$,
    $$UPDATE kvstore.q_qu_plain SET attempts = -1$$, $$UPDATE kvstore.q_qu_plain SET max_attempts = 0$$, $$UPDATE kvstore.q_qu_plain SET backoff = '{-1 s}'$$, $$UPDATE kvstore.q_qu_plain SET priority = 99$$,
    $$UPDATE kvstore.q_qu_plain SET priority = 9, attempts = 2, max_attempts = 10, backoff = '{}', last_error = 'x'$$]) statement;
SELECT payload, priority, attempts, max_attempts, last_error FROM kv_peek('qu_plain');
SELECT payload, priority, attempts FROM kv_dequeue('qu_plain');
SELECT outcome_of($$DELETE FROM kvstore.q_qu_plain$$), outcome_of($$TRUNCATE kvstore.q_qu_plain$$);

SELECT queue, kv_drop_queue(queue) FROM kv_queues WHERE queue LIKE 'qu\_%' ORDER BY queue;
DROP FUNCTION qu_nothing();
SELECT count(*) AS left_behind FROM kvstore.queues;
SELECT relname FROM pg_class WHERE relnamespace = 'kvstore'::regnamespace AND relname ~ '^[qd]_';
