/*
 * workerqueue.c
 *		The worker's task of ending leases that have lapsed.
 *
 * Each queue of this database that is in shared memory is asked when it has something due.  What is due is ended in short transactions, as a failed attempt of the
 * message.  A queue whose table is gone is forgotten, with its leases.
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "lapse.h"
#include "queueslot.h"
#include "worker.h"

/* Leases ended in one transaction. */
#define BATCH		100

/* Of the i-th place: when it has something due, and whose it is. */
static TimestampTz
read_due(int i, Oid *relid)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_nth(i, relid);
	TimestampTz due;

	if (slot == NULL)
		return DT_NOEND;
	due = kvs_lease_next_due(slot);
	LWLockRelease(slot->lock);
	return due;
}

static TimestampTz
queue_next(void)
{
	TimestampTz next = DT_NOEND;
	Oid			relid;

	for (int i = 0; i < kvs_guc_max_queues; i++)
		next = Min(next, read_due(i, &relid));
	return next;
}

/* In a transaction: end a batch of leases of a queue; false: not now. */
static bool
end_leases(Oid relid, TimestampTz now)
{
	KvsReader reader;
	Relation	rel;
	KvsQueue   *queue;

	/* who drops or rewrites the table need not wait for us, nor we for him */
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	queue = kvs_queue_open_relid(relid, RowExclusiveLock, &rel);
	if (queue == NULL)
		kvs_queueslot_forget(relid);
	else
	{
		kvs_reader_begin(&reader, queue, rel);
		kvs_lapse_end(&reader, now, BATCH);
		kvs_reader_end(&reader);
		table_close(rel, NoLock);
	}
	PopActiveSnapshot();
	return true;
}

/* The queues that have something due, one batch of each.  One that fails is tried again when its leases are due again (lease.c). */
static bool
queue_step(void)
{
	TimestampTz now = GetCurrentTimestamp();
	volatile bool any = false;

	for (int i = 0; i < kvs_guc_max_queues; i++)
	{
		Oid			relid;

		if (read_due(i, &relid) > now)
			continue;
		if (kvs_worker_is_in_the_way())
			break;
		PG_TRY();
		{
			kvs_worker_begin("ending leases");
			any |= end_leases(relid, now);
			kvs_worker_commit();
		}
		PG_CATCH();
		{
			kvs_worker_recover(InvalidOid);
		}
		PG_END_TRY();
	}
	return any;
}

static void
queue_rest(void)
{
}

const KvsWorkerTask kvs_worker_queue_task = {queue_step, queue_next, queue_rest};
