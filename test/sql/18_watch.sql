-- Watch: positions, changes, what is told of each write, errors, rights.  What waits is in the specs and in test/t.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '
SELECT kv_create_store('wa');
SELECT kv_create_store('wb');

-- Changes of 'wa' since the position in the variable p.
CREATE FUNCTION wa_since(after text, prefix text DEFAULT '') RETURNS TABLE (operation text, key text, new boolean) LANGUAGE sql AS $$
    SELECT operation, key, versionstamp > coalesce(lag(versionstamp) OVER (), 0) FROM kv_changes(after, prefix, store => 'wa') $$;

--
-- What is told
--

SELECT kv_feed_position() AS p \gset
SELECT count(*), min(operation), bool_and(feed_position > '') FROM kv_changes(:'p', '', store => 'wa');
SELECT kv_set('a', '1', store => 'wa') > 0, kv_set('b', '1', store => 'wa') > 0, kv_set('other', '1', store => 'wb') > 0;
SELECT versionstamp FROM kv_entry('a', 'wa') \gset
SELECT kv_set('a', '2', if_version => :versionstamp, store => 'wa') IS NOT NULL, kv_set('a', '2', if_version => 0, store => 'wa'), kv_delete('none', store => 'wa'), kv_expire('none', store => 'wa');
SELECT kv_incr('n', store => 'wa'), kv_incr('n', store => 'wa');
SELECT kv_delete('a', store => 'wa'), kv_take('n', 'wa');
SELECT kv_expire('b', ttl => '1 day', store => 'wa');
SELECT kv_set_many('{x,y,y,z}', '{1,2,3,4}', store => 'wa') > 0, kv_delete_many('{z,none}', 'wa');
SELECT kv_import('{"im": {"value": 1}}', 'wa');
SELECT ok FROM kv_atomic('[{"set": {"key": "at", "value": 1}}, {"delete": {"key": "x"}}, {"sum": {"key": "count", "value": 2}}, {"delete": {"key": "none"}}]', 'wa');
SELECT ok FROM kv_atomic('[{"check": {"key": "at", "versionstamp": 0}}, {"set": {"key": "at", "value": 2}}]', 'wa');
SELECT kv_set('old', '1', ttl => '0', store => 'wa') > 0, kv_sweep();
SELECT operation, key, new FROM wa_since(:'p');
SELECT operation, key FROM kv_changes(:'p', '', store => 'wb');
-- One call's entries have one number, also those that were deleted.
SELECT count(DISTINCT versionstamp), count(*) FROM kv_changes(:'p', '', store => 'wa') WHERE key IN ('at', 'count') OR (key, operation) = ('x', 'delete');
-- The number of a deletion lies between those of what is deleted and of what is set then.
SELECT kv_feed_position() AS p \gset
SELECT kv_set('d', '1', store => 'wa') AS first, kv_delete('d', store => 'wa'), kv_set('d', '2', store => 'wa') AS second \gset
SELECT operation, versionstamp = :first AS first, versionstamp > :first AND versionstamp < :second AS between, versionstamp = :second AS second FROM kv_changes(:'p', '', store => 'wa');

-- Prefixes: text forms see plain strings, path forms everything below whole parts.
SELECT kv_feed_position() AS p \gset
SELECT kv_set('u', '1', store => 'wa') > 0, kv_set('uv', '1', store => 'wa') > 0, kv_set(kv_key('u', 1), '1', store => 'wa') > 0, kv_set(kv_key('u', 1, 'a'), '1', store => 'wa') > 0, kv_set(kv_key('uv', 1), '1', store => 'wa') > 0,
    kv_set('{"utf8": "dQB3"}'::jsonb::text, '1', store => 'wa') > 0, kv_set('[{"utf8": "dQB3"}, 1]'::jsonb, '1', store => 'wa') > 0;
