/*
 * ack.c
 *		What a consumer does with its receipts: ack, nack, release, extend.
 *
 * A receipt names its queue by OID, so no function here takes the queue's name.  A queue that is gone, a message that is gone and a lease that
 * has passed to somebody else are all the same to the consumer: the answer is false, never an error.
 *
 * Each has a form for many receipts: a loop, in which the table is opened once for each run of receipts of one queue.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "entry.h"
#include "expiry.h"
#include "leasexact.h"
#include "queueargs.h"
#include "receipt.h"
#include "settle.h"
#include "stats.h"
#include "testing.h"

/* The queue of the receipts that are being worked on. */
typedef struct Session
{
	Oid			relid;			/* InvalidOid: none */
	Relation	rel;			/* NULL: there is no such queue */
	KvsReader reader;
} Session;

static void
close_queue(Session *session)
{
	if (session->rel != NULL)
	{
		kvs_reader_end(&session->reader);
		table_close(session->rel, NoLock);
	}
	session->rel = NULL;
	session->relid = InvalidOid;
}

/* The queue of a receipt; NULL if it is gone. */
static KvsQueue *
open_queue(Session *session, const KvsReceipt *receipt)
{
	KvsQueue   *queue;

	if (session->relid == receipt->queue)
		return session->rel == NULL ? NULL : session->reader.queue;
	close_queue(session);
	session->relid = receipt->queue;
	queue = kvs_queue_open_relid(receipt->queue, RowExclusiveLock, &session->rel);
	if (queue == NULL)
	{
		session->rel = NULL;
		return NULL;
	}
	kvs_queueargs_check_rights(queue, ACL_SELECT | ACL_UPDATE | ACL_DELETE);
	kvs_reader_begin(&session->reader, queue, session->rel);
	return queue;
}

/* Claim the message of a receipt (lease.h); without a lease, only if its row is there. */
static bool
claim(Session *session, const KvsReceipt *receipt, KvsLeaseState state, TimestampTz deadline, KvsMessageRef *message)
{
	KvsQueue   *queue = session->reader.queue;
	bool		row = false;

	for (;;)
	{
		KvsClaim	result;

		*message = row ? *message : (KvsMessageRef) {.id = receipt->id, .enqueued_at = receipt->enqueued_at};
		result = state == KVS_LEASE_ENDING ? kvs_leasexact_begin_ending(queue, receipt->token, row, message) :
			kvs_lease_claim(queue, receipt->token, state, deadline, row, message);
		if (result == KVS_CLAIM_FULL)
			kvs_lease_raise_full(queue);
		if (result != KVS_CLAIM_UNKNOWN)
			return result == KVS_CLAIM_DONE;
		row = kvs_reader_fetch(&session->reader, message);
		if (!row)
			return false;
	}
}

/* ---- One receipt ---- */

/* What is asked for, and the arguments that the functions have. */
typedef struct Request
{
	TimestampTz now;
	TimestampTz ready_at;		/* DT_NOBEGIN: not given */
	char	   *error;
	bool		dead;
	FunctionCallInfo fcinfo;	/* for the lease, whose default is the queue's */
	TimestampTz deadline;		/* what it came to */
} Request;

typedef KvsSettled (*Action) (Session *session, const KvsReceipt *receipt, Request *request);

static KvsSettled
ack(Session *session, const KvsReceipt *receipt, Request *request)
{
	KvsMessageRef	message;

	if (!claim(session, receipt, KVS_LEASE_ENDING, DT_NOEND, &message))
		return KVS_SETTLED_GONE;
	return kvs_settle_delete(&session->reader, &message);
}

static KvsSettled
nack(Session *session, const KvsReceipt *receipt, Request *request)
{
	KvsMessageRef	message;
	KvsFailure	failure = {
		.error = request->error,
		.now = request->now,
		.ready_at = request->ready_at,
		.counts = true,
		.dead = request->dead,
		.wait = true
	};

	if (!claim(session, receipt, KVS_LEASE_ENDING, DT_NOEND, &message))
		return KVS_SETTLED_GONE;
	return kvs_settle_fail(&session->reader, &message, &failure);
}

static KvsSettled
release(Session *session, const KvsReceipt *receipt, Request *request)
{
	KvsMessageRef	message;
	KvsSettled	result;

	if (request->ready_at <= request->now)
		result = kvs_lease_release(session->reader.queue, receipt->id, &receipt->token) ? KVS_SETTLED_RETRY : KVS_SETTLED_GONE;
	else if (claim(session, receipt, KVS_LEASE_ENDING, DT_NOEND, &message))
		result = kvs_settle_postpone(&session->reader, &message, request->ready_at);
	else
		result = KVS_SETTLED_GONE;
	if (result == KVS_SETTLED_RETRY)
		kvs_stats_add(session->reader.queue->stat, KVS_COUNT_QUEUE_RELEASED, 1);
	return result;
}

static KvsSettled
extend(Session *session, const KvsReceipt *receipt, Request *request)
{
	KvsMessageRef	message;

	request->deadline = kvs_queueargs_deadline(request->fcinfo, 1, session->reader.queue, request->now);
	if (!claim(session, receipt, KVS_LEASE_HELD, request->deadline, &message))
		return KVS_SETTLED_GONE;
	/* it may be sooner than before, or the first that the worker hears of it */
	if (kvs_expiry_database() != NULL)
		kvs_expiry_lower_next_due(request->deadline);
	return KVS_SETTLED_RETRY;
}

