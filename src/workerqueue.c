/*
 * workerqueue.c
 *		The worker's task of looking after queues.
 *
 * Each queue of this database that is in shared memory is asked when it has something due: a lease has lapsed, which is ended in a short transaction, as a
 * failed attempt of its message; its heads have moved for a while, so that they are verified (verify.c); or somebody has asked how many messages it has, and they
 * are to be counted (queuecount.c).  A queue whose table is gone is forgotten, with its
 * leases; one that cannot be read just now is put aside, and keeps them.
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "guc.h"
#include "lapse.h"
#include "queuecount.h"
#include "queueslot.h"
#include "verify.h"
#include "worker.h"

/* Leases ended in one transaction. */
#define BATCH		100

/* A queue that fails, or whose table has another shape just now, is put aside for so many milliseconds. */
#define ASIDE		5000

/* Verifying takes at most one part in so many of the worker's time. */
#define VERIFY_SHARE	100

/* Of the i-th place: whose it is, and when something is due. */
typedef struct Due
{
	Oid			relid;
	TimestampTz lapse;
	TimestampTz verify;
	TimestampTz count;
	TimestampTz not_before;
} Due;

static Due
read_due(int i)
{
	Due			due = {InvalidOid, DT_NOEND, DT_NOEND, DT_NOEND, DT_NOBEGIN};
	KvsQueueSlot *slot = kvs_queueslot_lock_nth(i, &due.relid);

	if (slot == NULL)
		return due;
	due.lapse = kvs_lease_next_due(slot);
	due.verify = slot->verify_at;
	due.count = slot->count.due;
	due.not_before = slot->not_before;
	LWLockRelease(slot->lock);
	return due;
}

static TimestampTz
earliest(const Due *due)
{
	return Max(due->not_before, Min(due->lapse, Min(due->verify, due->count)));
}

static TimestampTz
queue_next(Oid except)
{
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < kvs_guc_max_queues; i++)
	{
		Due			due = read_due(i);

		if (due.relid != except)
			next = Min(next, earliest(&due));
	}
	return next;
}

/* What takes long is not done often. */
static void
verify(KvsReader *reader)
{
	TimestampTz start = GetCurrentTimestamp();

	if (kvs_verify_queue(reader))
		kvs_queueslot_verified(reader->queue, VERIFY_SHARE * TimestampDifferenceMilliseconds(start, GetCurrentTimestamp()));
}

/* In a transaction: do what is due in a queue; false: not now. */
static bool
look_after(const Due *due, TimestampTz now)
{
	KvsReader	reader;
	Relation	rel;
	KvsQueue   *queue;

	/* who drops or rewrites the table, or drops the extension, need not wait for us, nor we for him */
	if (!kvs_catalog_keep_extension() || !ConditionalLockRelationOid(due->relid, RowExclusiveLock))
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	queue = kvs_queue_open_relid(due->relid, RowExclusiveLock, &rel);
	if (queue == NULL && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(due->relid)))
		kvs_queueslot_put_aside(due->relid, TimestampTzPlusMilliseconds(now, ASIDE));
	else if (queue == NULL)
		kvs_queueslot_forget(due->relid);
	else
	{
		if (due->count <= now)
			(void) kvs_queuecount_run(queue, rel);
		kvs_reader_begin(&reader, queue, rel);
		kvs_lapse_end(&reader, now, BATCH);
		if (due->verify <= now)
			verify(&reader);
		kvs_reader_end(&reader);
		table_close(rel, NoLock);
	}
	PopActiveSnapshot();
	return true;
}

/* The queues that have something due, one batch of each. */
static bool
queue_step(void)
{
	TimestampTz now = GetCurrentTimestamp();
	volatile bool any = false;

	for (int i = 0; i < kvs_guc_max_queues; i++)
	{
		Due			due = read_due(i);

		if (earliest(&due) > now)
			continue;
		if (kvs_worker_is_in_the_way())
			break;
		PG_TRY();
		{
			kvs_worker_begin("looking after queues");
			any |= look_after(&due, now);
			kvs_worker_commit();
		}
		PG_CATCH();
		{
			kvs_worker_recover();
			kvs_queueslot_put_aside(due.relid, TimestampTzPlusMilliseconds(now, ASIDE));
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
