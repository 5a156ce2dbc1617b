/*
 * stamp.c
 *		Versionstamps: for one key they only ever grow, also across deletion and re-creation,
 *		restart and failover.
 *
 * The numbers come from one sequence, kvstore.versionstamp; nobody needs a right on it.  A writer
 * takes its number before it writes, so a concurrent writer of the same key may have taken a higher
 * number and committed before.  Two cases:
 *
 * - The row is there: whoever overwrites it sees its number, under the row's lock, and takes a new
 *   one unless the row's is lower.  If the new one is not above it either, the row has its number
 *   from elsewhere, and the writer takes the number that follows it.  That does not move the
 *   sequence.
 * - The row is gone, and its number with it.  So there is a clock of deletions in shared memory,
 *   and a slot for each hash of table and key.  A deletion takes a number above the row's.  Then it
 *   advances the clock and puts the new time into the key's slot, while it holds the row's lock,
 *   before it commits.  A writer reads the clock before it takes its number.  It reads the slot
 *   after its insert has succeeded, which is after the deletion has committed.  If the slot is
 *   later than the clock was, the writer takes a new number and stamps the row again.  Otherwise
 *   the deletion was published before the writer's number was taken, so every number that the key
 *   had is below it.  Two keys that share a slot cost a needless second stamp now and then.
 *   Without shared memory the sequence itself is looked at.  If nobody took a number since we took
 *   ours, there can be no higher one; otherwise an inserted row is stamped again.
 *
 * Rows also have numbers that the sequence of this database did not give: they were restored,
 * copied or replicated, or their owner made them up.  One rule says which of them count, that is,
 * move the sequence above them.  From a superuser, and from what replicates for one, all below
 * KVS_STAMP_LIMIT count.  From others, and of rows that are found in a table, those count that a
 * server can have given by now.  So nobody lifts the numbers of all stores beyond what time allows.
 * A number that does not count matters to the key of its row alone.  When that row is deleted,
 * shared memory remembers its number.
 *
 * A number that somebody saw is never given again.  A sequence is logged ahead, but that record may
 * not have reached the disk at a crash, or the standby at a failover.  So after a start that was
 * not clean, or on a new timeline, the first number of each database jumps by KVS_STAMP_JUMP.  That
 * jump is flushed before a number is given.  Without preload nobody knows how the server started,
 * so there this holds for clean restarts only.
 *
 * A dump may be restored into a database that goes on.  It sets the sequence to its value in the
 * dump, which may be lower: setval() asks nobody.  So the highest number that was given, or
 * counted, is kept in shared memory.  It is read before a number is taken: that must be above it,
 * or the sequence is raised.  Without preload, and for numbers from before a restart, kv_maintain()
 * raises it above all that are stored.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_sequence.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/shmem.h"
#include "store/stamp.h"
#include "table/catalog.h"
#include "table/sequence.h"

/*
 * What a server can have given by now, if it began in 2026: 2^20 numbers a second, and 2^40 for
 * jumps and clocks.
 */
#define FIRST_DAY		((TimestampTz) 9497 * USECS_PER_DAY)	/* since 2000-01-01 */
#define RATE_BITS		20
#define SLACK			(INT64CONST(1) << 40)

/* Slots in which deletions are published, by hash of table and key; a power of two. */
#define DELETED_SLOTS	16384

/*
 * Databases whose versionstamps are known to have jumped since an unclean start; further ones jump
 * once a session.
 */
#define JUMPED_MAX		1024

/* Slots for keys that were deleted with a versionstamp that the sequence did not follow. */
#define REMEMBERED_STAMPS	256

/* The highest versionstamp that was given in a database, or counts, since the server started. */
typedef struct HighestStamp
{
	Oid			database;
	Oid			sequence;		/* that gave it: CREATE EXTENSION makes a new one */
	pg_atomic_uint64 number;
} HighestStamp;

typedef struct DeletedStamp
{
	uint64		key;			/* hash of database, table and key */
	int64		number;
} DeletedStamp;

