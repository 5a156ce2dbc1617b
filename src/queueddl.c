/*
 * queueddl.c
 *		SQL functions that create, alter, pause and drop queues.
 *
 * A queue is two tables of the user's own: kvstore.q_<name> with the messages, kvstore.d_<name> with
 * the dead letters.  As with stores (ddl.c) they are made with the caller's rights, and the settings
 * are a row in the registry kvstore.queues (registry.c), where NULL means the default.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "ddlcommon.h"
#include "entry.h"
#include "expiry.h"
#include "guard.h"
#include "queuecatalog.h"
#include "queueslot.h"
#include "registry.h"
#include "shape.h"
#include "waiter.h"

/* ---- Settings ---- */

/* In the order of the registry's columns, after the name. */
enum
{
	SETTING_LEASE,
	SETTING_MAX_ATTEMPTS,
	SETTING_BACKOFF,
	SETTING_KEEP_DEAD,
	SETTING_PAUSED,
	SETTINGS
};

typedef struct Setting
{
	bool		given;
	bool		is_default;
	Datum		value;
} Setting;

static void
set_setting(Setting *setting, Datum value, bool is_default)
{
	setting->given = true;
	setting->value = value;
	setting->is_default = is_default;
}

static void
read_lease(Interval *lease, Setting *setting)
{
	Interval	longest = {.time = KVS_MAX_LEASE};
	Interval	standard = {.time = KVS_DEFAULT_LEASE};
	Datum		datum = IntervalPGetDatum(lease);

	if (kvs_ddl_interval_sign(lease) <= 0 ||
		DatumGetBool(DirectFunctionCall2(interval_gt, datum, IntervalPGetDatum(&longest))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be more than nothing and at most 12 hours")));
	set_setting(setting, datum, DatumGetBool(DirectFunctionCall2(interval_eq, datum, IntervalPGetDatum(&standard))));
}

static void
read_backoff(ArrayType *array, Setting *setting)
{
	Interval	delays[KVS_BACKOFF_MAX];
	Interval	standard[KVS_BACKOFF_MAX];
	int			count = kvs_backoff_check(array, delays);
	bool		same = count == kvs_backoff_default(standard);

	for (int i = 0; same && i < count; i++)
		same = DatumGetBool(DirectFunctionCall2(interval_eq, IntervalPGetDatum(&delays[i]),
												IntervalPGetDatum(&standard[i])));
	set_setting(setting, PointerGetDatum(array), same);
}

/* Arguments lease, max_attempts and backoff from "first" on; SQL NULL is "not given". */
static void
read_settings(FunctionCallInfo fcinfo, int first, int keep_dead_arg, Setting *settings)
{
	memset(settings, 0, sizeof(Setting) * SETTINGS);
	if (!PG_ARGISNULL(first))
		read_lease(PG_GETARG_INTERVAL_P(first), &settings[SETTING_LEASE]);
	if (!PG_ARGISNULL(first + 1))
		set_setting(&settings[SETTING_MAX_ATTEMPTS],
					Int32GetDatum(kvs_queue_check_max_attempts(PG_GETARG_INT64(first + 1))),
					PG_GETARG_INT64(first + 1) == KVS_DEFAULT_MAX_ATTEMPTS);
	if (!PG_ARGISNULL(first + 2))
		read_backoff(PG_GETARG_ARRAYTYPE_P(first + 2), &settings[SETTING_BACKOFF]);
	if (!PG_ARGISNULL(keep_dead_arg))
		set_setting(&settings[SETTING_KEEP_DEAD], PG_GETARG_DATUM(keep_dead_arg), PG_GETARG_BOOL(keep_dead_arg));
}

/* What is given replaces what is there; the default is NULL. */
static void
write_settings(const char *name, const void *arg)
{
	const Setting *settings = arg;
	Oid			types[1 + 2 * SETTINGS] = {
		TEXTOID, INTERVALOID, INT4OID, INTERVALARRAYOID, BOOLOID, BOOLOID, BOOLOID, BOOLOID, BOOLOID, BOOLOID, BOOLOID
	};
	Datum		values[1 + 2 * SETTINGS] = {CStringGetTextDatum(name)};
	char		nulls[1 + 2 * SETTINGS + 1];

	memset(nulls, ' ', sizeof(nulls));
	nulls[sizeof(nulls) - 1] = '\0';
	for (int i = 0; i < SETTINGS; i++)
	{
		values[1 + i] = settings[i].value;
		if (!settings[i].given || settings[i].is_default)
			nulls[1 + i] = 'n';
		values[1 + SETTINGS + i] = BoolGetDatum(settings[i].given);
	}
	kvs_registry_run(&kvs_registry_queues,
							 "INSERT INTO kvstore.queues AS q (queue, lease, max_attempts, backoff, keep_dead, paused) "
							 "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (queue) DO UPDATE SET "
							 "lease = CASE WHEN $7 THEN EXCLUDED.lease ELSE q.lease END, "
							 "max_attempts = CASE WHEN $8 THEN EXCLUDED.max_attempts ELSE q.max_attempts END, "
							 "backoff = CASE WHEN $9 THEN EXCLUDED.backoff ELSE q.backoff END, "
							 "keep_dead = CASE WHEN $10 THEN EXCLUDED.keep_dead ELSE q.keep_dead END, "
							 "paused = CASE WHEN $11 THEN EXCLUDED.paused ELSE q.paused END",
							 1 + 2 * SETTINGS, types, values, nulls);
}

/* ---- Create ---- */

/*
 * Rows come and go: autovacuum is told by a number of dead rows, not by a share of a table that is sometimes large and nearly always empty.  Truncating the
 * table's end would lock it each time that the queue runs empty.  Both go for the table where large payloads are, too.
 */
#define VACUUM_STORAGE(of) \
	of "autovacuum_vacuum_scale_factor = 0, " of "autovacuum_vacuum_threshold = 10000, " \
	of "autovacuum_vacuum_insert_threshold = -1, " of "vacuum_truncate = off"
#define MESSAGE_STORAGE \
	VACUUM_STORAGE("") ", " VACUUM_STORAGE("toast.") ", " \
	"autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000"

static void
create_messages(const char *name, bool unlogged)
{
	kvs_ddl_run_utility(psprintf("CREATE %s TABLE kvstore.q_%s ("
								 "id pg_catalog.int8 GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "
								 "ready_at pg_catalog.timestamptz NOT NULL, enqueued_at pg_catalog.timestamptz NOT NULL, "
								 "priority pg_catalog.int2 NOT NULL DEFAULT 0, attempts pg_catalog.int4 NOT NULL DEFAULT 0, "
								 "payload pg_catalog.jsonb NOT NULL, headers pg_catalog.jsonb, max_attempts pg_catalog.int4, "
								 "backoff pg_catalog.interval[], expires_at pg_catalog.timestamptz, dedupe_key pg_catalog.text, "
								 "keys_if_undelivered pg_catalog.jsonb, undelivered_store pg_catalog.text, last_error pg_catalog.text, "
								 "sender pg_catalog.text, failed_at pg_catalog.timestamptz) "
								 "USING heap WITH (" MESSAGE_STORAGE ")", unlogged ? "UNLOGGED" : "", name));
	kvs_ddl_run_utility(psprintf("CREATE INDEX ON kvstore.q_%s (priority DESC, ready_at, id)", name));
	kvs_ddl_run_utility(psprintf("CREATE UNIQUE INDEX ON kvstore.q_%s (dedupe_key) WHERE dedupe_key IS NOT NULL", name));
	kvs_ddl_create_guard("q_", name);
	kvs_ddl_run_utility(psprintf("CREATE TRIGGER " KVS_GUARD_AFTER " AFTER INSERT OR UPDATE OR DELETE ON kvstore.q_%s "
								 "FOR EACH ROW EXECUTE FUNCTION kvstore.guard()", name));
	kvs_ddl_run_utility(psprintf("ALTER TABLE kvstore.q_%s ENABLE ALWAYS TRIGGER " KVS_GUARD_AFTER, name));
}

/* Whoever may delete a letter may do so by plain SQL, so the guard does not look at that. */
static void
create_dead(const char *name, bool unlogged)
{
	kvs_ddl_run_utility(psprintf("CREATE %s TABLE kvstore.d_%s ("
								 "id pg_catalog.int8 GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, original_id pg_catalog.int8 NOT NULL, "
								 "payload pg_catalog.jsonb NOT NULL, headers pg_catalog.jsonb, error pg_catalog.text, "
								 "attempts pg_catalog.int4 NOT NULL, enqueued_at pg_catalog.timestamptz NOT NULL, "
								 "failed_at pg_catalog.timestamptz NOT NULL, priority pg_catalog.int2 NOT NULL DEFAULT 0, "
								 "max_attempts pg_catalog.int4, backoff pg_catalog.interval[], ttl pg_catalog.interval, "
								 "dedupe_key pg_catalog.text, keys_if_undelivered pg_catalog.jsonb, "
								 "undelivered_store pg_catalog.text, sender pg_catalog.text) USING heap", unlogged ? "UNLOGGED" : "", name));
	kvs_ddl_run_utility(psprintf("CREATE TRIGGER " KVS_GUARD_TRIGGER " BEFORE INSERT OR UPDATE ON kvstore.d_%s "
								 "FOR EACH ROW EXECUTE FUNCTION kvstore.guard()", name));
	kvs_ddl_run_utility(psprintf("ALTER TABLE kvstore.d_%s ENABLE ALWAYS TRIGGER " KVS_GUARD_TRIGGER, name));
}

static const KvsCompanion dead_letters = {"d_", "table", "dead letters", kvs_queue_check_dead_shape, create_dead};

/* kv_create_queue(queue, lease, max_attempts, backoff, unlogged, keep_dead, if_not_exists) returns text */
PG_FUNCTION_INFO_V1(kvstore_create_queue);
Datum
kvstore_create_queue(PG_FUNCTION_ARGS)
{
	Setting		settings[SETTINGS];
	KvsCreation creation = {
		.registry = &kvs_registry_queues,
		.companion = &dead_letters,
		.check = kvs_queue_check_shape,
		.create = create_messages,
		.write_settings = write_settings,
		.name = kvs_catalog_check_name(kvs_entry_text_arg(fcinfo, 0), "queue"),
		.unlogged = kvs_entry_bool_arg(fcinfo, 4),
		.if_not_exists = kvs_entry_bool_arg(fcinfo, 6),
		.settings = settings
	};

	read_settings(fcinfo, 1, 5, settings);
	PreventCommandIfReadOnly("kv_create_queue()");
	(void) kvs_ddl_create(&creation);
	PG_RETURN_TEXT_P(kvs_ddl_table_name(creation.registry, creation.name));
}

/* ---- Alter, drop ---- */

/* Open the caller's own queue for a change of its settings. */
static KvsQueue *
open_own(FunctionCallInfo fcinfo, const char *function, Relation *rel)
{
	char	   *name = kvs_catalog_check_name(kvs_entry_text_arg(fcinfo, 0), "queue");

	PreventCommandIfReadOnly(function);
	kvs_registry_spare_warning(kvs_ddl_lock_own_table("q_", name, ShareUpdateExclusiveLock));
	return kvs_queue_open(kvs_entry_text_arg(fcinfo, 0), ShareUpdateExclusiveLock, rel);
}

/* Lock the dead letters of a queue, if they are there; 42501 if they are not its owner's. */
static void
lock_letters(const char *name, Oid owner, LOCKMODE lockmode)
{
	Oid			relid = kvs_catalog_find_table("d_", name);
	Relation	rel;

	/* Look before the lock too: a stranger must not hold us up. */
	kvs_shape_check_owner(relid, KVS_DEAD_PART, "queue", name, owner);
	rel = OidIsValid(relid) ? kvs_catalog_lock_table("d_", name, lockmode) : NULL;
	if (rel == NULL)
		return;
	relid = RelationGetRelid(rel);
	relation_close(rel, NoLock);
	kvs_shape_check_owner(relid, KVS_DEAD_PART, "queue", name, owner);
}

static void
change_settings(KvsQueue *queue, const Setting *settings)
{
	write_settings(queue->name, settings);
	kvs_registry_changed(queue->relid);
}

/* kv_alter_queue(queue, lease, max_attempts, backoff, keep_dead) returns boolean: true */
PG_FUNCTION_INFO_V1(kvstore_alter_queue);
Datum
kvstore_alter_queue(PG_FUNCTION_ARGS)
{
	Setting		settings[SETTINGS];
	Relation	rel;
	KvsQueue   *queue;

	read_settings(fcinfo, 1, 4, settings);
	queue = open_own(fcinfo, "kv_alter_queue()", &rel);
	lock_letters(queue->name, queue->owner, AccessShareLock);
	change_settings(queue, settings);
	table_close(rel, NoLock);
	PG_RETURN_BOOL(true);
}

/* Returns whether that is a change. */
static bool
set_paused(FunctionCallInfo fcinfo, const char *function, bool paused)
{
	Setting		settings[SETTINGS] = {{0}};
	Relation	rel;
	KvsQueue   *queue = open_own(fcinfo, function, &rel);
	bool		changes = queue->paused != paused;

	set_setting(&settings[SETTING_PAUSED], BoolGetDatum(paused), !paused);
	if (changes)
		change_settings(queue, settings);
	if (changes && !paused)
		kvs_waiter_wake_all_at_commit(queue->relid);
	table_close(rel, NoLock);
	return changes;
}

/* kv_pause_queue(queue) returns boolean: false if it was paused */
PG_FUNCTION_INFO_V1(kvstore_pause_queue);
Datum
kvstore_pause_queue(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(set_paused(fcinfo, "kv_pause_queue()", true));
}

/* kv_resume_queue(queue) returns boolean: false if it was not paused */
PG_FUNCTION_INFO_V1(kvstore_resume_queue);
Datum
kvstore_resume_queue(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(set_paused(fcinfo, "kv_resume_queue()", false));
}

/* Lock what there is of this queue; false: nothing.  All of it must be the caller's own. */
static bool
lock_own_tables(const char *name, LOCKMODE lockmode, Oid *messages)
{

	*messages = kvs_ddl_lock_own_table("q_", name, lockmode);
	if (!OidIsValid(*messages))
		return OidIsValid(kvs_ddl_lock_own_table("d_", name, lockmode));
	lock_letters(name, kvs_shape_owner(*messages), lockmode);
	return true;
}

/* kv_drop_queue(queue) returns boolean: false if there is none */
PG_FUNCTION_INFO_V1(kvstore_drop_queue);
Datum
kvstore_drop_queue(PG_FUNCTION_ARGS)
{
	Oid			relid;
	char	   *name = kvs_catalog_check_name(kvs_entry_text_arg(fcinfo, 0), "queue");

	PreventCommandIfReadOnly("kv_drop_queue()");
	if (!OidIsValid(kvs_ddl_find_own_table("q_", name)) && !OidIsValid(kvs_ddl_find_own_table("d_", name)))
		PG_RETURN_BOOL(false);
	kvs_ddl_lock_schema();
	if (!lock_own_tables(name, AccessExclusiveLock, &relid))
		PG_RETURN_BOOL(false);

	SPI_connect();
	kvs_ddl_run_utility(psprintf("DROP TABLE IF EXISTS kvstore.q_%s", name));
	kvs_ddl_run_utility(psprintf("DROP TABLE IF EXISTS kvstore.d_%s", name));
	SPI_finish();
	/* The worker looks what is due there, sees that the table is gone, and gives its places back: in the expiry map, and of its leases. */
	if (OidIsValid(relid))
	{
		kvs_expiry_note(relid, InvalidBlockNumber, DT_NOBEGIN);
		kvs_queueslot_look_soon(relid);
	}
	kvs_registry_delete(&kvs_registry_queues, name);
	PG_RETURN_BOOL(true);
}
