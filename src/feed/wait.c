/*
 * wait.c
 *		Waiting inside a function: look, register, look again, sleep.
 *
 * Each look is made in a subtransaction.  It is rolled back if there was nothing, which releases
 * the locks that it took: a sleeper holds up no DROP TABLE.  The table is opened anew each time, so
 * a DROP and a REVOKE are noticed after kvstore.fallback_poll at the latest.  That poll also covers
 * what no waker tells of, such as a client that has gone.
 *
 * While it sleeps, a session holds the snapshot of the statement that it is in, if there is one.  A
 * procedure can end that snapshot before.  Catalog snapshots are released here.
 *
 * A look may run code of a user, such as a policy, that waits in its turn.  All that belongs to a
 * wait is in its KvsWait, so waits may lie inside one another, up to DEPTH of them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/duration.h"
#include "base/guc.h"
#include "base/subxact.h"
#include "feed/wait.h"

/* Waits inside one another: each takes one of kvstore.max_waiters. */
#define DEPTH	10

TimestampTz
kvs_wait_deadline(FunctionCallInfo fcinfo, int arg, int seconds)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz result;

	if (PG_ARGISNULL(arg))
		return now + seconds * USECS_PER_SEC;
	result = kvs_duration_add(now, PG_GETARG_INTERVAL_P(arg));
	if (result < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("wait must not be negative")));
	return result;
}

void
kvs_wait_check_context(FunctionCallInfo fcinfo, const char *procedure, const char *instead)
{
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) || castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot be called in a transaction block", procedure),
				 errhint("It has to be a statement of its own, so that it holds no snapshot while it waits; %s can wait inside one.", instead)));
}

/*
 * The transaction of a procedure has seen nothing yet.  Whatever the default isolation, it has to
 * see what others commit while it waits.
 */
static void
begin_read_committed(void)
{
	Assert(!FirstSnapshotSet);
	XactIsoLevel = XACT_READ_COMMITTED;
}

/* There is no client that could be told. */
static void
check_client(void)
{
	if (MyProcPort == NULL || whereToSendOutput != DestRemote || pq_check_connection())
		return;
	whereToSendOutput = DestNone;
	ereport(FATAL,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("connection to client lost")));
}

/* Sleep until the latch is set, at most until then or until the next poll is due. */
static void
sleep_until(const KvsWait *wait, TimestampTz until)
{
	static uint32 wait_event = 0;
	static TimestampTz last_check = 0;

	TimestampTz now = GetCurrentTimestamp();
	long		timeout = kvs_guc_fallback_poll;
	int			events;

	if (until <= now)
		return;
	/* rounded up, or we would be back just before */
	if (until - now < timeout * INT64CONST(1000))
		timeout = (until - now + 999) / 1000;
	/*
	 * a look that waited for a lock, or for a page, has used the latch itself, and may have missed
	 * what it was set for
	 */
	if (kvs_waiter_is_woken(&wait->waiter))
		timeout = 0;
	if (wait_event == 0)
		wait_event = kvs_compat_wait_event("KvstoreWait");
	InvalidateCatalogSnapshot();
	events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	/* a system call that a woken session need not make: it is about to answer, or will be back */
	if (events & WL_TIMEOUT || TimestampDifferenceExceeds(last_check, now, kvs_guc_fallback_poll))
	{
		last_check = now;
		check_client();
	}
}

/* Returns whether the work of the look is to stay. */
static bool
look(void *arg)
{
	KvsWait    *wait = arg;

	wait->found = wait->look(wait);
	return wait->keep;
}

static bool
look_in_subtransaction(KvsWait *wait)
{
	wait->until = DT_NOEND;
	wait->keep = false;
	kvs_subxact_run(look, wait);
	return wait->found;
}

/* Register for the table that the last look was about. */
static void
register_for(KvsWait *wait)
{
	KvsWaitTarget targets[KVS_WAIT_TARGETS];

	memset(targets, 0, sizeof(targets));
	kvs_waiter_begin(&wait->waiter, targets, wait->aim(wait, targets));
}

/* Once registered, look again before the first sleep. */
static pg_noinline bool
look_until_found(KvsWait *wait)
{
	Oid			registered = InvalidOid;

	for (;;)
	{
		wait->last = GetCurrentTimestamp() >= wait->deadline;
		if (look_in_subtransaction(wait))
			return true;
		CHECK_FOR_INTERRUPTS();
		if (wait->last)
			return false;
		if (registered == wait->relid)
		{
			sleep_until(wait, Min(wait->deadline, wait->until));
			wait->slept = true;
			wait->wakeups += kvs_waiter_is_woken(&wait->waiter) ? 1 : 0;
		}
		else
			register_for(wait);
		registered = wait->relid;
		kvs_waiter_rearm(&wait->waiter);
	}
}

bool
kvs_wait_for(KvsWait *wait)
{
	static int	depth = 0;

	volatile bool found = false;

	if (depth >= DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("too many waits inside one another"),
				 errdetail("What one looks at runs code that waits, such as a policy, %d times over.", DEPTH)));
	depth++;
	PG_TRY();
	{
		found = look_until_found(wait);
	}
	PG_CATCH();
	{
		depth--;
		kvs_waiter_fail(&wait->waiter);
		PG_RE_THROW();
	}
	PG_END_TRY();
	depth--;
	kvs_waiter_end(&wait->waiter);
	return found;
}

void
kvs_wait_in_procedure(KvsWait *wait)
{
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	/* the snapshot of the statement ends with its transaction */
	SPI_commit();
	begin_read_committed();
	kvs_wait_for(wait);
	/* a block that goes on after the CALL has the isolation that it expects */
	SPI_commit();
	SPI_finish();
}
