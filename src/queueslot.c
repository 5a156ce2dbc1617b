/*
 * queueslot.c
 *		Queues in shared memory: where deliverable messages begin, and what has arrived.
 *
 * Messages that were acknowledged stay in the table and its index until VACUUM may remove them, and while a long transaction pins the horizon it may
 * not.  A queue that looked for its first message from the bottom would wade through them all, each time.  So each queue has, for each
 * priority, a head: a position in the index below which nothing can be delivered that is not on one of the lists here or in the lease table.  A
 * dequeue scans from there, and moves the head over what it found dead or leased.
 *
 * The difficulty is a message that becomes deliverable behind a head that is moving.  Positions begin with the clock at the call, but messages
 * become visible at commit, so an older one may come after a newer one.  The rules:
 *
 *		An arrival is published after its message is visible (in the commit callback), under the lock: it gets a number, and its position is remembered.
 *		If it lies below the head, it goes on the list of late ranges as well, which are scanned for themselves.
 *
 *		A scan reads the number of arrivals before it looks at any row.  When it moves the head, it moves it at most to the lowest of the arrivals that
 *		came since: it may have passed them before they were visible.  If more have come than we remember, the head stays.
 *
 *		A late range is removed only by who has scanned it after having read it from the list.
 *
 * So a message that was published before a scan began is visible to it; one that was published while it ran holds the head back; and one that is published
 * after the head was moved is seen to be late.  The same holds for messages whose lease is given back, if that happens in the same critical
 * section in which it is published (lease.c).  The head never goes back, but in one case: when there is no room for a late range.
 *
 * A queue's place is found by a linear search when a session first uses it, and remembered with the generation of the place.  When all are taken, that
 * of a queue without leases is given away: all that it loses is the head, which costs one scan.
 *
 * Locks: that of the directory is taken before that of a place, and never two places at once.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/shmem.h"

#include "guc.h"
#include "lease.h"
#include "queuecount.h"
#include "queueslot.h"
#include "testing.h"

/* The worker looks below a head that has moved after so many milliseconds, or more. */
#define VERIFY_PAUSE	60000

static const KvsPosition lowest_position = {DT_NOBEGIN, PG_INT64_MIN};
static const KvsPosition highest_position = {DT_NOEND, PG_INT64_MAX};

typedef struct Directory
{
	uint64		generation;		/* of the place given away last */
	KvsQueueSlot slots[FLEXIBLE_ARRAY_MEMBER];
} Directory;

static Directory *directory = NULL;
static LWLock *directory_lock = NULL;	/* who has which place */
static KvsQueueSlot *slots = NULL;	/* the directory's */

/* ---- Places ---- */

/* The numbers of arrivals and ranges are those of no other generation, so that a scan that began before notices. */
static void
reset_slot(KvsQueueSlot *slot, Oid database, Oid relid)
{
	slot->database = database;
	slot->relid = relid;
	slot->generation = ++directory->generation;
	slot->used_at = GetCurrentTimestamp();
	slot->verify_at = DT_NOEND;
	slot->verify_pause = VERIFY_PAUSE;
	slot->not_before = DT_NOBEGIN;
	for (int i = 0; i < KVS_PRIORITIES; i++)
	{
		slot->heads[i] = lowest_position;
		slot->filled[i] = true; /* nobody knows */
	}
	slot->narrivals = slot->nranges = slot->generation << 32;
	slot->nlate = 0;
	kvs_lease_init_slot(slot);
	kvs_queuecount_init_slot(slot);
}

static KvsQueueSlot *
lock_if(int i, Oid database, Oid relid)
{
	KvsQueueSlot *slot = &slots[i];

	if (slot->relid != relid || slot->database != database)
		return NULL;
	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	if (slot->relid == relid && slot->database == database)
		return slot;
	LWLockRelease(slot->lock);
	return NULL;
}

/* With the lock of the directory held, so that nothing moves meanwhile. */
static KvsQueueSlot *
find_slot(Oid database, Oid relid)
{
	KvsQueueSlot *slot = NULL;

	for (int i = 0; i < kvs_guc_max_queues && slot == NULL; i++)
		slot = lock_if(i, database, relid);
	return slot;
}

