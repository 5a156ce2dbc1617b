-- Snapshots: append, the same hash again, expiry, keep, reading in order and in pages, sizes, settings, rights, shape.
\pset format unaligned
\pset fieldsep ' | '

SELECT outcome($$kv_snapshot_append('c', '1')$$), outcome($$kv_snapshot_latest('c', 'other')$$);
SELECT kv_create_snapshot_store();
SELECT kv_create_snapshot_store('keep', default_ttl => '0'), kv_create_snapshot_store('week', default_ttl => '7 days');
SELECT outcome($$kv_create_snapshot_store('week')$$);
SELECT kv_create_snapshot_store('week', default_ttl => '1 s', if_not_exists => true);
SELECT store, table_name, default_ttl FROM kv_snapshot_stores ORDER BY store;
SELECT * FROM kvstore.snapshot_stores ORDER BY store;
SELECT outcome(call) FROM unnest(ARRAY[$$kv_create_snapshot_store('Bad')$$, $$kv_create_snapshot_store(NULL)$$, $$kv_create_snapshot_store('x', '-1 s')$$, $$kv_drop_snapshot_store('none')$$]) call;

-- The hash is the SHA-256 of the canonical text; the same state in a context is one snapshot.
SELECT kv_snapshot_append('c1', '{"step": 1}') = encode(sha256('{"step": 1}'), 'hex') AS hash_is_sha256,
    kv_snapshot_append('c1', '{ "step":1 }') = encode(sha256('{"step": 1}'), 'hex') AS also_written_otherwise;
SELECT kv_snapshot_append('c1', '{"step": 2}', metadata => '{"by": "test"}', hash => 'h2'), kv_snapshot_append('c1', '{"step": 3}', hash => 'h3');
SELECT context, left(hash, 8) AS hash, seq, state, metadata, created_at <= clock_timestamp() AS created, date_trunc('minute', expires_at - created_at) AS ttl FROM kv_snapshot_load('c1');
SELECT kv_snapshot_append('c1', '{"ignored": true}', ttl => '2 days', hash => 'h2');
SELECT hash, state, metadata, expires_at - created_at > '47 hours' AS renewed FROM kv_snapshot_load('c1') WHERE hash = 'h2';
SELECT kv_snapshot_append('c1', '{"step": 3}', hash => 'h3');
SELECT kv_snapshot_append('c1', '{}', hash => 'h2', metadata => '{"by": "again"}');
SELECT hash, state, metadata FROM kv_snapshot_get('h2');
-- It is the newest again, for that is where to go on; while it is, its number stays.
SELECT hash, state FROM kv_snapshot_latest('c1');
SELECT left(hash, 8) AS hash FROM kv_snapshot_hashes('c1');
SELECT seq AS last FROM kv_snapshot_latest('c1') \gset
SELECT kv_snapshot_append('c1', '{}', hash => 'h2');
SELECT seq = :last AS stays FROM kv_snapshot_latest('c1');
-- In another context it is another one; without a context the newest is given.
SELECT kv_snapshot_append('c2', '{"step": 2, "in": "c2"}', hash => 'h2');
SELECT context, state FROM kv_snapshot_get('h2');
SELECT context, state FROM kv_snapshot_get('h2', 'c1');
SELECT kv_snapshot_has('h2'), kv_snapshot_has('h2', 'c2'), kv_snapshot_has('h3', 'c2'), kv_snapshot_has('none'), kv_snapshot_has('h2', store => 'week');
SELECT * FROM kv_snapshot_get('none');
SELECT * FROM kv_snapshot_latest('none');
SELECT left(hash, 8) AS hash FROM kv_snapshot_hashes('c1');

