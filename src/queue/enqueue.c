/*
 * enqueue.c
 *		SQL functions that send messages: kv_enqueue, kv_enqueue_many.
 *
 * They need shared memory: a commit has to tell the receivers that something has come, perhaps
 * below their heads.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/array.h"
#include "base/duration.h"
#include "base/shmem.h"
#include "message/message.h"
#include "message/send.h"
#include "queue/queueargs.h"
#include "table/queuecatalog.h"

/* Arguments of both functions. */
enum
{
	ARG_QUEUE,
	ARG_PAYLOAD,
	ARG_DELAY,
	ARG_READY_AT,
	ARG_PRIORITY,
	ARG_HEADERS,
	ARG_MAX_ATTEMPTS,
	ARG_BACKOFF,
	ARG_TTL,
	ARG_DEDUPE_KEY,
	ARG_KEYS_IF_UNDELIVERED,
	ARG_UNDELIVERED_STORE
};

/* ---- Options ---- */

/* An interval from now on, DT_NOEND if it is infinite; 22023 if it is negative. */
static TimestampTz
read_interval(FunctionCallInfo fcinfo, int arg, TimestampTz now, const char *name)
{
	const Interval *interval = PG_GETARG_INTERVAL_P(arg);
	TimestampTz result = kvs_duration_add(now, interval);

	if (result == DT_NOEND && !kvs_compat_interval_is_infinite(interval))
		result = KVS_LAST_MOMENT + 1;
	if (result < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", name)));
	return result;
}

static void
read_ready_at(FunctionCallInfo fcinfo, KvsMessage *message, TimestampTz now)
{
	if (!PG_ARGISNULL(ARG_DELAY) && !PG_ARGISNULL(ARG_READY_AT))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delay and ready_at must not both be given")));
	if (!PG_ARGISNULL(ARG_DELAY))
		kvs_send_set_ready_at(message, read_interval(fcinfo, ARG_DELAY, now, "delay"), "delay");
	else if (!PG_ARGISNULL(ARG_READY_AT))
		kvs_send_set_ready_at(message, Max(now, PG_GETARG_TIMESTAMPTZ(ARG_READY_AT)), "ready_at");
}

/* Everything but the payload. */
static void
read_options(FunctionCallInfo fcinfo, KvsMessage *message, TimestampTz now)
{
	kvs_message_init(message, now);
	read_ready_at(fcinfo, message, now);
	if (!PG_ARGISNULL(ARG_PRIORITY))
		kvs_send_set_priority(message, PG_GETARG_INT64(ARG_PRIORITY));
	if (!PG_ARGISNULL(ARG_HEADERS))
		kvs_send_set_headers(message, PG_GETARG_DATUM(ARG_HEADERS));
	if (!PG_ARGISNULL(ARG_MAX_ATTEMPTS))
		kvs_message_set(message, KVS_QUEUE_COLUMN_MAX_ATTEMPTS,
						Int32GetDatum(kvs_queue_check_max_attempts(PG_GETARG_INT64(ARG_MAX_ATTEMPTS))));
	if (!PG_ARGISNULL(ARG_BACKOFF))
		kvs_send_set_backoff(message, PG_GETARG_ARRAYTYPE_P(ARG_BACKOFF));
	if (!PG_ARGISNULL(ARG_TTL))
		kvs_send_set_expiry(message, read_interval(fcinfo, ARG_TTL, now, "ttl"), "ttl");
	if (!PG_ARGISNULL(ARG_DEDUPE_KEY))
		kvs_send_set_dedupe_key(message, PG_GETARG_TEXT_PP(ARG_DEDUPE_KEY));
	if (!PG_ARGISNULL(ARG_KEYS_IF_UNDELIVERED))
		kvs_send_set_undelivered(message, PG_GETARG_JSONB_P(ARG_KEYS_IF_UNDELIVERED),
									kvs_args_text(fcinfo, ARG_UNDELIVERED_STORE));
}

static KvsQueue *
open_queue(FunctionCallInfo fcinfo, const char *function, Relation *rel)
{
	PreventCommandIfReadOnly(function);
	kvs_shmem_require(function);
	return kvs_queue_open(kvs_args_text(fcinfo, ARG_QUEUE), RowExclusiveLock, rel);
}

/* ---- SQL ---- */

/*
 * kv_enqueue(queue, payload, delay, ready_at, priority, headers, max_attempts, backoff, ttl,
 * dedupe_key, keys_if_undelivered, undelivered_store) returns bigint
 */
PG_FUNCTION_INFO_V1(kvstore_enqueue);
Datum
kvstore_enqueue(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	KvsMessage	message;
	Relation	rel;
	KvsQueue   *queue = open_queue(fcinfo, "kv_enqueue()", &rel);
	Datum		payload;
	int64		id;

	if (PG_ARGISNULL(ARG_PAYLOAD))
		kvs_args_report_null("payload");
	payload = PG_GETARG_DATUM(ARG_PAYLOAD);
	kvs_send_check_payload(payload);
	read_options(fcinfo, &message, now);
	id = kvs_send(queue, rel, &message, payload, now);
	table_close(rel, NoLock);
	if (unlikely(id == 0))
		PG_RETURN_NULL();
	PG_RETURN_INT64(id);
}

static int
read_payloads(FunctionCallInfo fcinfo, Datum **payloads)
{
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(ARG_PAYLOAD))
		kvs_args_report_null("payloads");
	count = kvs_array_read(PG_GETARG_ARRAYTYPE_P(ARG_PAYLOAD), "payloads", payloads, &nulls);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			kvs_args_report_null("payload");
		kvs_send_check_payload((*payloads)[i]);
	}
	return count;
}

/* kv_enqueue_many(queue, payloads, ...) returns TABLE (id bigint) */
PG_FUNCTION_INFO_V1(kvstore_enqueue_many);
Datum
kvstore_enqueue_many(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	KvsMessage	message;
	Relation	rel;
	KvsQueue   *queue = open_queue(fcinfo, "kv_enqueue_many()", &rel);
	KvsMessageWriter writer;
	Datum	   *payloads;
	int			count = read_payloads(fcinfo, &payloads);
	int64	   *ids = palloc(sizeof(int64) * Max(count, 1));

	read_options(fcinfo, &message, now);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);	/* one column is no row type */
	kvs_message_begin(&writer, queue, rel);
	if (message.nulls[KVS_QUEUE_COLUMN_DEDUPE_KEY] || count == 0)
		kvs_message_insert(&writer, &message, payloads, count, ids);
	else if (count == 1)
		ids[0] = kvs_message_insert_unless_present(&writer, &message, payloads[0], now);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dedupe_key cannot be given for several messages"),
				 errhint("Call kv_enqueue() for each message, with a key of its own.")));
	kvs_message_end(&writer);
	table_close(rel, NoLock);
	for (int i = 0; i < count; i++)
	{
		Datum		value = Int64GetDatum(ids[i]);
		bool		isnull = ids[i] == 0;

		CHECK_FOR_INTERRUPTS();
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
	}
	return (Datum) 0;
}
