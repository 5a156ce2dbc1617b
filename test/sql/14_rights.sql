-- Rights: GRANT on the table is the access control; the guard; row-level security.  Every function as an unprivileged role.
\pset format unaligned
\pset fieldsep ' | '

CREATE ROLE regress_kvs_owner;
CREATE ROLE regress_kvs_reader;
CREATE ROLE regress_kvs_writer;
CREATE ROLE regress_kvs_cleaner;
CREATE ROLE regress_kvs_nobody;
GRANT CREATE ON SCHEMA kvstore TO regress_kvs_owner;

-- Creating needs CREATE on the schema and nothing else.
SET ROLE regress_kvs_owner;
SELECT kv_create_store('ri', default_ttl => '1 day');
SELECT kv_set('k', '"secret"', store => 'ri') > 0, kv_set(kv_key('p', 1), '2', store => 'ri') > 0, kv_set_bytes('b', '\xff', store => 'ri') > 0;
GRANT SELECT ON kvstore.s_ri TO regress_kvs_reader;
GRANT SELECT, INSERT, UPDATE ON kvstore.s_ri TO regress_kvs_writer;
GRANT SELECT, DELETE ON kvstore.s_ri TO regress_kvs_cleaner;
SELECT owner FROM kv_stores WHERE store = 'ri';
RESET ROLE;