-- In order, in pages.
SELECT count(kv_snapshot_append('pages', to_jsonb(i), hash => 'n' || i)) FROM generate_series(1, 10) i;
SELECT hash, seq AS last FROM kv_snapshot_load('pages', max_count => 4) ORDER BY seq DESC LIMIT 1 \gset
SELECT :'hash' AS hash;
SELECT string_agg(hash, ' ' ORDER BY n) FROM kv_snapshot_load('pages', :last, 4) WITH ORDINALITY AS p(context, hash, seq, state, metadata, created_at, expires_at, n);
SELECT string_agg(hash, ' ' ORDER BY n) FROM kv_snapshot_load('pages', after_seq => :last + 4) WITH ORDINALITY AS p(context, hash, seq, state, metadata, created_at, expires_at, n);
SELECT count(*) FROM kv_snapshot_load('pages', max_count => 0);
SELECT hash FROM kv_snapshot_latest('pages');

-- Only the last n stay.
SELECT kv_snapshot_append('pages', '11', hash => 'n11', keep => 3);
SELECT string_agg(hash, ' ' ORDER BY seq) FROM kv_snapshot_load('pages');
SELECT kv_snapshot_append('pages', '9', hash => 'n9', keep => 2), kv_snapshot_append('pages', '12', hash => 'n12', keep => 100);
SELECT string_agg(hash, ' ' ORDER BY seq) FROM kv_snapshot_load('pages');
SELECT count(*) FROM kv_snapshot_load('c1');
SELECT kv_snapshot_delete('pages'), kv_snapshot_delete('pages'), (SELECT count(*) FROM kv_snapshot_load('pages'));

-- Expiry: hidden at once, by every function; a row that is still there neither counts nor is in the way.
SELECT kv_snapshot_append('x', '1', hash => 'a', ttl => '1 hour'), kv_snapshot_append('x', '2', hash => 'b', ttl => '0', metadata => '"old"'), kv_snapshot_append('y', '2', hash => 'b', ttl => '0');
SELECT string_agg(hash, ' ' ORDER BY seq) FROM kvstore.p_default WHERE context = 'x';
SELECT hash FROM kv_snapshot_load('x');
SELECT hash FROM kv_snapshot_latest('x');
SELECT hash FROM kv_snapshot_hashes('x');
SELECT hash FROM kv_snapshot_get('b');
SELECT kv_snapshot_has('b'), kv_snapshot_has('b', 'x'), (SELECT item_count FROM kv_snapshot_stats('x'));
SELECT kv_snapshot_append('x', '3', hash => 'c', keep => 2);
SELECT string_agg(hash, ' ' ORDER BY seq) AS an_expired_one_takes_no_place FROM kv_snapshot_load('x');
SELECT kv_snapshot_append('x', '"new"', hash => 'b');
SELECT hash, state, metadata FROM kv_snapshot_load('x');
SELECT hash, state FROM kv_snapshot_latest('x');
SELECT kv_snapshot_append('x', '4', hash => 'd', ttl => '0'), kv_snapshot_delete('x') AS without_expired, (SELECT count(*) FROM kvstore.p_default WHERE context = 'x') AS all_gone;
SELECT kv_snapshot_append('k', '1', hash => 'k', store => 'keep'), kv_snapshot_append('k', '1', hash => 'k', store => 'week');
SELECT (SELECT expires_at IS NULL FROM kv_snapshot_latest('k', 'keep')) AS stays, (SELECT expires_at - created_at FROM kv_snapshot_latest('k', 'week')) AS a_week;
SELECT kv_snapshot_append('k', '1', hash => 'k', store => 'keep', ttl => '1 hour');
SELECT (SELECT expires_at IS NULL FROM kv_snapshot_latest('k', 'keep')) AS stays;
-- By hand as the worker does it.
SELECT count(kv_snapshot_append('z', to_jsonb(i), ttl => '0')) FROM generate_series(1, 5) i;
SELECT (SELECT count(*) FROM kvstore.p_default WHERE expires_at <= now()) AS expired;
SELECT kv_sweep(3), kv_sweep(), kv_maintain();
SELECT outcome('kv_sweep(-1)');
SELECT (SELECT count(*) FROM kvstore.p_default WHERE expires_at <= now()) AS expired, (SELECT count(*) FROM kv_snapshot_load('c1')) AS others_stay;

