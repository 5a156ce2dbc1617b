/*
 * storecatalog.c
 *		From the name of a store to a table that is safe to read.
 *
 * A store is an ordinary table, kvstore.s_<name>, found by its name.  So anybody with CREATE on the
 * schema can put another table there, and owners can alter theirs.  Reading an int as a varlena
 * pointer is a crash.  So before a table is used its shape is checked (shape.c), and checked again
 * after every relcache invalidation of it.  Nothing is deformed before that.
 *
 * The result is kept for the session, an entry for each table.  The invalidation callback only
 * clears a flag; the next use looks again.  The callback comes when the table's lock is taken at
 * the latest, so the flag is read after locking.
 *
 * A call that has an entry keeps it to its end.  Meanwhile code of a user may run, which calls us
 * and changes tables.  So an entry is of one table as long as it lives.  When the name has come to
 * mean another table, there is a new entry, and the old one is freed in a later transaction.
 *
 * A pooled session may use thousands of stores.  Plans take some 100 kB for each, so only those
 * used last keep theirs (plan.c).  PostgreSQL itself would cache some 12 kB of each table and its
 * index for ever.  So MOST_RECENT tables stay there, and the least recently used one goes.  To read
 * it anew costs some 0.1 ms.  Everything here is backend-local; no lock protects it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/stats.h"
#include "table/catalog.h"
#include "table/registry.h"
#include "table/shape.h"

/* After so many entries became invalid we look for those whose tables are gone. */
#define INVALID_MAX		4

/* The server may keep its caches of so many stores. */
#define MOST_RECENT		64

/* Plans of all stores, some 40 kB each. */
#define MOST_PLANS		80

typedef struct StoreName
{
	char		name[NAMEDATALEN];	/* hash key; must be first */
	KvsStore   *store;			/* what it meant last */
} StoreName;

static HTAB *stores = NULL;		/* StoreName */
/* in small blocks: those of TopMemoryContext double up to 8 MB */
static MemoryContext entries = NULL;
static KvsStore *last_store = NULL; /* the one used last: nearly always the one used next */
static KvsStore *orphans = NULL;	/* those whose names mean something else now */
static int	ninvalid = 0;		/* entries that became invalid since somebody looked */
static KvsPlanList planned = KVS_PLAN_LIST(planned, MOST_PLANS);
static dlist_head recent = DLIST_STATIC_INIT(recent);	/* the one used last first */
static int	nrecent = 0;

static void
store_relcache_callback(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	StoreName  *entry;

	if (stores == NULL)
		return;
	hash_seq_init(&status, stores);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		KvsStore   *store = entry->store;

		if (store == NULL || (relid != InvalidOid && relid != store->relid && relid != store->indexid))
			continue;
		ninvalid += store->valid ? 1 : 0;
		store->valid = false;
	}
}

/* ---- Shape ---- */

static const KvsColumn store_columns[] = {
	{"key", InvalidOid, true},
	{"value", JSONBOID, false},
	{"bytes", BYTEAOID, false},
	{"kind", CHAROID, true},
	{"versionstamp", INT8OID, true},
	{"expires_at", TIMESTAMPTZOID, false},
};

/* An index that finds a key exactly and in order, and that ON CONFLICT (key) can rely on. */
static bool
is_key_index(Relation index, const void *arg)
{
	const KvsCatalog *cat = kvs_catalog_get();
	Form_pg_index form = index->rd_index;

	return kvs_shape_is_unique_index(index) &&
		form->indnkeyatts == 1 && form->indkey.values[0] == 1 &&
		index->rd_opfamily[0] == cat->kvkey_family && index->rd_opcintype[0] == cat->kvkey_type &&
		index->rd_indoption[0] == 0 &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
}

/* What is wrong with the shape; NULL: nothing, and *indexid is the key index. */
static const char *
find_wrong_shape(Relation rel, Oid *indexid)
{
	const char *detail = kvs_shape_find_wrong_table(rel);

	if (detail == NULL)
		detail = kvs_shape_find_wrong_column(rel, store_columns, lengthof(store_columns), kvs_catalog_get()->kvkey_type);
	if (detail != NULL)
		return detail;
	*indexid = kvs_shape_find_index(rel, is_key_index, NULL);
	if (!OidIsValid(*indexid))
		return "Column \"key\" must have a primary key, or a valid unique btree index over it alone.";
	return NULL;
}

Oid
kvs_storecatalog_check_store_shape(Relation rel)
{
	Oid			index = InvalidOid;
	const char *detail = find_wrong_shape(rel, &index);

	if (detail != NULL)
		kvs_shape_report(rel, "store", detail);
	return index;
}

