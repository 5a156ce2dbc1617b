/*
 * expiry.c
 *		Where expired entries may be: the expiry map.
 *
 * Reads hide an expired entry by comparing clocks, so removing it is only housekeeping, and housekeeping must not make writes dearer: an index on
 * expires_at would end HOT updates for every session store that renews its TTL.  Instead we remember, for each group of
 * KVS_EXPIRY_GROUP heap blocks, the smallest expires_at that was stored there.  The sweeper visits the groups that are due and nothing else.
 *
 * The map is a pool of slots in shared memory.  Each table has one for all of it; an extent of EXTENT_GROUPS groups of a table gets a run of slots of its
 * own.  No two groups share one, because a sweep that scanned one of them would forget the other's minimum.  When the pool is
 * full, the blocks that have no slot of their own are noted in the table's; when there is no room for the table, in the database's.
 * A slot for more than a group is due in full when its time has come, and the pass that follows learns the groups.
 *
 * A slot is a lower bound, never more: too low costs a needless visit, too high would strand entries.  So block numbers may be wrong as long as
 * somebody notices: a table whose file is not the one we know (VACUUM FULL, TRUNCATE, restart) is due in full, and the sweeper
 * compares before it believes any slot.  A table that is new in the map is due in full, too.
 *
 * Locking of slots: none.  A slot is a 64-bit atomic.  The sweeper exchanges it for "never", then takes a snapshot and scans the group, then
 * lowers the slot to the smallest expiry it left behind.  Writers lower the slot in the commit callback, when their row is visible to every new
 * snapshot.  So a row committed before the sweeper's snapshot is seen by its scan, and one committed after it lowers the slot after
 * it was set to "never".  Lowering at the time of the write instead would lose a row that is written before the reset and committed after
 * the scan.  Two sweepers may meet: each has scanned after its own reset, and deleting is what row locks are for.
 *
 * What the sweeper exchanged is put back, by the transaction callback, if its transaction or a subtransaction aborts: then the rows it deleted are
 * there again.  It is kept in backend memory, for there is no way to end a transaction without that callback but a crash,
 * after which shared memory is made anew.  A pass over a whole table needs no such thing: that it is under way, and where, is in the map.
 *
 * The directory (which table and which extent has which slots) is protected by map->lock.  A slot is looked up when the row is written, and lowered at commit:
 * in between it stays what it is, because only a table that nobody else can have locked is forgotten, and who has written holds his lock until
 * after the callback.  The callback itself only walks an array: it allocates nothing, looks nothing up, raises nothing.
 *
 * For the launcher each database has "next due", lowered after the slots by the same protocol: exchange, read the slots, lower.  A
 * sleeper publishes until when it sleeps and reads next due once more; a committer lowers next due and reads then until
 * when the sleeper sleeps: one of the two sees the other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "expiry.h"
#include "guc.h"
#include "testing.h"

/* Groups of an extent, and its blocks: 16 MB. */
#define EXTENT_GROUPS	256
#define EXTENT_BLOCKS	(EXTENT_GROUPS * KVS_EXPIRY_GROUP)

/* Tables in the map, all databases; what comes later is swept by full passes. */
#define MAX_TABLES		4096

/* First and longest delay between full passes over a database, in milliseconds; it doubles in between. */
#define FIRST_FULL_DELAY	(60 * 1000)
#define LAST_FULL_DELAY		(24 * 60 * 60 * 1000)

/* First and longest time that a failing table is put aside, in milliseconds; it doubles in between. */
#define FIRST_BACKOFF		1000
#define LAST_BACKOFF		(60 * 1000)

/* An ERROR of a worker is logged at most so often, in milliseconds. */
#define LOG_INTERVAL		(60 * 1000)

struct KvsExpiryTable
{
	/* Under map->lock. */
	Oid			database;		/* InvalidOid: free */
	Oid			relid;

	/* Atomics. */
	KvsExpirySlot whole;
	pg_atomic_uint64 aside_until;	/* TimestampTz */
	pg_atomic_uint32 filenumber;	/* the file that the block numbers are of */
	pg_atomic_uint32 pass_block;	/* where the pass is that is under way; written by the database's worker */
	pg_atomic_uint32 failures;	/* in a row */
};

typedef struct ExpiryExtent
{
	/* Under map->lock. */
	KvsExpiryTable *table;		/* NULL: free; then all slots are "never" */
	uint32		number;			/* its first block is number * EXTENT_BLOCKS */

	KvsExpirySlot slots[EXTENT_GROUPS];
} ExpiryExtent;

