/*
 * check.c
 *		Checks that hold until the transaction ends: nobody else commits a change of what was checked.
 *
 * An entry that is there is easy: its row is locked FOR SHARE.  The absence of an entry has no row to lock.  With shared memory:
 *
 *		checker							inserter of the key
 *		1 takes a heavyweight lock		1 reads the key's bucket
 *		  on the hash of the key		2 if it is not 0: takes the lock, in share mode, and lets go
 *		2 raises the key's bucket		3 inserts its row
 *		3 looks for a row, also an		4 as 1
 *		  uncommitted one				5 as 2
 *
 * Both sides write before they read, with a full barrier between.  So either the checker sees the row, and waits for its transaction, or the
 * inserter sees the bucket in step 4, and waits for the checker's.  Both may happen at once, so the checker lets go of the lock before it waits, for that
 * transaction or for the lock of a row that is there after all.  Once it has seen that there is no row and still holds the lock, an uncommitted row is that of an inserter who waits for it:
 * to check again it need not wait.  Steps 1 and 2 of the inserter are there for a checker who goes on to insert the key: a row of somebody who
 * waits for him would be in his way, and that is a deadlock.
 *
 * An insert of a key of a bucket that nobody has raised, which is nearly every insert, costs two reads of memory and takes no lock, so a million new
 * keys in one transaction need none.  A bucket shared by two keys costs a needless lock now and then.
 *
 * Without shared memory the checker inserts a row and deletes it again: an inserter of the same key waits for the end of the transaction that did
 * so.  That is twice as dear, and not possible where the user's constraints or triggers would see the row.
 *
 * The owner's own INSERT by plain SQL does not wait for a checker.
 *
 * Buckets are atomics.  What this backend raised is in backend memory and is lowered in the transaction callback, when the transaction's end is visible
 * already; a savepoint that is rolled back releases the lock and leaves the bucket raised, which is only a hint.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "check.h"
#include "direct.h"
#include "find.h"
#include "policy.h"
#include "shape.h"
#include "shmem.h"

/* Our place among advisory locks, where PostgreSQL uses 1 and 2; seen as objsubid in pg_locks. */
#define KVS_LOCK_CLASS	3

/* Buckets that this transaction has raised. */
static uint32 *raised = NULL;
static int	raised_count = 0;
static int	raised_capacity = 0;

static uint64
key_hash(Oid relid, const char *key, int size)
{
	return hash_bytes_extended((const unsigned char *) key, size, relid);
}

static uint32
bucket_of(uint64 hash)
{
	return hash_combine((uint32) hash, MyDatabaseId) & (KVS_ABSENCE_BUCKETS - 1);
}

static void
set_lock_tag(LOCKTAG *tag, uint64 hash)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, KVS_LOCK_CLASS);
}

/* Does the snapshot see a row of this key?  *live: and has it not expired? */
static bool
find_row(Relation rel, Relation index, Datum key, Snapshot snapshot, bool *live)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		found = kvs_find_row(rel, index, key, snapshot, slot);

	if (found)
		slot_getsomeattrs(slot, KVS_COLUMNS);
	*live = found && kvs_direct_is_live(slot, GetCurrentTimestamp());
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

/* ---- The inserter's side ---- */

void
kvs_check_wait(const KvsStore *store, Datum key)
{
	struct varlena *bytes;
	uint64		hash;
	LOCKTAG		tag;

	if (kvs_shared == NULL)
		return;
	bytes = PG_DETOAST_DATUM_PACKED(key);
	hash = key_hash(store->relid, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));

	/* If a row was inserted, that write must come before this read. */
	pg_memory_barrier();
	if (likely(pg_atomic_read_u32(&kvs_shared->absences[bucket_of(hash)]) == 0))
		return;
	set_lock_tag(&tag, hash);
	LockAcquire(&tag, ShareLock, false, false);
	LockRelease(&tag, ShareLock, false);
}

void
kvs_check_inserted(const KvsStore *store, Datum key)
{
	Relation	rel;
	Relation	index;
	bool		was_there;

	kvs_check_wait(store, key);
	if (likely(!IsolationUsesXactSnapshot()))
		return;

	/*
	 * ON CONFLICT tells of rows that came since the snapshot, but not of one that went: that deletion would be overwritten unseen.  The snapshot
	 * of the statement does not see what the statement itself inserts.  An expired row was swept: nobody misses it.
	 */
	rel = table_open(store->relid, AccessShareLock);
	index = index_open(store->indexid, AccessShareLock);
	find_row(rel, index, key, GetActiveSnapshot(), &was_there);
	index_close(index, NoLock);
	table_close(rel, NoLock);
	if (was_there)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent delete")));
}