-- Every function of the extension that takes a store, from the catalogue: a function without a call here is listed, so that none is forgotten (those of snapshots are in 18_snapshots).
CREATE TABLE ri_calls (function regprocedure PRIMARY KEY, call text, needs text);
INSERT INTO ri_calls VALUES
    ('kv_create_store(text,boolean,interval,bigint,boolean)', $$kv_create_store('ri_new')$$, 'create'),
    ('kv_alter_store(text,interval,bigint)', $$kv_alter_store('ri', '2 days')$$, 'own'),
    ('kv_get(text,text)', $$kv_get('k', 'ri')$$, 'read'), ('kv_get(kvkey,text)', $$kv_get(kv_key('p', 1), 'ri')$$, 'read'),
    ('kv_get_bytes(text,text)', $$kv_get_bytes('b', 'ri')$$, 'read'), ('kv_get_bytes(kvkey,text)', $$kv_get_bytes(kv_key('b'), 'ri')$$, 'read'),
    ('kv_exists(text,text)', $$kv_exists('none', 'ri')$$, 'read'), ('kv_exists(kvkey,text)', $$kv_exists(kv_key('none'), 'ri')$$, 'read'),
    ('kv_entry(text,text)', $$(SELECT value FROM kv_entry('k', 'ri'))$$, 'read'), ('kv_entry(kvkey,text)', $$(SELECT value FROM kv_entry(kv_key('k'), 'ri'))$$, 'read'),
    ('kv_get_many(text[],text)', $$(SELECT count(*) FROM kv_get_many('{}', 'ri'))$$, 'read'), ('kv_get_many_paths(jsonb,text)', $$(SELECT count(*) FROM kv_get_many_paths('["k"]', 'ri'))$$, 'read'),
    ('kv_list(text,text,text,text,bigint,boolean,boolean,text)', $$(SELECT count(*) FROM kv_list('none', store => 'ri'))$$, 'read'),
    ('kv_list(kvkey,kvkey,kvkey,kvkey,bigint,boolean,boolean,text)', $$(SELECT count(*) FROM kv_list(kv_key('none'), store => 'ri'))$$, 'read'),
    ('kv_count(text,text)', $$kv_count('none', 'ri')$$, 'read'), ('kv_count(kvkey,text)', $$kv_count(kv_key('none'), 'ri')$$, 'read'),
    ('kv_export(text,text)', $$kv_export('none', 'ri')$$, 'read'), ('kv_export(kvkey,text)', $$kv_export(kv_key('none'), 'ri')$$, 'read'),
    ('kv_set(text,jsonb,interval,timestamptz,bigint,boolean,text)', $$kv_set('w', '1', store => 'ri') > 0$$, 'write'),
    ('kv_set(kvkey,jsonb,interval,timestamptz,bigint,boolean,text)', $$kv_set(kv_key('w'), '1', if_version => 5, store => 'ri') IS NULL$$, 'write'),
    ('kv_set_bytes(text,bytea,interval,timestamptz,bigint,boolean,text)', $$kv_set_bytes('w', '1', if_version => 0, store => 'ri') IS NULL$$, 'write'),
    ('kv_set_bytes(kvkey,bytea,interval,timestamptz,bigint,boolean,text)', $$kv_set_bytes(kv_key('w'), '1', keep_ttl => true, store => 'ri') > 0$$, 'write'),
    ('kv_expire(text,interval,timestamptz,bigint,text)', $$kv_expire('w', '1 day', store => 'ri')$$, 'write'), ('kv_expire(kvkey,interval,timestamptz,bigint,text)', $$kv_expire(kv_key('w'), if_version => 1, store => 'ri')$$, 'write'),
    ('kv_import(jsonb,text)', $$kv_import('{}', 'ri')$$, 'write'),
    ('kv_delete(text,bigint,text)', $$kv_delete('w', store => 'ri')$$, 'delete'), ('kv_delete(kvkey,bigint,text)', $$kv_delete(kv_key('w'), 5, store => 'ri')$$, 'delete'),
    ('kv_take(text,text)', $$kv_take('w', 'ri')$$, 'delete'), ('kv_take(kvkey,text)', $$kv_take(kv_key('w'), 'ri')$$, 'delete'),
    ('kv_set_many(text[],jsonb[],interval,timestamptz,text)', $$kv_set_many('{}', '{}', store => 'ri') > 0$$, 'write'), ('kv_set_many_paths(jsonb,jsonb,interval,timestamptz,text)', $$kv_set_many_paths('["w"]', '[1]', store => 'ri') > 0$$, 'write'),
    ('kv_incr(text,numeric,interval,text)', $$kv_incr('n', store => 'ri') > 0$$, 'write'), ('kv_incr(kvkey,numeric,interval,text)', $$kv_incr(kv_key('n'), store => 'ri') > 0$$, 'write'),
    ('kv_check(text,bigint,text)', $$kv_check('k', 1, 'ri')$$, 'write'), ('kv_check(kvkey,bigint,text)', $$kv_check(kv_key('k'), 1, 'ri')$$, 'write'),
    ('kv_atomic(jsonb,text)', $$(SELECT ok FROM kv_atomic('[{"set": {"key": "w", "value": 1}}]', 'ri'))$$, 'write'),
    ('kv_delete_many(text[],text)', $$kv_delete_many('{}', 'ri')$$, 'delete'), ('kv_delete_many_paths(jsonb,text)', $$kv_delete_many_paths('["w"]', 'ri')$$, 'delete'),
    ('kv_delete_prefix(text,text)', $$kv_delete_prefix('none', 'ri')$$, 'delete'), ('kv_delete_prefix(kvkey,text)', $$kv_delete_prefix(kv_key('none'), 'ri')$$, 'delete'), ('kv_clear(text)', $$kv_clear('ri') >= 0$$, 'delete'),
    ('kv_drop_store(text)', $$kv_drop_store('ri')$$, 'own');
SELECT p.oid::regprocedure AS without_a_call FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    WHERE p.proargnames @> '{store}' AND (p.proargmodes IS NULL OR p.proargmodes[array_position(p.proargnames, 'store')] = 'i') AND p.proname !~ 'snapshot|watch|changes' AND p.oid NOT IN (SELECT function FROM ri_calls) ORDER BY 1;
GRANT SELECT ON ri_calls TO PUBLIC;

