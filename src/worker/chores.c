/*
 * chores.c
 *		What only the worker does for a queue: it writes failures down, and moves messages that are
 *		given up to the dead letters.
 *
 * Code of the queue's owner, and of a store's owner, runs in these statements.  So consumers never
 * run them: no consumer's transaction waits for a message that is not its own, or fails because of
 * it.
 *
 * A batch is settled in one subtransaction.  If that fails, each message gets one of its own.  A
 * message that cannot be settled is stuck.  It is tried again after a delay that grows each time.
 * kv_leases, kv_health() and the metrics show it.
 *
 * A step of the worker that takes too long is cancelled.  Then the message that it was at is stuck,
 * for a step that has taken long begins no further message.  The others go on after SLOW_PAUSE.  As
 * long as any is stuck they are settled one by one, so that it takes no others with it.  Code of an
 * owner may catch the cancel, so after each message the step is asked.  A message that is tried
 * alone is backed off beforehand: if a worker ends itself over it, the next one does not meet it
 * first.
 *
 * A cancel by somebody else is not a message's failure, and is thrown on.
 *
 * Nothing waits here for long: locked rows and tables are passed over.  For the other locks that
 * statements take, they wait at most LOCK_TIMEOUT.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "base/fault.h"
#include "base/stats.h"
#include "base/subxact.h"
#include "expiry/expiry.h"
#include "feed/waiter.h"
#include "lease/queuexact.h"
#include "lease/survey.h"
#include "message/settle.h"
#include "worker/chores.h"
#include "worker/manualstep.h"
#include "worker/workerstep.h"

/* How long a statement waits for a lock, such as that of an entry that is to be written. */
#define LOCK_TIMEOUT	"100ms"

/* One by one: so long in one transaction, in milliseconds.  What is left is for the next. */
#define PATIENCE		1000

/*
 * A queue whose message took too long is backed off for so many milliseconds, so that others have
 * their turn.
 */
#define SLOW_PAUSE		1000

/* The error of a message that took too long. */
#define SLOW			"it took too long, see kvstore.step_timeout"

typedef struct Chores
{
	KvsQueue   *queue;
	Relation	rel;
	TimestampTz now;
	bool		manual;
	int			limit;
	int			count;			/* messages looked at */
	KvsMessageRef message;		/* the last one */
} Chores;

static const char *
error_of(KvsLeaseEnd end)
{
	switch (end)
	{
		case KVS_END_EXPIRED:
			return "lease expired";
		case KVS_END_ROLLED_BACK:
			return "rolled back";
		default:
			return NULL;		/* the row has it */
	}
}

/* The next message that is due; false: there is none. */
static bool
settle_next(Chores *chores, KvsReader *reader)
{
	KvsLeaseEnd end;
	TimestampTz ready_at;
	KvsSettled	result;

	if (!(chores->manual ? kvs_manualstep_next_row() : kvs_workerstep_next_row()) ||
		!kvs_queuexact_next_work(chores->queue, chores->now, chores->limit == 1, &chores->message, &end, &ready_at))
		return false;
	chores->count++;
	kvs_fault_stop(KVS_FAULT_CHORES);
	if (kvs_message_is_doomed(&chores->message))
		result = kvs_settle_bury(reader, &chores->message, chores->now, error_of(end));
	else
		result = kvs_settle_write(reader, &chores->message, ready_at, error_of(end));
	kvs_workerstep_check();
	if (result != KVS_SETTLED_LOCKED)
		return true;
	kvs_queuexact_cancel_ending(chores->queue, chores->message.id);
	kvs_leasework_stick(chores->queue, &chores->message, chores->now, NULL);
	return true;
}

/* In a subtransaction: what was opened in it is closed in it. */
static void
settle_batch(void *arg)
{
	Chores	   *chores = arg;
	int			level = NewGUCNestLevel();
	KvsReader	reader;

	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	kvs_reader_begin(&reader, chores->queue, chores->rel);
	while (chores->count < chores->limit && settle_next(chores, &reader))
		CHECK_FOR_INTERRUPTS();
	kvs_reader_end(&reader);
	AtEOXact_GUC(true, level);
}

