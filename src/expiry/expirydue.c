/*
 * expirydue.c
 *		The expiry map, read: what is due where, and when to look again.  The design is in expiry.c.
 *
 * The map's lock is held in share mode while it is read, so that no entry comes or goes; the slots
 * change all the while.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/rights.h"
#include "expiry/expiry.h"
#include "expiry/expirymap.h"
#include "expiry/turns.h"

/*
 * First and longest delay between full passes over a database, in milliseconds; it doubles in
 * between.
 */
#define FIRST_FULL_DELAY	(60 * 1000)
#define LAST_FULL_DELAY		(24 * 60 * 60 * 1000)

/* No table is set aside for so many milliseconds. */
#define MOST_ASIDE			((int64) 60 * 60 * 1000)

/* An ERROR of a worker is logged at most so often, in milliseconds. */
#define LOG_INTERVAL		(60 * 1000)

/* ---- Sweepers ---- */

void
kvs_expirydue_check_file(KvsExpiryTable *table, Oid filenumber)
{
	if (pg_atomic_read_u32(&table->filenumber) == filenumber)
		return;
	kvs_expiry_lower_slot(&table->whole, DT_NOBEGIN);
	pg_atomic_write_u32(&table->pass_block, InvalidBlockNumber);
	pg_memory_barrier();
	pg_atomic_write_u32(&table->filenumber, filenumber);
}

BlockNumber
kvs_expirydue_pass_block(KvsExpiryTable *table)
{
	return pg_atomic_read_u32(&table->pass_block);
}

void
kvs_expirydue_begin_pass(KvsExpiryTable *table)
{
	pg_atomic_write_u32(&table->pass_block, 0);
	pg_atomic_exchange_u64(&table->whole, (uint64) DT_NOEND);
}

/* All of the table is due, or a pass over it is under way. */
static bool
is_due_in_full(KvsExpiryTable *table, TimestampTz now)
{
	return pg_atomic_read_u32(&table->pass_block) != InvalidBlockNumber || kvs_expiry_read_slot(&table->whole) <= now;
}

/* Mark the tables of this database that have something due; the map's lock is held. */
static void
mark_due_tables(TimestampTz now, bool passes, bool *due)
{
	for (int i = 0; i < kvs_expirymap_map->ntables; i++)
		due[i] = passes && kvs_expirymap_map->tables[i].database == MyDatabaseId && is_due_in_full(&kvs_expirymap_map->tables[i], now);
	for (int i = 0; i < kvs_expirymap_map->nextents; i++)
	{
		KvsExpiryExtent *extent = &kvs_expirymap_map->extents[i];

		if (extent->table == NULL || extent->table->database != MyDatabaseId)
			continue;
		for (int n = 0; n < KVS_EXTENT_GROUPS && !due[extent->table - kvs_expirymap_map->tables]; n++)
			due[extent->table - kvs_expirymap_map->tables] = kvs_expiry_read_slot(&extent->slots[n]) <= now;
	}
}

/* The first of an extent's n-th group of blocks */
static BlockNumber
first_block(const KvsExpiryExtent *extent, int n)
{
	return extent->number * KVS_EXTENT_BLOCKS + n * KVS_EXPIRY_GROUP;
}

/* Fill in what is due in a table; the map's lock is held. */
static void
collect_work(KvsExpiryTable *table, TimestampTz now, bool passes, KvsExpiryWork *work)
{
	work->relid = table->relid;
	work->table = table;
	work->whole = passes && is_due_in_full(table, now);
	work->ngroups = 0;
	for (int i = 0; i < kvs_expirymap_map->nextents; i++)
	{
		KvsExpiryExtent *extent = &kvs_expirymap_map->extents[i];

		if (extent->table != table)
			continue;
		for (int n = 0; n < KVS_EXTENT_GROUPS && work->ngroups < KVS_EXPIRY_WORK_GROUPS; n++)
		{
			if (kvs_expiry_read_slot(&extent->slots[n]) > now)
				continue;
			work->groups[work->ngroups].slot = &extent->slots[n];
			work->groups[work->ngroups].block = first_block(extent, n);
			work->ngroups++;
		}
	}
}

