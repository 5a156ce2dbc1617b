/*
 * sweepmanual.c
 *		Manual sweeps: removing expired rows in the caller's transaction, by kv_sweep() and
 *		kv_maintain().
 *
 * The caller needs DELETE on a table, else it is passed over.  An error over a table becomes a
 * WARNING and does not stop the others.
 *
 * Tables that run no code of their owner's come first.  The others are swept in steps
 * (manualstep.c), so that what was done before a trigger took too long stays.  After OWNER_STEPS
 * times kvstore.step_timeout an owner's tables are passed over, unless that is the caller.  An
 * owner of many slow tables must not hold up all others.
 *
 * sweepblocks.c handles the blocks.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/guc.h"
#include "base/rights.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "base/subxact.h"
#include "base/trouble.h"
#include "feed/waiter.h"
#include "lease/queuecount.h"
#include "worker/chores.h"
#include "worker/manualstep.h"
#include "worker/sweep.h"
#include "worker/sweepblocks.h"

/* The time that the tables of an owner may take in a call, in multiples of kvstore.step_timeout. */
#define OWNER_STEPS		6

/* A table in a manual sweep. */
typedef struct ManualSweep
{
	Oid			relid;
	bool		full;
	int64		limit;
	/* run code of its owner's; if there is some and this is not set, the step only sets it */
	bool		foreign;
	bool		careful;		/* rows have failed before */
	Oid			owner;
	char		name[NAMEDATALEN];
	int64		removed;		/* by the last step */
	bool		more;			/* it ended at its limit */
	int64		failed_rows;	/* in it */
	char		message[256];	/* why the first of them did */
	int			sqlstate;
} ManualSweep;

/* A row has failed; the step goes on, unless it is cancelled. */
static TimestampTz
fail_row(void *arg, const ErrorData *error)
{
	ManualSweep  *manual = arg;

	if (kvs_manualstep_is_cancelled())
		ReThrowError(unconstify(ErrorData *, error));
	if (manual->failed_rows++ == 0)
	{
		strlcpy(manual->message, error->message, sizeof(manual->message));
		manual->sqlstate = error->sqlerrcode;
	}
	/* the worker, if there is one, tries it again */
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), KVS_EXPIRY_RETRY);
}

/* What the map knows of a table; with "full", or without a map, all of it. */
static void
sweep_what_is_due(KvsSweep *sweep, bool full)
{
	/* where the last call of this session reached its limit */
	static Oid	last_relid = InvalidOid;
	static BlockNumber next = 0;

	Oid			relid = RelationGetRelid(sweep->rel);
	KvsExpiryTable *table = kvs_expiry_is_there() ? kvs_expirymap_get_table(relid) : NULL;
	KvsExpiryWork *work;

	if (relid != last_relid)
		next = 0;
	last_relid = relid;
	if (table == NULL)
	{
		kvs_sweepblocks_whole(sweep, &next);
		return;
	}
	work = palloc(sizeof(KvsExpiryWork));
	kvs_expirydue_check_file(table, sweep->rel->rd_rel->relfilenode);
	while (!full && sweep->limit > 0 && kvs_expirydue_find_work(relid, sweep->now, true, work))
	{
		full = work->whole;
		if (!full)
			kvs_sweepblocks_groups(sweep, work);
	}
	pfree(work);
	if (full && sweep->limit > 0)
	{
		TimestampTz old = kvs_expiry_reset(kvs_expirymap_whole(table));

		kvs_sweepblocks_whole(sweep, &next);
		if (sweep->limit == 0)
			kvs_expiry_lower(kvs_expirymap_whole(table), old);
	}
}

/* A step, in a subtransaction. */
static void
sweep_in_step(void *arg)
{
	ManualSweep  *manual = arg;
	KvsSweepOutcome outcome;
	KvsSweep	sweep;
	Relation	rel;

	manual->removed = 0;
	manual->more = false;
	manual->failed_rows = 0;
	rel = kvs_rights_has(manual->relid, ACL_DELETE) ? kvs_sweepblocks_open(&sweep, manual->relid, &outcome) : NULL;
	if (rel == NULL)
		return;
	manual->owner = rel->rd_rel->relowner;
	strlcpy(manual->name, RelationGetRelationName(rel), NAMEDATALEN);
	if (sweep.by_statement && !manual->foreign)
	{
		manual->foreign = true;
		relation_close(rel, NoLock);
		return;
	}
	sweep.careful = manual->careful;
	sweep.next_row = kvs_manualstep_next_row;
	sweep.fail_row = fail_row;
	sweep.fail_arg = manual;
	kvs_sweepblocks_begin(&sweep, kvs_fault_now(), manual->limit);
	sweep_what_is_due(&sweep, manual->full);
	manual->removed = sweep.removed;
	manual->more = sweep.limit == 0;
	kvs_sweepblocks_end(&sweep);
}

