/*
 * waiter.c
 *		Sessions that wait for something, and how they are woken.
 *
 * Each wait of a session has a slot in shared memory, kvstore.max_waiters of them.  It has up to
 * KVS_WAIT_TARGETS targets, each in the list of one of BUCKETS buckets.  A key is found by store
 * and hash, a prefix and a queue by their table.  A bucket has a count that is read without a lock.
 * So a session that changes something takes no lock if nobody waits for it.
 *
 * No wake-up is lost.  A waiter raises the count and enters the list, then looks.  A session that
 * changes something publishes it, then reads the count.  Both have a full barrier between.  So one
 * of the two sees the other.
 *
 * Waking is in two steps, because a latch is a system call and is not set under a lock.  The list
 * of a bucket is read in share mode, and the waiters that are meant are noted in backend memory.
 * When all locks are released, their latches are set.  If a session has ended meanwhile, or does
 * something else, its latch is set in vain, which does no harm.
 *
 * Locks: "free" under lock 0; the targets and the list of a bucket under the lock of that bucket.
 * A slot belongs to the session that has it: others write only "woken" in it.  That and "timer" are
 * atomics.  Never two of these locks at once.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/guc.h"
#include "base/rights.h"
#include "base/shmem.h"
#include "base/xact.h"
#include "feed/waiter.h"
#include "table/catalog.h"

#define BUCKETS			128
#define NO_TARGET		(-1)

/* One target in the list of its bucket; its number is slot * KVS_WAIT_TARGETS + n. */
typedef struct Target
{
	KvsWaitTarget what;
	Oid			database;
	int			previous;
	int			next;
} Target;

typedef struct Slot
{
	/* The owner's; read by others while one of the targets is in a list. */
	Latch	   *latch;
	int			pid;
	TimestampTz since;
	int			ntargets;
	bool		holds_timer;

	int			next_free;		/* under lock 0 */
	pg_atomic_uint32 woken;
	/* when it looks by itself; DT_NOEND: not before it is woken, or it is just looking */
	pg_atomic_uint64 timer;
	Target		targets[KVS_WAIT_TARGETS];
} Slot;

typedef struct Bucket
{
	LWLock	   *lock;
	pg_atomic_uint32 count;
	int			first;
	int			last;
} Bucket;

typedef struct Waiters
{
	LWLock	   *lock;
	pg_atomic_uint32 count;		/* targets of all buckets */
	int			free;
	Bucket		buckets[BUCKETS];
	Slot		slots[FLEXIBLE_ARRAY_MEMBER];
} Waiters;

static Waiters *waiters = NULL;
static bool exit_callback_registered = false;

/* Slots whose latches are to be set. */
static int *chosen = NULL;
static bool *is_chosen = NULL;
static int	chosen_count = 0;

static Target *
target_of(int number)
{
	return &waiters->slots[number / KVS_WAIT_TARGETS].targets[number % KVS_WAIT_TARGETS];
}

static Bucket *
bucket_of(KvsWaitKind kind, Oid relid, uint64 hash)
{
	uint32		mixed = hash_combine(hash_uint32(relid ^ MyDatabaseId), hash_uint32((uint32) kind));

	if (kind == KVS_WAIT_KEY)
		mixed = hash_combine(mixed, (uint32) hash);
	return &waiters->buckets[mixed % BUCKETS];
}

/* ---- Waiters ---- */

static void
enter_list(int number)
{
	Target	   *target = target_of(number);
	Bucket	   *bucket = bucket_of(target->what.kind, target->what.relid, target->what.hash);

	LWLockAcquire(bucket->lock, LW_EXCLUSIVE);
	target->next = NO_TARGET;
	target->previous = bucket->last;
	if (bucket->last == NO_TARGET)
		bucket->first = number;
	else
		target_of(bucket->last)->next = number;
	bucket->last = number;
	pg_atomic_fetch_add_u32(&bucket->count, 1);
	pg_atomic_fetch_add_u32(&waiters->count, 1);
	LWLockRelease(bucket->lock);
}

