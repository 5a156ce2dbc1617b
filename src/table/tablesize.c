/*
 * tablesize.c
 *		How large a table is, without waiting for anybody.
 *
 * pg_total_relation_size() waits for whoever has locked the table or an index, such as ALTER TABLE
 * or VACUUM FULL.  A view of all stores must not hang because of one of them.
 */
#include "postgres.h"

#include "access/relation.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/smgr.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "base/compat.h"

static int64
size_of_forks(Relation rel)
{
	int64		size = 0;

	for (ForkNumber fork = MAIN_FORKNUM; fork <= INIT_FORKNUM; fork++)
		if (smgrexists(RelationGetSmgr(rel), fork))
			size += (int64) BLCKSZ * smgrnblocks(RelationGetSmgr(rel), fork);
	return size;
}

/* With its indexes and its TOAST table; false: somebody has locked a part of it, or it is gone. */
static bool
add_size_of(Oid relid, int64 *size)
{
	Relation	rel;
	List	   *parts;
	ListCell   *lc;
	bool		result = true;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL || !RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
		result = false;
	else
	{
		*size += size_of_forks(rel);
		parts = rel->rd_rel->relkind == RELKIND_INDEX ? NIL : RelationGetIndexList(rel);
		if (OidIsValid(rel->rd_rel->reltoastrelid))
			parts = lappend_oid(parts, rel->rd_rel->reltoastrelid);
		foreach(lc, parts)
			result = result && add_size_of(lfirst_oid(lc), size);
		list_free(parts);
	}
	if (rel != NULL)
		relation_close(rel, NoLock);
	UnlockRelationOid(relid, AccessShareLock);
	return result;
}

/* kvstore.table_bytes(relid oid) returns bigint: NULL if it is locked just now, or gone */
PG_FUNCTION_INFO_V1(kvstore_table_bytes);
Datum
kvstore_table_bytes(PG_FUNCTION_ARGS)
{
	int64		size = 0;

	if (PG_ARGISNULL(0) || !add_size_of(PG_GETARG_OID(0), &size))
		PG_RETURN_NULL();
	PG_RETURN_INT64(size);
}
