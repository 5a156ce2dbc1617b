-- Calls inside calls: code of a user that runs in the middle of one of our functions, such as a policy or a trigger, calls our functions, too.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '
CREATE ROLE regress_kvs_nested;
CREATE ROLE regress_kvs_caller;
GRANT CREATE ON SCHEMA kvstore TO regress_kvs_nested;
GRANT CREATE ON SCHEMA public TO regress_kvs_nested;
SET ROLE regress_kvs_nested;
SELECT kv_create_store('nest'), kv_create_store('inner'), kv_create_queue('nest'), kv_create_queue('inner', keep_dead => false);

-- What is set as nest.call runs once for each time that code of the user is asked, but not inside itself.
CREATE SEQUENCE nest_calls;
CREATE FUNCTION nest_call() RETURNS void LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
    call text := coalesce(current_setting('nest.call', true), '');
BEGIN
    IF call = '' THEN
        RETURN;
    END IF;
    PERFORM set_config('nest.call', '', true);
    EXECUTE call;
    PERFORM set_config('nest.call', call, true);
    PERFORM nextval('nest_calls');
END $$;
CREATE FUNCTION nest_policy() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.nest_call(); RETURN true; END $$;
CREATE FUNCTION nest_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.nest_call(); RETURN coalesce(new, old); END $$;

