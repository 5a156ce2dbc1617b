/*
 * stamp.c
 *		Versionstamps: for one key they only ever grow, also across deletion and re-creation, restart and failover.
 *
 * The numbers come from one sequence, kvstore.versionstamp; nobody needs a right on it.  A writer takes its number first and writes then, so a
 * concurrent writer of the same key may have taken a higher number and committed before.  Two cases:
 *
 * - The row is there: the statement that overwrites it sees the number it meets, under the row's lock, and takes a new one if that is higher.
 * - The row is gone: what it had is nowhere to be seen.  So there is a clock of deletions in shared memory, and a slot for each hash of
 *   table and key.  A deletion advances the clock and puts the new time into the key's slot while it holds the row's lock, before it commits.
 *   A writer reads the clock before it takes its number, and the slot after its insert has succeeded, which is after the deletion
 *   has committed.  If the slot is later than the clock was, he takes a new number and stamps the row again.  If it is not, the deletion was published before
 *   his number was taken, so every number that the key had is below it.  Two keys that share a slot cost a needless second stamp
 *   now and then.  Without shared memory the sequence itself is looked at: if nobody took a number since we took ours, there can be
 *   no higher one; otherwise an inserted row is stamped again.
 *
 * A number that somebody saw is never given again.  A sequence is logged ahead, but that record may not have reached the disk at a crash, or the standby at a failover.
 * So after a start that was not clean, or on a new timeline, the first number of each database jumps by KVS_STAMP_JUMP, and that jump is flushed before a
 * number is given.  Without preload nobody knows how the server started, so there this holds for clean restarts only.
 *
 * A dump that is restored into a database that goes on sets the sequence to what it was in the dump, which may be lower: setval() asks nobody.  So the highest
 * number given is kept in shared memory, and who gets one that is not above it looks whether the sequence itself is below, and raises it.  Without
 * preload, and for numbers from before a restart, kv_maintain() raises it above all that are stored.
 *
 * Raising the sequence is read-then-set, without a lock against nextval.  It goes KVS_STAMP_JUMP above everything, so that no number given meanwhile can be
 * given again; a heavyweight lock on the sequence keeps two raisers apart.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "shmem.h"
#include "stamp.h"

static bool start_checked = false;	/* this session knows that its database has jumped, or need not */
static KvsHighestStamp *my_highest = NULL;	/* of this database, of the sequence it has now */
static Oid	my_sequence = InvalidOid;
static int64 raise_at_commit = 0;	/* highest number that a row of this transaction brought along */

/* The number given last, straight from the sequence's page: no right is needed. */
static int64
last_stamp(void)
{
	Relation	rel = relation_open(kvs_catalog_get()->sequence, AccessShareLock);
	Buffer		buffer = ReadBuffer(rel, 0);
	HeapTupleData tuple;
	Form_pg_sequence_data sequence;
	Page		page;
	ItemId		item;
	int64		result;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	item = PageGetItemId(page, FirstOffsetNumber);
	tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
	sequence = (Form_pg_sequence_data) GETSTRUCT(&tuple);
	result = sequence->is_called ? sequence->last_value : sequence->last_value - 1;
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return result;
}

/* Set the sequence as its owner. */
static void
set_sequence(int64 value)
{
	Oid			sequence = kvs_catalog_get()->sequence;
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(sequence));
	Oid			saved_user;
	int			saved_context;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", sequence);
	GetUserIdAndSecContext(&saved_user, &saved_context);
	SetUserIdAndSecContext(((Form_pg_class) GETSTRUCT(tuple))->relowner,
						   saved_context | SECURITY_LOCAL_USERID_CHANGE);
	ReleaseSysCache(tuple);
	DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence), Int64GetDatum(value));
	SetUserIdAndSecContext(saved_user, saved_context);
}

/* Has this database jumped since the server started?  With "mark": from now on it has. */
static bool
database_jumped(bool mark)
{
	bool		found = false;

	LWLockAcquire(kvs_shared->lock, mark ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < kvs_shared->jumped_count && !found; i++)
		found = kvs_shared->jumped[i] == MyDatabaseId;
	if (mark && !found && kvs_shared->jumped_count < KVS_JUMPED_MAX)
		kvs_shared->jumped[kvs_shared->jumped_count++] = MyDatabaseId;
	LWLockRelease(kvs_shared->lock);
	return found;
}

/* Before this session's first number: jump if the start of the server asks for it and nobody has done it. */
static void
check_start(void)
{
	Oid			sequence = kvs_catalog_get()->sequence;

	if (!(kvs_shared->clean_start && GetWALInsertionTimeLine() == kvs_shared->start_timeline) &&
		!database_jumped(false))
	{
		LockRelationOid(sequence, ShareUpdateExclusiveLock);
		if (!database_jumped(false))
		{
			set_sequence(last_stamp() + KVS_STAMP_JUMP);
			XLogFlush(XactLastRecEnd);
			database_jumped(true);
		}
		UnlockRelationOid(sequence, ShareUpdateExclusiveLock);
	}
	start_checked = true;
}

