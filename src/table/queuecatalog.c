/*
 * queuecatalog.c
 *		From the name of a queue to a table that is safe to read.
 *
 * A queue is an ordinary table, kvstore.q_<name>, as a store is one: what storecatalog.c says about
 * shape, caching and invalidation holds here too.  Beside it lies kvstore.d_<name> with the dead
 * letters, which only statements touch.  Its columns are checked at each use.
 *
 * Entries are found by OID, because receipts carry that.  A name is looked up in the catalog unless
 * it is that of the queue used last.  Everything here is backend-local; no lock protects it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "nodes/primnodes.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "base/stats.h"
#include "table/backoff.h"
#include "table/catalog.h"
#include "table/queuecatalog.h"
#include "table/queueplan.h"
#include "table/registry.h"
#include "table/replication.h"
#include "table/shape.h"

/* After so many entries became invalid we look for those whose tables are gone. */
#define INVALID_MAX		4

static HTAB *queues = NULL;		/* relid -> KvsQueue */
static KvsQueue *last_queue = NULL; /* the one used last: nearly always the one used next */
static int	ninvalid = 0;		/* entries that became invalid since somebody looked */

static void
queue_relcache_callback(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	KvsQueue   *queue;

	if (queues == NULL)
		return;
	hash_seq_init(&status, queues);
	while ((queue = hash_seq_search(&status)) != NULL)
		if (relid == InvalidOid || relid == queue->relid || relid == queue->order_index ||
			relid == queue->id_index || relid == queue->dedupe_index || relid == queue->sequence)
		{
			ninvalid += queue->valid ? 1 : 0;
			queue->valid = false;
		}
}

/* Subscriptions, or whether they are enabled, have changed. */
static void
queue_subscription_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	queue_relcache_callback(arg, InvalidOid);
}

/* ---- Shape ---- */

static const KvsColumn queue_columns[KVS_QUEUE_COLUMNS] = {
	[KVS_QUEUE_COLUMN_ID] = {"id", INT8OID, true},
	[KVS_QUEUE_COLUMN_READY_AT] = {"ready_at", TIMESTAMPTZOID, true},
	[KVS_QUEUE_COLUMN_ENQUEUED_AT] = {"enqueued_at", TIMESTAMPTZOID, true},
	[KVS_QUEUE_COLUMN_PRIORITY] = {"priority", INT2OID, true},
	[KVS_QUEUE_COLUMN_ATTEMPTS] = {"attempts", INT4OID, true},
	[KVS_QUEUE_COLUMN_PAYLOAD] = {"payload", JSONBOID, true},
	[KVS_QUEUE_COLUMN_HEADERS] = {"headers", JSONBOID, false},
	[KVS_QUEUE_COLUMN_MAX_ATTEMPTS] = {"max_attempts", INT4OID, false},
	[KVS_QUEUE_COLUMN_BACKOFF] = {"backoff", INTERVALARRAYOID, false},
	[KVS_QUEUE_COLUMN_EXPIRES_AT] = {"expires_at", TIMESTAMPTZOID, false},
	[KVS_QUEUE_COLUMN_DEDUPE_KEY] = {"dedupe_key", TEXTOID, false},
	[KVS_QUEUE_COLUMN_KEYS_IF_UNDELIVERED] = {"keys_if_undelivered", JSONBOID, false},
	[KVS_QUEUE_COLUMN_UNDELIVERED_STORE] = {"undelivered_store", TEXTOID, false},
	[KVS_QUEUE_COLUMN_LAST_ERROR] = {"last_error", TEXTOID, false},
	[KVS_QUEUE_COLUMN_SENDER] = {"sender", TEXTOID, false},
	[KVS_QUEUE_COLUMN_FAILED_AT] = {"failed_at", TIMESTAMPTZOID, false},
};

