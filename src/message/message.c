/*
 * message.c
 *		Messages in: writing rows of a queue.
 *
 * If a table has nothing but our columns and indexes, rows go straight in by the table access
 * method, many at once.  To start and end the executor, and a WAL record for each row, would cost
 * more than all the rest.  Nothing can conflict: ids come from the sequence.  Everything else is a
 * kept statement, run as the caller: tables with triggers, constraints or indexes of the owner's,
 * callers with rights on single columns only, and messages with a dedupe_key.
 *
 * A sender needs INSERT and nothing else.  RETURNING, and the columns of a conflict, would need
 * SELECT, so no statement here has them: the id is taken from the sequence first.  Of other
 * senders' messages, a sender learns only the id of the one that has its dedupe_key.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"

#include "base/stats.h"
#include "expiry/expiry.h"
#include "lease/queuexact.h"
#include "message/message.h"
#include "message/reader.h"
#include "message/settle.h"
#include "table/plan.h"
#include "table/queueplan.h"
#include "table/shape.h"

/* Most rows that are handed to the table at once. */
#define BATCH_ROWS	256

/*
 * So often a message whose dedupe_key nobody seems to have is tried, before it is sent without
 * regard to that.
 */
#define PRESENT_ATTEMPTS 20

/* And so often before it is taken for granted that a trigger of the owner's keeps it out. */
#define TRIGGER_ATTEMPTS 2

/*
 * The longest sleep while another session removes it, in microseconds; of PRESENT_ATTEMPTS, which
 * make three seconds.
 */
#define LONGEST_SLEEP	250000L

void
kvs_message_init(KvsMessage *message, TimestampTz now)
{
	memset(message->values, 0, sizeof(message->values));
	memset(message->nulls, true, sizeof(message->nulls));
	kvs_message_set(message, KVS_QUEUE_COLUMN_READY_AT, TimestampTzGetDatum(now));
	kvs_message_set(message, KVS_QUEUE_COLUMN_ENQUEUED_AT, TimestampTzGetDatum(now));
	kvs_message_set(message, KVS_QUEUE_COLUMN_PRIORITY, Int16GetDatum(0));
	kvs_message_set(message, KVS_QUEUE_COLUMN_ATTEMPTS, Int32GetDatum(0));
	kvs_message_set(message, KVS_QUEUE_COLUMN_SENDER, CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)));
}

void
kvs_message_set(KvsMessage *message, KvsQueueColumn column, Datum value)
{
	message->values[column] = value;
	message->nulls[column] = false;
}

/* ---- By the table access method ---- */

static void
open_indexes(KvsMessageWriter *writer)
{
	if (writer->order_index != NULL)
		return;
	writer->order_index = index_open(writer->queue->order_index, RowExclusiveLock);
	writer->id_index = index_open(writer->queue->id_index, RowExclusiveLock);
	writer->order_info = BuildIndexInfo(writer->order_index);
	writer->id_info = BuildIndexInfo(writer->id_index);
}

/*
 * In the two indexes in which every row has an entry; that of dedupe_key has none for a row without
 * one.
 */
static void
insert_index_entries(KvsMessageWriter *writer, TupleTableSlot *slot)
{
	Datum		order_values[3] = {
		slot->tts_values[KVS_QUEUE_COLUMN_PRIORITY], slot->tts_values[KVS_QUEUE_COLUMN_READY_AT],
		slot->tts_values[KVS_QUEUE_COLUMN_ID]
	};
	bool		nulls[3] = {false, false, false};

	index_insert(writer->order_index, order_values, nulls, &slot->tts_tid, writer->rel, UNIQUE_CHECK_NO, false,
				 writer->order_info);
	index_insert(writer->id_index, &order_values[2], nulls, &slot->tts_tid, writer->rel, UNIQUE_CHECK_YES, false,
				 writer->id_info);
}

/* The row in the slot is to be removed when its time is over. */
static void
note_expiry(KvsMessageWriter *writer, TupleTableSlot *slot)
{
	if (!slot->tts_isnull[KVS_QUEUE_COLUMN_EXPIRES_AT])
		kvs_expiry_note(writer->queue->relid, ItemPointerGetBlockNumber(&slot->tts_tid),
						DatumGetTimestampTz(slot->tts_values[KVS_QUEUE_COLUMN_EXPIRES_AT]));
}

