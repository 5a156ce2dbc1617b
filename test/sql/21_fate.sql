-- What triggers, policies and rules of an owner's do to what a function wants to write: each function that writes, times each kind of them.  What the
-- function says, what is in the store afterwards, and that followers have been told just that.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '
SET client_min_messages = warning;
CREATE ROLE regress_kvs_fate;
SELECT kv_create_store('fa');
CREATE TABLE fa_moved (key kvkey, value jsonb);
CREATE TABLE fa_before (key text PRIMARY KEY, value jsonb, versionstamp bigint);
CREATE TABLE fa_result (kind text, name text, says text, store text, followers text, place serial);
GRANT SELECT, INSERT, UPDATE, DELETE ON kvstore.s_fa TO regress_kvs_fate;
GRANT INSERT ON fa_moved TO regress_kvs_fate;

--
-- The kinds.  Triggers look at the entries "k", "m" and "new" alone; the entries "a" and "other" have nothing to do with them.
--

CREATE FUNCTION fa_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    key kvkey := CASE WHEN TG_OP = 'DELETE' THEN OLD.key ELSE NEW.key END;
BEGIN
    IF key NOT IN (kv_key('k'), kv_key('m'), kv_key('new')) THEN
        RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    CASE TG_ARGV[0]
        WHEN 'skips' THEN
            RETURN NULL;
        WHEN 'moves' THEN
            INSERT INTO fa_moved VALUES (key, CASE WHEN TG_OP = 'DELETE' THEN OLD.value ELSE NEW.value END);
            RETURN NULL;
        WHEN 'raises' THEN
            RAISE EXCEPTION 'no' USING ERRCODE = '23514';
        WHEN 'rewrites' THEN
            NEW.value := CASE WHEN NEW.kind <> 'b' THEN '77'::jsonb END;
            NEW.bytes := CASE WHEN NEW.kind = 'b' THEN '\x77'::bytea END;
            NEW.expires_at := '2100-01-01';
        WHEN 'changes the key' THEN
            NEW.key := kv_key('changed');
        WHEN 'changes the kind' THEN
            NEW.kind := 'b'; NEW.value := NULL; NEW.bytes := '\x77';
        WHEN 'changes the number' THEN
            NEW.versionstamp := NEW.versionstamp + 1000;
        WHEN 'breaks the value' THEN
            NEW.value := NULL; NEW.bytes := NULL;
        WHEN 'writes the entry itself' THEN
            IF pg_trigger_depth() = 1 THEN
                PERFORM kv_set(key, '88', store => 'fa');
            END IF;
        WHEN 'writes another entry' THEN
            IF pg_trigger_depth() = 1 THEN
                PERFORM kv_set('nested', '88', store => 'fa'), kv_take('other', 'fa');
            END IF;
        WHEN 'looks' THEN
            NULL;
    END CASE;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE FUNCTION fa_trigger_sql(what text, event text) RETURNS text LANGUAGE sql AS $$
    SELECT format('CREATE TRIGGER %I BEFORE %s ON kvstore.s_fa FOR EACH ROW EXECUTE FUNCTION fa_trigger(%L)', what, event, what) $$;
CREATE FUNCTION fa_policy_sql(VARIADIC policies text[]) RETURNS text LANGUAGE sql AS $$
    SELECT 'ALTER TABLE kvstore.s_fa ENABLE ROW LEVEL SECURITY; ' || string_agg(format('CREATE POLICY p%s ON kvstore.s_fa %s', i, policy), '; ') FROM unnest(policies) WITH ORDINALITY p(policy, i) $$;
