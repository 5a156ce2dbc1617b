/*
 * catalog.c
 *		From the name of a store to a table that is safe to read.
 *
 * A store is an ordinary table, kvstore.s_<name>, found by its name, so anybody with CREATE on the schema can put another table there, and an
 * owner can alter his.  Reading an int as a varlena pointer is a crash.  So before a table is used its shape is checked (shape.c), and
 * checked again after every relcache invalidation of it.  Nothing is deformed before that.  Queues are in queuecatalog.c.
 *
 * What was found is kept for the session: the OIDs of the extension's own objects in one static struct, and an entry for each store that
 * was used.  Invalidation callbacks only clear flags; the next use looks again.  The callback for a relation comes when its lock is taken at the latest,
 * so the flag is read after locking.  Everything here is backend-local; no lock protects it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "compat.h"
#include "plan.h"
#include "registry.h"
#include "shape.h"
#include "stats.h"

static KvsCatalog catalog;
static bool catalog_valid = false;
static uint32 catalog_type_hash;	/* syscache hash of the type kvkey */
static uint32 catalog_schema_hash;	/* syscache hash of the schema kvstore */
static uint32 catalog_sequence_hash;	/* syscache hash of the sequence's definition */

static HTAB *stores = NULL;		/* name -> KvsStore */
static KvsStore *last_store = NULL; /* the one used last: nearly always the one used next */

/* ---- The extension's own objects ---- */

static void
catalog_syscache_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	uint32		ours = cacheid == TYPEOID ? catalog_type_hash :
		cacheid == NAMESPACEOID ? catalog_schema_hash : catalog_sequence_hash;

	if (hashvalue == 0 || hashvalue == ours)
		catalog_valid = false;
}

static void
catalog_relcache_callback(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	KvsStore   *store;

	if (relid == InvalidOid || relid == catalog.sequence)
		catalog_valid = false;
	if (stores == NULL)
		return;
	hash_seq_init(&status, stores);
	while ((store = hash_seq_search(&status)) != NULL)
		if (relid == InvalidOid || relid == store->relid || relid == store->indexid)
			store->valid = false;
}

/* The extension, and the schema where CREATE EXTENSION put our functions; InvalidOid if there is no such extension. */
static Oid
find_extension(Oid *schema)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			extension = InvalidOid;

	*schema = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("kvstore"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		extension = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
		*schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return extension;
}

const KvsCatalog *
kvs_catalog_get(void)
{
	KvsCatalog	found;

	if (likely(catalog_valid))
		return &catalog;

	/* Flag first: an invalidation that comes while we look must not be lost. */
	catalog_valid = true;
	memset(&found, 0, sizeof(found));
	PG_TRY();
	{
		found.extension = find_extension(&found.function_schema);
		found.data_schema = get_namespace_oid("kvstore", true);
		if (OidIsValid(found.function_schema) && OidIsValid(found.data_schema))
		{
			found.kvkey_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("kvkey"),
											   ObjectIdGetDatum(found.function_schema));
			found.sequence = get_relname_relid("versionstamp", found.data_schema);
		}
		if (!OidIsValid(found.kvkey_type) || !OidIsValid(found.sequence))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("extension \"kvstore\" is not installed in this database"),
					 errhint("Run CREATE EXTENSION kvstore.")));
		found.kvkey_family = lookup_type_cache(found.kvkey_type, TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	}
	PG_CATCH();
	{
		catalog_valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();

	found.generation = Max(catalog.generation + 1, 1);
	catalog = found;
	catalog_type_hash = GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(catalog.kvkey_type));
	catalog_schema_hash = GetSysCacheHashValue1(NAMESPACEOID, ObjectIdGetDatum(catalog.data_schema));
	catalog_sequence_hash = GetSysCacheHashValue1(SEQRELID, ObjectIdGetDatum(catalog.sequence));
	return &catalog;
}

