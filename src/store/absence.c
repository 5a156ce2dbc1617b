/*
 * absence.c
 *		The absence of an entry, held until the transaction ends: nobody else inserts one meanwhile.
 *
 * An absence has no row to lock.  With shared memory:
 *
 *		checker							inserter of the key
 *		1 takes a heavyweight lock		1 reads the key's bucket
 *		  on the hash of the key		2 if it is not 0: takes and releases the lock, in share mode
 *		2 raises the key's bucket		3 inserts its row
 *		3 looks for a row, also an		4 as 1
 *		  uncommitted one				5 as 2
 *
 * Both sides write before they read, with a full barrier between.  So either the checker sees the
 * row and waits for its transaction, or the inserter sees the bucket in step 4 and waits for the
 * checker.  Both may happen at once.  So the checker releases the lock before it waits for that
 * transaction, or for the lock of a row that is there after all.  Once it has seen that there is no
 * row, and while it holds the lock, an uncommitted row is that of an inserter that waits for it.
 * So to check again it need not wait.  Steps 1 and 2 of the inserter are for a checker that goes on
 * to insert the key.  A row of an inserter that waits for the checker would be in its way: a
 * deadlock.
 *
 * Nearly every insert meets a bucket that nobody has raised: it costs two reads of memory and takes
 * no lock.  So a million new keys in one transaction need none.  A bucket shared by two keys costs
 * a needless lock now and then.
 *
 * The owner's own INSERT by plain SQL does not wait for a checker.
 *
 * Buckets are atomics.  Backend memory lists those that this backend raised.  They are lowered at
 * the end of the transaction, when that end is visible already.  A savepoint that is rolled back
 * releases the lock and leaves the bucket raised, which is only a hint.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/shmem.h"
#include "base/xact.h"
#include "store/absence.h"
#include "store/direct.h"
#include "store/find.h"

/* Counters of held absences, by hash of table and key; a power of two. */
#define BUCKETS			4096

/* Our class of advisory locks, of which PostgreSQL uses 1 and 2; seen as objsubid in pg_locks. */
#define LOCK_CLASS	3

/* In shared memory, NULL without: how many transactions hold the absence of a key of the bucket. */
static pg_atomic_uint32 *buckets = NULL;

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
	return hash_combine((uint32) hash, MyDatabaseId) & (BUCKETS - 1);
}

static void
set_lock_tag(LOCKTAG *tag, uint64 hash)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, LOCK_CLASS);
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
kvs_absence_wait(const KvsStore *store, Datum key)
{
	struct varlena *bytes;
	uint64		hash;
	LOCKTAG		tag;

	if (buckets == NULL)
		return;
	bytes = PG_DETOAST_DATUM_PACKED(key);
	hash = key_hash(store->relid, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));

	/* If a row was inserted, that write must come before this read. */
	pg_memory_barrier();
	if (likely(pg_atomic_read_u32(&buckets[bucket_of(hash)]) == 0))
		return;
	set_lock_tag(&tag, hash);
	LockAcquire(&tag, ShareLock, false, false);
	LockRelease(&tag, ShareLock, false);
}

void
kvs_absence_inserted(const KvsStore *store, Datum key)
{
	Relation	rel;
	Relation	index;
	bool		was_there;

	kvs_absence_wait(store, key);
	if (likely(!IsolationUsesXactSnapshot()))
		return;

	/*
	 * ON CONFLICT tells of rows that came since the snapshot, but not of one that was deleted: the
	 * deletion would be overwritten unseen.  The snapshot of the statement does not see what the
	 * statement itself inserts.  An expired row was swept: nobody misses it.
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
	pg_atomic_fetch_add_u32(&buckets[bucket], 1);
}

/*
 * Is there a row of this key, committed, or written by us?  *pending: the other transaction that is
 * inserting or deleting one; its end will tell.
 */
static bool
row_exists(const KvsStore *store, const KvsKey *key, TransactionId *pending)
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
		 * A row was updated while the scan was between index and table.  Its old version was dead
		 * already, its new one not yet in the index.  The transaction that did that has committed,
		 * so a snapshot taken now sees it.
		 */
		PushActiveSnapshot(GetLatestSnapshot());
		found = find_row(rel, index, KvsKeyDatum(key), GetActiveSnapshot(), &live);
		PopActiveSnapshot();
	}
	index_close(index, NoLock);
	table_close(rel, NoLock);
	return found && !TransactionIdIsValid(*pending);
}

bool
kvs_absence_hold(const KvsStore *store, const KvsKey *key)
{
	uint64		hash = key_hash(store->relid, KvsKeyBytes(key), key->size);
	LOCKTAG		tag;

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

/* ---- The end of the transaction ---- */

static void
at_end(XactEvent event)
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
				pg_atomic_fetch_sub_u32(&buckets[raised[--raised_count]], 1);
			break;
		default:
			break;
	}
}

static void
request_shmem(void)
{
	RequestAddinShmemSpace(sizeof(pg_atomic_uint32) * BUCKETS);
}

static void
startup_shmem(void)
{
	bool		found;

	buckets = ShmemInitStruct("kvstore absences", sizeof(pg_atomic_uint32) * BUCKETS, &found);
	for (int i = 0; !found && i < BUCKETS; i++)
		pg_atomic_init_u32(&buckets[i], 0);
}

void
kvs_absence_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
	kvs_xact_add(KVS_XACT_ABSENCES, at_end, NULL);
}
