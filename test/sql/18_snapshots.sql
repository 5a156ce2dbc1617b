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
SELECT kv_snapshot_append('c1', '{"step":2}', ttl => '2 days', hash => 'h2');
SELECT hash, state, metadata, expires_at - created_at > '47 hours' AS renewed FROM kv_snapshot_load('c1') WHERE hash = 'h2';
SELECT kv_snapshot_append('c1', '{"step": 3}', hash => 'h3');
SELECT kv_snapshot_append('c1', '{"step": 2}', hash => 'h2', metadata => '{"by": "again"}');
SELECT hash, state, metadata FROM kv_snapshot_get('h2');
-- It is the newest again, for that is where to go on; while it is, its number stays.
SELECT hash, state FROM kv_snapshot_latest('c1');
SELECT left(hash, 8) AS hash FROM kv_snapshot_hashes('c1');
SELECT seq AS last FROM kv_snapshot_latest('c1') \gset
SELECT kv_snapshot_append('c1', '{"step": 2}', hash => 'h2');
SELECT seq = :last AS stays FROM kv_snapshot_latest('c1');
-- Another state under a hash is never silence, whether the hash was given or is that of the state; what expired is out of the way.
SELECT outcome($$kv_snapshot_append('c1', '{"step": 2, "other": true}', hash => 'h2', ttl => '9 days')$$), outcome($$kv_snapshot_append('c1', '{"step": 2.0}', hash => 'h2')$$);
SELECT kv_snapshot_append('taken', '"posing"', hash => encode(sha256('"honest"'), 'hex')) IS NOT NULL;
SELECT outcome($$kv_snapshot_append('taken', '"honest"')$$), outcome($$kv_snapshot_append('taken', '"posing"', hash => encode(sha256('"honest"'), 'hex'), ttl => '0') IS NOT NULL$$), outcome($$kv_snapshot_append('taken', '"honest"') IS NOT NULL$$);
SELECT state FROM kv_snapshot_load('taken');
SELECT state, seq = :last AS stays, expires_at < now() + interval '2 days' AS not_renewed FROM kv_snapshot_latest('c1');
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

-- Rows that bring their numbers, as those of a restore or a subscription, have what comes later come after them, if they are the owner's.
INSERT INTO kvstore.p_default SELECT 'brought', 'b' || i, i, '1', NULL, now(), NULL, 1 FROM generate_series(5001, 5003) i;
SELECT kv_snapshot_append('brought', '2', hash => 'later'), kv_snapshot_append('brought', '1', hash => 'b5001'), (SELECT max(seq) < 10000 FROM kvstore.p_default);
SELECT string_agg(hash, ' ' ORDER BY seq) FROM kv_snapshot_load('brought');
INSERT INTO kvstore.p_default VALUES ('brought', 'highest', 9223372036854775807, '1', NULL, now(), NULL, 1);
CREATE ROLE regress_kvs_snap_bringer;
GRANT INSERT ON kvstore.p_default TO regress_kvs_snap_bringer;
SET ROLE regress_kvs_snap_bringer;
INSERT INTO kvstore.p_default VALUES ('brought', 'high', 1000000, '1', NULL, now(), NULL, 1);
RESET ROLE;
REVOKE ALL ON kvstore.p_default FROM regress_kvs_snap_bringer;
DROP ROLE regress_kvs_snap_bringer;
SELECT kv_snapshot_delete('brought'), kv_snapshot_append('brought', '1', hash => 'b5001');
SELECT hash, seq < 10000 AS not_lifted FROM kv_snapshot_load('brought');
SELECT kv_snapshot_delete('brought');

-- Only the last n stay.
SELECT kv_snapshot_append('pages', '11', hash => 'n11', keep => 3);
SELECT string_agg(hash, ' ' ORDER BY seq) FROM kv_snapshot_load('pages');
SELECT kv_snapshot_append('pages', '9', hash => 'n9', keep => 2), kv_snapshot_append('pages', '12', hash => 'n12', keep => 100);
SELECT string_agg(hash, ' ' ORDER BY seq) FROM kv_snapshot_load('pages');
SELECT count(*) FROM kv_snapshot_load('c1');
SELECT kv_snapshot_delete('pages'), kv_snapshot_delete('pages'), (SELECT count(*) FROM kv_snapshot_load('pages'));