CREATE TABLE fa_kind (place serial, kind text, made text);
INSERT INTO fa_kind (kind, made) VALUES
    ('nothing', NULL),
    ('looks at everything', fa_trigger_sql('looks', 'INSERT OR UPDATE OR DELETE')),
    ('skips an INSERT', fa_trigger_sql('skips', 'INSERT')), ('skips an UPDATE', fa_trigger_sql('skips', 'UPDATE')), ('skips a DELETE', fa_trigger_sql('skips', 'DELETE')),
    ('moves the row', fa_trigger_sql('moves', 'INSERT OR UPDATE OR DELETE')), ('raises', fa_trigger_sql('raises', 'INSERT OR UPDATE OR DELETE')),
    ('rewrites value and expiry', fa_trigger_sql('rewrites', 'INSERT OR UPDATE')), ('rewrites at UPDATE', fa_trigger_sql('rewrites', 'UPDATE')),
    ('changes the key', fa_trigger_sql('changes the key', 'INSERT OR UPDATE')), ('changes the kind', fa_trigger_sql('changes the kind', 'INSERT OR UPDATE')),
    ('changes the number', fa_trigger_sql('changes the number', 'INSERT OR UPDATE')), ('changes the number at UPDATE', fa_trigger_sql('changes the number', 'UPDATE')),
    ('breaks the value', fa_trigger_sql('breaks the value', 'INSERT OR UPDATE')),
    ('writes the entry itself', fa_trigger_sql('writes the entry itself', 'INSERT OR UPDATE OR DELETE')),
    ('writes another entry', fa_trigger_sql('writes another entry', 'INSERT OR UPDATE OR DELETE')),
    ('policies hide', fa_policy_sql($$USING (key NOT IN (kv_key('k'), kv_key('m'))) WITH CHECK (true)$$)),
    ('policies show and protect', fa_policy_sql('FOR SELECT USING (true)', 'FOR INSERT WITH CHECK (true)', $$FOR UPDATE USING (key NOT IN (kv_key('k'), kv_key('m')))$$, $$FOR DELETE USING (key NOT IN (kv_key('k'), kv_key('m')))$$)),
    ('policies keep from deleting', fa_policy_sql('USING (true)', $$AS RESTRICTIVE FOR DELETE USING (key NOT IN (kv_key('k'), kv_key('m')))$$)),
    ('policies refuse the new row', fa_policy_sql('USING (true)', $$AS RESTRICTIVE FOR INSERT WITH CHECK (value IS DISTINCT FROM '5')$$, $$AS RESTRICTIVE FOR UPDATE USING (true) WITH CHECK (value IS DISTINCT FROM '5')$$)),
    ('policies bind the owner', 'ALTER TABLE kvstore.s_fa OWNER TO regress_kvs_fate; ALTER TABLE kvstore.s_fa FORCE ROW LEVEL SECURITY; ' || fa_policy_sql('FOR SELECT USING (true)', 'FOR INSERT WITH CHECK (true)')),
    ('policies by value', fa_policy_sql($$USING (value <> '1') WITH CHECK (true)$$)),
    ('no policy', 'ALTER TABLE kvstore.s_fa ENABLE ROW LEVEL SECURITY'),
    ('a rule', 'CREATE RULE fa_rule AS ON UPDATE TO kvstore.s_fa DO INSTEAD NOTHING'),
    ('a rule besides', 'CREATE RULE fa_rule AS ON INSERT TO kvstore.s_fa DO ALSO INSERT INTO fa_moved VALUES (NEW.key, NEW.value)');

--
-- The functions.  K stands for the number of the entry "k".
--

