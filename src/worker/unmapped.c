/*
 * unmapped.c
 *		The stores that the expiry map has no room for, as the worker knows them.
 *
 * Such a store shares a slot of the map with the few that have the same hash.  When the slot is
 * due, all of them are.  The worker takes the slot, and remembers here which stores are to be read.
 * So each of them has its turn, a batch at a time, among all tables that are due (turns.h).
 *
 * From then on only this worker knows what is due.  So when it ends it writes that into the slots
 * again.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "expiry/expiry.h"
#include "worker/sweep.h"
#include "worker/unmapped.h"
#include "worker/workerprocess.h"

static HTAB *items = NULL;
static bool valid = false;		/* no table has come or gone since they were listed */
static bool any_due = false;	/* perhaps */

/* ---- The list ---- */

static void
pg_class_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	valid = false;
}

static void
make_table(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(KvsUnmapped)};

	if (items != NULL)
		return;
	items = hash_create("kvstore unmapped stores", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterSyscacheCallback(RELOID, pg_class_callback, (Datum) 0);
}

static void
add(Oid relid)
{
	bool		found;
	KvsUnmapped *item = hash_search(items, &relid, HASH_ENTER, &found);

	if (!found)
		*item = (KvsUnmapped) {.relid = relid};
	item->listed = true;
}

/* Those that are gone, or have a slot in the map now. */
static void
remove_unlisted(void)
{
	HASH_SEQ_STATUS status;
	KvsUnmapped *item;

	hash_seq_init(&status, items);
	while ((item = hash_seq_search(&status)) != NULL)
	{
		if (!item->listed)
			(void) hash_search(items, &item->relid, HASH_REMOVE, NULL);
		else
			item->listed = false;
	}
}

/* Bring the list up to date. */
static void
list_stores(void)
{
	ListCell   *lc;

	make_table();
	if (valid)
		return;
	kvs_workerprocess_begin("looking for stores");
	/* Flag first: a change that comes while we look must not be lost. */
	valid = true;
	foreach(lc, kvs_sweep_list_stores())
		if (kvs_expirymap_get_table(lfirst_oid(lc)) == NULL)
			add(lfirst_oid(lc));
	remove_unlisted();
	kvs_workerprocess_commit();
}

void
kvs_unmapped_invalidate(void)
{
	valid = false;
}

/* ---- What is due ---- */

static void
mark_due(List *slots)
{
	HASH_SEQ_STATUS status;
	KvsUnmapped *item;
	ListCell   *lc;

	list_stores();
	hash_seq_init(&status, items);
	while ((item = hash_seq_search(&status)) != NULL)
		foreach(lc, slots)
			item->due |= kvs_expirymap_is_unmapped_in(item->relid, lfirst(lc));
	any_due = true;
}

/* Take the slots that are due; an ERROR puts them back. */
static void
take_slots(TimestampTz now)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	List	   *slots = kvs_expirydue_take_unmapped(now);
	ListCell   *lc;

	MemoryContextSwitchTo(old);
	if (slots == NIL)
		return;
	PG_TRY();
	{
		mark_due(slots);
	}
	PG_CATCH();
	{
		valid = false;
		foreach(lc, slots)
			kvs_expiry_lower(lfirst(lc), TimestampTzPlusMilliseconds(now, KVS_EXPIRY_RETRY));
		kvs_workerprocess_recover();
	}
	PG_END_TRY();
	list_free(slots);
}

KvsUnmapped *
kvs_unmapped_find(TimestampTz now, KvsTurn *turn)
{
	HASH_SEQ_STATUS status;
	KvsUnmapped *found = NULL;
	KvsUnmapped *item;

	take_slots(now);
	if (!any_due)
		return NULL;
	hash_seq_init(&status, items);
	while ((item = hash_seq_search(&status)) != NULL)
	{
		int			rank = item->troubled ? KVS_RANK_TROUBLED : item->foreign ? KVS_RANK_FOREIGN : KVS_RANK_PLAIN;
		KvsTurn		mine;

		if (!item->due)
			continue;
		mine = kvs_turns_get(item->owner, rank, item->served, now);
		if (found != NULL && !kvs_turns_precedes(&mine, turn))
			continue;
		found = item;
		*turn = mine;
	}
	any_due = found != NULL;
	return found;
}

bool
kvs_unmapped_is_due(Oid except)
{
	HASH_SEQ_STATUS status;
	KvsUnmapped *item;
	bool		result = false;

	if (!any_due)
		return false;
	hash_seq_init(&status, items);
	while ((item = hash_seq_search(&status)) != NULL)
		result |= item->due && item->relid != except;
	return result;
}

void
kvs_unmapped_lower(const KvsUnmapped *item, TimestampTz when)
{
	kvs_expiry_lower(kvs_expirymap_unmapped(item->relid), when);
}

void
kvs_unmapped_leave(void)
{
	HASH_SEQ_STATUS status;
	KvsUnmapped *item;

	if (!any_due)
		return;
	hash_seq_init(&status, items);
	while ((item = hash_seq_search(&status)) != NULL)
		if (item->due)
			kvs_unmapped_lower(item, DT_NOBEGIN);
}
