-- What kv_create_*(if_not_exists => true) makes of what exists: whose it may be, what it must look
-- like, and what is made good of a table that came alone, as from pg_dump -t.
\pset format unaligned
\pset fieldsep ' | '

CREATE ROLE regress_kvs_app;
CREATE ROLE regress_kvs_team;
CREATE ROLE regress_kvs_mallory;
CREATE ROLE regress_kvs_other;
ALTER ROLE regress_kvs_app NOINHERIT;
GRANT regress_kvs_team TO regress_kvs_app;
GRANT CREATE ON SCHEMA kvstore TO regress_kvs_app, regress_kvs_team, regress_kvs_mallory;

-- One of each kind, made by a role; what the application then says to it.
CREATE FUNCTION make(name text) RETURNS void LANGUAGE sql AS $$
    SELECT kv_create_store(name), kv_create_queue(name), kv_create_snapshot_store(name);
$$;
CREATE FUNCTION adopt(name text) RETURNS TABLE(kind text, outcome text) LANGUAGE sql AS $$
    SELECT kind, outcome(format('kv_create_%s(%L, if_not_exists => true)', kind, name))
        FROM unnest(ARRAY['store', 'queue', 'snapshot_store']) kind;
$$;
CREATE FUNCTION drop_all(name text) RETURNS void LANGUAGE sql AS $$
    SELECT kv_drop_store(name), kv_drop_queue(name), kv_drop_snapshot_store(name);
$$;

--
-- Whose
--

-- Somebody else's, however much they grant.
SET ROLE regress_kvs_mallory;
SELECT make('mallory');
GRANT ALL ON kvstore.s_mallory, kvstore.q_mallory, kvstore.d_mallory, kvstore.p_mallory TO PUBLIC;
SET ROLE regress_kvs_app;
SELECT * FROM adopt('mallory');
SELECT outcome($$kv_create_store('mallory')$$);
-- Their own, that of a role that they are a member of, even without its rights, and a superuser's.
SELECT make('app');
SELECT * FROM adopt('app');
SET ROLE regress_kvs_team;
SELECT make('team');
SET ROLE regress_kvs_app;
SELECT * FROM adopt('team');
RESET ROLE;
SELECT make('super');
SET ROLE regress_kvs_app;
SELECT * FROM adopt('super');
-- Not the other way round: a member is not the role.
SET ROLE regress_kvs_team;
SELECT * FROM adopt('app');
-- A role that may create nothing accepts what it may rely on.
SET ROLE regress_kvs_other;
SELECT * FROM adopt('super');
SELECT * FROM adopt('mallory');
-- A superuser is a member of every role, and is told.
RESET ROLE;
SELECT * FROM adopt('mallory');
-- The owner of the database, of the schema, and of the extension.
BEGIN;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO regress_kvs_mallory', current_database()); END $$;
SET LOCAL ROLE regress_kvs_app;
SELECT * FROM adopt('mallory');
ROLLBACK;
BEGIN;
ALTER SCHEMA kvstore OWNER TO regress_kvs_mallory;
SET LOCAL ROLE regress_kvs_app;
SELECT * FROM adopt('mallory');
ROLLBACK;
BEGIN;
UPDATE pg_extension SET extowner = 'regress_kvs_mallory'::regrole WHERE extname = 'kvstore';
SET LOCAL ROLE regress_kvs_app;
SELECT * FROM adopt('mallory');
ROLLBACK;
SET ROLE regress_kvs_app;
SELECT * FROM adopt('mallory');

-- Part of it: dead letters, the view; also before there is the rest.
RESET ROLE;
SELECT make('part');
ALTER TABLE kvstore.d_part OWNER TO regress_kvs_mallory;
ALTER VIEW kvstore.v_part OWNER TO regress_kvs_mallory;
SET ROLE regress_kvs_app;
SELECT * FROM adopt('part');
RESET ROLE;
ALTER TABLE kvstore.d_part OWNER TO CURRENT_USER;
ALTER VIEW kvstore.v_part OWNER TO CURRENT_USER;
SET ROLE regress_kvs_app;
SELECT * FROM adopt('part');
SET ROLE regress_kvs_mallory;
CREATE TABLE kvstore.d_early (LIKE kvstore.d_mallory INCLUDING ALL);
CREATE VIEW kvstore.v_early AS SELECT 1 AS key;
SET ROLE regress_kvs_app;
SELECT * FROM adopt('early');
RESET ROLE;
ALTER TABLE kvstore.d_early OWNER TO CURRENT_USER;
ALTER VIEW kvstore.v_early OWNER TO CURRENT_USER;
SET ROLE regress_kvs_app;
SELECT * FROM adopt('early');
RESET ROLE;
SELECT outcome('kv_drop_queue(''early'')');
DROP VIEW kvstore.v_early;
SELECT kv_drop_snapshot_store('early');

