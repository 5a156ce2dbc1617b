/*
 * deadletter.c
 *		SQL functions over dead letters: kv_dead_letters, kv_dead_delete, kv_dead_purge.
 *
 * Dead letters are rows of kvstore.d_<queue>, which only statements touch, with the caller's
 * rights.  To list them takes SELECT, all else SELECT and DELETE.  To send them again, see
 * redrive.c.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/tuplestore.h"

#include "base/args.h"
#include "queue/deadletter.h"
#include "queue/page.h"
#include "table/plan.h"
#include "table/queuecatalog.h"
#include "table/queueplan.h"

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
	KvsQueue   *queue = kvs_queue_open(kvs_args_text(fcinfo, 0), AccessShareLock, &rel);
	SPIPlanPtr	plan;
	ParamListInfo params;

	dead = kvs_queue_open_dead(queue, AccessShareLock);
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	params = makeParamList(lengthof(types));
	kvs_page_set_params(params, fcinfo, 1);
	plan = kvs_queue_get_plan(queue, KVS_QUEUE_PLAN_DEAD_LIST,
							  "SELECT id, original_id, payload, headers, error, attempts::pg_catalog.int8, enqueued_at, failed_at "
							  "FROM " KVS_DEAD_TABLE " " KVS_PAGE, lengthof(types), types);
	kvs_plan_query(plan, params, give_letter, fcinfo->resultinfo);
	SPI_finish();
	table_close(dead, NoLock);
	table_close(rel, NoLock);
	return (Datum) 0;
}

/* ---- Delete ---- */

KvsQueue *
kvs_deadletter_open(FunctionCallInfo fcinfo, const char *function, bool all, Relation *rel)
{
	KvsQueue   *queue;

	PreventCommandIfReadOnly(function);
	queue = kvs_queue_open(kvs_args_text(fcinfo, 0), RowExclusiveLock, rel);
	table_close(kvs_queue_open_dead(queue, all ? ShareUpdateExclusiveLock : RowExclusiveLock), NoLock);
	return queue;
}

int64
kvs_deadletter_run(KvsQueue *queue, KvsQueuePlan which, const char *format, const int64 *id, KvsOnRow on_row, void *arg)
{
	static const Oid id_types[] = {INT8OID};
	ParamListInfo params = NULL;
	int64		result;

	SPI_connect();
	if (id != NULL)
	{
		params = makeParamList(1);
		kvs_plan_set_param(params, 0, INT8OID, Int64GetDatum(*id), false);
	}
	result = kvs_plan_execute(kvs_queue_get_plan(queue, which, format, id ? 1 : 0, id_types), params, InvalidOid,
								   on_row, arg);
	SPI_finish();
	return result;
}

int64
kvs_deadletter_id_arg(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		kvs_args_report_null("id");
	return PG_GETARG_INT64(1);
}

/* kv_dead_delete(queue, id) returns boolean: false if there is none */
PG_FUNCTION_INFO_V1(kvstore_dead_delete);
Datum
kvstore_dead_delete(PG_FUNCTION_ARGS)
{
	int64		id = kvs_deadletter_id_arg(fcinfo);
	Relation	rel;
	KvsQueue   *queue = kvs_deadletter_open(fcinfo, "kv_dead_delete()", false, &rel);
	int64		count = kvs_deadletter_run(queue, KVS_QUEUE_PLAN_DEAD_DELETE, "DELETE FROM " KVS_DEAD_TABLE KVS_DEAD_THIS, &id, NULL, NULL);

	table_close(rel, NoLock);
	PG_RETURN_BOOL(count > 0);
}

/* kv_dead_purge(queue) returns bigint: how many were deleted */
PG_FUNCTION_INFO_V1(kvstore_dead_purge);
Datum
kvstore_dead_purge(PG_FUNCTION_ARGS)
{
	Relation	rel;
	KvsQueue   *queue = kvs_deadletter_open(fcinfo, "kv_dead_purge()", true, &rel);
	int64		count = kvs_deadletter_run(queue, KVS_QUEUE_PLAN_DEAD_PURGE, "DELETE FROM " KVS_DEAD_TABLE, NULL, NULL, NULL);

	table_close(rel, NoLock);
	PG_RETURN_INT64(count);
}