SET ROLE regress_kvs_nobody;
SELECT split_part(call, '(', 1) || CASE WHEN left(call, 1) = '(' THEN call ELSE '' END AS call, outcome(call) FROM ri_calls ORDER BY needs, function::text;
SELECT outcome($$(SELECT count(*) FROM kvstore.s_ri)$$), outcome($$(SELECT count(*) FROM kvstore.v_ri)$$);
-- What everybody may: see which stores there are, and the settings; nothing of their contents.
SELECT store, owner, default_ttl FROM kv_stores;
SELECT * FROM kvstore.stores;
SELECT connected, stores FROM kv_health();
SELECT outcome($$kv_version() <> ''$$), outcome_of('SELECT * FROM pg_stat_kvstore, pg_stat_kvstore_queue LIMIT 0');
-- The registries and the sequence cannot be written.
SELECT statement, outcome_of(statement) FROM unnest(ARRAY[$$INSERT INTO kvstore.stores VALUES ('ri', '1 s', 1)$$, $$UPDATE kvstore.stores SET default_ttl = '1 s'$$, $$DELETE FROM kvstore.stores$$, $$TRUNCATE kvstore.stores$$,
    $$SELECT nextval('kvstore.versionstamp')$$, $$SELECT setval('kvstore.versionstamp', 1)$$, $$SELECT * FROM kvstore.versionstamp$$, $$CREATE TABLE kvstore.s_x (i int)$$]) statement;
RESET ROLE;

SET ROLE regress_kvs_reader;
SELECT needs, count(*), count(*) FILTER (WHERE outcome(call) LIKE '42501%') AS denied FROM ri_calls GROUP BY needs ORDER BY needs;
SELECT key, value, bytes FROM kv_list(kv_key(), store => 'ri');
SELECT key, value, bytes FROM kvstore.v_ri ORDER BY key;
RESET ROLE;
SET ROLE regress_kvs_writer;
SELECT needs, count(*), count(*) FILTER (WHERE outcome(call) LIKE '42501%') AS denied FROM ri_calls GROUP BY needs ORDER BY needs;
SELECT kv_set('w', '{"by": "writer"}', store => 'ri') > 0, kv_get('w', 'ri'), kv_import('{"w2": {"value": 1}}', 'ri');
RESET ROLE;
SET ROLE regress_kvs_cleaner;
SELECT needs, count(*), count(*) FILTER (WHERE outcome(call) LIKE '42501%') AS denied FROM ri_calls GROUP BY needs ORDER BY needs;
SELECT kv_exists('w', 'ri') AS deleted_above;
RESET ROLE;
-- One right of the three is not enough to write.
GRANT INSERT ON kvstore.s_ri TO regress_kvs_reader;
SET ROLE regress_kvs_reader;
SELECT outcome($$kv_set('k', '1', store => 'ri')$$), outcome($$kv_import('{"k": {"value": 1}}', 'ri')$$), outcome($$kv_expire('k', '1 day', store => 'ri')$$);
RESET ROLE;
REVOKE INSERT ON kvstore.s_ri FROM regress_kvs_reader;

-- GRANT and REVOKE are seen by the next call of a live session, with plans kept.
REVOKE SELECT ON kvstore.s_ri FROM regress_kvs_writer;
SET ROLE regress_kvs_writer;
SELECT outcome($$kv_get('k', 'ri')$$), outcome($$kv_set('k', '1', store => 'ri')$$);
RESET ROLE;
GRANT SELECT ON kvstore.s_ri TO regress_kvs_writer;
SET ROLE regress_kvs_writer;
SELECT outcome($$kv_get('k', 'ri')$$), outcome($$kv_set('k', '"again"', store => 'ri') > 0$$);
RESET ROLE;
-- Membership counts, as everywhere.
GRANT regress_kvs_reader TO regress_kvs_nobody;
SET ROLE regress_kvs_nobody;
SELECT kv_get('k', 'ri'), outcome($$kv_set('k', '1', store => 'ri')$$);
RESET ROLE;
REVOKE regress_kvs_reader FROM regress_kvs_nobody;