static void
fill_slot(TupleTableSlot *slot, const KvsMessage *message, Datum payload, int64 id)
{
	memcpy(slot->tts_values, message->values, sizeof(message->values));
	memcpy(slot->tts_isnull, message->nulls, sizeof(message->nulls));
	slot->tts_values[KVS_QUEUE_COLUMN_ID] = Int64GetDatum(id);
	slot->tts_isnull[KVS_QUEUE_COLUMN_ID] = false;
	slot->tts_values[KVS_QUEUE_COLUMN_PAYLOAD] = payload;
	slot->tts_isnull[KVS_QUEUE_COLUMN_PAYLOAD] = false;
	ExecStoreVirtualTuple(slot);
}

/* Write up to as many rows as there are slots. */
static void
insert_batch(KvsMessageWriter *writer, TupleTableSlot **slots, int count)
{
	CommandId	command = GetCurrentCommandId(true);

	if (count == 1)
		table_tuple_insert(writer->rel, slots[0], command, 0, NULL);
	else
		table_multi_insert(writer->rel, slots, count, command, 0, NULL);
	for (int i = 0; i < count; i++)
	{
		insert_index_entries(writer, slots[i]);
		note_expiry(writer, slots[i]);
	}
}

static void
insert_direct(KvsMessageWriter *writer, const KvsMessage *message, const Datum *payloads, int count, const int64 *ids)
{
	int			nslots = Min(count, BATCH_ROWS);
	TupleTableSlot *slots[BATCH_ROWS];
	MemoryContext scratch = NULL;
	/* the copy is not counted; to pin and unpin the original for each slot takes longer */
	TupleDesc	desc = nslots == 1 ? RelationGetDescr(writer->rel) : CreateTupleDescCopy(RelationGetDescr(writer->rel));

	if (count > BATCH_ROWS)
		scratch = AllocSetContextCreate(CurrentMemoryContext, "kvstore messages", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	open_indexes(writer);
	for (int done = 0; done < count; done += nslots)
	{
		int			n = Min(nslots, count - done);
		MemoryContext old = MemoryContextSwitchTo(scratch ? scratch : CurrentMemoryContext);

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
			fill_slot(slots[i], message, payloads[done + i], ids[done + i]);
		insert_batch(writer, slots, n);
		for (int i = 0; i < n; i++)
			ExecClearTuple(slots[i]);
		MemoryContextSwitchTo(old);
		if (scratch != NULL)
			MemoryContextReset(scratch);
	}
	for (int i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	if (scratch != NULL)
		MemoryContextDelete(scratch);
}

/* ---- By a statement ---- */

/*
 * Columns that a statement takes as arguments, from $3 on; the first two are id and payload, as
 * arrays.
 */
static const KvsQueueColumn alike[] = {
	KVS_QUEUE_COLUMN_READY_AT, KVS_QUEUE_COLUMN_ENQUEUED_AT, KVS_QUEUE_COLUMN_PRIORITY, KVS_QUEUE_COLUMN_HEADERS,
	KVS_QUEUE_COLUMN_MAX_ATTEMPTS, KVS_QUEUE_COLUMN_BACKOFF, KVS_QUEUE_COLUMN_EXPIRES_AT, KVS_QUEUE_COLUMN_DEDUPE_KEY,
	KVS_QUEUE_COLUMN_KEYS_IF_UNDELIVERED, KVS_QUEUE_COLUMN_UNDELIVERED_STORE, KVS_QUEUE_COLUMN_SENDER
};

#define INSERT_MESSAGES \
	"INSERT INTO kvstore.q_%s (id, payload, ready_at, enqueued_at, priority, headers, max_attempts, backoff, expires_at, dedupe_key, " \
	"keys_if_undelivered, undelivered_store, sender) " \
	"SELECT n.id, n.payload, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 FROM " \
	"ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS n (id, payload)"

#define INSERT_ARGS (2 + lengthof(alike))

static const Oid insert_types[INSERT_ARGS] = {
	INT8ARRAYOID, JSONBARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT2OID, JSONBOID, INT4OID, INTERVALARRAYOID, TIMESTAMPTZOID, TEXTOID,
	JSONBOID, TEXTOID, TEXTOID
};

/* Returns how many rows were inserted. */
static uint64
insert_by_statement(KvsQueue *queue, bool unless_present, const KvsMessage *message, const Datum *payloads, int count,
					const int64 *ids)
{
	Datum	   *id_datums = palloc(sizeof(Datum) * Max(count, 1));
	ArrayType  *id_array;
	ArrayType  *payload_array;
	ParamListInfo params;
	SPIPlanPtr	plan;
	uint64		inserted;

	for (int i = 0; i < count; i++)
		id_datums[i] = Int64GetDatum(ids[i]);
	id_array = construct_array(id_datums, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	payload_array = construct_array(unconstify(Datum *, payloads), count, JSONBOID, -1, false, TYPALIGN_INT);

	SPI_connect();
	params = makeParamList(INSERT_ARGS);
	kvs_plan_set_param(params, 0, INT8ARRAYOID, PointerGetDatum(id_array), false);
	kvs_plan_set_param(params, 1, JSONBARRAYOID, PointerGetDatum(payload_array), false);
	for (int i = 0; i < (int) lengthof(alike); i++)
		kvs_plan_set_param(params, 2 + i, insert_types[2 + i], message->values[alike[i]], message->nulls[alike[i]]);
	plan = unless_present ?
		kvs_queue_get_plan(queue, KVS_QUEUE_PLAN_INSERT_UNLESS_PRESENT, INSERT_MESSAGES " ON CONFLICT DO NOTHING",
						   INSERT_ARGS, insert_types) :
		kvs_queue_get_plan(queue, KVS_QUEUE_PLAN_INSERT, INSERT_MESSAGES, INSERT_ARGS, insert_types);
	inserted = kvs_plan_execute(plan, params, queue->relid, NULL, NULL);
	SPI_finish();
	return inserted;
}

/* ---- What was written ---- */

/* May triggers of the owner's have changed the row, or kept it out? */
static bool
has_before_triggers(Relation rel)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW, TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_INSERT) &&
			strcmp(trigger->tgname, KVS_GUARD_TRIGGER) != 0)
			return true;
	}
	return false;
}

