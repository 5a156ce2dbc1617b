/*
 * catalog.c
 *		The extension's own objects, and tables by their names.
 *
 * The OIDs of the extension's objects are kept for the session, in one static struct.  Invalidation
 * callbacks only clear a flag; the next use looks again.  Stores are in storecatalog.c, queues in
 * queuecatalog.c.  Everything here is backend-local; no lock protects it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "table/catalog.h"

static KvsCatalog catalog;
static bool catalog_valid = false;
static uint32 catalog_type_hash;	/* syscache hash of the type kvkey */
static uint32 catalog_schema_hash;	/* syscache hash of the schema kvstore */
static uint32 catalog_sequence_hash;	/* syscache hash of the sequence's definition */

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
	if (relid == InvalidOid || relid == catalog.sequence)
		catalog_valid = false;
}

/*
 * The extension, and the schema where CREATE EXTENSION put our functions; InvalidOid if there is no
 * such extension.
 */
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

/*
 * Lock it, until the transaction ends or (session) it is unlocked, unless a session that drops it
 * is in the way.
 */
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
	/* its request comes before one of ours for a lock that we have not yet */
	if (!lock_extension(&tag, catalog.extension, AccessShareLock, true))
		return true;
	LockRelease(&tag, AccessShareLock, true);
	return false;
}

Oid
kvs_catalog_find_table(const char *prefix, const char *name)
{
	Oid			schema = kvs_catalog_get()->data_schema;
	char	   *table = psprintf("%s%s", prefix, name);
	Oid			relid = get_relname_relid(table, schema);

	/* the server would remember for ever that there is none, and there are many names */
	if (!OidIsValid(relid))
		SysCacheInvalidate(RELNAMENSP, GetSysCacheHashValue2(RELNAMENSP, CStringGetDatum(table), ObjectIdGetDatum(schema)));
	return relid;
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

void
kvs_catalog_visit_tables(const char *prefix, void (*visit) (Form_pg_class form, void *arg), void *arg)
{
	Relation	rel = table_open(RelationRelationId, AccessShareLock);
	char	   *end = pstrdup(prefix);
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	tuple;

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
			visit(form, arg);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static void
add_table(Form_pg_class form, void *arg)
{
	List	  **list = arg;

	*list = lappend_oid(*list, form->oid);
}

List *
kvs_catalog_list_tables(const char *prefix)
{
	List	   *result = NIL;

	kvs_catalog_visit_tables(prefix, add_table, &result);
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

/* ---- Initialisation ---- */

void
kvs_catalog_init(void)
{
	CacheRegisterSyscacheCallback(TYPEOID, catalog_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, catalog_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(SEQRELID, catalog_syscache_callback, (Datum) 0);
	CacheRegisterRelcacheCallback(catalog_relcache_callback, (Datum) 0);
}
