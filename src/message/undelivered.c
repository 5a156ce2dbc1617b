/*
 * undelivered.c
 *		The entries that are written when a message is given up: keys_if_undelivered.
 *
 * They are written in the transaction in which the message becomes a dead letter, or is dropped by
 * a queue that keeps none.  They are not written when it expires, is cancelled or purged.
 *
 * They are written as the owner of the store, in a restricted operation.  Code that runs with a row
 * of the store, such as a trigger or a CHECK, is the owner's.  That is done only if two others
 * could do it themselves at that moment.  One is the sender, which chose the keys.  The other is
 * the owner of the queue.  They can write its rows, so the sender's name in a row is no proof
 * against others.
 *
 * Nobody could do anything about a message that cannot be given up.  So an ERROR here, of a store
 * that is gone or may not be written, ends a subtransaction only.  It becomes part of the dead
 * letter's error.  An error that a repetition may cure, such as a deadlock or a lock_timeout, is
 * raised as it is.  That is done only MOST_TRIES times: code of the store's owner can raise what it
 * likes.
 *
 * A cancel is always raised.  Keys that took a worker too long MOST_SLOW times are not tried again.
 * That is counted before they are tried, and taken back after: such code may also make the worker
 * end itself.
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "base/identity.h"
#include "base/stats.h"
#include "base/subxact.h"
#include "key/keyargs.h"
#include "lease/lease.h"
#include "message/undelivered.h"
#include "store/store.h"

/*
 * The worker has tried so often to settle the message; the last of these errors is that of the
 * letter.
 */
#define MOST_TRIES	6

/* So many steps of the worker took too long while the keys were written. */
#define MOST_SLOW	3

static void (*check_step) (void) = NULL;	/* of the worker: has the step taken too long? */

void
kvs_undelivered_set_check(void (*check) (void))
{
	check_step = check;
}

/* ---- Rights ---- */

void
kvs_undelivered_check_store(const KvsStore *store, Relation rel)
{
	if (unlikely(rel->rd_rel->relrowsecurity))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("store \"%s\" has row-level security", store->name),
				 errhint("Have undelivered keys written to a store without it.")));
}

static Oid
find_sender(const text *sender)
{
	char	   *name;
	Oid			role;

	if (sender == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the message does not say who sent it")));
	name = text_to_cstring(sender);
	role = get_role_oid(name, true);
	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\", which sent the message, does not exist", name)));
	return role;
}

static void
check_role(const KvsStore *store, Oid role)
{
	const AclMode rights = ACL_SELECT | ACL_INSERT | ACL_UPDATE;

	if (pg_class_aclmask(store->relid, role, rights, ACLMASK_ALL) != rights)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not write store \"%s\"", GetUserNameFromId(role, false), store->name)));
}

KvsStore *
kvs_undelivered_open_store(const KvsQueue *queue, const text *sender, const text *name, LOCKMODE lockmode,
						   Relation *rel)
{
	KvsStore   *store = kvs_storecatalog_open_store(name, lockmode, rel);

	kvs_undelivered_check_store(store, *rel);
	check_role(store, find_sender(sender));
	check_role(store, queue->owner);
	return store;
}

/* ---- Writing ---- */

/*
 * The server runs no trigger at commit that was queued in a restricted operation: the commit would
 * fail, each time.
 */
static void
check_triggers(Relation rel)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		if (rel->trigdesc->triggers[i].tginitdeferred)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"%s\" has deferred triggers", RelationGetRelationName(rel))));
}

/* What a row asks for. */
typedef struct Undelivered
{
	const KvsQueue *queue;
	Jsonb	   *keys;
	const text *store;
	const text *sender;
	Datum		payload;
	TimestampTz now;
} Undelivered;