typedef struct ExpiryDatabase
{
	Oid			database;		/* under map->lock; InvalidOid: free */

	/* Atomics. */
	KvsExpirySlot next_due;		/* lower bound of everything below */
	KvsExpirySlot full;			/* when all its stores are due in full */
	pg_atomic_uint64 wake_at;	/* a commit that is due before sets the latch of who sleeps */
	pg_atomic_uint64 logged_at;
	pg_atomic_uint32 full_delay;	/* milliseconds, the last one */

	/* The worker's, NULL: the launcher's.  Read without a lock: latches stay where they are, and a needless SetLatch() does no harm. */
	Latch	   *volatile latch;
} ExpiryDatabase;

typedef struct ExpiryMap
{
	LWLock	   *lock;
	pg_atomic_uint64 generation;	/* advanced when a table is forgotten */
	Latch	   *volatile launcher;
	int			nextents;
	ExpiryDatabase databases[KVS_EXPIRY_DATABASES];
	KvsExpiryTable tables[MAX_TABLES];
	ExpiryExtent extents[FLEXIBLE_ARRAY_MEMBER];
} ExpiryMap;

/* The directory: table (part 0) and extent (part number + 1) to their entries. */
typedef struct DirectoryKey
{
	Oid			database;
	Oid			relid;
	uint32		part;
} DirectoryKey;

typedef struct DirectoryEntry
{
	DirectoryKey key;			/* must be first */
	void	   *entry;
} DirectoryEntry;

bool		kvs_expiry_active = false;

static ExpiryMap *map = NULL;
static HTAB *directory = NULL;
static ExpiryDatabase *my_database = NULL;

/* A slot of a table or database that this backend has just put into the map: it is due at once. */
static KvsExpirySlot *made_slot = NULL;

/* A slot, and what to lower it to. */
typedef struct Lowering
{
	KvsExpirySlot *slot;
	TimestampTz when;
} Lowering;

typedef struct LoweringList
{
	Lowering   *items;
	int			count;
	int			size;
} LoweringList;

static LoweringList notes;		/* at commit */
static LoweringList resets;		/* at abort */

/* At commit: where the pass is then. */
static KvsExpiryTable *advanced_table = NULL;
static BlockNumber advanced_block;

bool
kvs_expiry_is_there(void)
{
	return map != NULL;
}

/* ---- Slots ---- */

static TimestampTz
read_slot(KvsExpirySlot *slot)
{
	return (TimestampTz) pg_atomic_read_u64(slot);
}

/* Returns whether it was higher.  A full barrier in that case. */
static bool
lower_slot(KvsExpirySlot *slot, TimestampTz when)
{
	uint64		old = pg_atomic_read_u64(slot);

	while ((TimestampTz) old > when)
		if (pg_atomic_compare_exchange_u64(slot, &old, (uint64) when))
			return true;
	return false;
}

/* ---- Lists of slots ---- */

static int
compare_lowerings(const void *a, const void *b)
{
	uintptr_t	x = (uintptr_t) ((const Lowering *) a)->slot;
	uintptr_t	y = (uintptr_t) ((const Lowering *) b)->slot;

	return x < y ? -1 : x > y ? 1 : 0;
}

/* Keep the smallest of each slot. */
static void
fold_list(LoweringList *list)
{
	int			left = 0;

	qsort(list->items, list->count, sizeof(Lowering), compare_lowerings);
	for (int i = 0; i < list->count; i++)
	{
		Lowering   *item = &list->items[i];
		Lowering   *last = left > 0 ? &list->items[left - 1] : NULL;

		if (last != NULL && last->slot == item->slot)
			last->when = Min(last->when, item->when);
		else
			list->items[left++] = *item;
	}
	list->count = left;
}

/* A list has at most twice as many items as there are slots, however much a transaction writes. */
static void
add_to_list(LoweringList *list, KvsExpirySlot *slot, TimestampTz when)
{
	Lowering   *last = list->count > 0 ? &list->items[list->count - 1] : NULL;

	if (last != NULL && last->slot == slot)
	{
		last->when = Min(last->when, when);
		return;
	}
	if (list->count == list->size)
	{
		fold_list(list);
		if (list->items == NULL)
		{
			list->items = MemoryContextAlloc(TopMemoryContext, 64 * sizeof(Lowering));
			list->size = 64;
		}
		else if (list->count > list->size / 2)
		{
			list->items = repalloc(list->items, 2 * list->size * sizeof(Lowering));
			list->size *= 2;
		}
	}
	list->items[list->count].slot = slot;
	list->items[list->count].when = when;
	list->count++;
}