bool
kvs_catalog_is_installed(void)
{
	Oid			schema;

	return catalog_valid || OidIsValid(find_extension(&schema));
}

/* Lock it, until the transaction ends or (session) it is unlocked, unless somebody who drops it is in the way. */
static bool
lock_extension(LOCKTAG *tag, Oid extension, LOCKMODE lockmode, bool session)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, ExtensionRelationId, extension, 0);
	return LockAcquire(tag, lockmode, session, true) != LOCKACQUIRE_NOT_AVAIL;
}

bool
kvs_catalog_keep_extension(void)
{
	LOCKTAG		tag;
	Oid			schema;
	Oid			extension = catalog_valid ? catalog.extension : find_extension(&schema);

	/* where there is none, what belongs to it will not be found either */
	return !OidIsValid(extension) || lock_extension(&tag, extension, RowExclusiveLock, false);
}

bool
kvs_catalog_extension_is_wanted(void)
{
	LOCKTAG		tag;

	if (!catalog_valid)
		return false;
	/* his request comes before one of ours for a lock that we have not yet */
	if (!lock_extension(&tag, catalog.extension, AccessShareLock, true))
		return true;
	LockRelease(&tag, AccessShareLock, true);
	return false;
}

Oid
kvs_catalog_find_table(const char *prefix, const char *name)
{
	return get_relname_relid(psprintf("%s%s", prefix, name), kvs_catalog_get()->data_schema);
}

Relation
kvs_catalog_lock_table(const char *prefix, const char *name, LOCKMODE lockmode)
{
	for (;;)
	{
		Oid			relid = kvs_catalog_find_table(prefix, name);
		Relation	rel;

		if (!OidIsValid(relid))
			return NULL;
		rel = try_relation_open(relid, lockmode);

		/* Dropped or renamed while we waited for the lock: look again. */
		if (rel != NULL && relid == kvs_catalog_find_table(prefix, name))
			return rel;
		if (rel != NULL)
			relation_close(rel, lockmode);
	}
}

List *
kvs_catalog_list_tables(const char *prefix)
{
	Relation	rel = table_open(RelationRelationId, AccessShareLock);
	char	   *end = pstrdup(prefix);
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *result = NIL;

	/* names from the prefix up to its successor, read from the index, which is sorted */
	end[strlen(end) - 1]++;
	ScanKeyInit(&keys[0], Anum_pg_class_relname, BTGreaterEqualStrategyNumber, F_NAMEGE, CStringGetDatum(prefix));
	ScanKeyInit(&keys[1], Anum_pg_class_relname, BTLessStrategyNumber, F_NAMELT, CStringGetDatum(end));
	ScanKeyInit(&keys[2], Anum_pg_class_relnamespace, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(kvs_catalog_get()->data_schema));
	scan = systable_beginscan(rel, ClassNameNspIndexId, true, NULL, lengthof(keys), keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		if (form->relkind == RELKIND_RELATION)
			result = lappend_oid(result, form->oid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

const char *
kvs_catalog_function_schema(void)
{
	return quote_identifier(get_namespace_name(kvs_catalog_get()->function_schema));
}

/* ---- Names ---- */

char *
kvs_catalog_check_name(const text *name, const char *noun)
{
	char	   *str;
	int			len;

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s name must not be null", noun)));

	str = text_to_cstring(name);
	len = strspn(str, "abcdefghijklmnopqrstuvwxyz_0123456789");
	if (len == 0 || len > KVS_NAME_MAX || str[len] != '\0' || (str[0] >= '0' && str[0] <= '9'))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s name \"%s\"", noun, str),
				 errhint("Use 1 to %d lower-case letters, digits and underscores, not starting with a digit.",
						 KVS_NAME_MAX)));
	return str;
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
kvs_catalog_check_store_shape(Relation rel)
{
	Oid			index = InvalidOid;
	const char *detail = find_wrong_shape(rel, &index);

	if (detail != NULL)
		kvs_shape_report(rel, "store", detail);
	return index;
}

bool
kvs_catalog_is_store(Relation rel)
{
	Oid			index;

	return RelationGetNamespace(rel) == kvs_catalog_get()->data_schema &&
		strncmp(RelationGetRelationName(rel), "s_", 2) == 0 && find_wrong_shape(rel, &index) == NULL;
}

/* ---- Stores ---- */

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

static void
free_plans(KvsStore *store)
{
	for (int i = 0; i < KVS_STORE_PLANS; i++)
		kvs_plan_free(&store->plans[i]);
}

/* The entry of a name, made if this session has not used it yet. */
static KvsStore *
get_store_entry(const char *name)
{
	KvsStore   *store;
	bool		found;

	if (stores == NULL)
	{
		HASHCTL		ctl;

		memset(&ctl, 0, sizeof(ctl));
		ctl.keysize = NAMEDATALEN;
		ctl.entrysize = sizeof(KvsStore);
		stores = hash_create("kvstore stores", 16, &ctl, HASH_ELEM | HASH_STRINGS);
	}
	store = hash_search(stores, name, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) store + NAMEDATALEN, 0, sizeof(KvsStore) - NAMEDATALEN);
		store->name[KVS_NAME_MAX] = '\0';
	}
	return store;
}