SELECT operation, key FROM kv_changes(:'p', 'u', store => 'wa');
SELECT operation, key FROM kv_changes(:'p', 'uv', store => 'wa');
SELECT operation, key FROM kv_changes(:'p', kv_key('u'), store => 'wa');
SELECT operation, key FROM kv_changes(:'p', kv_key('u', 1), store => 'wa');
SELECT operation, key FROM kv_changes(:'p', kv_key(), store => 'wa');
SELECT kv_feed_position() AS p \gset
SELECT kv_delete_prefix(kv_key('u', 1), 'wa'), kv_delete_prefix('u', 'wa'), kv_delete_prefix('none', 'wa');
SELECT operation, key FROM kv_changes(:'p', 'uv', store => 'wa');
SELECT operation, key FROM kv_changes(:'p', 'x', store => 'wa');
SELECT operation, key FROM kv_changes(:'p', kv_key('u'), store => 'wa');
SELECT operation, key FROM kv_changes(:'p', kv_key('u', 1, 'a'), store => 'wa');
SELECT operation, key FROM kv_changes(:'p', kv_key('uv'), store => 'wa');
SELECT operation, key FROM kv_changes(:'p', kv_key(), store => 'wa');
SELECT kv_clear('wa') > 0;
SELECT operation, key FROM kv_changes(:'p', 'x', store => 'wa');

-- The owner's repairs: what was really written.
SELECT kv_feed_position() AS p \gset
INSERT INTO kvstore.s_wa (key, value) VALUES (kv_key('own'), '1');
INSERT INTO kvstore.s_wa (key, value) VALUES (kv_key('own'), '2') ON CONFLICT DO NOTHING;
INSERT INTO kvstore.s_wa (key, value) VALUES (kv_key('own'), '2') ON CONFLICT (key) DO UPDATE SET value = '3';
UPDATE kvstore.s_wa SET key = kv_key('renamed');
DELETE FROM kvstore.s_wa;
TRUNCATE kvstore.s_wa;
SELECT operation, key, new FROM wa_since(:'p');
-- A row that is restored with an older number: who knows the newer one would ignore it, so he has to list again.
INSERT INTO kvstore.s_wa (key, value, versionstamp) VALUES (kv_key('own'), '1', 1);
SELECT outcome_of(format('SELECT * FROM kv_changes(%L, %L, store => %L)', :'p', '', 'wa'));

-- A rollback tells nothing, nor does a savepoint's.
SELECT kv_feed_position() AS p \gset
BEGIN; SELECT kv_set('no', '1', store => 'wa') > 0; ROLLBACK;
BEGIN;
SELECT kv_set('one', '1', store => 'wa') > 0;
SAVEPOINT a;
SELECT kv_set('no', '1', store => 'wa') > 0;
SAVEPOINT b;
SELECT kv_delete_prefix('o', 'wa');
RELEASE b;
ROLLBACK TO a;
SELECT kv_set('two', '1', store => 'wa') > 0;
SAVEPOINT c;
SELECT kv_set('three', '1', store => 'wa') > 0;
RELEASE c;
SELECT operation, key FROM kv_changes(:'p', '', store => 'wa');
COMMIT;
SELECT operation, key FROM kv_changes(:'p', '', store => 'wa');

-- A page at a time; a page that is full says nothing of progress.
SELECT operation, key FROM kv_changes(:'p', '', max_count => 2, store => 'wa');
SELECT feed_position AS next FROM kv_changes(:'p', '', max_count => 2, store => 'wa') OFFSET 1 \gset
SELECT operation, key FROM kv_changes(:'next', '', max_count => 2, store => 'wa');

-- More changes than a transaction's list holds: who follows that store lists again, the others go on.
SELECT kv_feed_position() AS p \gset
SELECT kv_set_many(array_agg(i::text), array_agg('1'::jsonb), store => 'wa') > 0 FROM generate_series(1, 20000) i;
SELECT outcome_of(format('SELECT * FROM kv_changes(%L, %L, store => %L)', :'p', 'x', 'wa'));
SELECT operation FROM kv_changes(:'p', '', store => 'wb');
SELECT kv_feed_position() AS p \gset
BEGIN;
SELECT kv_set('before', '1', store => 'wb') > 0;
SAVEPOINT a;
SELECT count(kv_set(i::text, '1', store => 'wa')) FROM generate_series(1, 20000) i;
ROLLBACK TO a;
SELECT kv_set('after', '1', store => 'wb') > 0;
COMMIT;
SELECT outcome_of(format('SELECT * FROM kv_changes(%L, %L, store => %L)', :'p', 'x', 'wa'));
SELECT operation, key FROM kv_changes(:'p', '', store => 'wb');