bool
kvs_storecatalog_is_store(Relation rel)
{
	Oid			index;

	return RelationGetNamespace(rel) == kvs_catalog_get()->data_schema &&
		strncmp(RelationGetRelationName(rel), "s_", 2) == 0 && find_wrong_shape(rel, &index) == NULL;
}

/* ---- Settings ---- */

/* Columns of kvstore.stores. */
enum
{
	SETTING_STORE = 1,
	SETTING_DEFAULT_TTL,
	SETTING_MAX_VALUE_SIZE
};

static void
take_settings(HeapTuple tuple, TupleDesc desc, void *arg)
{
	KvsStore   *store = arg;
	bool		isnull;
	Datum		datum = heap_getattr(tuple, SETTING_DEFAULT_TTL, desc, &isnull);

	if (!isnull)
	{
		store->has_default_ttl = true;
		store->default_ttl = *DatumGetIntervalP(datum);
	}
	datum = heap_getattr(tuple, SETTING_MAX_VALUE_SIZE, desc, &isnull);
	if (!isnull)
		store->max_value_size = DatumGetInt64(datum);
}

/* Settings that differ from the defaults. */
static void
read_settings(KvsStore *store)
{
	store->has_default_ttl = false;
	store->max_value_size = 0;
	if (!kvs_registry_read(&kvs_registry_stores, store->name, take_settings, store))
		kvs_registry_warn(&kvs_registry_stores, store->name, store->relid);
}

/* ---- What PostgreSQL caches of a table ---- */

/*
 * Have the server forget a relation, as if somebody had changed it, but in this session only.  One
 * in use stays.
 */
static void
let_go_relation(Oid relid)
{
	RelationCacheInvalidateEntry(relid);
	SysCacheInvalidate(RELOID, GetSysCacheHashValue1(RELOID, ObjectIdGetDatum(relid)));
}

/* Its table is not needed for the time being. */
static void
let_go(KvsStore *store)
{
	char		table[NAMEDATALEN + 2];

	dlist_delete(&store->recent_node);
	store->recent = false;
	nrecent--;
	if (!OidIsValid(store->indexid))
		return;
	let_go_relation(store->relid);
	let_go_relation(store->indexid);
	SysCacheInvalidate(INDEXRELID, GetSysCacheHashValue1(INDEXRELID, ObjectIdGetDatum(store->indexid)));
	snprintf(table, sizeof(table), "s_%s", store->name);
	SysCacheInvalidate(RELNAMENSP, GetSysCacheHashValue2(RELNAMENSP, CStringGetDatum(table),
														 ObjectIdGetDatum(kvs_catalog_get()->data_schema)));
}

/* This is the store used last. */
static void
touch(KvsStore *store)
{
	if (store->recent)
		dlist_move_head(&recent, &store->recent_node);
	else
	{
		dlist_push_head(&recent, &store->recent_node);
		store->recent = true;
		nrecent++;
	}
	if (nrecent > MOST_RECENT)
		let_go(dlist_tail_element(KvsStore, recent_node, &recent));
	last_store = store;
}

/* ---- Entries ---- */

/* Some call may still use it, up to the end of this transaction. */
static void
orphan(KvsStore *store)
{
	if (store == last_store)
		last_store = NULL;
	if (store->recent)
		let_go(store);
	kvs_plan_free_all(&planned, &store->planned);
	store->orphaned_at = GetCurrentTransactionStartTimestamp();
	store->next_orphan = orphans;
	orphans = store;
}

static void
free_orphans(void)
{
	TimestampTz start = GetCurrentTransactionStartTimestamp();

	for (KvsStore **link = &orphans; *link != NULL;)
	{
		KvsStore   *store = *link;

		if (store->orphaned_at == start)
		{
			link = &store->next_orphan;
			continue;
		}
		*link = store->next_orphan;
		pfree(store);
	}
}

/* Forget the names whose tables are gone. */
static void
forget_gone(void)
{
	HASH_SEQ_STATUS status;
	StoreName  *entry;

	ninvalid = 0;
	hash_seq_init(&status, stores);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		KvsStore   *store = entry->store;

		if (store != NULL && (store->valid || SearchSysCacheExists1(RELOID, ObjectIdGetDatum(store->relid))))
			continue;
		if (store != NULL)
		{
			kvs_stats_forget_local(store->relid);
			orphan(store);
		}
		hash_search(stores, entry->name, HASH_REMOVE, NULL);
	}
}

/* What a name meant when it was used last; NULL: nothing that we know. */
static KvsStore *
find_store(const char *name)
{
	StoreName  *entry = stores ? hash_search(stores, name, HASH_FIND, NULL) : NULL;

	return entry ? entry->store : NULL;
}

