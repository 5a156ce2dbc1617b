/*
 * undelivered.c
 *		The entries that are written when a message is given up: keys_if_undelivered.
 *
 * They are written in the transaction in which the message becomes a dead letter, or is dropped by a queue that keeps none; not when it expires, is cancelled or
 * purged.  Whether the sender may write them was asked when he sent it; now it is the owner of the queue who writes, in a restricted operation.
 *
 * Nobody could do anything about a message that cannot be given up, so an ERROR here, of a store that is gone or that the owner may not write, ends a
 * subtransaction only, and becomes part of the dead letter's error.  What a repetition may cure, such as a deadlock, a lock_timeout or a cancel, is
 * raised as it is.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_trigger.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/jsonb.h"

#include "entry.h"
#include "identity.h"
#include "stats.h"
#include "store.h"
#include "subxact.h"
#include "undelivered.h"

/* The server runs no trigger at commit that was queued in a restricted operation: the commit would fail, each time. */
static void
check_triggers(Relation rel)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		if (rel->trigdesc->triggers[i].tginitdeferred)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"%s\" has deferred triggers", RelationGetRelationName(rel))));
}

static void
write_entries(Jsonb *keys, const text *store_name, Datum payload, TimestampTz now)
{
	Relation	rel;
	KvsStore   *store = kvs_catalog_open_store(store_name, RowExclusiveLock, &rel);
	KvsEntry   *entries = palloc0(sizeof(KvsEntry) * Max(JB_ROOT_COUNT(keys), 1));
	KvsKeyIterator iterator;
	KvsKey		key;
	int			count = 0;

	check_triggers(rel);
	kvs_store_check_size(store, payload);
	kvs_entry_iterate_keys(&iterator, keys, "keys_if_undelivered");
	while (kvs_entry_next_key(&iterator, &key))
	{
		CHECK_FOR_INTERRUPTS();
		entries[count].key = kvs_key_make_datum(KvsKeyBytes(&key), key.size);
		entries[count].content.kind = KVS_KIND_JSON;
		entries[count].content.datum = payload;
		entries[count].expires_at = kvs_entry_default_expiry(store, now);
		count++;
	}
	count = kvs_store_sort_entries(entries, count);
	if (count > 0)
		kvs_store_put_many(store, entries, count);
	kvs_stats_add(store->stat, KVS_COUNT_SETS, count);
	table_close(rel, NoLock);
}

/* A lock that was not to be had, serialization failures and deadlocks, lack of resources, cancels and shutdown, bugs. */
static bool
may_pass(int sqlstate)
{
	int			class = ERRCODE_TO_CATEGORY(sqlstate);

	return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ||
		class == MAKE_SQLSTATE('4', '0', '0', '0', '0') || class == MAKE_SQLSTATE('5', '3', '0', '0', '0') ||
		class == MAKE_SQLSTATE('5', '7', '0', '0', '0') || class == MAKE_SQLSTATE('5', '8', '0', '0', '0') ||
		class == MAKE_SQLSTATE('X', 'X', '0', '0', '0');
}

typedef struct Undelivered
{
	Oid			owner;
	Datum		keys;
	const text *store;
	Datum		payload;
	TimestampTz now;
} Undelivered;

static void
write_as_owner(void *arg)
{
	Undelivered *undelivered = arg;
	KvsIdentity saved;

	kvs_identity_become(undelivered->owner, &saved);
	write_entries(DatumGetJsonbP(undelivered->keys), undelivered->store, undelivered->payload, undelivered->now);
	kvs_identity_restore(&saved);
}

char *
kvs_undelivered_write(KvsReader *reader, TimestampTz now)
{
	Undelivered undelivered = {.owner = reader->queue->owner, .now = now};
	bool		no_keys;
	bool		no_store;
	bool		isnull;
	Datum		store;
	ErrorData  *error;

	slot_getallattrs(reader->slot);
	undelivered.keys = kvs_reader_column(reader, KVS_QUEUE_COLUMN_KEYS_IF_UNDELIVERED, &no_keys);
	store = kvs_reader_column(reader, KVS_QUEUE_COLUMN_UNDELIVERED_STORE, &no_store);
	undelivered.payload = kvs_reader_column(reader, KVS_QUEUE_COLUMN_PAYLOAD, &isnull);
	if (no_keys)
		return NULL;
	undelivered.store = no_store ? NULL : DatumGetTextPP(store);
	error = kvs_subxact_try(write_as_owner, &undelivered, may_pass);
	return error == NULL ? NULL : error->message;
}
