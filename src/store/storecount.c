/*
 * storecount.c
 *		How many stores and keys there are, estimated, for kv_health().
 *
 * Probes call it every few seconds, in new sessions, which have nothing cached.  To ask the
 * catalogs and the statistics about thousands of tables takes a hundred times as long as all else
 * in kv_health().  So where there are many stores the result is kept in shared memory for a while.
 * The lock protects all of it; without preload nothing is kept.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/shmem.h"
#include "store/storecount.h"
#include "table/catalog.h"

/* From so many stores on the result is kept, for so many milliseconds, for so many databases. */
#define MANY			1000
#define KEEP			10000
#define DATABASES		64

typedef struct StoreCount
{
	Oid			database;
	TimestampTz counted_at;
	int64		stores;
	int64		keys;
} StoreCount;

typedef struct StoreCounts
{
	LWLock	   *lock;
	/* indexed by a database's OID; the last one that was counted stays */
	StoreCount	kept[DATABASES];
} StoreCounts;

static StoreCounts *shared = NULL;

/* Has the table our first column?  Its whole shape is checked when it is used. */
static bool
has_key(Relation attributes, Oid relid)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result;

	ScanKeyInit(&keys[0], Anum_pg_attribute_attrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_attribute_attnum, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(1));
	scan = systable_beginscan(attributes, AttributeRelidNumIndexId, true, NULL, lengthof(keys), keys);
	tuple = systable_getnext(scan);
	result = HeapTupleIsValid(tuple) && ((Form_pg_attribute) GETSTRUCT(tuple))->atttypid == kvs_catalog_get()->kvkey_type &&
		strcmp(NameStr(((Form_pg_attribute) GETSTRUCT(tuple))->attname), "key") == 0;
	systable_endscan(scan);
	return result;
}

/* The larger of what VACUUM or ANALYZE found and what the statistics system knows to be live. */
static int64
estimate_keys(Form_pg_class form)
{
	int64		live = DatumGetInt64(DirectFunctionCall1(pg_stat_get_live_tuples, ObjectIdGetDatum(form->oid)));

	return Max((int64) form->reltuples, live);
}

static void
count_table(Form_pg_class form, void *arg)
{
	StoreCount *count = arg;
	Relation	attributes = table_open(AttributeRelationId, AccessShareLock);

	CHECK_FOR_INTERRUPTS();
	if (has_key(attributes, form->oid))
	{
		count->stores++;
		count->keys += estimate_keys(form);
	}
	table_close(attributes, AccessShareLock);
}

/* What is kept of this database and not too old; false: nothing is. */
static bool
read_kept(TimestampTz now, StoreCount *count)
{
	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	*count = shared->kept[MyDatabaseId % DATABASES];
	LWLockRelease(shared->lock);
	return count->database == MyDatabaseId && count->counted_at <= now &&
		!TimestampDifferenceExceeds(count->counted_at, now, KEEP);
}

static void
keep(const StoreCount *count)
{
	if (shared == NULL || count->stores < MANY)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->kept[MyDatabaseId % DATABASES] = *count;
	LWLockRelease(shared->lock);
}

static void
request_shmem(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(StoreCounts)));
	RequestNamedLWLockTranche("kvstore_storecount", 1);
}

static void
startup_shmem(void)
{
	bool		found;

	shared = ShmemInitStruct("kvstore store counts", sizeof(StoreCounts), &found);
	if (found)
		return;
	memset(shared, 0, sizeof(StoreCounts));
	shared->lock = &GetNamedLWLockTranche("kvstore_storecount")->lock;
}

void
kvs_storecount_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
}

/* ---- SQL ---- */

/*
 * kvstore.store_counts(): how many stores this database has, and how many keys they have, estimated
 */
PG_FUNCTION_INFO_V1(kvstore_store_counts);
Datum
kvstore_store_counts(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	StoreCount	count;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!read_kept(now, &count))
	{
		count = (StoreCount) {.database = MyDatabaseId, .counted_at = now};
		kvs_catalog_visit_tables("s_", count_table, &count);
		keep(&count);
	}
	values[0] = Int64GetDatum(count.stores);
	values[1] = Int64GetDatum(count.keys);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