static const KvsColumn dead_columns[KVS_DEAD_COLUMNS] = {
	[KVS_DEAD_COLUMN_ID] = {"id", INT8OID, true},
	[KVS_DEAD_COLUMN_ORIGINAL_ID] = {"original_id", INT8OID, true},
	[KVS_DEAD_COLUMN_PAYLOAD] = {"payload", JSONBOID, true},
	[KVS_DEAD_COLUMN_HEADERS] = {"headers", JSONBOID, false},
	[KVS_DEAD_COLUMN_ERROR] = {"error", TEXTOID, false},
	[KVS_DEAD_COLUMN_ATTEMPTS] = {"attempts", INT4OID, true},
	[KVS_DEAD_COLUMN_ENQUEUED_AT] = {"enqueued_at", TIMESTAMPTZOID, true},
	[KVS_DEAD_COLUMN_FAILED_AT] = {"failed_at", TIMESTAMPTZOID, true},
	[KVS_DEAD_COLUMN_PRIORITY] = {"priority", INT2OID, true},
	[KVS_DEAD_COLUMN_MAX_ATTEMPTS] = {"max_attempts", INT4OID, false},
	[KVS_DEAD_COLUMN_BACKOFF] = {"backoff", INTERVALARRAYOID, false},
	[KVS_DEAD_COLUMN_TTL] = {"ttl", INTERVALOID, false},
	[KVS_DEAD_COLUMN_DEDUPE_KEY] = {"dedupe_key", TEXTOID, false},
	[KVS_DEAD_COLUMN_KEYS_IF_UNDELIVERED] = {"keys_if_undelivered", JSONBOID, false},
	[KVS_DEAD_COLUMN_UNDELIVERED_STORE] = {"undelivered_store", TEXTOID, false},
	[KVS_DEAD_COLUMN_SENDER] = {"sender", TEXTOID, false},
};

static bool
has_no_predicate(Relation index)
{
	return heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
}

/* Is a column of the index in its type's own order? */
static bool
has_default_order(Relation index, int i)
{
	return index->rd_opfamily[i] == lookup_type_cache(index->rd_opcintype[i], TYPECACHE_BTREE_OPFAMILY)->btree_opf;
}

/* (priority DESC, ready_at, id) */
static bool
is_order_index(Relation index, const void *arg)
{
	static const struct
	{
		int			column;
		int16		option;
	}			keys[] = {
		{KVS_QUEUE_COLUMN_PRIORITY, INDOPTION_DESC | INDOPTION_NULLS_FIRST},
		{KVS_QUEUE_COLUMN_READY_AT, 0},
		{KVS_QUEUE_COLUMN_ID, 0},
	};

	if (!kvs_shape_is_usable_index(index) || !has_no_predicate(index) ||
		index->rd_index->indnatts != lengthof(keys) || index->rd_index->indnkeyatts != lengthof(keys))
		return false;
	for (int i = 0; i < (int) lengthof(keys); i++)
		if (index->rd_index->indkey.values[i] != keys[i].column + 1 || !has_default_order(index, i) ||
			index->rd_indoption[i] != keys[i].option)
			return false;
	return true;
}

static bool
is_id_index(Relation index, const void *arg)
{
	return kvs_shape_is_unique_index(index) && has_no_predicate(index) &&
		index->rd_index->indnatts == 1 && index->rd_index->indkey.values[0] == KVS_QUEUE_COLUMN_ID + 1 &&
		has_default_order(index, 0) && index->rd_indoption[0] == 0;
}

/*
 * Over dedupe_key, WHERE dedupe_key IS NOT NULL and nothing else: a row without one has no entry.
 * The predicate is read as it is stored.  RelationGetIndexPredicate() evaluates what it can, and
 * would run functions of the table's owner with the reader's rights.
 */
static bool
is_dedupe_index(Relation index, const void *arg)
{
	Datum		stored;
	bool		isnull;
	NullTest   *test;

	if (!kvs_shape_is_unique_index(index) || has_no_predicate(index) ||
		index->rd_index->indnatts != 1 || index->rd_index->indkey.values[0] != KVS_QUEUE_COLUMN_DEDUPE_KEY + 1)
		return false;
	stored = SysCacheGetAttr(INDEXRELID, index->rd_indextuple, Anum_pg_index_indpred, &isnull);
	test = (NullTest *) stringToNode(TextDatumGetCString(stored));
	return IsA(test, NullTest) && test->nulltesttype == IS_NOT_NULL && IsA(test->arg, Var) &&
		((Var *) test->arg)->varattno == KVS_QUEUE_COLUMN_DEDUPE_KEY + 1;
}

