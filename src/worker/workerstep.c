/*
 * workerstep.c
 *		A step of the worker over somebody's table: bounded in time, and known to all beforehand.
 *
 * Triggers that an owner put on a table run in the worker, which all owners of the database share.
 * So such a step is armed.  The table is entered in trouble.c first.  A timer looks TICKS times in
 * kvstore.step_timeout how long the step has taken:
 *
 * - After kvstore.step_timeout it is cancelled, or before, if another table has been waiting for
 *   the worker for half of that time.
 * - A trigger can catch a cancel, so after twice that time the worker ends itself; if others wait,
 *   soon after the cancel.  No code can catch that.  The next worker finds the table in trouble.c,
 *   backs it off, and goes on with the others.
 *
 * Both only ask: code that never comes to CHECK_FOR_INTERRUPTS(), such as an endless loop in C or
 * PL/Perl, goes on.  There is no safe way to end it from outside.
 *
 * Such code waits for a lock at most LOCK_TIMEOUT.
 *
 * Whatever ends an armed step is its failure.  A cancel is no exception: the owner's code can raise
 * its SQLSTATE as well.  A step that is not armed runs no such code: only there is a cancel
 * somebody else's.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timeout.h"

#include "base/guc.h"
#include "base/trouble.h"
#include "expiry/expiry.h"
#include "message/undelivered.h"
#include "worker/workerprocess.h"
#include "worker/workerstep.h"

/* Looks at the clock in kvstore.step_timeout.  All of these are counted in such parts of it. */
#define TICKS			20
#define OTHERS_PATIENCE	10		/* others have waited so long: cancel */
#define OTHERS_LIMIT	12		/* ... and the worker ends itself */
#define LEAST_CANCEL	4		/* neither happens before the step has taken so long */
#define LEAST_END		6
#define LONG			2		/* a step is long enough to be committed */

/* How long a step waits for a lock. */
#define LOCK_TIMEOUT_MS	"500"

/* The step that this worker is at.  The timer's handler reads all of it. */
typedef struct Step
{
	Oid			relid;			/* InvalidOid: none */
	char		name[NAMEDATALEN];
	int64		rows;			/* that it has come to */
	bool		armed;
	TimestampTz row_until;		/* a row has failed, and is backed off until then; 0: none has */
	TimestampTz start;			/* of the part that is armed */
	TimestampTz others_due;		/* when another table is due, as far as was known at the start */
	int64		tick;			/* microseconds */
	volatile sig_atomic_t cancelled;
	volatile sig_atomic_t ending;	/* the worker ends itself */
} Step;

static Step step;
static TimestampTz (*next_due) (Oid except) = NULL;
static TimeoutId timer = MAX_TIMEOUTS;

/* ---- The timer ---- */

/* Runs in a signal handler. */
static void
look_at_clock(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz others_due = Min(step.others_due, kvs_expirydue_next_due());
	int64		taken = (now - step.start) / step.tick;
	/* due "now" may be the least number there is */
	int64		waited = (now - Max(others_due, step.start - OTHERS_LIMIT * step.tick)) / step.tick;

	if (taken >= 2 * TICKS || (waited >= OTHERS_LIMIT && taken >= LEAST_END))
		step.ending = ProcDiePending = true;
	else if (!step.cancelled && (taken >= TICKS || (waited >= OTHERS_PATIENCE && taken >= LEAST_CANCEL)))
		step.cancelled = QueryCancelPending = true;
	else
		return;
	InterruptPending = true;
	SetLatch(MyLatch);
}

static void
disarm(void)
{
	if (step.armed)
		disable_timeout(timer, false);
	step.armed = false;
	QueryCancelPending = false;
}

/* ---- Steps ---- */

/* For messages, when the transaction is over; a table that is gone has its OID for a name. */
static void
get_name(Oid relid, char *name)
{
	char	   *found = get_rel_name(relid);

	if (found != NULL)
		strlcpy(name, found, NAMEDATALEN);
	else
		snprintf(name, NAMEDATALEN, "%u", relid);
}

void
kvs_workerstep_begin(Oid relid, const char *activity)
{
	memset(&step, 0, sizeof(step));
	step.relid = relid;
	kvs_workerprocess_begin(activity);
	get_name(relid, step.name);
}

void
kvs_workerstep_arm(void)
{
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT_MS, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	step.tick = (int64) kvs_guc_step_timeout * 1000 / TICKS;
	step.others_due = next_due(step.relid);
	step.start = GetCurrentTimestamp();
	kvs_trouble_begin_work(step.relid, 1);
	step.armed = true;
	enable_timeout_every(timer, TimestampTzPlusMilliseconds(step.start, step.tick / 1000), Max(step.tick / 1000, 1));
}