CREATE TABLE fa_call (place serial, name text, call text);
INSERT INTO fa_call (name, call) VALUES
    ('set k', $$kv_set('k', '5', store => 'fa')$$), ('set new', $$kv_set('new', '5', store => 'fa')$$), ('set k keep_ttl', $$kv_set('k', '5', keep_ttl => true, store => 'fa')$$),
    ('set k if K', $$kv_set('k', '5', if_version => K, store => 'fa')$$), ('set k if absent', $$kv_set('k', '5', if_version => 0, store => 'fa')$$), ('set new if absent', $$kv_set('new', '5', if_version => 0, store => 'fa')$$),
    ('set_bytes k', $$kv_set_bytes('k', '\x05', store => 'fa')$$),
    ('set_many k other new', $$kv_set_many('{k,other,new}', '{5,5,5}', store => 'fa')$$), ('import k other new', $$kv_import('{"k": {"value": 5}, "other": {"value": 5}, "new": {"value": 5}}', 'fa')$$),
    ('incr k', $$kv_incr('k', 4, store => 'fa')$$), ('incr new', $$kv_incr('new', 5, store => 'fa')$$),
    ('expire k', $$kv_expire('k', expires_at => '2200-01-01', store => 'fa')$$), ('expire k if K', $$kv_expire('k', expires_at => '2200-01-01', if_version => K, store => 'fa')$$),
    ('delete k', $$kv_delete('k', store => 'fa')$$), ('delete k if K', $$kv_delete('k', if_version => K, store => 'fa')$$), ('take k', $$kv_take('k', 'fa')$$),
    ('delete_many k other', $$kv_delete_many('{k,other}', 'fa')$$), ('delete_prefix k', $$kv_delete_prefix('k', 'fa')$$), ('clear', $$kv_clear('fa')$$),
    ('atomic set k new', $$ATOMIC([{"set": {"key": "k", "value": 5}}, {"set": {"key": "new", "value": 5}}])$$), ('atomic sum k', $$ATOMIC([{"sum": {"key": "k", "value": 4}}])$$), ('atomic max new', $$ATOMIC([{"max": {"key": "new", "value": 5}}])$$),
    ('atomic set new if absent', $$ATOMIC([{"check": {"key": "new", "versionstamp": 0}}, {"set": {"key": "new", "value": 5}}])$$),
    ('atomic set k if K, delete m', $$ATOMIC([{"check": {"key": "k", "versionstamp": K}}, {"set": {"key": "k", "value": 5}}, {"delete": {"key": "m"}}])$$),
    ('atomic delete k', $$ATOMIC([{"delete": {"key": "k"}}])$$), ('atomic delete k if K', $$ATOMIC([{"check": {"key": "k", "versionstamp": K}}, {"delete": {"key": "k"}}])$$),
    ('atomic delete k if absent', $$ATOMIC([{"check": {"key": "k", "versionstamp": 0}}, {"delete": {"key": "k"}}])$$), ('atomic set k if absent', $$ATOMIC([{"check": {"key": "k", "versionstamp": 0}}, {"set": {"key": "k", "value": 5}}])$$),
    ('atomic sum k if absent', $$ATOMIC([{"check": {"key": "k", "versionstamp": 0}}, {"sum": {"key": "k", "value": 5}}])$$),
    ('atomic new, check that fails', $$ATOMIC([{"set": {"key": "b", "value": 5}}, {"set": {"key": "new", "value": 5}}, {"check": {"key": "zzz", "versionstamp": 1}}])$$),
    ('check k', $$kv_check('k', K, 'fa')$$), ('check new', $$kv_check('new', 0, 'fa')$$), ('check k absent', $$kv_check('k', 0, 'fa')$$);
UPDATE fa_call SET call = regexp_replace(call, 'ATOMIC\((.*)\)', $$(SELECT ok || coalesce(versionstamp, 0)::text || failed_checks::text FROM kv_atomic('\1', 'fa'))$$);

-- The entries, as key=value, bytes, or key=value@year of the expiry.
CREATE FUNCTION fa_entries() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(kv_key_to_json(key) ->> 0 || '=' || coalesce(value::text, bytes::text, 'NULL') || coalesce('@' || extract(year FROM expires_at), ''), ' ' ORDER BY key) FROM kvstore.s_fa $$;

-- One cell: in transactions of their own the entries are made, the function is called, and what followers were told is compared with what there is.
CREATE PROCEDURE fa_try(kind text, name text, call text) LANGUAGE plpgsql AS $$
DECLARE
    start text;
    says text;
    stamp bigint;
    wrong text;
