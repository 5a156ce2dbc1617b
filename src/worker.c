/*
 * worker.c
 *		The worker of one database: does what is due, and leaves when there is nothing to do.
 *
 * What there is to do are tasks, in a list; each in turn does a bit in short transactions, until none has anything due.  Then the worker sleeps until
 * the first of them has, or until next due is lowered (expiry.c).
 *
 * Two things make it leave: nothing is due for LINGER, or somebody wants the database for himself.  DROP DATABASE and CREATE DATABASE ... TEMPLATE
 * hold a lock on the database, and wait only 5 s for those who are connected; so before each step we try that lock.  A launcher that has no
 * room for another database asks us to leave, too.
 *
 * What tasks do is idempotent, so nobody waits for its WAL: synchronous_commit is off here.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "expiry.h"
#include "launcher.h"
#include "sweep.h"
#include "worker.h"
#include "workerstep.h"

/* All in milliseconds. */
#define PAUSE			250		/* at least between two looks at what is due: what comes meanwhile is done together */
#define LINGER			5000	/* leave when nothing is due for so long */
#define POLL			1000	/* see at least so often whether somebody wants the database */
#define SHARE			1000	/* leave after so long when other databases wait for a worker */

static const KvsWorkerTask *const tasks[] = {&kvs_worker_sweep_task, &kvs_worker_queue_task};

static MemoryContext step_context;
static KvsWorkerEnd ending = KVS_WORKER_FAILED;

/* ---- Coming and going ---- */

static void
before_exit(int code, Datum arg)
{
	if (kvs_workerstep_leave())
		ending = KVS_WORKER_ENDED_STEP;
	kvs_expiry_worker_leaves(ending == KVS_WORKER_FAILED || ending == KVS_WORKER_ENDED_STEP);
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
	/* ... and nothing to cancel */
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

bool
kvs_worker_is_in_the_way(void)
{
	handle_signals();
	return database_is_wanted() || kvs_catalog_extension_is_wanted();
}

void
kvs_worker_wait(long timeout)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
					 kvs_compat_wait_event("KvstoreWorker"));
	ResetLatch(MyLatch);
	handle_signals();
}

/* ---- Transactions ---- */

void
kvs_worker_begin(const char *activity)
{
	MemoryContextReset(step_context);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, activity);
	MemoryContextSwitchTo(step_context);
}

void
kvs_worker_commit(void)
{
	CommitTransactionCommand();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

ErrorData *
kvs_worker_abort(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(step_context);
	error = CopyErrorData();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(step_context);
	pgstat_report_activity(STATE_IDLE, NULL);
	return error;
}

void
kvs_worker_recover(void)
{
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(step_context);
	if (kvs_expiry_may_log(GetCurrentTimestamp()))
		EmitErrorReport();
	(void) kvs_worker_abort();
	RESUME_INTERRUPTS();
}

/* ---- The loop ---- */

/* Each task does a bit.  False: none has anything due. */
static bool
do_steps(void)
{
	bool		result = false;

	for (size_t i = 0; i < lengthof(tasks); i++)
		result |= tasks[i]->step();
	return result;
}

static void
rest(void)
{
	for (size_t i = 0; i < lengthof(tasks); i++)
		tasks[i]->rest();
}

/* When something is due next.  What comes while the tasks are asked lowers next due after it was cleared. */
TimestampTz
kvs_worker_next_due(Oid except)
{
	TimestampTz next = DT_NOEND;

	kvs_expiry_clear_next_due();
	for (size_t i = 0; i < lengthof(tasks); i++)
		next = Min(next, tasks[i]->next(except));
	return next;
}

static TimestampTz
read_next_due(void)
{
	TimestampTz next = kvs_worker_next_due(InvalidOid);

	kvs_expiry_lower_next_due(next);
	return next;
}

/* Sleep until something is due; false: that is too far away to stay. */
static bool
sleep_until_due(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz earliest = TimestampTzPlusMilliseconds(now, PAUSE);
	TimestampTz next;
	TimestampTz wake_at;

	do
	{
		next = read_next_due();
		if (next > TimestampTzPlusMilliseconds(now, LINGER))
			return false;
		wake_at = Min(Max(next, earliest), TimestampTzPlusMilliseconds(now, POLL));
	} while (!kvs_expiry_worker_sleeps(wake_at, next));
	kvs_worker_wait(Max(TimestampDifferenceMilliseconds(now, wake_at), 1));
	kvs_expiry_worker_awake();
	return true;
}

/* Is the extension there?  If not, the tables that the map holds of this database are forgotten. */
static bool
is_installed(void)
{
	bool		installed;

	kvs_worker_begin("looking for the extension");
	installed = kvs_catalog_is_installed();
	if (!installed)
		kvs_sweep_forget_others(NIL);
	kvs_worker_commit();
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
	read_next_due();
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
		idle = !do_steps();
		if (kvs_launcher_wants_room() &&
			(idle || TimestampDifferenceExceeds(start, GetCurrentTimestamp(), SHARE)))
			break;
		if (!idle)
			continue;
		rest();
		if (!sleep_until_due())
			break;
	}
	rest();
	read_next_due();
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
		kvs_workerstep_come();
		ending = run_worker();
	}
	proc_exit(0);
}
