/*
 * sweephand.c
 *		Removing expired rows by hand, in the caller's transaction: kv_sweep() and kv_maintain().
 *
 * One needs DELETE on a table, else it is passed over.  A table whose trigger raises an ERROR becomes a WARNING and does not stop the others.
 * What happens to the blocks is sweepblocks.c's.
 */
#include "postgres.h"

#include "access/table.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/rel.h"

#include "chores.h"
#include "fault.h"
#include "queuecount.h"
#include "shmem.h"
#include "stats.h"
#include "subxact.h"
#include "sweep.h"
#include "sweepblocks.h"
#include "waiter.h"

/* What the map knows of a table; with "full", or without a map, all of it. */
static void
sweep_what_is_due(KvsSweep *sweep, bool full)
{
	Oid			relid = RelationGetRelid(sweep->rel);
	KvsExpiryTable *table = kvs_expiry_is_there() ? kvs_expiry_get_table(relid) : NULL;
	KvsExpiryWork *work;

	if (table == NULL)
	{
		kvs_sweep_whole(sweep);
		return;
	}
	work = palloc(sizeof(KvsExpiryWork));
	kvs_expiry_check_file(table, sweep->rel->rd_rel->relfilenode);
	while (!full && sweep->limit > 0 && kvs_expiry_find_work(relid, sweep->now, true, work))
	{
		full = work->whole;
		if (!full)
			kvs_sweep_groups(sweep, work);
	}
	pfree(work);
	if (full && sweep->limit > 0)
	{
		TimestampTz old = kvs_expiry_reset(kvs_expiry_whole(table));

		kvs_sweep_whole(sweep);
		if (sweep->limit == 0)
			kvs_expiry_lower(kvs_expiry_whole(table), old);
	}
}

/* Returns how many rows were removed. */
static int64
sweep_by_hand(Oid relid, bool full, int64 limit)
{
	KvsSweepOutcome outcome;
	Relation	rel;
	KvsSweep	sweep;
	bool		is_missing = false;

	if (pg_class_aclcheck_ext(relid, GetUserId(), ACL_DELETE, &is_missing) != ACLCHECK_OK || is_missing)
		return 0;
	rel = kvs_sweep_open(relid, &outcome);
	if (rel == NULL)
		return 0;
	kvs_sweep_begin(&sweep, rel, kvs_fault_now(), limit);
	sweep_what_is_due(&sweep, full);
	kvs_sweep_end(&sweep);
	return sweep.removed;
}

typedef struct Guarded
{
	Oid			relid;
	bool		full;
	int64		limit;
	int64		removed;
} Guarded;

static void
sweep_for(void *arg)
{
	Guarded    *guarded = arg;

	guarded->removed = sweep_by_hand(guarded->relid, guarded->full, guarded->limit);
}

static bool
is_cancel(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/* The same in a subtransaction: an ERROR, from a trigger of the table, becomes a WARNING. */
static int64
sweep_guarded(Oid relid, bool full, int64 limit)
{
	Guarded		guarded = {relid, full, limit, 0};
	ErrorData  *error = kvs_subxact_try(sweep_for, &guarded, is_cancel);

	if (error == NULL)
		return guarded.removed;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not sweep table %u: %s", relid, error->message)));
	FreeErrorData(error);
	return 0;
}

static int64
sweep_all_by_hand(bool full, int64 limit)
{
	List	   *stores = kvs_sweep_list_stores();
	int64		removed = 0;
	ListCell   *lc;

	if (full && kvs_expiry_is_there())
		kvs_sweep_forget_others(stores);
	foreach(lc, stores)
	{
		if (removed >= limit)
			break;
		CHECK_FOR_INTERRUPTS();
		removed += sweep_guarded(lfirst_oid(lc), full, limit - removed);
	}
	return removed;
}

/* ---- Queues ---- */

/* Messages settled at once. */
#define CHORES		100

/* What the worker does for a queue, in the caller's transaction; only if the caller has DELETE, and nobody has the table locked. */
static void
do_chores(void *arg)
{
	Oid			relid = *(Oid *) arg;
	bool		is_missing = false;
	Relation	rel;
	KvsQueue   *queue;

	if (pg_class_aclcheck_ext(relid, GetUserId(), ACL_DELETE, &is_missing) != ACLCHECK_OK || is_missing)
		return;
	kvs_queueslot_start_over(relid);
	kvs_waiter_wake_one_now(relid);
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		return;
	queue = kvs_queue_open_relid(relid, RowExclusiveLock, &rel);
	if (queue == NULL)
		return;
	while (!queue->replicated && kvs_chores_run(queue, rel, kvs_fault_now(), CHORES, true) > 0)
		CHECK_FOR_INTERRUPTS();
	table_close(rel, NoLock);
}

static void
do_all_chores(void)
{
	List	   *relids = kvs_queue_list();
	ListCell   *lc;

	foreach(lc, relids)
	{
		ErrorData  *error = kvs_subxact_try(do_chores, &lfirst_oid(lc), is_cancel);

		if (error == NULL)
			continue;
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not look after queue table %u: %s", lfirst_oid(lc), error->message)));
		FreeErrorData(error);
	}
}

/* ---- SQL ---- */

/* kv_sweep(max_count) returns bigint: remove up to max_count expired entries of this database (NULL: all), return how many */
PG_FUNCTION_INFO_V1(kvstore_sweep);
Datum
kvstore_sweep(PG_FUNCTION_ARGS)
{
	int64		limit = PG_ARGISNULL(0) ? PG_INT64_MAX : PG_GETARG_INT64(0);

	if (limit < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must not be negative")));
	PreventCommandIfReadOnly("kv_sweep()");
	PreventCommandDuringRecovery("kv_sweep()");
	PG_RETURN_INT64(sweep_all_by_hand(false, limit));
}

/* kv_maintain() returns bigint: read all stores, remove what has expired, return how many entries that were */
PG_FUNCTION_INFO_V1(kvstore_maintain);
Datum
kvstore_maintain(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("kv_maintain()");
	PreventCommandDuringRecovery("kv_maintain()");
	kvs_stats_forget_missing();
	kvs_queuecount_ask_all();
	if (kvs_shared != NULL)
		do_all_chores();
	PG_RETURN_INT64(sweep_all_by_hand(true, PG_INT64_MAX));
}