-- What a call gives by itself, and with another one inside it: "same" if that is the same and the other one has run.
CREATE FUNCTION nest_try(outer_call text, inner_call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    alone text;
    nested text;
BEGIN
    PERFORM set_config('nest.call', '', true);
    BEGIN
        alone := outcome(outer_call);
        RAISE EXCEPTION 'undo';
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
    PERFORM set_config('nest.call', inner_call, true), setval('nest_calls', 1);
    BEGIN
        nested := outcome(outer_call);
        RAISE EXCEPTION 'undo';
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
    PERFORM set_config('nest.call', '', true);
    RETURN CASE WHEN currval('nest_calls') = 1 THEN 'not called: ' || nested WHEN nested IS NOT DISTINCT FROM alone THEN 'same' ELSE concat(alone, ' became ', nested) END;
END $$;

CREATE TABLE nest_inner (call text);
INSERT INTO nest_inner VALUES
    ($$SELECT * FROM kv_watch('{a,b}', '{0,0}', wait => '0', store => 'inner')$$),
    ($$SELECT * FROM kv_watch('{a,b}', '{0,0}', wait => '1 ms', store => 'inner')$$),
    ($$SELECT * FROM kv_watch('{a}', '{0}', wait => '1 ms', store => 'nest')$$),
    ($$SELECT * FROM kv_dequeue('inner')$$),
    ($$SELECT * FROM kv_dequeue('inner', wait => '1 ms')$$),
    ($$SELECT * FROM kv_changes(kv_feed_position(), '', wait => '1 ms', store => 'inner')$$),
    ($$SELECT kv_set('x', '1', store => 'inner')$$),
    ($$SELECT kv_set('x', '1', store => 'nest')$$),
    ($$SELECT kv_get('a', 'nest')$$),
    ($$SELECT count(*) FROM kv_list('', store => 'nest')$$),
    ($$SELECT kv_incr('n', store => 'inner')$$),
    ($$SELECT kv_incr('x', store => 'nest')$$),
    ($$SELECT kv_set_many('{p,q}', '{1,2}', store => 'inner'), kv_delete_prefix('p', 'inner'), kv_clear('inner')$$),
    ($$SELECT * FROM kv_atomic('[{"check": {"key": "none", "versionstamp": 0}}, {"set": {"key": "x", "value": 1}}]', 'inner')$$),
    ($$SELECT kv_enqueue('inner', '1'), kv_ack(receipt) FROM kv_dequeue('inner')$$),
    ($$SELECT outcome('kv_set_many(''{a}'', ''{1,2}'', store => ''inner'')'), outcome('kv_get(''a'', store => ''none'')')$$),
    ($$SELECT kv_create_store('nest_new'), kv_set('a', '1', store => 'nest_new'), kv_drop_store('nest_new')$$),
    ($$SELECT kv_alter_store('nest', default_ttl => '1 day')$$);
CREATE TABLE nest_outer (call text, writes boolean);
INSERT INTO nest_outer VALUES
    ($$kv_get('a', 'nest')$$, false),
    ($$(SELECT count(*) FROM kv_list('', store => 'nest'))$$, false),
    ($$kv_count('', 'nest')$$, false),
    ($$(SELECT count(value) FROM kv_get_many('{a,b,none}', 'nest'))$$, false),
    ($$(SELECT count(*) FROM kv_watch('{a,b}', '{0,1}', store => 'nest'))$$, false),
    ($$(SELECT count(*) FROM kv_watch('{a}', ARRAY[(SELECT versionstamp FROM kv_entry('a', 'nest'))], wait => '1 ms', store => 'nest'))$$, false),
    ($$kv_set('a', '2', store => 'nest') > 0$$, true),
    ($$kv_set('new', '2', store => 'nest') > 0$$, true),
    ($$kv_set('new', '2', if_version => 0, store => 'nest') > 0$$, true),
    ($$kv_incr('n', store => 'nest')$$, true),
    ($$kv_take('a', 'nest')$$, true),
    ($$kv_delete('a', store => 'nest')$$, true),
    ($$kv_expire('a', '1 day', store => 'nest')$$, true),
    ($$kv_set_many('{a,b,new}', '{1,2,3}', store => 'nest') > 0$$, true),
    ($$kv_delete_many('{a,b,none}', 'nest')$$, true),
    ($$kv_delete_prefix('a', 'nest')$$, true),
    ($$kv_clear('nest') > 0$$, true),
    ($$(SELECT ok FROM kv_atomic('[{"check": {"key": "none", "versionstamp": 0}}, {"set": {"key": "a", "value": 1}}, {"sum": {"key": "n", "value": 1}}, {"delete": {"key": "b"}}]', 'nest'))$$, true),
    ($$(SELECT kv_check('a', versionstamp, 'nest') FROM kv_entry('a', 'nest'))$$, false);
SELECT kv_set_many('{a,b,n}', '{1,2,3}', store => 'nest') > 0;

-- In a policy.
ALTER TABLE kvstore.s_nest ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY nest ON kvstore.s_nest USING (nest_policy());
SELECT o.call, i.call, outcome FROM nest_outer o, nest_inner i, nest_try(o.call, i.call) outcome WHERE outcome <> 'same';
SELECT count(*) FROM kvstore.waiters();

-- In a trigger, which sees writes only.
DROP POLICY nest ON kvstore.s_nest;
ALTER TABLE kvstore.s_nest DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
CREATE TRIGGER nest BEFORE INSERT OR UPDATE OR DELETE ON kvstore.s_nest FOR EACH ROW EXECUTE FUNCTION nest_trigger();
SELECT o.call, i.call, outcome FROM nest_outer o, nest_inner i, nest_try(o.call, i.call) outcome WHERE o.writes AND outcome <> 'same';
DROP TRIGGER nest ON kvstore.s_nest;

-- In a constraint, and in the expression of an index.
CREATE FUNCTION nest_of(jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.nest_call(); RETURN true; END $$;
ALTER TABLE kvstore.s_nest ADD CONSTRAINT nest CHECK (nest_of(value));
SELECT o.call, i.call, outcome FROM nest_outer o, nest_inner i, nest_try(o.call, i.call) outcome WHERE o.call ~ 'set|incr|atomic' AND outcome <> 'same';
ALTER TABLE kvstore.s_nest DROP CONSTRAINT nest;
CREATE INDEX nest ON kvstore.s_nest (nest_of(value));
-- PostgreSQL itself warns of an ON CONFLICT that runs while the index entries of another one are made.
SET client_min_messages = error;
SELECT o.call, i.call, outcome FROM nest_outer o, nest_inner i, nest_try(o.call, i.call) outcome WHERE o.call ~ 'set|incr|atomic' AND outcome <> 'same';
RESET client_min_messages;
DROP INDEX kvstore.nest;

-- In a queue: a trigger that runs when a message is sent and settled.
CREATE TRIGGER nest BEFORE INSERT OR UPDATE OR DELETE ON kvstore.q_nest FOR EACH ROW EXECUTE FUNCTION nest_trigger();
SELECT o.call, i.call, outcome FROM unnest(ARRAY[
    $$kv_enqueue('nest', '1') > 0$$,
    $$(SELECT count(id) FROM kv_enqueue_many('nest', '{1,2}'))$$,
    $$(SELECT count(kv_ack(receipt)) FROM kv_enqueue('nest', '1') e, LATERAL (SELECT receipt FROM kv_dequeue('nest') WHERE e > 0) d)$$,
    $$(SELECT min(kv_nack(receipt, error => 'x')) FROM kv_enqueue('nest', '1') e, LATERAL (SELECT receipt FROM kv_dequeue('nest') WHERE e > 0) d)$$,
    $$kv_purge_queue('nest')$$]) o(call), nest_inner i, nest_try(o.call, i.call) outcome
    WHERE outcome <> 'same' AND (o.call !~ 'purge' OR outcome !~ '^not called');
DROP TRIGGER nest ON kvstore.q_nest;

-- A message that is given up while its trigger acknowledges one of another queue: each lease ends in its own way.
SELECT kv_enqueue('nest', '1') > 0, kv_enqueue('inner', '1') > 0;
SELECT receipt AS ours FROM kv_dequeue('nest') \gset
SELECT receipt AS other FROM kv_dequeue('inner') \gset
CREATE TRIGGER nest BEFORE UPDATE ON kvstore.q_nest FOR EACH ROW EXECUTE FUNCTION nest_trigger();
SELECT set_config('nest.call', format('SELECT kv_ack(%L)', :'other'), false) <> '' AS set;
SELECT kv_nack(:'ours', dead => true);
RESET nest.call;
SELECT kv_ack(:'other');
SELECT count(*) FROM kv_peek('inner');
RESET ROLE;
SELECT queue, dying + dead AS given_up FROM kv_queue_stats() WHERE queue IN ('nest', 'inner') ORDER BY queue;
SET ROLE regress_kvs_nested;
DROP TRIGGER nest ON kvstore.q_nest;

-- A wait in a policy of the store that it waits for: each look waits inside, up to some depth.
ALTER TABLE kvstore.s_nest ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION nest_deep() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM kv_watch('{a}', '{0}', wait => '1 ms', store => 'nest'); RETURN true; END $$;
CREATE POLICY nest ON kvstore.s_nest USING (nest_deep());
SELECT outcome_of($$SELECT * FROM kv_watch('{a}', '{0}', wait => '1 ms', store => 'nest')$$);
SELECT outcome_of($$SELECT * FROM kv_watch('{a}', '{0}', wait => '1 ms', store => 'inner')$$);
-- An ERROR in the middle: what the session had begun is gone.
CREATE OR REPLACE FUNCTION nest_deep() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM kv_watch('{a}', '{0,0}', store => 'inner'); RETURN true; END $$;
SELECT kv_watch('{a}', '{0}', store => 'nest');
CREATE OR REPLACE FUNCTION nest_deep() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM kv_clear('inner'); RAISE 'no'; END $$;
\set VERBOSITY terse
SELECT kv_delete_prefix('a', store => 'nest');
\set VERBOSITY default
SELECT count(*) FROM kv_stat_progress;
SELECT count(*) FROM kvstore.waiters();
DROP POLICY nest ON kvstore.s_nest;
SELECT kv_delete_prefix('a', store => 'nest');

-- Our statements pass the guard of the table, and what a user's code writes inside them does not.
GRANT SELECT, INSERT, UPDATE, DELETE ON kvstore.s_nest TO regress_kvs_caller;
GRANT ALL ON SEQUENCE nest_calls TO regress_kvs_caller;
CREATE POLICY nest ON kvstore.s_nest USING (nest_policy());
SELECT kv_set('a', '1', store => 'nest') > 0;
SET ROLE regress_kvs_caller;
SET nest.call = $$INSERT INTO kvstore.s_nest (key, value) VALUES (kv_key('by hand'), '1')$$;
SELECT call, outcome(call) FROM unnest(ARRAY[$$kv_check('a', 1, 'nest')$$, $$kv_get('a', 'nest')$$, $$kv_set('a', '2', store => 'nest')$$, $$kv_incr('a', store => 'nest')$$, $$kv_delete_prefix('a', 'nest')$$]) call;
RESET nest.call;
SET ROLE regress_kvs_nested;
DROP POLICY nest ON kvstore.s_nest;

-- Two stores change their names while one of them is written: what follows is about the table that the call began with.
SELECT kv_create_store('one'), kv_create_store('two');
CREATE FUNCTION nest_rename() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('nest.rename', true) = 'on' THEN
        PERFORM set_config('nest.rename', '', true);
        ALTER TABLE kvstore.s_one RENAME TO s_three;
        ALTER TABLE kvstore.s_two RENAME TO s_one;
        ALTER TABLE kvstore.s_three RENAME TO s_two;
        PERFORM kv_get('a', 'one'), kv_set('b', '"in the other"', store => 'one'), kv_clear('inner');
    END IF;
    RETURN coalesce(new, old);
END $$;
CREATE TRIGGER nest BEFORE INSERT OR UPDATE OR DELETE ON kvstore.s_one FOR EACH ROW EXECUTE FUNCTION nest_rename();
SELECT kv_feed_position() AS p \gset
BEGIN;
SET LOCAL nest.rename = 'on';
SELECT kv_set('a', '"in one"', store => 'one') > 0;
COMMIT;
SELECT 'one' AS store, key, value FROM kv_list('', store => 'one') UNION ALL SELECT 'two', key, value FROM kv_list('', store => 'two') ORDER BY 1, 2;
SELECT operation, key FROM kv_changes(:'p', '', store => 'one');
SELECT operation, key FROM kv_changes(:'p', '', store => 'two');
ALTER TABLE kvstore.s_one RENAME TO s_three;
ALTER TABLE kvstore.s_two RENAME TO s_one;
ALTER TABLE kvstore.s_three RENAME TO s_two;
SELECT kv_drop_store(s) FROM unnest('{nest,inner,one,two}'::text[]) s;
SELECT kv_drop_queue(q) FROM unnest('{nest,inner}'::text[]) q;
RESET ROLE;
DROP OWNED BY regress_kvs_nested, regress_kvs_caller;
DROP ROLE regress_kvs_nested, regress_kvs_caller;