/* The entries to be written, sorted; returns how many. */
static int
make_entries(const Undelivered *undelivered, const KvsStore *store, KvsEntry **entries)
{
	KvsKeyIterator iterator;
	KvsKey		key;
	int			count = 0;

	*entries = palloc0(sizeof(KvsEntry) * Max(JB_ROOT_COUNT(undelivered->keys), 1));
	kvs_keyargs_iterate(&iterator, undelivered->keys, "keys_if_undelivered");
	while (kvs_keyargs_next(&iterator, &key))
	{
		KvsEntry   *entry = &(*entries)[count++];

		CHECK_FOR_INTERRUPTS();
		entry->key = kvs_key_make_datum(KvsKeyBytes(&key), key.size);
		entry->content.kind = KVS_KIND_JSON;
		entry->content.datum = undelivered->payload;
		entry->expires_at = kvs_store_default_expiry(store, undelivered->now);
	}
	return kvs_storemany_sort_entries(*entries, count);
}

static void
write_as_owner(void *arg)
{
	Undelivered *undelivered = arg;
	Relation	rel;
	KvsStore   *store = kvs_undelivered_open_store(undelivered->queue, undelivered->sender, undelivered->store,
												   RowExclusiveLock, &rel);
	KvsEntry   *entries;
	int			count;
	KvsIdentity saved;

	check_triggers(rel);
	kvs_store_check_size(store, undelivered->payload);
	count = make_entries(undelivered, store, &entries);
	kvs_identity_become(rel->rd_rel->relowner, &saved);
	if (count > 0)
		kvs_storemany_put_many(store, entries, count, NULL);
	kvs_identity_restore(&saved);
	kvs_stats_add(store->stat, KVS_COUNT_SETS, count);
	table_close(rel, NoLock);
}

/*
 * A lock that was not available, serialization failures and deadlocks, lack of resources, system
 * errors, bugs.
 */
static bool
may_pass(int sqlstate)
{
	int			class = ERRCODE_TO_CATEGORY(sqlstate);

	return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ||
		class == MAKE_SQLSTATE('4', '0', '0', '0', '0') || class == MAKE_SQLSTATE('5', '3', '0', '0', '0') ||
		class == MAKE_SQLSTATE('5', '8', '0', '0', '0') || class == MAKE_SQLSTATE('X', 'X', '0', '0', '0');
}

/* Write the entries; NULL: they are written, else why not. */
static char *
try_to_write(Undelivered *undelivered, KvsQueue *queue, const KvsMessageRef *message)
{
	int			tries;
	ErrorData  *error;

	if (kvs_leasework_begin_keys(queue, message, &tries) >= MOST_SLOW)
		return pstrdup("they took too long, see kvstore.step_timeout");
	error = kvs_subxact_try(write_as_owner, undelivered, NULL);
	if (check_step != NULL)
		check_step();
	kvs_leasework_end_keys(queue, message);
	if (error == NULL)
		return NULL;
	if (kvs_subxact_is_cancel(error) || (may_pass(error->sqlerrcode) && tries + 1 < MOST_TRIES))
		ReThrowError(error);
	return error->message;
}

/* A text of the row in the reader, NULL for SQL NULL. */
static const text *
text_column(KvsReader *reader, KvsQueueColumn column)
{
	bool		isnull;
	Datum		datum = kvs_reader_column(reader, column, &isnull);

	return isnull ? NULL : DatumGetTextPP(datum);
}

char *
kvs_undelivered_write(KvsReader *reader, const KvsMessageRef *message, TimestampTz now)
{
	Undelivered undelivered = {.queue = reader->queue, .now = now};
	bool		isnull;
	Datum		keys;

	slot_getallattrs(reader->slot);
	keys = kvs_reader_column(reader, KVS_QUEUE_COLUMN_KEYS_IF_UNDELIVERED, &isnull);
	if (isnull)
		return NULL;
	undelivered.keys = DatumGetJsonbP(keys);
	undelivered.store = text_column(reader, KVS_QUEUE_COLUMN_UNDELIVERED_STORE);
	undelivered.sender = text_column(reader, KVS_QUEUE_COLUMN_SENDER);
	undelivered.payload = kvs_reader_column(reader, KVS_QUEUE_COLUMN_PAYLOAD, &isnull);
	return try_to_write(&undelivered, reader->queue, message);
}
