/*
 * worker.c
 *		The worker of one database: sweeps what is due, and leaves when there is nothing to do.
 *
 * It takes from the expiry map a table that has something due, sweeps a bit of it in a short transaction, and asks again.  A table whose owner's trigger
 * fails, or that somebody has locked, is put aside and does not stop the others.  First of all, and then at intervals that grow from a minute to a
 * day, all stores are due in full: that is the safety net for what the map cannot know, such as a restored dump.  A pass over a table that finds
 * nothing reads PASS_RATE blocks a second at most.
 *
 * Two things make it leave: nothing is due for LINGER, or somebody wants the database for himself.  DROP DATABASE and CREATE DATABASE ... TEMPLATE
 * hold a lock on the database, and wait only 5 s for those who are connected; so before each step we try that lock.  A launcher that has no
 * room for another database asks us to leave, too.
 *
 * Removing is idempotent, so nobody waits for its WAL: synchronous_commit is off here.  A step that removed a full batch is followed by a nap as long as
 * it took, up to NAP_MAX, which leaves a core half to the others.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "expiry.h"
#include "guc.h"
#include "launcher.h"
#include "sweep.h"
#include "worker.h"

/* All in milliseconds. */
#define SWEEP_PAUSE		250		/* at least between two looks at the map: what is due meanwhile is one transaction */
#define LINGER			5000	/* leave when nothing is due for so long */
#define POLL			1000	/* see at least so often whether somebody wants the database */
#define NAP_MAX			20
#define SHARE			1000	/* leave after so long when other databases wait for a worker */

/* Blocks a second that passes read as long as they find nothing. */
#define PASS_RATE		1000

/* What happened since there was nothing to do. */
typedef struct Busy
{
	TimestampTz since;
	int64		removed;
	int			batches;
} Busy;

static TimestampTz pass_after = DT_NOBEGIN; /* no pass before */
static Busy busy;
static MemoryContext step_context;
static KvsWorkerEnd ending = KVS_WORKER_FAILED;

/* ---- Coming and going ---- */

static void
before_exit(int code, Datum arg)
{
	kvs_expiry_worker_leaves(ending == KVS_WORKER_FAILED);
	kvs_launcher_worker_leaves(ending);
}

/* What the configuration says for users does not hold for us. */
static void
set_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", ""},
		{"synchronous_commit", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* Does DROP DATABASE, CREATE DATABASE ... TEMPLATE or the like wait for us to go? */
static bool
database_is_wanted(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, RowExclusiveLock, true);
	return false;
}

static void
handle_signals(void)
{
	/* Outside a transaction there is nothing to say: the postmaster logs that we have gone. */
	if (ProcDiePending)
		proc_exit(1);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

static void
wait_for(long timeout)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
					 kvs_compat_wait_event("KvstoreWorker"));
	ResetLatch(MyLatch);
	handle_signals();
}

/* ---- Transactions ---- */

static void
begin_transaction(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, activity);
	MemoryContextSwitchTo(step_context);
}