static void
leave_list(int number)
{
	Target	   *target = target_of(number);
	Bucket	   *bucket = bucket_of(target->what.kind, target->what.relid, target->what.hash);

	LWLockAcquire(bucket->lock, LW_EXCLUSIVE);
	if (target->previous == NO_TARGET)
		bucket->first = target->next;
	else
		target_of(target->previous)->next = target->next;
	if (target->next == NO_TARGET)
		bucket->last = target->previous;
	else
		target_of(target->next)->previous = target->previous;
	pg_atomic_fetch_sub_u32(&bucket->count, 1);
	pg_atomic_fetch_sub_u32(&waiters->count, 1);
	LWLockRelease(bucket->lock);
}

/* Take a free slot; -1 if there is none. */
static int
take_slot(void)
{
	int			slot;

	LWLockAcquire(waiters->lock, LW_EXCLUSIVE);
	slot = waiters->free;
	if (slot >= 0)
		waiters->free = waiters->slots[slot].next_free;
	LWLockRelease(waiters->lock);
	return slot;
}

static void waiter_before_exit(int code, Datum arg);

/* Its slot, NULL if it is not registered. */
static Slot *
slot_of(const KvsWaiter *waiter)
{
	return waiter->slot > 0 ? &waiters->slots[waiter->slot - 1] : NULL;
}

void
kvs_waiter_begin(KvsWaiter *waiter, const KvsWaitTarget *targets, int count)
{
	Slot	   *slot;

	Assert(count <= KVS_WAIT_TARGETS);
	kvs_waiter_end(waiter);
	kvs_waiter_prepare();
	if (!exit_callback_registered)
		before_shmem_exit(waiter_before_exit, (Datum) 0);
	exit_callback_registered = true;
	waiter->slot = take_slot() + 1;
	slot = slot_of(waiter);
	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many sessions are waiting"),
				 errdetail("The limit is %d.", kvs_guc_max_waiters),
				 errhint("Raise kvstore.max_waiters and restart the server.")));
	slot->latch = MyLatch;
	slot->pid = MyProcPid;
	slot->since = GetCurrentTimestamp();
	slot->ntargets = 0;
	slot->holds_timer = false;
	pg_atomic_write_u64(&slot->timer, DT_NOEND);
	pg_atomic_write_u32(&slot->woken, 0);
	for (int i = 0; i < count; i++)
	{
		slot->targets[i].what = targets[i];
		slot->targets[i].database = MyDatabaseId;
		enter_list((waiter->slot - 1) * KVS_WAIT_TARGETS + i);
		slot->ntargets++;
	}
	/* what we look at from now on is read after that */
	pg_memory_barrier();
}

void
kvs_waiter_rearm(KvsWaiter *waiter)
{
	Slot	   *slot = slot_of(waiter);

	if (slot == NULL)
		return;
	pg_atomic_write_u64(&slot->timer, DT_NOEND);
	pg_atomic_exchange_u32(&slot->woken, 0);
}

bool
kvs_waiter_is_woken(const KvsWaiter *waiter)
{
	Slot	   *slot = slot_of(waiter);

	return slot != NULL && pg_atomic_read_u32(&slot->woken) != 0;
}

/* With the lock of its bucket: the slot that has waited longest for a queue; NULL: none does. */
static Slot *
first_in_line(const Bucket *bucket, Oid relid)
{
	for (int n = bucket->first; n != NO_TARGET; n = target_of(n)->next)
	{
		const Target *target = target_of(n);

		if (target->what.relid == relid && target->database == MyDatabaseId && target->what.kind == KVS_WAIT_QUEUE)
			return &waiters->slots[n / KVS_WAIT_TARGETS];
	}
	return NULL;
}

bool
kvs_waiter_hold_timer(KvsWaiter *waiter, TimestampTz next)
{
	Slot	   *slot = slot_of(waiter);
	Oid			relid;
	Bucket	   *bucket;

	if (slot == NULL)
		return false;
	relid = slot->targets[0].what.relid;
	bucket = bucket_of(KVS_WAIT_QUEUE, relid, 0);
	LWLockAcquire(bucket->lock, LW_SHARED);
	slot->holds_timer = next != DT_NOEND && first_in_line(bucket, relid) == slot;
	LWLockRelease(bucket->lock);
	if (slot->holds_timer)
		pg_atomic_write_u64(&slot->timer, next);
	return slot->holds_timer;
}