/* Look the table up, lock it, check it, and remember what was found. */
static Relation
load_store(KvsStore *store, LOCKMODE lockmode)
{
	Relation	rel = kvs_catalog_lock_table("s_", store->name, lockmode);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("store \"%s\" does not exist", store->name),
				 strcmp(store->name, "default") == 0 ?
				 errhint("Create it with SELECT kv_create_store().") :
				 errhint("Create it with SELECT kv_create_store('%s').", store->name)));

	if (RelationGetRelid(rel) != store->relid)
	{
		free_plans(store);
		store->stat = NULL;
	}
	/* Flag first: an invalidation that comes while we look must not be lost. */
	store->relid = RelationGetRelid(rel);
	store->indexid = InvalidOid;
	store->valid = true;
	PG_TRY();
	{
		store->indexid = kvs_catalog_check_store_shape(rel);
		store->plain = kvs_shape_is_plain(rel, store_columns, lengthof(store_columns), 1);
		read_settings(store);
	}
	PG_CATCH();
	{
		store->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	return rel;
}

KvsStore *
kvs_catalog_open_store(const text *name, LOCKMODE lockmode, Relation *rel)
{
	KvsStore   *store = last_store;
	int			len = name ? VARSIZE_ANY_EXHDR(name) : 0;

	kvs_stats_used();
	if (store == NULL || len == 0 || len > KVS_NAME_MAX ||
		memcmp(store->name, VARDATA_ANY(name), len) != 0 || store->name[len] != '\0')
		store = get_store_entry(kvs_catalog_check_name(name, "store"));

	*rel = NULL;
	if (likely(store->valid))
	{
		*rel = try_relation_open(store->relid, lockmode);
		if (unlikely(*rel == NULL))
			store->valid = false;
		else if (unlikely(!store->valid))
		{
			relation_close(*rel, lockmode);
			*rel = NULL;
		}
	}
	if (*rel == NULL)
		*rel = load_store(store, lockmode);
	last_store = store;

	if (unlikely((*rel)->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED && RecoveryInProgress()))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("store \"%s\" is unlogged and cannot be read during recovery", store->name)));
	if (unlikely(store->stat == NULL))
		store->stat = kvs_stats_local(store->relid);
	return store;
}

void
kvs_catalog_init(void)
{
	CacheRegisterSyscacheCallback(TYPEOID, catalog_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, catalog_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(SEQRELID, catalog_syscache_callback, (Datum) 0);
	CacheRegisterRelcacheCallback(catalog_relcache_callback, (Datum) 0);
}
