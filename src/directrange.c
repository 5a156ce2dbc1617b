/*
 * directrange.c
 *		Deleting a range of entries the short way, without the executor.
 *
 * Rows must be locked in key order, or two such deletes wait for each other in a circle.  But key order is random order in the table, and to delete a
 * million rows page after page takes a third of the time.  Who waits for nobody cannot be part of a circle, so:
 *
 *		The index gives the places of the rows, many at once.  They are sorted, and the rows deleted page after page, without waiting for anybody, in a subtransaction.
 *		If a row is locked or has changed, the subtransaction is rolled back, which lets go of all rows of this batch, and a statement that goes in
 *		key order, and waits, does the rest.  What it then waits for is above all that we hold.
 *
 * As in direct.c, whatever is not simple is left to that statement: REPEATABLE READ and above, tables that are not plain.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "direct.h"
#include "find.h"
#include "progress.h"

/* Rows of one batch: their places take 8 MB. */
#define BATCH_ROWS	1000000

typedef struct RangeDelete
{
	Relation	rel;
	KvsFinder	finder;			/* for its index and slot */
	IndexScanDesc scan;
	bool		texts_only;
	TimestampTz now;
	uint64	   *places;			/* block and offset, in one number that sorts as they do */
	int			count;
	bool		at_end;			/* to ask the scan once more would start it again */
	int64		deleted;		/* in batches that are done */
	int64		batch_deleted;
} RangeDelete;

/* Is this row one to delete? */
static bool
is_wanted(const RangeDelete *range, TupleTableSlot *row)
{
	struct varlena *key;

	slot_getsomeattrs(row, KVS_COLUMNS);
	if (!kvs_direct_is_live(row, range->now))
		return false;
	if (!range->texts_only)
		return true;
	key = PG_DETOAST_DATUM_PACKED(row->tts_values[KVS_COLUMN_KEY]);
	return kvs_key_is_text(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
}

/* The places of the next rows; false if there are none left. */
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

/* Delete the rows of the batch; false if one of them is somebody else's just now. */
static bool
delete_batch(RangeDelete *range, Snapshot snapshot)
{
	IndexFetchTableData *fetch = table_index_fetch_begin(range->rel);
	TupleTableSlot *slot = range->finder.slot;
	bool		ours = true;

	range->batch_deleted = 0;
	for (int i = 0; i < range->count && ours; i++)
	{
		ItemPointerData tid;
		bool		call_again = false;
		TM_FailureData failure;

		CHECK_FOR_INTERRUPTS();
		ItemPointerSet(&tid, (BlockNumber) (range->places[i] >> 16), (OffsetNumber) range->places[i]);
		if (!table_index_fetch_tuple(fetch, &tid, snapshot, slot, &call_again, NULL) ||
			!is_wanted(range, slot))
			continue;
		ours = table_tuple_delete(range->rel, &slot->tts_tid, GetCurrentCommandId(true), snapshot, InvalidSnapshot,
								  false, &failure, false) == TM_Ok;
		range->batch_deleted++;
		kvs_progress_advance();
	}
	ExecClearTuple(slot);
	table_index_fetch_end(fetch);
	return ours;
}

/* The same in a subtransaction, which stays only if all went well. */
static bool
delete_batch_or_nothing(RangeDelete *range, Snapshot snapshot)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	sort_places(range->places, range->count);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		PushActiveSnapshot(snapshot);
		done = delete_batch(range, snapshot);
		PopActiveSnapshot();
		if (done)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		/* an error must not leave a subtransaction open that nobody knows of */
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (done)
		range->deleted += range->batch_deleted;
	return done;
}

static KvsDirect
delete_batches(RangeDelete *range, const KvsKey *low, const KvsKey *high)
{
	Snapshot	snapshot = GetActiveSnapshot();
	ScanKeyData keys[2];
	KvsDirect	result = KVS_DIRECT_DONE;

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_BYTEAGE, KvsKeyDatum(low));
	ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_BYTEALT, KvsKeyDatum(high));
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
kvs_direct_delete_range(KvsStore *store, const KvsKey *low, const KvsKey *high, bool texts_only, TimestampTz now,
						int64 *deleted)
{
	RangeDelete range = {.texts_only = texts_only, .now = now};
	KvsDirect	result = KVS_DIRECT_IMPOSSIBLE;

	*deleted = 0;
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
		result = delete_batches(&range, low, high);
	}
	kvs_find_end(&range.finder);
	PopActiveSnapshot();
	CommandCounterIncrement();
	table_close(range.rel, NoLock);
	*deleted = range.deleted;
	return result;
}