/*
 * Until when a table is set aside.  A time so far away was written before the clock was set back.
 */
static TimestampTz
aside_until(KvsExpiryTable *table, TimestampTz now)
{
	TimestampTz until = (TimestampTz) pg_atomic_read_u64(&table->aside_until);

	return until > TimestampTzPlusMilliseconds(now, MOST_ASIDE) ? DT_NOBEGIN : until;
}

/* When this worker took up each table last, a number of turns.h; by its index in the map. */
static uint64 *served = NULL;

static KvsTurn
get_turn(KvsExpiryTable *table, TimestampTz now)
{
	int			rank = pg_atomic_read_u32(&table->troubled) ? KVS_RANK_TROUBLED :
		pg_atomic_read_u32(&table->foreign) ? KVS_RANK_FOREIGN : KVS_RANK_PLAIN;

	return kvs_turns_get(pg_atomic_read_u32(&table->owner), rank, served[table - kvs_expirymap_map->tables], now);
}

/* Of the tables that have something due, the one whose turn it is; the map's lock is held. */
static KvsExpiryTable *
find_next_table(TimestampTz now, const bool *due, KvsTurn *turn)
{
	KvsExpiryTable *found = NULL;

	for (int i = 0; i < kvs_expirymap_map->ntables; i++)
	{
		KvsExpiryTable *table = &kvs_expirymap_map->tables[i];
		KvsTurn		mine;

		if (!due[i] || aside_until(table, now) > now)
			continue;
		mine = get_turn(table, now);
		if (found != NULL && !kvs_turns_precedes(&mine, turn))
			continue;
		found = table;
		*turn = mine;
	}
	return found;
}

bool
kvs_expirydue_find_work(Oid relid, TimestampTz now, bool passes, KvsExpiryWork *work)
{
	KvsExpiryTable *found;
	bool	   *due = palloc(kvs_expirymap_map->ntables);

	if (served == NULL)
		served = MemoryContextAllocZero(TopMemoryContext, sizeof(uint64) * kvs_expirymap_map->ntables);
	LWLockAcquire(kvs_expirymap_map->lock, LW_SHARED);
	if (OidIsValid(relid))
		found = kvs_expirymap_find_table(relid);
	else
	{
		mark_due_tables(now, passes, due);
		found = find_next_table(now, due, &work->turn);
	}
	if (found != NULL)
		collect_work(found, now, passes, work);
	LWLockRelease(kvs_expirymap_map->lock);
	pfree(due);
	return found != NULL && (work->whole || work->ngroups > 0);
}

void
kvs_expirydue_end_turn(KvsExpiryTable *table, TimestampTz start)
{
	served[table - kvs_expirymap_map->tables] = kvs_turns_next();
	kvs_turns_charge(pg_atomic_read_u32(&table->owner), start);
}

void
kvs_expirydue_put_aside(Oid relid, TimestampTz when, bool failed)
{
	KvsExpiryTable *table;

	LWLockAcquire(kvs_expirymap_map->lock, LW_SHARED);
	table = kvs_expirymap_find_table(relid);
	if (table != NULL)
	{
		pg_atomic_write_u64(&table->aside_until, (uint64) when);
		if (failed)
			pg_atomic_write_u32(&table->troubled, 1);
	}
	LWLockRelease(kvs_expirymap_map->lock);
}

void
kvs_expirydue_postpone(KvsExpiryTable *table, TimestampTz when)
{
	LWLockAcquire(kvs_expirymap_map->lock, LW_SHARED);
	for (int i = 0; i < kvs_expirymap_map->nextents; i++)
		for (int n = 0; n < KVS_EXTENT_GROUPS && kvs_expirymap_map->extents[i].table == table; n++)
			pg_atomic_exchange_u64(&kvs_expirymap_map->extents[i].slots[n], (uint64) DT_NOEND);
	pg_atomic_write_u32(&table->pass_block, InvalidBlockNumber);
	pg_atomic_exchange_u64(&table->whole, (uint64) DT_NOEND);
	LWLockRelease(kvs_expirymap_map->lock);
	kvs_expiry_lower(&table->whole, when);
}

