-- keys_if_undelivered: what is written when a message is given up, and what if that fails.
-- kvs: needs preload
\pset format unaligned
\pset fieldsep ' | '

CREATE ROLE regress_kvs_un_owner;
CREATE ROLE regress_kvs_un_store;
CREATE ROLE regress_kvs_un_sender;
SELECT kv_create_queue('un', max_attempts => 2, backoff => '{}'), kv_create_store('un');
CREATE VIEW un_entries AS SELECT key, value, expires_at IS NOT NULL AS expires FROM kv_list(kv_key(), store => 'un');
CREATE FUNCTION un_fail(error text DEFAULT NULL, dead boolean DEFAULT false) RETURNS text LANGUAGE sql AS $$ SELECT kv_nack(receipt, error => error, dead => dead) FROM kv_dequeue('un') $$;

--
-- Written when it is a dead letter, and not before
--

SELECT kv_enqueue('un', '{"n": 1}', keys_if_undelivered => '["b", ["a", 1], "b"]', undelivered_store => 'un') > 0;
SELECT un_fail('first');
SELECT kv_maintain() >= 0 AS moved;
SELECT * FROM un_entries;
SELECT un_fail();
SELECT kv_maintain() >= 0 AS moved;
SELECT * FROM un_entries;
SELECT payload, error FROM kv_dead_letters('un');
-- Not by the consumer: code of the store's owner never runs in its transaction.
SELECT kv_enqueue('un', '2', keys_if_undelivered => '["c"]', undelivered_store => 'un') > 0;
BEGIN;
SELECT un_fail(dead => true);
SELECT value FROM un_entries WHERE key = '["c"]';
ROLLBACK;
SELECT count(*) FROM un_entries WHERE key = '["c"]';
-- An acknowledged, a cancelled and a purged one leave nothing.
SELECT kv_ack(receipt) FROM kv_dequeue('un');
SELECT kv_cancel('un', kv_enqueue('un', '2', keys_if_undelivered => '["c"]', undelivered_store => 'un'));
SELECT kv_enqueue('un', '2', keys_if_undelivered => '["c"]', undelivered_store => 'un') > 0;
SELECT kv_purge_queue('un');
SELECT count(*) FROM un_entries WHERE key = '["c"]';
-- No keys; the store's default expiry; a queue that keeps no dead letters.
SELECT kv_alter_store('un', default_ttl => '1 hour'), kv_alter_queue('un', keep_dead => false), kv_dead_purge('un');
SELECT kv_enqueue('un', '3', keys_if_undelivered => '[]', undelivered_store => 'un') > 0, kv_enqueue('un', '4', keys_if_undelivered => '["d"]', undelivered_store => 'un') > 0;
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
SELECT * FROM un_entries WHERE key = '["d"]';
SELECT count(*) FROM kv_dead_letters('un');

--
-- Not to be written: the dead letter says so, and the message is gone all the same
--