static void
note_arrival(KvsMessageWriter *writer, int priority, TimestampTz ready_at, int64 first_id, int64 last_id, int64 count)
{
	KvsArrived *arrived = &writer->arrived[priority];

	if (arrived->count == 0 || ready_at < arrived->low_ready_at ||
		(ready_at == arrived->low_ready_at && first_id < arrived->low_id))
	{
		arrived->low_ready_at = ready_at;
		arrived->low_id = first_id;
	}
	if (arrived->count == 0 || ready_at > arrived->high_ready_at ||
		(ready_at == arrived->high_ready_at && last_id > arrived->high_id))
	{
		arrived->high_ready_at = ready_at;
		arrived->high_id = last_id;
	}
	arrived->count += count;
}

/* A statement does not tell where it has put the rows. */
static void
find_expiry(KvsMessageWriter *writer, int count, const int64 *ids)
{
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);

	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (kvs_messageremove_find(writer->rel, writer->queue->id_index, F_INT8EQ, Int64GetDatum(ids[i]), slot))
			note_expiry(writer, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* Note each row that the statement has written, as the triggers have left it. */
static void
note_changed(KvsMessageWriter *writer, int count, int64 *ids, uint64 written)
{
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);
	uint64		found = 0;

	for (int i = 0; i < count; i++)
	{
		int			priority;

		CHECK_FOR_INTERRUPTS();
		if (!kvs_messageremove_find(writer->rel, writer->queue->id_index, F_INT8EQ, Int64GetDatum(ids[i]), slot))
		{
			ids[i] = 0;
			continue;
		}
		found++;
		note_expiry(writer, slot);
		priority = DatumGetInt16(slot->tts_values[KVS_QUEUE_COLUMN_PRIORITY]);
		if (priority < 0 || priority > KVS_MAX_PRIORITY)
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION),
					 errmsg("a trigger of table \"%s\" gave a message priority %d", RelationGetRelationName(writer->rel), priority)));
		note_arrival(writer, priority, DatumGetTimestampTz(slot->tts_values[KVS_QUEUE_COLUMN_READY_AT]), ids[i], ids[i], 1);
	}
	ExecDropSingleTupleTableSlot(slot);
	/* nobody would be told that it is there */
	if (found < written)
		kvs_settle_raise_renamed(writer->rel);
}

static void
note_written(KvsMessageWriter *writer, bool by_statement, const KvsMessage *message, int count, int64 *ids, uint64 written)
{
	if (unlikely(writer->changed))
		note_changed(writer, count, ids, written);
	else
		note_arrival(writer, DatumGetInt16(message->values[KVS_QUEUE_COLUMN_PRIORITY]),
					 DatumGetTimestampTz(message->values[KVS_QUEUE_COLUMN_READY_AT]), ids[0], ids[count - 1], count);
	if (by_statement && !writer->changed && !message->nulls[KVS_QUEUE_COLUMN_EXPIRES_AT])
		find_expiry(writer, count, ids);
}