BEGIN
    -- the owner's triggers look away, the guard does not
    SET LOCAL session_replication_role = replica;
    DELETE FROM kvstore.s_fa;
    INSERT INTO kvstore.s_fa (key, value) VALUES (kv_key('a'), '1'), (kv_key('k'), '1'), (kv_key('m'), '1'), (kv_key('other'), '2');
    COMMIT;
    start := kv_feed_position();
    TRUNCATE fa_before;
    INSERT INTO fa_before SELECT key, value, versionstamp FROM kv_list('', store => 'fa');
    COMMIT;
    SELECT versionstamp INTO stamp FROM fa_before b WHERE b.key = 'k';
    PERFORM set_config('role', 'regress_kvs_fate', true), set_config('statement_timeout', '20s', true);
    says := outcome(replace(call, 'K', stamp::text));
    RESET ROLE;
    COMMIT;
    -- every number is one that is in the store
    says := regexp_replace(says, '^true\d+\{', 'trueN{');
    IF says ~ '^\d{3,}$' AND EXISTS (SELECT FROM kvstore.s_fa s WHERE s.versionstamp::text = says) THEN
        says := 'N';
    END IF;
    -- what a follower has now, who began with what there was before
    BEGIN
        WITH told AS (SELECT c.operation, c.key, c.versionstamp FROM kv_changes(start, '', store => 'fa') c WHERE c.operation <> 'progress'),
        has AS (SELECT b.key, b.versionstamp FROM fa_before b WHERE NOT EXISTS (SELECT FROM told WHERE told.operation = 'clear' OR (told.operation = 'delete_prefix' AND starts_with(b.key, told.key)))
                AND NOT EXISTS (SELECT FROM told WHERE told.key = b.key AND told.operation <> 'touch')
            UNION ALL (SELECT DISTINCT ON (t.key) t.key, CASE WHEN t.operation = 'set' THEN t.versionstamp END FROM told t WHERE t.operation IN ('set', 'delete') ORDER BY t.key, t.versionstamp DESC))
        SELECT string_agg(format('%s has %s, is told %s', coalesce(h.key, s.key), s.versionstamp, h.versionstamp), ', ') INTO wrong
            FROM (SELECT * FROM has WHERE has.versionstamp IS NOT NULL) h FULL JOIN kv_list('', store => 'fa') s USING (key) WHERE h.versionstamp IS DISTINCT FROM s.versionstamp;
    EXCEPTION WHEN OTHERS THEN
        wrong := SQLERRM;
    END;
    SELECT concat_ws(', ', wrong, string_agg('two values of one number', ', ')) INTO wrong FROM kv_list('', store => 'fa') s JOIN fa_before b USING (key, versionstamp) WHERE s.value IS DISTINCT FROM b.value;
    SELECT concat_ws(', ', nullif(wrong, ''), string_agg('not in the expiry map', ', ')) INTO wrong FROM kvstore.s_fa s
        WHERE s.expires_at IS NOT NULL AND NOT EXISTS (SELECT FROM kvstore.expiry_map() m WHERE m.relid = 'kvstore.s_fa'::regclass AND m.due <= s.expires_at);
    INSERT INTO fa_result (kind, name, says, store, followers) VALUES (kind, name, says, fa_entries(), coalesce(nullif(wrong, ''), 'right'));
    COMMIT;
END $$;

CREATE PROCEDURE fa_try_all() LANGUAGE plpgsql AS $$
DECLARE
    kind fa_kind;
    call fa_call;
BEGIN
    FOR kind IN SELECT * FROM fa_kind ORDER BY place LOOP
        PERFORM kv_drop_store('fa'), kv_create_store('fa');
        GRANT SELECT, INSERT, UPDATE, DELETE ON kvstore.s_fa TO regress_kvs_fate;
        IF kind.made IS NOT NULL THEN
            EXECUTE kind.made;
        END IF;
        COMMIT;
        FOR call IN SELECT * FROM fa_call ORDER BY place LOOP
            IF kind.made LIKE 'CREATE RULE%' THEN
                INSERT INTO fa_result (kind, name, says) VALUES (kind.kind, call.name, outcome(replace(call.call, 'K', '1')));
            ELSE
                CALL fa_try(kind.kind, call.name, call.call);
            END IF;
            COMMIT;
        END LOOP;
    END LOOP;
END $$;
CALL fa_try_all();
SELECT kind, says, store, followers, functions FROM (SELECT min(place) AS place, kind, regexp_replace(says, '^(\w{5}) \| .*', '\1') AS says, store, followers, string_agg(name, ', ' ORDER BY place) AS functions
    FROM fa_result GROUP BY 2, 3, 4, 5) r ORDER BY place;

-- Each error, once.
SELECT DISTINCT says FROM fa_result WHERE says ~ '^(27|42)\w{3} \| ' ORDER BY 1;

--
-- Beside the matrix
--