/* The wake-up of a waiter that ends is for the next. */
static void
pass_on(KvsWaitTarget target, bool needed)
{
	if (target.kind == KVS_WAIT_QUEUE && needed)
		kvs_waiter_wake_one_now(target.relid);
}

static void
give_back(Slot *slot, bool needed)
{
	KvsWaitTarget target = slot->targets[0].what;
	int			number = slot - waiters->slots;

	needed = slot->ntargets > 0 && (needed || slot->holds_timer);
	while (slot->ntargets > 0)
	{
		leave_list(number * KVS_WAIT_TARGETS + --slot->ntargets);
		needed |= pg_atomic_read_u32(&slot->woken) != 0;
	}
	LWLockAcquire(waiters->lock, LW_EXCLUSIVE);
	slot->pid = 0;
	slot->next_free = waiters->free;
	waiters->free = number;
	LWLockRelease(waiters->lock);
	pass_on(target, needed);
}

static void
leave(KvsWaiter *waiter, bool needed)
{
	Slot	   *slot = slot_of(waiter);

	waiter->slot = 0;
	if (slot != NULL)
		give_back(slot, needed);
}

void
kvs_waiter_end(KvsWaiter *waiter)
{
	leave(waiter, false);
}

void
kvs_waiter_fail(KvsWaiter *waiter)
{
	leave(waiter, true);
}

/* A session that exits unwinds nothing: look for its slots. */
static void
waiter_before_exit(int code, Datum arg)
{
	for (int i = 0; i < kvs_guc_max_waiters; i++)
		if (waiters->slots[i].pid == MyProcPid)
			give_back(&waiters->slots[i], true);
}

/* ---- Wakers ---- */

void
kvs_waiter_prepare(void)
{
	if (is_chosen != NULL)
		return;
	chosen = MemoryContextAlloc(TopMemoryContext, sizeof(int) * kvs_guc_max_waiters);
	is_chosen = MemoryContextAllocZero(TopMemoryContext, sizeof(bool) * kvs_guc_max_waiters);
}

bool
kvs_waiter_any(void)
{
	return pg_atomic_read_u32(&waiters->count) != 0;
}

static void
choose(int slot)
{
	/*
	 * the waiter may use up the latch alone by what it is just doing, as when it waits for a lock
	 */
	pg_atomic_write_u32(&waiters->slots[slot].woken, 1);
	if (is_chosen[slot])
		return;
	is_chosen[slot] = true;
	chosen[chosen_count++] = slot;
}

/* Does this target wait for a key that begins so? */
static bool
is_prefix_of(const KvsWaitTarget *target, const char *key, int size)
{
	return size >= target->prefix_size && memcmp(target->prefix, key, target->prefix_size) == 0;
}

void
kvs_waiter_wake_key(Oid relid, uint64 hash, const char *key, int size)
{
	static const KvsWaitKind kinds[] = {KVS_WAIT_KEY, KVS_WAIT_PREFIX};

	for (Size i = 0; i < lengthof(kinds); i++)
	{
		Bucket	   *bucket = bucket_of(kinds[i], relid, hash);

		if (pg_atomic_read_u32(&bucket->count) == 0)
			continue;
		LWLockAcquire(bucket->lock, LW_SHARED);
		for (int n = bucket->first; n != NO_TARGET; n = target_of(n)->next)
		{
			const Target *target = target_of(n);

			if (target->what.relid != relid || target->database != MyDatabaseId || target->what.kind != kinds[i])
				continue;
			if (kinds[i] == KVS_WAIT_KEY ? target->what.hash == hash : is_prefix_of(&target->what, key, size))
				choose(n / KVS_WAIT_TARGETS);
		}
		LWLockRelease(bucket->lock);
	}
}

/*
 * Choose the waiters of all buckets: those of a store or queue, or (InvalidOid) all for a prefix.
 */
