-- A well-behaved application, and neighbours who do all that their rights allow.  Used by queue_neighbours.sh.

CREATE EXTENSION IF NOT EXISTS kvstore;
CREATE ROLE app LOGIN;
CREATE ROLE sender LOGIN;		-- may send to one queue of the application's, and has a store
CREATE ROLE hostile LOGIN;		-- has a queue and a store
GRANT CREATE ON SCHEMA kvstore TO app, sender, hostile;
GRANT CREATE ON SCHEMA public TO app, sender, hostile;

-- ---- The application ----

SET ROLE app;
SELECT kv_create_queue('shop'), kv_create_queue('inbox', lease => '1 s', max_attempts => 2, backoff => '{100ms}'), kv_create_store('cart');
GRANT INSERT ON kvstore.q_inbox TO sender;

-- One unit of work: a message sent, received and acknowledged, an entry written and read.  All of it is checked.
CREATE FUNCTION app_work(who int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    stamp bigint;
    old bigint;
    m record;
BEGIN
    old := versionstamp FROM kv_entry('c' || who, store => 'cart');
    stamp := kv_set('c' || who, to_jsonb(who), ttl => '1 s', store => 'cart');
    IF stamp <= old THEN
        RAISE EXCEPTION 'versionstamp % after %', stamp, old;
    END IF;
    IF EXISTS (SELECT FROM kv_list('', store => 'cart') WHERE expires_at <= clock_timestamp() - interval '50 ms') THEN
        RAISE EXCEPTION 'an expired entry was seen';
    END IF;
    PERFORM kv_enqueue('shop', to_jsonb(who));
    FOR m IN SELECT * FROM kv_dequeue('shop') LOOP
        IF m.attempts <> 1 OR NOT kv_ack(m.receipt) THEN
            RAISE EXCEPTION 'message % was delivered % times, or is not ours', m.id, m.attempts;
        END IF;
    END LOOP;
END $$;
-- What a sender may not make difficult: some of these are acknowledged, some fail, some expire.
CREATE FUNCTION app_inbox() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    m record;
BEGIN
    FOR m IN SELECT * FROM kv_dequeue('inbox', 5) LOOP
        CASE m.id % 3 WHEN 0 THEN PERFORM kv_ack(m.receipt); WHEN 1 THEN PERFORM kv_nack(m.receipt, error => 'no'); ELSE NULL; END CASE;
    END LOOP;
END $$;
RESET ROLE;

-- ---- The neighbours ----

-- What a trigger can try.
CREATE FUNCTION trick() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    CASE trunc(random() * 8)
        WHEN 0 THEN PERFORM pg_sleep(3);
        WHEN 1 THEN RAISE EXCEPTION 'no';
        WHEN 2 THEN RETURN NULL;
        WHEN 3 THEN
            BEGIN EXECUTE 'ALTER ROLE hostile SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
        WHEN 4 THEN
            BEGIN EXECUTE 'SET ROLE app'; EXCEPTION WHEN OTHERS THEN NULL; END;
        WHEN 5 THEN
            BEGIN PERFORM kv_dequeue('nasty', 3), kv_set('x', '1', store => 'nasty'); EXCEPTION WHEN OTHERS THEN NULL; END;
        WHEN 6 THEN
            FOR i IN 1 .. 30 LOOP
                BEGIN PERFORM pg_sleep(0.5); EXCEPTION WHEN query_canceled THEN NULL; END;
            END LOOP;
        ELSE NULL;
    END CASE;
    RETURN COALESCE(NEW, OLD);
END $$;
SET ROLE sender;
SELECT kv_create_store('trap');
CREATE TRIGGER trick BEFORE INSERT OR UPDATE ON kvstore.s_trap FOR EACH ROW EXECUTE FUNCTION trick();
GRANT SELECT, INSERT, UPDATE ON kvstore.s_trap TO app;
CREATE FUNCTION sender_step() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM kv_enqueue('inbox', '1', max_attempts => 1 + trunc(random() * 2)::bigint, backoff => '{1ms}', keys_if_undelivered => '["k"]', undelivered_store => 'trap',
        ttl => CASE WHEN random() < 0.2 THEN interval '2 s' END);
    PERFORM kv_enqueue('inbox', '2', dedupe_key => 'd' || trunc(random() * 3), ttl => interval '1 s');
END $$;
SET ROLE hostile;
SELECT kv_create_queue('nasty', lease => '300 ms', max_attempts => 2, backoff => '{}'), kv_create_store('nasty');
CREATE TRIGGER trick BEFORE DELETE OR UPDATE ON kvstore.s_nasty FOR EACH ROW EXECUTE FUNCTION trick();
CREATE TRIGGER trick BEFORE DELETE OR UPDATE ON kvstore.q_nasty FOR EACH ROW EXECUTE FUNCTION trick();
CREATE TRIGGER trick BEFORE INSERT ON kvstore.d_nasty FOR EACH ROW EXECUTE FUNCTION trick();
CREATE FUNCTION hostile_step() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('statement_timeout', '2000', true);
    INSERT INTO kvstore.s_nasty (key, value, kind, versionstamp, expires_at) VALUES (kv_key('e', random()), '1', 'j', 4503599627370495, clock_timestamp() + interval '300 ms');
    PERFORM count(*) FROM kv_enqueue_many('nasty', array_fill('1'::jsonb, ARRAY[20]));
    PERFORM count(*) FROM kv_dequeue('nasty', 1000);
    IF random() < 0.5 THEN
        RAISE EXCEPTION 'rolled back';
    END IF;
END $$;
RESET ROLE;