/* What was found in a table of the right shape. */
typedef struct QueueShape
{
	Oid			order_index;
	Oid			id_index;
	Oid			dedupe_index;
	Oid			sequence;
} QueueShape;

/* What is wrong with the shape; NULL: nothing, and *shape is filled. */
static const char *
find_wrong_shape(Relation rel, QueueShape *shape)
{
	const char *detail = kvs_shape_find_wrong_table(rel);

	if (detail == NULL)
		detail = kvs_shape_find_wrong_column(rel, queue_columns, KVS_QUEUE_COLUMNS, InvalidOid);
	if (detail != NULL)
		return detail;
	shape->order_index = kvs_shape_find_index(rel, is_order_index, NULL);
	if (!OidIsValid(shape->order_index))
		return "It must have a valid btree index over (priority DESC, ready_at, id).";
	shape->id_index = kvs_shape_find_index(rel, is_id_index, NULL);
	if (!OidIsValid(shape->id_index))
		return "Column \"id\" must have a primary key, or a valid unique btree index over it alone.";
	shape->dedupe_index = kvs_shape_find_index(rel, is_dedupe_index, NULL);
	if (!OidIsValid(shape->dedupe_index))
		return "It must have a valid unique btree index over (dedupe_key) WHERE dedupe_key IS NOT NULL.";
	shape->sequence = kvs_compat_identity_sequence(rel, KVS_QUEUE_COLUMN_ID + 1);
	if (!OidIsValid(shape->sequence))
		return "Column \"id\" must be an identity column.";
	return NULL;
}

void
kvs_queue_check_shape(Relation rel)
{
	QueueShape	shape;
	const char *detail = find_wrong_shape(rel, &shape);

	if (detail != NULL)
		kvs_shape_report(rel, "queue", detail);
}

void
kvs_queue_check_dead_shape(Relation rel)
{
	const char *detail = kvs_shape_find_wrong_table(rel);

	if (detail == NULL)
		detail = kvs_shape_find_wrong_column(rel, dead_columns, KVS_DEAD_COLUMNS, InvalidOid);
	if (detail != NULL)
		kvs_shape_report(rel, "queue", detail);
}

static bool
is_named(Relation rel, const char *prefix)
{
	return strncmp(RelationGetRelationName(rel), prefix, strlen(prefix)) == 0 &&
		RelationGetNamespace(rel) == kvs_catalog_get()->data_schema;
}

bool
kvs_queue_is_named(Relation rel)
{
	return is_named(rel, "q_");
}

bool
kvs_queue_is_named_dead(Relation rel)
{
	return is_named(rel, "d_");
}

List *
kvs_queue_list(void)
{
	return kvs_catalog_list_tables("q_");
}

/* ---- Settings ---- */

