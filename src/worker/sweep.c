/*
 * sweep.c
 *		Removing expired rows in the worker: step by step, a short transaction each.
 *
 * A step takes from the expiry map what is due in one table, and goes on with the pass over the
 * table if there is one.  sweepblocks.c handles the blocks.
 */
#include "postgres.h"

#include "access/relation.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "table/catalog.h"
#include "table/queuecatalog.h"
#include "table/replication.h"
#include "worker/sweep.h"
#include "worker/sweepblocks.h"
#include "worker/workerstep.h"

/*
 * Blocks that a pass over a whole table reads in one transaction; a multiple of KVS_EXPIRY_GROUP.
 */
#define PASS_BLOCKS			256

/* When to try again to forget a table that another session has locked, in milliseconds. */
#define FORGET_RETRY		5000

/* ---- Which tables ---- */

List *
kvs_sweep_list_stores(void)
{
	return list_concat(list_concat(kvs_catalog_list_tables("s_"), kvs_catalog_list_tables("p_")), kvs_queue_list());
}

/*
 * Only once nobody can have a note for it that is yet to be published, and its DROP cannot be
 * undone.
 */
void
kvs_sweep_forget_table(Oid relid)
{
	Relation	rel;
	bool		is_store;
	LOCKTAG		tag;
	LockAcquireResult result;

	/*
	 * Conflicts with every writer, and with the session that creates or drops the table.  In a
	 * manual sweep that may be our own.
	 */
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	result = LockAcquire(&tag, AccessExclusiveLock, false, true);
	if (result != LOCKACQUIRE_OK)
	{
		if (result != LOCKACQUIRE_NOT_AVAIL)
			LockRelease(&tag, AccessExclusiveLock, false);
		kvs_expirydue_put_aside(relid, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), FORGET_RETRY), false);
		return;
	}
	AcceptInvalidationMessages();
	rel = kvs_catalog_is_installed() ? try_relation_open(relid, NoLock) : NULL;
	is_store = rel != NULL && kvs_sweepblocks_is_swept(rel);
	if (rel != NULL)
		relation_close(rel, NoLock);
	if (!is_store)
		kvs_expirymap_forget_table(MyDatabaseId, relid);
	LockRelease(&tag, AccessExclusiveLock, false);
}

void
kvs_sweep_forget_others(const List *stores)
{
	Oid		   *relids = palloc(sizeof(Oid) * kvs_guc_expiry_tables);
	int			count = kvs_expirymap_list_tables(relids, kvs_guc_expiry_tables);
	List	   *sorted = list_copy(stores);
	int			n = 0;

	/* there may be thousands of both */
	list_sort(sorted, list_oid_cmp);
	qsort(relids, count, sizeof(Oid), oid_cmp);
	for (int i = 0; i < count; i++)
	{
		while (n < list_length(sorted) && list_nth_oid(sorted, n) < relids[i])
			n++;
		if (n == list_length(sorted) || list_nth_oid(sorted, n) != relids[i])
			kvs_sweep_forget_table(relids[i]);
	}
	list_free(sorted);
	pfree(relids);
}

/* ---- Steps ---- */

static TimestampTz
fail_row(void *arg, const ErrorData *error)
{
	return kvs_workerstep_fail_row(error);
}

/*
 * Triggers that are deferred run at once: the server lets none run at commit that was queued in a
 * security-restricted operation.
 */
static void
begin_step(KvsSweep *sweep, int64 limit)
{
	Oid			relid = RelationGetRelid(sweep->rel);

	kvs_sweepblocks_begin(sweep, GetCurrentTimestamp(), limit);
	if (!sweep->by_statement)
		return;
	sweep->limit = kvs_workerstep_rows(relid, limit);
	sweep->careful = kvs_workerstep_is_careful(relid);
	sweep->next_row = kvs_workerstep_next_row;
	sweep->fail_row = fail_row;
	kvs_workerstep_arm();
	SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);
}

/* A bit of a pass over the whole table.  Returns the blocks read. */
static int
continue_pass(KvsSweep *sweep, KvsExpiryTable *table)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(sweep->rel);
	BlockNumber start = kvs_expirydue_pass_block(table);
	BlockNumber block;

	if (start == InvalidBlockNumber)
	{
		kvs_expirydue_begin_pass(table);
		/* Rows added before that may be in new blocks. */
		nblocks = RelationGetNumberOfBlocks(sweep->rel);
		start = 0;
	}
	block = start;
	while (block < nblocks && block - start < PASS_BLOCKS && kvs_sweepblocks_group_of_pass(sweep, block))
		block += KVS_EXPIRY_GROUP;
	kvs_expiry_advance_pass(table, block >= nblocks ? InvalidBlockNumber : block);
	return Min(block, nblocks) - start;
}

/* There is nothing to sweep in a table of the map. */
static void
pass_over(const KvsExpiryWork *work, KvsSweepOutcome outcome)
{
	if (outcome == KVS_SWEEP_GONE)
		kvs_sweep_forget_table(work->relid);
	else if (outcome == KVS_SWEEP_REPLICATED)
		kvs_expirydue_postpone(work->table, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), KVS_REPLICATION_RETRY));
}

void
kvs_sweep_step(const KvsExpiryWork *work, int64 limit, KvsSweepResult *result)
{
	KvsSweep	sweep;
	Relation	rel = kvs_sweepblocks_open(&sweep, work->relid, &result->outcome);

	result->removed = result->pass_removed = 0;
	result->pass_blocks = 0;
	if (rel == NULL)
	{
		pass_over(work, result->outcome);
		return;
	}
	/* before any of the owner's code runs: it may not be its turn */
	if (!kvs_expirydue_check_code(work->table, rel->rd_rel->relowner, sweep.by_statement))
	{
		result->outcome = KVS_SWEEP_LOOKED;
		relation_close(rel, NoLock);
		return;
	}
	begin_step(&sweep, limit);
	kvs_expirydue_check_file(work->table, rel->rd_rel->relfilenode);
	kvs_sweepblocks_groups(&sweep, work);
	result->removed = sweep.removed;
	if (work->whole && sweep.limit > 0)
		result->pass_blocks = continue_pass(&sweep, work->table);
	result->pass_removed = sweep.removed - result->removed;
	result->removed = sweep.removed;
	kvs_sweepblocks_end(&sweep);
}

void
kvs_sweep_unmapped(KvsUnmapped *item, int64 limit, KvsSweepResult *result)
{
	KvsSweep	sweep;
	Relation	rel = kvs_sweepblocks_open(&sweep, item->relid, &result->outcome);

	result->removed = 0;
	if (rel == NULL)
		return;
	if (item->owner != rel->rd_rel->relowner || item->foreign != sweep.by_statement)
	{
		item->owner = rel->rd_rel->relowner;
		item->foreign = sweep.by_statement;
		result->outcome = KVS_SWEEP_LOOKED;
		relation_close(rel, NoLock);
		return;
	}
	begin_step(&sweep, limit);
	kvs_sweepblocks_whole(&sweep, &item->next);
	result->removed = sweep.removed;
	result->more = sweep.limit == 0;
	kvs_sweepblocks_end(&sweep);
}
