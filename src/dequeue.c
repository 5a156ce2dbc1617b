/*
 * dequeue.c
 *		Which messages a dequeue gives, and in what order.
 *
 * Where messages can be, for each priority from the highest: returned ones, in the lease table; those that this transaction has sent itself, which nobody knows
 * of yet; late ranges; and from the head on.  What to look at is read from shared memory before any row is (queueslot.c has the reason).  Leases that
 * have lapsed are ended first.
 *
 * A row that can be seen is leased, and then looked at once more: whoever held it may have acknowledged it between our first look and the lease, and the
 * lease table knows nothing of what is over.  The second look cannot miss that, as a lease leaves the table after its commit is visible.
 *
 * A scan that passes PASSES entries without giving a message tells the head how far it has come, so that however much is dead, it is passed over once.
 *
 * At REPEATABLE READ and above a message is given only if the transaction's own snapshot sees it, too, since the rows that belong to it must be visible as well;
 * the head stays before one that it does not.  Such a transaction does not end leases, either: it could not change the rows.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "arrival.h"
#include "dequeue.h"
#include "expiry.h"
#include "lapse.h"
#include "leasexact.h"
#include "receipt.h"
#include "stats.h"
#include "testing.h"
#include "waiter.h"

#define PASSES		1000

/* Lapsed leases that one dequeue ends. */
#define LAPSES		100

/* Entries that are looked at for a message beyond those that were wanted. */
#define LOOK_AHEAD	10

#define DEQUEUE_COLUMNS	8

/* What a scan goes over. */
typedef struct Dequeue
{
	KvsDequeue *request;
	KvsQueue   *queue;
	KvsReader	reader;
	bool		full;			/* no room for another lease */
	bool		own_snapshot;	/* messages must be visible to it */
	bool		stays;			/* the head: what this transaction has removed is not gone yet */

	/* Returned messages that our snapshot does not see: to be given back. */
	int			npostponed;
	int			postponed_size;
	KvsReceipt *postponed;
} Dequeue;

/* ---- Giving a message ---- */

static text *
make_receipt(const Dequeue *dequeue, const KvsMessageRef *message, uint64 token)
{
	KvsReceipt	receipt = {MyDatabaseId, dequeue->queue->relid, message->id, message->enqueued_at, token};

	return kvs_receipt_to_text(&receipt);
}

static void
give(Dequeue *dequeue, const KvsMessageRef *message, uint64 token)
{
	Datum		values[DEQUEUE_COLUMNS];
	bool		nulls[DEQUEUE_COLUMNS] = {false};
	text	   *receipt = make_receipt(dequeue, message, token);

	values[0] = Int64GetDatum(message->id);
	values[1] = kvs_reader_column(&dequeue->reader, KVS_QUEUE_COLUMN_PAYLOAD, &nulls[1]);
	values[2] = PointerGetDatum(receipt);
	values[3] = Int64GetDatum(message->attempts + message->rollbacks + 1);
	values[4] = Int64GetDatum(message->priority);
	values[5] = kvs_reader_column(&dequeue->reader, KVS_QUEUE_COLUMN_HEADERS, &nulls[5]);
	values[6] = TimestampTzGetDatum(message->enqueued_at);
	values[7] = TimestampTzGetDatum(dequeue->request->deadline);
	tuplestore_putvalues(dequeue->request->rsinfo->setResult, dequeue->request->rsinfo->setDesc, values, nulls);
	pfree(receipt);
	dequeue->request->given++;
	kvs_stats_add(dequeue->queue->stat, KVS_COUNT_QUEUE_DELIVERED, 1);
	if (message->attempts + message->rollbacks > 0)
		kvs_stats_add(dequeue->queue->stat, KVS_COUNT_QUEUE_REDELIVERED, 1);
}

static bool
is_satisfied(const Dequeue *dequeue)
{
	return dequeue->request->given >= dequeue->request->wanted || dequeue->full;
}

static bool
has_expired(const Dequeue *dequeue)
{
	return kvs_reader_has_expired(&dequeue->reader, dequeue->request->now);
}

static bool
is_in_own_snapshot(Dequeue *dequeue)
{
	return !dequeue->own_snapshot || kvs_reader_is_visible(&dequeue->reader, GetActiveSnapshot());
}

static void
postpone(Dequeue *dequeue, const KvsMessageRef *message, uint64 token)
{
	if (dequeue->npostponed == dequeue->postponed_size)
	{
		dequeue->postponed_size = Max(16, 2 * dequeue->postponed_size);
		dequeue->postponed = dequeue->postponed == NULL ? palloc(dequeue->postponed_size * sizeof(KvsReceipt)) :
			repalloc(dequeue->postponed, dequeue->postponed_size * sizeof(KvsReceipt));
	}
	dequeue->postponed[dequeue->npostponed++] = (KvsReceipt) {.id = message->id, .token = token};
}

/*
 * A message that we have leased.  "there": we have seen its row since, in the slot.  Else its row is looked for: it may have been given a new one
 * before we had the lease, over which others may have passed because of us.
 */
