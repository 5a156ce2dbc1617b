-- Queries that read stores run in parallel where the policies of the stores allow it, and give the same where they do not.
\pset format unaligned
\pset fieldsep ' | '
CREATE ROLE regress_kvs_parallel;
SELECT kv_create_store('pa'), kv_create_store('pa_free'), kv_create_snapshot_store('pa');
SELECT count(kv_set('k' || i, to_jsonb(i), store => s)) FROM generate_series(1, 500) i, unnest(ARRAY['pa', 'pa_free']) s;
SELECT length(kv_snapshot_append('c', '1', hash => 'h', store => 'pa'));
GRANT SELECT ON kvstore.s_pa, kvstore.s_pa_free, kvstore.p_pa TO regress_kvs_parallel;
CREATE TABLE pa_keys AS SELECT 'k' || i AS key FROM generate_series(1, 500) i;
ALTER TABLE pa_keys SET (parallel_workers = 2);
GRANT SELECT ON pa_keys TO regress_kvs_parallel;
ANALYZE pa_keys;
-- A subtransaction is an error in a worker.
CREATE FUNCTION pa_may(key kvkey) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN key OPERATOR(public.<) public.kv_key('k3'); EXCEPTION WHEN division_by_zero THEN RETURN false; END $$;
CREATE FUNCTION pg_temp.workers(query text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        IF line LIKE '%Gather%' THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $$;
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2;

CREATE TABLE pa_query (place serial, query text);
GRANT SELECT ON pa_query TO regress_kvs_parallel;
INSERT INTO pa_query (query) VALUES ($$SELECT count(kv_get(key, 'pa')) FROM pa_keys$$), ($$SELECT count(*) FROM pa_keys WHERE kv_exists(store => 'pa', key => key)$$),
    ($$SELECT count(*) FROM pa_keys JOIN kv_list('k', store => 'pa') l USING (key)$$), ($$SELECT count(*) FROM pa_keys p WHERE EXISTS (SELECT FROM kv_get_many(ARRAY[p.key], 'pa') WHERE versionstamp > 0)$$),
    ($$WITH w AS (SELECT count(*) AS n FROM kv_list(kv_key('k1'), store => 'pa')) SELECT count(*) FROM pa_keys, w WHERE n >= 0$$), ($$SELECT count(*) FROM pa_keys WHERE kv_snapshot_has('h', 'c', 'pa') AND key > ''$$),
    ($$SELECT count(kv_get(key, 'pa_free')) FROM pa_keys$$), ($$SELECT count(*) FROM pa_keys WHERE kv_exists(key, lower('PA_FREE'))$$), ($$SELECT count(key) FROM pa_keys$$);
-- Without policies.
SELECT query, pg_temp.workers(query), outcome('(' || query || ')') FROM pa_query ORDER BY place;
-- With policies whose function is no more than what CREATE FUNCTION makes of it.
ALTER TABLE kvstore.s_pa ENABLE ROW LEVEL SECURITY;
ALTER TABLE kvstore.p_pa ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON kvstore.s_pa USING (pa_may(key));
CREATE POLICY few ON kvstore.p_pa USING (pa_may(kv_key('k1')));
GRANT SELECT ON kvstore.snapshot_stores TO regress_kvs_parallel;
SET ROLE regress_kvs_parallel;
SELECT query, pg_temp.workers(query), outcome('(' || query || ')') FROM pa_query ORDER BY place;
RESET ROLE;
-- With policies that may run anywhere.
CREATE OR REPLACE FUNCTION pa_may(key kvkey) RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN RETURN key OPERATOR(public.<) public.kv_key('k3'); END $$;
SET ROLE regress_kvs_parallel;
SELECT query, pg_temp.workers(query), outcome('(' || query || ')') FROM pa_query ORDER BY place;
RESET ROLE;
-- A kept plan follows.  A policy for another command does not matter, one in a subquery does.
CREATE FUNCTION pa_other() RETURNS boolean LANGUAGE sql PARALLEL UNSAFE AS 'SELECT true';
CREATE FUNCTION pg_temp.kept_workers() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN pg_temp.workers('EXECUTE kept'); END $$;
SET plan_cache_mode = force_generic_plan;
PREPARE kept AS SELECT count(kv_get(key, 'pa')) FROM pa_keys;
SELECT pg_temp.kept_workers();
CREATE POLICY other ON kvstore.s_pa FOR UPDATE USING (pa_other());
SELECT pg_temp.kept_workers();
CREATE POLICY deep ON kvstore.s_pa FOR SELECT USING (EXISTS (SELECT FROM pa_query WHERE pa_other()));
SELECT pg_temp.kept_workers();
DROP POLICY deep ON kvstore.s_pa;
SELECT pg_temp.kept_workers();
ALTER TABLE kvstore.s_pa DISABLE ROW LEVEL SECURITY;
SELECT pg_temp.kept_workers();
RESET ALL;
SELECT kv_drop_store('pa'), kv_drop_store('pa_free'), kv_drop_snapshot_store('pa');
DROP TABLE pa_keys, pa_query;
DROP FUNCTION pa_may, pa_other;
DROP OWNED BY regress_kvs_parallel;
DROP ROLE regress_kvs_parallel;
