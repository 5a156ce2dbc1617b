-- Rows that move: reads may remember where a key's row was found, and must find the right one whatever has happened to the table since.
-- Then some thousand random operations against a model in plain SQL.
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_store('pl');
-- Every read of every key against the table itself; the first round also fills whatever remembers places.
CREATE FUNCTION pg_temp.wrong() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    result bigint := 0;
BEGIN
    FOR round IN 1 .. 2 LOOP
        result := result + (SELECT count(*) FROM generate_series(0, 999) i
            LEFT JOIN kvstore.s_pl s ON s.key = kv_key('k', i),
            kv_entry(kv_key('k', i), 'pl') e
            WHERE (s.value, coalesce(s.versionstamp, 0)) IS DISTINCT FROM (e.value, e.versionstamp) OR kv_get(kv_key('k', i), 'pl') IS DISTINCT FROM s.value OR kv_exists(kv_key('k', i), 'pl') IS DISTINCT FROM (s.key IS NOT NULL));
    END LOOP;
    RETURN result;
END $$;
SELECT count(kv_set(kv_key('k', i), to_jsonb(i), store => 'pl')) FROM generate_series(0, 999) i;
SELECT pg_temp.wrong();
-- Overwritten: within the page, then to other pages.
SELECT count(kv_set(kv_key('k', i), to_jsonb(i + 1), store => 'pl')) FROM generate_series(0, 999, 3) i;
SELECT pg_temp.wrong();
SELECT count(kv_set(kv_key('k', i), to_jsonb(repeat('x', 1500)), store => 'pl')) FROM generate_series(0, 999) i;
SELECT pg_temp.wrong();
VACUUM kvstore.s_pl;
SELECT count(kv_set(kv_key('k', i), to_jsonb(i), store => 'pl')) FROM generate_series(0, 999) i;
SELECT pg_temp.wrong();
-- Keys change places among themselves, by hand.
UPDATE kvstore.s_pl SET key = kv_key('m', (key::jsonb ->> 1)::int);
SELECT pg_temp.wrong();
UPDATE kvstore.s_pl SET key = kv_key('k', 999 - (key::jsonb ->> 1)::int);
SELECT pg_temp.wrong();
-- Deleted, and their places taken by others.
SELECT count(*) FILTER (WHERE kv_delete(kv_key('k', i), store => 'pl')) FROM generate_series(0, 999, 2) i;
SELECT pg_temp.wrong();
VACUUM kvstore.s_pl;
SELECT pg_temp.wrong();
SELECT count(kv_set(kv_key('k', i), to_jsonb(-i), store => 'pl')) FROM generate_series(998, 0, -2) i;
SELECT pg_temp.wrong();
-- Rewritten in another order, shortened, emptied.
CLUSTER kvstore.s_pl USING s_pl_pkey;
SELECT pg_temp.wrong();
VACUUM FULL kvstore.s_pl;
SELECT pg_temp.wrong();
SELECT count(*) FILTER (WHERE kv_delete(kv_key('k', i), store => 'pl')) FROM generate_series(10, 999) i;
VACUUM (TRUNCATE) kvstore.s_pl;
SELECT pg_relation_size('kvstore.s_pl') <= 16384 AS cut_off, pg_temp.wrong();
SELECT count(kv_set(kv_key('k', i), to_jsonb(i), store => 'pl')) FROM generate_series(0, 999) i;
SELECT pg_temp.wrong();
TRUNCATE kvstore.s_pl;
SELECT pg_temp.wrong(), kv_count(kv_key(), 'pl');
SELECT count(kv_set(kv_key('k', i), to_jsonb(i), store => 'pl')) FROM generate_series(999, 0, -1) i;
SELECT pg_temp.wrong();
ALTER TABLE kvstore.s_pl SET UNLOGGED;
SELECT pg_temp.wrong();
ALTER TABLE kvstore.s_pl ADD other text DEFAULT 'x';
SELECT pg_temp.wrong();
SELECT count(kv_set(kv_key('k', i), to_jsonb(i + 2), store => 'pl')) FROM generate_series(0, 999) i;
SELECT pg_temp.wrong(), (SELECT count(*) FROM kvstore.s_pl WHERE other = 'x');
-- Rolled back.
BEGIN;
SELECT count(kv_set(kv_key('k', i), '"never"', store => 'pl')) FROM generate_series(0, 999) i;
SELECT pg_temp.wrong();
SAVEPOINT s;
SELECT count(*) FILTER (WHERE kv_delete(kv_key('k', i), store => 'pl')) FROM generate_series(0, 999) i;
SELECT pg_temp.wrong();
ROLLBACK TO s;
SELECT pg_temp.wrong();
TRUNCATE kvstore.s_pl;
SELECT pg_temp.wrong();
ROLLBACK;
SELECT pg_temp.wrong();
BEGIN;
SELECT kv_drop_store('pl'), kv_create_store('pl');
SELECT count(kv_set(kv_key('k', i), '"other store"', store => 'pl')) FROM generate_series(0, 999, 7) i;
SELECT pg_temp.wrong();
ROLLBACK;
SELECT pg_temp.wrong();
-- A cursor sees what its snapshot saw.
BEGIN;
DECLARE c CURSOR FOR SELECT count(DISTINCT kv_get(kv_key('k', i), 'pl')) FROM generate_series(0, 999) i;
SELECT count(kv_set(kv_key('k', i), '"after"', store => 'pl')) FROM generate_series(0, 999) i;
FETCH c;
SELECT count(DISTINCT kv_get(kv_key('k', i), 'pl')) FROM generate_series(0, 999) i;
COMMIT;
SELECT pg_temp.wrong();
-- Another index makes writes take another way, and back.
CREATE INDEX pl_expires ON kvstore.s_pl (expires_at);
SELECT count(kv_set(kv_key('k', i), to_jsonb(i), ttl => '1 hour', store => 'pl')) FROM generate_series(0, 999) i;
SELECT pg_temp.wrong();
SET enable_seqscan = off;
SELECT count(*) FROM kvstore.s_pl WHERE expires_at > now();
RESET enable_seqscan;
DROP INDEX kvstore.pl_expires;
SELECT count(kv_set(kv_key('k', i), to_jsonb(-i), store => 'pl')) FROM generate_series(0, 999) i;
SELECT pg_temp.wrong();
-- The key's index itself is sound.
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;
SELECT count(*), count(DISTINCT value) FROM kvstore.s_pl WHERE key >= kv_key('k', 0) AND key <= kv_key('k', 999);
RESET ALL;
REINDEX INDEX kvstore.s_pl_pkey;
SELECT pg_temp.wrong();