/*
 * Is the whole call to end?  The SQLSTATE alone does not tell, for code of an owner's can raise it.
 */
static bool
is_cancelled(const Chores *chores, const ErrorData *error)
{
	return chores->manual ? kvs_manualstep_is_cancelled() : kvs_subxact_is_cancel(error);
}

/* It is back among the returned ones, as the subtransaction has been rolled back. */
static void
set_aside(Chores *chores, const char *message)
{
	char		text[KVS_STUCK_ERROR_SIZE];
	int			length = pg_mbcliplen(message, strlen(message), sizeof(text) - 1);

	if (chores->count == 0)
		return;
	memcpy(text, message, length);
	text[length] = '\0';
	if (kvs_leasework_stick(chores->queue, &chores->message, chores->now, text) != 1)
		return;
	ereport(LOG,
			(errmsg("kvstore: message %lld of queue \"%s\" could not be settled: %s",
					(long long) chores->message.id, chores->queue->name, message),
			 errhint("It is tried again, later each time.  The view kv_leases shows it as stuck.")));
}

typedef enum Outcome
{
	OUTCOME_DONE,
	OUTCOME_SLOW,				/* a message took too long, and is set aside */
	OUTCOME_ERROR				/* one has failed, the last that was looked at */
} Outcome;

/* Settle up to chores->limit of them in a subtransaction.  *error: of OUTCOME_ERROR. */
static Outcome
try_batch(Chores *chores, ErrorData **error)
{
	chores->count = 0;
	*error = kvs_subxact_try(settle_batch, chores, NULL);
	if (*error == NULL)
		return OUTCOME_DONE;
	if (!chores->manual && kvs_workerstep_forgive())
	{
		set_aside(chores, SLOW);
		kvs_queueslot_put_aside(chores->queue->relid, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SLOW_PAUSE));
		return OUTCOME_SLOW;
	}
	if (chores->manual && kvs_manualstep_took_too_long())
		set_aside(chores, SLOW);
	if (is_cancelled(chores, *error))
		ReThrowError(*error);
	return OUTCOME_ERROR;
}

/* One by one; an ERROR is the message's own. */
static int
settle_singly(Chores *chores)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PATIENCE);
	int			limit = chores->limit;
	int			count = 0;

	chores->limit = 1;
	do
	{
		ErrorData  *error;
		Outcome		outcome;

		CHECK_FOR_INTERRUPTS();
		outcome = try_batch(chores, &error);
		if (outcome == OUTCOME_ERROR)
		{
			set_aside(chores, error->message);
			FreeErrorData(error);
		}
		count += chores->count;
		if (outcome == OUTCOME_SLOW)
			break;
	} while (chores->count > 0 && count < limit && GetCurrentTimestamp() < until);
	return count;
}

/* Waiters have to see the leases that have ended. */
static void
end_leases(KvsQueue *queue, TimestampTz now)
{
	KvsSurvey	survey;

	do
	{
		kvs_survey_begin(queue, now, false, &survey);
		kvs_stats_add(queue->stat, KVS_COUNT_QUEUE_RETRIED, survey.expired);
		if (survey.returned >= 0)
			kvs_waiter_wake_one_now(queue->relid);
	} while (survey.next_due <= now);
}

int
kvs_chores_run(KvsQueue *queue, Relation rel, TimestampTz now, int limit, bool manual)
{
	Chores		chores = {.queue = queue, .rel = rel, .now = now, .manual = manual, .limit = limit};
	ErrorData  *error;

	end_leases(queue, now);
	if (limit == 1 || kvs_leasework_any_stuck(queue))
		return settle_singly(&chores);
	if (try_batch(&chores, &error) != OUTCOME_ERROR)
		return chores.count;
	FreeErrorData(error);
	return settle_singly(&chores);
}