-- A store that is created anew is another one.
SELECT kv_feed_position() AS p \gset
SELECT feed_position AS followed FROM kv_changes(:'p', '', store => 'wb') \gset
SELECT kv_drop_store('wb'), kv_create_store('wb');
SELECT outcome_of(format('SELECT * FROM kv_changes(%L, %L, store => %L)', position, '', 'wb')) FROM unnest(ARRAY[:'p', :'followed']) position;
SELECT operation FROM kv_changes(kv_feed_position(), '', store => 'wb');

-- What is written through kvstore cannot be prepared, nor can the promise that an entry stays absent.
BEGIN;
SELECT kv_set('prepared', '1', store => 'wa') > 0;
PREPARE TRANSACTION 'watch';
ROLLBACK;
BEGIN;
SELECT kv_check('prepared', 0, 'wa');
PREPARE TRANSACTION 'watch';
ROLLBACK;

--
-- Errors
--

SELECT kv_feed_position() AS p \gset
SELECT outcome_of(call) FROM unnest(ARRAY[
    $$SELECT * FROM kv_changes(NULL, '', store => 'wa')$$, $$SELECT * FROM kv_changes('', '', store => 'wa')$$, $$SELECT * FROM kv_changes('nonsense', '', store => 'wa')$$,
    format($$SELECT * FROM kv_changes(%L, NULL::text, store => 'wa')$$, :'p'),
    format($$SELECT * FROM kv_changes(%L, '', max_count => 0, store => 'wa')$$, :'p'), format($$SELECT * FROM kv_changes(%L, '', wait => '-1 s', store => 'wa')$$, :'p'),
    format($$SELECT * FROM kv_changes(%L, '', store => 'none')$$, :'p'), format($$SELECT * FROM kv_changes(%L, '', store => 'No')$$, :'p'), format($$SELECT * FROM kv_changes(%L, '', store => NULL)$$, :'p'),
    $$SELECT * FROM kv_watch(NULL, store => 'wa')$$, $$SELECT * FROM kv_watch('{a,NULL}', store => 'wa')$$, $$SELECT * FROM kv_watch('{a}', '{1,2}', store => 'wa')$$, $$SELECT * FROM kv_watch('{a}', '{-1}', store => 'wa')$$,
    $$SELECT * FROM kv_watch('{a}', wait => '-1 s', store => 'wa')$$, $$SELECT * FROM kv_watch('{a}', store => 'none')$$, $$SELECT * FROM kv_watch_paths('{}', store => 'wa')$$, $$SELECT * FROM kv_watch_paths('[[]]', store => 'wa')$$]) call;
-- A damaged position, each character in its turn, is known as such; a place that is none, with the right checksum, cannot be made by hand.
SELECT count(*), count(DISTINCT outcome_of(format('SELECT * FROM kv_changes(%L, %L, store => %L)', overlay(:'p' PLACING CASE substr(:'p', i, 1) WHEN '0' THEN '1' ELSE '0' END FROM i FOR 1), '', 'wa'))) AS outcomes,
    min(outcome_of(format('SELECT * FROM kv_changes(%L, %L, store => %L)', overlay(:'p' PLACING CASE substr(:'p', i, 1) WHEN '0' THEN '1' ELSE '0' END FROM i FOR 1), '', 'wa'))) FROM generate_series(1, length(:'p')) i;