int32
kvs_queue_check_max_attempts(int64 max_attempts)
{
	if (max_attempts < 1 || max_attempts > PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_attempts must be between 1 and %d", PG_INT32_MAX)));
	return (int32) max_attempts;
}

static void
set_default_settings(KvsQueue *queue)
{
	memset(&queue->lease, 0, sizeof(Interval));
	queue->lease.time = KVS_DEFAULT_LEASE;
	queue->max_attempts = KVS_DEFAULT_MAX_ATTEMPTS;
	queue->nbackoff = kvs_backoff_default(queue->backoff);
	queue->keep_dead = true;
	queue->paused = false;
}

/* Columns of kvstore.queues. */
enum
{
	SETTING_QUEUE = 1,
	SETTING_LEASE,
	SETTING_MAX_ATTEMPTS,
	SETTING_BACKOFF,
	SETTING_KEEP_DEAD,
	SETTING_PAUSED
};

static void
take_settings(HeapTuple tuple, TupleDesc desc, void *arg)
{
	KvsQueue   *queue = arg;
	bool		isnull;
	Datum		datum = heap_getattr(tuple, SETTING_LEASE, desc, &isnull);

	if (!isnull)
		queue->lease = *DatumGetIntervalP(datum);
	datum = heap_getattr(tuple, SETTING_MAX_ATTEMPTS, desc, &isnull);
	if (!isnull)
		queue->max_attempts = DatumGetInt32(datum);
	datum = heap_getattr(tuple, SETTING_BACKOFF, desc, &isnull);
	if (!isnull)
		queue->nbackoff = kvs_backoff_take(DatumGetArrayTypeP(datum), queue->backoff);
	datum = heap_getattr(tuple, SETTING_KEEP_DEAD, desc, &isnull);
	if (!isnull)
		queue->keep_dead = DatumGetBool(datum);
	datum = heap_getattr(tuple, SETTING_PAUSED, desc, &isnull);
	if (!isnull)
		queue->paused = DatumGetBool(datum);
}

/* Settings that differ from the defaults. */
static void
read_settings(KvsQueue *queue)
{
	set_default_settings(queue);
	if (!kvs_registry_read(&kvs_registry_queues, queue->name, take_settings, queue))
		kvs_registry_warn(&kvs_registry_queues, queue->name, queue->relid);
}

/* ---- Queues ---- */

/*
 * Forget the queues whose tables are gone, but not what this transaction has removed: the DROP may
 * be rolled back.
 */
static void
forget_gone(void)
{
	HASH_SEQ_STATUS status;
	KvsQueue   *queue;

	ninvalid = 0;
	hash_seq_init(&status, queues);
	while ((queue = hash_seq_search(&status)) != NULL)
	{
		if (queue->valid || kvs_queue_has_removed(queue) || SearchSysCacheExists1(RELOID, ObjectIdGetDatum(queue->relid)))
			continue;
		if (queue == last_queue)
			last_queue = NULL;
		kvs_queue_free_plans(queue);
		kvs_stats_forget_local(queue->relid);
		hash_search(queues, &queue->relid, HASH_REMOVE, NULL);
	}
}

/* The entry of a table, made if this session has not used it yet. */
static KvsQueue *
get_entry(Oid relid)
{
	KvsQueue   *queue;
	bool		found;

	if (ninvalid >= INVALID_MAX)
		forget_gone();
	if (queues == NULL)
	{
		HASHCTL		ctl;

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(KvsQueue);
		queues = hash_create("kvstore queues", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	queue = hash_search(queues, &relid, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) queue + sizeof(Oid), 0, sizeof(KvsQueue) - sizeof(Oid));
		queue->slot = -1;
		queue->planned.plans = queue->plans;
		queue->planned.nplans = KVS_QUEUE_PLANS;
	}
	return queue;
}

/* Statements have the name of the table in them. */
static void
set_name(KvsQueue *queue, const char *name)
{
	if (strcmp(queue->name, name) == 0)
		return;
	strlcpy(queue->name, name, NAMEDATALEN);
	kvs_queue_free_plans(queue);
}

/* A schedule that was chosen is taken as it is. */
static bool
has_default_backoff(const KvsQueue *queue)
{
	Interval	delays[KVS_BACKOFF_MAX];
	int			count = kvs_backoff_default(delays);

	return count == queue->nbackoff && memcmp(delays, queue->backoff, count * sizeof(Interval)) == 0;
}

/*
 * Check an open table and remember what was found; "detail" is what is wrong with its shape, NULL:
 * nothing.
 */
static KvsQueue *
load_queue(Relation rel, const char **detail)
{
	KvsQueue   *queue = get_entry(RelationGetRelid(rel));
	QueueShape	shape = {0};

	/* Flag first: an invalidation that comes while we look must not be lost. */
	queue->valid = true;
	PG_TRY();
	{
		*detail = find_wrong_shape(rel, &shape);
		if (*detail == NULL)
		{
			set_name(queue, RelationGetRelationName(rel) + 2);
			queue->order_index = shape.order_index;
			queue->id_index = shape.id_index;
			queue->dedupe_index = shape.dedupe_index;
			queue->sequence = shape.sequence;
			queue->owner = rel->rd_rel->relowner;
			queue->plain = kvs_shape_is_plain(rel, queue_columns, KVS_QUEUE_COLUMNS, 3);
			queue->replicated = kvs_replication_brings(queue->relid, true);
			read_settings(queue);
			queue->jitter = has_default_backoff(queue);
		}
	}
	PG_CATCH();
	{
		queue->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (*detail != NULL)
		queue->valid = false;
	return queue;
}

bool
kvs_queue_is_paused(KvsQueue *queue)
{
	if (queue->paused)
		read_settings(queue);
	return queue->paused;
}

/* What is wrong with using a table of the right shape now; raises 0A000. */
static void
check_usable(const KvsQueue *queue, Relation rel)
{
	if (unlikely(rel->rd_rel->relrowsecurity))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("queue \"%s\" has row-level security", queue->name),
				 errhint("Use one queue for each group of users, and GRANT on its table.")));
	if (unlikely(rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED && RecoveryInProgress()))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("queue \"%s\" is unlogged and cannot be read during recovery", queue->name)));
}