--
-- Settings and dropping: the owner's
--

SET ROLE regress_kvs_owner;
SELECT kv_alter_store('ri', default_ttl => '3 days', max_value_size => 1000);
RESET ROLE;
SET ROLE regress_kvs_writer;
SELECT outcome($$kv_alter_store('ri', default_ttl => '1 s')$$), outcome($$kv_drop_store('ri')$$);
-- What another role owns is not accepted: see adopt.sql.
SELECT outcome($$kv_create_store('ri', if_not_exists => true)$$), outcome($$kv_create_store('ri')$$), outcome($$kv_create_store('ri_new', if_not_exists => true)$$);
RESET ROLE;
SELECT default_ttl, max_value_size FROM kv_stores WHERE store = 'ri';

--
-- The guard: a right to write the table is no right to write it by plain SQL
--

GRANT ALL ON kvstore.s_ri TO regress_kvs_writer;
SET ROLE regress_kvs_writer;
SELECT statement, outcome_of(statement) FROM unnest(ARRAY[$$INSERT INTO kvstore.s_ri (key, value) VALUES (kv_key('x'), '1')$$, $$INSERT INTO kvstore.s_ri (key, value, versionstamp) VALUES (kv_key('x'), '1', 1)$$,
    $$UPDATE kvstore.s_ri SET value = '1'$$, $$UPDATE kvstore.s_ri SET expires_at = NULL WHERE key = kv_key('k')$$, $$DELETE FROM kvstore.s_ri$$, $$TRUNCATE kvstore.s_ri$$, $$UPDATE kvstore.v_ri SET value = '1'$$, $$DELETE FROM kvstore.v_ri$$,
    $$INSERT INTO kvstore.s_ri (key, value, versionstamp) VALUES (kv_key('k'), '1', 1) ON CONFLICT (key) DO UPDATE SET value = '1'$$, $$UPDATE kvstore.s_ri SET value = '1' WHERE false$$,
    $$SET session_replication_role = replica$$]) statement;
COPY kvstore.s_ri FROM stdin;
["copied"]	1	\N	j	5	\N
\.
SELECT kv_set('k', '"by function"', store => 'ri') > 0, kv_delete('w2', store => 'ri');
RESET ROLE;
-- Not even through a view of the owner's, or a trigger: rights count at the table.  A function of the owner's own may pass on what he may.
REVOKE ALL ON kvstore.s_ri FROM regress_kvs_writer;
GRANT SELECT, INSERT, UPDATE ON kvstore.s_ri TO regress_kvs_writer;
SELECT count(*) FROM kvstore.s_ri WHERE key IN (kv_key('x'), kv_key('copied'));

-- The owner and a superuser may; what they leave out is filled in.  Numbers are compared, not shown.
SET ROLE regress_kvs_owner;
SELECT kv_set('o', '1', store => 'ri') AS stamp \gset
SELECT outcome_of($$INSERT INTO kvstore.s_ri (key, value) VALUES (kv_key('hand'), '1')$$), outcome_of($$INSERT INTO kvstore.s_ri (key, bytes, kind) VALUES (kv_key('handb'), '\xff', 'b')$$);
SELECT versionstamp > :stamp AS stamped FROM kv_get_many('{hand,handb}', 'ri');
UPDATE kvstore.s_ri SET value = '2' WHERE key = kv_key('o');
SELECT versionstamp > :stamp AS restamped, versionstamp AS stamp FROM kv_entry('o', 'ri') \gset
SELECT :'restamped' AS restamped, kv_set('o', '3', store => 'ri', if_version => :stamp) > :stamp AS set;
-- An UPDATE may not turn a number back.
SELECT versionstamp AS stamp FROM kv_entry('o', 'ri') \gset
UPDATE kvstore.s_ri SET versionstamp = 1 WHERE key = kv_key('o');
SELECT versionstamp > :stamp AS grew FROM kv_entry('o', 'ri');
-- A number that is brought along stays, and the next one is above it, in this transaction and after it.
BEGIN;
INSERT INTO kvstore.s_ri (key, value, versionstamp) SELECT kv_key('high'), '1', max(versionstamp) + 1000000000 FROM kvstore.s_ri;
SELECT versionstamp AS high FROM kv_entry('high', 'ri') \gset
SELECT kv_set('high', '2', store => 'ri') > :high AS higher_at_once;
COMMIT;
SELECT kv_set('other', '2', store => 'ri') > :high AS higher_after;
SELECT kv_delete('high', store => 'ri'), kv_set('high', '3', store => 'ri') > :high AS higher_again;
-- Nobody can use the numbers up: one that is too high is replaced (20_stamps).
SELECT versionstamp, outcome_of(format('INSERT INTO kvstore.s_ri (key, value, versionstamp) VALUES (kv_key(''max'', %s), ''1'', %s)', i, versionstamp))
    FROM unnest(ARRAY[9223372036854775807, 9223372036837998591, 4611686018427387905, 0, -1]) WITH ORDINALITY v (versionstamp, i);