-- Two stores whose tables have the same keys at the same places do not see each other's.
SELECT kv_create_store('pl2');
SELECT count(kv_set(kv_key('k', i), '"second store"', store => 'pl2')) FROM generate_series(0, 999) i;
SELECT pg_temp.wrong(), (SELECT count(*) FROM generate_series(0, 999) i WHERE kv_get(kv_key('k', i), 'pl2') = '"second store"') AS second;
SELECT kv_drop_store('pl'), kv_drop_store('pl2');

--
-- Random operations against a model
--

SELECT kv_create_store('mo');
CREATE TEMP TABLE model (key text PRIMARY KEY, value text, stamp bigint, dies text);	-- dies: never, later
CREATE FUNCTION pg_temp.rnd(n int) RETURNS int LANGUAGE sql VOLATILE AS $$ SELECT floor(random() * n)::int $$;
CREATE TEMP TABLE highest (key text PRIMARY KEY, stamp bigint);

-- One operation on one of a few keys: what the function should say, what it says.
CREATE FUNCTION pg_temp.step(OUT done text, OUT wanted text, OUT got text) LANGUAGE plpgsql AS $$
DECLARE
    k text := 'k' || pg_temp.rnd(12);
    path kvkey := kv_key(k);
    by_path boolean := pg_temp.rnd(2) = 0;
    v text := pg_temp.rnd(1000)::text;
    life text := (ARRAY['none', 'later', 'now', 'past', 'infinity'])[1 + pg_temp.rnd(5)];
    ttl interval := CASE life WHEN 'later' THEN '1 hour' WHEN 'now' THEN '0' END;
    at timestamptz := CASE life WHEN 'past' THEN '2000-01-01' WHEN 'infinity' THEN 'infinity' END;
    dies text := CASE life WHEN 'later' THEN 'later' WHEN 'now' THEN 'gone' WHEN 'past' THEN 'gone' ELSE 'never' END;
    keep boolean := pg_temp.rnd(4) = 0;
    m record;
    version bigint;
    stamp bigint;
    fits boolean;
