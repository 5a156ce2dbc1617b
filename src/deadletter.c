/*
 * deadletter.c
 *		SQL functions over dead letters: kv_dead_letters, kv_dead_requeue, kv_dead_requeue_all, kv_dead_delete, kv_dead_purge.
 *
 * Dead letters are rows of kvstore.d_<queue>, whom only statements touch, with the caller's rights: SELECT to list them, SELECT and DELETE for all
 * else, and to send one again INSERT on the queue.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "entry.h"
#include "message.h"
#include "page.h"
#include "progress.h"
#include "queuecatalog.h"
#include "queueplan.h"
#include "shmem.h"
#include "statement.h"

#define DEAD		"kvstore.d_%s"
#define THIS_ID		" WHERE id OPERATOR(pg_catalog.=) $1"
#define RETURNING_MESSAGE " RETURNING payload, priority, headers, max_attempts, backoff"

static const Oid id_types[] = {INT8OID};

/* ---- List ---- */

static void
give_letter(TupleTableSlot *slot, void *arg)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) arg;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, slot->tts_values, slot->tts_isnull);
}

/* kv_dead_letters(queue, max_count, after, id) returns TABLE (...) */
PG_FUNCTION_INFO_V1(kvstore_dead_letters);
Datum
kvstore_dead_letters(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {INT8OID, INT8OID, INT8OID};
	Relation	rel;
	Relation	dead;
	KvsQueue   *queue = kvs_queue_open(kvs_entry_text_arg(fcinfo, 0), AccessShareLock, &rel);
	SPIPlanPtr	plan;
	ParamListInfo params;

	dead = kvs_queue_open_dead(queue, AccessShareLock);
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	params = makeParamList(lengthof(types));
	kvs_page_set_params(params, fcinfo, 1);
	plan = kvs_queue_get_plan(queue, KVS_QUEUE_PLAN_DEAD_LIST,
							  "SELECT id, original_id, payload, headers, error, attempts::pg_catalog.int8, enqueued_at, failed_at "
							  "FROM " DEAD " " KVS_PAGE, lengthof(types), types);
	kvs_statement_query(plan, params, give_letter, fcinfo->resultinfo);
	SPI_finish();
	table_close(dead, NoLock);
	table_close(rel, NoLock);
	return (Datum) 0;
}

/* ---- Delete ---- */

/*
 * Open a queue and its dead letters to change those.  With "all" nobody else may do so, since two that delete all of them, each in the order in which he meets
 * them, would wait for each other in a circle.
 */
static KvsQueue *
open_to_change(FunctionCallInfo fcinfo, const char *function, bool all, Relation *rel)
{
	KvsQueue   *queue;

	PreventCommandIfReadOnly(function);
	queue = kvs_queue_open(kvs_entry_text_arg(fcinfo, 0), RowExclusiveLock, rel);
	table_close(kvs_queue_open_dead(queue, all ? ShareUpdateExclusiveLock : RowExclusiveLock), NoLock);
	return queue;
}

/* Run a statement over all dead letters, or over that of an id. */
static int64
run_on_letters(KvsQueue *queue, KvsQueuePlan which, const char *format, const int64 *id, KvsOnRow on_row, void *arg)
{
	ParamListInfo params = NULL;
	int64		result;

	SPI_connect();
	if (id != NULL)
	{
		params = makeParamList(1);
		kvs_statement_set_param(params, 0, INT8OID, Int64GetDatum(*id), false);
	}
	result = kvs_statement_execute(kvs_queue_get_plan(queue, which, format, id ? 1 : 0, id_types), params, InvalidOid,
								   on_row, arg);
	SPI_finish();
	return result;
}

static int64
id_arg(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		kvs_entry_null_argument("id");
	return PG_GETARG_INT64(1);
}

/* kv_dead_delete(queue, id) returns boolean: false if there is none */
PG_FUNCTION_INFO_V1(kvstore_dead_delete);
Datum
kvstore_dead_delete(PG_FUNCTION_ARGS)
{
	int64		id = id_arg(fcinfo);
	Relation	rel;
	KvsQueue   *queue = open_to_change(fcinfo, "kv_dead_delete()", false, &rel);
	int64		count = run_on_letters(queue, KVS_QUEUE_PLAN_DEAD_DELETE, "DELETE FROM " DEAD THIS_ID, &id, NULL, NULL);

	table_close(rel, NoLock);
	PG_RETURN_BOOL(count > 0);
}