/* A free place, else that of the queue that was idle longest. */
static KvsQueueSlot *
find_room(void)
{
	KvsQueueSlot *best = NULL;

	for (int i = 0; i < kvs_guc_max_queues; i++)
	{
		KvsQueueSlot *slot = &slots[i];

		if (!OidIsValid(slot->database))
			return slot;
		if (slot->nleases == 0 && (best == NULL || slot->used_at < best->used_at))
			best = slot;
	}
	return best;
}

static bool
has_free_place(void)
{
	KvsQueueSlot *slot = find_room();

	return slot != NULL && !OidIsValid(slot->database);
}

static KvsQueueSlot *
make_slot(Oid database, Oid relid)
{
	KvsQueueSlot *slot = find_room();

	if (slot != NULL)
	{
		LWLockAcquire(slot->lock, LW_EXCLUSIVE);
		if (slot->nleases == 0)
		{
			reset_slot(slot, database, relid);
			return slot;
		}
		LWLockRelease(slot->lock);
	}
	LWLockRelease(directory_lock);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many queues hold leases at once"),
			 errhint("Increase \"kvstore.max_queues\", which is %d, and restart the server.", kvs_guc_max_queues)));
	return NULL;				/* keep compiler quiet */
}

/* Lock a queue's place, found or made; "evict": if need be at the cost of another queue, else NULL. */
static KvsQueueSlot *
lock_slot(KvsQueue *queue, bool evict)
{
	KvsQueueSlot *slot = NULL;

	if (queue->slot >= 0)
		slot = lock_if(queue->slot, MyDatabaseId, queue->relid);
	if (likely(slot != NULL && slot->generation == queue->slot_generation))
		return slot;
	if (slot != NULL)
		LWLockRelease(slot->lock);

	LWLockAcquire(directory_lock, LW_EXCLUSIVE);
	slot = find_slot(MyDatabaseId, queue->relid);
	if (slot == NULL && (evict || has_free_place()))
		slot = make_slot(MyDatabaseId, queue->relid);
	LWLockRelease(directory_lock);
	if (slot == NULL)
		return NULL;
	queue->slot = slot - slots;
	queue->slot_generation = slot->generation;
	return slot;
}

KvsQueueSlot *
kvs_queueslot_lock(KvsQueue *queue)
{
	return lock_slot(queue, true);
}

KvsQueueSlot *
kvs_queueslot_lock_if_room(KvsQueue *queue)
{
	return lock_slot(queue, false);
}

KvsQueueSlot *
kvs_queueslot_restore(Oid database, Oid relid)
{
	KvsQueueSlot *slot = find_slot(database, relid);

	if (slot != NULL)
	{
		LWLockRelease(slot->lock);
		return slot;
	}
	slot = find_room();
	if (slot == NULL || OidIsValid(slot->database))
		return NULL;
	reset_slot(slot, database, relid);
	return slot;
}

KvsQueueRef
kvs_queueslot_ref(KvsQueue *queue)
{
	KvsQueueRef ref;

	LWLockRelease(kvs_queueslot_lock(queue)->lock);
	ref.relid = queue->relid;
	ref.slot = queue->slot;
	ref.generation = queue->slot_generation;
	return ref;
}

KvsQueueSlot *
kvs_queueslot_lock_ref(const KvsQueueRef *ref)
{
	KvsQueueSlot *slot = lock_if(ref->slot, MyDatabaseId, ref->relid);

	if (slot == NULL)
	{
		LWLockAcquire(directory_lock, LW_SHARED);
		slot = find_slot(MyDatabaseId, ref->relid);
		LWLockRelease(directory_lock);
	}
	return slot;
}

KvsQueueSlot *
kvs_queueslot_lock_nth(int i, Oid *relid)
{
	*relid = slots[i].relid;
	return OidIsValid(*relid) ? lock_if(i, MyDatabaseId, *relid) : NULL;
}

/* Both locks are held. */
static void
free_slot(KvsQueueSlot *slot)
{
	kvs_lease_forget_all(slot);
	slot->database = slot->relid = InvalidOid;
}

