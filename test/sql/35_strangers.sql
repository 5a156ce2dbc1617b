-- kvs: needs preload
-- What a role learns that has no right on a store or queue: nothing of it.  Who may SELECT it sees its counts, and who may read all statistics sees all.
\pset format unaligned
\pset fieldsep ' | '
SELECT kv_create_queue('st_a'), kv_create_queue('st_b'), kv_create_store('st_a'), kv_create_store('st_b'), kv_create_snapshot_store('st_a'), kv_create_snapshot_store('st_b');
SELECT n, kv_enqueue(n, '1') > 0, kv_enqueue(n, '2') > 0, kv_set('k', '1', ttl => '1 day', store => n) > 0, kv_snapshot_append('c', '1', store => n) IS NOT NULL FROM unnest(ARRAY['st_a', 'st_b']) n;
SELECT count(*) FROM kv_dequeue('st_a', lease => '1 hour');
SELECT count(*) FROM kv_dequeue('st_b', lease => '1 hour');
SELECT count(*) > 0 AS published FROM kvstore.stat_counts();
CREATE ROLE regress_kvs_stranger;
CREATE ROLE regress_kvs_reader;
CREATE ROLE regress_kvs_sender;
CREATE ROLE regress_kvs_monitor IN ROLE pg_monitor;
CREATE ROLE regress_kvs_statistics IN ROLE pg_read_all_stats;
GRANT SELECT ON kvstore.q_st_a, kvstore.s_st_a, kvstore.p_st_a TO regress_kvs_reader;
GRANT INSERT ON kvstore.q_st_a, kvstore.s_st_a TO regress_kvs_sender;

-- Which of our tables each of these tells of.
CREATE FUNCTION st_names(relids oid[]) RETURNS text LANGUAGE sql AS $$
    SELECT COALESCE(string_agg(DISTINCT c.relname, ' ' ORDER BY c.relname), '-') FROM pg_class c WHERE c.oid = ANY (relids) AND c.relname ~ '^[sqp]_st_[ab]$' $$;
CREATE FUNCTION st_labels(document text) RETURNS text LANGUAGE sql AS $$
    SELECT COALESCE(string_agg(DISTINCT m[1], ' ' ORDER BY m[1]), '-') FROM regexp_matches(document, '"(st_[ab])"', 'g') m $$;
CREATE FUNCTION st_seen() RETURNS TABLE (what text, shown text) LANGUAGE plpgsql AS $$ BEGIN
    RETURN QUERY VALUES
        ('queue_counts', (SELECT st_names(array_agg(relid)) FROM kvstore.queue_counts())),
        ('stat_counts', (SELECT st_names(array_agg(relid)) FROM kvstore.stat_counts())),
        ('expiry_map', (SELECT st_names(array_agg(relid)) FROM kvstore.expiry_map())),
        ('pg_stat_kvstore', (SELECT COALESCE(string_agg(store, ' ' ORDER BY store), '-') FROM pg_stat_kvstore WHERE store ~ '^st_')),
        ('pg_stat_kvstore_queue', (SELECT COALESCE(string_agg(queue, ' ' ORDER BY queue), '-') FROM pg_stat_kvstore_queue WHERE queue ~ '^st_')),
        ('kv_queue_stats', (SELECT COALESCE(string_agg(queue, ' ' ORDER BY queue), '-') FROM kv_queue_stats() WHERE queue ~ '^st_')),
        ('kv_leases', (SELECT COALESCE(string_agg(queue, ' ' ORDER BY queue), '-') FROM kv_leases WHERE queue ~ '^st_')),
        ('kv_metrics', st_labels(kv_metrics()::text)),
        ('kv_metrics_prometheus', st_labels(kv_metrics_prometheus())),
        ('may_see', st_names(ARRAY(SELECT oid FROM pg_class WHERE relnamespace = 'kvstore'::regnamespace AND kvstore.may_see(oid))));
END $$;
SET ROLE regress_kvs_stranger;
SELECT * FROM st_seen();
SELECT ready, leased, dead FROM kv_health();
SELECT outcome($$(SELECT ready FROM kv_queue_stats('st_a'))$$);
SET ROLE regress_kvs_sender;
SELECT * FROM st_seen();
SET ROLE regress_kvs_reader;
SELECT * FROM st_seen();
SELECT leased FROM kv_health();
SELECT outcome($$(SELECT ready FROM kv_queue_stats('st_a'))$$), outcome($$(SELECT ready FROM kv_queue_stats('st_b'))$$);
SET ROLE regress_kvs_monitor;
SELECT * FROM st_seen();
SELECT leased >= 2 AS leased FROM kv_health();
SELECT outcome($$(SELECT leased FROM kv_queue_stats('st_b'))$$);
-- To see how many there are is not to see what they are.
SELECT outcome($$(SELECT payload FROM kv_peek('st_b'))$$), outcome($$kv_get('k', 'st_b')$$);
SET ROLE regress_kvs_statistics;
SELECT string_agg(shown, ', ') FROM st_seen();
RESET ROLE;
-- A table that is gone, and none at all.
SELECT kvstore.may_see(NULL), kvstore.may_see(0) AS superuser;
SET ROLE regress_kvs_stranger;
SELECT kvstore.may_see(1), kvstore.may_see('kvstore.q_st_a'::regclass);
RESET ROLE;

SELECT kv_drop_queue('st_a'), kv_drop_queue('st_b'), kv_drop_store('st_a'), kv_drop_store('st_b'), kv_drop_snapshot_store('st_a'), kv_drop_snapshot_store('st_b');
DROP FUNCTION st_seen, st_names, st_labels;
DROP ROLE regress_kvs_stranger, regress_kvs_reader, regress_kvs_sender, regress_kvs_monitor, regress_kvs_statistics;