-- Only after what the caller goes on from.
SELECT kv_snapshot_append('chain', '1', hash => 'one', if_latest => 'zero') AS no, kv_snapshot_append('chain', '1', hash => 'one', if_latest => '') AS first, kv_snapshot_append('chain', '1', hash => 'uno', if_latest => '') AS not_first;
SELECT kv_snapshot_append('chain', '2', hash => 'two', if_latest => 'one') AS next, kv_snapshot_append('chain', '3', hash => 'three', if_latest => 'one') AS late, kv_snapshot_append('chain', '1', hash => 'one', if_latest => 'two', keep => 1) AS back;
SELECT string_agg(hash, ' ' ORDER BY seq) FROM kv_snapshot_load('chain');
-- What is refused changes nothing.
SELECT kv_snapshot_append('chain', '4', ttl => '9 days', metadata => '{}', hash => 'one', keep => 1, if_latest => 'two'), outcome($$kv_snapshot_append('chain', '4', hash => 'one', if_latest => 'one')$$);
SELECT hash, state, metadata, expires_at < now() + interval '2 days' AS not_renewed FROM kv_snapshot_load('chain');
-- An expired one is none.
SELECT kv_snapshot_append('chain', '1', hash => 'one', ttl => '0', if_latest => 'one'), kv_snapshot_append('chain', '2', hash => 'two', if_latest => 'one') AS gone, kv_snapshot_append('chain', '2', hash => 'two', if_latest => '') AS first;
-- The empty hash is a hash; nothing is latest to it.
SELECT kv_snapshot_append('empty', '1', hash => '', if_latest => ''), kv_snapshot_append('empty', '2', hash => 'two', if_latest => '') IS NULL AS refused;

-- One snapshot is deleted by its hash.
SELECT kv_snapshot_append('one', to_jsonb(i), hash => 'h' || i) FROM generate_series(1, 4) i;
SELECT kv_snapshot_delete('one', hash => 'h2'), kv_snapshot_delete('one', hash => 'h2'), kv_snapshot_delete('one', hash => 'none'), kv_snapshot_delete('none', hash => 'h1');
SELECT string_agg(hash, ' ' ORDER BY seq) FROM kv_snapshot_load('one');
SELECT kv_snapshot_delete('one', hash => NULL), kv_snapshot_append('one', '1', hash => 'h1', ttl => '0'), kv_snapshot_delete('one', 'default', 'h1') AS expired;

-- A fork: the history up to a snapshot, or all of it, under another name, with all it has.
SELECT count(kv_snapshot_append('main', to_jsonb(i), hash => 'm' || i, metadata => to_jsonb('by ' || i), ttl => i * interval '1 day')) FROM generate_series(1, 5) i;
SELECT kv_snapshot_append('main', '1', hash => 'm1', ttl => '1 day'), kv_snapshot_append('main', '0', hash => 'gone', ttl => '0');
SELECT kv_snapshot_fork('main', 'side', hash => 'm4'), kv_snapshot_fork('main', 'all'), kv_snapshot_fork('main', 'nothing', hash => 'none'), kv_snapshot_fork('main', 'nothing', hash => 'gone'), kv_snapshot_fork('none', 'nothing');
SELECT string_agg(hash, ' ' ORDER BY seq) FROM kv_snapshot_load('side');
SELECT string_agg(hash, ' ' ORDER BY seq) FROM kv_snapshot_load('all');
SELECT count(*) AS same FROM kv_snapshot_load('main') m JOIN kv_snapshot_load('all') a USING (hash, state, metadata, created_at, expires_at);
SELECT kv_snapshot_append('side', '"on"', hash => 'on', if_latest => 'm4'), (SELECT hash FROM kv_snapshot_latest('main'));
SELECT outcome(call) FROM unnest(ARRAY[$$kv_snapshot_fork('main', 'side')$$, $$kv_snapshot_fork('main', 'main')$$, $$kv_snapshot_fork(NULL, 'side')$$, $$kv_snapshot_fork('main', NULL)$$, $$kv_snapshot_fork('main', repeat('c', 1025))$$,
    $$kv_snapshot_fork('main', 'new', store => 'none')$$]) call;
