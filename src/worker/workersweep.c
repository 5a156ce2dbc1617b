/*
 * workersweep.c
 *		The worker's task of removing expired rows.
 *
 * A step takes from the expiry map a table that has something due, and sweeps a bit of it in a
 * short transaction.  A table whose owner's trigger fails, or that another session has locked, is
 * backed off and does not stop the others.  First of all, and then at intervals that grow from a
 * minute to a day, all stores are due in full.  That is the safety net for what the map cannot
 * know, such as a restored dump.  A pass over a table that finds nothing reads PASS_RATE blocks a
 * second at most.  A store that the map has no room for is read whole when it is due (unmapped.c).
 * turns.c decides which of the tables that are due comes next.
 *
 * A step that removed a full batch is followed by a nap of NAP times its duration, up to NAP_MAX.
 * That leaves the machine to others.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/stats.h"
#include "base/trouble.h"
#include "expiry/expiry.h"
#include "expiry/turns.h"
#include "table/replication.h"
#include "worker/sweep.h"
#include "worker/unmapped.h"
#include "worker/workerprocess.h"
#include "worker/workerstep.h"
#include "worker/workersweep.h"

/* In milliseconds. */
#define NAP_MAX			10
#define FULL_RETRY		5000	/* when looking for stores failed */

/* By how much a nap is longer than the step before it. */
#define NAP				5

/*
 * Blocks a second that passes read as long as they find nothing; so many milliseconds' worth of
 * them at once.
 */
#define PASS_RATE		800
#define PASS_AT_ONCE	250

/* What happened since there was nothing to do. */
typedef struct Busy
{
	TimestampTz since;
	int64		removed;
	int			batches;
} Busy;

static int64 pass_after = 0;	/* no pass before; by a clock that nobody sets, in microseconds */
static Busy busy;

static int64
read_steady_clock(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}

static void
count_batch(TimestampTz start, Oid relid, int64 removed)
{
	if (busy.batches == 0)
		busy.since = start;
	busy.batches++;
	busy.removed += removed;
	if (removed > 0)
		ereport(DEBUG1,
				(errmsg_internal("kvstore: removed %lld expired entries of table %u in %ld ms",
								 (long long) removed, relid,
								 TimestampDifferenceMilliseconds(start, GetCurrentTimestamp()))));
}

/* ---- All stores ---- */

/* Each store is due in full. */
static void
begin_full_pass(void)
{
	List	   *stores;
	ListCell   *lc;

	kvs_workerprocess_begin("looking for stores");
	kvs_unmapped_invalidate();
	stores = kvs_sweep_list_stores();
	kvs_sweep_forget_others(stores);
	kvs_stats_forget_missing();
	kvs_trouble_forget_missing();
	foreach(lc, stores)
	{
		KvsExpiryTable *table = kvs_expirymap_get_table(lfirst_oid(lc));

		kvs_expiry_lower(table ? kvs_expirymap_whole(table) : kvs_expirymap_unmapped(lfirst_oid(lc)), DT_NOBEGIN);
	}
	kvs_workerprocess_commit();
}

static void
check_full_pass(void)
{
	KvsExpirySlot *slot = kvs_expirymap_database();
	TimestampTz now = GetCurrentTimestamp();

	if ((TimestampTz) pg_atomic_read_u64(slot) > now)
		return;
	kvs_expirydue_take(slot);
	PG_TRY();
	{
		begin_full_pass();
		kvs_expiry_lower(slot, TimestampTzPlusMilliseconds(now, kvs_expirydue_next_delay()));
	}
	PG_CATCH();
	{
		kvs_workerprocess_recover();
		kvs_expiry_lower(slot, TimestampTzPlusMilliseconds(now, FULL_RETRY));
	}
	PG_END_TRY();
	kvs_expirydue_done();
}

/* ---- One step ---- */

static void
sweep_mapped(const KvsExpiryWork *work, KvsSweepResult *result)
{
	PG_TRY();
	{
		kvs_workerstep_begin(work->relid, "sweeping expired entries");
		kvs_sweep_step(work, kvs_guc_sweep_batch, result);
		kvs_workerstep_commit(result->outcome == KVS_SWEEP_DONE);
		if (result->outcome == KVS_SWEEP_LOCKED)
			kvs_expirydue_put_aside(work->relid, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), KVS_EXPIRY_RETRY), false);
		else if (result->outcome == KVS_SWEEP_DONE)
			kvs_expirydue_done_well(work->table);
	}
	PG_CATCH();
	{
		kvs_workerstep_recover();
		memset(result, 0, sizeof(KvsSweepResult));
	}
	PG_END_TRY();
}

