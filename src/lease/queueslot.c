/*
 * queueslot.c
 *		Queues in shared memory: where deliverable messages begin, and what has arrived.
 *
 * Messages that were acknowledged stay in the table and its index until VACUUM may remove them.
 * While a long transaction pins the horizon, VACUUM may not.  A queue that looked for its first
 * message from the bottom would wade through them all, each time.  So each queue has a head for
 * each priority.  It is a position in the index: all that can be delivered below it is on one of
 * the lists here or in the lease table.  A dequeue scans from there, and moves the head over what
 * it found dead or leased.
 *
 * The difficulty is a message that becomes deliverable below a head that is moving.  Positions
 * begin with the clock at the call, but messages become visible at commit, so an older one may come
 * after a newer one.  The rules:
 *
 *		An arrival is published after its message is visible (in the commit callback), under the
 *		lock: it gets a number, and its position is remembered.  If it lies below the head, it also
 *		goes on the list of late ranges, which are scanned separately.
 *
 *		A scan reads the number of arrivals before it looks at any row.  It moves the head at most
 *		to the lowest of the arrivals that came since: it may have passed them before they were
 *		visible.  If more have come than we remember, the head stays.
 *
 *		A late range is removed only by a session that has scanned it after having read it from the
 *		list.
 *
 * So a message that was published before a scan began is visible to it.  One that was published
 * while it ran holds the head back.  One that is published after the head was moved is seen to be
 * late.  The same holds for messages whose lease is returned, if that happens in the critical
 * section in which it is published (lease.c).  The head goes back in one case only: when there is
 * no room for a late range.
 *
 * Only receivers make a slot for a queue.  Whoever sends, cancels, purges or looks uses the slot
 * that is there: without one nothing is leased, and the head is at the bottom.  A slot in which
 * nothing is kept can be given to another queue: all that its own loses is the head, which costs
 * one scan.  A slot whose returned messages wait for the worker to write down their failures is
 * given away only if that failed for KVS_LEASE_KEEP.
 *
 * Slots are found by a hash table, the directory.  A session remembers where it has found one.
 *
 * Locks: that of the directory is taken before that of a slot, and never two slots at once.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "base/fault.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "lease/queueslot.h"

/* The worker looks below a head that has moved after so many milliseconds, or more. */
#define VERIFY_PAUSE	60000

static const KvsPosition lowest_position = {DT_NOBEGIN, PG_INT64_MIN};
static const KvsPosition highest_position = {DT_NOEND, PG_INT64_MAX};

typedef struct Slots
{
	uint64		generation;		/* of the slot given away last */
	KvsQueueSlot slots[FLEXIBLE_ARRAY_MEMBER];
} Slots;

typedef struct DirectoryKey
{
	Oid			database;
	Oid			relid;
} DirectoryKey;

typedef struct DirectoryEntry
{
	DirectoryKey key;			/* must be first */
	int			slot;
} DirectoryEntry;

static Slots *all = NULL;
static KvsQueueSlot *slots = NULL;	/* its slots */
static HTAB *directory = NULL;	/* which queue has which slot */
static const KvsSlotLeases *lease_rules = NULL;	/* what leases have in a slot */
static LWLock *directory_lock = NULL;	/* for the directory, and for which slots are free */

/* ---- Slots ---- */

/*
 * The numbers of arrivals and ranges are those of no other generation, so that a scan that began
 * before notices.
 */
static void
reset_slot(KvsQueueSlot *slot, Oid database, Oid relid)
{
	slot->database = database;
	slot->relid = relid;
	slot->generation = ++all->generation;
	slot->used_at = GetCurrentTimestamp();
	slot->verify_at = DT_NOEND;
	slot->verify_pause = VERIFY_PAUSE;
	slot->not_before = slot->strange_since = DT_NOBEGIN;
	for (int i = 0; i < KVS_PRIORITIES; i++)
	{
		slot->heads[i] = lowest_position;
		slot->filled[i] = true; /* nobody knows */
	}
	slot->narrivals = slot->nranges = slot->generation << 32;
	slot->nlate = 0;
	lease_rules->reset(slot);
	/*
	 * nobody knows how many messages there are; numbers of counts are those of no other generation
	 */
	memset(&slot->count, 0, sizeof(slot->count));
	slot->count.number = slot->generation << 32;
	slot->count.due = DT_NOEND;
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
	DirectoryKey key = {database, relid};
	DirectoryEntry *entry = hash_search(directory, &key, HASH_FIND, NULL);

	return entry == NULL ? NULL : lock_if(entry->slot, database, relid);
}

