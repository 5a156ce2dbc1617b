/*
 * manualstep.c
 *		A manual step over somebody's table: bounded in time, in a subtransaction of the caller's.
 *
 * kv_maintain() runs triggers of all owners.  A trigger must not hold it up for ever, and must not
 * end it.  So a timer cancels the step, and only the step is rolled back.  A trigger can catch a
 * cancel for ever, so after twice kvstore.step_timeout it ends the session, as the worker ends
 * itself (workerstep.c).
 *
 * A user's cancel must still end the whole statement.  The SQLSTATE does not tell the two apart: a
 * trigger can raise it, or catch it.  The signal does.  A user, statement_timeout and
 * pg_cancel_backend() send SIGINT, and nobody can send that without rights over this session.  So
 * during a step we see SIGINT first.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/subxact.h"
#include "worker/manualstep.h"

/* A step is long enough after so many tenths of kvstore.step_timeout. */
#define LONG	1

static TimeoutId timer = MAX_TIMEOUTS;
static bool armed = false;
static bool any_row;			/* the step has come to one */
static TimestampTz started;
static volatile sig_atomic_t timed_out = false;
static volatile sig_atomic_t interrupted = false;	/* SIGINT has come */
static struct sigaction former; /* what SIGINT does otherwise */

static void
take_sigint(int signo)
{
	interrupted = true;
	former.sa_handler(signo);
}

/*
 * Runs in a signal handler.  Code that catches the cancel can be stopped by nothing but the end of
 * the session.
 */
static void
cancel_step(void)
{
	if (timed_out)
		ProcDiePending = true;
	timed_out = true;
	QueryCancelPending = true;
	InterruptPending = true;
}

static void
arm(void)
{
	struct sigaction mine;

	if (timer == MAX_TIMEOUTS)
		timer = RegisterTimeout(USER_TIMEOUT, cancel_step);
	timed_out = interrupted = false;
	any_row = false;
	started = GetCurrentTimestamp();
	sigaction(SIGINT, NULL, &former);
	mine = former;
	mine.sa_handler = take_sigint;
	sigaction(SIGINT, &mine, NULL);
	armed = true;
	enable_timeout_every(timer, TimestampTzPlusMilliseconds(started, kvs_guc_step_timeout), kvs_guc_step_timeout);
}

/*
 * Our own cancel may have come too late to be raised.  A SIGINT that comes meanwhile is not lost.
 */
static void
disarm(void)
{
	disable_timeout(timer, false);
	if (timed_out)
		QueryCancelPending = false;
	if (interrupted)
		QueryCancelPending = InterruptPending = true;
	sigaction(SIGINT, &former, NULL);
	armed = false;
}

/*
 * In a step already: a trigger has called us.  The outer one has the timer, and is to get its
 * cancel.
 */
static ErrorData *
try_inside(void (*work) (void *arg), void *arg)
{
	ErrorData  *error = kvs_subxact_try(work, arg, NULL);

	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	return error;
}

ErrorData *
kvs_manualstep_try(void (*work) (void *arg), void *arg)
{
	ErrorData  *volatile error = NULL;

	if (armed)
		return try_inside(work, arg);
	arm();
	PG_TRY();
	{
		error = kvs_subxact_try(work, arg, NULL);
	}
	PG_FINALLY();
	{
		disarm();
	}
	PG_END_TRY();
	if (interrupted && error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		QueryCancelPending = false;
		ReThrowError(error);
	}
	CHECK_FOR_INTERRUPTS();
	return error;
}

bool
kvs_manualstep_is_cancelled(void)
{
	return timed_out || interrupted;
}

bool
kvs_manualstep_took_too_long(void)
{
	return timed_out;
}

bool
kvs_manualstep_next_row(void)
{
	if (any_row && TimestampDifferenceExceeds(started, GetCurrentTimestamp(), LONG * kvs_guc_step_timeout / 10))
		return false;
	any_row = true;
	return true;
}