-- Expired rows of before are not in the way, and not copied.
SELECT kv_snapshot_append('side', '4', hash => 'm4', ttl => '0'), kv_snapshot_append('old', '"another"', hash => 'm4', ttl => '0'), kv_snapshot_append('old', '1', hash => 'm1', ttl => '0');
SELECT kv_snapshot_fork('main', 'old');
SELECT hash, state, metadata FROM kv_snapshot_load('old');

-- Pruned: older than, all but the last n, or both, in all contexts.
SELECT kv_create_snapshot_store('prune');
INSERT INTO kvstore.p_prune (context, hash, state, created_at, expires_at, state_size)
    SELECT 'c' || c, 'h' || n, to_jsonb(n), '2026-01-01Z'::timestamptz + n * interval '1 day', CASE WHEN n % 10 = 0 THEN '2026-01-01Z'::timestamptz END, 1 FROM generate_series(1, 4) c, generate_series(1, 5 * c) n ORDER BY n, c;
CREATE FUNCTION pg_temp.left_over() RETURNS TABLE(context text, hashes text) LANGUAGE sql AS $$
    SELECT context, string_agg(hash, ' ' ORDER BY seq) FROM kvstore.p_prune GROUP BY context ORDER BY context $$;
SELECT outcome(call) FROM unnest(ARRAY[$$kv_snapshot_prune(store => 'prune')$$, $$kv_snapshot_prune(keep => 0, store => 'prune')$$, $$kv_snapshot_prune('2026-01-01', store => NULL)$$, $$kv_snapshot_prune(now(), store => 'none')$$]) call;
SELECT kv_snapshot_prune('2026-01-04Z', store => 'prune'), kv_snapshot_prune('2026-01-04Z', store => 'prune') AS again;
SELECT * FROM pg_temp.left_over();
SELECT kv_snapshot_prune('2026-01-08Z', keep => 4, store => 'prune');
SELECT * FROM pg_temp.left_over();
SELECT kv_snapshot_prune(keep => 3, store => 'prune');
SELECT * FROM pg_temp.left_over();
SELECT kv_snapshot_prune('infinity', store => 'prune'), kv_drop_snapshot_store('prune');

-- Another default, for what comes from now on.
SELECT kv_alter_snapshot_store('week', default_ttl => '14 days'), kv_snapshot_append('alter', '1', store => 'week') IS NOT NULL;
SELECT expires_at - created_at AS ttl FROM kv_snapshot_latest('alter', 'week');
SELECT kv_alter_snapshot_store('week', default_ttl => '0'), kv_alter_snapshot_store('week'), kv_snapshot_append('alter', '2', store => 'week') IS NOT NULL;
SELECT expires_at IS NULL AS stays FROM kv_snapshot_latest('alter', 'week');
SELECT kv_alter_snapshot_store('week', default_ttl => '7 days'), kv_snapshot_delete('alter', 'week');
SELECT outcome(call) FROM unnest(ARRAY[$$kv_alter_snapshot_store('week', '-1 s')$$, $$kv_alter_snapshot_store('none', '1 s')$$, $$kv_alter_snapshot_store(NULL)$$]) call;

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
SELECT outcome($$kv_snapshot_append('c', '1')$$), outcome($$kv_snapshot_delete('c')$$), outcome($$kv_snapshot_fork('c', 'd')$$), outcome($$kv_snapshot_prune(now())$$), outcome($$kv_alter_snapshot_store()$$), outcome($$kv_create_snapshot_store('ro')$$), outcome($$kv_drop_snapshot_store()$$), outcome($$(SELECT hash FROM kv_snapshot_latest('c2'))$$);
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
    $$(SELECT item_count FROM kv_snapshot_stats('r'))$$, $$kv_snapshot_fork('r', 'forked')$$, $$kv_snapshot_prune('2020-01-01')$$, $$kv_snapshot_delete('r')$$, $$kv_snapshot_delete('r', hash => 'r')$$,
    $$kv_alter_snapshot_store(default_ttl => '1 s')$$, $$kv_drop_snapshot_store()$$, $$kv_create_snapshot_store('mine')$$]) call;
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
SELECT outcome($$kv_snapshot_append('r', '2', hash => 'r2', keep => 1)$$), outcome($$kv_snapshot_delete('r')$$), outcome($$kv_snapshot_prune('2020-01-01')$$);
RESET ROLE;

