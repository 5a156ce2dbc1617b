/*
 * worker.c
 *		The worker of one database: does what is due, and leaves when there is nothing to do.
 *
 * Its work is a list of tasks.  Each in turn does a bit in short transactions, until none has
 * anything due.  Then the worker sleeps until the first of them has, or until next due is lowered
 * (expiry.c).
 *
 * Two things make it leave: nothing is due for LINGER, or a session wants the database to itself.
 * DROP DATABASE and CREATE DATABASE ... TEMPLATE hold a lock on the database, and wait only 5 s for
 * the sessions that are connected.  So before each step we try that lock.  A launcher that has no
 * room for another database asks us to leave, too.
 *
 * The tasks are idempotent, so nobody waits for their WAL: synchronous_commit is off here.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "expiry/expiry.h"
#include "table/catalog.h"
#include "worker/launcher.h"
#include "worker/sweep.h"
#include "worker/unmapped.h"
#include "worker/worker.h"
#include "worker/workerprocess.h"
#include "worker/workerqueue.h"
#include "worker/workerstep.h"
#include "worker/workersweep.h"

/* All in milliseconds. */
/* at least between two looks at what is due: what comes meanwhile is done together */
#define PAUSE			250
#define LINGER			5000	/* leave when nothing is due for so long */
#define POLL			1000	/* check at least so often whether a session wants the database */
#define SHARE			1000	/* leave after so long when other databases wait for a worker */

static const KvsWorkerTask *const tasks[] = {&kvs_workersweep_task, &kvs_workerqueue_task};

static KvsWorkerEnd ending = KVS_WORKER_FAILED;

/* ---- Coming and going ---- */

static void
before_exit(int code, Datum arg)
{
	if (kvs_workerstep_leave())
		ending = KVS_WORKER_ENDED_STEP;
	kvs_unmapped_leave();
	kvs_expirydue_worker_leaves(ending == KVS_WORKER_FAILED || ending == KVS_WORKER_ENDED_STEP);
	kvs_launcher_worker_leaves(ending);
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
tell_idle(void)
{
	for (size_t i = 0; i < lengthof(tasks); i++)
		tasks[i]->idle();
}

/*
 * When something is due next.  What comes while the tasks are asked lowers next due after it was
 * cleared.
 */
static TimestampTz
find_next_due(Oid except)
{
	TimestampTz next = DT_NOEND;

	kvs_expirydue_clear_next_due();
	for (size_t i = 0; i < lengthof(tasks); i++)
		next = Min(next, tasks[i]->next(except));
	return next;
}

static TimestampTz
read_next_due(void)
{
	TimestampTz next = find_next_due(InvalidOid);

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
	} while (!kvs_expirydue_worker_sleeps(wake_at, next));
	kvs_workerprocess_wait(Max(TimestampDifferenceMilliseconds(now, wake_at), 1));
	kvs_expirydue_worker_awake();
	return true;
}

/* Is the extension there?  If not, the tables that the map holds of this database are forgotten. */
static bool
is_installed(void)
{
	bool		installed;

	kvs_workerprocess_begin("looking for the extension");
	installed = kvs_catalog_is_installed();
	if (!installed)
		kvs_sweep_forget_others(NIL);
	kvs_workerprocess_commit();
	return installed;
}

/*
 * The same, and if it is not, nothing is due here.  A CREATE EXTENSION that commits meanwhile is
 * not overlooked: its note comes after our reset.
 */
static bool
check_installed(void)
{
	KvsExpirySlot *slot;

	if (is_installed())
		return true;
	slot = kvs_expirymap_find_database();
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

		kvs_workerprocess_handle_signals();
		if (!check_installed())
			return KVS_WORKER_DONE;
		if (kvs_workerprocess_database_is_wanted())
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
		tell_idle();
		if (!sleep_until_due())
			break;
	}
	tell_idle();
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
	kvs_workerprocess_begin_work(database);

	if (!check_installed() || kvs_expirymap_database() == NULL)
		ending = KVS_WORKER_DONE;
	else
	{
		kvs_expirydue_worker_awake();
		kvs_workerstep_come(find_next_due);
		ending = run_worker();
	}
	proc_exit(0);
}
