/*
 * change.c
 *		What this transaction changes, for sessions that watch: noted when rows are written,
 *		published when it has committed.
 *
 * A note costs a hash and some copied bytes.  Publishing is one short visit to the feed for each
 * transaction, and a look at one counter if nobody watches.
 *
 * Notes lie in two arrays that the session keeps, in the order in which they were made.  So those
 * of a subtransaction that is rolled back are at the end: all notes since it began belong to it or
 * to one inside it.  A transaction has at most NOTES_MAX of them, and KEYS_MAX bytes of keys.
 * Beyond that, all that it did to a store becomes one note that the store is lost to its followers.
 * That note stays if a subtransaction is rolled back: then followers list in vain, which does no
 * harm.
 *
 * The callback comes when the transaction is visible to every new snapshot.  An ERROR there would
 * be a PANIC: it allocates nothing, looks nothing up, raises nothing.  First the notes are appended
 * to the feed.  Then, after a full barrier, the waiters are looked at (waiter.c): no wake-up is
 * lost.
 *
 * Everything here is backend-local.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "utils/memutils.h"

#include "base/fault.h"
#include "base/xact.h"
#include "feed/feed.h"
#include "feed/waiter.h"
#include "key/key.h"
#include "store/change.h"

#define NOTES_FIRST		64
#define NOTES_MAX		16384
#define KEYS_FIRST		4096
#define KEYS_MAX		(1024 * 1024)

static KvsFeedNote *notes = NULL;
static int	note_count = 0;
static int	note_room = 0;
static char *keys = NULL;
static uint32 keys_used = 0;
static uint32 keys_room = 0;
static int	lost_count = 0;		/* notes of lost stores; they come first */

/* ---- Too many changes ---- */

static bool
is_lost(Oid relid)
{
	for (int i = 0; i < lost_count; i++)
		if (notes[i].relid == relid || !OidIsValid(notes[i].relid))
			return true;
	return false;
}

/* Drop the notes of a store (InvalidOid: of all), and what only they needed. */
static void
drop_notes(Oid relid)
{
	char	   *old_keys = keys;
	int			left = 0;

	keys_used = 0;
	for (int i = 0; i < note_count; i++)
	{
		if (notes[i].relid == relid || !OidIsValid(relid))
			continue;
		notes[left] = notes[i];
		memmove(keys + keys_used, old_keys + notes[i].key, notes[i].key_size);
		notes[left].key = keys_used;
		keys_used += notes[i].key_size;
		left++;
	}
	note_count = left;
	lost_count = 0;
	while (lost_count < note_count && notes[lost_count].operation == KVS_FEED_LOST)
		lost_count++;
}

/* One note for all of a store, at the beginning, so that it stays whatever is rolled back. */
static void
lose_store(Oid relid)
{
	drop_notes(relid);
	memmove(notes + 1, notes, sizeof(KvsFeedNote) * note_count);
	memset(&notes[0], 0, sizeof(KvsFeedNote));
	notes[0].relid = relid;
	notes[0].subid = TopSubTransactionId;
	notes[0].operation = KVS_FEED_LOST;
	note_count++;
	lost_count++;
}

/* Is there still almost no room, this time because of many stores? */
static bool
is_crowded(void)
{
	return note_count > NOTES_MAX / 2 || keys_used > KEYS_MAX / 2;
}

/* ---- Noting ---- */

static void
make_room(void)
{
	if (notes == NULL)
	{
		notes = MemoryContextAlloc(TopMemoryContext, sizeof(KvsFeedNote) * NOTES_FIRST);
		note_room = NOTES_FIRST;
		keys = MemoryContextAlloc(TopMemoryContext, KEYS_FIRST);
		keys_room = KEYS_FIRST;
		kvs_waiter_prepare();
	}
	/* one more, for a lost store */
	if (note_count + 2 > note_room)
	{
		notes = repalloc(notes, sizeof(KvsFeedNote) * note_room * 2);
		note_room *= 2;
	}
	if (keys_used + KVS_KEY_MAX_SIZE + 1 > keys_room)
	{
		keys = repalloc(keys, (Size) keys_room * 2);
		keys_room *= 2;
	}
}

void
kvs_change_note_more(Oid relid, KvsFeedOperation operation, uint8 flags, int64 versionstamp, const char *key, int size)
{
	KvsFeedNote *note;

	if (!kvs_feed_join())
		return;
	make_room();
	if (unlikely(lost_count > 0) && is_lost(relid))
		return;
	if (unlikely(note_count >= NOTES_MAX || keys_used + size > KEYS_MAX || operation == KVS_FEED_LOST))
	{
		lose_store(relid);
		if (is_crowded())
			lose_store(InvalidOid);
		return;
	}
	note = &notes[note_count++];
	note->hash = KvsFeedIsOfKey(operation) ? kvs_feed_hash(relid, key, size) : 0;
	note->versionstamp = versionstamp;
	note->relid = relid;
	note->subid = GetCurrentSubTransactionId();
	note->key = keys_used;
	note->key_size = size;
	note->operation = operation;
	note->flags = flags;
	memcpy(keys + keys_used, key, size);
	keys_used += size;
}

void
kvs_change_note_datum(Oid relid, KvsFeedOperation operation, int64 versionstamp, Datum key)
{
	struct varlena *bytes;

	if (!kvs_change_active)
		return;
	bytes = PG_DETOAST_DATUM_PACKED(key);
	kvs_change_note_more(relid, operation, 0, versionstamp, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	if (PointerGetDatum(bytes) != key)
		pfree(bytes);
}

void
kvs_change_note_lost(Oid relid)
{
	if (kvs_change_active)
		kvs_change_note_more(relid, KVS_FEED_LOST, 0, 0, NULL, 0);
}

/* ---- Publishing ---- */

static void
wake_waiters(void)
{
	for (int i = 0; i < note_count; i++)
	{
		const KvsFeedNote *note = &notes[i];

		if (KvsFeedIsOfKey(note->operation))
			kvs_waiter_wake_key(note->relid, note->hash, keys + note->key, note->key_size);
		else if (OidIsValid(note->relid))
			kvs_waiter_wake_all(note->relid);
		else
			kvs_waiter_wake_prefixes();
	}
}

static void
publish(void)
{
	bool		tell = kvs_feed_append(notes, note_count, keys);

	/* What a waiter is to see is visible before we look for waiters. */
	pg_memory_barrier();
	if (likely(!kvs_waiter_any()))
		return;
	wake_waiters();
	if (tell)
		kvs_waiter_wake_prefixes();
	kvs_waiter_set_latches();
}

static void
forget(void)
{
	note_count = lost_count = 0;
	keys_used = 0;
}

static void
at_xact(XactEvent event)
{
	if (note_count == 0)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has written through kvstore"),
					 errhint("Commit it in one phase.")));
			break;
		case XACT_EVENT_COMMIT:
			/* A test can make its notes wait for the next commit. */
			if (kvs_fault_is(KVS_FAULT_FEED))
				return;
			publish();
			forget();
			break;
		case XACT_EVENT_ABORT:
			forget();
			break;
		default:
			break;
	}
}

static void
at_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (note_count > lost_count && notes[note_count - 1].subid >= subid)
		keys_used = notes[--note_count].key;
}

void
kvs_change_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	kvs_xact_add(KVS_XACT_FEED, at_xact, at_subxact);
}