static void
warn(const ManualSweep *manual, int sqlerrcode, const char *message)
{
	ereport(WARNING,
			(errcode(sqlerrcode),
			 errmsg("could not sweep table \"%s\": %s", manual->name, message),
			 errhint("Its owner should mend the triggers on it, or the foreign keys that reference it. The other expired rows were removed.")));
}

/* The step was cancelled; what the steps before it removed stays. */
static void
warn_slow(const ManualSweep *manual, const char *what)
{
	ereport(WARNING,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("could not sweep table \"%s\": %s", manual->name, what),
			 errhint("Its owner should mend the triggers on it.  For triggers that need so long, raise kvstore.step_timeout and call the function again.")));
}

/*
 * One step over a table with foreign code.  False: there is no further one.  If a step fails as a
 * whole, it is repeated with a subtransaction for each row; what fails then has its own WARNING.
 */
static bool
sweep_foreign_step(ManualSweep *manual)
{
	ErrorData  *error = kvs_manualstep_try(sweep_in_step, manual);
	bool		again = error == NULL ? manual->more && manual->removed > 0 : !manual->careful;

	if (error != NULL)
		manual->removed = 0;
	if (kvs_manualstep_took_too_long())
	{
		again = false;
		warn_slow(manual, "it took longer than kvstore.step_timeout");
	}
	else if (error != NULL && manual->careful)
		warn(manual, error->sqlerrcode, error->message);
	else if (error == NULL && manual->failed_rows > 0)
		warn(manual, manual->sqlstate, psprintf("%s (%lld of its rows)", manual->message, (long long) manual->failed_rows));
	if (error != NULL)
	{
		manual->careful = true;
		FreeErrorData(error);
	}
	return again;
}

/* The time that an owner's tables have taken. */
typedef struct Spent
{
	Oid			owner;
	int64		time;			/* microseconds */
} Spent;

static Spent *
get_spent(List **all, Oid owner)
{
	Spent	   *spent;
	ListCell   *lc;

	foreach(lc, *all)
		if (((Spent *) lfirst(lc))->owner == owner)
			return lfirst(lc);
	spent = palloc0(sizeof(Spent));
	spent->owner = owner;
	*all = lappend(*all, spent);
	return spent;
}

/* Has an owner, not the caller, had more than their share? */
static bool
is_spent(const Spent *spent)
{
	return spent->time > (int64) OWNER_STEPS * kvs_guc_step_timeout * 1000 && spent->owner != GetUserId();
}

/* Returns how many rows were removed. */
static int64
sweep_foreign(ManualSweep *manual, int64 limit, List **all)
{
	Spent	   *spent = get_spent(all, manual->owner);
	int64		removed = 0;
	bool		more = true;

	if (kvs_trouble_is_slow(manual->relid) && manual->owner != GetUserId())
	{
		warn_slow(manual, "the worker has set it aside, for it took longer than kvstore.step_timeout");
		return 0;
	}
	while (more && removed < limit)
	{
		TimestampTz start = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		if (is_spent(spent))
		{
			warn_slow(manual, "the tables of its owner have taken too long");
			break;
		}
		manual->limit = limit - removed;
		more = sweep_foreign_step(manual);
		removed += manual->removed;
		spent->time += GetCurrentTimestamp() - start;
	}
	return removed;
}

