/*
 * scan.c
 *		Rows out: reading a store by key and by range, with the active snapshot.
 *
 * A direct index scan costs two thirds of a kept SPI plan (measured), and one scan can be restarted
 * for key after key.  It bypasses the executor, so it checks SELECT here, and leaves to the
 * executor what needs a planner, such as row-level security.  Both ways give the same rows.  Only
 * the functions in this file know which one it is.
 *
 * An expired entry is hidden by the clock, not by the snapshot: no snapshot gives it, however old.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "store/scan.h"
#include "table/catalog.h"

/* Kept plans of the executor's way; statement.c has its own after them. */
enum
{
	PLAN_FIND,
	PLAN_FORWARD,
	PLAN_BACKWARD
};

/* Rows fetched at once from a cursor. */
#define CURSOR_BATCH		100

#define ROW_COLUMNS "SELECT key, value, bytes, kind, versionstamp, expires_at FROM kvstore.s_%s WHERE key OPERATOR(%s.%s) $1"

static void check_select(Relation rel);
static bool has_policies(const KvsScan *scan);
static void use_executor(KvsScan *scan);

void
kvs_scan_begin(KvsScan *scan, const text *store_name, TimestampTz now)
{
	kvs_scan_begin_with(scan, store_name, now, GetActiveSnapshot());
}

void
kvs_scan_begin_with(KvsScan *scan, const text *store_name, TimestampTz now, Snapshot snapshot)
{
	scan->store = kvs_storecatalog_open_store(store_name, AccessShareLock, &scan->rel);
	scan->now = now;
	scan->context = CurrentMemoryContext;
	scan->key_copy = NULL;
	scan->desc = NULL;
	scan->portal = NULL;
	scan->by_executor = false;

	check_select(scan->rel);
	kvs_find_begin(&scan->finder, scan->rel, scan->store->indexid, AccessShareLock, snapshot);
	if (unlikely(has_policies(scan)))
		use_executor(scan);
}

static void
use_executor(KvsScan *scan)
{
	scan->by_executor = true;
	SPI_connect();
	MemoryContextSwitchTo(scan->context);
}

static bool
has_policies(const KvsScan *scan)
{
	return unlikely(scan->rel->rd_rel->relrowsecurity) &&
		check_enable_rls(scan->store->relid, InvalidOid, false) == RLS_ENABLED;
}

static void
check_select(Relation rel)
{
	AclResult	result = pg_class_aclcheck(RelationGetRelid(rel), GetUserId(), ACL_SELECT);

	if (unlikely(result != ACLCHECK_OK))
		aclcheck_error(result, OBJECT_TABLE, RelationGetRelationName(rel));
}

/* ---- The executor's way ---- */