--
-- The shape is looked at, whoever owns it
--

SET ROLE regress_kvs_app;
CREATE TABLE kvstore.s_shape (key int);
CREATE TABLE kvstore.q_shape (id int);
CREATE TABLE kvstore.p_shape (context int);
SELECT * FROM adopt('shape');
DROP TABLE kvstore.s_shape, kvstore.q_shape, kvstore.p_shape;
SELECT make('shape');
DROP VIEW kvstore.v_shape;
CREATE TABLE kvstore.v_shape (key int);
ALTER TABLE kvstore.d_shape RENAME error TO mistake;
SELECT * FROM adopt('shape');
DROP TABLE kvstore.v_shape, kvstore.d_shape;

--
-- What is missing is brought back
--

-- View and dead letters, and they are the owner's, whoever has called.
SELECT * FROM adopt('shape');
SELECT oid::regclass, relowner::regrole, relkind FROM pg_class WHERE relnamespace = 'kvstore'::regnamespace AND relname IN ('v_shape', 'd_shape');
SELECT has_table_privilege('public', 'kvstore.v_shape', 'SELECT') AS granted, reloptions FROM pg_class WHERE oid = 'kvstore.v_shape'::regclass;
SELECT kv_set('k', '1', store => 'shape') > 0;
SELECT value, (SELECT count(*) FROM kv_dead_letters('shape')) AS dead FROM kvstore.v_shape;
DROP TABLE kvstore.d_shape;
DROP VIEW kvstore.v_shape;
SELECT outcome('(SELECT count(*) FROM kv_dead_letters(''shape''))');
-- Not by a role that does not own it, nor for an owner that may not create.
RESET ROLE;
GRANT SELECT ON kvstore.s_shape TO regress_kvs_other;
ALTER ROLE regress_kvs_other NOINHERIT;
GRANT regress_kvs_app TO regress_kvs_other WITH ADMIN OPTION;
SET ROLE regress_kvs_other;
SELECT * FROM adopt('shape');
RESET ROLE;
REVOKE CREATE ON SCHEMA kvstore FROM regress_kvs_app;
SELECT * FROM adopt('shape');
SELECT to_regclass('kvstore.v_shape') AS view, to_regclass('kvstore.d_shape') AS dead_letters;
GRANT CREATE ON SCHEMA kvstore TO regress_kvs_app;
SELECT * FROM adopt('shape');
SELECT oid::regclass, relowner::regrole FROM pg_class WHERE relnamespace = 'kvstore'::regnamespace AND relname IN ('v_shape', 'd_shape');
SET ROLE regress_kvs_app;
SELECT drop_all('shape');

-- Settings: a table without a row in the registry has the defaults, and one warning says so.
RESET ROLE;
SELECT make('alone');
DELETE FROM kvstore.stores WHERE store = 'alone';
DELETE FROM kvstore.queues WHERE queue = 'alone';
DELETE FROM kvstore.snapshot_stores WHERE store = 'alone';
\c -
SELECT kv_get('k', 'alone');
SELECT kv_get('k', 'alone'), kv_set('k', '1', store => 'alone') > 0;
SELECT count(*) FROM kv_peek('alone');
SELECT count(*) FROM kv_peek('alone');
SELECT count(*) FROM kv_snapshot_latest('c', 'alone');
SELECT count(*) FROM kv_snapshot_latest('c', 'alone');
SELECT kv_create_store('alone', default_ttl => '1 hour', max_value_size => 100, if_not_exists => true),
    kv_create_queue('alone', lease => '7 min', if_not_exists => true),
    kv_create_snapshot_store('alone', default_ttl => '7 days', if_not_exists => true);
SELECT s.default_ttl, s.max_value_size, q.lease, p.default_ttl FROM kv_stores s, kv_queues q, kv_snapshot_stores p
    WHERE s.store = 'alone' AND q.queue = 'alone' AND p.store = 'alone';
