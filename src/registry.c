/*
 * registry.c
 *		Settings of stores, queues and snapshot stores: rows in tables of the extension.
 *
 * Whatever kv_create_*() makes has a row, with NULL for a setting that is the default.  So a table
 * without a row was made, renamed or restored in another way: pg_dump -t does not take the row
 * along.  Its settings are the defaults, and the first use in each session says so.
 *
 * Rows are written as the registry's owner, after the caller's own right was checked; a trigger
 * lets the owner of a database restore those of their own tables.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "registry.h"
#include "shape.h"

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
	Oid			owner = kvs_shape_owner(find_relation(registry->table));
	Oid			saved_user;
	int			saved_context;

	/* An ERROR restores the identity together with the transaction's state. */
	GetUserIdAndSecContext(&saved_user, &saved_context);
	SetUserIdAndSecContext(owner, saved_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	SPI_connect();
	SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
	SPI_finish();
	SetUserIdAndSecContext(saved_user, saved_context);
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