/* The entry of a table that has this name. */
static KvsStore *
get_store(const char *name, Oid relid)
{
	StoreName  *entry;
	KvsStore   *store;
	bool		found;

	if (stores == NULL)
	{
		HASHCTL		ctl;

		memset(&ctl, 0, sizeof(ctl));
		ctl.keysize = NAMEDATALEN;
		ctl.entrysize = sizeof(StoreName);
		stores = hash_create("kvstore stores", 16, &ctl, HASH_ELEM | HASH_STRINGS);
	}
	entry = hash_search(stores, name, HASH_ENTER, &found);
	if (!found)
		entry->store = NULL;
	if (entry->store != NULL && entry->store->relid == relid)
		return entry->store;
	if (entries == NULL)
		entries = AllocSetContextCreate(TopMemoryContext, "kvstore store entries", ALLOCSET_DEFAULT_MINSIZE,
										ALLOCSET_DEFAULT_INITSIZE, 64 * 1024);
	store = MemoryContextAllocZero(entries, sizeof(KvsStore));
	strlcpy(store->name, name, NAMEDATALEN);
	store->relid = relid;
	store->planned.plans = store->plans;
	store->planned.nplans = KVS_STORE_PLANS;
	if (entry->store != NULL)
		orphan(entry->store);
	return entry->store = store;
}

SPIPlanPtr *
kvs_storecatalog_plan(KvsStore *store, int which)
{
	return kvs_plan_use(&planned, &store->planned, which);
}

/* ---- Opening ---- */

/* Check an open table, and remember what was found. */
static void
check_table(KvsStore *store, Relation rel)
{
	/* Flag first: an invalidation that comes while we look must not be lost. */
	store->indexid = InvalidOid;
	store->valid = true;
	PG_TRY();
	{
		store->indexid = kvs_storecatalog_check_store_shape(rel);
		/* an index with further columns is the executor's to fill */
		store->plain = kvs_shape_is_plain(rel, store_columns, lengthof(store_columns), 1) &&
			kvs_shape_index_columns(store->indexid) == 1;
		store->selective = rel->rd_rel->relrowsecurity || kvs_shape_has_trigger(rel, TRIGGER_TYPE_DELETE);
		read_settings(store);
	}
	PG_CATCH();
	{
		store->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* Look the table up, lock it, check it, and remember what was found. */
static KvsStore *
load_store(const char *name, LOCKMODE lockmode, Relation *rel)
{
	KvsStore   *store;

	free_orphans();
	if (ninvalid >= INVALID_MAX)
		forget_gone();
	*rel = kvs_catalog_lock_table("s_", name, lockmode);
	if (*rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("store \"%s\" does not exist", name),
				 strcmp(name, "default") == 0 ?
				 errhint("Create it with SELECT kv_create_store().") :
				 errhint("Create it with SELECT kv_create_store('%s').", name)));

	store = get_store(name, RelationGetRelid(*rel));
	check_table(store, *rel);
	return store;
}

/* Open the table of an entry that was valid; NULL if it is gone or has changed. */
static Relation
reopen(KvsStore *store, LOCKMODE lockmode)
{
	Relation	rel = try_relation_open(store->relid, lockmode);

	if (unlikely(rel == NULL))
		store->valid = false;
	else if (unlikely(!store->valid))
	{
		relation_close(rel, lockmode);
		rel = NULL;
	}
	return rel;
}

KvsStore *
kvs_storecatalog_open_store(const text *name, LOCKMODE lockmode, Relation *rel)
{
	KvsStore   *store = last_store;
	int			len = name ? VARSIZE_ANY_EXHDR(name) : 0;

	kvs_stats_used();
	if (store == NULL || len == 0 || len > KVS_NAME_MAX ||
		memcmp(store->name, VARDATA_ANY(name), len) != 0 || store->name[len] != '\0')
		store = find_store(kvs_catalog_check_name(name, "store"));
	*rel = store != NULL && likely(store->valid) ? reopen(store, lockmode) : NULL;
	if (unlikely(*rel == NULL))
		store = load_store(kvs_catalog_check_name(name, "store"), lockmode, rel);
	if (store != last_store)
		touch(store);

	if (unlikely((*rel)->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED && RecoveryInProgress()))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("store \"%s\" is unlogged and cannot be read during recovery", store->name)));
	if (unlikely(store->stat == NULL))
		store->stat = kvs_stats_local(store->relid);
	return store;
}

void
kvs_storecatalog_init(void)
{
	CacheRegisterRelcacheCallback(store_relcache_callback, (Datum) 0);
}