/* Find where the highest number of this database is kept; my_highest stays NULL if there is no room. */
static void
find_highest(Oid sequence)
{
	KvsHighestStamp *highest = kvs_shared->highest;
	int			i = 0;

	LWLockAcquire(kvs_shared->lock, LW_EXCLUSIVE);
	while (i < kvs_shared->highest_count && highest[i].database != MyDatabaseId)
		i++;
	if (i < KVS_JUMPED_MAX)
	{
		if (i == kvs_shared->highest_count)
			kvs_shared->highest_count++;
		if (highest[i].database != MyDatabaseId || highest[i].sequence != sequence)
			pg_atomic_init_u64(&highest[i].number, 0);
		highest[i].database = MyDatabaseId;
		highest[i].sequence = sequence;
		my_highest = &highest[i];
	}
	LWLockRelease(kvs_shared->lock);
	my_sequence = sequence;
}

/* A number that the sequence gave: it, or a higher one if somebody had set the sequence back. */
static int64
check_highest(Oid sequence, int64 number)
{
	uint64		highest;

	if (unlikely(my_sequence != sequence))
		find_highest(sequence);
	if (my_highest == NULL)
		return number;
	highest = pg_atomic_read_u64(&my_highest->number);
	if (unlikely((uint64) number <= highest) && (uint64) last_stamp() < highest)
	{
		kvs_stamp_raise(highest);
		number = nextval_internal(sequence, false);
	}
	while (highest < (uint64) number && !pg_atomic_compare_exchange_u64(&my_highest->number, &highest, number))
		;
	return number;
}

int64
kvs_stamp_next(void)
{
	Oid			sequence;
	int64		number;

	if (unlikely(!start_checked && kvs_shared != NULL))
		check_start();
	if (unlikely(raise_at_commit != 0))
	{
		kvs_stamp_raise(raise_at_commit);
		raise_at_commit = 0;
	}
	sequence = kvs_catalog_get()->sequence;
	number = nextval_internal(sequence, false);
	return kvs_shared ? check_highest(sequence, number) : number;
}

void
kvs_stamp_raise(int64 stamp)
{
	Oid			sequence = kvs_catalog_get()->sequence;

	/* Numbers only grow, so a look without the lock may settle it. */
	if (last_stamp() >= stamp)
		return;
	LockRelationOid(sequence, ShareUpdateExclusiveLock);
	if (last_stamp() < stamp)
	{
		if (stamp > PG_INT64_MAX - KVS_STAMP_JUMP)
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("versionstamp %lld is too high", (long long) stamp)));
		set_sequence(stamp + KVS_STAMP_JUMP);
	}
	UnlockRelationOid(sequence, ShareUpdateExclusiveLock);
}

void
kvs_stamp_raise_at_commit(int64 stamp)
{
	raise_at_commit = Max(raise_at_commit, stamp);
}

static uint32
deleted_slot(Oid relid, const char *key, int size)
{
	uint32		hash = hash_bytes((const unsigned char *) key, size);

	return hash_combine(hash, hash_uint32(relid ^ MyDatabaseId)) & (KVS_DELETED_SLOTS - 1);
}

/* Lift a slot to "time", unless somebody else has lifted it further. */
static void
lift_slot(uint32 slot, uint64 time)
{
	pg_atomic_uint64 *deleted = &kvs_shared->deleted[slot];
	uint64		old = pg_atomic_read_u64(deleted);

	while (old < time && !pg_atomic_compare_exchange_u64(deleted, &old, time))
		;
}

KvsStamp
kvs_stamp_take(void)
{
	KvsStamp	stamp = {0, 0};

	if (kvs_shared != NULL)
		stamp.clock = pg_atomic_read_u64(&kvs_shared->deletion_clock);
	/* nextval_internal() locks the sequence's page: a full barrier between the two */
	stamp.number = kvs_stamp_next();
	return stamp;
}

void
kvs_stamp_note_deletion(Oid relid, const char *key, int size)
{
	if (kvs_shared != NULL)
		lift_slot(deleted_slot(relid, key, size),
				  pg_atomic_add_fetch_u64(&kvs_shared->deletion_clock, 1));
}

void
kvs_stamp_note_deletion_of_all(void)
{
	uint64		time;

	if (kvs_shared == NULL)
		return;
	time = pg_atomic_add_fetch_u64(&kvs_shared->deletion_clock, 1);
	for (uint32 slot = 0; slot < KVS_DELETED_SLOTS; slot++)
		lift_slot(slot, time);
}

bool
kvs_stamp_is_outdated(Oid relid, const char *key, int size, KvsStamp stamp, bool inserted)
{
	if (kvs_shared != NULL)
		return pg_atomic_read_u64(&kvs_shared->deleted[deleted_slot(relid, key, size)]) > stamp.clock;
	return inserted && last_stamp() != stamp.number;
}

static void
stamp_xact_callback(XactEvent event, void *arg)
{
	int64		stamp = raise_at_commit;

	if (stamp == 0)
		return;
	raise_at_commit = 0;

	/* unless the transaction has dropped the extension since */
	if ((event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE) && kvs_catalog_is_installed())
		kvs_stamp_raise(stamp);
}

void
kvs_stamp_init(void)
{
	RegisterXactCallback(stamp_xact_callback, NULL);
}

/* ---- SQL ---- */

/* kvstore.next_versionstamp(): for the statements that overwrite rows, when the row they meet has a higher number. */
PG_FUNCTION_INFO_V1(kvstore_next_versionstamp);
Datum
kvstore_next_versionstamp(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("kvstore.next_versionstamp()");
	PG_RETURN_INT64(kvs_stamp_next());
}
