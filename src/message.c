/*
 * message.c
 *		Messages in: writing rows of a queue.
 *
 * Into a table that has nothing but our columns and indexes rows go straight by the table access method, many at once: to start and
 * end the executor, and a WAL record for each row, would cost more than all the rest.  There is nothing that could conflict: ids come
 * from the sequence.  Everything else is a kept statement, run as the caller: tables with triggers, constraints and indexes of the owner's, callers with rights on
 * single columns only, and messages with a dedupe_key.
 *
 * A sender needs INSERT and nothing else, so no statement here has RETURNING or names the columns of a conflict, which need SELECT: the id is
 * taken from the sequence first.  What a sender learns of a message that is not his own is the id of the one that has his dedupe_key.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
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
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "arrival.h"
#include "compat.h"
#include "guard.h"
#include "leasexact.h"
#include "message.h"
#include "reader.h"
#include "statement.h"

/* Most rows that are handed to the table at once. */
#define BATCH_ROWS	256

void
kvs_message_init(KvsMessage *message, TimestampTz now)
{
	memset(message->values, 0, sizeof(message->values));
	memset(message->nulls, true, sizeof(message->nulls));
	kvs_message_set(message, KVS_QUEUE_COLUMN_READY_AT, TimestampTzGetDatum(now));
	kvs_message_set(message, KVS_QUEUE_COLUMN_ENQUEUED_AT, TimestampTzGetDatum(now));
	kvs_message_set(message, KVS_QUEUE_COLUMN_PRIORITY, Int16GetDatum(0));
	kvs_message_set(message, KVS_QUEUE_COLUMN_ATTEMPTS, Int32GetDatum(0));
}

void
kvs_message_set(KvsMessage *message, KvsQueueColumn column, Datum value)
{
	message->values[column] = value;
	message->nulls[column] = false;
}

static void
take_ids(KvsQueue *queue, int count, int64 *ids)
{
	for (int i = 0; i < count; i++)
		ids[i] = nextval_internal(queue->sequence, false);
}

/* ---- By the table access method ---- */

static bool
is_direct_possible(const KvsQueue *queue)
{
	return queue->plain && pg_class_aclcheck(queue->relid, GetUserId(), ACL_INSERT) == ACLCHECK_OK;
}

/* The two indexes in which every row has an entry. */
typedef struct MessageIndexes
{
	Relation	order;
	Relation	id;
	IndexInfo  *order_info;
	IndexInfo  *id_info;
} MessageIndexes;

static void
open_indexes(const KvsQueue *queue, MessageIndexes *indexes)
{
	indexes->order = index_open(queue->order_index, RowExclusiveLock);
	indexes->id = index_open(queue->id_index, RowExclusiveLock);
	indexes->order_info = BuildIndexInfo(indexes->order);
	indexes->id_info = BuildIndexInfo(indexes->id);
}

static void
close_indexes(MessageIndexes *indexes)
{
	index_close(indexes->order, NoLock);
	index_close(indexes->id, NoLock);
}