SELECT kv_set('o', '4', store => 'ri') > 0 AS still_works;
-- A row must hold what its kind promises.
SELECT row, split_part(outcome_of('INSERT INTO kvstore.s_ri (key, kind, value, bytes) VALUES (kv_key(''bad''), ' || row || ')'), 'Failing row', 1) AS outcome FROM unnest(ARRAY[$$'j', NULL, NULL$$, $$'j', '1', ''$$, $$'j', NULL, ''$$, $$'b', '1', NULL$$, $$'b', NULL, NULL$$, $$'b', '1', ''$$,
    $$'u', NULL, ''$$, $$'u', '"x"', NULL$$, $$'u', '1.5', NULL$$, $$'u', '-1', NULL$$, $$'u', '18446744073709551616', NULL$$, $$'x', '1', NULL$$, $$NULL, '1', NULL$$, $$'u', '18446744073709551615', NULL$$]) row;
SELECT outcome_of($$INSERT INTO kvstore.s_ri (key, value) VALUES (kv_key(), '1')$$) AS empty_key, outcome_of($$UPDATE kvstore.s_ri SET key = kv_key('k2') WHERE key = kv_key('k')$$) AS renamed;
SELECT kv_exists('k', 'ri'), kv_get('k2', 'ri');
-- COPY, DELETE and TRUNCATE.
COPY kvstore.s_ri FROM stdin;
["copied"]	1	\N	j	5	\N
\.
SELECT value, versionstamp FROM kv_entry('copied', 'ri');
DELETE FROM kvstore.s_ri WHERE key = kv_key('copied');
SELECT max(versionstamp) AS stamp FROM kvstore.s_ri \gset
TRUNCATE kvstore.s_ri;
SELECT kv_count(kv_key(), 'ri') AS left_over, kv_set('o', '1', store => 'ri') > :stamp AS grew;
RESET ROLE;
-- ALWAYS means that session_replication_role does not go round it, nor does a superuser's UPDATE leave the number alone.
SELECT versionstamp AS stamp FROM kv_entry('o', 'ri') \gset
SET session_replication_role = replica;
UPDATE kvstore.s_ri SET value = '5';
RESET session_replication_role;
SELECT value, versionstamp > :stamp AS restamped FROM kv_entry('o', 'ri');
-- The guard serves stores only.
SET ROLE regress_kvs_nobody;
CREATE TEMP TABLE evil (key kvkey PRIMARY KEY, value jsonb, bytes bytea, kind "char" NOT NULL DEFAULT 'j', versionstamp bigint NOT NULL, expires_at timestamptz);
CREATE TRIGGER evil BEFORE INSERT OR UPDATE OR DELETE ON evil FOR EACH ROW EXECUTE FUNCTION kvstore.guard();
CREATE TRIGGER evil_truncate BEFORE TRUNCATE ON evil FOR EACH STATEMENT EXECUTE FUNCTION kvstore.guard();
SELECT statement, outcome_of(statement) FROM unnest(ARRAY[$$INSERT INTO evil (key, value, versionstamp) VALUES (kv_key('a'), '1', 4000000000000000000)$$, $$INSERT INTO evil (key, value) VALUES (kv_key('b'), '1')$$, $$UPDATE evil SET value = '2'$$, $$DELETE FROM evil$$, $$TRUNCATE evil$$]) statement;
DROP TABLE evil;
SELECT outcome('kvstore.guard()');
CREATE TEMP TABLE evil (i int);
CREATE TRIGGER evil AFTER INSERT ON evil FOR EACH STATEMENT EXECUTE FUNCTION kvstore.guard();
SELECT outcome_of('INSERT INTO evil VALUES (1)');
RESET ROLE;
SELECT last_value < 4000000000000000000 AS untouched FROM pg_sequences WHERE sequencename = 'versionstamp';