/* Both locks are held. */
static void
free_slot(KvsQueueSlot *slot)
{
	DirectoryKey key = {slot->database, slot->relid};

	lease_rules->forget(slot);
	slot->database = slot->relid = InvalidOid;
	hash_search(directory, &key, HASH_REMOVE, NULL);
}

/*
 * May it be given away?  It is looked at without its lock first, so this has to be called again
 * with the lock.
 */
static bool
is_idle(KvsQueueSlot *slot, bool aged, TimestampTz now)
{
	return slot->nleases == 0 || (aged && slot->nheld == 0 && lease_rules->are_overdue(slot, now));
}

/*
 * A free slot, else that of the queue that was idle longest; locked, with nobody's entry in the
 * directory.  NULL: there is none.  "aged": also one whose failures could not be written for too
 * long.
 */
static KvsQueueSlot *
find_room(bool aged)
{
	TimestampTz now = GetCurrentTimestamp();
	KvsQueueSlot *best = NULL;

	for (int i = 0; i < kvs_guc_max_queues; i++)
	{
		KvsQueueSlot *slot = &slots[i];

		if (!OidIsValid(slot->database))
		{
			LWLockAcquire(slot->lock, LW_EXCLUSIVE);
			return slot;
		}
		if (best != NULL && slot->used_at >= best->used_at)
			continue;
		if (aged)
		{
			bool		idle;

			LWLockAcquire(slot->lock, LW_EXCLUSIVE);
			idle = is_idle(slot, true, now);
			LWLockRelease(slot->lock);
			if (!idle)
				continue;
		}
		else if (slot->nleases > 0)
			continue;
		best = slot;
	}
	if (best == NULL)
		return NULL;
	LWLockAcquire(best->lock, LW_EXCLUSIVE);
	if (is_idle(best, aged, now))
	{
		free_slot(best);
		return best;
	}
	LWLockRelease(best->lock);
	return NULL;
}

/* With the lock of the directory held; NULL: there is no room. */
static KvsQueueSlot *
make_slot(Oid database, Oid relid)
{
	DirectoryKey key = {database, relid};
	KvsQueueSlot *slot = find_room(false);
	DirectoryEntry *entry;

	if (slot == NULL)
		slot = find_room(true);
	if (slot == NULL)
		return NULL;
	/* there is always room: as many entries as slots */
	entry = hash_search(directory, &key, HASH_ENTER_NULL, NULL);
	if (entry == NULL)
	{
		LWLockRelease(slot->lock);
		return NULL;
	}
	entry->slot = slot - slots;
	reset_slot(slot, database, relid);
	return slot;
}

static KvsQueueSlot *
lock_remembered(const KvsQueue *queue)
{
	return likely(queue->slot >= 0) ? lock_if(queue->slot, MyDatabaseId, queue->relid) : NULL;
}

KvsQueueSlot *
kvs_queueslot_lock(KvsQueue *queue)
{
	KvsQueueSlot *slot = lock_remembered(queue);

	if (likely(slot != NULL))
		return slot;
	LWLockAcquire(directory_lock, LW_EXCLUSIVE);
	slot = find_slot(MyDatabaseId, queue->relid);
	if (slot == NULL)
		slot = make_slot(MyDatabaseId, queue->relid);
	LWLockRelease(directory_lock);
	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many queues hold leases at once"),
				 errhint("Increase \"kvstore.max_queues\", which is %d, and restart the server.", kvs_guc_max_queues)));
	queue->slot = slot - slots;
	return slot;
}

KvsQueueSlot *
kvs_queueslot_lock_existing(KvsQueue *queue)
{
	KvsQueueSlot *slot = lock_remembered(queue);

	if (likely(slot != NULL))
		return slot;
	slot = kvs_queueslot_lock_relid(queue->relid);
	queue->slot = slot == NULL ? -1 : slot - slots;
	return slot;
}

KvsQueueSlot *
kvs_queueslot_restore(Oid database, Oid relid)
{
	KvsQueueSlot *slot = find_slot(database, relid);

	if (slot == NULL)
		slot = make_slot(database, relid);
	if (slot == NULL)
		return NULL;
	/* is the queue still there? */
	slot->verify_at = DT_NOBEGIN;
	LWLockRelease(slot->lock);
	return slot;
}