/* The place of a queue of this database, locked, for who has no KvsQueue; NULL if it has none. */
static KvsQueueSlot *
lock_by_relid(Oid relid)
{
	KvsQueueSlot *slot;

	if (slots == NULL)
		return NULL;
	LWLockAcquire(directory_lock, LW_SHARED);
	slot = find_slot(MyDatabaseId, relid);
	LWLockRelease(directory_lock);
	return slot;
}

void
kvs_queueslot_look_soon(Oid relid)
{
	KvsQueueSlot *slot = lock_by_relid(relid);

	if (slot == NULL)
		return;
	slot->verify_at = DT_NOBEGIN;
	LWLockRelease(slot->lock);
}

void
kvs_queueslot_put_aside(Oid relid, TimestampTz not_before)
{
	KvsQueueSlot *slot = lock_by_relid(relid);

	if (slot == NULL)
		return;
	slot->not_before = not_before;
	LWLockRelease(slot->lock);
}

void
kvs_queueslot_forget(Oid relid)
{
	KvsQueueSlot *slot;

	LWLockAcquire(directory_lock, LW_EXCLUSIVE);
	slot = find_slot(MyDatabaseId, relid);
	if (slot != NULL)
	{
		free_slot(slot);
		LWLockRelease(slot->lock);
	}
	LWLockRelease(directory_lock);
}

void
kvs_queueslot_forget_database(Oid database)
{
	LWLockAcquire(directory_lock, LW_EXCLUSIVE);
	for (int i = 0; i < kvs_guc_max_queues; i++)
	{
		KvsQueueSlot *slot = &slots[i];

		if (slot->database != database)
			continue;
		LWLockAcquire(slot->lock, LW_EXCLUSIVE);
		free_slot(slot);
		LWLockRelease(slot->lock);
	}
	LWLockRelease(directory_lock);
}

/* ---- Arrivals ---- */

/* Without room for a range of its own it joins the newest of its priority, else the head goes back. */
static void
add_late_range(KvsQueueSlot *slot, int priority, KvsPosition low, KvsPosition high)
{
	KvsLateRange *range = NULL;

	if (kvs_testing_is("late-forgotten"))
		return;
	/* what lies above the head is found from there */
	if (kvs_position_compare(high, slot->heads[priority]) > 0)
		high = slot->heads[priority];

	if (slot->nlate < KVS_LATE_RANGES)
	{
		slot->late[slot->nlate++] = (KvsLateRange) {++slot->nranges, priority, low, high};
		return;
	}
	for (int i = 0; i < slot->nlate; i++)
		if (slot->late[i].priority == priority && (range == NULL || slot->late[i].number > range->number))
			range = &slot->late[i];
	if (range == NULL)
	{
		slot->heads[priority] = low;
		return;
	}
	/* a new name: who scans it just now has not seen all of it */
	range->number = ++slot->nranges;
	if (kvs_position_compare(low, range->low) < 0)
		range->low = low;
	if (kvs_position_compare(high, range->high) > 0)
		range->high = high;
}

void
kvs_queueslot_arrive(KvsQueueSlot *slot, int priority, KvsPosition low, KvsPosition high)
{
	KvsArrival *arrival;

	/* An owner can write what he likes with the guard disabled; nobody looks for such a message. */
	if (priority < 0 || priority >= KVS_PRIORITIES)
		return;
	arrival = &slot->arrivals[slot->narrivals++ % KVS_ARRIVALS];
	arrival->low = low;
	arrival->priority = priority;
	slot->filled[priority] = true;
	if (kvs_position_compare(low, slot->heads[priority]) < 0)
		add_late_range(slot, priority, low, high);
}

/* ---- Scans ---- */

void
kvs_queueslot_survey(KvsQueue *queue, TimestampTz now, KvsSurvey *survey)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);

	survey->lapsed = kvs_lease_look(slot, now, &survey->returned);
	/* who ends a lease that has lapsed wakes who waits, so there is no use in looking again at once */
	survey->next_due = Min(kvs_lease_next_return(slot), survey->lapsed ? DT_NOEND : kvs_lease_next_due(slot));
	for (int i = 0; i < KVS_PRIORITIES; i++)
		survey->heads[i] = (KvsHeadScan) {slot->filled[i], i, slot->heads[i], slot->narrivals, highest_position};
	survey->nlate = slot->nlate;
	memcpy(survey->late, slot->late, slot->nlate * sizeof(KvsLateRange));
	LWLockRelease(slot->lock);
}