typedef struct StampShared
{
	/* Under "lock". */
	LWLock	   *lock;
	int			jumped_count;
	Oid			jumped[JUMPED_MAX];
	int			highest_count;
	HighestStamp highest[JUMPED_MAX];	/* its numbers are atomics */
	DeletedStamp remembered[REMEMBERED_STAMPS];
	pg_atomic_uint32 remembers; /* is anything remembered?  Read without the lock. */

	/*
	 * Atomics, no lock: a clock that each deletion advances, and when a key of the slot was last
	 * deleted.
	 */
	pg_atomic_uint64 deletion_clock;
	pg_atomic_uint64 deleted[DELETED_SLOTS];
} StampShared;

static StampShared *shared = NULL;	/* there if kvs_shared is */
static uint32 ready = 0;		/* the state of the catalog for which the sequence was prepared */
static HighestStamp *my_highest = NULL;	/* of this database, of the sequence it has now */

/* ---- The sequence ---- */

/* What ALTER SEQUENCE may not change: numbers would repeat, or go back. */
static void
check_definition(Oid sequence)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(sequence));
	Form_pg_sequence form;
	bool		good;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for sequence %u", sequence);
	form = (Form_pg_sequence) GETSTRUCT(tuple);
	good = form->seqtypid == INT8OID && form->seqincrement == 1 && form->seqmin == 1 && form->seqmax == PG_INT64_MAX &&
		form->seqcache == 1 && !form->seqcycle && get_rel_persistence(sequence) == RELPERSISTENCE_PERMANENT;
	ReleaseSysCache(tuple);
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sequence \"kvstore.versionstamp\" was altered and cannot give versionstamps"),
				 errdetail("It must be a logged bigint with INCREMENT 1, MINVALUE 1, no MAXVALUE, CACHE 1 and NO CYCLE."),
				 errhint("Run ALTER SEQUENCE kvstore.versionstamp AS bigint INCREMENT 1 MINVALUE 1 NO MAXVALUE CACHE 1 NO CYCLE.")));
}

/* Has this database jumped since the server started?  With "mark": from now on it has. */
static bool
database_jumped(bool mark)
{
	bool		found = false;

	LWLockAcquire(shared->lock, mark ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < shared->jumped_count && !found; i++)
		found = shared->jumped[i] == MyDatabaseId;
	if (mark && !found && shared->jumped_count < JUMPED_MAX)
		shared->jumped[shared->jumped_count++] = MyDatabaseId;
	LWLockRelease(shared->lock);
	return found;
}

/* Jump if the start of the server asks for it and nobody has done it. */
static void
check_start(Oid sequence)
{
	static bool checked = false;

	if (checked)
		return;
	if (!(kvs_shared->clean_start && GetWALInsertionTimeLine() == kvs_shared->start_timeline) &&
		!database_jumped(false))
	{
		LockRelationOid(sequence, ShareUpdateExclusiveLock);
		if (!database_jumped(false))
		{
			kvs_sequence_jump(sequence, KVS_STAMP_JUMP);
			XLogFlush(XactLastRecEnd);
			database_jumped(true);
		}
		UnlockRelationOid(sequence, ShareUpdateExclusiveLock);
	}
	checked = true;
}

/*
 * Find where the highest number of this database is kept; my_highest stays NULL if there is no
 * room.
 */
static void
find_highest(Oid sequence)
{
	HighestStamp *highest = shared->highest;
	int			i = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	while (i < shared->highest_count && highest[i].database != MyDatabaseId)
		i++;
	if (i < JUMPED_MAX)
	{
		if (i == shared->highest_count)
			shared->highest_count++;
		if (highest[i].database != MyDatabaseId || highest[i].sequence != sequence)
			pg_atomic_init_u64(&highest[i].number, 0);
		highest[i].database = MyDatabaseId;
		highest[i].sequence = sequence;
		my_highest = &highest[i];
	}
	LWLockRelease(shared->lock);
}

/* The sequence, before this session's first number and after each change of its definition. */
static Oid
get_sequence(void)
{
	const KvsCatalog *catalog = kvs_catalog_get();
	Oid			sequence = catalog->sequence;
	uint32		generation = catalog->generation;

	if (likely(generation == ready))
		return sequence;
	check_definition(sequence);
	if (kvs_shared != NULL)
	{
		check_start(sequence);
		find_highest(sequence);
	}
	ready = generation;
	return sequence;
}

static void
lift_highest(int64 number)
{
	uint64		highest;

	if (my_highest == NULL)
		return;
	highest = pg_atomic_read_u64(&my_highest->number);
	while (highest < (uint64) number && !pg_atomic_compare_exchange_u64(&my_highest->number, &highest, number))
		;
}

