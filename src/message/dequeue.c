/*
 * dequeue.c
 *		Which messages a dequeue gives, and in what order.
 *
 * Messages can be in these places, for each priority from the highest: returned ones, in the lease
 * table; those that this transaction has sent itself, which nobody else knows of yet; late ranges;
 * and from the head on.  Shared memory says where to look, and is read before any row (queueslot.c
 * has the reason).  That also ends the expired leases, in memory.
 *
 * A row that can be seen is leased, and then looked at once more.  Its holder may have acknowledged
 * it between our first look and the lease, and the lease table knows nothing of leases that have
 * ended.  The second look cannot miss that, as a lease leaves the table after its commit is
 * visible.  Nor does it miss a session that is deleting the row without a lease: either it sees our
 * lease, or we see its deletion.  If it rolls back, it publishes the row as an arrival again.
 *
 * Nothing here waits for a row, or writes one: a message that has been given up is left to the
 * worker.
 *
 * A scan that passes PASSES entries without giving a message moves the head to where it has come.
 * So dead entries, however many, are passed over once.
 *
 * At REPEATABLE READ and above a message is given only if the transaction's own snapshot sees it,
 * too.  The rows that belong to it must be visible as well.  The head stays before one that the
 * snapshot does not see.  The snapshot is asked before the message is taken, so no delivery is
 * counted of a message that nobody received.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "base/fault.h"
#include "base/guc.h"
#include "base/stats.h"
#include "expiry/expiry.h"
#include "feed/waiter.h"
#include "lease/queuexact.h"
#include "lease/survey.h"
#include "message/dequeue.h"
#include "message/reader.h"
#include "message/receipt.h"

#define PASSES		1000

/* Returned messages whose rows are looked for when a session only asks whether there is one. */
#define LOOKS		100

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
	bool		has_sent;		/* this transaction has sent messages to the queue */
} Dequeue;

/* ---- Giving a message ---- */