/*
 * A step has ended with this.  Returns when to look at the store again; DT_NOBEGIN: at its next
 * turn.
 */
static TimestampTz
look_again(const KvsSweepResult *result, TimestampTz now)
{
	switch (result->outcome)
	{
		case KVS_SWEEP_LOCKED:
			return TimestampTzPlusMilliseconds(now, KVS_EXPIRY_RETRY);
		case KVS_SWEEP_REPLICATED:
			return TimestampTzPlusMilliseconds(now, KVS_REPLICATION_RETRY);
		case KVS_SWEEP_LOOKED:
			return DT_NOBEGIN;
		default:
			return result->more ? DT_NOBEGIN : DT_NOEND;
	}
}

/*
 * A batch of a store that the map has no room for; what is left there was noted in its slot, or it
 * stays due.
 */
static void
sweep_unmapped(KvsUnmapped *item, TimestampTz now, KvsSweepResult *result)
{
	volatile TimestampTz until = kvs_workerstep_aside_until(item->relid);

	if (until <= now)
	{
		PG_TRY();
		{
			kvs_workerstep_begin(item->relid, "sweeping expired entries");
			kvs_sweep_unmapped(item, kvs_guc_sweep_batch, result);
			kvs_workerstep_commit(result->outcome == KVS_SWEEP_DONE);
			until = look_again(result, now);
			item->troubled &= result->outcome != KVS_SWEEP_DONE;
		}
		PG_CATCH();
		{
			until = kvs_workerstep_recover();
			item->troubled = true;
			memset(result, 0, sizeof(KvsSweepResult));
		}
		PG_END_TRY();
	}
	item->due = until == DT_NOBEGIN;
	if (!item->due)
		kvs_unmapped_lower(item, until);
	item->served = kvs_turns_next();
	kvs_turns_charge(item->owner, now);
}

/* After a batch: leave the machine to others for a moment, or the pass until it may go on. */
static void
rest(const KvsSweepResult *result, TimestampTz start)
{
	if (result->removed >= kvs_guc_sweep_batch)
		kvs_workerprocess_wait(Min(NAP * TimestampDifferenceMilliseconds(start, GetCurrentTimestamp()), NAP_MAX));
	else if (result->pass_removed == 0)
		pass_after = Max(pass_after, read_steady_clock() - PASS_AT_ONCE * 1000) + result->pass_blocks * (USECS_PER_SEC / PASS_RATE);
}

static bool
sweep_step(void)
{
	static KvsExpiryWork work;

	KvsSweepResult result = {0};
	KvsUnmapped *unmapped;
	KvsTurn		turn;
	TimestampTz start;
	bool		mapped;

	check_full_pass();
	start = GetCurrentTimestamp();
	unmapped = kvs_unmapped_find(start, &turn);
	mapped = kvs_expirydue_find_work(InvalidOid, start, read_steady_clock() >= pass_after, &work);
	if (!mapped && unmapped == NULL)
		return false;
	if (mapped && (unmapped == NULL || kvs_turns_precedes(&work.turn, &turn)))
	{
		sweep_mapped(&work, &result);
		kvs_expirydue_end_turn(work.table, start);
		count_batch(start, work.relid, result.removed);
	}
	else
	{
		sweep_unmapped(unmapped, start, &result);
		count_batch(start, unmapped->relid, result.removed);
	}
	rest(&result, start);
	return true;
}

/* A pass that may not go on yet is not due. */
static TimestampTz
sweep_next(Oid except)
{
	TimestampTz next = kvs_expirydue_next(except);
	TimestampTz now = GetCurrentTimestamp();

	if (kvs_unmapped_is_due(except))
		return DT_NOBEGIN;
	return next <= now ? Max(next, now + pass_after - read_steady_clock()) : next;
}

/* Tell what it took until nothing was due any more. */
static void
sweep_idle(void)
{
	if (busy.removed > 0 && kvs_guc_log_sweep >= 0 && busy.removed >= kvs_guc_log_sweep)
	{
		kvs_workerprocess_begin("logging");
		ereport(LOG,
				(errmsg("kvstore: removed %lld expired entries of database \"%s\" in %ld ms, %d transactions",
						(long long) busy.removed, get_database_name(MyDatabaseId),
						TimestampDifferenceMilliseconds(busy.since, GetCurrentTimestamp()), busy.batches)));
		kvs_workerprocess_commit();
	}
	memset(&busy, 0, sizeof(busy));
}

const KvsWorkerTask kvs_workersweep_task = {sweep_step, sweep_next, sweep_idle};
