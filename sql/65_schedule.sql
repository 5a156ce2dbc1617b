-- Schedules: a message is sent at the times of a cron line, by pg_cron, as whoever has scheduled it.  pg_cron may be installed before or after kvstore, or never, so
-- nothing here names it before it is called.

CREATE FUNCTION kvstore.require_pg_cron() RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
        RAISE EXCEPTION 'schedules need the extension pg_cron in this database'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Install its package (Debian: postgresql-%s-cron), put pg_cron into shared_preload_libraries and cron.database_name = ''%s'' into postgresql.conf, '
                                'restart, and run CREATE EXTENSION pg_cron.', current_setting('server_version_num')::int / 10000, current_database());
    END IF;
END
$$;
COMMENT ON FUNCTION kvstore.require_pg_cron() IS '55000 with a hint, unless pg_cron is installed in this database';

CREATE FUNCTION kv_schedule(name text, cron text, queue text, payload jsonb, dedupe_key text DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target text := format('kvstore.q_%s', queue);
    job bigint;
BEGIN
    IF name IS NULL OR cron IS NULL OR queue IS NULL OR payload IS NULL THEN
        RAISE EXCEPTION 'name, cron, queue and payload must not be null' USING ERRCODE = 'null_value_not_allowed';
    ELSIF octet_length(name) NOT BETWEEN 1 AND 48 THEN
        RAISE EXCEPTION 'name of a schedule must have 1 to 48 bytes' USING ERRCODE = 'invalid_parameter_value';
    ELSIF queue !~ '^[a-z_][a-z0-9_]{0,47}$' THEN
        RAISE EXCEPTION 'invalid queue name "%"', queue USING ERRCODE = 'invalid_parameter_value';
    ELSIF to_regclass(target) IS NULL THEN
        RAISE EXCEPTION 'queue "%" does not exist', queue USING ERRCODE = 'undefined_table', HINT = format('Create it with SELECT kv_create_queue(%L).', queue);
    ELSIF NOT has_table_privilege(target, 'INSERT') THEN
        RAISE EXCEPTION 'permission denied for table q_%', queue USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM kvstore.require_pg_cron();
    EXECUTE 'SELECT cron.schedule($1, $2, $3)' INTO job
        USING 'kvstore:' || name, cron, format('SELECT @extschema@.kv_enqueue(%L, %L::pg_catalog.jsonb%s)', queue, payload,
                     COALESCE(format(', dedupe_key => %L::pg_catalog.text', dedupe_key), ''));
    RETURN job;
END
$$;
COMMENT ON FUNCTION kv_schedule(text, text, text, jsonb, text) IS
    'send this payload to a queue at the times of a cron line, through pg_cron, as yourself; replaces your schedule of that name; with a dedupe_key one waits at most';

CREATE FUNCTION kv_unschedule(name text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job bigint;
BEGIN
    PERFORM kvstore.require_pg_cron();
    EXECUTE 'SELECT jobid FROM cron.job WHERE jobname = $1 AND username = current_user AND database = current_database()' INTO job USING 'kvstore:' || name;
    IF job IS NOT NULL THEN
        EXECUTE 'SELECT cron.unschedule($1)' USING job;
    END IF;
    RETURN job IS NOT NULL;
END
$$;
COMMENT ON FUNCTION kv_unschedule(text) IS 'end a schedule of yours; false if there is none of that name';

-- Queue and payload are read back from the command, which is ours if it has this form.
CREATE FUNCTION kvstore.schedules(OUT name text, OUT cron text, OUT queue text, OUT payload jsonb, OUT owner text, OUT active boolean, OUT job bigint) RETURNS SETOF record
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    command text;
    parts text[];
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') OR NOT has_schema_privilege('cron', 'USAGE') THEN
        RETURN;
    END IF;
    FOR name, cron, command, owner, active, job IN
        EXECUTE 'SELECT substr(jobname::text, 9), schedule, command, username::text, active, jobid FROM cron.job
                 WHERE starts_with(jobname::text, ''kvstore:'') AND database = current_database() ORDER BY jobname::text, username::text'
    LOOP
        parts := regexp_match(command, '^SELECT .*?kv_enqueue\(''([a-z0-9_]+)'', *E?''(.*)''::pg_catalog\.jsonb(?:, dedupe_key => .*::pg_catalog\.text)?\)$');
        CONTINUE WHEN parts IS NULL;
        queue := parts[1];
        BEGIN
            payload := replace(replace(parts[2], '''''', ''''), E'\\\\', E'\\')::jsonb;
        EXCEPTION WHEN data_exception THEN
            payload := NULL;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION kvstore.schedules() IS 'see the view kv_schedules';

CREATE VIEW kv_schedules AS SELECT * FROM kvstore.schedules();
GRANT SELECT ON kv_schedules TO PUBLIC;
COMMENT ON VIEW kv_schedules IS 'schedules made by kv_schedule() in this database that you may see: your own, or all as a superuser; empty without pg_cron';