static void
insert_index_entries(MessageIndexes *indexes, Relation rel, TupleTableSlot *slot)
{
	Datum		order_values[3] = {
		slot->tts_values[KVS_QUEUE_COLUMN_PRIORITY], slot->tts_values[KVS_QUEUE_COLUMN_READY_AT],
		slot->tts_values[KVS_QUEUE_COLUMN_ID]
	};
	bool		nulls[3] = {false, false, false};

	index_insert(indexes->order, order_values, nulls, &slot->tts_tid, rel, UNIQUE_CHECK_NO, false, indexes->order_info);
	index_insert(indexes->id, &order_values[2], nulls, &slot->tts_tid, rel, UNIQUE_CHECK_YES, false, indexes->id_info);
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

static void
insert_direct(KvsQueue *queue, Relation rel, const KvsMessage *message, const Datum *payloads, int count, const int64 *ids)
{
	int			nslots = Min(count, BATCH_ROWS);
	TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * nslots);
	CommandId	command = GetCurrentCommandId(true);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kvstore messages", ALLOCSET_DEFAULT_SIZES);
	MessageIndexes indexes;

	for (int i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	open_indexes(queue, &indexes);
	for (int done = 0; done < count; done += nslots)
	{
		int			n = Min(nslots, count - done);
		MemoryContext old = MemoryContextSwitchTo(scratch);

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
			fill_slot(slots[i], message, payloads[done + i], ids[done + i]);
		if (n == 1)
			table_tuple_insert(rel, slots[0], command, 0, NULL);
		else
			table_multi_insert(rel, slots, n, command, 0, NULL);
		for (int i = 0; i < n; i++)
			insert_index_entries(&indexes, rel, slots[i]);
		MemoryContextSwitchTo(old);
		for (int i = 0; i < n; i++)
			ExecClearTuple(slots[i]);
		MemoryContextReset(scratch);
	}
	close_indexes(&indexes);
	for (int i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	MemoryContextDelete(scratch);
	CommandCounterIncrement();
}

/* ---- By a statement ---- */

/* Columns that a statement takes as arguments, from $3 on; the first two are id and payload, as arrays. */
static const KvsQueueColumn alike[] = {
	KVS_QUEUE_COLUMN_READY_AT, KVS_QUEUE_COLUMN_ENQUEUED_AT, KVS_QUEUE_COLUMN_PRIORITY, KVS_QUEUE_COLUMN_HEADERS,
	KVS_QUEUE_COLUMN_MAX_ATTEMPTS, KVS_QUEUE_COLUMN_BACKOFF, KVS_QUEUE_COLUMN_EXPIRES_AT, KVS_QUEUE_COLUMN_DEDUPE_KEY,
	KVS_QUEUE_COLUMN_KEYS_IF_UNDELIVERED, KVS_QUEUE_COLUMN_UNDELIVERED_STORE
};

#define INSERT_MESSAGES \
	"INSERT INTO kvstore.q_%s (id, payload, ready_at, enqueued_at, priority, headers, max_attempts, backoff, expires_at, dedupe_key, " \
	"keys_if_undelivered, undelivered_store) " \
	"SELECT n.id, n.payload, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM " \
	"ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS n (id, payload)"

#define INSERT_ARGS (2 + lengthof(alike))

static const Oid insert_types[INSERT_ARGS] = {
	INT8ARRAYOID, JSONBARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT2OID, JSONBOID, INT4OID, INTERVALARRAYOID, TIMESTAMPTZOID, TEXTOID,
	JSONBOID, TEXTOID
};

static SPIPlanPtr
get_insert_plan(KvsQueue *queue, KvsQueuePlan which)
{
	Oid			types[INSERT_ARGS];
	const char *conflict = which == KVS_QUEUE_PLAN_INSERT ? "" : " ON CONFLICT DO NOTHING";

	memcpy(types, insert_types, sizeof(types));
	if (queue->plans[which] == NULL)
		queue->plans[which] = kvs_statement_prepare(psprintf(INSERT_MESSAGES "%s", queue->name, conflict), INSERT_ARGS, types);
	return queue->plans[which];
}

/* Returns how many rows were inserted. */
static uint64
insert_by_statement(KvsQueue *queue, KvsQueuePlan which, const KvsMessage *message, const Datum *payloads, int count,
					const int64 *ids)
{
	Datum	   *id_datums = palloc(sizeof(Datum) * Max(count, 1));
	ArrayType  *id_array;
	ArrayType  *payload_array;
	ParamListInfo params;
	uint64		inserted;

	for (int i = 0; i < count; i++)
		id_datums[i] = Int64GetDatum(ids[i]);
	id_array = construct_array(id_datums, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	payload_array = construct_array(unconstify(Datum *, payloads), count, JSONBOID, -1, false, TYPALIGN_INT);

	SPI_connect();
	params = makeParamList(INSERT_ARGS);
	kvs_statement_set_param(params, 0, INT8ARRAYOID, PointerGetDatum(id_array), false);
	kvs_statement_set_param(params, 1, JSONBARRAYOID, PointerGetDatum(payload_array), false);
	for (int i = 0; i < (int) lengthof(alike); i++)
		kvs_statement_set_param(params, 2 + i, insert_types[2 + i], message->values[alike[i]], message->nulls[alike[i]]);
	inserted = kvs_statement_execute(get_insert_plan(queue, which), params, queue->relid, NULL, NULL);
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

/*
 * Find a row by one of the unique indexes, with a new snapshot that sees what this transaction wrote; all columns deformed.  No right is
 * checked.
 */
static bool
find_row(Relation rel, Oid indexid, RegProcedure equal, Datum value, TupleTableSlot *slot)
{
	Relation	index = index_open(indexid, AccessShareLock);
	Snapshot	snapshot;
	ScanKeyData key;
	IndexScanDesc scan;
	bool		found;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, equal, value);
	key.sk_collation = index->rd_indcollation[0];
	scan = kvs_compat_index_beginscan(rel, index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
	{
		slot_getallattrs(slot);
		ExecMaterializeSlot(slot);
		slot_getallattrs(slot);
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	index_close(index, NoLock);
	return found;
}

/* Note the arrival of each row as it has become. */
static void
note_rows(KvsQueue *queue, Relation rel, int count, int64 *ids)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (find_row(rel, queue->id_index, F_INT8EQ, Int64GetDatum(ids[i]), slot))
		{
			TimestampTz ready_at = DatumGetTimestampTz(slot->tts_values[KVS_QUEUE_COLUMN_READY_AT]);

			kvs_arrival_note(queue, DatumGetInt16(slot->tts_values[KVS_QUEUE_COLUMN_PRIORITY]), ready_at, ids[i],
							 ready_at, ids[i], 1);
		}
		else
			ids[i] = 0;
	}
	ExecDropSingleTupleTableSlot(slot);
}

static void
note_alike(KvsQueue *queue, const KvsMessage *message, int count, const int64 *ids)
{
	TimestampTz ready_at = DatumGetTimestampTz(message->values[KVS_QUEUE_COLUMN_READY_AT]);

	kvs_arrival_note(queue, DatumGetInt16(message->values[KVS_QUEUE_COLUMN_PRIORITY]), ready_at, ids[0],
					 ready_at, ids[count - 1], count);
}

/* ---- What the others call ---- */

void
kvs_message_insert(KvsQueue *queue, Relation rel, const KvsMessage *message, const Datum *payloads, int count, int64 *ids)
{
	if (count == 0)
		return;
	take_ids(queue, count, ids);
	if (is_direct_possible(queue))
		insert_direct(queue, rel, message, payloads, count, ids);
	else
		insert_by_statement(queue, KVS_QUEUE_PLAN_INSERT, message, payloads, count, ids);
	if (unlikely(has_before_triggers(rel)))
		note_rows(queue, rel, count, ids);
	else
		note_alike(queue, message, count, ids);
}

/* Has a row that has expired gone now, with what it kept others from?  Whoever has leased it goes on with it. */
static bool
remove_expired(KvsQueue *queue, Relation rel, TupleTableSlot *slot)
{
	KvsMessageRef ref = {0};
	TM_FailureData failure;

	kvs_reader_describe(queue, slot, &ref);
	if (!queue->plain || !kvs_leasexact_try_end(queue, &ref))
		return false;
	switch (table_tuple_delete(rel, &slot->tts_tid, GetCurrentCommandId(true), InvalidSnapshot, InvalidSnapshot, true,
							   &failure, false))
	{
		case TM_Ok:
		case TM_Updated:
		case TM_Deleted:
			CommandCounterIncrement();
			return true;		/* or changed: look again */
		default:
			return false;
	}
}

/* The message that has the dedupe_key; 0 if there is none any more. */
static int64
find_present(KvsQueue *queue, Relation rel, const KvsMessage *message, TimestampTz now)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int64		id = 0;

	if (find_row(rel, queue->dedupe_index, F_TEXTEQ, message->values[KVS_QUEUE_COLUMN_DEDUPE_KEY], slot))
	{
		bool		expired = !slot->tts_isnull[KVS_QUEUE_COLUMN_EXPIRES_AT] &&
			DatumGetTimestampTz(slot->tts_values[KVS_QUEUE_COLUMN_EXPIRES_AT]) <= now;

		if (!expired || !remove_expired(queue, rel, slot))
			id = DatumGetInt64(slot->tts_values[KVS_QUEUE_COLUMN_ID]);
	}
	ExecDropSingleTupleTableSlot(slot);
	return id;
}

int64
kvs_message_insert_unless_present(KvsQueue *queue, Relation rel, const KvsMessage *message, Datum payload, TimestampTz now)
{
	int64		id;

	/* The statement waits for who is inserting or deleting the one that has the key; it may be gone again when we look for it. */
	for (;;)
	{
		int64		present;

		CHECK_FOR_INTERRUPTS();
		take_ids(queue, 1, &id);
		if (insert_by_statement(queue, KVS_QUEUE_PLAN_INSERT_UNLESS_PRESENT, message, &payload, 1, &id) > 0)
			break;
		present = find_present(queue, rel, message, now);
		if (present != 0)
			return present;
		if (has_before_triggers(rel))
			return 0;			/* it is a trigger that keeps the row out */
	}
	if (unlikely(has_before_triggers(rel)))
		note_rows(queue, rel, 1, &id);
	else
		note_alike(queue, message, 1, &id);
	return id;
}