-- Sizes: as stored and as given.
SELECT kv_snapshot_append('s', to_jsonb(repeat('x', 100000))) IS NOT NULL, kv_snapshot_append('s', '1') IS NOT NULL;
SELECT item_count, total_size < 10000 AS compressed, average_item_size = round(total_size / 2.0, 1) AS average, given_size FROM kv_snapshot_stats('s');
SELECT item_count, total_size, average_item_size, given_size FROM kv_snapshot_stats('none');
SELECT item_count = (SELECT count(*) FROM kvstore.p_default) AS all_contexts FROM kv_snapshot_stats();
SELECT attname, attcompression = CASE WHEN 'lz4' = ANY (enumvals) THEN 'l' ELSE '' END AS lz4_where_there_is_one
    FROM pg_attribute, pg_settings WHERE attrelid = 'kvstore.p_default'::regclass AND attname IN ('state', 'metadata') AND name = 'default_toast_compression' ORDER BY attname;
SELECT current_setting('enable_bitmapscan') AS no_setting_stays FROM kv_snapshot_latest('s');

-- Arguments without a meaning.
SELECT call, outcome(call) FROM unnest(ARRAY[$$kv_snapshot_append(NULL, '1')$$, $$kv_snapshot_append('c', NULL)$$, $$kv_snapshot_append('c', '1', keep => 0)$$, $$kv_snapshot_append('c', '1', ttl => '-1 s')$$,
    $$kv_snapshot_append(repeat('c', 1025), '1')$$, $$kv_snapshot_append('c', '1', hash => repeat('c', 1025))$$, $$kv_snapshot_append('c', '1', store => 'none')$$, $$kv_snapshot_append('c', '1', store => NULL)$$,
    $$kv_snapshot_has(NULL)$$, $$kv_snapshot_get(NULL, 'c1')$$, $$kv_snapshot_latest(NULL)$$, $$kv_snapshot_load(NULL)$$, $$kv_snapshot_load('c', max_count => -1)$$, $$kv_snapshot_hashes(NULL)$$, $$kv_snapshot_delete(NULL)$$,
    $$kv_snapshot_stats('c', 'none')$$]) call;
SELECT kv_snapshot_append(repeat('c', 1024), '1', hash => repeat('h', 1024)) = repeat('h', 1024) AS longest, kv_snapshot_append('', 'null', hash => '') = '' AS empty;
SET kvstore.max_value_size = 1000;
SELECT outcome($$kv_snapshot_append('big', to_jsonb(repeat('x', 998))) IS NOT NULL$$), outcome($$kv_snapshot_append('big', to_jsonb(repeat('x', 999)))$$), outcome($$kv_snapshot_append('big', '1', metadata => to_jsonb(repeat('x', 998)))$$);
RESET kvstore.max_value_size;
BEGIN READ ONLY;
SELECT outcome($$kv_snapshot_append('c', '1')$$), outcome($$kv_snapshot_delete('c')$$), outcome($$kv_create_snapshot_store('ro')$$), outcome($$kv_drop_snapshot_store()$$), outcome($$(SELECT hash FROM kv_snapshot_latest('c2'))$$);
COMMIT;

-- The caller's operators and functions are not used.
CREATE SCHEMA regress_kvs_evil;
CREATE FUNCTION regress_kvs_evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'evil operator'; END $$;
CREATE OPERATOR regress_kvs_evil.= (LEFTARG = text, RIGHTARG = text, PROCEDURE = regress_kvs_evil.eq);
SET search_path = regress_kvs_evil, public, pg_catalog;
SELECT kv_snapshot_append('c2', '"safe"', hash => 'safe', keep => 5);
SELECT kv_snapshot_has('safe', 'c2'), (SELECT seq > 0 FROM kv_snapshot_get('safe', 'c2')), (SELECT count(*) FROM kv_snapshot_load('c2'));
RESET search_path;
DROP SCHEMA regress_kvs_evil CASCADE;