static void
commit_transaction(void)
{
	CommitTransactionCommand();
	MemoryContextReset(step_context);
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* An ERROR in what we did to a table (InvalidOid: to the database).  It is logged once a minute. */
static void
recover(Oid relid)
{
	TimestampTz now = GetCurrentTimestamp();

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(step_context);
	if (kvs_expiry_may_log(now))
	{
		errcontext("kvstore worker, table %u", relid);
		EmitErrorReport();
	}
	AbortOutOfAnyTransaction();
	FlushErrorState();
	MemoryContextReset(step_context);
	if (OidIsValid(relid))
		kvs_expiry_put_aside(relid, now, true);
	pgstat_report_activity(STATE_IDLE, NULL);
	RESUME_INTERRUPTS();
}

/* ---- All stores ---- */

/* A store that the map has no room for: sweep it now, as far as it goes. */
static void
sweep_unmapped(Oid relid)
{
	KvsSweepResult result;

	do
	{
		handle_signals();
		begin_transaction("sweeping expired entries");
		kvs_sweep_table(relid, kvs_guc_sweep_batch, &result);
		commit_transaction();
		busy.removed += result.removed;
	} while (result.removed >= kvs_guc_sweep_batch && !database_is_wanted());
}

/* The map forgets what is no store any more; else its slots would wait until they are due. */
static void
forget_others(const List *stores)
{
	Oid		   *relids = palloc(sizeof(Oid) * KVS_EXPIRY_TABLES);
	int			count = kvs_expiry_list_tables(relids, KVS_EXPIRY_TABLES);

	for (int i = 0; i < count; i++)
		if (!list_member_oid(stores, relids[i]))
			kvs_sweep_forget_table(relids[i]);
}

/* Each store is due in full. */
static void
begin_full_pass(void)
{
	MemoryContext old;
	List	   *stores;
	List	   *unmapped = NIL;
	ListCell   *lc;

	begin_transaction("looking for stores");
	stores = kvs_sweep_list_stores();
	forget_others(stores);
	foreach(lc, stores)
	{
		KvsExpiryTable *table = kvs_expiry_get_table(lfirst_oid(lc));

		if (table != NULL)
			kvs_expiry_lower(kvs_expiry_whole(table), DT_NOBEGIN);
		else
		{
			old = MemoryContextSwitchTo(TopMemoryContext);
			unmapped = lappend_oid(unmapped, lfirst_oid(lc));
			MemoryContextSwitchTo(old);
		}
	}
	commit_transaction();

	foreach(lc, unmapped)
		sweep_unmapped(lfirst_oid(lc));
	list_free(unmapped);
}

/* If the database is due in full, begin with that. */
static void
check_full_pass(void)
{
	KvsExpirySlot *slot = kvs_expiry_database();
	TimestampTz now = GetCurrentTimestamp();

	if ((TimestampTz) pg_atomic_read_u64(slot) > now)
		return;
	pg_atomic_exchange_u64(slot, (uint64) DT_NOEND);
	PG_TRY();
	{
		begin_full_pass();
		kvs_expiry_lower(slot, TimestampTzPlusMilliseconds(now, kvs_expiry_next_delay()));
	}
	PG_CATCH();
	{
		recover(InvalidOid);
		kvs_expiry_lower(slot, TimestampTzPlusMilliseconds(now, LINGER));
	}
	PG_END_TRY();
}

/* ---- One step ---- */

static void
run_step(const KvsExpiryWork *work, KvsSweepResult *result)
{
	begin_transaction("sweeping expired entries");
	kvs_sweep_step(work, kvs_guc_sweep_batch, result);
	commit_transaction();
	if (result->outcome == KVS_SWEEP_LOCKED)
		kvs_expiry_put_aside(work->relid, GetCurrentTimestamp(), false);
	else if (result->outcome == KVS_SWEEP_DONE)
		kvs_expiry_done_well(work->table);
}

/* Sweep a bit of one table.  False: nothing is due. */
static bool
do_step(void)
{
	static KvsExpiryWork work;

	TimestampTz start = GetCurrentTimestamp();
	KvsSweepResult result = {0};
	long		took;

	if (!kvs_expiry_find_work(InvalidOid, start, start >= pass_after, &work))
		return false;
	PG_TRY();
	{
		run_step(&work, &result);
	}
	PG_CATCH();
	{
		recover(work.relid);
		memset(&result, 0, sizeof(result));
	}
	PG_END_TRY();

	if (busy.batches == 0)
		busy.since = start;
	busy.batches++;
	busy.removed += result.removed;
	took = TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
	if (result.removed > 0)
		ereport(DEBUG1,
				(errmsg_internal("kvstore: removed %lld expired entries of table %u in %ld ms",
								 (long long) result.removed, work.relid, took)));
	if (result.removed >= kvs_guc_sweep_batch)
		wait_for(Min(took, NAP_MAX));
	else if (result.pass_blocks > 0 && result.pass_removed == 0)
		pass_after = TimestampTzPlusMilliseconds(start, 1000 * result.pass_blocks / PASS_RATE);
	return true;
}

/* Nothing is due any more: tell what that took. */
static void
end_busy(void)
{
	if (busy.batches > 0 && busy.removed > 0 && kvs_guc_log_sweep >= 0 && busy.removed >= kvs_guc_log_sweep)
	{
		begin_transaction("logging");
		ereport(LOG,
				(errmsg("kvstore: removed %lld expired entries of database \"%s\" in %ld ms, %d transactions",
						(long long) busy.removed, get_database_name(MyDatabaseId),
						TimestampDifferenceMilliseconds(busy.since, GetCurrentTimestamp()), busy.batches)));
		commit_transaction();
	}
	memset(&busy, 0, sizeof(busy));
}

/* ---- The loop ---- */

/* Sleep until something is due; false: that is too far away to stay. */
static bool
sleep_until_due(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz earliest = TimestampTzPlusMilliseconds(now, SWEEP_PAUSE);
	TimestampTz next;
	TimestampTz wake_at;

	do
	{
		next = kvs_expiry_next();
		if (next > TimestampTzPlusMilliseconds(now, LINGER))
			return false;
		wake_at = Min(Max(next, earliest), TimestampTzPlusMilliseconds(now, POLL));
		if (next <= now && pass_after > now)
			wake_at = Min(pass_after, earliest);
	} while (!kvs_expiry_worker_sleeps(wake_at, next));
	wait_for(Max(TimestampDifferenceMilliseconds(now, wake_at), 1));
	kvs_expiry_worker_awake();
	return true;
}

/* Is the extension there?  If not, the tables that the map holds of this database are forgotten. */
static bool
is_installed(void)
{
	Oid			relids[64];
	int			count;
	bool		installed;

	begin_transaction("looking for the extension");
	installed = kvs_catalog_is_installed();
	if (!installed)
	{
		count = kvs_expiry_list_tables(relids, lengthof(relids));
		for (int i = 0; i < count; i++)
			kvs_sweep_forget_table(relids[i]);
	}
	commit_transaction();
	return installed;
}

/* The same, and if it is not, nothing is due here.  A CREATE EXTENSION that commits meanwhile is not overlooked: its note comes after our reset. */
static bool
check_installed(void)
{
	KvsExpirySlot *slot;

	if (is_installed())
		return true;
	slot = kvs_expiry_find_database();
	if (slot == NULL)
		return false;
	pg_atomic_exchange_u64(slot, (uint64) DT_NOEND);
	if (is_installed())
	{
		kvs_expiry_lower(slot, DT_NOBEGIN);
		return true;
	}
	kvs_expiry_next();
	return false;
}

/* Work until there is nothing to do here.  Returns why it ended. */
static KvsWorkerEnd
run_worker(void)
{
	KvsWorkerEnd end = KVS_WORKER_DONE;
	TimestampTz start = GetCurrentTimestamp();

	for (;;)
	{
		bool		idle;

		handle_signals();
		if (!check_installed())
			return KVS_WORKER_DONE;
		if (database_is_wanted())
		{
			end = KVS_WORKER_WANTED;
			break;
		}
		check_full_pass();
		idle = !do_step();
		if (kvs_launcher_wants_room() &&
			(idle || TimestampDifferenceExceeds(start, GetCurrentTimestamp(), SHARE)))
			break;
		if (!idle)
			continue;
		end_busy();
		if (!sleep_until_due())
			break;
	}
	end_busy();
	kvs_expiry_next();
	return end;
}

void
kvs_worker_main(Datum main_arg)
{
	Oid			database = kvs_launcher_worker_comes(main_arg);

	if (!OidIsValid(database))
		proc_exit(0);
	before_shmem_exit(before_exit, (Datum) 0);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	set_settings();
	step_context = AllocSetContextCreate(TopMemoryContext, "kvstore worker step", ALLOCSET_DEFAULT_SIZES);

	if (!check_installed() || kvs_expiry_database() == NULL)
		ending = KVS_WORKER_DONE;
	else
	{
		kvs_expiry_worker_awake();
		ending = run_worker();
	}
	proc_exit(0);
}