/* After slots were lowered: lower next due, and wake who sleeps too long. */
static void
tell_schedule(TimestampTz earliest)
{
	Latch	   *latch;

	if (my_database == NULL || !lower_slot(&my_database->next_due, earliest))
		return;
	if (earliest >= (TimestampTz) pg_atomic_read_u64(&my_database->wake_at))
		return;
	latch = my_database->latch;
	if (latch == NULL)
		latch = map->launcher;
	if (latch != NULL)
		SetLatch(latch);
}

void
kvs_expiry_lower(KvsExpirySlot *slot, TimestampTz when)
{
	lower_slot(slot, when);
	tell_schedule(when);
}

/* Lower all slots of a list.  Runs in transaction callbacks. */
static void
lower_list(LoweringList *list)
{
	TimestampTz earliest = DT_NOEND;

	/* Our rows must be visible before the slots are read. */
	pg_memory_barrier();
	for (int i = 0; i < list->count; i++)
	{
		lower_slot(list->items[i].slot, list->items[i].when);
		earliest = Min(earliest, list->items[i].when);
	}
	tell_schedule(earliest);
}

/* ---- The directory ---- */

/* Find an entry; map->lock is held. */
static void *
find_entry(Oid database, Oid relid, uint32 part)
{
	DirectoryKey key = {database, relid, part};
	DirectoryEntry *entry = hash_search(directory, &key, HASH_FIND, NULL);

	return entry ? entry->entry : NULL;
}

/* Add an entry that is not there yet; map->lock is held exclusively.  The hash has room for as many as there are tables and extents. */
static bool
add_entry(Oid database, Oid relid, uint32 part, void *value)
{
	DirectoryKey key = {database, relid, part};
	DirectoryEntry *entry = hash_search(directory, &key, HASH_ENTER_NULL, NULL);

	if (entry == NULL)
		return false;
	entry->entry = value;
	return true;
}

static void
remove_entry(Oid database, Oid relid, uint32 part)
{
	DirectoryKey key = {database, relid, part};

	hash_search(directory, &key, HASH_REMOVE, NULL);
}

/* This database's entry; "make": if need be.  NULL if there is none, or no room.  It stays as long as anybody is connected. */
static ExpiryDatabase *
find_database(bool make)
{
	ExpiryDatabase *free_entry = NULL;

	LWLockAcquire(map->lock, LW_EXCLUSIVE);
	for (int i = 0; i < KVS_EXPIRY_DATABASES && my_database == NULL; i++)
	{
		ExpiryDatabase *entry = &map->databases[i];

		if (entry->database == MyDatabaseId)
			my_database = entry;
		else if (!OidIsValid(entry->database) && free_entry == NULL)
			free_entry = entry;
	}
	if (my_database == NULL && free_entry != NULL && make)
	{
		pg_atomic_write_u64(&free_entry->next_due, (uint64) DT_NOEND);
		pg_atomic_write_u64(&free_entry->full, (uint64) DT_NOBEGIN);
		pg_atomic_write_u64(&free_entry->wake_at, (uint64) DT_NOEND);
		pg_atomic_write_u64(&free_entry->logged_at, (uint64) DT_NOBEGIN);
		pg_atomic_write_u32(&free_entry->full_delay, 0);
		free_entry->latch = NULL;
		free_entry->database = MyDatabaseId;
		my_database = free_entry;
		made_slot = &my_database->full;
	}
	LWLockRelease(map->lock);
	return my_database;
}

static ExpiryDatabase *
get_database(void)
{
	if (likely(my_database != NULL))
		return my_database;
	return map != NULL && OidIsValid(MyDatabaseId) ? find_database(true) : NULL;
}

/* Find or make the entry of a table; map->lock is held exclusively. */
static KvsExpiryTable *
make_table(Oid relid)
{
	KvsExpiryTable *table = find_entry(MyDatabaseId, relid, 0);

	if (table != NULL)
		return table;
	for (int i = 0; i < MAX_TABLES; i++)
	{
		table = &map->tables[i];
		if (OidIsValid(table->database))
			continue;
		if (!add_entry(MyDatabaseId, relid, 0, table))
			return NULL;
		pg_atomic_write_u64(&table->whole, (uint64) DT_NOBEGIN);
		pg_atomic_write_u64(&table->aside_until, (uint64) DT_NOBEGIN);
		pg_atomic_write_u32(&table->filenumber, InvalidOid);
		pg_atomic_write_u32(&table->pass_block, InvalidBlockNumber);
		pg_atomic_write_u32(&table->failures, 0);
		table->relid = relid;
		table->database = MyDatabaseId;
		made_slot = &table->whole;
		return table;
	}
	return NULL;
}

