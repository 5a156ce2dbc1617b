/*
 * ddlcommon.c
 *		What creating, altering and dropping have in common for stores, queues and snapshot stores.
 *
 * Pods that migrate at once must all succeed, so creating takes a lock on the schema first: the second finds what the first has made.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/fmgrprotos.h"

#include "catalog.h"
#include "compat.h"
#include "ddlcommon.h"
#include "guard.h"
#include "shape.h"

int
kvs_ddl_interval_sign(Interval *interval)
{
	Interval	zero = {0};

	return DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(interval), IntervalPGetDatum(&zero)));
}

void
kvs_ddl_run_utility(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
}

bool
kvs_ddl_find_existing(const char *prefix, const char *name, const char *noun, bool if_not_exists,
					  void (*check) (Relation rel))
{
	Oid			relid = kvs_catalog_find_table(prefix, name);
	Relation	rel;

	if (!OidIsValid(relid))
		return false;
	if (!if_not_exists)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("%s \"%s\" already exists", noun, name),
				 errhint("Call %s() with if_not_exists => true to accept that.", kvs_shape_create_function(noun))));
	rel = try_relation_open(relid, AccessShareLock);
	if (rel == NULL)
		return false;			/* dropped while we waited for its lock */
	check(rel);
	relation_close(rel, NoLock);
	return true;
}

Oid
kvs_ddl_find_own_table(const char *prefix, const char *name)
{
	Oid			relid = kvs_catalog_find_table(prefix, name);

	if (OidIsValid(relid) && !kvs_compat_owns_table(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, psprintf("%s%s", prefix, name));
	return relid;
}

void
kvs_ddl_lock_schema(void)
{
	LockDatabaseObject(NamespaceRelationId, kvs_catalog_get()->data_schema, 0, ShareUpdateExclusiveLock);
}

void
kvs_ddl_lock_schema_for_create(void)
{
	AclResult	result = kvs_compat_schema_aclcheck(kvs_catalog_get()->data_schema, GetUserId(), ACL_CREATE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_SCHEMA, "kvstore");
	kvs_ddl_lock_schema();
}

void
kvs_ddl_create_guard(const char *prefix, const char *name)
{
	char	   *table = psprintf("kvstore.%s%s", prefix, name);

	kvs_ddl_run_utility(psprintf("CREATE TRIGGER " KVS_GUARD_TRIGGER " BEFORE INSERT OR UPDATE OR DELETE ON %s "
								 "FOR EACH ROW EXECUTE FUNCTION kvstore.guard()", table));
	kvs_ddl_run_utility(psprintf("CREATE TRIGGER " KVS_GUARD_TRUNCATE " BEFORE TRUNCATE ON %s "
								 "FOR EACH STATEMENT EXECUTE FUNCTION kvstore.guard()", table));
	kvs_ddl_run_utility(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER " KVS_GUARD_TRIGGER ", "
								 "ENABLE ALWAYS TRIGGER " KVS_GUARD_TRUNCATE, table));
}