static bool
is_cancel(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/* A table whose code is not known.  Without any it is swept, and NULL is returned. */
static ManualSweep *
sweep_plain(Oid relid, bool full, int64 limit, int64 *removed)
{
	ManualSweep  *manual = palloc0(sizeof(ManualSweep));
	ErrorData  *error;

	manual->relid = relid;
	manual->full = full;
	manual->limit = limit;
	snprintf(manual->name, NAMEDATALEN, "%u", relid);
	/* no code of an owner's runs, so a cancel is the caller's, and a large table may take long */
	error = kvs_subxact_try(sweep_in_step, manual, is_cancel);
	if (error != NULL)
		warn(manual, error->sqlerrcode, error->message);
	else if (manual->foreign)
		return manual;
	else
		*removed += manual->removed;
	pfree(manual);
	return NULL;
}

static int64
sweep_all(bool full, int64 limit)
{
	List	   *stores = kvs_sweep_list_stores();
	List	   *foreign = NIL;
	List	   *spent = NIL;
	int64		removed = 0;
	ListCell   *lc;

	if (full && kvs_expiry_is_there())
		kvs_sweep_forget_others(stores);
	foreach(lc, stores)
	{
		ManualSweep  *manual;

		if (removed >= limit)
			break;
		CHECK_FOR_INTERRUPTS();
		manual = sweep_plain(lfirst_oid(lc), full, limit - removed, &removed);
		if (manual != NULL)
			foreign = lappend(foreign, manual);
	}
	foreach(lc, foreign)
		removed += sweep_foreign(lfirst(lc), limit - removed, &spent);
	return removed;
}

/* ---- Queues ---- */

/* Messages settled at once. */
#define CHORES		100

/* A queue in a manual step. */
typedef struct ManualChores
{
	Oid			relid;
	Oid			owner;
	int			limit;			/* messages in a step */
	int			count;			/* settled in it */
} ManualChores;

/*
 * A batch of the worker's chores for a queue; only if the caller has DELETE, and nobody has the
 * table locked.
 */
static void
do_chores(void *arg)
{
	ManualChores *manual = arg;
	Relation	rel;
	KvsQueue   *queue;

	manual->count = 0;
	if (!kvs_rights_has(manual->relid, ACL_DELETE) || !ConditionalLockRelationOid(manual->relid, RowExclusiveLock))
		return;
	queue = kvs_queue_open_relid(manual->relid, RowExclusiveLock, &rel);
	if (queue == NULL)
		return;
	manual->owner = rel->rd_rel->relowner;
	if (!queue->replicated)
		manual->count = kvs_chores_run(queue, rel, kvs_fault_now(), manual->limit, true);
	table_close(rel, NoLock);
}

static void
warn_queue(const ManualChores *manual, int sqlerrcode, const char *message)
{
	ereport(WARNING,
			(errcode(sqlerrcode),
			 errmsg("could not look after queue table %u: %s", manual->relid, message),
			 errhint("The owners of the queue and of the stores that its messages write should mend the triggers there.")));
}

/*
 * One batch.  False: there is no further one.  If it takes too long, its messages are tried again
 * one by one, so that the others get past the slow one.
 */
static bool
do_chores_step(ManualChores *manual)
{
	ErrorData  *error = kvs_manualstep_try(do_chores, manual);
	bool		slow = kvs_manualstep_took_too_long();
	bool		single = manual->limit == 1;

	if (slow)
		manual->limit = 1;
	if (slow && single)
		warn_queue(manual, ERRCODE_QUERY_CANCELED, "a message took longer than kvstore.step_timeout");
	else if (error != NULL && !slow)
		warn_queue(manual, error->sqlerrcode, error->message);
	if (error == NULL)
		return manual->count > 0;
	FreeErrorData(error);
	return slow;
}

static void
do_all_chores(void)
{
	List	   *relids = kvs_queue_list();
	List	   *spent = NIL;
	ListCell   *lc;

	foreach(lc, relids)
	{
		ManualChores	manual = {.relid = lfirst_oid(lc), .limit = CHORES};
		bool		more = kvs_rights_has(manual.relid, ACL_DELETE);

		if (more)
		{
			kvs_queueslot_start_over(manual.relid);
			kvs_waiter_wake_one_now(manual.relid);
		}
		while (more)
		{
			TimestampTz start = GetCurrentTimestamp();
			Spent	   *owner;

			CHECK_FOR_INTERRUPTS();
			more = do_chores_step(&manual);
			owner = get_spent(&spent, manual.owner);
			owner->time += GetCurrentTimestamp() - start;
			if (more && is_spent(owner))
			{
				warn_queue(&manual, ERRCODE_QUERY_CANCELED, "the queues of its owner have taken too long");
				more = false;
			}
		}
	}
}

/* ---- SQL ---- */

/*
 * kv_sweep(max_count) returns bigint: remove up to max_count expired entries of this database
 * (NULL: all), return how many
 */
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
	PG_RETURN_INT64(sweep_all(false, limit));
}

/*
 * kv_maintain() returns bigint: read all stores, remove what has expired, return how many entries
 * that were
 */
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
	PG_RETURN_INT64(sweep_all(true, PG_INT64_MAX));
}
