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

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "arrival.h"
#include "entry.h"
#include "expiry.h"
#include "lapse.h"
#include "leasexact.h"
#include "queueargs.h"
#include "receipt.h"
#include "testing.h"

#define PASSES		1000

/* Lapsed leases that one dequeue ends. */
#define LAPSES		100

#define DEQUEUE_COLUMNS	8

typedef struct Dequeue
{
	KvsQueue   *queue;
	KvsReader reader;
	TimestampTz now;
	TimestampTz deadline;
	int64		wanted;
	int64		given;
	bool		full;			/* no room for another lease */
	bool		own_snapshot;	/* messages must be visible to it */
	ReturnSetInfo *rsinfo;

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
	values[7] = TimestampTzGetDatum(dequeue->deadline);
	tuplestore_putvalues(dequeue->rsinfo->setResult, dequeue->rsinfo->setDesc, values, nulls);
	pfree(receipt);
	dequeue->given++;
}

static bool
is_satisfied(const Dequeue *dequeue)
{
	return dequeue->given >= dequeue->wanted || dequeue->full;
}

static bool
has_expired(const Dequeue *dequeue)
{
	bool		isnull;
	Datum		expires_at = kvs_reader_column(&dequeue->reader, KVS_QUEUE_COLUMN_EXPIRES_AT, &isnull);

	return !isnull && DatumGetTimestampTz(expires_at) <= dequeue->now;
}

static bool
is_in_own_snapshot(Dequeue *dequeue)
{
	return !dequeue->own_snapshot || kvs_reader_is_visible(&dequeue->reader, GetActiveSnapshot());
}

/* ---- One entry of the index ---- */

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
	kvs_testing_stop("dequeue-seen");
	switch (kvs_leasexact_take(dequeue->queue, &message, dequeue->now, dequeue->deadline, &token))
	{
		case KVS_TAKE_BUSY:
			return true;
		case KVS_TAKE_FULL:
			dequeue->full = true;
			return false;
		case KVS_TAKE_DONE:
			break;
	}
	if (!kvs_reader_is_there(&dequeue->reader) && !kvs_testing_is("no-recheck"))
		kvs_lease_drop(dequeue->queue, &message, token);
	else
		give(dequeue, &message, token);
	return true;
}

/* ---- Sources of messages ---- */

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

static void
give_back_postponed(Dequeue *dequeue)
{
	for (int i = 0; i < dequeue->npostponed; i++)
		kvs_lease_release(dequeue->queue, dequeue->postponed[i].id, dequeue->postponed[i].token);
}

static void
take_returned(Dequeue *dequeue, int priority)
{
	KvsMessageRef	message;
	uint64		token;

	while (!is_satisfied(dequeue) &&
		   kvs_leasexact_take_returned(dequeue->queue, priority, dequeue->now, dequeue->deadline, &message, &token))
	{
		CHECK_FOR_INTERRUPTS();
		if (!kvs_reader_fetch(&dequeue->reader, &message) || has_expired(dequeue) || message.ready_at > dequeue->now)
			kvs_lease_drop(dequeue->queue, &message, token);
		else if (!is_in_own_snapshot(dequeue))
			postpone(dequeue, &message, token);
		else
			give(dequeue, &message, token);
	}
}

/* Tell what a scan has come to, now and then and at its end. */
typedef void (*Advance) (Dequeue *dequeue, void *arg, KvsPosition reached, bool at_end);

/* Scan one priority from "low" to "high". */
static void
scan(Dequeue *dequeue, int priority, KvsPosition low, KvsPosition high, Advance advance, void *arg)
{
	KvsPosition reached = low;
	KvsPosition position;
	bool		may_advance = true;
	bool		at_end = true;
	int			passed = 0;

	kvs_reader_scan(&dequeue->reader, priority, low);
	while (kvs_reader_next(&dequeue->reader, &position))
	{
		int64		given = dequeue->given;

		CHECK_FOR_INTERRUPTS();
		at_end = false;
		if (position.ready_at > dequeue->now || kvs_position_compare(position, high) > 0)
		{
			/* there is nothing before it */
			if (may_advance)
				reached = (KvsPosition) {dequeue->now, PG_INT64_MIN};
			break;
		}
		if (!take_entry(dequeue))
			may_advance = false;
		if (may_advance)
			reached = kvs_position_behind(position);
		if (is_satisfied(dequeue))
			break;
		at_end = may_advance;
		passed = dequeue->given > given ? 0 : passed + 1;
		if (may_advance && passed % PASSES == PASSES - 1)
			advance(dequeue, arg, reached, false);
	}
	advance(dequeue, arg, reached, at_end);
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

static void
take_messages(Dequeue *dequeue)
{
	KvsSurvey	survey;

	kvs_queueslot_survey(dequeue->queue, dequeue->now, &survey);
	if (survey.lapsed && !dequeue->own_snapshot &&
		kvs_lapse_end(&dequeue->reader, dequeue->now, LAPSES) > 0)
		kvs_queueslot_survey(dequeue->queue, dequeue->now, &survey);
	kvs_testing_stop("dequeue-surveyed");
	for (int priority = KVS_MAX_PRIORITY; priority >= 0 && !is_satisfied(dequeue); priority--)
		take_priority(dequeue, &survey, priority);
	give_back_postponed(dequeue);

	/* for the worker */
	if (dequeue->given > 0 && kvs_expiry_database() != NULL)
		kvs_expiry_lower_next_due(dequeue->deadline);
	if (dequeue->full && dequeue->given == 0)
		kvs_lease_raise_full(dequeue->queue);
}

/* kv_dequeue(queue, max_count, lease, wait) returns table */
PG_FUNCTION_INFO_V1(kvstore_dequeue);
Datum
kvstore_dequeue(PG_FUNCTION_ARGS)
{
	Dequeue		dequeue = {0};
	Relation	rel;

	kvs_queueargs_begin("kv_dequeue()");
	dequeue.queue = kvs_queue_open(kvs_entry_text_arg(fcinfo, 0), RowExclusiveLock, &rel);
	kvs_queueargs_check_rights(dequeue.queue, ACL_SELECT | ACL_UPDATE | ACL_DELETE);
	dequeue.wanted = kvs_queueargs_count(fcinfo, 1, 1);
	dequeue.now = kvs_testing_now();
	dequeue.deadline = kvs_queueargs_deadline(fcinfo, 2, dequeue.queue, dequeue.now);
	dequeue.own_snapshot = IsolationUsesXactSnapshot();

	InitMaterializedSRF(fcinfo, 0);
	dequeue.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	if (!dequeue.queue->paused && dequeue.wanted > 0)
	{
		kvs_reader_begin(&dequeue.reader, dequeue.queue, rel);
		take_messages(&dequeue);
		kvs_reader_end(&dequeue.reader);
	}
	table_close(rel, NoLock);
	return (Datum) 0;
}