KvsQueueSlot *
kvs_queueslot_lock_ref(const KvsQueueRef *ref)
{
	KvsQueueSlot *slot = ref->slot >= 0 ? lock_if(ref->slot, MyDatabaseId, ref->relid) : NULL;

	return slot != NULL ? slot : kvs_queueslot_lock_relid(ref->relid);
}

KvsQueueSlot *
kvs_queueslot_lock_nth(int i, Oid *relid)
{
	*relid = slots[i].relid;
	return OidIsValid(*relid) ? lock_if(i, MyDatabaseId, *relid) : NULL;
}

KvsQueueSlot *
kvs_queueslot_lock_any(int i)
{
	Oid			database = slots[i].database;

	return OidIsValid(database) ? lock_if(i, database, slots[i].relid) : NULL;
}

KvsQueueSlot *
kvs_queueslot_lock_relid(Oid relid)
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
	KvsQueueSlot *slot = kvs_queueslot_lock_relid(relid);

	if (slot == NULL)
		return;
	slot->verify_at = DT_NOBEGIN;
	LWLockRelease(slot->lock);
}

void
kvs_queueslot_put_aside(Oid relid, TimestampTz not_before)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_relid(relid);

	if (slot == NULL)
		return;
	slot->not_before = not_before;
	LWLockRelease(slot->lock);
}

void
kvs_queueslot_forget(Oid relid)
{
	KvsQueueSlot *slot;

	if (slots == NULL)
		return;
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

/*
 * Make a range as wide as another one, and name it anew: whoever scans it just now has not seen all
 * of it.
 */
static void
widen_range(KvsQueueSlot *slot, KvsLateRange *range, KvsPosition low, KvsPosition high)
{
	range->number = ++slot->nranges;
	if (kvs_position_compare(low, range->low) < 0)
		range->low = low;
	if (kvs_position_compare(high, range->high) > 0)
		range->high = high;
}

/* How much wider would a range be?  In time: ids differ only among messages of one moment. */
static uint64
width_with(const KvsLateRange *range, KvsPosition low, KvsPosition high)
{
	TimestampTz from = Min(low.ready_at, range->low.ready_at);
	TimestampTz to = Max(high.ready_at, range->high.ready_at);

	return (uint64) to - (uint64) from;
}

/*
 * All ranges are taken, by other priorities than the one that needs one.  So at least two are of
 * the same priority: join those that grow least.
 */
static void
join_closest(KvsQueueSlot *slot)
{
	int			first = 0;
	int			second = 0;
	uint64		best_width = PG_UINT64_MAX;

	for (int i = 0; i < slot->nlate; i++)
		for (int k = i + 1; k < slot->nlate; k++)
		{
			uint64		width = width_with(&slot->late[i], slot->late[k].low, slot->late[k].high);

			if (slot->late[i].priority == slot->late[k].priority && (second == 0 || width < best_width))
			{
				first = i;
				second = k;
				best_width = width;
			}
		}
	widen_range(slot, &slot->late[first], slot->late[second].low, slot->late[second].high);
	slot->late[second] = slot->late[--slot->nlate];
}

/*
 * Without room for a range of its own it joins the one of its priority that grows least by it.  If
 * its priority has none, the two closest neighbours of another priority become one.  A head that
 * goes back would have to wade through everything dead.
 */
static void
add_late_range(KvsQueueSlot *slot, int priority, KvsPosition low, KvsPosition high)
{
	KvsLateRange *best = NULL;
	uint64		best_width = PG_UINT64_MAX;

	if (kvs_fault_is(KVS_FAULT_LATE_FORGOTTEN))
		return;
	/* what lies above the head is found from there */
	if (kvs_position_compare(high, slot->heads[priority]) > 0)
		high = slot->heads[priority];

	for (int i = 0; i < slot->nlate; i++)
	{
		KvsLateRange *range = &slot->late[i];
		uint64		width;

		if (range->priority != priority)
			continue;
		/* it is in there already, or so close that there can be little between */
		if (kvs_position_compare(low, range->high) <= 0 && kvs_position_compare(high, range->low) >= 0)
		{
			widen_range(slot, range, low, high);
			return;
		}
		width = width_with(range, low, high);
		if (best == NULL || width < best_width)
		{
			best = range;
			best_width = width;
		}
	}
	if (slot->nlate == KVS_LATE_RANGES && best == NULL)
		join_closest(slot);
	if (slot->nlate < KVS_LATE_RANGES)
		slot->late[slot->nlate++] = (KvsLateRange) {++slot->nranges, priority, low, high};
	else
		widen_range(slot, best, low, high);
}

void
kvs_queueslot_arrive(KvsQueueSlot *slot, int priority, KvsPosition low, KvsPosition high)
{
	KvsArrival *arrival;

	/* With the guard disabled an owner can write any priority.  Nobody looks for such a message. */
	if (priority < 0 || priority >= KVS_PRIORITIES)
		return;
	arrival = &slot->arrivals[slot->narrivals++ % KVS_ARRIVALS];
	arrival->low = low;
	arrival->priority = priority;
	slot->filled[priority] = true;
	if (kvs_position_compare(low, slot->heads[priority]) < 0)
		add_late_range(slot, priority, low, high);
}

/* ---- Where to begin ---- */

void
kvs_queueslot_announce_from(KvsQueue *queue, int priority, KvsPosition low)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);

	if (slot == NULL)
		return;
	kvs_queueslot_arrive(slot, priority, low, highest_position);
	LWLockRelease(slot->lock);
}

