/*
 * expiry.c
 *		Where expired entries may be: the expiry map.
 *
 * Reads hide an expired entry by comparing clocks, so removing it is only housekeeping.
 * Housekeeping must not make writes dearer: an index on expires_at would end HOT updates for every
 * session store that renews its TTL.  Instead we remember, for each group of KVS_EXPIRY_GROUP heap
 * blocks, the smallest expires_at that was stored there.  The sweeper visits only the groups that
 * are due.
 *
 * The map is a pool of slots in shared memory.  Each table has one for all of it.  An extent of
 * KVS_EXTENT_GROUPS groups of a table gets a run of slots of its own.  No two groups share one,
 * because a sweep that scanned one of them would forget the other's minimum.  When the pool is
 * full, blocks that have no slot of their own are noted in the table's.  When there is no room for
 * the table, they are noted in a slot that it shares with the few of its database of the same hash.
 * A slot for more than a group is due in full when its time has come.  The pass that follows learns
 * the groups.
 *
 * A slot is a lower bound: too low costs a needless visit, too high would strand entries.  So block
 * numbers may be wrong as long as that is noticed.  A table whose file is not the one we know
 * (VACUUM FULL, TRUNCATE, restart) is due in full.  The sweeper compares the file before it
 * believes any slot.  A table that is new in the map is due in full, too.
 *
 * Locking of slots: none.  A slot is a 64-bit atomic.  The sweeper exchanges it for "never", then
 * takes a snapshot and scans the group, then lowers the slot to the smallest expiry it left behind.
 * Writers lower the slot in the commit callback, when their row is visible to every new snapshot.
 * So the sweeper's scan sees a row that was committed before its snapshot.  A row committed after
 * it lowers the slot after that was set to "never".  Lowering at the time of the write instead
 * would lose a row that is written before the reset and committed after the scan.  Two sweepers may
 * meet: each has scanned after its own reset, and row locks settle which of them deletes.
 *
 * If the sweeper's transaction or a subtransaction aborts, the rows it deleted are there again.  So
 * the transaction callback puts back what the sweeper exchanged.  That is kept in backend memory:
 * only a crash ends a transaction without that callback, and after a crash shared memory is made
 * anew.  A pass over a whole table needs no such thing: the map has that it is under way, and
 * where.
 *
 * The directory (which table and which extent has which slots) is expirymap.c's.  A slot is looked
 * up when the row is written, and lowered at commit.  In between it stays the same.  Only a table
 * that nobody else can have locked is forgotten, and a writer holds its lock until after the
 * callback.  The callback itself only walks an array: it allocates nothing, looks nothing up,
 * raises nothing.
 *
 * For the launcher each database has "next due", lowered after the slots by the same protocol:
 * exchange, read the slots, lower.  A sleeper publishes until when it sleeps, then reads next due
 * once more.  A committer lowers next due, then reads until when the sleeper sleeps.  So one of the
 * two sees the other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "base/fault.h"
#include "base/xact.h"
#include "expiry/expiry.h"
#include "expiry/expirymap.h"

/* A slot, and what to lower it to. */
typedef struct Lowering
{
	KvsExpirySlot *slot;
	TimestampTz when;
	SubTransactionId subid;		/* of resets: which one did it */
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
	return kvs_expirymap_map != NULL;
}

/* ---- Lists of slots ---- */

static int
compare_lowerings(const void *a, const void *b)
{
	const Lowering *x = a;
	const Lowering *y = b;

	if (x->slot != y->slot)
		return (uintptr_t) x->slot < (uintptr_t) y->slot ? -1 : 1;
	return (x->subid > y->subid) - (x->subid < y->subid);
}

static bool
is_same(const Lowering *a, const Lowering *b)
{
	return a != NULL && a->slot == b->slot && a->subid == b->subid;
}

/* Keep the smallest of each slot, and of each subtransaction. */
static void
fold_list(LoweringList *list)
{
	int			left = 0;

	qsort(list->items, list->count, sizeof(Lowering), compare_lowerings);
	for (int i = 0; i < list->count; i++)
	{
		Lowering   *item = &list->items[i];
		Lowering   *last = left > 0 ? &list->items[left - 1] : NULL;

		if (is_same(last, item))
			last->when = Min(last->when, item->when);
		else
			list->items[left++] = *item;
	}
	list->count = left;
}

/*
 * A list of notes has at most twice as many items as there are slots, however much a transaction
 * writes.  A list of resets has at most so many for each subtransaction that swept.
 */