-- What a user's trigger does inside a function of ours is guarded again, and runs with the caller's rights.
SET ROLE regress_kvs_owner;
SELECT kv_create_store('ri_side');
GRANT SELECT, INSERT, UPDATE, DELETE ON kvstore.s_ri_side TO regress_kvs_writer;
RESET ROLE;
CREATE FUNCTION ri_side() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE '%', outcome_of($q$INSERT INTO kvstore.s_ri_side (key, value) VALUES (kv_key('by trigger'), '1')$q$);
    RAISE NOTICE '%', outcome_of($q$UPDATE kvstore.s_ri SET value = '"stolen"' WHERE key = kv_key('o')$q$);
    RAISE NOTICE '%', outcome($q$kv_set('by function', '1', store => 'ri_side') > 0$q$);
    RETURN NEW;
END $$;
CREATE TRIGGER ri_side BEFORE INSERT ON kvstore.s_ri FOR EACH ROW WHEN (NEW.key = kv_key('trigger me')) EXECUTE FUNCTION ri_side();
SET ROLE regress_kvs_writer;
SELECT kv_set('trigger me', '1', store => 'ri') > 0 AS set;
SELECT outcome_of($$UPDATE kvstore.s_ri SET value = '"stolen"' WHERE key = kv_key('o')$$) AS guarded_afterwards, kv_get('o', 'ri'), kv_get('by function', 'ri_side');
-- Also after an error inside it.
SELECT outcome($$kv_set('too large', to_jsonb(repeat('x', 2000)), store => 'ri')$$), outcome_of($$DELETE FROM kvstore.s_ri_side$$);
RESET ROLE;
DROP TRIGGER ri_side ON kvstore.s_ri;
DROP FUNCTION ri_side();

--
-- Row-level security: reads and writes obey the policies
--