/* kv_dead_purge(queue) returns bigint: how many were deleted */
PG_FUNCTION_INFO_V1(kvstore_dead_purge);
Datum
kvstore_dead_purge(PG_FUNCTION_ARGS)
{
	Relation	rel;
	KvsQueue   *queue = open_to_change(fcinfo, "kv_dead_purge()", true, &rel);
	int64		count = run_on_letters(queue, KVS_QUEUE_PLAN_DEAD_PURGE, "DELETE FROM " DEAD, NULL, NULL, NULL);

	table_close(rel, NoLock);
	PG_RETURN_INT64(count);
}

/* ---- Requeue ---- */

typedef struct Requeue
{
	KvsMessageWriter writer;
	TimestampTz now;
	int64		last_id;
	MemoryContext scratch;
} Requeue;

/* The letter is deleted; what it was becomes a message anew. */
static void
requeue_letter(TupleTableSlot *slot, void *arg)
{
	static const KvsQueueColumn columns[] = {
		KVS_QUEUE_COLUMN_PAYLOAD, KVS_QUEUE_COLUMN_PRIORITY, KVS_QUEUE_COLUMN_HEADERS, KVS_QUEUE_COLUMN_MAX_ATTEMPTS,
		KVS_QUEUE_COLUMN_BACKOFF
	};
	Requeue    *requeue = (Requeue *) arg;
	MemoryContext old = MemoryContextSwitchTo(requeue->scratch);
	KvsMessage	message;
	int			priority = DatumGetInt16(slot->tts_values[1]);

	kvs_message_init(&message, requeue->now);
	for (int i = 1; i < (int) lengthof(columns); i++)
		if (!slot->tts_isnull[i])
			kvs_message_set(&message, columns[i], slot->tts_values[i]);
	/* The owner may have written the table by hand. */
	kvs_message_set(&message, KVS_QUEUE_COLUMN_PRIORITY, Int16GetDatum(Min(Max(priority, 0), KVS_MAX_PRIORITY)));
	kvs_message_insert(&requeue->writer, &message, &slot->tts_values[0], 1, &requeue->last_id);
	kvs_progress_advance();
	MemoryContextSwitchTo(old);
	MemoryContextReset(requeue->scratch);
}

static int64
requeue(KvsQueue *queue, Relation rel, const int64 *id, Requeue *state)
{
	int64		count;

	state->now = GetCurrentTimestamp();
	state->last_id = 0;
	state->scratch = AllocSetContextCreate(CurrentMemoryContext, "kvstore dead letter", ALLOCSET_DEFAULT_SIZES);
	kvs_message_begin(&state->writer, queue, rel);
	count = id != NULL ?
		run_on_letters(queue, KVS_QUEUE_PLAN_DEAD_TAKE, "DELETE FROM " DEAD THIS_ID RETURNING_MESSAGE, id, requeue_letter, state) :
		run_on_letters(queue, KVS_QUEUE_PLAN_DEAD_TAKE_ALL, "DELETE FROM " DEAD RETURNING_MESSAGE, NULL, requeue_letter, state);
	kvs_message_end(&state->writer);
	MemoryContextDelete(state->scratch);
	return count;
}

/* kv_dead_requeue(queue, id) returns bigint: the new message's id, NULL if there is no such dead letter */
PG_FUNCTION_INFO_V1(kvstore_dead_requeue);
Datum
kvstore_dead_requeue(PG_FUNCTION_ARGS)
{
	int64		id = id_arg(fcinfo);
	Requeue		state;
	Relation	rel;
	KvsQueue   *queue = open_to_change(fcinfo, "kv_dead_requeue()", false, &rel);

	kvs_shmem_require("kv_dead_requeue()");
	requeue(queue, rel, &id, &state);
	table_close(rel, NoLock);
	if (state.last_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(state.last_id);
}

/* kv_dead_requeue_all(queue) returns bigint: how many */
PG_FUNCTION_INFO_V1(kvstore_dead_requeue_all);
Datum
kvstore_dead_requeue_all(PG_FUNCTION_ARGS)
{
	Requeue		state;
	Relation	rel;
	KvsQueue   *queue = open_to_change(fcinfo, "kv_dead_requeue_all()", true, &rel);
	int64		count;

	kvs_shmem_require("kv_dead_requeue_all()");
	kvs_progress_begin(KVS_COMMAND_REQUEUE_ALL, queue->relid, -1);
	count = requeue(queue, rel, NULL, &state);
	kvs_progress_end();
	table_close(rel, NoLock);
	PG_RETURN_INT64(count);
}