SELECT outcome_of(format('SELECT * FROM kv_changes(%L, %L, store => %L)', position, '', 'wa')) FROM unnest(ARRAY[:'p' || '0', left(:'p', -1), upper(:'p'), ' ' || :'p', repeat('0', 57), repeat('x', 57)]) position;
-- At REPEATABLE READ what follows would not be seen.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT key, value FROM kv_watch('{two}', wait => '0', store => 'wa');
SELECT outcome_of(call) FROM unnest(ARRAY['SELECT kv_feed_position()', format($$SELECT * FROM kv_changes(%L, '', store => 'wa')$$, :'p'), $$SELECT * FROM kv_watch('{two}', store => 'wa')$$]) call;
COMMIT;
-- A procedure that holds no snapshot has to be a statement of its own.
BEGIN;
CALL kv_wait_changes(:'p', '', store => 'wa');
ROLLBACK;
DO $$ BEGIN CALL kv_wait_changes('x', '', store => 'wa'); END $$;
CREATE FUNCTION wa_inside(p text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL kv_wait_changes(p, '', store => 'wa'); END $$;
SELECT wa_inside(:'p');
CREATE PROCEDURE wa_set(p text) LANGUAGE plpgsql SET work_mem = '1MB' AS $$ BEGIN CALL kv_wait_changes(p, '', store => 'wa'); END $$;
CALL wa_set(:'p');
CALL kv_wait_changes(:'p', '', wait => '0', store => 'wa');
CREATE PROCEDURE wa_fine(p text) LANGUAGE plpgsql AS $$ BEGIN CALL kv_wait_changes(p, kv_key('x'), wait => '10 ms', store => 'wa'); END $$;
CALL wa_fine(:'p');
BEGIN;
CALL kv_wait_watch('{two}', store => 'wa');
ROLLBACK;
CREATE FUNCTION wa_watch() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL kv_wait_watch_paths('["two"]', store => 'wa'); END $$;
SELECT wa_watch();

--
-- kv_watch: what differs
--

SELECT kv_set('w1', '1', store => 'wa') AS w1, kv_set_bytes('w2', '\xff', store => 'wa') AS w2, kv_set(kv_key('w', 3), '3', ttl => '1 day', store => 'wa') AS w3 \gset
SELECT key, value, bytes, kind, versionstamp > 0 FROM kv_watch('{w1,w2,none}', store => 'wa');
SELECT key, versionstamp > 0 FROM kv_watch('{w1,w2,none}', ARRAY[:w1, :w2, 5], store => 'wa');
SELECT key, value FROM kv_watch('{w1,w2,none}', ARRAY[:w1, NULL, 0], store => 'wa');
SELECT key FROM kv_watch('{w1,w2,none}', ARRAY[:w1, :w2, 0], wait => '10 ms', store => 'wa');
SELECT key, value, expires_at > now() FROM kv_watch_paths('["w1", ["w", 3], ["none", 1]]', ARRAY[:w1, 0, NULL], wait => '10 ms', store => 'wa');
-- No keys: nothing can come, so it waits for the end of the time.
SELECT clock_timestamp() AS start \gset
SELECT * FROM kv_watch('{}', wait => '50 ms', store => 'wa');
SELECT * FROM kv_watch_paths('[]', wait => '50 ms', store => 'wa');
CALL kv_wait_watch('{}', wait => '50 ms', store => 'wa');
SELECT clock_timestamp() - :'start' BETWEEN '150 ms' AND '20 s' AS waited;
SELECT * FROM kv_watch('{}', wait => '0', store => 'wa');
SELECT * FROM kv_watch('{}', wait => '0', store => 'none');
-- The procedure: at once if there is a difference, else when the time is over.
SELECT clock_timestamp() AS start \gset
CALL kv_wait_watch('{w1,w2,none}', store => 'wa');
CALL kv_wait_watch('{w1,w2,none}', ARRAY[:w1, 5, 0], store => 'wa');
CALL kv_wait_watch_paths('["w1", ["w", 3]]', ARRAY[:w1, NULL], store => 'wa');
SELECT clock_timestamp() - :'start' < '20 s' AS at_once;
CALL kv_wait_watch('{w1,w2,none}', ARRAY[:w1, :w2, 0], '50 ms', 'wa');
CALL kv_wait_watch_paths('["w1", ["w", 3]]', ARRAY[:w1, :w3], '50 ms', 'wa');
SELECT clock_timestamp() - :'start' >= '100 ms' AS waited;
CALL kv_wait_watch('{w1}', '{1,2}', store => 'wa');
CALL kv_wait_watch('{w1}', wait => '-1 s', store => 'wa');
CALL kv_wait_watch('{w1}', store => 'none');
CALL kv_wait_watch(NULL, store => 'wa');
-- More keys than can be waited for one by one.
SELECT count(*) FROM kv_watch((SELECT array_agg('none' || i) FROM generate_series(1, 100) i), (SELECT array_agg(0) FROM generate_series(1, 100) i), wait => '10 ms', store => 'wa');
-- Its own transaction's changes, and a large value that lies out of line.
BEGIN;
SELECT kv_set('w1', to_jsonb(repeat(md5('x'), 100000)), store => 'wa') > 0;
SELECT key, length(value #>> '{}') FROM kv_watch('{w1}', ARRAY[:w1], store => 'wa');
ROLLBACK;
SELECT * FROM kvstore.waiters();

--
-- Rights
--

CREATE ROLE regress_kvs_watcher;
SELECT kv_feed_position() AS p \gset
SELECT kv_set('secret', '1', store => 'wa') > 0;
SET ROLE regress_kvs_watcher;
SELECT outcome_of(call) FROM unnest(ARRAY[format($$SELECT * FROM kv_changes(%L, '', store => 'wa')$$, :'p'), format($$SELECT * FROM kv_changes(%L, kv_key(), store => 'wa')$$, :'p'),
    $$SELECT * FROM kv_watch('{secret}', store => 'wa')$$, $$SELECT * FROM kv_watch_paths('["secret"]', store => 'wa')$$, 'SELECT kv_feed_position()']) call;
CALL kv_wait_changes(:'p', '', store => 'wa');
CALL kv_wait_changes(:'p', kv_key(), store => 'wa');
CALL kv_wait_watch('{secret}', store => 'wa');
RESET ROLE;
GRANT SELECT ON kvstore.s_wa TO regress_kvs_watcher;
SET ROLE regress_kvs_watcher;
SELECT operation, key FROM kv_changes(:'p', 'se', store => 'wa');
SELECT key, value FROM kv_watch('{secret}', store => 'wa');
CALL kv_wait_changes(:'p', '', store => 'wa');
RESET ROLE;
-- Row-level security: the feed does not know it, kv_watch does.
ALTER TABLE kvstore.s_wa ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON kvstore.s_wa USING (key = kv_key('w2'));
SELECT operation, key FROM kv_changes(:'p', 'se', store => 'wa');
SET ROLE regress_kvs_watcher;
SELECT outcome_of(format($$SELECT * FROM kv_changes(%L, '', store => 'wa')$$, :'p'));
SELECT key, bytes, versionstamp > 0 FROM kv_watch('{secret,w2}', '{5,5}', store => 'wa');
CALL kv_wait_watch('{secret,w2}', '{0,5}', store => 'wa');
RESET ROLE;
SELECT kv_drop_store('wa'), kv_drop_store('wb');
DROP ROLE regress_kvs_watcher;
DROP FUNCTION wa_since, wa_inside, wa_watch;
DROP PROCEDURE wa_set, wa_fine;

-- A row that does not hold what its kind promises is an error, not an entry without a value.
CREATE TABLE kvstore.s_wa_broken (key kvkey NOT NULL UNIQUE, value jsonb, bytes bytea, kind "char" NOT NULL, versionstamp bigint NOT NULL, expires_at timestamptz);
INSERT INTO kvstore.s_wa_broken VALUES ('["a"]', NULL, NULL, 'j', 7);
SELECT outcome($$(SELECT value FROM kv_watch('{a}', '{0}', '0', 'wa_broken'))$$), outcome($$(SELECT count(*) FROM kv_watch('{a}', '{7}', '0', 'wa_broken'))$$);
DROP TABLE kvstore.s_wa_broken;