SET ROLE regress_kvs_owner;
SELECT kv_create_store('ri_rows');
SELECT count(kv_set(kv_key('tenant', t, i), to_jsonb(i), store => 'ri_rows')) FROM generate_series(1, 3) t, generate_series(1, 150) i;
SELECT kv_set('open', '"all"', store => 'ri_rows') > 0, kv_set('hidden', '"none"', store => 'ri_rows') > 0;
ALTER TABLE kvstore.s_ri_rows ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON kvstore.s_ri_rows TO regress_kvs_writer;
RESET ROLE;
SET ROLE regress_kvs_writer;
SELECT kv_count(kv_key(), 'ri_rows') AS no_policy, kv_get('open', 'ri_rows'), outcome($$kv_set('new', '1', store => 'ri_rows')$$);
RESET ROLE;
CREATE POLICY tenant ON kvstore.s_ri_rows TO regress_kvs_writer USING (key > kv_key('tenant', 2) AND key < kv_key('tenant', 3) OR key = kv_key('open'));
SET ROLE regress_kvs_writer;
SELECT kv_count(kv_key(), 'ri_rows') AS visible, kv_count(kv_key('tenant', 2), 'ri_rows') AS tenant_2, kv_count(kv_key('tenant', 1), 'ri_rows') AS tenant_1, kv_count('', 'ri_rows') AS plain_strings;
SELECT kv_get('open', 'ri_rows'), kv_get('hidden', 'ri_rows'), kv_exists('hidden', 'ri_rows'), kv_get(kv_key('tenant', 2, 7), 'ri_rows'), kv_get(kv_key('tenant', 1, 7), 'ri_rows');
SELECT key, value, versionstamp > 0 AS present FROM kv_get_many_paths('["open", "hidden", ["tenant", 2, 150], ["tenant", 1, 1]]', 'ri_rows');
SELECT key FROM kv_list(kv_key('tenant'), page_size => 2, store => 'ri_rows');
SELECT key FROM kv_list(kv_key('tenant'), page_size => 2, reverse => true, store => 'ri_rows');
SELECT kv_export('', 'ri_rows'), jsonb_array_length(kv_export(kv_key(), 'ri_rows')), (SELECT count(*) FROM kvstore.v_ri_rows);
-- Rows that are not visible are not overwritten, deleted, renewed or taken.
SELECT expression, outcome(expression) FROM unnest(ARRAY[$$kv_set('open', '"mine"', store => 'ri_rows') > 0$$, $$kv_set('hidden', '"mine"', store => 'ri_rows')$$, $$kv_set(kv_key('tenant', 1, 1), '0', store => 'ri_rows')$$, $$kv_set(kv_key('tenant', 2, 999), '0', store => 'ri_rows') > 0$$,
    $$kv_delete('hidden', store => 'ri_rows')$$, $$kv_take(kv_key('tenant', 1, 1), 'ri_rows')$$, $$kv_expire('hidden', '1 s', store => 'ri_rows')$$, $$kv_import('{"hidden": {"value": 1}}', 'ri_rows')$$, $$kv_take(kv_key('tenant', 2, 999), 'ri_rows')$$]) expression;
SET row_security = off;
SELECT outcome($$kv_get('open', 'ri_rows')$$);
RESET row_security;
RESET ROLE;
-- The policy is the reading role's: the owner sees everything, unless it is forced on him too.
SET ROLE regress_kvs_owner;
SELECT kv_count(kv_key(), 'ri_rows') AS owner, kv_get('hidden', 'ri_rows');
ALTER TABLE kvstore.s_ri_rows FORCE ROW LEVEL SECURITY;
SELECT kv_count(kv_key(), 'ri_rows') AS owner_forced, kv_get('hidden', 'ri_rows');
ALTER TABLE kvstore.s_ri_rows NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
RESET ROLE;
SET ROLE regress_kvs_writer;
SELECT kv_count(kv_key(), 'ri_rows') AS disabled, kv_get('hidden', 'ri_rows');
RESET ROLE;

-- A view that has the name of the store's own, and does not read it, is somebody else's: it stays.
SELECT kv_create_store('ri_view');
DROP VIEW kvstore.v_ri_view;
CREATE VIEW kvstore.v_ri_view AS SELECT key FROM kvstore.s_ri_rows;
SELECT kv_drop_store('ri_view');
SELECT count(*) FROM kvstore.v_ri_view;
DROP VIEW kvstore.v_ri_view;

SELECT kv_drop_store('ri_rows');
SET ROLE regress_kvs_owner;
SELECT kv_drop_store('ri'), kv_drop_store('ri_side');
RESET ROLE;
DROP TABLE ri_calls;
DROP OWNED BY regress_kvs_owner, regress_kvs_reader, regress_kvs_writer, regress_kvs_cleaner, regress_kvs_nobody;
DROP ROLE regress_kvs_owner, regress_kvs_reader, regress_kvs_writer, regress_kvs_cleaner, regress_kvs_nobody;
SELECT count(*) AS left_behind FROM kv_stores;