KvsExpiryTable *
kvs_expiry_get_table(Oid relid)
{
	KvsExpiryTable *table;

	if (get_database() == NULL)
		return NULL;
	LWLockAcquire(map->lock, LW_SHARED);
	table = find_entry(MyDatabaseId, relid, 0);
	LWLockRelease(map->lock);
	if (table == NULL)
	{
		LWLockAcquire(map->lock, LW_EXCLUSIVE);
		table = make_table(relid);
		LWLockRelease(map->lock);
	}
	return table;
}

/* Find or make an extent; map->lock is held exclusively.  NULL: the pool is full. */
static ExpiryExtent *
make_extent(Oid relid, uint32 number)
{
	ExpiryExtent *extent = find_entry(MyDatabaseId, relid, number + 1);
	KvsExpiryTable *table = make_table(relid);

	if (extent != NULL || table == NULL)
		return extent;
	for (int i = 0; i < map->nextents; i++)
	{
		extent = &map->extents[i];
		if (extent->table != NULL)
			continue;
		if (!add_entry(MyDatabaseId, relid, number + 1, extent))
			return NULL;
		extent->table = table;
		extent->number = number;
		return extent;
	}
	return NULL;
}

/* Find or make the extent of a block. */
static ExpiryExtent *
get_extent(Oid relid, uint32 number)
{
	/* The last one found; good while no table was forgotten, since ours could not be: we have it locked. */
	static Oid	last_relid = InvalidOid;
	static uint32 last_number;
	static uint64 last_generation;
	static ExpiryExtent *last_extent;

	ExpiryExtent *extent;
	uint64		generation = pg_atomic_read_u64(&map->generation);

	if (relid == last_relid && number == last_number && generation == last_generation)
		return last_extent;
	LWLockAcquire(map->lock, LW_SHARED);
	extent = find_entry(MyDatabaseId, relid, number + 1);
	LWLockRelease(map->lock);
	if (extent == NULL)
	{
		LWLockAcquire(map->lock, LW_EXCLUSIVE);
		extent = make_extent(relid, number);
		LWLockRelease(map->lock);
	}
	if (extent != NULL)
	{
		last_relid = relid;
		last_number = number;
		last_generation = generation;
		last_extent = extent;
	}
	return extent;
}

KvsExpirySlot *
kvs_expiry_get_slot(Oid relid, BlockNumber block)
{
	ExpiryExtent *extent = NULL;
	KvsExpiryTable *table;

	if (get_database() == NULL)
		return NULL;
	if (BlockNumberIsValid(block))
		extent = get_extent(relid, block / EXTENT_BLOCKS);
	if (extent != NULL)
		return &extent->slots[block % EXTENT_BLOCKS / KVS_EXPIRY_GROUP];
	table = kvs_expiry_get_table(relid);
	return table ? &table->whole : NULL;
}

KvsExpirySlot *
kvs_expiry_whole(KvsExpiryTable *table)
{
	return &table->whole;
}

int
kvs_expiry_list_tables(Oid *relids, int max)
{
	int			count = 0;

	LWLockAcquire(map->lock, LW_SHARED);
	for (int i = 0; i < MAX_TABLES && count < max; i++)
		if (map->tables[i].database == MyDatabaseId)
			relids[count++] = map->tables[i].relid;
	LWLockRelease(map->lock);
	return count;
}

/* map->lock is held exclusively. */
static void
forget_table(KvsExpiryTable *table)
{
	for (int i = 0; i < map->nextents; i++)
	{
		ExpiryExtent *extent = &map->extents[i];

		if (extent->table != table)
			continue;
		remove_entry(table->database, table->relid, extent->number + 1);
		extent->table = NULL;
		for (int n = 0; n < EXTENT_GROUPS; n++)
			pg_atomic_write_u64(&extent->slots[n], (uint64) DT_NOEND);
	}
	remove_entry(table->database, table->relid, 0);
	table->database = InvalidOid;
	pg_atomic_fetch_add_u64(&map->generation, 1);
}

void
kvs_expiry_forget_table(Oid database, Oid relid)
{
	KvsExpiryTable *table;

	LWLockAcquire(map->lock, LW_EXCLUSIVE);
	table = find_entry(database, relid, 0);
	if (table != NULL)
		forget_table(table);
	LWLockRelease(map->lock);
}

