/*
 * directrange.c
 *		Deleting a range of entries the short way, without the executor.
 *
 * Rows must be locked in key order, or two such deletes wait for each other in a circle.  But key
 * order is random order in the table, and to delete a million rows page after page takes a third of
 * the time.  A session that waits for nobody cannot be part of a circle, so:
 *
 * - The index gives the places of the rows, many at once.  They are sorted, and the rows deleted
 *   page after page, without waiting for anybody, in a subtransaction.  If a row is locked or has
 *   changed, the subtransaction is rolled back, which releases all rows of this batch.  A statement
 *   that goes in key order, and waits, does the rest.  All rows for which it then waits are above
 *   those that we hold.
 * - If the range turns out to be a large part of the table, the table is read instead of the index,
 *   from one end to the other, in one such batch.  Each page is locked once instead of once for
 *   each of its rows, and there is nothing to sort.
 *
 * As in direct.c, whatever is not simple is left to that statement: REPEATABLE READ and above,
 * tables that are not plain.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "store/direct.h"
#include "store/find.h"
#include "base/progress.h"
#include "base/subxact.h"

/* Rows of one batch: their places take 8 MB. */
#define BATCH_ROWS	1000000

/*
 * Read the table instead of the index when the range has more than this part of its rows.  It must
 * have at least so many, because asking for the table's size is not free.
 */
#define TABLE_PART	3
#define TABLE_ROWS	10000

typedef struct RangeDelete
{
	Relation	rel;
	KvsFinder	finder;			/* for its index and slot */
	IndexScanDesc scan;
	const KvsKey *low;
	const KvsKey *high;
	bool		texts_only;
	bool		by_table;		/* the table is read, not the index */
	TimestampTz now;
	uint64	   *places;			/* block and offset, in one number that sorts as they do */
	int			count;
	double		most;			/* so many rows are a large part of the table */
	bool		at_end;			/* to ask the scan once more would start it again */
	KvsRangeDeletion *deletion; /* in batches that are done; its numbers in all */
	int64		batch_deleted;
	Snapshot	snapshot;		/* of the batch */
	bool		batch_done;
} RangeDelete;

static bool
is_wanted_key(const RangeDelete *range, Datum datum)
{
	struct varlena *key = PG_DETOAST_DATUM_PACKED(datum);
	bool		result = true;

	if (range->by_table)
		result = kvs_key_compare(PointerGetDatum(key), KvsKeyDatum(range->low)) >= 0 &&
			kvs_key_compare(PointerGetDatum(key), KvsKeyDatum(range->high)) < 0;
	if (result && range->texts_only)
		result = kvs_key_is_text(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	if (unlikely((Pointer) key != DatumGetPointer(datum)))
		pfree(key);
	return result;
}

/* Is this row one to delete? */
static bool
is_wanted(const RangeDelete *range, TupleTableSlot *row)
{
	slot_getsomeattrs(row, KVS_COLUMNS);
	if (!kvs_direct_is_live(row, range->now))
		return false;
	if (!range->texts_only && !range->by_table)
		return true;
	return !row->tts_isnull[KVS_COLUMN_KEY] && is_wanted_key(range, row->tts_values[KVS_COLUMN_KEY]);
}

/*
 * Are the rows found so far a large part of the table?  Asked once there are enough to be worth a
 * look at its size.
 */
static bool
is_most_of_table(RangeDelete *range)
{
	BlockNumber pages;
	double		all_visible;

	if (range->most == 0)
	{
		estimate_rel_size(range->rel, NULL, &pages, &range->most, &all_visible);
		range->most = Max(range->most / TABLE_PART, TABLE_ROWS);
	}
	return range->count >= range->most && range->deletion->count == 0;
}

/*
 * The places of the next rows; false if there are none left.  It may find that the table is to be
 * read instead.
 */
static bool
next_batch(RangeDelete *range)
{
	ItemPointer tid;

	range->count = 0;
	while (range->count < BATCH_ROWS && !range->at_end)
	{
		CHECK_FOR_INTERRUPTS();
		tid = index_getnext_tid(range->scan, ForwardScanDirection);
		range->at_end = tid == NULL;
		if (range->at_end)
			break;
		if (range->count >= TABLE_ROWS && range->count % TABLE_ROWS == 0 && is_most_of_table(range))
		{
			range->by_table = range->at_end = true;
			break;
		}
		range->places[range->count++] = (uint64) ItemPointerGetBlockNumber(tid) << 16 | ItemPointerGetOffsetNumber(tid);
	}
	return range->count > 0;
}

/* qsort() with the comparison inlined: half the time for a million */
#define ST_SORT sort_places
#define ST_ELEMENT_TYPE uint64
#define ST_COMPARE(a, b) ((*(a) > *(b)) - (*(a) < *(b)))
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

void
kvs_directrange_note_deleted(KvsRangeDeletion *deletion, Datum key, int64 versionstamp)
{
	kvs_progress_advance();
	if (unlikely(!kvs_stamp_survey(&deletion->numbers, versionstamp)))
	{
		struct varlena *bytes = PG_DETOAST_DATUM_PACKED(key);

		kvs_stamp_remember(deletion->relid, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), versionstamp);
		if (PointerGetDatum(bytes) != key)
			pfree(bytes);
	}
}

