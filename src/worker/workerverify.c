/*
 * workerverify.c
 *		Looking for messages that no dequeue would find.
 *
 * If a rule of queueslot.c were broken, a message would lie below the head, or in a priority that
 * is said to be empty.  On no list and with no lease, it would never be delivered.  The same goes
 * for rows that come in past the guard, as when a dump is restored with triggers disabled.  It also
 * goes for messages that the head has passed as expired before the clock is set back.  So now and
 * then the worker reads the index from its bottom up to the head, and compares.  It may find a
 * message that has become visible and is published in the next microseconds, so it looks again a
 * second later.
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "feed/waiter.h"
#include "lease/lease.h"
#include "lease/survey.h"
#include "worker/workerprocess.h"
#include "worker/workerverify.h"

/*
 * Messages found of one priority, in one look: they may be about to be published.  One that is not
 * stands for all that follow it.
 */
#define MAX_SUSPECTS	4

#define LOOK_AGAIN		1000	/* milliseconds */

/* Entries read between two checks whether a session wants the database. */
#define PATIENCE		10000

typedef struct Verification
{
	KvsReader  *reader;
	TimestampTz now;			/* what has expired by then is not to be delivered */
	KvsSurvey	survey;
	int			nsuspects;
	KvsMessageRef suspects[MAX_SUSPECTS * KVS_PRIORITIES];
} Verification;

/* Would a dequeue find it? */
static bool
is_findable(const Verification *verification, const KvsMessageRef *message)
{
	const KvsSurvey *survey = &verification->survey;
	KvsPosition position = {message->ready_at, message->id};

	if (survey->heads[message->priority].filled &&
		kvs_position_compare(position, survey->heads[message->priority].start) >= 0)
		return true;
	for (int i = 0; i < survey->nlate; i++)
		if (survey->late[i].priority == message->priority &&
			kvs_position_compare(position, survey->late[i].low) >= 0 &&
			kvs_position_compare(position, survey->late[i].high) <= 0)
			return true;
	return kvs_leaselook_is_known(verification->reader->queue, message);
}

/*
 * From the bottom to the head, or to the end if the priority is said to be empty.  False: a session
 * wants the database.
 */
static bool
look(Verification *verification, int priority)
{
	KvsReader  *reader = verification->reader;
	const KvsHeadScan *head = &verification->survey.heads[priority];
	int			limit = verification->nsuspects + MAX_SUSPECTS;
	KvsPosition position;
	int64		count = 0;

	kvs_reader_scan(reader, priority, (KvsPosition) {DT_NOBEGIN, PG_INT64_MIN});
	while (verification->nsuspects < limit && kvs_reader_next(reader, &position) &&
		   (!head->filled || kvs_position_compare(position, head->start) < 0))
	{
		KvsMessageRef *message = &verification->suspects[verification->nsuspects];

		CHECK_FOR_INTERRUPTS();
		if (++count % PATIENCE == 0 && kvs_workerprocess_is_in_the_way())
			return false;
		*message = (KvsMessageRef) {0};
		if (!kvs_reader_see(reader, message))
			continue;
		if (kvs_message_is_doomed(message))
			kvs_leasework_doom(reader->queue, message);
		else if (!kvs_reader_has_expired(reader, verification->now) && !is_findable(verification, message))
			verification->nsuspects++;
	}
	return true;
}

static void
judge(Verification *verification)
{
	KvsQueue   *queue = verification->reader->queue;

	verification->now = GetCurrentTimestamp();
	for (int i = 0; i < verification->nsuspects; i++)
	{
		KvsMessageRef *message = &verification->suspects[i];

		/* what was announced for the one before makes those that follow it findable */
		kvs_survey_begin(queue, verification->now, false, &verification->survey);
		if (!kvs_reader_fetch(verification->reader, message) ||
			kvs_reader_has_expired(verification->reader, verification->now) || kvs_message_is_doomed(message) ||
			is_findable(verification, message))
			continue;
		kvs_queueslot_announce_from(queue, message->priority, (KvsPosition) {message->ready_at, message->id});
		kvs_waiter_wake_one_now(queue->relid);
		ereport(LOG,
				(errmsg("kvstore: message %lld of queue \"%s\" would not have been delivered, and perhaps others behind it",
						(long long) message->id, queue->name),
				 errdetail("Its priority is %d; it has become ready at %s.", message->priority,
						   timestamptz_to_str(message->ready_at)),
				 errhint("They are delivered now.  Unless rows were written while triggers of the table were disabled, "
						 "or the clock was set back, this is a bug in kvstore: please report it.")));
	}
}

bool
kvs_workerverify_queue(KvsReader *reader)
{
	Verification verification = {.reader = reader, .now = GetCurrentTimestamp()};

	kvs_survey_begin(reader->queue, verification.now, false, &verification.survey);
	for (int priority = 0; priority <= KVS_MAX_PRIORITY; priority++)
		if (!look(&verification, priority))
			return false;
	if (verification.nsuspects > 0)
	{
		kvs_workerprocess_wait(LOOK_AGAIN);
		judge(&verification);
	}
	return true;
}