bool
kvs_workerstep_next_row(void)
{
	if (!step.armed)
		return true;
	if (step.rows > 0 && GetCurrentTimestamp() - step.start >= LONG * step.tick)
		return false;
	step.rows++;
	return true;
}

bool
kvs_workerstep_forgive(void)
{
	if (!step.cancelled)
		return false;
	disarm();
	kvs_trouble_end_work(step.relid, false);
	step.cancelled = false;
	return true;
}

/* If a trigger caught the cancel, the step has taken too long all the same. */
void
kvs_workerstep_check(void)
{
	if (step.cancelled)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling step of the worker due to kvstore.step_timeout")));
}

void
kvs_workerstep_commit(bool done)
{
	bool		armed = step.armed;
	Oid			relid = step.relid;

	disarm();
	kvs_workerstep_check();
	kvs_workerprocess_commit();
	if (armed || kvs_trouble_is_known(relid))
		kvs_trouble_end_work(relid, done && step.row_until == 0);
	step.relid = InvalidOid;
}

/* One line, when a table's trouble begins. */
static void
report(const ErrorData *error)
{
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("kvstore: table \"%s\" is set aside: %s", step.name, error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 errhint("It is tried again, at growing intervals.  kv_health() names it until that succeeds."),
			 error->context ? errcontext_msg("%s", error->context) : 0,
			 errcontext("kvstore worker, table %u", step.relid)));
}

/* One failure a step, however many of its rows fail. */
TimestampTz
kvs_workerstep_fail_row(const ErrorData *error)
{
	bool		tell;

	kvs_workerstep_check();
	if (step.row_until == 0)
	{
		step.row_until = kvs_trouble_fail_row(step.relid, error->sqlerrcode, &tell);
		if (tell)
			report(error);
	}
	return step.row_until;
}

TimestampTz
kvs_workerstep_recover(void)
{
	TimestampTz until;
	ErrorData  *error;
	bool		armed = step.armed;
	bool		failed;
	bool		tell;

	HOLD_INTERRUPTS();
	disarm();
	error = kvs_workerprocess_abort();
	if (step.cancelled)
	{
		error->sqlerrcode = ERRCODE_QUERY_CANCELED;
		error->message = pstrdup("it took too long, see kvstore.step_timeout");
		error->detail = NULL;
	}
	failed = armed || step.cancelled || error->sqlerrcode != ERRCODE_QUERY_CANCELED;
	if (failed)
	{
		until = kvs_trouble_fail(step.relid, error->sqlerrcode, step.cancelled, Max(step.rows, step.start != 0), &tell);
		if (tell)
			report(error);
	}
	else
	{
		until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), KVS_EXPIRY_RETRY);
		kvs_trouble_end_work(step.relid, false);
	}
	kvs_expirydue_put_aside(step.relid, until, failed);
	step.relid = InvalidOid;
	RESUME_INTERRUPTS();
	return until;
}

TimestampTz
kvs_workerstep_aside_until(Oid relid)
{
	return kvs_trouble_until(relid);
}

bool
kvs_workerstep_is_careful(Oid relid)
{
	return kvs_trouble_is_known(relid);
}

int64
kvs_workerstep_rows(Oid relid, int64 max)
{
	return kvs_trouble_rows(relid, max);
}

/* ---- The worker ---- */

/* The worker before us ended over a table: back that off. */
static void
set_aside(Oid relid, bool tell)
{
	char		name[NAMEDATALEN];

	kvs_workerprocess_begin("setting a table aside");
	get_name(relid, name);
	if (tell)
		ereport(LOG,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("kvstore: table \"%s\" is set aside: the worker ended itself, for it could not cancel what the owner's code does", name),
				 errhint("It is tried again, at growing intervals.  kv_health() names it until that succeeds.")));
	kvs_workerprocess_commit();
	kvs_expirydue_put_aside(relid, kvs_trouble_until(relid), true);
}

void
kvs_workerstep_come(TimestampTz (*find_next_due) (Oid except))
{
	Oid			relid;
	bool		tell;

	next_due = find_next_due;
	kvs_undelivered_set_check(kvs_workerstep_check);
	timer = RegisterTimeout(USER_TIMEOUT, look_at_clock);
	while (OidIsValid(relid = kvs_trouble_take_unfinished(&tell)))
		set_aside(relid, tell);
}

bool
kvs_workerstep_leave(void)
{
	bool		armed = step.armed;

	disarm();
	if (armed && step.ending)
		kvs_trouble_begin_work(step.relid, step.rows);
	else if (armed)
		kvs_trouble_end_work(step.relid, false);
	return step.ending;
}