/* Delete the row in the slot if it is one to delete; false if another session has it just now. */
static bool
delete_row(RangeDelete *range, Snapshot snapshot)
{
	TupleTableSlot *slot = range->finder.slot;
	TM_FailureData failure;

	if (!is_wanted(range, slot))
		return true;
	range->batch_deleted++;
	kvs_directrange_note_deleted(range->deletion, slot->tts_values[KVS_COLUMN_KEY],
							DatumGetInt64(slot->tts_values[KVS_COLUMN_VERSIONSTAMP]));
	return table_tuple_delete(range->rel, &slot->tts_tid, GetCurrentCommandId(true), snapshot, InvalidSnapshot,
							  false, &failure, false) == TM_Ok;
}

/* Delete the rows at the places of the batch; false if another session has one of them. */
static bool
delete_places(RangeDelete *range, Snapshot snapshot)
{
	IndexFetchTableData *fetch = table_index_fetch_begin(range->rel);
	bool		ours = true;

	for (int i = 0; i < range->count && ours; i++)
	{
		ItemPointerData tid;
		bool		call_again = false;

		CHECK_FOR_INTERRUPTS();
		ItemPointerSet(&tid, (BlockNumber) (range->places[i] >> 16), (OffsetNumber) range->places[i]);
		if (table_index_fetch_tuple(fetch, &tid, snapshot, range->finder.slot, &call_again, NULL))
			ours = delete_row(range, snapshot);
	}
	table_index_fetch_end(fetch);
	return ours;
}

/* Delete all rows of the range that the table has. */
static bool
delete_by_table(RangeDelete *range, Snapshot snapshot)
{
	TableScanDesc scan = table_beginscan(range->rel, snapshot, 0, NULL);
	bool		ours = true;

	while (ours && table_scan_getnextslot(scan, ForwardScanDirection, range->finder.slot))
	{
		CHECK_FOR_INTERRUPTS();
		ours = delete_row(range, snapshot);
	}
	table_endscan(scan);
	return ours;
}

static bool
delete_batch(RangeDelete *range, Snapshot snapshot)
{
	bool		ours;

	range->batch_deleted = 0;
	ours = range->by_table ? delete_by_table(range, snapshot) : delete_places(range, snapshot);
	ExecClearTuple(range->finder.slot);
	return ours;
}

/* Returns whether the batch is to stay. */
static bool
delete_with_snapshot(void *arg)
{
	RangeDelete *range = arg;

	PushActiveSnapshot(range->snapshot);
	range->batch_done = delete_batch(range, range->snapshot);
	PopActiveSnapshot();
	return range->batch_done;
}

/* The same in a subtransaction, which stays only if all went well. */
static bool
delete_batch_or_nothing(RangeDelete *range, Snapshot snapshot)
{
	if (!range->by_table)
		sort_places(range->places, range->count);
	range->snapshot = snapshot;
	kvs_subxact_run(delete_with_snapshot, range);
	if (range->batch_done)
		range->deletion->count += range->batch_deleted;
	return range->batch_done;
}

static KvsDirect
delete_batches(RangeDelete *range)
{
	Snapshot	snapshot = GetActiveSnapshot();
	ScanKeyData keys[2];
	KvsDirect	result = KVS_DIRECT_DONE;

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_BYTEAGE, KvsKeyDatum(range->low));
	ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_BYTEALT, KvsKeyDatum(range->high));
	range->scan = kvs_compat_index_beginscan(range->rel, range->finder.index, snapshot, 2);
	index_rescan(range->scan, keys, 2, NULL, 0);
	range->places = palloc(sizeof(uint64) * BATCH_ROWS);
	while (result == KVS_DIRECT_DONE && next_batch(range))
		if (!delete_batch_or_nothing(range, snapshot))
			result = KVS_DIRECT_IMPOSSIBLE;
	pfree(range->places);
	index_endscan(range->scan);
	return result;
}

KvsDirect
kvs_directrange_delete_range(KvsStore *store, const KvsKey *low, const KvsKey *high, bool texts_only, TimestampTz now,
						KvsRangeDeletion *deletion)
{
	RangeDelete range = {.low = low, .high = high, .texts_only = texts_only, .now = now, .deletion = deletion};
	KvsDirect	result = KVS_DIRECT_IMPOSSIBLE;

	if (!kvs_direct_is_possible(store, ACL_SELECT | ACL_DELETE) || IsolationUsesXactSnapshot())
		return result;
	range.rel = table_open(store->relid, NoLock);
	CheckCmdReplicaIdentity(range.rel, CMD_DELETE);
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	kvs_find_begin(&range.finder, range.rel, store->indexid, RowExclusiveLock, GetActiveSnapshot());
	if (kvs_find_open_index(&range.finder))
	{
		range.finder.slot = table_slot_create(range.rel, NULL);
		result = delete_batches(&range);
	}
	kvs_find_end(&range.finder);
	PopActiveSnapshot();
	CommandCounterIncrement();
	table_close(range.rel, NoLock);
	return result;
}