void
kvs_expirydue_done_well(KvsExpiryTable *table)
{
	pg_atomic_write_u32(&table->troubled, 0);
}

bool
kvs_expirydue_check_code(KvsExpiryTable *table, Oid owner, bool foreign)
{
	bool		known = pg_atomic_read_u32(&table->owner) == owner && pg_atomic_read_u32(&table->foreign) == foreign;

	pg_atomic_write_u32(&table->owner, owner);
	pg_atomic_write_u32(&table->foreign, foreign);
	return known;
}

/* ---- Schedule ---- */

int
kvs_expirydue_next_delay(void)
{
	int			delay = pg_atomic_read_u32(&kvs_expirymap_my_database->full_delay);

	delay = delay == 0 ? FIRST_FULL_DELAY : Min(2 * delay, LAST_FULL_DELAY);
	pg_atomic_write_u32(&kvs_expirymap_my_database->full_delay, delay);
	return delay;
}

bool
kvs_expirydue_may_log(TimestampTz now)
{
	TimestampTz last = (TimestampTz) pg_atomic_read_u64(&kvs_expirymap_my_database->logged_at);

	if (last != DT_NOBEGIN && !TimestampDifferenceExceeds(last, now, LOG_INTERVAL))
		return false;
	pg_atomic_write_u64(&kvs_expirymap_my_database->logged_at, (uint64) now);
	return true;
}

/*
 * The earliest time of all slots of this database.  To plan the worker's work: but for a table, and
 * one that is set aside is not due before that ends.  To tell since when something waits ("since"):
 * as far as the map knows, and but for tables in trouble.
 */
static TimestampTz
read_map(bool since, Oid except)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz result = DT_NOEND;

	LWLockAcquire(kvs_expirymap_map->lock, LW_SHARED);
	for (int i = 0; i < kvs_expirymap_map->ntables + kvs_expirymap_map->nextents; i++)
	{
		KvsExpiryExtent *extent = i < kvs_expirymap_map->ntables ? NULL : &kvs_expirymap_map->extents[i - kvs_expirymap_map->ntables];
		KvsExpiryTable *table = extent ? extent->table : &kvs_expirymap_map->tables[i];
		TimestampTz earliest = DT_NOEND;

		if (table == NULL || table->database != MyDatabaseId || table->relid == except ||
			(since && pg_atomic_read_u32(&table->troubled)))
			continue;
		if (extent == NULL)
		{
			earliest = kvs_expiry_read_slot(&table->whole);
			if (pg_atomic_read_u32(&table->pass_block) != InvalidBlockNumber)
				earliest = DT_NOBEGIN;
		}
		for (int n = 0; extent != NULL && n < KVS_EXTENT_GROUPS; n++)
			earliest = Min(earliest, kvs_expiry_read_slot(&extent->slots[n]));
		if (!since && earliest != DT_NOEND)
			earliest = Max(earliest, aside_until(table, now));
		if (!since || earliest != DT_NOBEGIN)
			result = Min(result, earliest);
	}
	LWLockRelease(kvs_expirymap_map->lock);
	return result;
}

/* The earliest time at which a store is due that the map has no room for. */
static TimestampTz
read_unmapped(void)
{
	KvsExpiryOverflow *overflow = kvs_expirymap_my_database->overflow;
	TimestampTz result = kvs_expiry_read_slot(&kvs_expirymap_my_database->unmapped);

	for (int i = 0; overflow != NULL && i < KVS_OVERFLOW_SLOTS; i++)
		result = Min(result, kvs_expiry_read_slot(&overflow->slots[i]));
	return result;
}

/* Set it to "never" if it is due. */
static List *
take_if_due(KvsExpirySlot *slot, TimestampTz now, List *taken)
{
	if (kvs_expiry_read_slot(slot) > now)
		return taken;
	/* room first: after the exchange nothing may fail */
	taken = lappend(taken, slot);
	pg_atomic_exchange_u64(slot, (uint64) DT_NOEND);
	return taken;
}