-- Rights are those on the table.
CREATE ROLE regress_kvs_snap_reader;
CREATE ROLE regress_kvs_snap_writer;
GRANT SELECT ON kvstore.p_default TO regress_kvs_snap_reader;
GRANT SELECT, INSERT, UPDATE ON kvstore.p_default TO regress_kvs_snap_writer;
CREATE TEMP TABLE snap_calls (n int, call text);
INSERT INTO snap_calls SELECT row_number() OVER (), call FROM unnest(ARRAY[$$kv_snapshot_append('r', '1', hash => 'r')$$, $$kv_snapshot_append('r', '1', hash => 'r', keep => 1)$$, $$kv_snapshot_has('r')$$,
    $$(SELECT hash FROM kv_snapshot_get('r'))$$, $$(SELECT hash FROM kv_snapshot_latest('r'))$$, $$(SELECT count(*) FROM kv_snapshot_load('r'))$$, $$(SELECT count(*) FROM kv_snapshot_hashes('r'))$$,
    $$(SELECT item_count FROM kv_snapshot_stats('r'))$$, $$kv_snapshot_delete('r')$$, $$kv_drop_snapshot_store()$$, $$kv_create_snapshot_store('mine')$$]) call;
GRANT SELECT ON snap_calls TO PUBLIC;
SET ROLE regress_kvs_snap_writer;
SELECT call, outcome(call) FROM snap_calls ORDER BY n;
SET ROLE regress_kvs_snap_reader;
SELECT call, outcome(call) FROM snap_calls ORDER BY n;
RESET ROLE;
REVOKE SELECT ON kvstore.p_default FROM regress_kvs_snap_reader;
SET ROLE regress_kvs_snap_reader;
SELECT call, outcome(call) FROM snap_calls ORDER BY n;
RESET ROLE;
GRANT DELETE ON kvstore.p_default TO regress_kvs_snap_writer;
SET ROLE regress_kvs_snap_writer;
SELECT outcome($$kv_snapshot_append('r', '2', hash => 'r2', keep => 1)$$), outcome($$kv_snapshot_delete('r')$$);
RESET ROLE;

-- A table that only has the name is not used.
CREATE TABLE kvstore.p_evil (context int);
SELECT outcome($$kv_snapshot_append('c', '1', store => 'evil')$$), outcome($$(SELECT hash FROM kv_snapshot_latest('c', 'evil'))$$), outcome($$kv_create_snapshot_store('evil', if_not_exists => true)$$);
SELECT kv_sweep(), kv_maintain();
DROP TABLE kvstore.p_evil;
ALTER TABLE kvstore.p_week RENAME COLUMN seq TO number;
SELECT outcome($$kv_snapshot_append('c', '1', store => 'week')$$);
ALTER TABLE kvstore.p_week RENAME COLUMN number TO seq;
-- Columns and indexes of the owner's are welcome.
ALTER TABLE kvstore.p_week ADD COLUMN note text DEFAULT 'mine';
CREATE INDEX ON kvstore.p_week ((state ->> 'step'));
SELECT kv_snapshot_append('k', '{"step": 5}', hash => 'five', store => 'week');
SELECT (SELECT note FROM kvstore.p_week WHERE state ->> 'step' = '5');

-- The trigger serves snapshot stores only.
CREATE TEMP TABLE not_ours (a int, b int, c int, d int, e int, f int, expires_at int);
CREATE TRIGGER t AFTER INSERT ON not_ours FOR EACH ROW EXECUTE FUNCTION kvstore.snapshot_written();
INSERT INTO not_ours VALUES (1, 1, 1, 1, 1, 1, 1);
DROP TABLE not_ours;
CREATE TEMP TABLE not_ours (a int);
CREATE TRIGGER t BEFORE INSERT ON not_ours FOR EACH ROW EXECUTE FUNCTION kvstore.snapshot_written();
SELECT outcome_of('INSERT INTO not_ours VALUES (1)');

SELECT kv_drop_snapshot_store(store) FROM kv_snapshot_stores;
SELECT * FROM kvstore.snapshot_stores;
SELECT kv_drop_snapshot_store();
DROP ROLE regress_kvs_snap_reader, regress_kvs_snap_writer;
