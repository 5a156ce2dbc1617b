-- The registries: who writes rows there by plain SQL, as a restore does, and which.
\pset format unaligned
\pset fieldsep ' | '

CREATE ROLE regress_kvs_dbowner;
CREATE ROLE regress_kvs_dbuser;
SELECT kv_create_store('rg'), kv_create_queue('rg'), kv_create_snapshot_store('rg'), kv_create_store('rg_super');
ALTER TABLE kvstore.s_rg OWNER TO regress_kvs_dbowner;
ALTER TABLE kvstore.q_rg OWNER TO regress_kvs_dbowner;
ALTER TABLE kvstore.d_rg OWNER TO regress_kvs_dbowner;
ALTER TABLE kvstore.p_rg OWNER TO regress_kvs_dbowner;
CREATE VIEW pg_temp.settings AS
    SELECT 'store' AS kind, s.* FROM (SELECT store, format('%s %s', default_ttl, max_value_size) AS settings FROM kvstore.stores) s WHERE store ~ '^rg'
    UNION ALL SELECT 'queue', queue, format('%s %s %s %s %s', lease, max_attempts, backoff, keep_dead, paused) FROM kvstore.queues WHERE queue ~ '^rg'
    UNION ALL SELECT 'snapshot store', store, format('%s', default_ttl) FROM kvstore.snapshot_stores WHERE store ~ '^rg';
GRANT SELECT ON pg_temp.settings TO PUBLIC;

-- Nobody but superusers and the owner of the database, who changes and deletes nothing and does not set the numbers.
SET ROLE regress_kvs_dbuser;
SELECT statement, outcome_of(statement) FROM unnest(ARRAY['INSERT INTO kvstore.stores VALUES (''rg'')', 'INSERT INTO kvstore.queues VALUES (''rg'')', 'INSERT INTO kvstore.snapshot_stores VALUES (''rg'')', 'SELECT last_value FROM kvstore.versionstamp']) statement;
RESET ROLE;
BEGIN;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO regress_kvs_dbowner', current_database()); END $$;
SET LOCAL ROLE regress_kvs_dbowner;
SELECT statement, outcome_of(statement) FROM unnest(ARRAY['SELECT last_value FROM kvstore.versionstamp', 'SELECT setval(''kvstore.versionstamp'', 1)', 'SELECT nextval(''kvstore.versionstamp'')', 'UPDATE kvstore.stores SET default_ttl = ''1 s''', 'DELETE FROM kvstore.queues', 'TRUNCATE kvstore.snapshot_stores']) statement;
-- For tables of their own alone; a row that is there is replaced, and this session sees it.
SELECT kv_set('k', '1', store => 'rg') > 0;
COPY kvstore.stores (store, default_ttl, max_value_size) FROM stdin;
rg_super	1 second	1
rg	1 hour	100
rg_none	1 second	1
\.
COPY kvstore.queues (queue, lease, max_attempts, backoff, keep_dead, paused) FROM stdin;
rg	00:07:00	3	{00:00:01}	f	t
rg_none	\N	\N	\N	\N	\N
\.
COPY kvstore.snapshot_stores (store, default_ttl) FROM stdin;
rg	\N
rg_none	1 day
\.
SELECT * FROM pg_temp.settings ORDER BY kind, store;
SELECT kv_set('k', '1', store => 'rg') > 0;
SELECT expires_at > now() AS expires FROM kv_entry('k', 'rg');
-- No role gets round that with a function of its own.
CREATE FUNCTION pg_temp.definer() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO kvstore.stores VALUES (''rg_super'', ''1 s'')';
SELECT pg_temp.definer();
SELECT * FROM pg_temp.settings WHERE store = 'rg_super';
-- What kv_create_*() would refuse is refused.
SELECT statement, left(outcome_of('INSERT INTO kvstore.' || statement), 100) FROM unnest(ARRAY[$$stores VALUES ('rg', '0')$$, $$stores VALUES ('rg', '-1 s')$$, $$stores VALUES ('rg', NULL, 0)$$, $$stores VALUES (NULL)$$, $$queues VALUES ('rg', '0')$$, $$queues VALUES ('rg', '13 h')$$,
    $$queues VALUES ('rg', NULL, 0)$$, $$queues VALUES ('rg', NULL, NULL, '{1 s,NULL}')$$, $$queues VALUES ('rg', NULL, NULL, '{-1 s}')$$, $$queues VALUES ('rg', NULL, NULL, '{{1 s},{1 s}}')$$,
    $$queues VALUES ('rg', NULL, NULL, array_fill('1 s'::interval, '{17}'))$$, $$snapshot_stores VALUES ('rg', '-1 s')$$, $$queues VALUES ('rg', '12 h', 1, '{}')$$]) statement;
ROLLBACK;

-- A superuser writes any, and replaces those that are there, too.
BEGIN;
INSERT INTO kvstore.stores VALUES ('rg', '2 hours'), ('rg_none', '1 hour');
SELECT * FROM pg_temp.settings WHERE kind = 'store' ORDER BY store;
ROLLBACK;

-- The trigger is for the registries.
CREATE TEMP TABLE rg_mine (store text);
CREATE TRIGGER t BEFORE INSERT ON rg_mine FOR EACH ROW EXECUTE FUNCTION kvstore.settings_inserted();
SELECT outcome_of('INSERT INTO rg_mine VALUES (''rg'')');
CREATE TRIGGER u BEFORE UPDATE ON rg_mine FOR EACH ROW EXECUTE FUNCTION kvstore.settings_inserted();
SELECT outcome_of('UPDATE rg_mine SET store = ''x''');
DROP TABLE rg_mine;

SELECT kv_drop_store('rg'), kv_drop_queue('rg'), kv_drop_snapshot_store('rg'), kv_drop_store('rg_super');
DROP ROLE regress_kvs_dbowner, regress_kvs_dbuser;
