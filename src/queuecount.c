/*
 * queuecount.c
 *		How many messages each queue has, without counting them.
 *
 * The number of committed rows of a queue stands in its slot in shared memory.  A transaction notes what it adds and removes, and publishes the sum in
 * its commit callback (queuexact.c).
 *
 * After a start, and when a queue has got its slot anew, nobody knows the number.  Once somebody asks, the worker counts the rows, while others go on
 * writing.  The rule that makes the result exact: the snapshot to count with is taken, and written down, under the lock of the slot.  From then on
 * whoever publishes adds what he has done if that snapshot does not see his transaction; if it does, his rows are in the count.  It cannot be
 * both or neither: who published before the snapshot was taken had committed before, so it sees him.  As the snapshot stays written down, it does not matter how long
 * after his commit somebody gets to publish.  A snapshot with more running transactions than there is room for is not used; the worker tries again.
 *
 * TRUNCATE keeps everybody else out until it has published, so afterwards the number is that of what its own transaction wrote since.
 *
 * An owner who disables our triggers, as a restore of data alone may, makes the number wrong; kv_maintain() has it counted anew.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "expiry.h"
#include "guc.h"
#include "queuecount.h"
#include "shmem.h"
#include "testing.h"
#include "worker.h"

/* Rows between two questions whether somebody waits for the table or the database. */
#define PATIENCE		10000

/* Try again after so many milliseconds. */
#define RETRY			1000

/* ---- Publishing ---- */

/* Does the snapshot that was counted with see this transaction? */
static bool
was_seen(const KvsMessageCount *count, FullTransactionId xid)
{
	if (FullTransactionIdPrecedes(xid, count->xmin))
		return true;
	if (FullTransactionIdFollowsOrEquals(xid, count->xmax))
		return false;
	for (int i = 0; i < count->nxip; i++)
		if (count->xip[i] == XidFromFullTransactionId(xid))
			return false;
	return true;
}

static void
set_empty(KvsMessageCount *count)
{
	count->number++;
	count->begun = count->known = true;
	count->messages = 0;
	/* a snapshot that sees nobody */
	count->xmin = count->xmax = InvalidFullTransactionId;
	count->nxip = 0;
}

void
kvs_queuecount_publish(KvsMessageCount *count, FullTransactionId xid, bool empties, int64 change)
{
	if (empties)
		set_empty(count);
	if (change != 0 && count->begun && !was_seen(count, xid))
		count->messages += change;
}

/* ---- Counting ---- */

/* Numbers are those of no other generation of the slot. */
void
kvs_queuecount_init_slot(KvsQueueSlot *slot)
{
	memset(&slot->count, 0, sizeof(slot->count));
	slot->count.number = slot->generation << 32;
	slot->count.due = DT_NOEND;
}

bool
kvs_queuecount_ask(KvsQueueSlot *slot, TimestampTz now)
{
	if (slot->count.known || slot->count.due != DT_NOEND || RecoveryInProgress())
		return false;
	slot->count.due = now;
	return true;
}

void
kvs_queuecount_ask_all(void)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; kvs_shared != NULL && i < kvs_guc_max_queues; i++)
	{
		Oid			relid;
		KvsQueueSlot *slot = kvs_queueslot_lock_nth(i, &relid);

		if (slot == NULL)
			continue;
		slot->count.known = false;
		slot->count.due = now;
		LWLockRelease(slot->lock);
	}
	if (kvs_expiry_database() != NULL)
		kvs_expiry_lower_next_due(now);
}

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

/* Does somebody wait for the table to be his alone?  His request comes before one of ours for a lock that we have not yet. */
static bool
is_wanted(Relation rel)
{
	if (!ConditionalLockRelation(rel, AccessShareLock))
		return true;
	UnlockRelation(rel, AccessShareLock);
	return kvs_worker_is_in_the_way();
}

/* False: somebody waits for the table or the database. */
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
kvs_queuecount_run(KvsQueue *queue, Relation rel)
{
	uint64		number;
	Snapshot	snapshot = begin(queue, &number);
	int64		rows;
	bool		done;

	Assert(!TransactionIdIsValid(GetTopTransactionIdIfAny()));
	if (snapshot == NULL)
		return false;
	kvs_testing_stop("count");
	done = count_rows(rel, snapshot, &rows);
	UnregisterSnapshot(snapshot);
	end(queue, number, done, rows);
	return done;
}
