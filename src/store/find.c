/*
 * find.c
 *		Finding the row of a key, with a given snapshot, without the executor.
 *
 * First where the row map says (rowmap.c), then by the index.  The index is opened and locked only
 * when it is needed.
 *
 * SERIALIZABLE transactions always ask the index: that is where they leave the trace of having
 * looked for a key.  A standby does too: there only the process that replays knows whether a block
 * still exists.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "store/find.h"
#include "store/rowmap.h"

void
kvs_find_begin(KvsFinder *finder, Relation rel, Oid indexid, LOCKMODE index_lock, Snapshot snapshot)
{
	finder->rel = rel;
	finder->indexid = indexid;
	finder->index_lock = index_lock;
	finder->snapshot = snapshot;
	finder->use_map = !IsolationIsSerializable() && !RecoveryInProgress();
	finder->slot = NULL;
	finder->fetch = NULL;
	finder->index = NULL;
	finder->desc = NULL;
}

/*
 * An index that was built over rows with broken HOT chains misses some of them for snapshots that
 * are older than it.  The planner leaves it out then, and so must we.
 */
bool
kvs_find_open_index(KvsFinder *finder)
{
	Relation	index = finder->index;

	if (index == NULL)
		index = finder->index = index_open(finder->indexid, finder->index_lock);
	return likely(!index->rd_index->indcheckxmin) ||
		TransactionIdPrecedes(HeapTupleHeaderGetXmin(index->rd_indextuple->t_data), TransactionXmin);
}

/* Is the row in the slot that of the key?  A key that lies out of line is not worth a look. */
static bool
has_key(TupleTableSlot *slot, const KvsKey *key)
{
	struct varlena *found;

	slot_getsomeattrs(slot, 1);
	found = (struct varlena *) DatumGetPointer(slot->tts_values[0]);
	return !slot->tts_isnull[0] && !VARATT_IS_EXTERNAL(found) && !VARATT_IS_COMPRESSED(found) &&
		(int) VARSIZE_ANY_EXHDR(found) == key->size && memcmp(VARDATA_ANY(found), KvsKeyBytes(key), key->size) == 0;
}

static bool
find_by_map(KvsFinder *finder, uint64 hash, const KvsKey *key)
{
	ItemPointerData tid;
	bool		call_again = false;

	if (!kvs_rowmap_get(finder->rel, hash, &tid))
		return false;
	if (finder->fetch == NULL)
		finder->fetch = table_index_fetch_begin(finder->rel);
	return table_index_fetch_tuple(finder->fetch, &tid, finder->snapshot, finder->slot, &call_again, NULL) &&
		has_key(finder->slot, key);
}

static bool
find_by_index(KvsFinder *finder, uint64 hash, const KvsKey *key)
{
	ItemPointer tid;

	if (finder->desc == NULL)
		finder->desc = kvs_compat_index_beginscan(finder->rel, finder->index, finder->snapshot, 1);
	ScanKeyInit(&finder->scan_key, 1, BTEqualStrategyNumber, F_BYTEAEQ, KvsKeyDatum(key));
	index_rescan(finder->desc, &finder->scan_key, 1, NULL, 0);
	while ((tid = index_getnext_tid(finder->desc, ForwardScanDirection)) != NULL)
	{
		/*
		 * to fetch the row moves the pointer from the root of its HOT chain to the version that is
		 * visible
		 */
		ItemPointerData root = *tid;

		if (!index_fetch_heap(finder->desc, finder->slot))
			continue;
		if (finder->use_map)
			kvs_rowmap_put(hash, &root);
		return true;
	}
	return false;
}

bool
kvs_find_row(Relation rel, Relation index, Datum key, Snapshot snapshot, TupleTableSlot *slot)
{
	IndexScanDesc scan = kvs_compat_index_beginscan(rel, index, snapshot, 1);
	ScanKeyData scan_key;
	bool		found;

	ScanKeyInit(&scan_key, 1, BTEqualStrategyNumber, F_BYTEAEQ, key);
	index_rescan(scan, &scan_key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	return found;
}

KvsFound
kvs_find(KvsFinder *finder, const KvsKey *key)
{
	uint64		hash = 0;

	if (finder->slot == NULL)
		finder->slot = table_slot_create(finder->rel, NULL);
	if (finder->use_map)
	{
		hash = kvs_rowmap_hash(RelationGetRelid(finder->rel), KvsKeyBytes(key), key->size);
		if (find_by_map(finder, hash, key))
			return KVS_FOUND;
	}
	if (!kvs_find_open_index(finder))
		return KVS_INDEX_TOO_YOUNG;
	return find_by_index(finder, hash, key) ? KVS_FOUND : KVS_ABSENT;
}

void
kvs_find_end(KvsFinder *finder)
{
	if (finder->slot != NULL)
		ExecDropSingleTupleTableSlot(finder->slot);
	if (finder->fetch != NULL)
		table_index_fetch_end(finder->fetch);
	if (finder->desc != NULL)
		index_endscan(finder->desc);
	if (finder->index != NULL)
		index_close(finder->index, NoLock);
}