BEGIN
    SELECT * INTO m FROM model WHERE model.key = k;
    version := (ARRAY[NULL, NULL, 0, m.stamp, m.stamp, 999999999])[1 + pg_temp.rnd(6)];
    fits := version IS NULL OR version = coalesce(m.stamp, 0);
    CASE pg_temp.rnd(8)
    WHEN 0, 1, 2 THEN
        done := format('set %s %s if %s keep %s', k, life, version, keep);
        wanted := CASE WHEN fits THEN 'set' END;
        stamp := CASE WHEN by_path THEN kv_set(path, v::jsonb, ttl, at, version, keep, 'mo') ELSE kv_set(k, v::jsonb, ttl, at, version, keep, 'mo') END;
        got := CASE WHEN stamp IS NOT NULL THEN 'set' END;
        IF keep AND m.key IS NOT NULL THEN
            dies := m.dies;
        END IF;
        IF fits THEN
            DELETE FROM model WHERE model.key = k;
            INSERT INTO model SELECT k, v, stamp, dies WHERE dies <> 'gone';
        END IF;
    WHEN 3 THEN
        done := format('delete %s if %s', k, version);
        wanted := fits AND m.key IS NOT NULL;
        got := CASE WHEN by_path THEN kv_delete(path, version, 'mo') ELSE kv_delete(k, version, 'mo') END;
        IF fits THEN
            DELETE FROM model WHERE model.key = k;
        END IF;
    WHEN 4 THEN
        done := format('expire %s %s if %s', k, life, version);
        wanted := fits AND m.key IS NOT NULL;
        got := CASE WHEN by_path THEN kv_expire(path, ttl, at, version, 'mo') ELSE kv_expire(k, ttl, at, version, 'mo') END;
        IF fits AND dies = 'gone' THEN
            DELETE FROM model WHERE model.key = k;
        ELSIF fits THEN
            UPDATE model SET dies = step.dies FROM (SELECT dies) step WHERE model.key = k;
        END IF;
    WHEN 5 THEN
        done := 'take ' || k;
        wanted := m.value;
        got := CASE WHEN by_path THEN kv_take(path, 'mo') ELSE kv_take(k, 'mo') END;
        DELETE FROM model WHERE model.key = k;
    WHEN 6 THEN
        done := 'import ' || k;
        wanted := '1';
        got := kv_import(jsonb_build_array(jsonb_build_object('key', k, 'value', v::int)), 'mo');
        stamp := (SELECT versionstamp FROM kv_entry(k, 'mo'));
        DELETE FROM model WHERE model.key = k;
        INSERT INTO model VALUES (k, v, stamp, 'never');
    ELSE
        done := 'incr ' || k;
        wanted := coalesce(m.value::numeric, 0) + 5;
        got := CASE WHEN by_path THEN kv_incr(path, 5, store => 'mo') ELSE kv_incr(k, 5, store => 'mo') END;
        stamp := (SELECT versionstamp FROM kv_entry(k, 'mo'));
        dies := coalesce(m.dies, 'never');
        DELETE FROM model WHERE model.key = k;
        INSERT INTO model VALUES (k, wanted, stamp, dies);
    END CASE;
    IF stamp <= (SELECT h.stamp FROM highest h WHERE h.key = k) THEN
        done := done || ': the versionstamp went back';
        wanted := 'grows';
    END IF;
    INSERT INTO highest VALUES (k, stamp) ON CONFLICT (key) DO UPDATE SET stamp = coalesce(EXCLUDED.stamp, highest.stamp);
END $$;
CREATE FUNCTION pg_temp.walk(steps int) RETURNS TABLE (step int, what text, wanted text, got text) LANGUAGE plpgsql AS $$
DECLARE
    s record;
BEGIN
    FOR i IN 1 .. steps LOOP
        SELECT * INTO s FROM pg_temp.step();
        IF s.wanted IS DISTINCT FROM s.got THEN
            RETURN QUERY SELECT i, s.done, s.wanted, s.got;
        END IF;
        RETURN QUERY SELECT i, s.done || ': afterwards ' || coalesce(m.key, e.key), format('%s %s %s', m.value, m.stamp, m.dies), format('%s %s %s', e.value, e.versionstamp, e.expires_at)
            FROM model m FULL JOIN kv_list('', store => 'mo') e USING (key)
            WHERE (m.value::jsonb, m.stamp, m.dies) IS DISTINCT FROM (e.value, e.versionstamp, CASE WHEN e.expires_at IS NULL THEN 'never' ELSE 'later' END);
        EXIT WHEN FOUND;
    END LOOP;
END $$;
SELECT setseed(0.5);
-- No row is expected.
SELECT * FROM pg_temp.walk(3000);
-- With a limit, a default and a policy, so that other ways are taken.
ALTER TABLE kvstore.s_mo ADD CONSTRAINT any_value CHECK (kind <> 'x');
SELECT * FROM pg_temp.walk(1000);
ALTER TABLE kvstore.s_mo DROP CONSTRAINT any_value;
SELECT count(*) > 3 AS some_are_left FROM model;
SELECT kv_drop_store('mo');
