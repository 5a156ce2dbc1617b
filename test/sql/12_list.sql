-- kv_list() and kv_count(): prefixes, bounds, pages, families of paths between strings; then thousands of random keys and options against plain SQL.
\pset format unaligned
\pset fieldsep ' | '

SELECT kv_create_store('li');
CREATE FUNCTION pg_temp.list(prefix text, options text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN outcome(format('(SELECT string_agg(key, '' '' ORDER BY ordinality) FROM kv_list(%L::text, store => ''li''%s) WITH ORDINALITY)', prefix, ', ' || nullif(options, '')));
END $$;
CREATE FUNCTION pg_temp.list(prefix kvkey, options text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN outcome(format('(SELECT string_agg(key::text, '' '' ORDER BY ordinality) FROM kv_list(%L::kvkey, store => ''li''%s) WITH ORDINALITY)', prefix, ', ' || nullif(options, '')));
END $$;

-- Plain strings, with families of paths that begin with a string between them, strings with U+0000, and paths that begin with other parts.
SELECT count(kv_set(key::kvkey, to_jsonb(key), store => 'li')) FROM unnest(ARRAY[
    '["a"]', '["a", 1]', '["a", 2, "x"]', '["a", "b"]', '["a", {"bytes": ""}]', '["a", true]', '["ab"]', '["ab", 1]', '["b"]', '["b:1"]', '["b:2"]', '["b:2", 7]', '["b:3"]', '[""]', '["", ""]',
    '[{"utf8": "YQA="}]', '[{"utf8": "YQBi"}]', '[{"utf8": "YQBi"}, 1]', '[1]', '[1, "a"]', '[2]', '[true]', '[{"bytes": "YQ=="}]', '[{"bigint": "1"}]', '["ä"]', '["~"]', '["c", 5]']) key;
SELECT kv_set('b:gone', '1', ttl => '0', store => 'li') > 0, kv_set(kv_key('a', 'gone'), '1', ttl => '0', store => 'li') > 0;

-- Text: plain strings only.
SELECT prefix, pg_temp.list(prefix) AS forward, pg_temp.list(prefix, 'reverse => true') AS backward, kv_count(prefix, 'li')
    FROM unnest(ARRAY['', 'a', 'ab', 'b', 'b:', 'b:2', 'b:22', 'c', 'z', '~', 'ä', '["a"]', chr(1114111)]) prefix;
-- Paths: what lies under whole parts, not the entry of the prefix itself.
SELECT prefix, pg_temp.list(prefix::kvkey) AS forward, kv_count(prefix::kvkey, 'li')
    FROM unnest(ARRAY['["a"]', '["a", 2]', '["a", "b"]', '["a", {"bytes": ""}]', '["ab"]', '["b"]', '[1]', '[2]', '[true]', '[{"bytes": "YQ=="}]', '[{"bigint": "1"}]', '[""]', '["c"]', '[{"utf8": "YQBi"}]', '["none"]']) prefix;
SELECT pg_temp.list(kv_key());
SELECT pg_temp.list(kv_key(), 'reverse => true');
SELECT kv_count(kv_key(), 'li') AS all_entries, kv_count('', 'li') AS plain_strings;

-- Columns of both forms.
SELECT key, value, bytes, kind, versionstamp > 0 AS stamped, expires_at FROM kv_list('b', store => 'li');
SELECT key, value, kind, versionstamp > 0 AS stamped FROM kv_list(kv_key('a'), store => 'li');
SELECT key, value, bytes, kind, versionstamp > 0 AS stamped, expires_at FROM kv_list('b', keys_only => true, store => 'li');
SELECT key, value, kind FROM kv_list(kv_key('a'), keys_only => true, store => 'li');

-- Bounds: start inclusive, end exclusive, after exclusive in the direction of travel; they need not exist and only narrow.
SELECT options, pg_temp.list('b', options) FROM unnest(ARRAY[
    'start_key => ''b:1''', 'start_key => ''b:2''', 'end_key => ''b:2''', 'start_key => ''b:1'', end_key => ''b:3''', 'start_key => ''b:2'', end_key => ''b:2''', 'start_key => ''b:3'', end_key => ''b:1''',
    'start_key => ''a''', 'end_key => ''z''', 'start_key => ''z''', 'end_key => ''a''', 'start_key => ''b:15''', 'after => ''b:1''', 'after => ''b:2''', 'after => ''b:15''', 'after => ''b:3''', 'after => ''a''', 'after => ''z''',
    'after => ''b:3'', reverse => true', 'after => ''b:2'', reverse => true', 'after => ''b'', reverse => true', 'after => ''z'', reverse => true', 'start_key => ''b:2'', reverse => true', 'end_key => ''b:2'', reverse => true',
    'after => ''b:1'', start_key => ''b:2''', 'after => ''b:2'', start_key => ''b:1''', 'after => ''b:3'', start_key => ''b:1'', end_key => ''b:3'', reverse => true',
    'page_size => 1', 'page_size => 2', 'page_size => 2, reverse => true', 'page_size => 100', 'page_size => 9223372036854775807', 'page_size => 2, after => ''b:1''', 'page_size => NULL, after => NULL, start_key => NULL, end_key => NULL, reverse => NULL, keys_only => NULL',
    'start_key => ''''', 'after => ''''', 'end_key => ''''']) options;
SELECT options, pg_temp.list(kv_key('a'), options) FROM unnest(ARRAY[
    'start_key => kv_key(''a'', 1)', 'start_key => kv_key(''a'', 2)', 'end_key => kv_key(''a'', 2)', 'after => kv_key(''a'', 1)', 'after => kv_key(''a'', 2)', 'after => kv_key(''a'', 2), reverse => true',
    'after => kv_key(''a'', 2, ''x''), reverse => true', 'after => kv_key(''a'')', 'after => kv_key(''a''), reverse => true', 'after => kv_key(''b'')', 'start_key => kv_key(''a'', ''c'')', 'page_size => 1, reverse => true',
    'start_key => kv_key(1)', 'end_key => kv_key(1)']) options;
-- A bound is not a prefix: after a path come the paths under it.
SELECT pg_temp.list(kv_key(), 'after => kv_key(''a''), page_size => 3');
SELECT pg_temp.list(kv_key(), 'start_key => kv_key(''a''), end_key => kv_key(''b'')');

SELECT expression, outcome(expression) FROM unnest(ARRAY[
    $$(SELECT count(*) FROM kv_list(NULL::text, store => 'li'))$$, $$(SELECT count(*) FROM kv_list(NULL::kvkey, store => 'li'))$$, $$kv_count(NULL::text, 'li')$$, $$kv_count(NULL::kvkey, 'li')$$,
    $$(SELECT count(*) FROM kv_list('', page_size => 0, store => 'li'))$$, $$(SELECT count(*) FROM kv_list(kv_key(), page_size => -1, store => 'li'))$$,
    $$(SELECT count(*) FROM kv_list(kv_key(), after => kv_key(), store => 'li'))$$, $$(SELECT count(*) FROM kv_list(kv_key(), start_key => kv_key(), store => 'li'))$$,
    $$(SELECT count(*) FROM kv_list('', store => NULL))$$, $$kv_count('', NULL)$$, $$(SELECT count(*) FROM kv_list('', after => repeat('x', 2047), store => 'li'))$$, $$kv_count(repeat('x', 2047), 'li')$$,
    $$kv_count(repeat('x', 2046), 'li')$$, $$(SELECT count(*) FROM kv_list(repeat('x', 2046), after => repeat('x', 2046), store => 'li'))$$]) expression;

-- The longest key has a place of its own in every range.
SELECT kv_set(repeat('x', 2046), '1', store => 'li') > 0, kv_set(kv_key(VARIADIC array_fill(true, ARRAY[2048])), '1', store => 'li') > 0;
SELECT length(pg_temp.list('x')), length(pg_temp.list(repeat('x', 2046))), length(pg_temp.list('', $$start_key => repeat('x', 2046), end_key => 'y'$$)), pg_temp.list('x', $$after => repeat('x', 2046)$$) AS after;
SELECT kv_count(kv_key(VARIADIC array_fill(true, ARRAY[2047])), 'li') AS under_2047, kv_count(kv_key(VARIADIC array_fill(true, ARRAY[2048])), 'li') AS under_2048;

-- Pages: all of it, once, in order, from both ends, whatever is written or deleted behind.
SELECT count(kv_set('page' || i, to_jsonb(i), store => 'li')) FROM generate_series(1, 1000) i;
CREATE FUNCTION pg_temp.pages(reverse boolean, size bigint) RETURNS TABLE (pages bigint, entries bigint, wrong bigint) LANGUAGE plpgsql AS $$
DECLARE
    last text;
    page text[];
    seen text[] := '{}';
BEGIN
    pages := 0;
    LOOP
        SELECT array_agg(l.key ORDER BY ordinality) INTO page FROM kv_list('page', after => last, page_size => size, reverse => pages.reverse, store => 'li') WITH ORDINALITY l;
        EXIT WHEN page IS NULL;
        pages := pages + 1;
        seen := seen || page;
        last := page[cardinality(page)];
    END LOOP;
    entries := cardinality(seen);
    SELECT count(*) INTO wrong FROM (SELECT u.k, row_number() OVER (ORDER BY CASE WHEN pages.reverse THEN NULL ELSE k END COLLATE "C", k COLLATE "C" DESC) AS place, u.ordinality
        FROM unnest(seen) WITH ORDINALITY u(k)) s WHERE place <> ordinality;
    RETURN NEXT;
END $$;
SELECT size, reverse, p.* FROM unnest(ARRAY[1, 7, 100, 999, 1000, 1001]) size, unnest(ARRAY[false, true]) reverse, pg_temp.pages(reverse, size) p ORDER BY 2, 1;

-- A text list steps over a large family without reading it: the number of pages touched tells.
SELECT count(kv_set(kv_key('page5', 'child', i), 'null', store => 'li')) FROM generate_series(1, 20000) i;
VACUUM ANALYZE kvstore.s_li;
SELECT kv_count('page5', 'li') AS plain_strings, kv_count(kv_key('page5'), 'li') AS children;
CREATE FUNCTION pg_temp.blocks(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT json) ' || query INTO plan;
    RETURN (plan #>> '{0,Plan,Shared Hit Blocks}')::bigint + (plan #>> '{0,Plan,Shared Read Blocks}')::bigint;
END $$;
SELECT pg_temp.blocks($$SELECT kv_count('page5', 'li')$$) < 300 AS text_steps_over, pg_temp.blocks($$SELECT kv_count(kv_key('page5'), 'li')$$) > 300 AS path_reads_them,
       pg_temp.blocks($$SELECT * FROM kv_list('page5', reverse => true, store => 'li')$$) < 300 AS backwards_too;
SELECT kv_drop_store('li');

--
-- Random keys of every kind of part, and random options, against sorting and filtering in plain SQL
--

SELECT kv_create_store('ra');
CREATE FUNCTION pg_temp.rnd(seed text, n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT (('x' || substr(md5(seed), 1, 7))::bit(28)::int % n) $$;
CREATE FUNCTION pg_temp.part(seed text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE pg_temp.rnd('t' || seed, 14)
        WHEN 0 THEN jsonb_build_object('bytes', encode(substr('\x00ff61'::bytea, 1, pg_temp.rnd('b' || seed, 4)), 'base64'))
        WHEN 1 THEN jsonb_build_object('utf8', encode(convert_to('a', 'UTF8') || '\x00' || convert_to(substr('bc', 1, pg_temp.rnd('u' || seed, 3)), 'UTF8'), 'base64'))
        WHEN 2 THEN jsonb_build_object('bigint', (pg_temp.rnd('i' || seed, 5) - 2)::text)
        WHEN 3 THEN to_jsonb(pg_temp.rnd('n' || seed, 7) - 3)
        WHEN 4 THEN to_jsonb(pg_temp.rnd('n' || seed, 7) / 4.0)
        WHEN 5 THEN to_jsonb(pg_temp.rnd('f' || seed, 2) = 0)
        ELSE to_jsonb(substr('abaé😀ab', 1 + pg_temp.rnd('s' || seed, 5), pg_temp.rnd('l' || seed, 4))) END
$$;
CREATE FUNCTION pg_temp.path(seed text) RETURNS kvkey LANGUAGE sql IMMUTABLE AS $$
    SELECT kv_key(VARIADIC array_agg(pg_temp.part(seed || p) ORDER BY p)) FROM generate_series(1, 1 + pg_temp.rnd('d' || seed, 4)) p
$$;
-- Every tenth has expired.
CREATE TEMP TABLE expected AS
    SELECT key, key::bytea AS bytes, i, i % 10 = 0 AS expired, CASE WHEN jsonb_array_length(key::jsonb) = 1 AND jsonb_typeof(key::jsonb -> 0) = 'string' THEN key::jsonb ->> 0 END AS string
    FROM (SELECT DISTINCT ON (key) key, i FROM (SELECT i, pg_temp.path('k' || i) AS key FROM generate_series(1, 6000) i) s ORDER BY key, i) d;
SELECT count(*) > 3000 AS many, count(string) > 15 AS strings, count(*) FILTER (WHERE expired) > 200 AS expired FROM expected;
SELECT count(kv_set(key, to_jsonb(i), expires_at => CASE WHEN expired THEN '2000-01-01' WHEN i % 3 = 0 THEN '9000-01-01'::timestamptz END, store => 'ra')) > 3000 AS set FROM expected;

-- What plain SQL says: keys as bytes.  A prefix of whole parts is a prefix of bytes that ends where a part ends.
CREATE FUNCTION pg_temp.plain(text_form boolean, prefix text, prefix_path kvkey, start_key bytea, end_key bytea, after bytea, page_size bigint, reverse boolean) RETURNS bigint[] LANGUAGE sql AS $$
    SELECT array_agg(i) FROM (SELECT i FROM (SELECT e.i, e.bytes FROM expected e
        WHERE NOT e.expired
          AND CASE WHEN text_form THEN e.string IS NOT NULL AND starts_with(e.string, prefix)
              ELSE (SELECT count(*) > jsonb_array_length(prefix_path::jsonb) AND coalesce(bool_and(CASE WHEN ordinality <= jsonb_array_length(prefix_path::jsonb) THEN part = prefix_path::jsonb -> (ordinality - 1)::int END), true)
                    FROM jsonb_array_elements(e.key::jsonb) WITH ORDINALITY p(part)) END
          AND (start_key IS NULL OR e.bytes >= start_key) AND (end_key IS NULL OR e.bytes < end_key)
          AND (after IS NULL OR CASE WHEN reverse THEN e.bytes < after ELSE e.bytes > after END)) s
        ORDER BY CASE WHEN reverse THEN NULL ELSE bytes END, bytes DESC LIMIT page_size) l
$$;
CREATE FUNCTION pg_temp.bytes(part text) RETURNS bytea LANGUAGE sql AS $$ SELECT CASE WHEN part IS NOT NULL THEN kv_key(part)::bytea END $$;

-- One choice of options, drawn by its number: what kv_list() gives, what it should give.
CREATE FUNCTION pg_temp.round(n int, OUT options text, OUT got bigint[], OUT wanted bigint[], OUT keys_right boolean, OUT count_right boolean) LANGUAGE plpgsql AS $$
DECLARE
    size bigint := CASE WHEN pg_temp.rnd('size' || n, 2) = 0 THEN 1 + pg_temp.rnd('s' || n, 40) END;
    backward boolean := pg_temp.rnd('rev' || n, 2) = 0;
    only_keys boolean := pg_temp.rnd('only' || n, 4) = 0;
    prefix text := CASE WHEN pg_temp.rnd('p0' || n, 3) = 0 THEN '' ELSE substr('abaé😀ab', 1 + pg_temp.rnd('p' || n, 5), pg_temp.rnd('pl' || n, 3)) END;
    low text := CASE WHEN pg_temp.rnd('st' || n, 3) = 0 THEN substr('abaé😀ab', 1 + pg_temp.rnd('st1' || n, 5), pg_temp.rnd('st2' || n, 4)) END;
    high text := CASE WHEN pg_temp.rnd('en' || n, 3) = 0 THEN substr('bé😀abb', 1 + pg_temp.rnd('en1' || n, 5), pg_temp.rnd('en2' || n, 4)) END;
    last text := CASE WHEN pg_temp.rnd('af' || n, 3) = 0 THEN substr('abaé😀ab', 1 + pg_temp.rnd('af1' || n, 5), pg_temp.rnd('af2' || n, 4)) END;
    prefix_path kvkey := CASE WHEN pg_temp.rnd('pp' || n, 3) = 0 THEN kv_key()
        ELSE kv_key(VARIADIC ARRAY(SELECT pg_temp.part('k' || pg_temp.rnd('pk' || n, 6000) || p) FROM generate_series(1, 1 + pg_temp.rnd('pn' || n, 5) / 4) p)) END;
    low_path kvkey := CASE WHEN pg_temp.rnd('sp' || n, 3) = 0 THEN pg_temp.path('k' || pg_temp.rnd('spk' || n, 6000)) END;
    high_path kvkey := CASE WHEN pg_temp.rnd('ep' || n, 3) = 0 THEN pg_temp.path('k' || pg_temp.rnd('epk' || n, 6000)) END;
    last_path kvkey := CASE WHEN pg_temp.rnd('ap' || n, 3) = 0 THEN pg_temp.path('k' || pg_temp.rnd('apk' || n, 6000)) END;
BEGIN
    IF n % 2 = 0 THEN
        options := concat_ws(' ', 'text', prefix, low, high, last, size, backward, only_keys);
        wanted := pg_temp.plain(true, prefix, NULL, pg_temp.bytes(low), pg_temp.bytes(high), pg_temp.bytes(last), size, backward);
        SELECT array_agg(e.i ORDER BY l.ordinality), coalesce(bool_and(e.i IS NOT NULL AND l.versionstamp > 0 AND l.kind = 'json' AND l.bytes IS NULL AND l.value IS NOT DISTINCT FROM CASE WHEN NOT only_keys THEN to_jsonb(e.i) END), true)
            INTO got, keys_right
            FROM kv_list(prefix, low, high, last, size, backward, only_keys, 'ra') WITH ORDINALITY l LEFT JOIN expected e ON e.string = l.key;
        count_right := kv_count(prefix, 'ra') = coalesce(cardinality(pg_temp.plain(true, prefix, NULL, NULL, NULL, NULL, NULL, false)), 0);
    ELSE
        options := concat_ws(' ', 'path', prefix_path, low_path, high_path, last_path, size, backward, only_keys);
        wanted := pg_temp.plain(false, NULL, prefix_path, low_path::bytea, high_path::bytea, last_path::bytea, size, backward);
        SELECT array_agg(e.i ORDER BY l.ordinality), coalesce(bool_and(e.i IS NOT NULL AND l.versionstamp > 0 AND l.kind = 'json' AND l.bytes IS NULL AND l.value IS NOT DISTINCT FROM CASE WHEN NOT only_keys THEN to_jsonb(e.i) END), true)
            INTO got, keys_right
            FROM kv_list(prefix_path, low_path, high_path, last_path, size, backward, only_keys, 'ra') WITH ORDINALITY l LEFT JOIN expected e ON e.key = l.key::kvkey;
        count_right := kv_count(prefix_path, 'ra') = coalesce(cardinality(pg_temp.plain(false, NULL, prefix_path, NULL, NULL, NULL, NULL, false)), 0);
    END IF;
END $$;
CREATE TEMP TABLE rounds AS SELECT n, r.* FROM generate_series(1, 300) n, pg_temp.round(n) r;
-- No row is expected here.
SELECT * FROM rounds WHERE got IS DISTINCT FROM wanted OR NOT keys_right OR NOT count_right;
SELECT count(*) AS rounds, count(*) FILTER (WHERE wanted IS NULL) > 20 AS many_empty, count(*) FILTER (WHERE cardinality(wanted) BETWEEN 2 AND 40) > 20 AS many_short, count(*) FILTER (WHERE cardinality(wanted) > 40) > 20 AS many_long FROM rounds;
SELECT kv_count(kv_key(), 'ra') = count(*) FILTER (WHERE NOT expired) AS counted_all, kv_count('', 'ra') = count(string) FILTER (WHERE NOT expired) AS counted_strings FROM expected;

-- With row-level security the executor reads instead, with the same results (14_rights tests the policies).
ALTER TABLE kvstore.s_ra ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE ROLE regress_kvs_list;
GRANT SELECT ON kvstore.s_ra TO regress_kvs_list;
GRANT SELECT ON expected TO regress_kvs_list;
CREATE POLICY everything ON kvstore.s_ra USING (true);
SET ROLE regress_kvs_list;
SELECT count(*) FROM generate_series(301, 400) n, pg_temp.round(n) r WHERE got IS DISTINCT FROM wanted OR NOT keys_right OR NOT count_right;
RESET ROLE;
DROP OWNED BY regress_kvs_list;
DROP ROLE regress_kvs_list;
SELECT kv_drop_store('ra');