static text *
make_receipt(const Dequeue *dequeue, const KvsMessageRef *message, uint64 token)
{
	KvsReceipt	receipt = {
		MyDatabaseId, dequeue->queue->relid, message->id, message->enqueued_at, token, kvs_message_failed(message) + 1
	};

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
	values[3] = Int64GetDatum(kvs_message_failed(message) + 1);
	values[4] = Int64GetDatum(message->priority);
	values[5] = kvs_reader_column(&dequeue->reader, KVS_QUEUE_COLUMN_HEADERS, &nulls[5]);
	values[6] = TimestampTzGetDatum(message->enqueued_at);
	values[7] = TimestampTzGetDatum(dequeue->request->deadline);
	tuplestore_putvalues(dequeue->request->rsinfo->setResult, dequeue->request->rsinfo->setDesc, values, nulls);
	pfree(receipt);
	dequeue->request->given++;
	kvs_stats_add(dequeue->queue->stat, KVS_COUNT_QUEUE_DELIVERED, 1);
	if (kvs_message_failed(message) > 0)
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

/* For the case that this delivery fails, too. */
static void
set_delay(Dequeue *dequeue, KvsMessageRef *message)
{
	message->delay = kvs_reader_backoff(&dequeue->reader, kvs_message_failed(message) + 1);
}

static void
make_it_wait(Dequeue *dequeue, const KvsMessageRef *message, uint64 token)
{
	kvs_lease_defer(dequeue->queue, message, token);
	/* the waiter that holds the timer may have passed over it meanwhile */
	kvs_waiter_wake_one_now(dequeue->queue->relid);
}

/* A message that we have leased turns out to be given up. */
static void
give_up(Dequeue *dequeue, const KvsMessageRef *message, uint64 token)
{
	kvs_lease_drop(dequeue->queue, message, token, false);
	kvs_leasework_doom(dequeue->queue, message);
}

/*
 * A message that we have leased from among the returned ones.  It may have been given a new row
 * before we had the lease, over which others may have passed because of us.
 */
static void
give_returned(Dequeue *dequeue, KvsMessageRef *message, uint64 token)
{
	if (!kvs_reader_fetch(&dequeue->reader, message) || has_expired(dequeue))
		kvs_lease_drop(dequeue->queue, message, token, true);
	else if (kvs_reader_is_being_deleted(&dequeue->reader))
		kvs_lease_drop(dequeue->queue, message, token, false);
	else if (kvs_message_is_doomed(message))
		give_up(dequeue, message, token);
	else if (message->ready_at > dequeue->request->now)
		make_it_wait(dequeue, message, token);	/* our clock may be some time old */
	else
	{
		set_delay(dequeue, message);
		kvs_lease_refresh(dequeue->queue, message, token);
		give(dequeue, message, token);
	}
}

/* ---- One entry of the index ---- */

/* The caller only asks whether there is a message to be given: is this one? */
static bool
count_unleased(Dequeue *dequeue, const KvsMessageRef *message)
{
	if (kvs_leaselook_is_known(dequeue->queue, message))
		return false;
	dequeue->request->given++;
	return true;
}

/*
 * A message that we have leased: its row is looked at once more, and looked for if it is not where
 * it was.
 */
static void
give_if_there(Dequeue *dequeue, KvsMessageRef *message, uint64 token)
{
	switch (kvs_fault_is(KVS_FAULT_NO_RECHECK) ? KVS_ROW_THERE : kvs_reader_look_again(&dequeue->reader))
	{
		case KVS_ROW_THERE:
			give(dequeue, message, token);
			break;
		case KVS_ROW_BEING_DELETED:
			kvs_lease_drop(dequeue->queue, message, token, false);
			break;
		case KVS_ROW_GONE:
			give_returned(dequeue, message, token);
			break;
	}
}

/* What the entry that the scan is at comes to; false: the head must stay before it. */
static bool
take_entry(Dequeue *dequeue)
{
	KvsMessageRef	message = {0};
	uint64		token;
	bool		own;

	if (!kvs_reader_see(&dequeue->reader, &message) || has_expired(dequeue))
		return true;
	if (!is_in_own_snapshot(dequeue))
		return false;
	if (dequeue->request->rsinfo == NULL)
		return kvs_message_is_doomed(&message) || !count_unleased(dequeue, &message);
	if (unlikely(kvs_message_is_doomed(&message)))
	{
		kvs_leasework_doom(dequeue->queue, &message);
		return true;
	}
	kvs_fault_stop(KVS_FAULT_DEQUEUE_SEEN);
	own = dequeue->has_sent && kvs_reader_is_own(&dequeue->reader);
	set_delay(dequeue, &message);
	switch (kvs_queuexact_take(dequeue->queue, &message, dequeue->request->now, dequeue->request->deadline, own, &token))
	{
		case KVS_TAKE_BUSY:
			return true;
		case KVS_TAKE_FULL:
			dequeue->full = true;
			return false;
		case KVS_TAKE_DONE:
			break;
	}
	kvs_fault_stop(KVS_FAULT_DEQUEUE_LEASED);
	give_if_there(dequeue, &message, token);
	return true;
}

/* ---- Sources of messages ---- */

/* At REPEATABLE READ and above: those that our snapshot sees. */
static void
take_returned_if_visible(Dequeue *dequeue, int priority)
{
	KvsMessageRef *messages;
	int			count = kvs_lease_list_ready(dequeue->queue, priority, dequeue->request->now, &messages);
	uint64		token;

	for (int i = 0; i < count && !is_satisfied(dequeue); i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (kvs_reader_fetch(&dequeue->reader, &messages[i]) && is_in_own_snapshot(dequeue) &&
			kvs_queuexact_take(dequeue->queue, &messages[i], dequeue->request->now, dequeue->request->deadline, false,
							   &token) == KVS_TAKE_DONE)
			give_returned(dequeue, &messages[i], token);
	}
	if (messages != NULL)
		pfree(messages);
}

static void
take_returned(Dequeue *dequeue, int priority)
{
	KvsMessageRef	message;
	uint64		token;

	if (dequeue->own_snapshot)
	{
		take_returned_if_visible(dequeue, priority);
		return;
	}
	while (!is_satisfied(dequeue) &&
		   kvs_queuexact_take_returned(dequeue->queue, priority, dequeue->request->now, dequeue->request->deadline, &message, &token))
	{
		CHECK_FOR_INTERRUPTS();
		give_returned(dequeue, &message, token);
	}
}

/* Tell what a scan has come to, now and then and at its end. */
typedef void (*Advance) (Dequeue *dequeue, void *arg, KvsPosition reached, bool at_end);

/*
 * Is there a message for a waiter, right behind where the scan is?  If that takes too long: yes,
 * for the waiter may look itself.
 */
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
		if (kvs_reader_see(&dequeue->reader, &message) && !has_expired(dequeue) && !kvs_message_is_doomed(&message) &&
			!kvs_leaselook_is_known(dequeue->queue, &message))
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
		{
			may_advance = false;
			/* an older version of the same row has the same position */
			if (kvs_position_compare(reached, position) > 0)
				reached = position;
		}
		if (may_advance)
			reached = kvs_position_behind(position);
		if (is_satisfied(dequeue))
			break;
		at_end = may_advance;
		passed = dequeue->request->given > given ? 0 : passed + 1;
		if (may_advance && passed % PASSES == PASSES - 1)
			advance(dequeue, arg, position, false);
	}
	advance(dequeue, arg, reached, at_end);
	if (dequeue->request->given >= dequeue->request->wanted && kvs_waiter_any())
		look_ahead(dequeue);
}

static void
advance_head(Dequeue *dequeue, void *arg, KvsPosition reached, bool at_end)
{
	kvs_fault_stop(KVS_FAULT_DEQUEUE_ADVANCE);
	kvs_survey_advance(dequeue->queue, arg, reached, at_end);
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

	kvs_survey_advance_late(dequeue->queue, range, at_end ? kvs_position_behind(range->high) : reached);
}