/* ---- What the others call ---- */

void
kvs_message_begin(KvsMessageWriter *writer, KvsQueue *queue, Relation rel)
{
	memset(writer, 0, sizeof(*writer));
	writer->queue = queue;
	writer->rel = rel;
	writer->direct = queue->plain && pg_class_aclcheck(queue->relid, GetUserId(), ACL_INSERT) == ACLCHECK_OK;
	writer->changed = !queue->plain && has_before_triggers(rel);
}

void
kvs_message_insert(KvsMessageWriter *writer, const KvsMessage *message, const Datum *payloads, int count, int64 *ids)
{
	uint64		written = count;

	writer->present = false;
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		ids[i] = nextval_internal(writer->queue->sequence, false);
	}
	/*
	 * run the statement also when there is nothing to send: it refuses a caller without the right
	 */
	if (!writer->direct)
		written = insert_by_statement(writer->queue, false, message, payloads, count, ids);
	else if (count > 0)
		insert_direct(writer, message, payloads, count, ids);
	if (count > 0)
		note_written(writer, !writer->direct, message, count, ids, written);
}

void
kvs_message_end(KvsMessageWriter *writer)
{
	if (writer->order_index != NULL)
	{
		index_close(writer->order_index, NoLock);
		index_close(writer->id_index, NoLock);
		CommandCounterIncrement();
	}
	for (int priority = 0; priority <= KVS_MAX_PRIORITY; priority++)
	{
		KvsArrived *arrived = &writer->arrived[priority];

		if (arrived->count == 0)
			continue;
		kvs_queuexact_note_count(writer->queue, arrived->count);
		kvs_queuexact_note_arrival(writer->queue, priority, (KvsPosition) {arrived->low_ready_at, arrived->low_id},
								   (KvsPosition) {arrived->high_ready_at, arrived->high_id}, arrived->count);
		kvs_stats_add(writer->queue->stat, KVS_COUNT_QUEUE_ENQUEUED, arrived->count);
	}
}

/* ---- With a dedupe_key ---- */

/* By a statement if the owner's triggers have to run; the sender need not be allowed to delete. */
static KvsRemoval
remove_row(KvsMessageWriter *writer, TupleTableSlot *slot, const KvsMessageRef *ref)
{
	if (writer->queue->plain)
		return kvs_messageremove_remove(writer->rel, slot, true);
	if (kvs_settle_delete_as_owner(writer->queue, ref))
		return KVS_REMOVED;
	/* a trigger may have kept it, or another session was quicker */
	return kvs_messageremove_find(writer->rel, writer->queue->id_index, F_INT8EQ, Int64GetDatum(ref->id), slot) ? KVS_REMOVAL_BUSY : KVS_REMOVAL_GONE;
}

/* What has become of the message that kept one with the same dedupe_key out. */
typedef enum Holder
{
	HOLDER_LIVES,
	HOLDER_NONE,				/* it has gone, or there never was one */
	HOLDER_EXPIRED,				/* it had expired: this transaction has removed it, or its key */
	HOLDER_GOING				/* it has expired, and another session has begun to remove it */
} Holder;

/*
 * An expired message is still being processed, or a trigger of the owner's keeps it.  It stays,
 * without its key.  If the owner keeps the key, too, the INSERT without regard to it fails.
 */
static Holder
free_key(KvsMessageWriter *writer, TupleTableSlot *slot, const KvsMessageRef *ref)
{
	KvsPosition position = {ref->ready_at, ref->id};
	bool		never = slot->tts_isnull[KVS_QUEUE_COLUMN_EXPIRES_AT];
	TimestampTz expires_at = DatumGetTimestampTz(slot->tts_values[KVS_QUEUE_COLUMN_EXPIRES_AT]);

	/* until this transaction ends, others pass over it */
	kvs_queuexact_note_moved(writer->queue, ref);
	kvs_queuexact_note_arrival(writer->queue, ref->priority, position, position, 0);
	if (!kvs_settle_free_key_as_owner(writer->queue, ref))
		return HOLDER_EXPIRED;
	if (!kvs_messageremove_find(writer->rel, writer->queue->id_index, F_INT8EQ, Int64GetDatum(ref->id), slot))
		kvs_settle_raise_renamed(writer->rel);
	if (!never)
		kvs_expiry_note(writer->queue->relid, ItemPointerGetBlockNumber(&slot->tts_tid), expires_at);
	return HOLDER_EXPIRED;
}