static void
choose_everywhere(Oid relid)
{
	for (int i = 0; i < BUCKETS; i++)
	{
		Bucket	   *bucket = &waiters->buckets[i];

		if (pg_atomic_read_u32(&bucket->count) == 0)
			continue;
		LWLockAcquire(bucket->lock, LW_SHARED);
		for (int n = bucket->first; n != NO_TARGET; n = target_of(n)->next)
		{
			const Target *target = target_of(n);

			if (target->database != MyDatabaseId)
				continue;
			if (OidIsValid(relid) ? target->what.relid == relid : target->what.kind == KVS_WAIT_PREFIX)
				choose(n / KVS_WAIT_TARGETS);
		}
		LWLockRelease(bucket->lock);
	}
}

void
kvs_waiter_wake_all(Oid relid)
{
	choose_everywhere(relid);
}

void
kvs_waiter_wake_prefixes(void)
{
	choose_everywhere(InvalidOid);
}

bool
kvs_waiter_wake_one(Oid relid)
{
	Bucket	   *bucket = bucket_of(KVS_WAIT_QUEUE, relid, 0);
	bool		found = false;

	if (pg_atomic_read_u32(&bucket->count) == 0)
		return false;
	LWLockAcquire(bucket->lock, LW_SHARED);
	for (int n = bucket->first; n != NO_TARGET && !found; n = target_of(n)->next)
	{
		const Target *target = target_of(n);
		uint32		asleep = 0;

		if (target->what.relid != relid || target->database != MyDatabaseId || target->what.kind != KVS_WAIT_QUEUE)
			continue;
		found = pg_atomic_compare_exchange_u32(&waiters->slots[n / KVS_WAIT_TARGETS].woken, &asleep, 1);
		if (found)
			choose(n / KVS_WAIT_TARGETS);
	}
	LWLockRelease(bucket->lock);
	return found;
}

/*
 * A waiter that is just looking has no timer, and may have looked too early: it looks again, once
 * in vain at most.  A timer that is set was set after a look that saw, or preceded, what is
 * published now.
 */
void
kvs_waiter_wake_for(Oid relid, TimestampTz moment)
{
	Bucket	   *bucket = bucket_of(KVS_WAIT_QUEUE, relid, 0);
	uint32		asleep = 0;
	Slot	   *slot;

	if (pg_atomic_read_u32(&bucket->count) == 0)
		return;
	LWLockAcquire(bucket->lock, LW_SHARED);
	slot = first_in_line(bucket, relid);
	if (slot != NULL && (TimestampTz) pg_atomic_read_u64(&slot->timer) > moment &&
		pg_atomic_compare_exchange_u32(&slot->woken, &asleep, 1))
		choose(slot - waiters->slots);
	LWLockRelease(bucket->lock);
}

void
kvs_waiter_set_latches(void)
{
	while (chosen_count > 0)
	{
		int			slot = chosen[--chosen_count];
		Latch	   *latch = waiters->slots[slot].latch;

		is_chosen[slot] = false;
		if (latch != NULL)
			SetLatch(latch);
	}
}

void
kvs_waiter_wake_one_now(Oid relid)
{
	kvs_waiter_prepare();
	if (kvs_waiter_wake_one(relid))
		kvs_waiter_set_latches();
}

/*
 * The waiters that have to look when this transaction ends.  A savepoint that is rolled back wakes
 * them in vain.
 */
static List *at_commit = NIL;

void
kvs_waiter_wake_all_at_commit(Oid relid)
{
	MemoryContext old;

	if (waiters == NULL)
		return;
	kvs_waiter_prepare();
	old = MemoryContextSwitchTo(TopMemoryContext);
	at_commit = list_append_unique_oid(at_commit, relid);
	MemoryContextSwitchTo(old);
}

static void
at_xact(XactEvent event)
{
	ListCell   *lc;

	if (at_commit == NIL || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE))
		return;
	if (event == XACT_EVENT_COMMIT)
	{
		foreach(lc, at_commit)
			kvs_waiter_wake_all(lfirst_oid(lc));
		kvs_waiter_set_latches();
	}
	list_free(at_commit);
	at_commit = NIL;
}

