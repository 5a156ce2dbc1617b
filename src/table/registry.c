/*
 * registry.c
 *		Settings of stores, queues and snapshot stores: rows in tables of the extension.
 *
 * Whatever kv_create_*() makes has a row, with NULL for a setting that is the default.  So a table
 * without a row was made, renamed or restored in another way: pg_dump -t does not take the row
 * along.  Its settings are the defaults, and the first use in each session says so.
 *
 * Rows are written as the registry's owner, after the caller's own right was checked.  A restore
 * writes them by plain SQL, which superusers and the owner of the database may.  A trigger makes
 * sure that the latter gives settings to their own tables alone, and that a row that is there is
 * replaced.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/identity.h"
#include "table/registry.h"
#include "table/shape.h"

const KvsRegistry kvs_registry_stores = {"store", "s_", "stores", "store"};
const KvsRegistry kvs_registry_queues = {"queue", "q_", "queues", "queue"};
const KvsRegistry kvs_registry_snapshots = {"snapshot store", "p_", "snapshot_stores", "store"};

static HTAB *told = NULL;		/* OIDs of tables whose warning this session has had */

/* InvalidOid while CREATE EXTENSION has not come so far. */
static Oid
find_relation(const char *name)
{
	Oid			schema = get_namespace_oid("kvstore", true);

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

/* ---- Reading ---- */

static bool
is_primary(Relation index, const void *arg)
{
	return index->rd_index->indisprimary;
}

bool
kvs_registry_read(const KvsRegistry *registry, const char *name, KvsRegistryTake take, void *arg)
{
	Oid			relid = find_relation(registry->table);
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	if (!OidIsValid(relid))
		return false;
	rel = table_open(relid, AccessShareLock);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(name));
	key.sk_collation = TupleDescAttr(RelationGetDescr(rel), 0)->attcollation;
	/* by the primary key, for there may be thousands of rows */
	scan = systable_beginscan(rel, kvs_shape_find_index(rel, is_primary, NULL), true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found && take != NULL)
		take(tuple, RelationGetDescr(rel), arg);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* ---- The warning ---- */

/* Returns whether it is news to this session. */
static bool
remember_told(Oid relid)
{
	bool		found;

	if (told == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(Oid)};

		told = hash_create("kvstore warnings", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	(void) hash_search(told, &relid, HASH_ENTER, &found);
	return !found;
}

void
kvs_registry_warn(const KvsRegistry *registry, const char *name, Oid relid)
{
	/* Nobody reads what a worker says, and it comes back every minute. */
	if (MyBgworkerEntry != NULL || !remember_told(relid))
		return;
	ereport(WARNING,
			(errmsg("settings of %s \"%s\" are not known: it has the defaults", registry->noun, name),
			 errdetail("Table \"kvstore.%s\" has no row for it, as after pg_dump -t or ALTER TABLE ... RENAME.",
					   registry->table),
			 errhint("As its owner, call %s('%s', ...) or %s('%s', ..., if_not_exists => true) with the "
					 "settings that it had; without any, the defaults stay.",
					 kvs_shape_function("kv_alter_", registry->noun), name,
					 kvs_shape_function("kv_create_", registry->noun), name)));
}

void
kvs_registry_spare_warning(Oid relid)
{
	(void) remember_told(relid);
}

/* ---- Writing ---- */

void
kvs_registry_run(const KvsRegistry *registry, const char *sql, int nargs, Oid *types, Datum *values,
				 const char *nulls)
{
	KvsIdentity saved;

	kvs_identity_become(kvs_shape_owner(find_relation(registry->table)), &saved);
	SPI_connect();
	SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
	SPI_finish();
	kvs_identity_restore(&saved);
}

void
kvs_registry_delete(const KvsRegistry *registry, const char *name)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(name);

	kvs_registry_run(registry,
					 psprintf("DELETE FROM kvstore.%s WHERE %s OPERATOR(pg_catalog.=) $1",
							  registry->table, registry->column),
					 1, &type, &value, NULL);
}

void
kvs_registry_changed(Oid relid)
{
	/* Every session has the settings cached beside the table's shape. */
	CacheInvalidateRelcacheByRelid(relid);
	/* this one in the same statement, too */
	CommandCounterIncrement();
}

/* ---- Rows that a restore, or a subscription, brings ---- */

static const KvsRegistry *
find_registry(Oid relid)
{
	const KvsRegistry *all[] = {&kvs_registry_stores, &kvs_registry_queues, &kvs_registry_snapshots};

	for (int i = 0; i < (int) lengthof(all); i++)
		if (find_relation(all[i]->table) == relid)
			return all[i];
	return NULL;
}

/* Make room for a row, unless the caller may not give settings to that table. */
static bool
admit_row(const KvsRegistry *registry, const char *name, bool owns_registry)
{
	Oid			relid = find_relation(psprintf("%s%s", registry->prefix, name));

	if (!owns_registry && !(OidIsValid(relid) && kvs_compat_owns_table(relid, GetUserId())))
	{
		ereport(WARNING,
				(errmsg("settings of %s \"%s\" are left out", registry->noun, name),
				 errdetail("Table \"kvstore.%s%s\" is not there, or belongs to somebody else.", registry->prefix, name),
				 errhint("Its owner can call %s().", kvs_shape_function("kv_alter_", registry->noun))));
		return false;
	}
	kvs_registry_delete(registry, name);
	if (OidIsValid(relid))
		kvs_registry_changed(relid);
	return true;
}

PG_FUNCTION_INFO_V1(kvstore_settings_inserted);
Datum
kvstore_settings_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	const KvsRegistry *registry;
	bool		owns_registry;
	bool		isnull;
	Datum		name;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("kvstore.settings_inserted() must be called as a BEFORE INSERT ROW trigger")));

	/* Anybody may put the trigger on a table of their own: such a table is none of ours. */
	registry = find_registry(RelationGetRelid(data->tg_relation));
	if (registry == NULL)
		return PointerGetDatum(data->tg_trigtuple);
	/* kvs_registry_run() knows itself what to do with a row that is there */
	owns_registry = kvs_compat_owns_table(RelationGetRelid(data->tg_relation), GetUserId());
	if (owns_registry && InSecurityRestrictedOperation())
		return PointerGetDatum(data->tg_trigtuple);
	name = heap_getattr(data->tg_trigtuple, 1, RelationGetDescr(data->tg_relation), &isnull);
	if (!isnull && !admit_row(registry, TextDatumGetCString(name), owns_registry))
		return PointerGetDatum(NULL);
	return PointerGetDatum(data->tg_trigtuple);
}
