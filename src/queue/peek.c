/*
 * peek.c
 *		SQL function that looks at messages without taking them: kv_peek.
 *
 * The executor reads the rows, with the caller's rights and snapshot.  Shared memory says whether
 * one is leased.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/args.h"
#include "base/shmem.h"
#include "lease/lease.h"
#include "queue/page.h"
#include "table/plan.h"
#include "table/queuecatalog.h"
#include "table/queueplan.h"

/* Columns of the statement, in the order of the function's, but for two that it lacks. */
#define PEEK \
	"SELECT id, payload, ready_at, priority::pg_catalog.int8, attempts::pg_catalog.int8, " \
	"COALESCE(max_attempts, $4)::pg_catalog.int8, headers, dedupe_key, last_error, enqueued_at, expires_at, failed_at " \
	"FROM kvstore.q_%s " KVS_PAGE

enum
{
	ROW_ID,
	ROW_PAYLOAD,
	ROW_READY_AT,
	ROW_PRIORITY,
	ROW_ATTEMPTS,
	ROW_MAX_ATTEMPTS,
	ROW_HEADERS,
	ROW_DEDUPE_KEY,
	ROW_LAST_ERROR,
	ROW_ENQUEUED_AT,
	ROW_EXPIRES_AT,
	ROW_FAILED_AT
};

/* Columns of the result. */
#define PEEK_COLUMNS	12

typedef struct Peek
{
	KvsQueue   *queue;
	ReturnSetInfo *rsinfo;
	TimestampTz now;
} Peek;

/* What is known of a message in memory and in its row. */
static const char *
status_of(const Peek *peek, const TupleTableSlot *slot, const KvsLeaseInfo *info)
{
	if (info->delivered)
		return "leased";
	if (!slot->tts_isnull[ROW_FAILED_AT] || (info->state == KVS_LEASE_RETURNED && kvs_message_is_doomed(&info->message)))
		return "dying";
	if (info->state == KVS_LEASE_ENDING)
		return "leased";
	return Max(DatumGetTimestampTz(slot->tts_values[ROW_READY_AT]), info->due) > peek->now ? "delayed" : "ready";
}

static void
give_message(TupleTableSlot *slot, void *arg)
{
	static const int sources[PEEK_COLUMNS] = {
		ROW_ID, ROW_PAYLOAD, -1, ROW_READY_AT, ROW_PRIORITY, ROW_ATTEMPTS, ROW_MAX_ATTEMPTS, ROW_HEADERS, ROW_DEDUPE_KEY,
		ROW_LAST_ERROR, ROW_ENQUEUED_AT, -1
	};
	Peek	   *peek = (Peek *) arg;
	Datum		values[PEEK_COLUMNS] = {0};
	bool		nulls[PEEK_COLUMNS];
	KvsLeaseInfo info = {.state = KVS_LEASE_NONE, .due = DT_NOBEGIN};
	const char *status;

	if (kvs_shared != NULL)
		(void) kvs_leaselook_find(peek->queue, DatumGetInt64(slot->tts_values[ROW_ID]),
							  DatumGetTimestampTz(slot->tts_values[ROW_ENQUEUED_AT]), &info);
	status = status_of(peek, slot, &info);
	/*
	 * A consumer that has it may finish it, and one that is given up is moved.  For all others it
	 * is gone.
	 */
	if (info.state == KVS_LEASE_NONE && slot->tts_isnull[ROW_FAILED_AT] && !slot->tts_isnull[ROW_EXPIRES_AT] &&
		DatumGetTimestampTz(slot->tts_values[ROW_EXPIRES_AT]) <= peek->now)
		return;
	for (int i = 0; i < PEEK_COLUMNS; i++)
	{
		nulls[i] = sources[i] < 0 || slot->tts_isnull[sources[i]];
		if (!nulls[i])
			values[i] = slot->tts_values[sources[i]];
	}
	values[2] = CStringGetTextDatum(status);
	nulls[2] = false;
	if (info.state == KVS_LEASE_RETURNED && !kvs_message_is_doomed(&info.message))
		values[3] = TimestampTzGetDatum(Max(DatumGetTimestampTz(values[3]), info.due));
	values[5] = Int64GetDatum(DatumGetInt64(values[5]) + info.message.failures);
	values[11] = TimestampTzGetDatum(info.due);
	nulls[11] = !info.delivered;
	tuplestore_putvalues(peek->rsinfo->setResult, peek->rsinfo->setDesc, values, nulls);
}

/* kv_peek(queue, max_count, after, id) returns TABLE (...) */
PG_FUNCTION_INFO_V1(kvstore_peek);
Datum
kvstore_peek(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {INT8OID, INT8OID, INT8OID, INT4OID};
	Relation	rel;
	Peek		peek;
	ParamListInfo params;

	peek.queue = kvs_queue_open(kvs_args_text(fcinfo, 0), AccessShareLock, &rel);
	peek.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	peek.now = GetCurrentTimestamp();
	InitMaterializedSRF(fcinfo, 0);

	SPI_connect();
	params = makeParamList(lengthof(types));
	kvs_page_set_params(params, fcinfo, 1);
	kvs_plan_set_param(params, 3, INT4OID, Int32GetDatum(peek.queue->max_attempts), false);
	kvs_plan_query(kvs_queue_get_plan(peek.queue, KVS_QUEUE_PLAN_PEEK, PEEK, lengthof(types), types), params,
						give_message, &peek);
	SPI_finish();
	table_close(rel, NoLock);
	return (Datum) 0;
}