/* Lower the limit to the arrivals that came since.  Returns whether there were any. */
static bool
note_arrivals(const KvsQueueSlot *slot, KvsHeadScan *scan)
{
	uint64		came = slot->narrivals - scan->number;
	bool		any = false;

	if (came > KVS_ARRIVALS)
	{
		scan->limit = lowest_position;
		any = true;
	}
	else
		for (uint64 n = scan->number; n < slot->narrivals; n++)
		{
			const KvsArrival *arrival = &slot->arrivals[n % KVS_ARRIVALS];

			if (arrival->priority != scan->priority)
				continue;
			any = true;
			if (kvs_position_compare(arrival->low, scan->limit) < 0)
				scan->limit = arrival->low;
		}
	scan->number = slot->narrivals;
	return any;
}

void
kvs_queueslot_advance(KvsQueue *queue, KvsHeadScan *scan, KvsPosition reached, bool at_end)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	bool		arrivals = note_arrivals(slot, scan);

	/* for tests of the tests: what happens without this rule */
	if (kvs_testing_is("head-ignores-arrivals"))
		scan->limit = highest_position;
	if (kvs_position_compare(scan->limit, reached) < 0)
		reached = scan->limit;
	if (kvs_position_compare(reached, slot->heads[scan->priority]) > 0)
	{
		slot->heads[scan->priority] = reached;
		if (slot->verify_at == DT_NOEND)
			slot->verify_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), slot->verify_pause);
		if (kvs_testing_is("verify-soon"))
			slot->verify_at = GetCurrentTimestamp();
	}
	if (at_end && !arrivals && kvs_position_compare(scan->limit, highest_position) == 0)
		slot->filled[scan->priority] = false;
	slot->used_at = GetCurrentStatementStartTimestamp();
	LWLockRelease(slot->lock);
}

void
kvs_queueslot_advance_late(KvsQueue *queue, const KvsLateRange *range, KvsPosition reached)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);

	for (int i = 0; i < slot->nlate; i++)
	{
		KvsLateRange *found = &slot->late[i];

		if (found->number != range->number)
			continue;
		if (kvs_position_compare(reached, found->low) > 0)
			found->low = reached;
		if (kvs_position_compare(found->low, found->high) > 0)
			*found = slot->late[--slot->nlate];
		break;
	}
	LWLockRelease(slot->lock);
}

void
kvs_queueslot_announce(KvsQueue *queue, int priority, KvsPosition position)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);

	kvs_queueslot_arrive(slot, priority, position, position);
	LWLockRelease(slot->lock);
}

void
kvs_queueslot_verified(KvsQueue *queue, int64 pause)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);

	slot->verify_pause = Max(pause, VERIFY_PAUSE);
	/* as long as there are leases somebody has to see whether the queue is still there */
	slot->verify_at = slot->nleases == 0 ? DT_NOEND :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), slot->verify_pause);
	LWLockRelease(slot->lock);
}

/* ---- Initialisation ---- */

static Size
directory_size(void)
{
	return add_size(offsetof(Directory, slots), mul_size(kvs_guc_max_queues, sizeof(KvsQueueSlot)));
}

void
kvs_queueslot_request_shmem(void)
{
	RequestAddinShmemSpace(directory_size());
	RequestNamedLWLockTranche("kvstore_queue", kvs_guc_max_queues);
	RequestNamedLWLockTranche("kvstore_queue_directory", 1);
}

void
kvs_queueslot_startup_shmem(void)
{
	bool		found;
	LWLockPadded *locks = GetNamedLWLockTranche("kvstore_queue");

	directory_lock = &GetNamedLWLockTranche("kvstore_queue_directory")->lock;
	directory = ShmemInitStruct("kvstore queues", directory_size(), &found);
	slots = directory->slots;
	if (found)
		return;
	memset(directory, 0, directory_size());
	for (int i = 0; i < kvs_guc_max_queues; i++)
		slots[i].lock = &locks[i].lock;
}