void
kvs_expiry_forget_database(Oid database)
{
	LWLockAcquire(map->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_TABLES; i++)
		if (map->tables[i].database == database)
			forget_table(&map->tables[i]);
	for (int i = 0; i < KVS_EXPIRY_DATABASES; i++)
		if (map->databases[i].database == database)
			map->databases[i].database = InvalidOid;
	LWLockRelease(map->lock);
}

/* ---- Writers ---- */

void
kvs_expiry_note_row(Oid relid, BlockNumber block, TimestampTz when)
{
	KvsExpirySlot *slot;

	made_slot = NULL;
	slot = kvs_expiry_get_slot(relid, block);
	if (slot == NULL && my_database != NULL)
		slot = &my_database->full;
	if (unlikely(made_slot != NULL))
		add_to_list(&notes, made_slot, DT_NOBEGIN);
	if (slot != NULL)
		add_to_list(&notes, slot, when);
}

static void
check_prepare(void)
{
	if (notes.count > 0 || resets.count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has written or swept entries with a ttl"),
				 errhint("Commit it in one phase.")));
}

static void
expiry_xact_callback(XactEvent event, void *arg)
{
	if (likely(notes.count == 0 && resets.count == 0 && advanced_table == NULL))
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			check_prepare();
			return;
		case XACT_EVENT_COMMIT:
			/* A test may have its notes wait for the next commit. */
			if (kvs_testing_is("publish"))
				return;
			lower_list(&notes);
			if (advanced_table != NULL)
				pg_atomic_write_u32(&advanced_table->pass_block, advanced_block);
			break;
		case XACT_EVENT_ABORT:
			lower_list(&resets);
			break;
		default:
			return;
	}
	notes.count = 0;
	resets.count = 0;
	advanced_table = NULL;
}

/* Notes of a subtransaction that aborted stay: they are lower bounds.  Resets stay for the same reason: the rest may abort, too. */
static void
expiry_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	if (resets.count > 0)
		lower_list(&resets);
	advanced_table = NULL;
}

/* ---- Sweepers ---- */

TimestampTz
kvs_expiry_reset(KvsExpirySlot *slot)
{
	TimestampTz old;

	/* Room first: after the exchange nothing may fail. */
	add_to_list(&resets, slot, DT_NOEND);
	old = (TimestampTz) pg_atomic_exchange_u64(slot, (uint64) DT_NOEND);
	add_to_list(&resets, slot, old);
	return old;
}

void
kvs_expiry_check_file(KvsExpiryTable *table, Oid filenumber)
{
	if (pg_atomic_read_u32(&table->filenumber) == filenumber)
		return;
	lower_slot(&table->whole, DT_NOBEGIN);
	pg_atomic_write_u32(&table->pass_block, InvalidBlockNumber);
	pg_memory_barrier();
	pg_atomic_write_u32(&table->filenumber, filenumber);
}

BlockNumber
kvs_expiry_pass_block(KvsExpiryTable *table)
{
	return pg_atomic_read_u32(&table->pass_block);
}

void
kvs_expiry_begin_pass(KvsExpiryTable *table)
{
	pg_atomic_write_u32(&table->pass_block, 0);
	pg_atomic_exchange_u64(&table->whole, (uint64) DT_NOEND);
}

void
kvs_expiry_advance_pass(KvsExpiryTable *table, BlockNumber block)
{
	advanced_table = table;
	advanced_block = block;
}

/* All of the table is due, or a pass over it is under way. */
static bool
is_due_in_full(KvsExpiryTable *table, TimestampTz now)
{
	return pg_atomic_read_u32(&table->pass_block) != InvalidBlockNumber || read_slot(&table->whole) <= now;
}

/* Mark the tables of this database that have something due; map->lock is held. */
static void
mark_due_tables(TimestampTz now, bool passes, bool *due)
{
	for (int i = 0; i < MAX_TABLES; i++)
		due[i] = passes && map->tables[i].database == MyDatabaseId && is_due_in_full(&map->tables[i], now);
	for (int i = 0; i < map->nextents; i++)
	{
		ExpiryExtent *extent = &map->extents[i];

		if (extent->table == NULL || extent->table->database != MyDatabaseId)
			continue;
		for (int n = 0; n < EXTENT_GROUPS && !due[extent->table - map->tables]; n++)
			due[extent->table - map->tables] = read_slot(&extent->slots[n]) <= now;
	}
}