-- Row-level security: a role sees, renews, goes on from, forks, prunes and deletes what its policies let it.
SELECT kv_create_snapshot_store('rls');
ALTER TABLE kvstore.p_rls ENABLE ROW LEVEL SECURITY;
CREATE POLICY reads ON kvstore.p_rls FOR SELECT TO regress_kvs_snap_writer USING (context LIKE 'ours%' AND metadata IS DISTINCT FROM '"secret"');
CREATE POLICY writes ON kvstore.p_rls FOR INSERT TO regress_kvs_snap_writer WITH CHECK (context LIKE 'ours%');
CREATE POLICY renews ON kvstore.p_rls FOR UPDATE TO regress_kvs_snap_writer USING (context LIKE 'ours%');
CREATE POLICY deletes ON kvstore.p_rls FOR DELETE TO regress_kvs_snap_writer USING (context LIKE 'ours%');
GRANT SELECT, INSERT, UPDATE, DELETE ON kvstore.p_rls TO regress_kvs_snap_writer;
SELECT kv_snapshot_append('theirs', '1', hash => 't1', store => 'rls'), kv_snapshot_append('ours', '1', hash => 'o1', store => 'rls'), kv_snapshot_append('ours', '2', hash => 'o2', metadata => '"secret"', store => 'rls');
SET ROLE regress_kvs_snap_writer;
SELECT outcome(call) FROM unnest(ARRAY[$$kv_snapshot_append('theirs', '2', store => 'rls')$$, $$kv_snapshot_append('ours', '2', hash => 'o2', store => 'rls')$$, $$kv_snapshot_append('ours', '3', hash => 'o3', if_latest => 'o2', store => 'rls')$$,
    $$kv_snapshot_append('ours', '1', hash => 'o1', if_latest => 'o1', store => 'rls')$$, $$kv_snapshot_fork('theirs', 'ours too', store => 'rls')$$, $$kv_snapshot_fork('ours', 'theirs', store => 'rls')$$,
    $$kv_snapshot_fork('ours', 'ours too', store => 'rls')$$, $$kv_snapshot_delete('theirs', 'rls')$$, $$kv_snapshot_prune('infinity', store => 'rls')$$]) call;
RESET ROLE;
-- Renewed, it is the newest for those who see more, too.
SELECT kv_snapshot_delete('ours', 'rls');
SELECT kv_snapshot_append('ours', '1', hash => 'o1', store => 'rls'), kv_snapshot_append('ours', '2', hash => 'o2', metadata => '"secret"', store => 'rls');
SET ROLE regress_kvs_snap_writer;
SELECT kv_snapshot_append('ours', '1', hash => 'o1', store => 'rls');
RESET ROLE;
SELECT context, hash FROM kvstore.p_rls ORDER BY seq;

-- Triggers of the owner's: skipping is never silence, nor is another context or hash; another state is theirs to make.
CREATE FUNCTION snap_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    CASE TG_ARGV[0]
        WHEN 'skip' THEN RETURN NULL;
        WHEN 'move' THEN NEW.context := 'elsewhere';
        WHEN 'hash' THEN NEW.hash := 'other';
        ELSE NEW.state := jsonb_build_object('wrapped', NEW.state);
    END CASE;
    RETURN NEW;
END $$;
CREATE FUNCTION pg_temp.with_trigger(what text) RETURNS TABLE(made text, again text, got text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER snap BEFORE INSERT ON kvstore.p_rls FOR EACH ROW EXECUTE FUNCTION snap_trigger(%L)', what);
    made := outcome($s$kv_snapshot_append('trigger', '1', hash => 'h', store => 'rls')$s$);
    again := outcome($s$kv_snapshot_append('trigger', '1', hash => 'h', store => 'rls')$s$);
    got := outcome($s$(SELECT state FROM kv_snapshot_load('trigger', store => 'rls'))$s$);
    RETURN NEXT;
    DROP TRIGGER snap ON kvstore.p_rls;
END $$;
SELECT what, t.* FROM unnest(ARRAY['skip', 'move', 'hash', 'wrap']) what, pg_temp.with_trigger(what) t;
SELECT kv_drop_snapshot_store('rls');
DROP FUNCTION snap_trigger();

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