List *
kvs_expirydue_take_unmapped(TimestampTz now)
{
	KvsExpiryOverflow *overflow = kvs_expirymap_my_database->overflow;
	List	   *taken = take_if_due(&kvs_expirymap_my_database->unmapped, now, NIL);

	for (int i = 0; overflow != NULL && i < KVS_OVERFLOW_SLOTS; i++)
		taken = take_if_due(&overflow->slots[i], now, taken);
	return taken;
}

TimestampTz
kvs_expirydue_next(Oid except)
{
	TimestampTz next = read_map(false, except);

	next = Min(next, kvs_expiry_read_slot(&kvs_expirymap_my_database->full));
	return Min(next, read_unmapped());
}

void
kvs_expirydue_clear_next_due(void)
{
	pg_atomic_exchange_u64(&kvs_expirymap_my_database->next_due, (uint64) DT_NOEND);
}

TimestampTz
kvs_expirydue_next_due(void)
{
	return kvs_expiry_read_slot(&kvs_expirymap_my_database->next_due);
}

/* What the worker has taken up and not finished. */
static KvsExpirySlot *taken = NULL;

void
kvs_expirydue_take(KvsExpirySlot *slot)
{
	taken = slot;
	pg_atomic_exchange_u64(slot, (uint64) DT_NOEND);
}

void
kvs_expirydue_done(void)
{
	taken = NULL;
}

int
kvs_expirydue_list_databases(KvsExpiryDatabaseDue *list)
{
	int			count = 0;

	LWLockAcquire(kvs_expirymap_map->lock, LW_SHARED);
	for (int i = 0; i < KVS_EXPIRY_DATABASES; i++)
	{
		KvsExpiryDatabase *entry = &kvs_expirymap_map->databases[i];

		if (!OidIsValid(entry->database))
			continue;
		list[count].database = entry->database;
		list[count].due = kvs_expiry_read_slot(&entry->next_due);
		count++;
	}
	LWLockRelease(kvs_expirymap_map->lock);
	return count;
}

bool
kvs_expirydue_worker_sleeps(TimestampTz wake_at, TimestampTz next)
{
	pg_atomic_write_u64(&kvs_expirymap_my_database->wake_at, (uint64) wake_at);
	pg_memory_barrier();
	return kvs_expiry_read_slot(&kvs_expirymap_my_database->next_due) >= Min(wake_at, next);
}

void
kvs_expirydue_worker_awake(void)
{
	kvs_expirymap_my_database->latch = MyLatch;
	pg_atomic_write_u64(&kvs_expirymap_my_database->wake_at, (uint64) DT_NOBEGIN);
}

void
kvs_expirydue_worker_leaves(bool again)
{
	if (kvs_expirymap_my_database == NULL)
		return;
	if (taken != NULL)
		kvs_expiry_lower_slot(taken, DT_NOBEGIN);
	kvs_expirymap_my_database->latch = NULL;
	pg_atomic_write_u64(&kvs_expirymap_my_database->wake_at, (uint64) DT_NOEND);
	if (again)
		kvs_expiry_lower_slot(&kvs_expirymap_my_database->next_due, DT_NOBEGIN);
}

static bool
has_come_earlier(const KvsExpiryDatabase *entry, TimestampTz due, const KvsExpiryDatabaseDue *seen, int count)
{
	for (int i = 0; i < count; i++)
		if (seen[i].database == entry->database)
			return due < seen[i].due;
	return true;
}

bool
kvs_expirydue_launcher_sleeps(TimestampTz wake_at, const KvsExpiryDatabaseDue *seen, int count)
{
	bool		result = true;

	LWLockAcquire(kvs_expirymap_map->lock, LW_SHARED);
	for (int i = 0; i < KVS_EXPIRY_DATABASES; i++)
		if (OidIsValid(kvs_expirymap_map->databases[i].database) && kvs_expirymap_map->databases[i].latch == NULL)
			pg_atomic_write_u64(&kvs_expirymap_map->databases[i].wake_at, (uint64) wake_at);
	pg_memory_barrier();
	for (int i = 0; i < KVS_EXPIRY_DATABASES && result; i++)
	{
		KvsExpiryDatabase *entry = &kvs_expirymap_map->databases[i];
		TimestampTz due = kvs_expiry_read_slot(&entry->next_due);

		if (OidIsValid(entry->database) && entry->latch == NULL && due < wake_at)
			result = !has_come_earlier(entry, due, seen, count);
	}
	LWLockRelease(kvs_expirymap_map->lock);
	return result;
}