-- This session has them, too, and others need no warning.
SELECT kv_set('k', '1', store => 'alone') > 0;
SELECT expires_at > now() AS expires FROM kv_entry('k', 'alone');
\c -
SELECT kv_get('k', 'alone'), (SELECT count(*) FROM kv_peek('alone')), (SELECT count(*) FROM kv_snapshot_latest('c', 'alone'));
-- What has a row keeps its settings, whatever is given.
SELECT kv_create_store('alone', default_ttl => '2 hours', if_not_exists => true);
SELECT default_ttl FROM kv_stores WHERE store = 'alone';
-- kv_alter_*() gives a row, and needs no warning itself.
DELETE FROM kvstore.stores WHERE store = 'alone';
DELETE FROM kvstore.queues WHERE queue = 'alone';
DELETE FROM kvstore.snapshot_stores WHERE store = 'alone';
\c -
SELECT kv_alter_store('alone'), kv_alter_queue('alone', lease => '1 min');
SELECT kv_get('k', 'alone') IS NOT NULL, (SELECT count(*) FROM kv_peek('alone'));
SELECT * FROM kvstore.stores WHERE store = 'alone';
SELECT queue, lease, max_attempts FROM kvstore.queues WHERE queue = 'alone';
-- Another role may not give any.
DELETE FROM kvstore.stores WHERE store = 'alone';
SET ROLE regress_kvs_other;
SELECT kv_create_store('alone', default_ttl => '1 s', if_not_exists => true);
RESET ROLE;
SELECT count(*) FROM kvstore.stores WHERE store = 'alone';
-- A renamed store has a new name, without settings; those of the old one stay under the old name.
ALTER TABLE kvstore.s_alone RENAME TO s_renamed;
SELECT kv_alter_store('renamed', default_ttl => '0'), kv_get('k', 'renamed') IS NOT NULL;
ALTER TABLE kvstore.s_renamed RENAME TO s_alone;
DELETE FROM kvstore.stores WHERE store = 'renamed';

-- Settings that are otherwise than wished stay, and a NOTICE names them; what is the argument's default is no wish.
SELECT kv_create_store('told', default_ttl => '1 hour', if_not_exists => true);
SELECT kv_create_store('told', if_not_exists => true);
SELECT kv_create_store('told', default_ttl => '60 min', if_not_exists => true);
SELECT kv_create_store('told', true, '0', 100, true);
SELECT kv_create_queue('told', lease => '1 min', max_attempts => 5);
SELECT kv_create_queue('told', lease => '60 s', max_attempts => 5, if_not_exists => true);
SELECT kv_create_queue('told', '10 min', 50, '{1 min}', keep_dead => false, if_not_exists => true);
SELECT kv_create_queue('told', lease => '30 s', if_not_exists => true);
SELECT kv_create_snapshot_store('told', default_ttl => '2 days');
SELECT kv_create_snapshot_store('told', default_ttl => '48 h', if_not_exists => true);
SELECT kv_create_snapshot_store('told', default_ttl => '0', if_not_exists => true);
SELECT kv_create_snapshot_store('told', if_not_exists => true);
-- others who may use it are told, too
GRANT CREATE ON SCHEMA kvstore TO regress_kvs_other;
SET ROLE regress_kvs_other;
SELECT kv_create_store('told', default_ttl => '2 hours', if_not_exists => true);
RESET ROLE;
REVOKE CREATE ON SCHEMA kvstore FROM regress_kvs_other;
SELECT default_ttl, max_value_size FROM kv_stores WHERE store = 'told';
SELECT lease, max_attempts, backoff, keep_dead FROM kv_queues WHERE queue = 'told';

SELECT drop_all(name) FROM unnest(ARRAY['told', 'mallory', 'app', 'team', 'super', 'part', 'alone']) name;
SELECT (SELECT count(*) FROM kvstore.stores) + (SELECT count(*) FROM kvstore.queues) + (SELECT count(*) FROM kvstore.snapshot_stores) AS left_behind;
REVOKE CREATE ON SCHEMA kvstore FROM regress_kvs_app, regress_kvs_team, regress_kvs_mallory;
DROP FUNCTION make, adopt, drop_all;
DROP ROLE regress_kvs_app, regress_kvs_team, regress_kvs_mallory, regress_kvs_other;