SELECT kv_alter_queue('un', keep_dead => true);
ALTER TABLE kvstore.q_un OWNER TO regress_kvs_un_owner;
ALTER TABLE kvstore.d_un OWNER TO regress_kvs_un_owner;
ALTER TABLE kvstore.s_un OWNER TO regress_kvs_un_store;
GRANT ALL ON kvstore.q_un, kvstore.d_un TO PUBLIC;
CREATE FUNCTION un_send() RETURNS boolean LANGUAGE sql AS $$ SELECT kv_enqueue('un', '5', keys_if_undelivered => '["e", "f"]', undelivered_store => 'un') > 0 $$;
-- The owner of the queue may not.
SELECT un_send();
SELECT un_fail('why', true);
SELECT kv_maintain() >= 0 AS moved;
GRANT SELECT, INSERT, UPDATE ON kvstore.s_un TO regress_kvs_un_owner;
-- The sender may no more, has another name, is gone, is not known.
GRANT SELECT, INSERT, UPDATE ON kvstore.s_un TO regress_kvs_un_sender;
CREATE FUNCTION un_send_as_sender() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN SET LOCAL ROLE regress_kvs_un_sender; RETURN un_send(); END $$;
SELECT un_send_as_sender();
SELECT sender FROM kvstore.q_un;
REVOKE INSERT ON kvstore.s_un FROM regress_kvs_un_sender;
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
GRANT INSERT ON kvstore.s_un TO regress_kvs_un_sender;
SELECT un_send_as_sender();
SELECT un_fail('written', true);
SELECT kv_maintain() >= 0 AS moved;
DELETE FROM kvstore.s_un;
SELECT un_send_as_sender();
ALTER ROLE regress_kvs_un_sender RENAME TO regress_kvs_un_renamed;
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
ALTER ROLE regress_kvs_un_renamed RENAME TO regress_kvs_un_sender;
SELECT un_send_as_sender();
DROP OWNED BY regress_kvs_un_sender;
DROP ROLE regress_kvs_un_sender;
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
SELECT un_send();
UPDATE kvstore.q_un SET sender = NULL;
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
-- Row-level security, which would ask the policies for the owner of the store.
SELECT un_send();
ALTER TABLE kvstore.s_un ENABLE ROW LEVEL SECURITY;
SELECT outcome($$un_send()$$);
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
ALTER TABLE kvstore.s_un DISABLE ROW LEVEL SECURITY;
-- The store takes no value of that size.
SELECT kv_alter_store('un', max_value_size => 1);
SELECT un_send();
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
SELECT kv_alter_store('un', max_value_size => 1000);
-- A trigger, for the second key; nothing of the first one stays.
CREATE FUNCTION un_no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.key::text = '["f"]' THEN RAISE EXCEPTION 'not %, says %', NEW.key, current_user; END IF; RETURN NEW; END $$;
CREATE TRIGGER un_no BEFORE INSERT ON kvstore.s_un FOR EACH ROW EXECUTE FUNCTION un_no();
SELECT un_send();
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
DROP TRIGGER un_no ON kvstore.s_un;
CREATE CONSTRAINT TRIGGER un_no AFTER INSERT ON kvstore.s_un DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION un_no();
SELECT un_send();
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
DROP TRIGGER un_no ON kvstore.s_un;
SELECT count(*) FROM un_entries WHERE key IN ('["e"]', '["f"]');
-- A deadlock or the like may pass: the message stays.
CREATE FUNCTION un_pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'try again' USING errcode = '40P01'; END $$;
CREATE TRIGGER un_pass BEFORE INSERT ON kvstore.s_un FOR EACH ROW EXECUTE FUNCTION un_pass();
SELECT un_send();
SELECT outcome($$un_fail(dead => true)$$);
SELECT kv_maintain() >= 0 AS moved;
SELECT state, error FROM kv_leases WHERE queue = 'un';
CREATE OR REPLACE FUNCTION un_pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'too long' USING errcode = '55P03'; END $$;
SELECT kv_maintain() >= 0 AS "too early";
SELECT error FROM kv_leases WHERE queue = 'un';
SET kvstore.test_clock = 10;
SELECT kv_maintain() >= 0 AS tried;
RESET kvstore.test_clock;
SELECT state, error FROM kv_leases WHERE queue = 'un';
-- But not for ever: any code can raise that.  The sixth time it is the letter's error.
CREATE FUNCTION un_try(first int, last int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    FOR i IN first .. last LOOP PERFORM set_config('kvstore.test_clock', (100 * i)::text, false); PERFORM kv_maintain(); END LOOP; END $$;
SELECT un_try(1, 3);
SELECT state, error FROM kv_leases WHERE queue = 'un';
SELECT un_try(4, 4);
RESET kvstore.test_clock;
SELECT count(*) AS leases FROM kv_leases WHERE queue = 'un';
-- Nor is an ERROR a cancel because it says so: others go on, and the letter has it.
SELECT un_send(), kv_enqueue('un', '"without keys"') > 0;
CREATE OR REPLACE FUNCTION un_pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no cancel' USING errcode = '57014'; END $$;
SELECT un_fail(dead => true), un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
SELECT count(*) AS leases FROM kv_leases WHERE queue = 'un';
-- The same from the table of the dead letters: one message is stuck, and others go on.
DROP TRIGGER un_pass ON kvstore.s_un;
CREATE TRIGGER un_pass BEFORE INSERT ON kvstore.d_un FOR EACH ROW WHEN (NEW.payload = '"stuck"') EXECUTE FUNCTION un_pass();
SELECT kv_enqueue('un', '"stuck"') > 0, kv_enqueue('un', '"not stuck"') > 0;
SELECT un_fail(dead => true), un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
SELECT state, error FROM kv_leases WHERE queue = 'un';
DROP TRIGGER un_pass ON kvstore.d_un;
-- No dead letter that could say so: a warning.
SELECT kv_purge_queue('un') > 0, kv_alter_queue('un', keep_dead => false);
CREATE TRIGGER un_no BEFORE INSERT ON kvstore.s_un FOR EACH ROW EXECUTE FUNCTION un_no();
SELECT un_send();
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
DROP TRIGGER un_no ON kvstore.s_un;
SELECT kv_alter_queue('un', keep_dead => true), un_send();
-- The store is gone.
DROP VIEW un_entries;
SELECT kv_drop_store('un');
SELECT un_fail(dead => true);
SELECT kv_maintain() >= 0 AS moved;
SELECT payload, error FROM kv_dead_letters('un', 100);
SELECT count(*) FROM kvstore.q_un;

SELECT kv_drop_queue('un');
DROP FUNCTION un_fail, un_send, un_send_as_sender, un_no, un_pass, un_try;
DROP ROLE regress_kvs_un_owner, regress_kvs_un_store;