/* The kept plan of one of our SELECTs, made at first use. */
static SPIPlanPtr
get_plan(KvsScan *scan, int which)
{
	KvsStore   *store = scan->store;
	SPIPlanPtr *plan = kvs_storecatalog_plan(store, which);
	const char *schema;
	Oid			types[2];
	char	   *sql;

	if (*plan != NULL)
		return *plan;
	schema = kvs_catalog_function_schema();
	types[0] = types[1] = kvs_catalog_get()->kvkey_type;
	if (which == PLAN_FIND)
		sql = psprintf(ROW_COLUMNS, store->name, schema, "=");
	else
		sql = psprintf(ROW_COLUMNS " AND key OPERATOR(%s.<) $2 ORDER BY key USING OPERATOR(%s.%s)",
					   store->name, schema, ">=", schema, schema, which == PLAN_FORWARD ? "<" : ">");
	*plan = SPI_prepare(sql, which == PLAN_FIND ? 1 : 2, types);
	if (*plan == NULL || SPI_keepplan(*plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return *plan;
}

static void
fetch_batch(KvsScan *scan)
{
	SPI_cursor_fetch(scan->portal, true, CURSOR_BATCH);
	scan->batch = SPI_tuptable;
	scan->batch_size = SPI_processed;
	scan->batch_next = 0;
	MemoryContextSwitchTo(scan->context);
}

static void
restart_portal(KvsScan *scan, int plan, Datum *keys)
{
	if (scan->portal != NULL)
		SPI_cursor_close(scan->portal);
	scan->portal = NULL;
	/* to plan it may run code of a user; once it is open, the cursor keeps what it needs itself */
	kvs_plan_begin();
	PG_TRY();
	{
		scan->portal = SPI_cursor_open(NULL, get_plan(scan, plan), keys, NULL, true);
	}
	PG_FINALLY();
	{
		kvs_plan_end();
	}
	PG_END_TRY();
	fetch_batch(scan);
}

/* ---- Rows ---- */

/* Fill "row" from the columns; false if it has expired. */
static bool
fill_row(KvsScan *scan, const Datum *values, const bool *nulls, KvsRow *row)
{
	struct varlena *key = (struct varlena *) DatumGetPointer(values[KVS_COLUMN_KEY]);

	row->expires_at = nulls[KVS_COLUMN_EXPIRES_AT] ? DT_NOEND : DatumGetTimestampTz(values[KVS_COLUMN_EXPIRES_AT]);
	if (row->expires_at <= scan->now)
		return false;
	/* VARATT_IS_SHORT() is true of a toast pointer too */
	if (unlikely(VARATT_IS_EXTERNAL(key) || VARATT_IS_COMPRESSED(key)))
	{
		if (scan->key_copy != NULL)
			pfree(scan->key_copy);
		key = scan->key_copy = pg_detoast_datum_copy(key);
	}
	row->key = VARDATA_ANY(key);
	row->key_size = VARSIZE_ANY_EXHDR(key);
	kvs_content_read(values, nulls, &row->content);
	row->versionstamp = DatumGetInt64(values[KVS_COLUMN_VERSIONSTAMP]);
	return true;
}

static bool
next_by_index(KvsScan *scan, KvsRow *row)
{
	TupleTableSlot *slot = scan->finder.slot;

	while (index_getnext_slot(scan->desc, scan->direction, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getsomeattrs(slot, KVS_COLUMNS);
		if (fill_row(scan, slot->tts_values, slot->tts_isnull, row))
			return true;
	}
	return false;
}

static bool
next_by_executor(KvsScan *scan, KvsRow *row)
{
	for (;;)
	{
		Datum		values[KVS_COLUMNS];
		bool		nulls[KVS_COLUMNS];

		CHECK_FOR_INTERRUPTS();
		if (scan->batch_next == scan->batch_size)
		{
			SPI_freetuptable(scan->batch);
			fetch_batch(scan);
			if (scan->batch_size == 0)
				return false;
		}
		heap_deform_tuple(scan->batch->vals[scan->batch_next++], scan->batch->tupdesc, values, nulls);
		if (fill_row(scan, values, nulls, row))
			return true;
	}
}

/* ---- What the others call ---- */

bool
kvs_scan_find(KvsScan *scan, const KvsKey *key, KvsRow *row)
{
	Datum		datum = KvsKeyDatum(key);

	if (likely(!scan->by_executor))
	{
		TupleTableSlot *slot;

		switch (kvs_find(&scan->finder, key))
		{
			case KVS_FOUND:
				slot = scan->finder.slot;
				slot_getsomeattrs(slot, KVS_COLUMNS);
				return fill_row(scan, slot->tts_values, slot->tts_isnull, row);
			case KVS_ABSENT:
				return false;
			case KVS_INDEX_TOO_YOUNG:
				use_executor(scan);
				break;
		}
	}
	restart_portal(scan, PLAN_FIND, &datum);
	return next_by_executor(scan, row);
}

bool
kvs_scan_is_direct(KvsScan *scan)
{
	return !scan->by_executor && kvs_find_open_index(&scan->finder);
}

void
kvs_scan_range(KvsScan *scan, const KvsKey *low, const KvsKey *high, bool reverse)
{
	KvsFinder  *finder = &scan->finder;

	if (!scan->by_executor && finder->index == NULL && !kvs_find_open_index(finder))
		use_executor(scan);
	if (unlikely(scan->by_executor))
	{
		Datum		keys[2] = {KvsKeyDatum(low), KvsKeyDatum(high)};

		restart_portal(scan, reverse ? PLAN_BACKWARD : PLAN_FORWARD, keys);
		return;
	}
	if (finder->slot == NULL)
		finder->slot = table_slot_create(scan->rel, NULL);
	if (scan->desc == NULL)
		scan->desc = kvs_compat_index_beginscan(scan->rel, finder->index, finder->snapshot, 2);
	ScanKeyInit(&scan->keys[0], 1, BTGreaterEqualStrategyNumber, F_BYTEAGE, KvsKeyDatum(low));
	ScanKeyInit(&scan->keys[1], 1, BTLessStrategyNumber, F_BYTEALT, KvsKeyDatum(high));
	scan->direction = reverse ? BackwardScanDirection : ForwardScanDirection;
	index_rescan(scan->desc, scan->keys, 2, NULL, 0);
}

bool
kvs_scan_next(KvsScan *scan, KvsRow *row)
{
	return unlikely(scan->by_executor) ? next_by_executor(scan, row) : next_by_index(scan, row);
}

void
kvs_scan_end(KvsScan *scan)
{
	if (unlikely(scan->by_executor))
	{
		if (scan->portal != NULL)
			SPI_cursor_close(scan->portal);
		SPI_finish();
	}
	if (scan->desc != NULL)
		index_endscan(scan->desc);
	kvs_find_end(&scan->finder);
	table_close(scan->rel, NoLock);
}