/* Open the table of an entry that was valid; NULL if it is gone or has changed. */
static Relation
reopen(KvsQueue *queue, LOCKMODE lockmode)
{
	Relation	rel = try_relation_open(queue->relid, lockmode);

	if (unlikely(rel == NULL))
		queue->valid = false;
	else if (unlikely(!queue->valid))
	{
		relation_close(rel, lockmode);
		rel = NULL;
	}
	return rel;
}

/* The queue of a table; *detail: why it is none, else NULL. */
static KvsQueue *
get_valid_entry(Relation rel, const char **detail)
{
	KvsQueue   *queue = get_entry(RelationGetRelid(rel));

	*detail = NULL;
	if (unlikely(!queue->valid))
		queue = load_queue(rel, detail);
	return queue;
}

KvsQueue *
kvs_queue_of(Relation rel)
{
	const char *detail;
	KvsQueue   *queue = get_valid_entry(rel, &detail);

	if (unlikely(detail != NULL))
		kvs_shape_report(rel, "queue", detail);
	return queue;
}

KvsQueue *
kvs_queue_find(Relation rel)
{
	const char *detail;
	KvsQueue   *queue = get_valid_entry(rel, &detail);

	return detail == NULL ? queue : NULL;
}

void
kvs_queue_note_removal(Oid relid)
{
	get_entry(relid)->removed_by = GetTopFullTransactionId();
}

bool
kvs_queue_has_removed(const KvsQueue *queue)
{
	return FullTransactionIdIsValid(queue->removed_by) &&
		FullTransactionIdEquals(queue->removed_by, GetTopFullTransactionIdIfAny());
}

static Relation
open_by_name(const char *name, LOCKMODE lockmode, KvsQueue **queue)
{
	Relation	rel = kvs_catalog_lock_table("q_", name, lockmode);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("queue \"%s\" does not exist", name),
				 strcmp(name, "default") == 0 ?
				 errhint("Create it with SELECT kv_create_queue().") :
				 errhint("Create it with SELECT kv_create_queue('%s').", name)));
	*queue = kvs_queue_of(rel);
	return rel;
}

KvsQueue *
kvs_queue_open(const text *name, LOCKMODE lockmode, Relation *rel)
{
	KvsQueue   *queue = last_queue;
	int			len = name ? VARSIZE_ANY_EXHDR(name) : 0;

	*rel = NULL;
	if (queue != NULL && queue->valid && len > 0 && len <= KVS_NAME_MAX &&
		memcmp(queue->name, VARDATA_ANY(name), len) == 0 && queue->name[len] == '\0')
		*rel = reopen(queue, lockmode);
	if (*rel == NULL)
		*rel = open_by_name(kvs_catalog_check_name(name, "queue"), lockmode, &queue);
	last_queue = queue;
	check_usable(queue, *rel);
	if (unlikely(queue->replicated) && lockmode == RowExclusiveLock)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" is a copy that a subscription brings", queue->name),
				 errhint("Send and receive on the publisher. To switch over, end the subscription: DROP SUBSCRIPTION.")));
	if (unlikely(queue->stat == NULL))
		queue->stat = kvs_stats_local(queue->relid);
	return queue;
}