static KvsSettled
act(Session *session, const text *str, Action action, Request *request)
{
	KvsReceipt	receipt;

	kvs_receipt_from_text(str, &receipt);
	if (open_queue(session, &receipt) == NULL)
		return KVS_SETTLED_GONE;
	return action(session, &receipt, request);
}

static KvsSettled
act_on_one(FunctionCallInfo fcinfo, Action action, Request *request)
{
	Session		session = {0};
	KvsSettled	result = act(&session, kvs_entry_text_arg(fcinfo, 0), action, request);

	close_queue(&session);
	return result;
}

/* Returns how many receipts were good. */
static int64
act_on_many(FunctionCallInfo fcinfo, Action action, Request *request)
{
	Session		session = {0};
	Datum	   *receipts;
	bool	   *nulls;
	int			count;
	int64		done = 0;

	if (PG_ARGISNULL(0))
		kvs_entry_null_argument("receipts");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &receipts, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (act(&session, nulls[i] ? NULL : DatumGetTextPP(receipts[i]), action, request) != KVS_SETTLED_GONE)
			done++;
	}
	close_queue(&session);
	return done;
}

/* ---- SQL functions ---- */

/* kv_ack(receipt) returns boolean */
PG_FUNCTION_INFO_V1(kvstore_ack);
Datum
kvstore_ack(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	kvs_queueargs_begin("kv_ack()");
	PG_RETURN_BOOL(act_on_one(fcinfo, ack, &request) != KVS_SETTLED_GONE);
}

/* kv_ack_many(receipts) returns bigint */
PG_FUNCTION_INFO_V1(kvstore_ack_many);
Datum
kvstore_ack_many(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	kvs_queueargs_begin("kv_ack_many()");
	PG_RETURN_INT64(act_on_many(fcinfo, ack, &request));
}

/* The arguments delay, error and dead of the nack functions. */
static void
read_nack(FunctionCallInfo fcinfo, Request *request)
{
	memset(request, 0, sizeof(Request));
	request->now = kvs_testing_now();
	request->ready_at = kvs_queueargs_delay(fcinfo, 1, request->now, DT_NOBEGIN);
	request->error = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	request->dead = kvs_entry_bool_arg(fcinfo, 3);
}

/* kv_nack(receipt, delay, error, dead) returns text: 'retry', 'dead', or NULL for a stale receipt */
PG_FUNCTION_INFO_V1(kvstore_nack);
Datum
kvstore_nack(PG_FUNCTION_ARGS)
{
	Request		request;

	kvs_queueargs_begin("kv_nack()");
	read_nack(fcinfo, &request);
	switch (act_on_one(fcinfo, nack, &request))
	{
		case KVS_SETTLED_RETRY:
			PG_RETURN_TEXT_P(cstring_to_text("retry"));
		case KVS_SETTLED_DEAD:
			PG_RETURN_TEXT_P(cstring_to_text("dead"));
		default:
			PG_RETURN_NULL();
	}
}

/* kv_nack_many(receipts, delay, error, dead) returns bigint */
PG_FUNCTION_INFO_V1(kvstore_nack_many);
Datum
kvstore_nack_many(PG_FUNCTION_ARGS)
{
	Request		request;

	kvs_queueargs_begin("kv_nack_many()");
	read_nack(fcinfo, &request);
	PG_RETURN_INT64(act_on_many(fcinfo, nack, &request));
}

static void
read_release(FunctionCallInfo fcinfo, Request *request)
{
	memset(request, 0, sizeof(Request));
	request->now = kvs_testing_now();
	request->ready_at = kvs_queueargs_delay(fcinfo, 1, request->now, request->now);
}

/* kv_release(receipt, delay) returns boolean */
PG_FUNCTION_INFO_V1(kvstore_release);
Datum
kvstore_release(PG_FUNCTION_ARGS)
{
	Request		request;

	kvs_queueargs_begin("kv_release()");
	read_release(fcinfo, &request);
	PG_RETURN_BOOL(act_on_one(fcinfo, release, &request) != KVS_SETTLED_GONE);
}

/* kv_release_many(receipts, delay) returns bigint */
PG_FUNCTION_INFO_V1(kvstore_release_many);
Datum
kvstore_release_many(PG_FUNCTION_ARGS)
{
	Request		request;

	kvs_queueargs_begin("kv_release_many()");
	read_release(fcinfo, &request);
	PG_RETURN_INT64(act_on_many(fcinfo, release, &request));
}

/* kv_extend(receipt, lease) returns timestamptz: the new deadline, NULL for a stale receipt */
PG_FUNCTION_INFO_V1(kvstore_extend);
Datum
kvstore_extend(PG_FUNCTION_ARGS)
{
	Request		request = {.now = kvs_testing_now(), .fcinfo = fcinfo};

	kvs_queueargs_begin("kv_extend()");
	if (act_on_one(fcinfo, extend, &request) == KVS_SETTLED_GONE)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(request.deadline);
}

/* kv_extend_many(receipts, lease) returns bigint */
PG_FUNCTION_INFO_V1(kvstore_extend_many);
Datum
kvstore_extend_many(PG_FUNCTION_ARGS)
{
	Request		request = {.now = kvs_testing_now(), .fcinfo = fcinfo};

	kvs_queueargs_begin("kv_extend_many()");
	PG_RETURN_INT64(act_on_many(fcinfo, extend, &request));
}