/*
 * A number that is not above one that was given before it was taken.  Somebody has set the sequence
 * back, or this session still has numbers from a time when the sequence had a CACHE.
 */
static int64
replace_number(Oid sequence, int64 number, uint64 highest)
{
	/* An administrator must be able to set the sequence back from numbers that no row may bring. */
	if (highest >= KVS_STAMP_LIMIT)
	{
		pg_atomic_compare_exchange_u64(&my_highest->number, &highest, number);
		return number;
	}
	kvs_sequence_raise(sequence, highest, KVS_STAMP_JUMP);
	while ((uint64) number <= highest)
	{
		CHECK_FOR_INTERRUPTS();
		number = nextval_internal(sequence, false);
	}
	return number;
}

int64
kvs_stamp_next(void)
{
	Oid			sequence = get_sequence();
	uint64		highest;
	int64		number;

	if (my_highest == NULL)
		return nextval_internal(sequence, false);
	highest = pg_atomic_read_u64(&my_highest->number);
	/* it locks the sequence's page: a full barrier between the two */
	number = nextval_internal(sequence, false);
	if (unlikely((uint64) number <= highest))
		number = replace_number(sequence, number, highest);
	lift_highest(number);
	return number;
}

int64
kvs_stamp_above(int64 met)
{
	int64		number = kvs_stamp_next();

	if (likely(number > met))
		return number;
	if (met == PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("entry has the highest versionstamp that there is"),
				 errhint("Use another key.")));
	return met + 1;
}

/* ---- Numbers that were not taken here ---- */

/* The highest number that counts, whoever brings it. */
static int64
highest_by_now(int64 last)
{
	int64		seconds = (GetCurrentTimestamp() - FIRST_DAY) / USECS_PER_SEC;

	return Max(last, (Max(seconds, 0) << RATE_BITS) + SLACK);
}

static void
move_above(Oid sequence, int64 number)
{
	kvs_sequence_raise(sequence, number, KVS_STAMP_JUMP);
	lift_highest(number);
}

bool
kvs_stamp_bring(int64 stamp, bool trusted, int64 margin)
{
	Oid			sequence = get_sequence();
	int64		last = kvs_sequence_last(sequence);

	if (stamp > (trusted ? Max(last, KVS_STAMP_LIMIT - 1) : highest_by_now(last)))
		return false;
	if (stamp > last - margin)
		move_above(sequence, Min(stamp, PG_INT64_MAX - margin) + margin);
	return true;
}

void
kvs_stamp_begin_survey(KvsStampSurvey *survey)
{
	survey->limit = highest_by_now(kvs_sequence_last(get_sequence()));
	survey->highest = 0;
	survey->beyond = false;
}

void
kvs_stamp_end_survey(const KvsStampSurvey *survey)
{
	move_above(get_sequence(), survey->highest);
}

void
kvs_stamp_warn(Relation rel, bool kept)
{
	const char *table = quote_qualified_identifier("kvstore", RelationGetRelationName(rel));

	if (kept)
		ereport(WARNING,
				(errmsg("table \"%s\" has versionstamps that nobody can have given yet", table),
				 errdetail("They are disregarded for all other entries."),
				 errhint("Use other keys for these entries.")));
	else
		ereport(WARNING,
				(errmsg("rows for table \"%s\" brought versionstamps that nobody can have given yet", table),
				 errdetail("They got new ones."),
				 errhint("A superuser may bring any versionstamp below %lld.", (long long) KVS_STAMP_LIMIT)));
}

/* ---- Deletions ---- */

static uint64
hash_key(Oid relid, const char *key, int size)
{
	return hash_bytes_extended((const unsigned char *) key, size, ((uint64) MyDatabaseId << 32) | relid);
}

/* Lift a slot to "time", unless somebody else has lifted it further. */
static void
lift_slot(uint32 slot, uint64 time)
{
	pg_atomic_uint64 *deleted = &shared->deleted[slot];
	uint64		old = pg_atomic_read_u64(deleted);

	while (old < time && !pg_atomic_compare_exchange_u64(deleted, &old, time))
		;
}