KvsQueue *
kvs_queue_open_relid(Oid relid, LOCKMODE lockmode, Relation *rel)
{
	KvsQueue   *queue = last_queue;
	const char *detail = NULL;

	if (queue == NULL || queue->relid != relid)
		queue = queues ? hash_search(queues, &relid, HASH_FIND, NULL) : NULL;
	*rel = queue != NULL && queue->valid ? reopen(queue, lockmode) : NULL;
	if (*rel == NULL)
	{
		/* A receipt may name any table: none but ours is locked for it. */
		if (get_rel_namespace(relid) != kvs_catalog_get()->data_schema)
			return NULL;
		*rel = try_relation_open(relid, lockmode);
		if (*rel == NULL)
			return NULL;
		queue = NULL;
		if (kvs_queue_is_named(*rel))
			queue = load_queue(*rel, &detail);
		if (queue == NULL || detail != NULL)
		{
			relation_close(*rel, lockmode);
			*rel = NULL;
			return NULL;
		}
	}
	last_queue = queue;
	check_usable(queue, *rel);
	if (unlikely(queue->stat == NULL))
		queue->stat = kvs_stats_local(queue->relid);
	return queue;
}

Relation
kvs_queue_open_dead(const KvsQueue *queue, LOCKMODE lockmode)
{
	Relation	rel;

	kvs_shape_check_owner(kvs_catalog_find_table("d_", queue->name), KVS_DEAD_PART, "queue", queue->name, queue->owner);
	rel = kvs_catalog_lock_table("d_", queue->name, lockmode);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("queue \"%s\" has no table for dead letters", queue->name),
				 errhint("Call kv_create_queue('%s', if_not_exists => true) as the queue's owner.", queue->name)));
	kvs_shape_check_owner(RelationGetRelid(rel), KVS_DEAD_PART, "queue", queue->name, queue->owner);
	kvs_queue_check_dead_shape(rel);
	return rel;
}

/*
 * Does only our own code run when a letter is inserted?  Its only index is over the id alone, as an
 * index may call functions of the owner's.  So may a default: the id, which alone is not given, has
 * none.
 */
static bool
is_plain_dead(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	StaticAssertStmt((int) KVS_DEAD_COLUMN_ID == (int) KVS_QUEUE_COLUMN_ID, "is_id_index() is for both");
	return kvs_shape_find_wrong_table(rel) == NULL &&
		kvs_shape_find_wrong_column(rel, dead_columns, KVS_DEAD_COLUMNS, InvalidOid) == NULL &&
		kvs_shape_is_plain(rel, dead_columns, KVS_DEAD_COLUMNS, 1) &&
		OidIsValid(kvs_shape_find_index(rel, is_id_index, NULL)) &&
		TupleDescAttr(desc, KVS_DEAD_COLUMN_ID)->attidentity != '\0';
}

bool
kvs_queue_try_lock_dead(const KvsQueue *queue, bool plain)
{
	Oid			relid = kvs_catalog_find_table("d_", queue->name);
	Relation	rel;
	bool		result = true;

	/*
	 * the call that opens it says what is wrong, without waiting for a lock that a stranger may
	 * hold
	 */
	if (kvs_shape_owner(relid) != queue->owner)
		return !plain;
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		return false;
	rel = plain ? try_relation_open(relid, NoLock) : NULL;
	if (plain)
		result = rel != NULL && rel->rd_rel->relowner == queue->owner && is_plain_dead(rel);
	if (rel != NULL)
		relation_close(rel, NoLock);
	return result;
}

void
kvs_queuecatalog_init(void)
{
	CacheRegisterRelcacheCallback(queue_relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(SUBSCRIPTIONRELMAP, queue_subscription_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(SUBSCRIPTIONOID, queue_subscription_callback, (Datum) 0);
}
