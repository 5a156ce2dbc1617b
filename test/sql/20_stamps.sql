-- Versionstamps that were not given here: which ones count, and what a write does that meets one.
-- kvs: also without preload
\pset format unaligned
\pset fieldsep ' | '

-- A database of its own: some of these numbers are here to stay.
CREATE DATABASE kvs_stamps TEMPLATE template0 ENCODING 'UTF8';
\c kvs_stamps
SET client_min_messages = warning;
CREATE ROLE regress_kvs_stamps;
CREATE EXTENSION kvstore;
GRANT CREATE ON SCHEMA kvstore TO regress_kvs_stamps;
RESET client_min_messages;

CREATE FUNCTION outcome(expression text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    state text;
    message text;
    hint text;
BEGIN
    EXECUTE 'SELECT (' || expression || ')::text' INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', state, message, nullif(hint, ''));
END $$;
CREATE FUNCTION stamp(key text, store text DEFAULT 'high') RETURNS bigint LANGUAGE sql AS $$ SELECT versionstamp FROM kv_entry($1, $2) $$;
CREATE FUNCTION last() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT last_value FROM kvstore.versionstamp $$;

SET ROLE regress_kvs_stamps;
SELECT kv_create_store('high'), kv_create_store('victim');
SELECT kv_set('v', '1', store => 'victim') > 0 AS set;
RESET ROLE;

-- As a dump of the table alone is restored: the rows come before the triggers.
CREATE FUNCTION plant(key text, stamp bigint, value jsonb DEFAULT '1', expires_at timestamptz DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    ALTER TABLE kvstore.s_high DISABLE TRIGGER ALL;
    INSERT INTO kvstore.s_high VALUES (kv_key(plant.key), plant.value, NULL, 'j', plant.stamp, plant.expires_at)
        ON CONFLICT ON CONSTRAINT s_high_pkey DO UPDATE SET versionstamp = EXCLUDED.versionstamp, value = EXCLUDED.value, expires_at = EXCLUDED.expires_at;
    ALTER TABLE kvstore.s_high ENABLE ALWAYS TRIGGER kvstore_guard;
    ALTER TABLE kvstore.s_high ENABLE ALWAYS TRIGGER kvstore_guard_after;
    ALTER TABLE kvstore.s_high ENABLE ALWAYS TRIGGER kvstore_guard_truncate;
END $$;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'kvstore.s_high'::regclass ORDER BY 1;

--
-- Every function that writes, over a row with a high number: one that a server can have given, and one that none can
--

CREATE TABLE numbers (name text, expression text);
INSERT INTO numbers VALUES ('plausible', 'last() + 1000000000'), ('2^62', '4611686018427387904');
CREATE TABLE writes (write text, expression text, plus int);
INSERT INTO writes VALUES
    ('set', $$kv_set('k', '2', store => 'high')$$, 1),
    ('set with ttl', $$kv_set('k', '2', ttl => '1 hour', store => 'high')$$, 1),
    ('set that keeps', $$kv_set('k', '2', keep_ttl => true, store => 'high')$$, 1),
    ('set if_version', $$kv_set('k', '2', if_version => stamp('k'), store => 'high')$$, 1),
    ('set_bytes', $$kv_set_bytes('k', '\x01', store => 'high')$$, 1),
    ('set_many, one new before', $$kv_set_many(ARRAY['a' || gen_random_uuid(), 'k'], ARRAY[jsonb '1', '2'], store => 'high')$$, 1),
    ('set_many, one new behind', $$kv_set_many(ARRAY['k', 'z' || gen_random_uuid()], ARRAY[jsonb '1', '2'], store => 'high')$$, 1),
    ('set_many', $$kv_set_many('{k}', ARRAY[jsonb '1'], store => 'high')$$, 1),
    ('import', $$kv_import('{"k": {"value": 2}}', 'high')$$, 1),
    ('expire', $$kv_expire('k', '1 hour', store => 'high')$$, 0),
    ('atomic set', $$(SELECT versionstamp FROM kv_atomic(format('[{"set": {"key": "a%s", "value": 1}}, {"set": {"key": "k", "value": 2}}]', gen_random_uuid())::jsonb, 'high'))$$, 1),
    ('atomic sum', $$(SELECT versionstamp FROM kv_atomic(format('[{"sum": {"key": "k", "value": 1}}, {"set": {"key": "z%s", "value": 2}}]', gen_random_uuid())::jsonb, 'high'))$$, 1),
    ('atomic check, set', $$(SELECT versionstamp FROM kv_atomic(jsonb_build_array(jsonb_build_object('check', jsonb_build_object('key', 'k', 'versionstamp', stamp('k')::text)), '{"set": {"key": "k", "value": 2}}'::jsonb), 'high'))$$, 1),
    ('atomic delete, set', $$(SELECT versionstamp FROM kv_atomic('[{"delete": {"key": "k"}}, {"set": {"key": "k", "value": 2}}]', 'high'))$$, 1),
    ('incr', $$kv_incr('k', store => 'high')$$, 1),
    ('check', $$kv_check('k', stamp('k'), 'high')$$, 0);

-- What is not as it should be; no row is expected.
CREATE FUNCTION try_writes(setup text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    n record;
    w record;
    high bigint;
    before bigint;
    given text;
BEGIN
    EXECUTE setup;
    FOR n IN SELECT * FROM numbers LOOP
        FOR w IN SELECT * FROM writes LOOP
            EXECUTE 'SELECT ' || n.expression INTO high;
            PERFORM plant('k', high);
            before := last();
            given := outcome(w.expression);
            IF stamp('k') IS DISTINCT FROM high + w.plus THEN
                RETURN NEXT format('%s, %s, %s: %s instead of %s', setup, n.name, w.write, stamp('k'), high + w.plus);
            END IF;
            IF w.plus > 0 AND w.write NOT IN ('incr', 'import') AND given IS DISTINCT FROM stamp('k')::text THEN
                RETURN NEXT format('%s, %s, %s: gave %s', setup, n.name, w.write, given);
            END IF;
            IF last() > before + 10 THEN
                RETURN NEXT format('%s, %s, %s: the sequence has moved', setup, n.name, w.write);
            END IF;
            -- once more, over what that has left
            before := stamp('k');
            IF w.plus > 0 AND (kv_set('k', '3', store => 'high') <> before + 1 OR kv_set('new' || before, '1', store => 'high') > last()) THEN
                RETURN NEXT format('%s, %s, %s: then %s', setup, n.name, w.write, stamp('k'));
            END IF;
        END LOOP;
    END LOOP;
END $$;
SELECT * FROM try_writes('SELECT 1');
-- an index of the owner's: everything by the executor, nothing the short way
SELECT * FROM try_writes('CREATE INDEX high_kind ON kvstore.s_high (kind)');
DROP INDEX kvstore.high_kind;

-- An entry that has expired is absent, and has its number all the same.
SELECT plant('old', 900000000000, expires_at => '2001-01-01');
SELECT kv_set('old', '1', if_version => 0, store => 'high');
SELECT plant('old', 900000000000, expires_at => '2001-01-01');
SELECT ok, versionstamp FROM kv_atomic('[{"check": {"key": "old", "versionstamp": 0}}, {"set": {"key": "old", "value": 1}}]', 'high');

-- Many at once get one number, above the highest.
SELECT plant('m' || i, 4000000000000000 + i * 1000) FROM generate_series(1, 3) i;
SELECT kv_set_many('{m3,m1,m2,m4}', ARRAY[jsonb '1', '1', '1', '1'], store => 'high');
SELECT key, versionstamp FROM kv_list('m', store => 'high');
SELECT plant('m' || i, 5000000000000000 + i * 1000) FROM generate_series(1, 3) i;
SELECT versionstamp FROM kv_atomic('[{"set": {"key": "m0", "value": 1}}, {"sum": {"key": "m1", "value": 1}}, {"set": {"key": "m3", "value": 1}}, {"set": {"key": "m5", "value": 1}}, {"delete": {"key": "m2"}}]', 'high');
SELECT key, versionstamp FROM kv_list('m', store => 'high');

--
-- The highest number that there is harms its key alone
--

SELECT plant('top', 9223372036854775807);
SELECT expression, outcome(expression) FROM unnest(ARRAY[$$kv_set('top', '2', store => 'high')$$, $$kv_set_many('{m1,top}', ARRAY[jsonb '1', '2'], store => 'high')$$, $$kv_incr('top', store => 'high')$$, $$kv_import('{"top": {"value": 1}}', 'high')$$,
    $$(SELECT versionstamp FROM kv_atomic('[{"set": {"key": "top", "value": 2}}]', 'high'))$$, $$kv_expire('top', '1 hour', store => 'high')$$, $$kv_get('top', 'high')$$, $$kv_check('top', 9223372036854775807, 'high')$$,
    $$kv_set('neighbour', '2', store => 'high') < 1000000000000$$]) expression;
SELECT outcome($$kv_take('top', 'high')$$), kv_exists('top', 'high'), kv_set('neighbour', '3', store => 'high') < 1000000000000 AS works;
SELECT plant('top', 9223372036854775807), kv_delete_prefix('to', 'high'), kv_set('neighbour', '4', store => 'high') < 1000000000000 AS works;
SELECT plant('top', 9223372036854775807);
SET ROLE regress_kvs_stamps;
UPDATE kvstore.s_high SET value = '2' WHERE key = kv_key('top');
DELETE FROM kvstore.s_high WHERE key = kv_key('top');
RESET ROLE;

--
-- Deletion and re-creation: no key goes back.  A plausible number moves the sequence; one that is not is remembered (with preload)
--

CREATE TABLE deletions (deletion text, expression text);
INSERT INTO deletions VALUES
    ('delete', $$kv_delete('d', store => 'high')$$), ('take', $$kv_take('d', 'high')$$), ('if_version', $$kv_delete('d', stamp('d'), store => 'high')$$), ('many', $$kv_delete_many('{d}', 'high')$$),
    ('prefix', $$kv_delete_prefix('d', 'high')$$), ('clear', $$kv_clear('high')$$), ('atomic', $$(SELECT ok FROM kv_atomic('[{"delete": {"key": "d"}}]', 'high'))$$), ('by hand', 'DELETE FROM kvstore.s_high'),
    ('renamed', $$UPDATE kvstore.s_high SET key = kv_key('e') WHERE key = kv_key('d')$$), ('swept', $$kv_expire('d', '0', store => 'high'), kv_sweep()$$);
CREATE FUNCTION try_deletions(setup text, number text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    d record;
    high bigint;
BEGIN
    EXECUTE setup;
    FOR d IN SELECT * FROM deletions LOOP
        EXECUTE 'SELECT ' || number INTO high;
        PERFORM kv_clear('high'), plant('d', high);
        EXECUTE CASE WHEN d.expression ~ '^(DELETE|UPDATE)' THEN '' ELSE 'SELECT ' END || d.expression;
        IF kv_exists('d', 'high') THEN
            RETURN NEXT format('%s, %s: not deleted', setup, d.deletion);
        END IF;
        IF kv_set('d', '1', store => 'high') <= high THEN
            RETURN NEXT format('%s, %s: %s after %s', setup, d.deletion, stamp('d'), high);
        END IF;
    END LOOP;
END $$;
SELECT * FROM try_deletions('SELECT 1', 'last() + 1000000000');
SELECT * FROM try_deletions('CREATE INDEX high_kind ON kvstore.s_high (kind)', 'last() + 1000000000');
DROP INDEX kvstore.high_kind;
SET client_min_messages = error;
SELECT t.* FROM try_deletions('SELECT 1', '4611686018427387904') t WHERE kvstore.shared_since() IS NOT NULL;
RESET client_min_messages;
SELECT kv_set('v', '2', store => 'victim') BETWEEN 10000000000 AND 1000000000000 AS not_lifted_further, kv_set('fresh', '2', store => 'high') < 1000000000000 AS nor_its_neighbours;
SELECT kv_clear('high') > 0 AS cleared;

--
-- What a row may bring
--

SET ROLE regress_kvs_stamps;
-- A plain owner: what a server can have given by now.
SELECT last() + 5000000000 AS high \gset
INSERT INTO kvstore.s_high (key, value, versionstamp) VALUES (kv_key('a'), '1', :high);
SELECT stamp('a') = :high AS kept, kv_set('v', '3', store => 'victim') > :high AS next_is_above;
-- A higher one is replaced, with one WARNING for a table and a transaction, however many there are.
COPY kvstore.s_high FROM stdin;
["b"]	1	\N	j	4611686018427387904	\N
["c"]	1	\N	j	9223372036854775807	\N
["d"]	1	\N	j	4503599627370495	\N
["e"]	1	\N	j	17	\N
\.
SELECT key, versionstamp < 1000000000000 AS sane, versionstamp = 17 AS kept FROM kv_list('', store => 'high');
UPDATE kvstore.s_high SET versionstamp = 4611686018427387904 WHERE key = kv_key('e');
SELECT stamp('e') BETWEEN 18 AND 1000000000000 AS sane;
SELECT kv_set('v', '3', store => 'victim') < 1000000000000 AS not_lifted;
-- However often.
DO $$
BEGIN
    FOR i IN 1..20 LOOP
        INSERT INTO kvstore.s_high (key, value, versionstamp) SELECT kv_key('again', i), '1', last_value + (1::bigint << 53) FROM pg_sequences WHERE sequencename = 'versionstamp';
        COMMIT;
    END LOOP;
END $$;
SELECT kv_set('v', '3', store => 'victim') < 1000000000000 AS not_lifted;
INSERT INTO kvstore.s_high (key, value, versionstamp) VALUES (kv_key('zero'), '1', 0);
INSERT INTO kvstore.s_high (key, value, versionstamp) VALUES (kv_key('negative'), '1', -1);
RESET ROLE;

-- What is found in a table: plausible numbers move the sequence, others are told of.
SELECT last() + 5000000000 AS high \gset
SELECT plant('found', :high), plant('p1', 4611686018427387904), plant('p2', 9223372036854775807);
SELECT kv_maintain();
SELECT kv_set('v', '4', store => 'victim') BETWEEN :high AND 1000000000000 AS above_what_counts;
SELECT stamp('p1'), stamp('p2');
SELECT kv_delete_many('{p1,p2}', 'high');
SELECT kv_maintain();

-- A superuser: any below 2^52.
INSERT INTO kvstore.s_high (key, value, versionstamp) VALUES (kv_key('super'), '1', 2251799813685248), (kv_key('beyond'), '1', 4503599627370496);
SELECT stamp('super'), stamp('beyond') BETWEEN 2251799813685249 AND 2252000000000000 AS replaced, kv_set('v', '5', store => 'victim') BETWEEN 2251799813685249 AND 2252000000000000 AS next_is_above;
-- What was given counts, for everybody.
SET ROLE regress_kvs_stamps;
INSERT INTO kvstore.s_high (key, value, versionstamp) SELECT kv_key('given'), '1', stamp('v', 'victim');
SELECT stamp('given') = stamp('v', 'victim') AS kept;
RESET ROLE;

--
-- The sequence must be as it was made
--

SELECT kv_set('s', '1', store => 'victim') AS before \gset
CREATE FUNCTION tried(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE 'ALTER SEQUENCE kvstore.versionstamp ' || change;
    result := outcome($q$kv_set('s', '1', store => 'victim') > 0$q$);
    ALTER SEQUENCE kvstore.versionstamp AS bigint INCREMENT 1 MINVALUE 1 NO MAXVALUE CACHE 1 NO CYCLE;
    RETURN result;
END $$;
SELECT change, tried(change) FROM unnest(ARRAY['CACHE 50', 'CYCLE', 'INCREMENT 2', 'INCREMENT -1', 'MINVALUE -5', 'MAXVALUE 4503599627370496', 'START 5', 'OWNED BY NONE']) change;
ALTER SEQUENCE kvstore.versionstamp CACHE 50;
SELECT outcome($$kv_set('s', '1', store => 'victim')$$), outcome($$kv_delete('s', store => 'victim')$$), kv_get('s', 'victim'), outcome($$kv_set_many('{s}', ARRAY[jsonb '1'], store => 'victim')$$);
SELECT nextval('kvstore.versionstamp') > 0 AS taken_with_it;
ALTER SEQUENCE kvstore.versionstamp CACHE 1;
SELECT kv_set('s', '1', store => 'victim') > :before AS works_again;
ALTER SEQUENCE kvstore.versionstamp SET UNLOGGED;
SELECT outcome($$kv_set('s', '1', store => 'victim')$$);
ALTER SEQUENCE kvstore.versionstamp SET LOGGED;
SELECT kv_set('s', '1', store => 'victim') > :before AS works_again;
-- Set back, it goes above what was given (with preload).
SELECT setval('kvstore.versionstamp', 7);
SELECT kv_set('s', '1', store => 'victim') > :before AS key_grows, kv_set('new', '1', store => 'victim') > :before OR kvstore.shared_since() IS NULL AS all_grow;
ALTER SEQUENCE kvstore.versionstamp RESTART;
SELECT kv_set('s', '1', store => 'victim') > :before AS key_grows, kv_set('newer', '1', store => 'victim') > :before OR kvstore.shared_since() IS NULL AS all_grow;

\c contrib_regression
SET client_min_messages = warning;
DROP DATABASE kvs_stamps;
DROP ROLE regress_kvs_stamps;
