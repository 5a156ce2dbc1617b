-- kv_list() in FROM is a node of the plan: the same rows as the function gives, in whatever place of a query.
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_store('ln');
SELECT count(kv_set('k' || lpad(i::text, 4, '0'), to_jsonb(i), store => 'ln')) FROM generate_series(1, 1000) i;
SELECT count(kv_set(kv_key('p', i), to_jsonb(i), store => 'ln')) FROM generate_series(1, 20) i;
SELECT kv_set_bytes('k0000', '\x00ff', ttl => '1 day', store => 'ln') > 0;

-- Who reads: the node, or the function where more is asked for than the columns.
CREATE FUNCTION pg_temp.reader(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
        IF line ~ 'kv_list|Function Scan' THEN
            RETURN btrim(line, '-> ');
        END IF;
    END LOOP;
END $$;
SELECT query, pg_temp.reader(query) FROM unnest(ARRAY[
    'SELECT * FROM kv_list('''', store => ''ln'')',
    'SELECT count(*) FROM kv_list(kv_key(''p''), store => ''ln'') l WHERE kind = ''json''',
    'SELECT * FROM (VALUES (''k1''), (''k2'')) v (p), LATERAL kv_list(v.p, store => ''ln'') l',
    'SELECT * FROM kv_list('''', store => ''ln'') WITH ORDINALITY',
    'SELECT l FROM kv_list('''', store => ''ln'') l',
    'SELECT key FROM kv_list('''', store => ''ln'') l WHERE l IS NOT NULL',
    'SELECT * FROM ROWS FROM (kv_list('''', store => ''ln''), generate_series(1, 2))',
    'SELECT s.key FROM kvstore.s_ln s, kv_list('''', store => ''ln'') l WHERE s.value = l.value FOR UPDATE OF s',
    'SELECT * FROM kv_get_many(ARRAY[''k1''], store => ''ln'')']) query;

-- The same rows, columns and order by both.
CREATE FUNCTION pg_temp.differ(call text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    result bigint;
BEGIN
    EXECUTE format('WITH node AS MATERIALIZED (SELECT key::text, value, bytes, kind, versionstamp, expires_at FROM %1$s),
        function AS MATERIALIZED (SELECT key::text, value, bytes, kind, versionstamp, expires_at, ordinality FROM %1$s WITH ORDINALITY)
        SELECT count(*) FROM (SELECT *, row_number() OVER () AS ordinality FROM node) n FULL JOIN function f
            ON (n.key, n.value, n.bytes, n.kind, n.versionstamp, n.expires_at, n.ordinality) IS NOT DISTINCT FROM
               (f.key, f.value, f.bytes, f.kind, f.versionstamp, f.expires_at, f.ordinality) AND n.key = f.key
        WHERE n.key IS NULL OR f.key IS NULL', call) INTO result;
    RETURN result;
END $$;
SELECT call, pg_temp.differ(call) FROM unnest(ARRAY[
    'kv_list('''', store => ''ln'')', 'kv_list(''k00'', reverse => true, store => ''ln'')', 'kv_list(''k'', after => ''k0500'', page_size => 7, store => ''ln'')',
    'kv_list(kv_key(), store => ''ln'')', 'kv_list(kv_key(''p''), reverse => true, page_size => 5, store => ''ln'')', 'kv_list(''k000'', keys_only => true, store => ''ln'')']) call;
SELECT * FROM (SELECT key, value, bytes, kind, versionstamp > 0, expires_at > now() FROM kv_list('k000', page_size => 2, store => 'ln')) l;

-- A list that is not read to its end.
SELECT key, value FROM kv_list('k', start_key => 'k0998', store => 'ln') LIMIT 2;
SELECT key FROM kv_list('k', page_size => 0, store => 'ln') LIMIT 0;

-- Started anew for each outer row, with arguments that are NULL, and with none that change.
SELECT p, (SELECT count(*) FROM kv_list(p, store => 'ln')), (SELECT string_agg(l.key, ' ') FROM kv_list(p, page_size => 2, store => 'ln') l) FROM unnest(ARRAY['k00', 'k09', 'none', 'k1']) p;
SELECT a, l.key FROM generate_series(1, 2) a LEFT JOIN LATERAL kv_list('k', page_size => 2, store => CASE WHEN a > 0 THEN 'ln' END) l ON true ORDER BY a, l.key;
SELECT count(*) FROM generate_series(1, 3) a, kv_list('k000', store => 'ln') l;
SELECT l.key, m.value FROM kv_list('k', page_size => 3, store => 'ln') l JOIN kv_list('k', page_size => 4, store => 'ln') m USING (key) ORDER BY key;
SELECT key FROM (SELECT key FROM kv_list('k', page_size => 1, store => 'ln') UNION ALL SELECT key FROM kv_list('k', page_size => 1, reverse => true, store => 'ln')) u;

-- Errors are the function's own, at the same time.
SELECT expression, outcome(expression) FROM unnest(ARRAY[
    $$(SELECT count(*) FROM kv_list(NULL::text, store => 'ln'))$$, $$(SELECT count(*) FROM kv_list('', store => 'nowhere'))$$,
    $$(SELECT count(*) FROM kv_list('', page_size => 0, store => 'ln'))$$, $$(SELECT count(*) FROM kv_list('', store => NULL))$$]) expression;

-- Writing while reading: the list is that of the statement's start.
SELECT count(kv_set('k' || lpad((i.value::int + 5000)::text, 4, '0'), i.value, store => 'ln')) FROM kv_list('k', start_key => 'k0001', store => 'ln') i;
SELECT count(kv_delete(key, store => 'ln')) FROM kv_list('k5', store => 'ln');
SELECT count(kv_delete(key, store => 'ln')), kv_count('k', 'ln') FROM kv_list('k6', store => 'ln');

-- Cursors: between two rows other things happen; the list stays as it was.
BEGIN;
DECLARE list CURSOR FOR SELECT key, value FROM kv_list('k', store => 'ln');
DECLARE there_and_back SCROLL CURSOR FOR SELECT key FROM kv_list('k', page_size => 4, store => 'ln');
DECLARE held CURSOR WITH HOLD FOR SELECT key FROM kv_list('k', page_size => 3, store => 'ln');
FETCH 2 FROM list;
SAVEPOINT s;
FETCH 1 FROM list;
SELECT kv_delete_prefix('k', 'ln') > 0 AS deleted;
FETCH 1 FROM list;
SELECT outcome($$(SELECT kv_drop_store('ln'))$$);
ROLLBACK TO s;
FETCH 1 FROM list;
FETCH ALL FROM there_and_back;
FETCH BACKWARD 2 FROM there_and_back;
CLOSE list;
COMMIT;
FETCH ALL FROM held;
CLOSE held;
DO $$
DECLARE
    entry record;
    seen text := '';
BEGIN
    FOR entry IN SELECT key, value FROM kv_list('k', start_key => 'k0001', page_size => 60, store => 'ln') LOOP
        PERFORM kv_set(entry.key, entry.value, store => 'ln');
        COMMIT;
        seen := seen || right(entry.key, 1);
    END LOOP;
    RAISE NOTICE '% entries, %', length(seen), md5(seen);
END $$;

-- A kept plan goes on when the rights do not, and where a policy comes in.
PREPARE reads AS SELECT count(*) FROM kv_list('k', store => 'ln');
EXECUTE reads;
CREATE ROLE kvs_reader;
GRANT SELECT ON kvstore.s_ln TO kvs_reader;
SET ROLE kvs_reader;
EXECUTE reads;
RESET ROLE;
ALTER TABLE kvstore.s_ln ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON kvstore.s_ln FOR SELECT USING (versionstamp > 0 AND value::text LIKE '%00');
SET ROLE kvs_reader;
EXECUTE reads;
SELECT l.key, m.key FROM kv_list('k', page_size => 2, store => 'ln') l, kv_list('k', page_size => 2, store => 'ln') m ORDER BY 1, 2;
RESET ROLE;
ALTER TABLE kvstore.s_ln DISABLE ROW LEVEL SECURITY;
REVOKE SELECT ON kvstore.s_ln FROM kvs_reader;
SET ROLE kvs_reader;
SELECT outcome($$(SELECT count(*) FROM kv_list('k', store => 'ln'))$$);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION kv_list(text, text, text, text, bigint, boolean, boolean, text) FROM PUBLIC;
GRANT SELECT ON kvstore.s_ln TO kvs_reader;
SET ROLE kvs_reader;
SELECT outcome($$(SELECT count(*) FROM kv_list('k', store => 'ln'))$$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION kv_list(text, text, text, text, bigint, boolean, boolean, text) TO PUBLIC;
DROP OWNED BY kvs_reader;
DROP ROLE kvs_reader;

-- A function with settings of its own is called as it is; calls are counted where that is asked for.
ALTER FUNCTION kv_list(text, text, text, text, bigint, boolean, boolean, text) SET work_mem = '1MB';
SELECT pg_temp.reader('SELECT key FROM kv_list(''k'', store => ''ln'')');
ALTER FUNCTION kv_list(text, text, text, text, bigint, boolean, boolean, text) RESET ALL;
SET track_functions = 'all';
SELECT count(*) FROM kv_list('k', page_size => 5, store => 'ln');
-- The arguments of the call outlive what it allocates, here for a prefix that is stored compressed.
CREATE TEMP TABLE prefixes AS SELECT repeat(left(store, 1), 1500) AS prefix, repeat('long', 300) AS filler, store FROM (VALUES ('ln')) s(store);
SELECT kv_set(repeat('l', 1501), '1', store => 'ln') > 0 AS set;
SELECT length(l.key) FROM prefixes p, kv_list(p.prefix, store => lower(upper(p.store))) l;
SELECT kv_delete(repeat('l', 1501), store => 'ln');
RESET track_functions;

-- A cursor goes backward wherever a function scan could, declared so or not, over a list that has been read in part, to its end, or not at all; the two give the same.
CREATE FUNCTION pg_temp.walk(source text, scroll boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    walk refcursor;
    step text;
    key text;
    seen text := '';
BEGIN
    IF scroll THEN
        OPEN walk SCROLL FOR EXECUTE 'SELECT key FROM ' || source;
    ELSE
        OPEN walk FOR EXECUTE 'SELECT key FROM ' || source;
    END IF;
    -- N next, P prior, F first, L last, A the third, R one back, E the last but one, 0 before the first
    FOREACH step IN ARRAY string_to_array('N N N P P P N A R N N N N P P L N P P F P P N N N N N N N N P E 0 N P N', ' ') LOOP
        CASE step WHEN 'N' THEN FETCH NEXT FROM walk INTO key; WHEN 'P' THEN FETCH PRIOR FROM walk INTO key; WHEN 'F' THEN FETCH FIRST FROM walk INTO key;
            WHEN 'L' THEN FETCH LAST FROM walk INTO key; WHEN 'A' THEN FETCH ABSOLUTE 3 FROM walk INTO key; WHEN 'R' THEN FETCH RELATIVE -1 FROM walk INTO key;
            WHEN 'E' THEN FETCH ABSOLUTE -2 FROM walk INTO key; WHEN '0' THEN FETCH ABSOLUTE 0 FROM walk INTO key; END CASE;
        seen := seen || step || coalesce(right(key, 2), '--') || ' ';
    END LOOP;
    CLOSE walk;
    RETURN seen;
END $$;
SELECT pg_temp.walk('kv_list(''k'', page_size => 6, store => ''ln'')', true) AS node;
SELECT size, reverse, filter, scroll, pg_temp.walk(format('kv_list(''k'', page_size => %s, reverse => %s, store => ''ln'') %s', size, reverse, filter), scroll)
        = pg_temp.walk(format('kv_list(''k'', page_size => %s, reverse => %s, store => ''ln'') WITH ORDINALITY %s', size, reverse, filter), scroll) AS same
    FROM (VALUES ('6', 'false', ''), ('1', 'false', ''), ('NULL', 'true', ''), ('20', 'false', 'WHERE key LIKE ''%5'''), ('6', 'false', 'WHERE length(key) = 0'), ('2', 'false', 'LIMIT 1')) v(size, reverse, filter), unnest(ARRAY[false, true]) scroll;
-- Backward is where it begins: there is nothing.
BEGIN;
DECLARE back CURSOR FOR SELECT key FROM kv_list('k', page_size => 3, store => 'ln');
FETCH PRIOR FROM back;
FETCH 5 FROM back;
FETCH BACKWARD ALL FROM back;
FETCH NEXT FROM back;
ROLLBACK;
-- One that is not to scroll gives the entries as it finds them, and cannot.
BEGIN;
DECLARE forward NO SCROLL CURSOR FOR SELECT key FROM kv_list('k', store => 'ln');
FETCH 2 FROM forward;
FETCH PRIOR FROM forward;
ROLLBACK;
-- Parameters that change begin anew.
BEGIN;
DECLARE pairs SCROLL CURSOR FOR SELECT g, l.key FROM generate_series(1, 2) g, LATERAL kv_list('k', after => NULL, page_size => g, store => 'ln') l;
FETCH ALL FROM pairs;
FETCH BACKWARD ALL FROM pairs;
ROLLBACK;
-- An argument that is volatile is asked for once, as a function scan does.
CREATE SEQUENCE ln_asked;
SET enable_material = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SELECT count(*) FROM generate_series(1, 3) g JOIN kv_list('k', page_size => nextval('ln_asked'), store => 'ln') l ON l.key >= g::text;
SELECT last_value FROM ln_asked;
DROP SEQUENCE ln_asked;
-- One statement has one clock: an entry that expires while it lists again and again is there each time.
SELECT kv_set('short', '"short"', ttl => '2 s', store => 'ln') > 0 AS set;
SELECT string_agg(c::text, ' ') FROM (SELECT l.c FROM generate_series(1, 3) g, LATERAL (SELECT count(*) AS c, pg_sleep(g * 0 + 1.2) FROM kv_list('short', store => 'ln')) l) x;
SELECT count(*) FROM kv_list('short', store => 'ln');
RESET enable_material; RESET enable_hashjoin; RESET enable_mergejoin;

-- In a parallel worker.
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SELECT count(*), min(key), max(key) FROM kv_list('k', store => 'ln');
SELECT count(*) FROM kvstore.s_ln s JOIN kv_list('k', store => 'ln') l ON l.value = s.value;
RESET ALL;

SELECT kv_drop_store('ln');
SELECT outcome('(SELECT 1 FROM kv_list('''', store => ''ln''))');
