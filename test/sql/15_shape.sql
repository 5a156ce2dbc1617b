-- Tables of another shape under a store's name, stores altered by their owners between the calls of one live session: 42809, or it works, never a crash.
\pset format unaligned
\pset fieldsep ' | '

-- What every kind of access says, in short: one value if all agree.  What works changes nothing that the next call would miss.
CREATE FUNCTION pg_temp.access(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    call text;
    said text;
    seen text[] := '{}';
BEGIN
    FOREACH call IN ARRAY ARRAY['kv_get(''k'', %L)', '(SELECT count(*) FROM kv_list(kv_key(), store => %L))', '(SELECT count(*) FROM kv_get_many(''{k}'', %L))', 'kv_set(''k'', ''1'', store => %L) > 0',
            'kv_set(''k'', ''1'', if_version => 0, store => %L) > 0', 'kv_delete(''none'', store => %L)', 'kv_expire(''none'', store => %L)', 'kv_take(''none'', %L)', 'kv_import(''{"i": {"value": 1}}'', %L)', 'kv_incr(''n'', store => %L) > 0',
            'kv_alter_store(%L)', 'kv_count('''', %L) >= 0', 'kv_export('''', %L) IS NOT NULL'] LOOP
        said := outcome(format(call, name));
        said := CASE WHEN said ~ '^[0-9A-Z]{5} \| ' THEN regexp_replace(said, ' \| (Undo the change|Failing row).*', '') ELSE 'works' END;
        IF said <> ALL (seen) THEN
            seen := seen || said;
        END IF;
    END LOOP;
    RETURN array_to_string(seen, E'\n');
END $$;
-- Change a store, look, and change it back.
CREATE FUNCTION pg_temp.altered(change text, back text, name text DEFAULT 'sh') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
    after text;
BEGIN
    EXECUTE change;
    said := pg_temp.access(name);
    EXECUTE back;
    after := pg_temp.access(name);
    RETURN said || CASE WHEN after <> 'works' THEN E'\nthen: ' || after ELSE '' END;
END $$;

SELECT kv_create_store('sh');
SELECT kv_set('k', '"kept"', ttl => '1 day', store => 'sh') > 0;
SELECT pg_temp.access('sh');

--
-- Altered in a live session and back again
--

SELECT change, pg_temp.altered(change, back) FROM (VALUES
    ('ALTER TABLE kvstore.s_sh DROP CONSTRAINT s_sh_pkey', 'ALTER TABLE kvstore.s_sh ADD PRIMARY KEY (key)'),
    ('ALTER TABLE kvstore.s_sh RENAME value TO val', 'ALTER TABLE kvstore.s_sh RENAME val TO value'),
    ('ALTER TABLE kvstore.s_sh ALTER versionstamp DROP NOT NULL', 'ALTER TABLE kvstore.s_sh ALTER versionstamp SET NOT NULL'),
    ('ALTER TABLE kvstore.s_sh ALTER kind DROP NOT NULL', 'ALTER TABLE kvstore.s_sh ALTER kind SET NOT NULL'),
    ('ALTER TABLE kvstore.s_sh ALTER kind DROP DEFAULT', 'ALTER TABLE kvstore.s_sh ALTER kind SET DEFAULT ''j'''),
    ('ALTER TABLE kvstore.s_sh ADD extra text DEFAULT ''x''', 'ALTER TABLE kvstore.s_sh DROP extra'),
    ('ALTER TABLE kvstore.s_sh ADD extra text GENERATED ALWAYS AS (value ->> ''a'') STORED', 'ALTER TABLE kvstore.s_sh DROP extra'),
    ('ALTER TABLE kvstore.s_sh RENAME TO s_away', 'ALTER TABLE kvstore.s_away RENAME TO s_sh'),
    ('ALTER TABLE kvstore.s_sh SET SCHEMA public', 'ALTER TABLE public.s_sh SET SCHEMA kvstore'),
    ('CREATE TABLE sh_child () INHERITS (kvstore.s_sh)', 'DROP TABLE sh_child'),
    ('CREATE RULE sh_rule AS ON UPDATE TO kvstore.s_sh DO INSTEAD NOTHING', 'DROP RULE sh_rule ON kvstore.s_sh'),
    ('CREATE INDEX sh_index ON kvstore.s_sh (expires_at)', 'DROP INDEX kvstore.sh_index'),
    ('ALTER TABLE kvstore.s_sh SET (fillfactor = 50)', 'ALTER TABLE kvstore.s_sh SET (fillfactor = 90)'),
    ('ALTER TABLE kvstore.s_sh SET UNLOGGED', 'ALTER TABLE kvstore.s_sh SET LOGGED'),
    ('ALTER TABLE kvstore.s_sh ALTER value SET STORAGE external, ALTER key SET STATISTICS 5', 'ALTER TABLE kvstore.s_sh ALTER value SET STORAGE extended'),
    ('DROP TRIGGER kvstore_guard ON kvstore.s_sh', 'CREATE TRIGGER kvstore_guard BEFORE INSERT OR UPDATE OR DELETE ON kvstore.s_sh FOR EACH ROW EXECUTE FUNCTION kvstore.guard()'),
    ('ALTER TABLE kvstore.s_sh DISABLE TRIGGER ALL', 'ALTER TABLE kvstore.s_sh ENABLE TRIGGER ALL, ENABLE ALWAYS TRIGGER kvstore_guard'),
    ('ALTER TABLE kvstore.s_sh ADD CONSTRAINT sh_check CHECK (versionstamp < 0) NOT VALID', 'ALTER TABLE kvstore.s_sh DROP CONSTRAINT sh_check'),
    ('CLUSTER kvstore.s_sh USING s_sh_pkey', 'ALTER TABLE kvstore.s_sh SET WITHOUT CLUSTER')) v(change, back);
SELECT kv_get('k', 'sh') IS NOT NULL AS kept;
-- The whole message.
ALTER TABLE kvstore.s_sh RENAME value TO val;
SELECT outcome($$kv_get('k', 'sh')$$);
ALTER TABLE kvstore.s_sh RENAME val TO value;
VACUUM FULL kvstore.s_sh;
SELECT pg_temp.access('sh');
REINDEX TABLE kvstore.s_sh;
SELECT pg_temp.access('sh');

-- Any unique btree index over the key alone will do in the place of the primary key; nothing less.
ALTER TABLE kvstore.s_sh DROP CONSTRAINT s_sh_pkey;
SELECT change, pg_temp.access('sh') AS before, pg_temp.altered(change, 'DROP INDEX kvstore.sh_index') AS with_it FROM unnest(ARRAY['CREATE INDEX sh_index ON kvstore.s_sh (key)', 'CREATE UNIQUE INDEX sh_index ON kvstore.s_sh (key, kind)',
    'CREATE UNIQUE INDEX sh_index ON kvstore.s_sh (key) WHERE versionstamp > 0', 'CREATE UNIQUE INDEX sh_index ON kvstore.s_sh ((key::bytea))', 'CREATE UNIQUE INDEX sh_index ON kvstore.s_sh (key DESC)',
    'CREATE UNIQUE INDEX sh_index ON kvstore.s_sh (versionstamp)', 'CREATE INDEX sh_index ON kvstore.s_sh USING hash (key)']) change;
ALTER TABLE kvstore.s_sh ADD PRIMARY KEY (key) DEFERRABLE;
SELECT pg_temp.access('sh');
ALTER TABLE kvstore.s_sh DROP CONSTRAINT s_sh_pkey, ALTER key SET NOT NULL;
CREATE UNIQUE INDEX sh_index ON kvstore.s_sh (key) INCLUDE (versionstamp);
SELECT pg_temp.access('sh');
DROP INDEX kvstore.sh_index;
ALTER TABLE kvstore.s_sh ALTER key DROP NOT NULL;
CREATE UNIQUE INDEX sh_index ON kvstore.s_sh (key);
SELECT pg_temp.access('sh');
ALTER TABLE kvstore.s_sh ADD PRIMARY KEY USING INDEX sh_index;
SELECT pg_temp.access('sh');

-- A column of another type, dropped, or at another place; another access method.
CREATE ACCESS METHOD regress_kvs_heap TYPE TABLE HANDLER heap_tableam_handler;
BEGIN;
DROP VIEW kvstore.v_sh;
CREATE FUNCTION pg_temp.tried(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
BEGIN
    BEGIN
        EXECUTE change;
        said := pg_temp.access('sh');
        RAISE EXCEPTION 'undo';
    EXCEPTION WHEN raise_exception THEN
        RETURN said;
    END;
END $$;
SELECT change, pg_temp.tried('ALTER TABLE kvstore.s_sh DISABLE TRIGGER ALL; ALTER TABLE kvstore.s_sh ' || change) FROM unnest(ARRAY['ALTER value TYPE text', 'ALTER value TYPE json', 'ALTER versionstamp TYPE int', 'ALTER versionstamp TYPE numeric',
    'ALTER expires_at TYPE timestamp', 'ALTER bytes TYPE text USING encode(bytes, ''hex'')', 'ALTER kind DROP DEFAULT, ALTER kind TYPE text', 'ALTER key TYPE bytea USING key::bytea', 'DROP value', 'DROP bytes', 'DROP kind', 'DROP versionstamp', 'DROP expires_at', 'DROP key',
    'DROP value, ADD value jsonb', 'DROP expires_at, ADD expires_at timestamptz', 'DROP expires_at, ADD expires_at timestamptz GENERATED ALWAYS AS (''2100-01-01''::timestamptz) STORED',
    'ALTER versionstamp ADD GENERATED ALWAYS AS IDENTITY', 'SET ACCESS METHOD heap', 'SET ACCESS METHOD regress_kvs_heap']) change;
SELECT pg_temp.access('sh');
ROLLBACK;
DROP ACCESS METHOD regress_kvs_heap;
SELECT pg_temp.access('sh');
SELECT count(*) FROM kvstore.v_sh;

--
-- Another table, or something that is no table, under a store's name
--

CREATE FUNCTION pg_temp.posing(made text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text;
BEGIN
    BEGIN
        EXECUTE made;
        said := pg_temp.access('evil') || E'\ncreate: ' || split_part(outcome('kv_create_store(''evil'')'), ' | Call', 1)
            || E'\nif not exists: ' || regexp_replace(outcome('kv_create_store(''evil'', if_not_exists => true)'), ' \| Undo.*', '') || E'\nin kv_stores: ' || outcome('(SELECT count(*) FROM kv_stores WHERE store = ''evil'')')
            || E'\ndrop: ' || outcome('kv_drop_store(''evil'')');
        RAISE EXCEPTION 'undo';
    EXCEPTION WHEN raise_exception THEN
        RETURN said;
    END;
END $$;
\set columns 'key kvkey PRIMARY KEY, value jsonb, bytes bytea, kind "char" NOT NULL DEFAULT ''j'', versionstamp bigint NOT NULL, expires_at timestamptz'
SELECT left(made, 160) AS made, pg_temp.posing(made) FROM unnest(ARRAY[
    'CREATE TABLE kvstore.s_evil (i int)', 'CREATE TABLE kvstore.s_evil ()', 'CREATE TABLE kvstore.s_evil (key int PRIMARY KEY, value int, bytes int, kind int NOT NULL, versionstamp int NOT NULL, expires_at int)',
    'CREATE TABLE kvstore.s_evil (key text PRIMARY KEY, value jsonb, bytes bytea, kind "char" NOT NULL, versionstamp bigint NOT NULL, expires_at timestamptz)',
    'CREATE VIEW kvstore.s_evil AS SELECT * FROM kvstore.s_sh', 'CREATE MATERIALIZED VIEW kvstore.s_evil AS SELECT * FROM kvstore.s_sh', 'CREATE SEQUENCE kvstore.s_evil', 'CREATE TYPE kvstore.s_evil AS (key kvkey)', 'CREATE INDEX s_evil ON kvstore.s_sh (expires_at)',
    'CREATE TABLE kvstore.s_evil (' || :'columns' || ') PARTITION BY HASH (key)',
    'CREATE TABLE sh_parent (' || :'columns' || ') PARTITION BY HASH (key); CREATE TABLE kvstore.s_evil PARTITION OF sh_parent FOR VALUES WITH (MODULUS 2, REMAINDER 0)',
    'CREATE TABLE sh_parent (' || replace(:'columns', 'PRIMARY KEY', 'NOT NULL') || '); CREATE TABLE kvstore.s_evil (PRIMARY KEY (key)) INHERITS (sh_parent)',
    'CREATE FOREIGN DATA WRAPPER sh_fdw; CREATE SERVER sh_server FOREIGN DATA WRAPPER sh_fdw; CREATE FOREIGN TABLE kvstore.s_evil (' || replace(:'columns', 'PRIMARY KEY', 'NOT NULL') || ') SERVER sh_server',
    'CREATE TABLE kvstore.s_evil (' || replace(:'columns', 'expires_at timestamptz', 'expires_at timestamptz GENERATED ALWAYS AS (''2100-01-01''::timestamptz) STORED') || ')',
    'CREATE TABLE kvstore.s_evil (' || :'columns' || ', more int)',
    'CREATE TABLE kvstore.s_evil (' || :'columns' || ', more int NOT NULL)',
    'CREATE TABLE kvstore.s_evil (' || :'columns' || ')']) made;
-- A temporary table, or one of another schema, is not seen at all.
CREATE TEMP TABLE s_sh (i int);
CREATE SCHEMA sh_schema CREATE TABLE s_sh (i int);
SET search_path = sh_schema, public;
SELECT pg_temp.access('sh'), kv_get('k', 'sh') IS NOT NULL AS kept;
RESET search_path;
DROP TABLE pg_temp.s_sh;
DROP SCHEMA sh_schema CASCADE;

--
-- Dropped and made again between the calls of a live session
--

SELECT kv_set('k', '"old"', store => 'sh') > 0;
DROP TABLE kvstore.s_sh CASCADE;
SELECT pg_temp.access('sh');
SELECT kv_create_store('sh', default_ttl => '1 hour', max_value_size => 20);
SELECT kv_get('k', 'sh'), pg_temp.access('sh');
SELECT expires_at IS NOT NULL AS default_ttl FROM kv_entry('k', 'sh');
SELECT outcome($$kv_set('k', '"a value too large"', store => 'sh')$$);
DROP TABLE kvstore.s_sh CASCADE;
CREATE TABLE kvstore.s_sh (i int);
SELECT pg_temp.access('sh');
DROP TABLE kvstore.s_sh;
SELECT kv_create_store('sh');
SELECT pg_temp.access('sh');
-- Within one transaction, and rolled back: the session's knowledge goes back too.
SELECT kv_set('k', '"kept"', store => 'sh') > 0;
BEGIN;
SELECT kv_drop_store('sh'), kv_create_store('sh', unlogged => true), kv_set('k', '"other"', store => 'sh') > 0;
SELECT kv_get('k', 'sh'), pg_temp.access('sh');
ALTER TABLE kvstore.s_sh RENAME value TO val;
SELECT pg_temp.access('sh');
ROLLBACK;
SELECT kv_get('k', 'sh'), pg_temp.access('sh');
BEGIN;
SAVEPOINT s;
ALTER TABLE kvstore.s_sh RENAME value TO val;
SELECT pg_temp.access('sh');
ROLLBACK TO s;
SELECT pg_temp.access('sh');
COMMIT;
-- Two stores change names: plans and settings follow the name.
SELECT kv_create_store('sh2', default_ttl => '2 hours');
SELECT kv_set('k', '"second"', store => 'sh2') > 0, kv_set('k', '"first"', store => 'sh') > 0;
BEGIN;
ALTER TABLE kvstore.s_sh RENAME TO s_sh3;
ALTER TABLE kvstore.s_sh2 RENAME TO s_sh;
ALTER TABLE kvstore.s_sh3 RENAME TO s_sh2;
COMMIT;
SELECT kv_get('k', 'sh'), kv_get('k', 'sh2');
SELECT kv_set('k', '"by name"', store => 'sh') > 0, kv_set('k', '"by name 2"', store => 'sh2') > 0;
SELECT (SELECT value FROM kvstore.s_sh WHERE key = kv_key('k')) AS sh, (SELECT value FROM kvstore.s_sh2 WHERE key = kv_key('k')) AS sh2, (SELECT expires_at IS NOT NULL FROM kv_entry('k', 'sh')) AS sh_expires, (SELECT expires_at IS NOT NULL FROM kv_entry('k', 'sh2')) AS sh2_expires;

-- The views have not followed: they are of the table, whatever its name.
SELECT outcome($$kv_drop_store('sh')$$);
BEGIN;
ALTER VIEW kvstore.v_sh RENAME TO v_sh3;
ALTER VIEW kvstore.v_sh2 RENAME TO v_sh;
ALTER VIEW kvstore.v_sh3 RENAME TO v_sh2;
COMMIT;

-- A table changed inside a call of ours, by a trigger of the owner's, is refused by PostgreSQL itself.
CREATE FUNCTION sh_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE '%', outcome_of('ALTER TABLE kvstore.s_sh DROP COLUMN value');
    RAISE NOTICE '%', left(outcome('kv_drop_store(''sh'')'), 5);
    RAISE NOTICE '%', outcome('kv_set(''inner'', ''1'', store => ''sh2'') > 0');
    RAISE NOTICE '%', outcome('kv_get(''k'', ''sh'')');
    RETURN NEW;
END $$;
CREATE TRIGGER sh_trigger BEFORE INSERT ON kvstore.s_sh FOR EACH ROW EXECUTE FUNCTION sh_trigger();
SELECT kv_set('t', '1', store => 'sh') > 0 AS set;
DROP TRIGGER sh_trigger ON kvstore.s_sh;
-- Triggers may change the row, or leave it out.
CREATE OR REPLACE FUNCTION sh_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.value = '"skip"' THEN
        RETURN NULL;
    END IF;
    NEW.value := '"changed"';
    RETURN NEW;
END $$;
CREATE TRIGGER sh_trigger BEFORE INSERT OR UPDATE ON kvstore.s_sh FOR EACH ROW EXECUTE FUNCTION sh_trigger();
SELECT outcome($$kv_set('u', '1', store => 'sh') > 0$$), outcome($$kv_get('u', 'sh')$$), outcome($$kv_set('v', '"skip"', store => 'sh')$$), outcome($$kv_exists('v', 'sh')$$), outcome($$kv_import('{"v": {"value": "skip"}, "w": {"value": 1}}', 'sh')$$), outcome($$kv_get('w', 'sh')$$);
DROP TRIGGER sh_trigger ON kvstore.s_sh;
DROP FUNCTION sh_trigger();
SELECT kv_drop_store('sh'), kv_drop_store('sh2');

--
-- DROP EXTENSION and CREATE EXTENSION in a live session
--

SELECT kv_create_store('sh');
SELECT kv_set('k', '"before"', store => 'sh') > 0, kv_alter_store('sh', default_ttl => '1 hour');
SELECT outcome_of('DROP EXTENSION kvstore');
SET client_min_messages = warning;
DROP EXTENSION kvstore CASCADE;
RESET client_min_messages;
SELECT to_regnamespace('kvstore') AS schema, outcome($$kv_get('k', 'sh')$$);
CREATE EXTENSION kvstore;
SELECT outcome($$kv_get('k', 'sh')$$);
SELECT kv_create_store('sh');
SELECT kv_set('k', '"after"', if_version => 0, store => 'sh') > 0 AS set, pg_temp.access('sh');
SELECT kv_get('k', 'sh'), default_ttl FROM kv_stores WHERE store = 'sh';
-- Rolled back, the old one is there again, with its entries.
BEGIN;
SET LOCAL client_min_messages = warning;
DROP EXTENSION kvstore CASCADE;
CREATE EXTENSION kvstore;
SELECT kv_create_store('sh');
SELECT kv_set('k', '"never"', store => 'sh') > 0 AS set, kv_get('k', 'sh');
ROLLBACK;
SELECT kv_get('k', 'sh') IS NOT NULL AS there, pg_temp.access('sh');
-- Functions in a schema of their own; the tables stay where they are.
SET client_min_messages = warning;
DROP EXTENSION kvstore CASCADE;
CREATE SCHEMA "Odd schema";
CREATE EXTENSION kvstore SCHEMA "Odd schema";
RESET client_min_messages;
SET search_path = "Odd schema", public;
SELECT kv_create_store('sh');
SELECT pg_temp.access('sh'), kv_get('k', 'sh');
SELECT key, value FROM kv_list(kv_key(), store => 'sh');
SELECT key, value FROM kvstore.v_sh ORDER BY key;
SELECT store, table_name FROM kv_stores;
SELECT connected, stores FROM kv_health();
-- With nothing of it on the search_path.
SET search_path = pg_catalog;
SELECT "Odd schema".kv_set('k', '"qualified"', store => 'sh') > 0, "Odd schema".kv_get('k', 'sh'), (SELECT stores FROM "Odd schema".kv_health());
SELECT "Odd schema".kv_set('k', '"qualified"', store => 'sh') > 0, "Odd schema".kv_get('k', 'sh');
SELECT "Odd schema".kv_create_store('sh2'), "Odd schema".kv_drop_store('sh2');
RESET search_path;
SET client_min_messages = warning;
DROP EXTENSION kvstore CASCADE;
DROP SCHEMA "Odd schema";
CREATE EXTENSION kvstore;
RESET client_min_messages;
SELECT count(*) FROM kv_stores;