static void
give_if_there(Dequeue *dequeue, KvsMessageRef *message, uint64 token, bool there)
{
	if (!there)
	{
		if (!kvs_reader_fetch(&dequeue->reader, message) || has_expired(dequeue))
		{
			kvs_lease_drop(dequeue->queue, message, token);
			return;
		}
		/* our clock may be that of a while ago */
		if (message->ready_at > dequeue->request->now)
		{
			kvs_lease_defer(dequeue->queue, message, token);
			/* who holds the timer may have passed over it meanwhile */
			kvs_waiter_wake_one_now(dequeue->queue->relid);
			return;
		}
		kvs_lease_refresh(dequeue->queue, message, token);
		if (!is_in_own_snapshot(dequeue))
		{
			postpone(dequeue, message, token);
			return;
		}
	}
	give(dequeue, message, token);
}

/* ---- One entry of the index ---- */

/* Somebody wants to know only whether there is something to be given: is this? */
static bool
count_unleased(Dequeue *dequeue, const KvsMessageRef *message)
{
	if (kvs_lease_is_known(dequeue->queue, message))
		return false;
	dequeue->request->given++;
	return true;
}

/* What the entry that the scan is at comes to; false: the head must stay before it. */
static bool
take_entry(Dequeue *dequeue)
{
	KvsMessageRef	message = {0};
	uint64		token;

	if (!kvs_reader_see(&dequeue->reader, &message) || has_expired(dequeue))
		return true;
	if (!is_in_own_snapshot(dequeue))
		return false;
	if (dequeue->request->rsinfo == NULL)
		return !count_unleased(dequeue, &message);
	kvs_testing_stop("dequeue-seen");
	switch (kvs_leasexact_take(dequeue->queue, &message, dequeue->request->now, dequeue->request->deadline, &token))
	{
		case KVS_TAKE_BUSY:
			return true;
		case KVS_TAKE_FULL:
			dequeue->full = true;
			return false;
		case KVS_TAKE_DONE:
			break;
	}
	kvs_testing_stop("dequeue-leased");
	give_if_there(dequeue, &message, token, kvs_reader_is_there(&dequeue->reader) || kvs_testing_is("no-recheck"));
	return true;
}

/* ---- Sources of messages ---- */

static void
give_back_postponed(Dequeue *dequeue)
{
	for (int i = 0; i < dequeue->npostponed; i++)
		kvs_lease_release(dequeue->queue, dequeue->postponed[i].id, &dequeue->postponed[i].token);
}

static void
take_returned(Dequeue *dequeue, int priority)
{
	KvsMessageRef	message;
	uint64		token;

	while (!is_satisfied(dequeue) &&
		   kvs_leasexact_take_returned(dequeue->queue, priority, dequeue->request->now, dequeue->request->deadline, &message, &token))
	{
		CHECK_FOR_INTERRUPTS();
		give_if_there(dequeue, &message, token, false);
	}
}

/* Tell what a scan has come to, now and then and at its end. */
typedef void (*Advance) (Dequeue *dequeue, void *arg, KvsPosition reached, bool at_end);

/* Is there a message for somebody who waits, right behind where the scan is?  When that takes too long: he may look himself. */
static void
look_ahead(Dequeue *dequeue)
{
	KvsMessageRef message = {0};
	KvsPosition position;

	for (int i = 0; i < LOOK_AHEAD; i++)
	{
		if (!kvs_reader_next(&dequeue->reader, &position))
			return;
		if (position.ready_at > dequeue->request->now)
		{
			dequeue->request->next = Min(dequeue->request->next, position.ready_at);
			return;
		}
		if (kvs_reader_see(&dequeue->reader, &message) && !has_expired(dequeue) && !kvs_lease_is_known(dequeue->queue, &message))
			break;
	}
	dequeue->request->more = true;
}

/* Scan one priority from "low" to "high". */
static void
scan(Dequeue *dequeue, int priority, KvsPosition low, KvsPosition high, Advance advance, void *arg)
{
	KvsPosition reached = low;
	KvsPosition position;
	bool		may_advance = !dequeue->stays;
	bool		at_end = may_advance;
	int			passed = 0;

	kvs_reader_scan(&dequeue->reader, priority, low);
	while (kvs_reader_next(&dequeue->reader, &position))
	{
		int64		given = dequeue->request->given;

		CHECK_FOR_INTERRUPTS();
		at_end = false;
		if (position.ready_at > dequeue->request->now || kvs_position_compare(position, high) > 0)
		{
			if (position.ready_at > dequeue->request->now)
				dequeue->request->next = Min(dequeue->request->next, position.ready_at);
			/* there is nothing before it */
			if (may_advance)
				reached = (KvsPosition) {dequeue->request->now, PG_INT64_MIN};
			break;
		}
		if (!take_entry(dequeue))
			may_advance = false;
		if (may_advance)
			reached = kvs_position_behind(position);
		if (is_satisfied(dequeue))
			break;
		at_end = may_advance;
		passed = dequeue->request->given > given ? 0 : passed + 1;
		if (may_advance && passed % PASSES == PASSES - 1)
			advance(dequeue, arg, reached, false);
	}
	advance(dequeue, arg, reached, at_end);
	if (dequeue->request->given >= dequeue->request->wanted && kvs_waiter_any())
		look_ahead(dequeue);
}