/* A later key takes the slot over. */
void
kvs_stamp_remember(Oid relid, const char *key, int size, int64 versionstamp)
{
	uint64		hash = hash_key(relid, key, size);
	DeletedStamp *place;

	if (kvs_shared == NULL)
		return;
	place = &shared->remembered[hash % REMEMBERED_STAMPS];
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	place->number = place->key == hash ? Max(place->number, versionstamp) : versionstamp;
	place->key = hash;
	pg_atomic_write_u32(&shared->remembers, 1);
	LWLockRelease(shared->lock);
}

/* 0: nothing is remembered of this key. */
static int64
recall(uint64 hash)
{
	const DeletedStamp *place = &shared->remembered[hash % REMEMBERED_STAMPS];
	int64		number;

	if (likely(pg_atomic_read_u32(&shared->remembers) == 0))
		return 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	number = place->key == hash ? place->number : 0;
	LWLockRelease(shared->lock);
	return number;
}

int64
kvs_stamp_delete(Oid relid, const char *key, int size, int64 versionstamp, int64 *number)
{
	int64		result;

	if (*number <= versionstamp)
		*number = kvs_stamp_next();
	if (unlikely(*number <= versionstamp) && kvs_stamp_bring(versionstamp, false, 0))
		*number = kvs_stamp_next();
	result = *number;
	if (unlikely(result <= versionstamp))
	{
		result = Min(versionstamp, PG_INT64_MAX - 1) + 1;
		kvs_stamp_remember(relid, key, size, result);
	}
	if (kvs_shared != NULL)
		lift_slot(hash_key(relid, key, size) % DELETED_SLOTS,
				  pg_atomic_add_fetch_u64(&shared->deletion_clock, 1));
	return result;
}

void
kvs_stamp_note_deletion_of_all(void)
{
	uint64		time;

	if (kvs_shared == NULL)
		return;
	time = pg_atomic_add_fetch_u64(&shared->deletion_clock, 1);
	for (uint32 slot = 0; slot < DELETED_SLOTS; slot++)
		lift_slot(slot, time);
}

/* ---- Writes ---- */

KvsStamp
kvs_stamp_take(void)
{
	KvsStamp	stamp = {0};

	if (kvs_shared != NULL)
		stamp.clock = pg_atomic_read_u64(&shared->deletion_clock);
	/* nextval_internal() locks the sequence's page: a full barrier between the two */
	stamp.number = kvs_stamp_next();
	return stamp;
}

void
kvs_stamp_check(KvsStamp *stamp, Oid relid, const char *key, int size, bool inserted)
{
	uint64		hash;

	if (kvs_shared == NULL)
	{
		stamp->outdated |= inserted && kvs_sequence_last(get_sequence()) != stamp->number;
		return;
	}
	hash = hash_key(relid, key, size);
	stamp->outdated |= pg_atomic_read_u64(&shared->deleted[hash % DELETED_SLOTS]) > stamp->clock;
	if (inserted)
		kvs_stamp_meet(stamp, recall(hash));
}

/* ---- SQL ---- */

/*
 * kvstore.next_versionstamp(above): for the statements that overwrite rows, when the row they meet
 * has a higher number.
 */
PG_FUNCTION_INFO_V1(kvstore_next_versionstamp);
Datum
kvstore_next_versionstamp(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("kvstore.next_versionstamp()");
	PG_RETURN_INT64(kvs_stamp_above(PG_GETARG_INT64(0)));
}

/* ---- Initialisation ---- */

static void
request_shmem(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(StampShared)));
	RequestNamedLWLockTranche("kvstore_stamp", 1);
}

static void
startup_shmem(void)
{
	bool		found;

	shared = ShmemInitStruct("kvstore stamps", sizeof(StampShared), &found);
	if (found)
		return;
	memset(shared, 0, sizeof(StampShared));
	shared->lock = &GetNamedLWLockTranche("kvstore_stamp")->lock;
	for (int i = 0; i < JUMPED_MAX; i++)
		pg_atomic_init_u64(&shared->highest[i].number, 0);
	pg_atomic_init_u32(&shared->remembers, 0);
	pg_atomic_init_u64(&shared->deletion_clock, 0);
	for (int i = 0; i < DELETED_SLOTS; i++)
		pg_atomic_init_u64(&shared->deleted[i], 0);
}

void
kvs_stamp_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
}
