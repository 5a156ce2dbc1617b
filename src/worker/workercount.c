/*
 * workercount.c
 *		Counting the messages of a queue, once a session has asked.  queuecount.c says why the
 *		result is exact.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "lease/queueslot.h"
#include "worker/workercount.h"
#include "worker/workerprocess.h"

/* Rows between two checks whether a session waits for the table or the database. */
#define PATIENCE		10000

/* Try again after so many milliseconds. */
#define RETRY			1000

/* With its epoch. */
static FullTransactionId
widen(TransactionId xid, FullTransactionId next)
{
	int32		behind = (int32) (XidFromFullTransactionId(next) - xid);

	return FullTransactionIdFromU64(U64FromFullTransactionId(next) - behind);
}

/* Take the snapshot to count with, and write it down; NULL: too many transactions run just now. */
static Snapshot
begin(KvsQueue *queue, uint64 *number)
{
	FullTransactionId next = ReadNextFullTransactionId();
	KvsQueueSlot *slot;
	KvsMessageCount *count;
	Snapshot	snapshot;

	/* the first one allocates its memory, which is not for when a lock is held */
	(void) GetLatestSnapshot();
	slot = kvs_queueslot_lock(queue);
	count = &slot->count;
	snapshot = GetLatestSnapshot();
	count->due = DT_NOEND;
	if (snapshot->xcnt > KVS_COUNT_XIDS)
	{
		count->due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY);
		LWLockRelease(slot->lock);
		return NULL;
	}
	*number = ++count->number;
	count->begun = true;
	count->known = false;
	count->messages = 0;
	count->xmin = widen(snapshot->xmin, next);
	count->xmax = widen(snapshot->xmax, next);
	count->nxip = snapshot->xcnt;
	memcpy(count->xip, snapshot->xip, snapshot->xcnt * sizeof(TransactionId));
	LWLockRelease(slot->lock);
	return RegisterSnapshot(snapshot);
}

/*
 * Does a session wait for the table, to have it alone?  Its request comes before one of ours for a
 * lock that we have not yet.
 */
static bool
is_wanted(Relation rel)
{
	if (!ConditionalLockRelation(rel, AccessShareLock))
		return true;
	UnlockRelation(rel, AccessShareLock);
	return kvs_workerprocess_is_in_the_way();
}

/* False: a session waits for the table or the database. */
static bool
count_rows(Relation rel, Snapshot snapshot, int64 *rows)
{
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		done = true;

	*rows = 0;
	while (done && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (++*rows % PATIENCE == 0)
			done = !is_wanted(rel);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	return done;
}

static void
end(KvsQueue *queue, uint64 number, bool done, int64 rows)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	KvsMessageCount *count = &slot->count;

	if (count->number == number)
	{
		count->known = done;
		count->messages += rows;
		count->due = done ? DT_NOEND : TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY);
	}
	LWLockRelease(slot->lock);
}

bool
kvs_workercount_run(KvsQueue *queue, Relation rel)
{
	uint64		number;
	Snapshot	snapshot = begin(queue, &number);
	int64		rows;
	bool		done;

	Assert(!TransactionIdIsValid(GetTopTransactionIdIfAny()));
	if (snapshot == NULL)
		return false;
	kvs_fault_stop(KVS_FAULT_COUNT);
	done = count_rows(rel, snapshot, &rows);
	UnregisterSnapshot(snapshot);
	end(queue, number, done, rows);
	return done;
}