void
kvs_waiter_count(int64 *sessions, int64 *targets)
{
	*sessions = pg_atomic_read_u32(&waiters->count);
	*targets = 0;
	for (int i = 0; i < BUCKETS; i++)
		*targets += pg_atomic_read_u32(&waiters->buckets[i].count);
}

/* ---- Initialisation ---- */

static Size
waiters_size(void)
{
	return add_size(offsetof(Waiters, slots), mul_size(sizeof(Slot), kvs_guc_max_waiters));
}

static void
request_shmem(void)
{
	RequestAddinShmemSpace(MAXALIGN(waiters_size()));
	RequestNamedLWLockTranche("kvstore_waiters", BUCKETS + 1);
}

static void
startup_shmem(void)
{
	LWLockPadded *locks;
	bool		found;

	waiters = ShmemInitStruct("kvstore waiters", waiters_size(), &found);
	if (found)
		return;
	memset(waiters, 0, waiters_size());
	locks = GetNamedLWLockTranche("kvstore_waiters");
	waiters->lock = &locks[0].lock;
	pg_atomic_init_u32(&waiters->count, 0);
	for (int i = 0; i < BUCKETS; i++)
	{
		waiters->buckets[i].lock = &locks[i + 1].lock;
		waiters->buckets[i].first = waiters->buckets[i].last = NO_TARGET;
		pg_atomic_init_u32(&waiters->buckets[i].count, 0);
	}
	waiters->free = 0;
	for (int i = 0; i < kvs_guc_max_waiters; i++)
	{
		pg_atomic_init_u32(&waiters->slots[i].woken, 0);
		pg_atomic_init_u64(&waiters->slots[i].timer, DT_NOEND);
		waiters->slots[i].next_free = i + 1 < kvs_guc_max_waiters ? i + 1 : -1;
	}
}

void
kvs_waiter_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
	if (process_shared_preload_libraries_in_progress)
		kvs_xact_add(KVS_XACT_WAKE, at_xact, NULL);
}

/* ---- SQL ---- */

typedef struct WaiterRow
{
	int			pid;
	KvsWaitKind kind;
	Oid			relid;
	TimestampTz since;
} WaiterRow;

/* The targets of this database; "rows" has room for all. */
static int
copy_waiters(WaiterRow *rows)
{
	int			count = 0;

	for (int i = 0; i < BUCKETS; i++)
	{
		Bucket	   *bucket = &waiters->buckets[i];

		LWLockAcquire(bucket->lock, LW_SHARED);
		for (int n = bucket->first; n != NO_TARGET; n = target_of(n)->next)
		{
			const Target *target = target_of(n);
			const Slot *slot = &waiters->slots[n / KVS_WAIT_TARGETS];

			if (target->database != MyDatabaseId)
				continue;
			rows[count].pid = slot->pid;
			rows[count].kind = target->what.kind;
			rows[count].relid = target->what.relid;
			rows[count++].since = slot->since;
		}
		LWLockRelease(bucket->lock);
	}
	return count;
}

/*
 * kvstore.waiters(): which session waits for what in this database, as far as the caller may see
 * it: a row for each key, prefix or queue
 */
PG_FUNCTION_INFO_V1(kvstore_waiters);
Datum
kvstore_waiters(PG_FUNCTION_ARGS)
{
	static const char *const kinds[] = {"key", "prefix", "queue"};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	WaiterRow  *rows;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (waiters == NULL)
		return (Datum) 0;
	rows = palloc(sizeof(WaiterRow) * KVS_WAIT_TARGETS * kvs_guc_max_waiters);
	count = copy_waiters(rows);
	for (int i = 0; i < count; i++)
	{
		Datum		values[4] = {
			Int32GetDatum(rows[i].pid), CStringGetTextDatum(kinds[rows[i].kind]), ObjectIdGetDatum(rows[i].relid),
			TimestampTzGetDatum(rows[i].since)
		};
		bool		nulls[4] = {false, false, false, false};

		if (!kvs_rights_may_see(rows[i].relid))
			continue;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
