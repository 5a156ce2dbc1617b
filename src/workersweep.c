/*
 * workersweep.c
 *		The worker's task of removing expired rows.
 *
 * A step takes from the expiry map a table that has something due, and sweeps a bit of it in a short transaction.  A table whose owner's trigger
 * fails, or that somebody has locked, is put aside and does not stop the others.  First of all, and then at intervals that grow from a minute to a
 * day, all stores are due in full: that is the safety net for what the map cannot know, such as a restored dump.  A pass over a table that finds
 * nothing reads PASS_RATE blocks a second at most.  A store that the map has no room for shares a due time with the few that have the same hash, and
 * is read whole when it comes.
 *
 * A step that removed a full batch is followed by a nap of NAP times what it took, up to NAP_MAX, which leaves the machine to others.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "expiry.h"
#include "guc.h"
#include "replication.h"
#include "stats.h"
#include "sweep.h"
#include "trouble.h"
#include "workerprocess.h"
#include "workerstep.h"
#include "workersweep.h"

/* In milliseconds. */
#define NAP_MAX			10
#define FULL_RETRY		5000	/* when looking for stores failed */

/* By how much a nap is longer than the step before it. */
#define NAP				5

/* Blocks a second that passes read as long as they find nothing; so many milliseconds' worth of them at once. */
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

/* The stores that the map has no room for. */
static List *unmapped = NIL;
static bool unmapped_valid = false; /* no table has come or gone since */

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

static void
pg_class_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	unmapped_valid = false;
}

/* Bring the list up to date, of the stores that the map has no room for. */
static void
list_unmapped(void)
{
	static bool registered = false;

	List	   *stores;
	MemoryContext old;
	ListCell   *lc;

	if (unmapped_valid)
		return;
	if (!registered)
		CacheRegisterSyscacheCallback(RELOID, pg_class_callback, (Datum) 0);
	registered = true;
	kvs_workerprocess_begin("looking for stores");
	/* Flag first: a change that comes while we look must not be lost. */
	unmapped_valid = true;
	stores = kvs_sweep_list_stores();
	list_free(unmapped);
	unmapped = NIL;
	old = MemoryContextSwitchTo(TopMemoryContext);
	foreach(lc, stores)
		if (kvs_expiry_get_table(lfirst_oid(lc)) == NULL)
			unmapped = lappend_oid(unmapped, lfirst_oid(lc));
	MemoryContextSwitchTo(old);
	kvs_workerprocess_commit();
}

/* Each store is due in full. */
static void
begin_full_pass(void)
{
	List	   *stores;
	ListCell   *lc;

	kvs_workerprocess_begin("looking for stores");
	unmapped_valid = false;
	stores = kvs_sweep_list_stores();
	kvs_sweep_forget_others(stores);
	kvs_stats_forget_missing();
	kvs_trouble_forget_missing();
	foreach(lc, stores)
	{
		KvsExpiryTable *table = kvs_expiry_get_table(lfirst_oid(lc));

		kvs_expiry_lower(table ? kvs_expiry_whole(table) : kvs_expiry_unmapped(lfirst_oid(lc)), DT_NOBEGIN);
	}
	kvs_workerprocess_commit();
}

static void
check_full_pass(void)
{
	KvsExpirySlot *slot = kvs_expiry_database();
	TimestampTz now = GetCurrentTimestamp();

	if ((TimestampTz) pg_atomic_read_u64(slot) > now)
		return;
	kvs_expiry_take(slot);
	PG_TRY();
	{
		begin_full_pass();
		kvs_expiry_lower(slot, TimestampTzPlusMilliseconds(now, kvs_expiry_next_delay()));
	}
	PG_CATCH();
	{
		kvs_workerprocess_recover();
		kvs_expiry_lower(slot, TimestampTzPlusMilliseconds(now, FULL_RETRY));
	}
	PG_END_TRY();
	kvs_expiry_done();
}

/*
 * Sweep a batch of a store that the map has no room for; what is left there is noted in its slot.  Returns
 * whether to go on.
 */