/* Fill in what is due in a table; map->lock is held. */
static void
collect_work(KvsExpiryTable *table, TimestampTz now, bool passes, KvsExpiryWork *work)
{
	work->relid = table->relid;
	work->table = table;
	work->whole = passes && is_due_in_full(table, now);
	work->ngroups = 0;
	for (int i = 0; i < map->nextents; i++)
	{
		ExpiryExtent *extent = &map->extents[i];

		if (extent->table != table)
			continue;
		for (int n = 0; n < EXTENT_GROUPS && work->ngroups < KVS_EXPIRY_WORK_GROUPS; n++)
		{
			if (read_slot(&extent->slots[n]) > now)
				continue;
			work->groups[work->ngroups].slot = &extent->slots[n];
			work->groups[work->ngroups].block = extent->number * EXTENT_BLOCKS + n * KVS_EXPIRY_GROUP;
			work->ngroups++;
		}
	}
}

bool
kvs_expiry_find_work(Oid relid, TimestampTz now, bool passes, KvsExpiryWork *work)
{
	static int	last_table = 0;

	KvsExpiryTable *found = NULL;
	bool		due[MAX_TABLES];

	LWLockAcquire(map->lock, LW_SHARED);
	if (OidIsValid(relid))
		found = find_entry(MyDatabaseId, relid, 0);
	else
	{
		mark_due_tables(now, passes, due);
		for (int i = 1; i <= MAX_TABLES && found == NULL; i++)
		{
			int			n = (last_table + i) % MAX_TABLES;

			if (!due[n] || (TimestampTz) pg_atomic_read_u64(&map->tables[n].aside_until) > now)
				continue;
			found = &map->tables[n];
			last_table = n;
		}
	}
	if (found != NULL)
		collect_work(found, now, passes, work);
	LWLockRelease(map->lock);
	return found != NULL && (work->whole || work->ngroups > 0);
}

void
kvs_expiry_put_aside(Oid relid, TimestampTz now, bool failed)
{
	KvsExpiryTable *table;
	int			delay = KVS_EXPIRY_RETRY;

	LWLockAcquire(map->lock, LW_SHARED);
	table = find_entry(MyDatabaseId, relid, 0);
	if (table != NULL)
	{
		uint32		failures = failed ? pg_atomic_fetch_add_u32(&table->failures, 1) : 0;

		if (failed)
			delay = Min(FIRST_BACKOFF << Min(failures, 10), LAST_BACKOFF);
		pg_atomic_write_u64(&table->aside_until, (uint64) TimestampTzPlusMilliseconds(now, delay));
	}
	LWLockRelease(map->lock);
}

void
kvs_expiry_done_well(KvsExpiryTable *table)
{
	pg_atomic_write_u32(&table->failures, 0);
}

/* ---- Schedule ---- */

KvsExpirySlot *
kvs_expiry_database(void)
{
	return get_database() ? &my_database->full : NULL;
}

KvsExpirySlot *
kvs_expiry_find_database(void)
{
	return my_database != NULL || find_database(false) != NULL ? &my_database->full : NULL;
}

int
kvs_expiry_next_delay(void)
{
	int			delay = pg_atomic_read_u32(&my_database->full_delay);

	delay = delay == 0 ? FIRST_FULL_DELAY : Min(2 * delay, LAST_FULL_DELAY);
	pg_atomic_write_u32(&my_database->full_delay, delay);
	return delay;
}

bool
kvs_expiry_may_log(TimestampTz now)
{
	TimestampTz last = (TimestampTz) pg_atomic_read_u64(&my_database->logged_at);

	if (last != DT_NOBEGIN && !TimestampDifferenceExceeds(last, now, LOG_INTERVAL))
		return false;
	pg_atomic_write_u64(&my_database->logged_at, (uint64) now);
	return true;
}

/* The earliest time of all slots of this database; "aside": a table that is put aside is not due before it is back. */
static TimestampTz
read_map(bool aside, bool known_only)
{
	TimestampTz result = DT_NOEND;

	LWLockAcquire(map->lock, LW_SHARED);
	for (int i = 0; i < MAX_TABLES + map->nextents; i++)
	{
		ExpiryExtent *extent = i < MAX_TABLES ? NULL : &map->extents[i - MAX_TABLES];
		KvsExpiryTable *table = extent ? extent->table : &map->tables[i];
		TimestampTz earliest = DT_NOEND;

		if (table == NULL || table->database != MyDatabaseId)
			continue;
		if (extent == NULL)
		{
			earliest = read_slot(&table->whole);
			if (pg_atomic_read_u32(&table->pass_block) != InvalidBlockNumber)
				earliest = DT_NOBEGIN;
		}
		for (int n = 0; extent != NULL && n < EXTENT_GROUPS; n++)
			earliest = Min(earliest, read_slot(&extent->slots[n]));
		if (aside && earliest != DT_NOEND)
			earliest = Max(earliest, (TimestampTz) pg_atomic_read_u64(&table->aside_until));
		if (!known_only || earliest != DT_NOBEGIN)
			result = Min(result, earliest);
	}
	LWLockRelease(map->lock);
	return result;
}