-- A check that fails leaves nothing of what was claimed before it, whether the role may delete or not, and whatever triggers have seen it come.
SELECT kv_drop_store('fa'), kv_create_store('fa');
GRANT SELECT, INSERT, UPDATE ON kvstore.s_fa TO regress_kvs_fate;
SET ROLE regress_kvs_fate;
SELECT ok, failed_checks FROM kv_atomic('[{"set": {"key": "b", "value": 5}}, {"check": {"key": "zzz", "versionstamp": 1}}]', 'fa');
SELECT outcome($$kv_delete('b', store => 'fa')$$);
RESET ROLE;
CREATE INDEX fa_index ON kvstore.s_fa (expires_at);
CREATE FUNCTION fa_moving() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO fa_moved VALUES (NEW.key); RETURN NEW; END $$;
CREATE TRIGGER fa_moving AFTER INSERT ON kvstore.s_fa FOR EACH ROW EXECUTE FUNCTION fa_moving();
TRUNCATE fa_moved;
SET ROLE regress_kvs_fate;
SELECT ok, failed_checks FROM kv_atomic('[{"set": {"key": "b", "value": 5}}, {"check": {"key": "zzz", "versionstamp": 1}}]', 'fa');
RESET ROLE;
SELECT fa_entries() IS NULL AS nothing, (SELECT count(*) FROM fa_moved) AS seen;
SELECT ok, failed_checks FROM kv_atomic('[{"set": {"key": "b", "value": 5}}, {"check": {"key": "zzz", "versionstamp": 0}}]', 'fa');
SELECT fa_entries(), (SELECT count(*) FROM fa_moved) AS seen;
DROP TRIGGER fa_moving ON kvstore.s_fa;
DROP INDEX kvstore.fa_index;

-- A trigger for each statement is seen to, also one that is for TRUNCATE, too; one for TRUNCATE alone is not asked.
CREATE FUNCTION fa_telling() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '% %', TG_NAME, TG_OP; RETURN NULL; END $$;
CREATE TRIGGER fa_both AFTER UPDATE OR TRUNCATE ON kvstore.s_fa FOR EACH STATEMENT EXECUTE FUNCTION fa_telling();
SELECT kv_set('b', '6', store => 'fa') > 0;
DROP TRIGGER fa_both ON kvstore.s_fa;
CREATE TRIGGER fa_one AFTER TRUNCATE ON kvstore.s_fa FOR EACH STATEMENT EXECUTE FUNCTION fa_telling();
SELECT kv_set('b', '7', store => 'fa') > 0;
TRUNCATE kvstore.s_fa;
DROP TRIGGER fa_one ON kvstore.s_fa;

-- At REPEATABLE READ, too, it is the policy that is told of, not a change by somebody else that a retry would get round.
SELECT kv_set('k', '1', store => 'fa') > 0, kv_set('open', '1', store => 'fa') > 0;
ALTER TABLE kvstore.s_fa ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON kvstore.s_fa USING (key <> kv_key('k')) WITH CHECK (true);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL ROLE regress_kvs_fate;
SELECT left(outcome($$kv_check('k', 0, 'fa')$$), 5), outcome($$kv_check('open', 0, 'fa')$$) LIKE 'KV001%', outcome($$kv_check('none', 0, 'fa')$$),
    left(outcome($$(SELECT ok FROM kv_atomic('[{"check": {"key": "k", "versionstamp": 0}}, {"delete": {"key": "k"}}]', 'fa'))$$), 5);
COMMIT;

-- What a function in a policy writes while a check locks a row is guarded, as anything that is written by plain SQL.
CREATE FUNCTION fa_writing() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '%', outcome_of($q$UPDATE kvstore.s_fa SET value = '"stolen"'$q$); RETURN true; END $$;
DROP POLICY p ON kvstore.s_fa;
CREATE POLICY p ON kvstore.s_fa FOR SELECT USING (pg_trigger_depth() > 0 OR fa_writing());
CREATE POLICY q ON kvstore.s_fa FOR UPDATE USING (true);
SET ROLE regress_kvs_fate;
SET statement_timeout = '10s';
SELECT kv_check('open', versionstamp, 'fa') FROM kv_entry('open', 'fa');
RESET statement_timeout;
RESET ROLE;
SELECT fa_entries();

SELECT kv_drop_store('fa');
DROP PROCEDURE fa_try_all, fa_try;
DROP FUNCTION fa_entries, fa_moving, fa_telling, fa_writing, fa_trigger, fa_trigger_sql, fa_policy_sql;
DROP TABLE fa_before, fa_moved, fa_result, fa_kind, fa_call;
DROP ROLE regress_kvs_fate;
