/*
 * queueguard.c
 *		The guard's rules for queues and dead letters: what it does with a row that is written by
 *		plain SQL.
 *
 * In a queue every row that the owner writes is an arrival, and must be one that the queue can
 * order and count.  A dead letter may become a message again, in its sender's name, so nobody else
 * may make one up.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "utils/rel.h"

#include "expiry/expiry.h"
#include "lease/queuexact.h"
#include "message/queueguard.h"
#include "table/backoff.h"
#include "table/guard.h"
#include "table/queuecatalog.h"
#include "table/replication.h"

/* Can the queue order and count it? */
static void
check_message(TupleDesc desc, HeapTuple tuple)
{
	bool		isnull;
	Datum		datum = heap_getattr(tuple, KVS_QUEUE_COLUMN_PRIORITY + 1, desc, &isnull);

	if (DatumGetInt16(datum) < 0 || DatumGetInt16(datum) > KVS_MAX_PRIORITY)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("priority must be between 0 and %d", KVS_MAX_PRIORITY)));
	datum = heap_getattr(tuple, KVS_QUEUE_COLUMN_READY_AT + 1, desc, &isnull);
	if (TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(datum)))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("ready_at must not be infinite")));
	datum = heap_getattr(tuple, KVS_QUEUE_COLUMN_ATTEMPTS + 1, desc, &isnull);
	if (DatumGetInt32(datum) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("attempts must not be negative")));
	datum = heap_getattr(tuple, KVS_QUEUE_COLUMN_MAX_ATTEMPTS + 1, desc, &isnull);
	if (!isnull)
		kvs_queue_check_max_attempts(DatumGetInt32(datum));
	datum = heap_getattr(tuple, KVS_QUEUE_COLUMN_BACKOFF + 1, desc, &isnull);
	if (!isnull)
	{
		Interval	delays[KVS_BACKOFF_MAX];

		kvs_backoff_check(DatumGetArrayTypeP(datum), delays);
	}
}

/* What the lease table wants to know of a row. */
static KvsMessageRef
read_message(TupleDesc desc, HeapTuple tuple)
{
	KvsMessageRef row = {0};
	bool		isnull;

	row.id = DatumGetInt64(heap_getattr(tuple, KVS_QUEUE_COLUMN_ID + 1, desc, &isnull));
	row.enqueued_at = DatumGetTimestampTz(heap_getattr(tuple, KVS_QUEUE_COLUMN_ENQUEUED_AT + 1, desc, &isnull));
	row.ready_at = DatumGetTimestampTz(heap_getattr(tuple, KVS_QUEUE_COLUMN_READY_AT + 1, desc, &isnull));
	row.priority = DatumGetInt16(heap_getattr(tuple, KVS_QUEUE_COLUMN_PRIORITY + 1, desc, &isnull));
	return row;
}

/* The row as it has become, after all triggers that change it, whatever their names. */
static void
note_written_message(KvsQueue *queue, Relation rel, HeapTuple tuple)
{
	TupleDesc	desc = RelationGetDescr(rel);
	KvsMessageRef row;
	KvsPosition position;
	bool		never;
	Datum		expires_at = heap_getattr(tuple, KVS_QUEUE_COLUMN_EXPIRES_AT + 1, desc, &never);

	check_message(desc, tuple);
	if (!never)
		kvs_expiry_note(RelationGetRelid(rel), ItemPointerGetBlockNumber(&tuple->t_self), DatumGetTimestampTz(expires_at));
	row = read_message(desc, tuple);
	position = (KvsPosition) {row.ready_at, row.id};
	kvs_queuexact_note_arrival(queue, row.priority, position, position, 1);
}

/* A table that was altered meanwhile is no longer one of ours: its rows are not known. */
static void
after_row(TriggerData *data)
{
	Relation	rel = data->tg_relation;
	KvsQueue   *queue = kvs_queue_find(rel);
	KvsMessageRef old;

	if (queue == NULL)
		return;
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
	{
		note_written_message(queue, rel, data->tg_trigtuple);
		kvs_queuexact_note_count(queue, 1);
		return;
	}
	old = read_message(RelationGetDescr(rel), data->tg_trigtuple);
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
	{
		kvs_queuexact_note_moved(queue, &old);
		note_written_message(queue, rel, data->tg_newtuple);
	}
	else
	{
		kvs_queuexact_note_removed(queue, &old);
		kvs_queuexact_note_count(queue, -1);
	}
}

/* Nobody else has the table, so all leases that there are go with the commit. */
static void
truncate_messages(Relation rel)
{
	kvs_queue_note_removal(RelationGetRelid(rel));
	kvs_queuexact_note_truncated(RelationGetRelid(rel));
}

static HeapTuple
before_row(TriggerData *data)
{
	Relation	rel = data->tg_relation;
	HeapTuple	tuple = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple;

	if (!TRIGGER_FIRED_BY_INSERT(data->tg_event))
		kvs_queue_note_removal(RelationGetRelid(rel));
	if (!TRIGGER_FIRED_BY_DELETE(data->tg_event))
	{
		(void) kvs_queue_of(rel);	/* is it one? */
		kvs_replication_follow(rel, KVS_QUEUE_COLUMN_ID + 1, tuple);
	}
	return tuple;
}

static const KvsGuardRules rules = {
	.prefix = "q_",
	.hint = "Use the kv_* functions, such as kv_enqueue() and kv_ack().",
	.before_row = before_row,
	.after_row = after_row,
	.truncate = truncate_messages
};

/* ---- Dead letters ---- */

static HeapTuple
before_letter(TriggerData *data)
{
	HeapTuple	tuple = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple;

	if (!TRIGGER_FIRED_BY_DELETE(data->tg_event))
		kvs_replication_follow(data->tg_relation, 1, tuple);	/* id */
	return tuple;
}

static const KvsGuardRules letter_rules = {
	.prefix = "d_",
	.hint = "Use the kv_dead_* functions, such as kv_dead_requeue().",
	.before_row = before_letter
};

void
kvs_queueguard_init(void)
{
	kvs_guard_add(&rules);
	kvs_guard_add(&letter_rules);
}