TimestampTz
kvs_expiry_next(void)
{
	TimestampTz next;

	pg_atomic_exchange_u64(&my_database->next_due, (uint64) DT_NOEND);
	next = Min(read_map(true, false), read_slot(&my_database->full));
	lower_slot(&my_database->next_due, next);
	return next;
}

int
kvs_expiry_list_databases(KvsExpiryDatabaseDue *list)
{
	int			count = 0;

	LWLockAcquire(map->lock, LW_SHARED);
	for (int i = 0; i < KVS_EXPIRY_DATABASES; i++)
	{
		ExpiryDatabase *entry = &map->databases[i];

		if (!OidIsValid(entry->database))
			continue;
		list[count].database = entry->database;
		list[count].due = read_slot(&entry->next_due);
		count++;
	}
	LWLockRelease(map->lock);
	return count;
}

bool
kvs_expiry_worker_sleeps(TimestampTz wake_at, TimestampTz next)
{
	pg_atomic_write_u64(&my_database->wake_at, (uint64) wake_at);
	pg_memory_barrier();
	return read_slot(&my_database->next_due) >= Min(wake_at, next);
}

void
kvs_expiry_worker_awake(void)
{
	my_database->latch = MyLatch;
	pg_atomic_write_u64(&my_database->wake_at, (uint64) DT_NOBEGIN);
}

void
kvs_expiry_worker_leaves(bool again)
{
	if (my_database == NULL)
		return;
	my_database->latch = NULL;
	pg_atomic_write_u64(&my_database->wake_at, (uint64) DT_NOEND);
	if (again)
		lower_slot(&my_database->next_due, DT_NOBEGIN);
}

static bool
has_come_earlier(const ExpiryDatabase *entry, TimestampTz due, const KvsExpiryDatabaseDue *seen, int count)
{
	for (int i = 0; i < count; i++)
		if (seen[i].database == entry->database)
			return due < seen[i].due;
	return true;
}

bool
kvs_expiry_launcher_sleeps(TimestampTz wake_at, const KvsExpiryDatabaseDue *seen, int count)
{
	bool		result = true;

	LWLockAcquire(map->lock, LW_SHARED);
	for (int i = 0; i < KVS_EXPIRY_DATABASES; i++)
		if (OidIsValid(map->databases[i].database) && map->databases[i].latch == NULL)
			pg_atomic_write_u64(&map->databases[i].wake_at, (uint64) wake_at);
	pg_memory_barrier();
	for (int i = 0; i < KVS_EXPIRY_DATABASES && result; i++)
	{
		ExpiryDatabase *entry = &map->databases[i];
		TimestampTz due = read_slot(&entry->next_due);

		if (OidIsValid(entry->database) && entry->latch == NULL && due < wake_at)
			result = !has_come_earlier(entry, due, seen, count);
	}
	LWLockRelease(map->lock);
	return result;
}

void
kvs_expiry_launcher_starts(void)
{
	map->launcher = MyLatch;
}

/* ---- Initialisation ---- */

static int
count_extents(void)
{
	return Max(kvs_guc_expiry_slots / EXTENT_GROUPS, 1);
}

static Size
map_size(void)
{
	return add_size(offsetof(ExpiryMap, extents), mul_size(count_extents(), sizeof(ExpiryExtent)));
}

void
kvs_expiry_request_shmem(void)
{
	RequestAddinShmemSpace(map_size());
	RequestAddinShmemSpace(hash_estimate_size(MAX_TABLES + count_extents(), sizeof(DirectoryEntry)));
	RequestNamedLWLockTranche("kvstore_expiry", 1);
}

static void
init_map(void)
{
	memset(map, 0, map_size());
	map->lock = &GetNamedLWLockTranche("kvstore_expiry")->lock;
	map->nextents = count_extents();
	pg_atomic_init_u64(&map->generation, 0);
	for (int i = 0; i < KVS_EXPIRY_DATABASES; i++)
	{
		pg_atomic_init_u64(&map->databases[i].next_due, 0);
		pg_atomic_init_u64(&map->databases[i].full, 0);
		pg_atomic_init_u64(&map->databases[i].wake_at, 0);
		pg_atomic_init_u64(&map->databases[i].logged_at, 0);
		pg_atomic_init_u32(&map->databases[i].full_delay, 0);
	}
	for (int i = 0; i < MAX_TABLES; i++)
	{
		pg_atomic_init_u64(&map->tables[i].whole, 0);
		pg_atomic_init_u64(&map->tables[i].aside_until, 0);
		pg_atomic_init_u32(&map->tables[i].filenumber, 0);
		pg_atomic_init_u32(&map->tables[i].pass_block, 0);
		pg_atomic_init_u32(&map->tables[i].failures, 0);
	}
	for (int i = 0; i < map->nextents; i++)
		for (int n = 0; n < EXTENT_GROUPS; n++)
			pg_atomic_init_u64(&map->extents[i].slots[n], (uint64) DT_NOEND);
}