static bool
sweep_unmapped(Oid relid)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = kvs_workerstep_aside_until(relid);
	KvsSweepResult result = {0};

	if (until > now)
	{
		kvs_expiry_lower(kvs_expiry_unmapped(relid), until);
		return false;
	}
	PG_TRY();
	{
		kvs_workerstep_begin(relid, "sweeping expired entries");
		kvs_sweep_table(relid, kvs_guc_sweep_batch, &result);
		kvs_workerstep_commit(result.outcome == KVS_SWEEP_DONE);
		if (result.outcome == KVS_SWEEP_LOCKED)
			kvs_expiry_lower(kvs_expiry_unmapped(relid), TimestampTzPlusMilliseconds(now, KVS_EXPIRY_RETRY));
		else if (result.outcome == KVS_SWEEP_REPLICATED)
			kvs_expiry_lower(kvs_expiry_unmapped(relid), TimestampTzPlusMilliseconds(now, KVS_REPLICATION_RETRY));
	}
	PG_CATCH();
	{
		kvs_expiry_lower(kvs_expiry_unmapped(relid), kvs_workerstep_recover());
		memset(&result, 0, sizeof(result));
	}
	PG_END_TRY();
	count_batch(now, relid, result.removed);
	return result.more;
}

/* The stores that share this slot, one after the other, each in full.  False: no slot is due. */
static bool
check_unmapped(void)
{
	KvsExpirySlot *slot = kvs_expiry_find_unmapped(GetCurrentTimestamp());
	ListCell   *lc;

	if (slot == NULL)
		return false;
	kvs_expiry_take(slot);
	list_unmapped();
	foreach(lc, unmapped)
	{
		if (!kvs_expiry_is_unmapped_in(lfirst_oid(lc), slot))
			continue;
		while (!kvs_workerprocess_is_in_the_way() && sweep_unmapped(lfirst_oid(lc)))
			;
	}
	if (kvs_workerprocess_is_in_the_way())
		kvs_expiry_lower(slot, DT_NOBEGIN);
	kvs_expiry_done();
	return true;
}

/* ---- One step ---- */

static void
sweep_bit(const KvsExpiryWork *work, KvsSweepResult *result)
{
	PG_TRY();
	{
		kvs_workerstep_begin(work->relid, "sweeping expired entries");
		kvs_sweep_step(work, kvs_guc_sweep_batch, result);
		kvs_workerstep_commit(result->outcome == KVS_SWEEP_DONE);
		if (result->outcome == KVS_SWEEP_LOCKED)
			kvs_expiry_put_aside(work->relid, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), KVS_EXPIRY_RETRY), false);
		else if (result->outcome == KVS_SWEEP_DONE)
			kvs_expiry_done_well(work->table);
	}
	PG_CATCH();
	{
		kvs_workerstep_recover();
		memset(result, 0, sizeof(KvsSweepResult));
	}
	PG_END_TRY();
}

static bool
sweep_step(void)
{
	static KvsExpiryWork work;

	TimestampTz start;
	KvsSweepResult result = {0};
	bool		any;

	check_full_pass();
	any = check_unmapped();
	start = GetCurrentTimestamp();
	if (!kvs_expiry_find_work(InvalidOid, start, read_steady_clock() >= pass_after, &work))
		return any;
	sweep_bit(&work, &result);
	count_batch(start, work.relid, result.removed);
	if (result.removed >= kvs_guc_sweep_batch)
		kvs_workerprocess_wait(Min(NAP * TimestampDifferenceMilliseconds(start, GetCurrentTimestamp()), NAP_MAX));
	else if (result.pass_removed == 0)
		pass_after = Max(pass_after, read_steady_clock() - PASS_AT_ONCE * 1000) + result.pass_blocks * (USECS_PER_SEC / PASS_RATE);
	return true;
}

/* A pass that may not go on yet is not due. */
static TimestampTz
sweep_next(Oid except)
{
	TimestampTz next = kvs_expiry_next(except);
	TimestampTz now = GetCurrentTimestamp();

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