void
kvs_expirydue_launcher_starts(void)
{
	kvs_expirymap_map->launcher = MyLatch;
}

/* ---- SQL ---- */

/* kvstore.announce(): at commit, the launcher is told that this database has the extension. */
PG_FUNCTION_INFO_V1(kvstore_announce);
Datum
kvstore_announce(PG_FUNCTION_ARGS)
{
	if (kvs_expirymap_get_database() != NULL)
	{
		/*
		 * The delays of passes that an earlier extension in this database had reached do not count.
		 */
		pg_atomic_write_u32(&kvs_expirymap_my_database->full_delay, 0);
		kvs_expiry_lower_at_commit(&kvs_expirymap_my_database->full, DT_NOBEGIN);
	}
	PG_RETURN_BOOL(kvs_expirymap_my_database != NULL);
}

/*
 * kvstore.oldest_due() returns timestamptz: since when something may be due in this database, but
 * for tables in trouble; NULL: nothing is, or there is no map
 */
PG_FUNCTION_INFO_V1(kvstore_oldest_due);
Datum
kvstore_oldest_due(PG_FUNCTION_ARGS)
{
	TimestampTz oldest = kvs_expirymap_map ? read_map(true, InvalidOid) : DT_NOEND;

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

	LWLockAcquire(kvs_expirymap_map->lock, LW_SHARED);
	for (int i = 0; i < kvs_expirymap_map->ntables; i++)
	{
		KvsExpiryTable *table = &kvs_expirymap_map->tables[i];

		if (table->database != MyDatabaseId)
			continue;
		rows[count].relid = table->relid;
		rows[count].block = -1;
		rows[count].due = kvs_expiry_read_slot(&table->whole);
		if (pg_atomic_read_u32(&table->pass_block) != InvalidBlockNumber)
			rows[count].due = DT_NOBEGIN;
		count += rows[count].due != DT_NOEND;
	}
	for (int i = 0; i < kvs_expirymap_map->nextents; i++)
	{
		KvsExpiryExtent *extent = &kvs_expirymap_map->extents[i];

		if (extent->table == NULL || extent->table->database != MyDatabaseId)
			continue;
		for (int n = 0; n < KVS_EXTENT_GROUPS; n++)
		{
			rows[count].relid = extent->table->relid;
			rows[count].block = first_block(extent, n);
			rows[count].due = kvs_expiry_read_slot(&extent->slots[n]);
			count += rows[count].due != DT_NOEND;
		}
	}
	LWLockRelease(kvs_expirymap_map->lock);
	return count;
}

/*
 * kvstore.expiry_map(): the slots of this database that are not "never": table, first block (NULL:
 * the whole table), due.
 */
PG_FUNCTION_INFO_V1(kvstore_expiry_map);
Datum
kvstore_expiry_map(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MapRow	   *rows;
	int			count;
	bool		visible = false;

	InitMaterializedSRF(fcinfo, 0);
	if (kvs_expirymap_map == NULL)
		return (Datum) 0;
	rows = MemoryContextAllocHuge(CurrentMemoryContext,
								  sizeof(MapRow) * (kvs_expirymap_map->ntables + (Size) kvs_expirymap_map->nextents * KVS_EXTENT_GROUPS + 1));
	count = copy_map(rows);
	for (int i = 0; i < count; i++)
	{
		Datum		values[3] = {
			ObjectIdGetDatum(rows[i].relid), Int64GetDatum(rows[i].block), TimestampTzGetDatum(rows[i].due)
		};
		bool		nulls[3] = {false, rows[i].block < 0, false};

		if (i == 0 || rows[i].relid != rows[i - 1].relid)
			visible = kvs_rights_may_see(rows[i].relid);
		if (!visible)
			continue;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	pfree(rows);
	return (Datum) 0;
}