void
kvs_queueslot_start_over(Oid relid)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_relid(relid);

	if (slot == NULL)
		return;
	for (int i = 0; i < KVS_PRIORITIES; i++)
	{
		slot->heads[i] = lowest_position;
		slot->filled[i] = true;
	}
	slot->nlate = 0;
	/* more than are remembered: whoever scans just now does not move a head */
	slot->narrivals += KVS_ARRIVALS + 1;
	LWLockRelease(slot->lock);
}

/* A head that moves from now on has moved since. */
void
kvs_queueslot_verifying(KvsQueue *queue)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);

	slot->verify_at = DT_NOEND;
	slot->more_doomed = false;
	LWLockRelease(slot->lock);
}

void
kvs_queueslot_verified(KvsQueue *queue, int64 pause)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);

	slot->verify_pause = Max(pause, VERIFY_PAUSE);
	/* as long as there are leases the worker has to check that the queue is still there */
	if (slot->nleases > 0 || slot->verify_at != DT_NOEND)
		slot->verify_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), slot->verify_pause);
	LWLockRelease(slot->lock);
}

int
kvs_queueslot_count_used(void)
{
	int			used = 0;

	/* without locks: it is a number to be shown */
	for (int i = 0; i < kvs_guc_max_queues; i++)
		used += OidIsValid(slots[i].database) && slots[i].nleases > 0;
	return used;
}

/* ---- Initialisation ---- */

static Size
slots_size(void)
{
	return add_size(offsetof(Slots, slots), mul_size(kvs_guc_max_queues, sizeof(KvsQueueSlot)));
}

static void
request_shmem(void)
{
	RequestAddinShmemSpace(slots_size());
	RequestAddinShmemSpace(hash_estimate_size(kvs_guc_max_queues, sizeof(DirectoryEntry)));
	RequestNamedLWLockTranche("kvstore_queue", kvs_guc_max_queues);
	RequestNamedLWLockTranche("kvstore_queue_directory", 1);
}

static void
startup_shmem(void)
{
	HASHCTL		ctl;
	bool		found;
	LWLockPadded *locks = GetNamedLWLockTranche("kvstore_queue");

	directory_lock = &GetNamedLWLockTranche("kvstore_queue_directory")->lock;
	ctl.keysize = sizeof(DirectoryKey);
	ctl.entrysize = sizeof(DirectoryEntry);
	directory = ShmemInitHash("kvstore queue directory", kvs_guc_max_queues, kvs_guc_max_queues, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	all = ShmemInitStruct("kvstore queues", slots_size(), &found);
	slots = all->slots;
	if (found)
		return;
	memset(all, 0, slots_size());
	for (int i = 0; i < kvs_guc_max_queues; i++)
		slots[i].lock = &locks[i].lock;
}

void
kvs_queueslot_set_leases(const KvsSlotLeases *rules)
{
	lease_rules = rules;
}

void
kvs_queueslot_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
}