/* Remove an expired message, and with it the hold on its key, unless a consumer has leased it. */
static Holder
remove_expired(KvsMessageWriter *writer, TupleTableSlot *slot)
{
	KvsMessageRef ref = {0};
	KvsRemoval	removal;
	bool		own;

	kvs_reader_describe(writer->queue, slot, &ref);
	if (kvs_queuexact_mark(writer->queue, &ref) == KVS_MARK_HELD)
	{
		if (!kvs_queuexact_is_ending(writer->queue, &ref, &own))
			return free_key(writer, slot, &ref);
		if (!own)
			return HOLDER_GOING;
		/* one that this transaction has put back need not stay */
	}
	removal = remove_row(writer, slot, &ref);
	if (removal == KVS_REMOVAL_BUSY)
		return free_key(writer, slot, &ref);
	if (removal == KVS_REMOVED)
	{
		kvs_queuexact_note_count(writer->queue, -1);
		kvs_stats_add(writer->queue->stat, KVS_COUNT_QUEUE_EXPIRED, 1);
	}
	return HOLDER_EXPIRED;
}

/* One that is given up keeps its key until it is a dead letter. */
static bool
has_expired(TupleTableSlot *slot, TimestampTz now)
{
	return slot->tts_isnull[KVS_QUEUE_COLUMN_FAILED_AT] && !slot->tts_isnull[KVS_QUEUE_COLUMN_EXPIRES_AT] &&
		DatumGetTimestampTz(slot->tts_values[KVS_QUEUE_COLUMN_EXPIRES_AT]) <= now;
}

/* Look for the message that has the dedupe_key; "id" is that of one that has not expired. */
static Holder
find_holder(KvsMessageWriter *writer, const KvsMessage *message, TimestampTz now, int64 *id)
{
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);
	Holder		holder = HOLDER_NONE;

	if (kvs_messageremove_find(writer->rel, writer->queue->dedupe_index, F_TEXTEQ, message->values[KVS_QUEUE_COLUMN_DEDUPE_KEY],
						 slot))
	{
		*id = DatumGetInt64(slot->tts_values[KVS_QUEUE_COLUMN_ID]);
		holder = has_expired(slot, now) ? remove_expired(writer, slot) : HOLDER_LIVES;
	}
	ExecDropSingleTupleTableSlot(slot);
	return holder;
}

bool
kvs_message_is_key_in_use(KvsQueue *queue, Relation rel, Datum key, TimestampTz now)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		result = kvs_messageremove_find(rel, queue->dedupe_index, F_TEXTEQ, key, slot) && !has_expired(slot, now);

	ExecDropSingleTupleTableSlot(slot);
	return result;
}

/* The session that removes it has no lock yet on which one could wait. */
static void
wait_for_removal(int attempt)
{
	if (attempt == PRESENT_ATTEMPTS)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the message that has this dedupe_key has expired, and another transaction is removing it"),
				 errhint("Retry the transaction.")));
	pg_usleep(Min(1000L << attempt, LONGEST_SLEEP));
}

int64
kvs_message_insert_unless_present(KvsMessageWriter *writer, const KvsMessage *message, Datum payload, TimestampTz now)
{
	int64		id;
	int			nobody = 0;

	writer->present = false;
	/*
	 * The statement waits for the session that is inserting or deleting the message that has the
	 * key.  The message may be gone again when we look for it.  A session that has claimed an
	 * expired one is about to delete it.  If it is never there, a unique index of the owner's keeps
	 * the row out, or an id that the owner has inserted by plain SQL: a plain INSERT says which.
	 */
	for (int attempt = 1;; attempt++)
	{
		bool		unless_present = attempt <= PRESENT_ATTEMPTS;
		Holder		holder;
		int64		holder_id;

		CHECK_FOR_INTERRUPTS();
		id = nextval_internal(writer->queue->sequence, false);
		if (insert_by_statement(writer->queue, unless_present, message, &payload, 1, &id) > 0)
			break;
		holder = find_holder(writer, message, now, &holder_id);
		if (holder == HOLDER_LIVES)
		{
			writer->present = true;
			return holder_id;
		}
		if (holder == HOLDER_GOING)
			wait_for_removal(attempt);
		if (holder == HOLDER_NONE)
			nobody++;
		if (!unless_present || (writer->changed && nobody == TRIGGER_ATTEMPTS))
			return 0;			/* it is a trigger that keeps the row out */
	}
	note_written(writer, true, message, 1, &id, 1);
	return id;
}
