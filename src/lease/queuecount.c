/*
 * queuecount.c
 *		How many messages each queue has, without counting them.
 *
 * The number of committed rows of a queue stands in its slot in shared memory.  A transaction notes
 * what it adds and removes, and publishes the sum in its commit callback (queuexact.c).
 *
 * After a start, and when a queue has got its slot anew, the number is not known.  Once a session
 * asks, the worker counts the rows, while others go on writing.  One rule makes the result exact:
 * the snapshot to count with is taken, and written down, under the lock of the slot.  From then on
 * a transaction that publishes adds its sum if that snapshot does not see it.  If the snapshot sees
 * it, its rows are in the count.  It cannot be both or neither: a transaction that published before
 * the snapshot was taken had committed before, so the snapshot sees it.  As the snapshot stays
 * written down, it does not matter how long after its commit a transaction publishes.  A snapshot
 * with more running transactions than there is room for is not used: the worker tries again.
 *
 * TRUNCATE keeps all others out until it has published.  So afterwards the number is that of the
 * rows that its own transaction wrote since.
 *
 * An owner who disables our triggers, as a restore of data alone may, makes the number wrong.
 * kv_maintain() has it counted anew.
 */
#include "postgres.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "expiry/expiry.h"
#include "lease/queuecount.h"

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
	if (kvs_expirymap_database() != NULL)
		kvs_expiry_lower_next_due(now);
}