static void
add_to_list(LoweringList *list, Lowering added)
{
	Lowering   *last = list->count > 0 ? &list->items[list->count - 1] : NULL;

	if (is_same(last, &added))
	{
		last->when = Min(last->when, added.when);
		return;
	}
	if (list->items == NULL)
	{
		list->items = MemoryContextAlloc(TopMemoryContext, sizeof(Lowering) * 64);
		list->size = 64;
	}
	else if (list->count == list->size)
	{
		fold_list(list);
		if (list->count > list->size / 2)
		{
			list->items = repalloc(list->items, sizeof(Lowering) * 2 * list->size);
			list->size *= 2;
		}
	}
	list->items[list->count++] = added;
}

void
kvs_expiry_lower_next_due(TimestampTz earliest)
{
	Latch	   *latch;

	if (kvs_expirymap_my_database == NULL || !kvs_expiry_lower_slot(&kvs_expirymap_my_database->next_due, earliest))
		return;
	if (earliest >= (TimestampTz) pg_atomic_read_u64(&kvs_expirymap_my_database->wake_at))
		return;
	latch = kvs_expirymap_my_database->latch;
	if (latch == NULL)
		latch = kvs_expirymap_map->launcher;
	if (latch != NULL)
		SetLatch(latch);
}

void
kvs_expiry_lower(KvsExpirySlot *slot, TimestampTz when)
{
	kvs_expiry_lower_slot(slot, when);
	kvs_expiry_lower_next_due(when);
}

/*
 * Lower the slots of a list, but not those of subtransactions before this one.  Runs in transaction
 * callbacks.
 */
static void
lower_list(LoweringList *list, SubTransactionId first)
{
	TimestampTz earliest = DT_NOEND;

	/* Our rows must be visible before the slots are read. */
	pg_memory_barrier();
	for (int i = 0; i < list->count; i++)
	{
		if (list->items[i].subid < first)
			continue;
		kvs_expiry_lower_slot(list->items[i].slot, list->items[i].when);
		earliest = Min(earliest, list->items[i].when);
	}
	kvs_expiry_lower_next_due(earliest);
}

/* ---- Writers ---- */

void
kvs_expiry_lower_at_commit(KvsExpirySlot *slot, TimestampTz when)
{
	add_to_list(&notes, (Lowering) {slot, when, InvalidSubTransactionId});
}

void
kvs_expiry_note_row(Oid relid, BlockNumber block, TimestampTz when)
{
	KvsExpirySlot *slot;

	kvs_expirymap_made_slot = NULL;
	slot = kvs_expirymap_get_slot(relid, block);
	if (slot == NULL)
		slot = kvs_expirymap_unmapped(relid);
	if (unlikely(kvs_expirymap_made_slot != NULL))
		add_to_list(&notes, (Lowering) {kvs_expirymap_made_slot, DT_NOBEGIN, InvalidSubTransactionId});
	if (slot != NULL)
		add_to_list(&notes, (Lowering) {slot, when, InvalidSubTransactionId});
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
at_xact(XactEvent event)
{
	if (likely(notes.count == 0 && resets.count == 0 && advanced_table == NULL))
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			check_prepare();
			return;
		case XACT_EVENT_COMMIT:
			/* A test can make its notes wait for the next commit. */
			if (kvs_fault_is(KVS_FAULT_PUBLISH))
				return;
			lower_list(&notes, InvalidSubTransactionId);
			if (advanced_table != NULL)
				pg_atomic_write_u32(&advanced_table->pass_block, advanced_block);
			break;
		case XACT_EVENT_ABORT:
			lower_list(&resets, InvalidSubTransactionId);
			break;
		default:
			return;
	}
	notes.count = 0;
	resets.count = 0;
	advanced_table = NULL;
}

/*
 * Notes of a subtransaction that aborted stay: they are lower bounds.  Resets stay for the same
 * reason: the rest may abort, too.  Its own resets and those of its children are put back; all of
 * these have higher numbers.  Those of others are not, or each row that fails would make its group
 * due again at once.
 */
static void
at_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	if (resets.count > 0)
		lower_list(&resets, subid);
	advanced_table = NULL;
}

/* ---- Sweepers: what the end of a transaction does for them ---- */

TimestampTz
kvs_expiry_reset(KvsExpirySlot *slot)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	TimestampTz old;

	/* Room first: after the exchange nothing may fail. */
	add_to_list(&resets, (Lowering) {slot, DT_NOEND, subid});
	old = (TimestampTz) pg_atomic_exchange_u64(slot, (uint64) DT_NOEND);
	add_to_list(&resets, (Lowering) {slot, old, subid});
	return old;
}

void
kvs_expiry_advance_pass(KvsExpiryTable *table, BlockNumber block)
{
	advanced_table = table;
	advanced_block = block;
}

/* ---- Initialisation ---- */

void
kvs_expiry_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	kvs_xact_add(KVS_XACT_EXPIRY, at_xact, at_subxact);
}