void
kvs_expiry_startup_shmem(void)
{
	HASHCTL		ctl;
	long		entries = MAX_TABLES + count_extents();
	bool		found;

	map = ShmemInitStruct("kvstore expiry map", map_size(), &found);
	if (!found)
		init_map();
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(DirectoryKey);
	ctl.entrysize = sizeof(DirectoryEntry);
	directory = ShmemInitHash("kvstore expiry directory", entries, entries, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	kvs_expiry_active = true;
}

void
kvs_expiry_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	RegisterXactCallback(expiry_xact_callback, NULL);
	RegisterSubXactCallback(expiry_subxact_callback, NULL);
}

/* ---- SQL ---- */

/* kvstore.announce(): at commit, the launcher is told that this database has the extension. */
PG_FUNCTION_INFO_V1(kvstore_announce);
Datum
kvstore_announce(PG_FUNCTION_ARGS)
{
	if (get_database() != NULL)
	{
		/* What an earlier extension in this database learned about its passes does not count. */
		pg_atomic_write_u32(&my_database->full_delay, 0);
		add_to_list(&notes, &my_database->full, DT_NOBEGIN);
	}
	PG_RETURN_BOOL(my_database != NULL);
}

/* kvstore.oldest_due() returns timestamptz: since when something may be due in this database, NULL: nothing is, or there is no map */
PG_FUNCTION_INFO_V1(kvstore_oldest_due);
Datum
kvstore_oldest_due(PG_FUNCTION_ARGS)
{
	TimestampTz oldest = map ? read_map(false, true) : DT_NOEND;

	if (oldest > GetCurrentTimestamp())
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(oldest);
}

typedef struct MapRow
{
	Oid			relid;
	int64		block;			/* -1: the whole table */
	TimestampTz due;
} MapRow;

/* All slots of this database that are not "never".  "rows" has room for every slot of the map. */
static int
copy_map(MapRow *rows)
{
	int			count = 0;

	LWLockAcquire(map->lock, LW_SHARED);
	for (int i = 0; i < MAX_TABLES; i++)
	{
		KvsExpiryTable *table = &map->tables[i];

		if (table->database != MyDatabaseId)
			continue;
		rows[count].relid = table->relid;
		rows[count].block = -1;
		rows[count].due = read_slot(&table->whole);
		if (pg_atomic_read_u32(&table->pass_block) != InvalidBlockNumber)
			rows[count].due = DT_NOBEGIN;
		count += rows[count].due != DT_NOEND;
	}
	for (int i = 0; i < map->nextents; i++)
	{
		ExpiryExtent *extent = &map->extents[i];

		if (extent->table == NULL || extent->table->database != MyDatabaseId)
			continue;
		for (int n = 0; n < EXTENT_GROUPS; n++)
		{
			rows[count].relid = extent->table->relid;
			rows[count].block = (int64) extent->number * EXTENT_BLOCKS + n * KVS_EXPIRY_GROUP;
			rows[count].due = read_slot(&extent->slots[n]);
			count += rows[count].due != DT_NOEND;
		}
	}
	LWLockRelease(map->lock);
	return count;
}

/* kvstore.expiry_map(): the slots of this database that are not "never": table, first block (NULL: the whole table), due. */
PG_FUNCTION_INFO_V1(kvstore_expiry_map);
Datum
kvstore_expiry_map(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MapRow	   *rows;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (map == NULL)
		return (Datum) 0;
	rows = MemoryContextAllocHuge(CurrentMemoryContext,
								  sizeof(MapRow) * (MAX_TABLES + (Size) map->nextents * EXTENT_GROUPS + 1));
	count = copy_map(rows);
	for (int i = 0; i < count; i++)
	{
		Datum		values[3] = {
			ObjectIdGetDatum(rows[i].relid), Int64GetDatum(rows[i].block), TimestampTzGetDatum(rows[i].due)
		};
		bool		nulls[3] = {false, rows[i].block < 0, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	pfree(rows);
	return (Datum) 0;
}