static void
advance_head(Dequeue *dequeue, void *arg, KvsPosition reached, bool at_end)
{
	kvs_testing_stop("dequeue-advance");
	kvs_queueslot_advance(dequeue->queue, arg, reached, at_end);
}

static void
scan_from_head(Dequeue *dequeue, KvsHeadScan *head)
{
	scan(dequeue, head->priority, head->start, (KvsPosition) {DT_NOEND, PG_INT64_MAX}, advance_head, head);
}

static void
advance_late(Dequeue *dequeue, void *arg, KvsPosition reached, bool at_end)
{
	KvsLateRange *range = arg;

	kvs_queueslot_advance_late(dequeue->queue, range, at_end ? kvs_position_behind(range->high) : reached);
}

static void
scan_late(Dequeue *dequeue, KvsLateRange *range)
{
	scan(dequeue, range->priority, range->low, range->high, advance_late, range);
}

static void
advance_nothing(Dequeue *dequeue, void *arg, KvsPosition reached, bool at_end)
{
}

static void
take_own(Dequeue *dequeue, int priority)
{
	const KvsOwnRange *range;

	for (int i = 0; (range = kvs_arrival_own(i)) != NULL && !is_satisfied(dequeue); i++)
		if (range->queue.relid == dequeue->queue->relid && range->priority == priority)
			scan(dequeue, priority, range->low, range->high, advance_nothing, NULL);
}

/*
 * Enough was found before all was looked at.  What is left may have become ready by time alone, which wakes one waiter; and what is not ready yet
 * needs one who holds the timer.
 */
static void
look_at_the_rest(Dequeue *dequeue)
{
	KvsSurvey	survey;

	kvs_queueslot_survey(dequeue->queue, dequeue->request->now, &survey);
	dequeue->request->more = survey.returned >= 0 || survey.nlate > 0;
	for (int priority = KVS_MAX_PRIORITY; priority >= 0 && !dequeue->request->more; priority--)
		if (survey.heads[priority].filled)
		{
			kvs_reader_scan(&dequeue->reader, priority, survey.heads[priority].start);
			look_ahead(dequeue);
		}
}

/* ---- All of it ---- */

static void
take_priority(Dequeue *dequeue, KvsSurvey *survey, int priority)
{
	if (survey->returned >= priority)
		take_returned(dequeue, priority);
	take_own(dequeue, priority);
	for (int i = 0; i < survey->nlate && !is_satisfied(dequeue); i++)
		if (survey->late[i].priority == priority)
			scan_late(dequeue, &survey->late[i]);
	if (survey->heads[priority].filled && !is_satisfied(dequeue))
		scan_from_head(dequeue, &survey->heads[priority]);
}

/* Returned messages, or leases to be ended, are something to be given, too. */
static bool
look_at_leases(Dequeue *dequeue, const KvsSurvey *survey)
{
	if (dequeue->request->rsinfo == NULL && (survey->lapsed || survey->returned >= 0))
		dequeue->request->given++;
	return dequeue->request->given > 0;
}

static void
take_messages(Dequeue *dequeue)
{
	KvsDequeue *request = dequeue->request;
	KvsSurvey	survey;

	kvs_queueslot_survey(dequeue->queue, request->now, &survey);
	if (look_at_leases(dequeue, &survey))
		return;
	if (survey.lapsed && !dequeue->own_snapshot && !request->goes_on)
	{
		request->ended = kvs_lapse_end(&dequeue->reader, request->now, LAPSES);
		kvs_queueslot_survey(dequeue->queue, request->now, &survey);
	}
	kvs_testing_stop("dequeue-surveyed");
	request->next = survey.next_due;
	for (int priority = KVS_MAX_PRIORITY; priority >= 0 && !is_satisfied(dequeue); priority--)
		take_priority(dequeue, &survey, priority);
	give_back_postponed(dequeue);
	if (request->rsinfo != NULL && request->given >= request->wanted && !request->more && kvs_waiter_any())
		look_at_the_rest(dequeue);
	if (dequeue->full && request->given == 0)
		kvs_lease_raise_full(dequeue->queue);
	if (request->given > 0 && kvs_expiry_database() != NULL)
		kvs_expiry_lower_next_due(request->deadline);
}

void
kvs_dequeue(KvsDequeue *request, KvsQueue *queue, Relation rel)
{
	Dequeue		dequeue = {.request = request, .queue = queue, .own_snapshot = IsolationUsesXactSnapshot(),
						   .stays = kvs_queue_has_removed(queue)};

	request->given = request->ended = 0;
	request->more = false;
	request->next = DT_NOEND;
	if (queue->paused || request->wanted <= 0)
		return;
	kvs_reader_begin(&dequeue.reader, queue, rel);
	take_messages(&dequeue);
	kvs_reader_end(&dequeue.reader);
}
