/*
 * workerqueue.c
 *		The worker's task of looking after queues.
 *
 * Each queue of this database that is in shared memory is asked when it has something due.  That
 * may be a lease that expires, or a message that is to be settled (chores.c).  Its heads may have
 * moved for a while, so that they are to be verified (workerverify.c).  Or a session has asked for
 * the number of its messages, so that they are to be counted (workercount.c).  A queue whose table
 * is gone is forgotten, with its leases.
 *
 * A table may no longer be a queue: it has another name, schema or shape, or row-level security.
 * Such a queue is backed off.  Its leases expire as usual, and are forgotten when that lasts for
 * KVS_LEASE_KEEP.
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "lease/lease.h"
#include "lease/queueslot.h"
#include "table/catalog.h"
#include "table/shape.h"
#include "worker/chores.h"
#include "worker/workercount.h"
#include "worker/workerprocess.h"
#include "worker/workerqueue.h"
#include "worker/workerstep.h"
#include "worker/workerverify.h"

/* Messages settled in one transaction. */
#define BATCH		100

/*
 * A queue that fails, or whose table has another shape just now, is backed off for so many
 * milliseconds.
 */
#define ASIDE		5000

/* Queues are looked after for so many milliseconds before sweeping has its turn. */
#define LONG_STEPS	250

/* Verifying takes at most one part in so many of the worker's time. */
#define VERIFY_SHARE	100

/* Of the i-th slot: whose it is, and when something is due. */
typedef struct Due
{
	Oid			relid;
	TimestampTz deadline;		/* of a lease */
	TimestampTz work;
	TimestampTz verify;
	TimestampTz count;
	TimestampTz not_before;
} Due;

static Due
read_due(int i)
{
	Due			due = {InvalidOid, DT_NOEND, DT_NOEND, DT_NOEND, DT_NOEND, DT_NOBEGIN};
	KvsQueueSlot *slot = kvs_queueslot_lock_nth(i, &due.relid);

	if (slot == NULL)
		return due;
	due.deadline = kvs_leaselook_next_deadline(slot);
	due.work = kvs_leaselook_next_work_at(slot);
	due.verify = slot->verify_at;
	due.count = slot->count.due;
	due.not_before = slot->not_before;
	LWLockRelease(slot->lock);
	return due;
}

static TimestampTz
earliest(const Due *due)
{
	return Max(due->not_before, Min(Min(due->deadline, due->work), Min(due->verify, due->count)));
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

/* Verifying that takes long is not done often. */
static void
verify(KvsQueue *queue, Relation rel)
{
	TimestampTz start = GetCurrentTimestamp();
	KvsReader	reader;
	bool		done;

	kvs_queueslot_verifying(queue);
	kvs_reader_begin(&reader, queue, rel);
	done = kvs_workerverify_queue(&reader);
	kvs_reader_end(&reader);
	if (done)
		kvs_queueslot_verified(queue, VERIFY_SHARE * TimestampDifferenceMilliseconds(start, GetCurrentTimestamp()));
}

/* What is due in a queue, whose table is open. */
static void
do_due(const Due *due, KvsQueue *queue, Relation rel, TimestampTz now)
{
	if (due->count <= now)
		(void) kvs_workercount_run(queue, rel);
	if (due->verify <= now)
		verify(queue, rel);
	if (queue->replicated)
	{
		/* what was leased before the subscription began is not ours to end */
		kvs_queueslot_put_aside(due->relid, TimestampTzPlusMilliseconds(now, ASIDE));
		return;
	}
	kvs_workerstep_arm();
	kvs_chores_run(queue, rel, now, kvs_workerstep_rows(due->relid, BATCH), false);
}

/* There is no queue in this table; it is locked. */
static void
look_after_stranger(const Due *due, TimestampTz now)
{
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(due->relid)) || kvs_leasework_abandon(due->relid, now))
		kvs_queueslot_forget(due->relid);
	else
		kvs_queueslot_put_aside(due->relid, TimestampTzPlusMilliseconds(now, ASIDE));
}

/* In a step: false: not now. */
static bool
look_after(const Due *due, TimestampTz now)
{
	Relation	rel;
	KvsQueue   *queue;

	/*
	 * a session that drops or rewrites the table, or drops the extension, need not wait for us, nor
	 * we for it
	 */
	if (!kvs_catalog_keep_extension() || !ConditionalLockRelationOid(due->relid, RowExclusiveLock))
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	/* opening one with row-level security raises, so that kv_health() names it */
	if (kvs_shape_has_row_security(due->relid) && kvs_leasework_abandon(due->relid, now))
	{
		kvs_queueslot_forget(due->relid);
		PopActiveSnapshot();
		return true;
	}
	queue = kvs_queue_open_relid(due->relid, RowExclusiveLock, &rel);
	if (queue == NULL)
		look_after_stranger(due, now);
	else
	{
		kvs_leasework_readopt(queue);
		do_due(due, queue, rel, now);
		table_close(rel, NoLock);
	}
	PopActiveSnapshot();
	return true;
}

/* One batch of a queue; false: not now. */
static bool
work_on(const Due *due, TimestampTz now)
{
	TimestampTz until = kvs_workerstep_aside_until(due->relid);
	volatile bool done = false;

	if (until > now)
	{
		kvs_queueslot_put_aside(due->relid, until);
		return false;
	}
	PG_TRY();
	{
		kvs_workerstep_begin(due->relid, "looking after queues");
		done = look_after(due, now);
		kvs_workerstep_commit(done);
	}
	PG_CATCH();
	{
		kvs_queueslot_put_aside(due->relid, kvs_workerstep_recover());
	}
	PG_END_TRY();
	return done;
}

/*
 * The queues that have something due, one batch of each; after one that took long it is the other
 * tasks' turn.
 */
static bool
queue_step(void)
{
	static int	next = 0;

	TimestampTz now = GetCurrentTimestamp();
	int			first = next;
	bool		any = false;

	for (int n = 0; n < kvs_guc_max_queues; n++)
	{
		int			i = (first + n) % kvs_guc_max_queues;
		Due			due = read_due(i);

		if (earliest(&due) > now)
			continue;
		if (kvs_workerprocess_is_in_the_way())
			break;
		next = i + 1;
		any |= work_on(&due, now);
		if (TimestampDifferenceExceeds(now, GetCurrentTimestamp(), LONG_STEPS))
			return true;
	}
	return any;
}

static void
queue_idle(void)
{
}

const KvsWorkerTask kvs_workerqueue_task = {queue_step, queue_next, queue_idle};