static void
scan_late(Dequeue *dequeue, KvsLateRange *range)
{
	scan(dequeue, range->priority, range->low, range->high, advance_late, range);
}

static void
advance_own(Dequeue *dequeue, void *arg, KvsPosition reached, bool at_end)
{
	kvs_queuexact_pass_own(dequeue->queue, *(int *) arg, reached);
}

static void
take_own(Dequeue *dequeue, int priority)
{
	KvsPosition low;
	KvsPosition high;
	int			cursor = 0;

	while (!is_satisfied(dequeue) && kvs_queuexact_next_own(dequeue->queue, priority, &cursor, &low, &high))
		scan(dequeue, priority, low, high, advance_own, &priority);
}

/*
 * Enough was found before all was looked at.  The rest may have become ready by time alone, which
 * wakes one waiter.  Messages that are not ready yet need a waiter that holds the timer.
 */
static void
look_at_the_rest(Dequeue *dequeue)
{
	KvsSurvey	survey;

	kvs_survey_begin(dequeue->queue, dequeue->request->now, true, &survey);
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

/*
 * The caller only asks whether there is a message to be given: is there a returned one?  Entries
 * whose rows are gone are forgotten.
 */
static void
look_at_returned(Dequeue *dequeue)
{
	KvsMessageRef message;

	for (int i = 0; i < LOOKS && kvs_lease_peek_ready(dequeue->queue, dequeue->request->now, &message); i++)
	{
		KvsMessageRef found = message;
		KvsQueueSlot *slot;

		if (kvs_reader_fetch(&dequeue->reader, &found) && !has_expired(dequeue))
		{
			dequeue->request->given++;
			break;
		}
		slot = kvs_queueslot_lock(dequeue->queue);
		kvs_lease_forget(slot, message.id, message.enqueued_at);
		LWLockRelease(slot->lock);
	}
}

/*
 * There is no room for a lease, perhaps because of failures that could not be written down for too
 * long.  A message that was to wait for that does not.
 */
static void
make_room(const Dequeue *dequeue)
{
	int			forgotten = kvs_leasework_make_room();

	if (forgotten > 0)
	{
		kvs_stats_add(dequeue->queue->stat, KVS_COUNT_QUEUE_FORGOTTEN, forgotten);
		ereport(LOG,
				(errmsg("kvstore: failed deliveries of %d messages could not be written down for %d seconds, and are forgotten",
						forgotten, (int) (KVS_LEASE_KEEP / USECS_PER_SEC)),
				 errhint("Check with kv_health() that the workers run, and look at the view kv_leases.")));
	}
}

static void
take_messages(Dequeue *dequeue)
{
	KvsDequeue *request = dequeue->request;
	KvsSurvey	survey;

	kvs_survey_begin(dequeue->queue, request->now, true, &survey);
	kvs_stats_add(dequeue->queue->stat, KVS_COUNT_QUEUE_RETRIED, survey.expired);
	if (survey.expired > 0 && kvs_expirymap_database() != NULL)
		kvs_expiry_lower_next_due(request->now);
	if (request->rsinfo == NULL && survey.returned >= 0)
	{
		look_at_returned(dequeue);
		/* a session that only looks takes none */
		survey.returned = -1;
	}
	if (request->rsinfo == NULL && request->given > 0)
		return;
	kvs_fault_stop(KVS_FAULT_DEQUEUE_SURVEYED);
	request->next = survey.next_due;
	for (int priority = KVS_MAX_PRIORITY; priority >= 0 && !is_satisfied(dequeue); priority--)
		take_priority(dequeue, &survey, priority);
	if (request->rsinfo != NULL && request->given >= request->wanted && !request->more && kvs_waiter_any())
		look_at_the_rest(dequeue);
	if (kvs_expirymap_database() != NULL)
		kvs_expiry_lower_next_due(request->given > 0 ? Min(request->deadline, survey.verify_at) : survey.verify_at);
}

void
kvs_dequeue(KvsDequeue *request, KvsQueue *queue, Relation rel)
{
	Dequeue		dequeue = {.request = request, .queue = queue, .own_snapshot = IsolationUsesXactSnapshot(),
						   .stays = kvs_queue_has_removed(queue), .has_sent = kvs_queuexact_has_sent(queue)};

	request->given = 0;
	request->more = false;
	request->next = DT_NOEND;
	if (request->wanted <= 0 || kvs_queue_is_paused(queue))
		return;
	kvs_reader_begin(&dequeue.reader, queue, rel);
	take_messages(&dequeue);
	if (dequeue.full && request->given == 0)
	{
		make_room(&dequeue);
		dequeue.full = false;
		take_messages(&dequeue);
	}
	kvs_reader_end(&dequeue.reader);
	if (dequeue.full && request->given == 0)
		kvs_lease_raise_full(queue);
}