/* ---- The checker's side ---- */

static void
raise_bucket(uint32 bucket)
{
	if (raised_count == raised_capacity)
	{
		int			capacity = Max(raised_capacity * 2, 16);

		if (raised == NULL)
			raised = MemoryContextAlloc(TopMemoryContext, sizeof(uint32) * capacity);
		else
			raised = repalloc(raised, sizeof(uint32) * capacity);
		raised_capacity = capacity;
	}
	raised[raised_count++] = bucket;

	/* a full barrier */
	pg_atomic_fetch_add_u32(&kvs_shared->absences[bucket], 1);
}

/*
 * Is there a row of this key, committed, or written by us?  *pending: somebody else's transaction that is inserting or deleting one, which will tell.
 */
static bool
row_exists(KvsStore *store, const KvsKey *key, TransactionId *pending)
{
	Relation	rel = table_open(store->relid, AccessShareLock);
	Relation	index = index_open(store->indexid, AccessShareLock);
	SnapshotData dirty;
	bool		found;
	bool		live;

	*pending = InvalidTransactionId;
	InitDirtySnapshot(dirty);
	found = find_row(rel, index, KvsKeyDatum(key), &dirty, &live);
	if (found)
		*pending = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
	else
	{
		/*
		 * A row that was updated while the scan was between index and table: its old version was dead already, its new one not yet in the
		 * index.  Whoever did that has committed, so a snapshot taken now sees it.
		 */
		PushActiveSnapshot(GetLatestSnapshot());
		found = find_row(rel, index, KvsKeyDatum(key), GetActiveSnapshot(), &live);
		PopActiveSnapshot();
	}
	index_close(index, NoLock);
	table_close(rel, NoLock);
	return found && !TransactionIdIsValid(*pending);
}

/* Without shared memory; false if there is a row after all. */
static bool
hold_absence_by_row(KvsStore *store, const KvsKey *key)
{
	Relation	rel = table_open(store->relid, NoLock);
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	bool		plain = !kvs_shape_has_trigger(rel, TRIGGER_TYPE_INSERT | TRIGGER_TYPE_DELETE);

	if (constraints != NULL && constraints->num_check > 0)
		plain = false;
	table_close(rel, NoLock);
	if (!plain)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot check that an entry is absent in a store with constraints or triggers of its own"),
				 errhint("Add kvstore to shared_preload_libraries and restart the server.")));
	if (!kvs_store_place(store, key))
		return false;
	kvs_store_remove(store, key);
	return true;
}

static bool
hold_absence(KvsStore *store, const KvsKey *key)
{
	uint64		hash = key_hash(store->relid, KvsKeyBytes(key), key->size);
	LOCKTAG		tag;

	if (kvs_shared == NULL)
		return hold_absence_by_row(store, key);
	set_lock_tag(&tag, hash);
	for (;;)
	{
		bool		held = LockAcquire(&tag, ExclusiveLock, false, false) == LOCKACQUIRE_ALREADY_HELD;
		TransactionId pending;
		bool		exists;

		if (!held)
			raise_bucket(bucket_of(hash));
		exists = row_exists(store, key, &pending);
		if (held || (!exists && !TransactionIdIsValid(pending)))
			return !exists;
		LockRelease(&tag, ExclusiveLock, false);
		if (exists)
			return false;
		XactLockTableWait(pending, NULL, NULL, XLTW_None);
	}
}

void
kvs_check_hold(KvsStore *store, const KvsKey *key, TimestampTz now, KvsState *state)
{
	KvsPassedOver row = {0};

	while (!kvs_store_lock(store, key, false, now, state))
	{
		CHECK_FOR_INTERRUPTS();
		if (hold_absence(store, key))
			return;
		if (kvs_policy_passed_over(store, key, true, now, &row))
			continue;

		/* A row that our snapshot does not see: a new statement has a new snapshot, unless the transaction has but one. */
		if (IsolationUsesXactSnapshot())
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent update")));
	}
}

/* ---- The end of the transaction ---- */

static void
check_xact_callback(XactEvent event, void *arg)
{
	if (raised_count == 0)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has checked that an entry is absent")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			while (raised_count > 0)
				pg_atomic_fetch_sub_u32(&kvs_shared->absences[raised[--raised_count]], 1);
			break;
		default:
			break;
	}
}

void
kvs_check_init(void)
{
	RegisterXactCallback(check_xact_callback, NULL);
}
