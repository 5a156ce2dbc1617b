/*
 * ack.c
 *		What a consumer does with its receipts: ack, nack, release, extend.
 *
 * A receipt names its queue by OID, so no function here takes the queue's name.  If the queue or
 * the message is gone, or another consumer has the lease, the answer is false, never an error.
 *
 * Each has two forms for many receipts: one says how many were good, the other which.  Both are a
 * loop, in which the table is opened once for each run of receipts of one queue.
 */
#include "postgres.h"

#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "base/args.h"
#include "base/array.h"
#include "base/fault.h"
#include "base/stats.h"
#include "base/subxact.h"
#include "expiry/expiry.h"
#include "lease/queuexact.h"
#include "message/receipt.h"
#include "message/settle.h"
#include "queue/queueargs.h"

/* Bytes of an error that are kept: it goes into each row of a message that fails. */
#define ERROR_MAX_SIZE	8192

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

static KvsClaim
try_to_claim(KvsQueue *queue, const KvsReceipt *receipt, KvsLeaseState state, TimestampTz deadline, bool row, KvsMessageRef *message)
{
	return state == KVS_LEASE_ENDING ? kvs_queuexact_begin_ending(queue, receipt->token, receipt->number, row, message) :
		kvs_lease_claim(queue, receipt->token, receipt->number, state, deadline, row, message);
}

/* Claim the message of a receipt (lease.h); without a lease, only if its row is there. */
static KvsClaim
claim(Session *session, const KvsReceipt *receipt, KvsLeaseState state, TimestampTz deadline, KvsMessageRef *message)
{
	KvsQueue   *queue = session->reader.queue;
	KvsMessageRef wanted = {.id = receipt->id, .enqueued_at = receipt->enqueued_at};
	KvsClaim	result;

	*message = wanted;
	result = try_to_claim(queue, receipt, state, deadline, false, message);
	if (result != KVS_CLAIM_UNKNOWN)
		return result;
	if (!kvs_reader_fetch(&session->reader, message))
		return KVS_CLAIM_STALE;
	message->delay = kvs_reader_backoff(&session->reader, receipt->number + 1);
	result = try_to_claim(queue, receipt, state, deadline, true, message);
	/* whoever had it meanwhile may have acknowledged it */
	if (result == KVS_CLAIM_DONE && state == KVS_LEASE_HELD && !kvs_reader_fetch(&session->reader, message))
	{
		kvs_lease_drop(queue, message, receipt->token, true);
		return KVS_CLAIM_STALE;
	}
	return result;
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

/* What is done with a message whose lease is being ended. */
typedef KvsSettled (*Ending) (Session *session, const KvsReceipt *receipt, Request *request, KvsMessageRef *message);

typedef struct Unleased
{
	Session    *session;
	const KvsReceipt *receipt;
	Request    *request;
	Ending		ending;
	KvsMessageRef message;
	KvsSettled	result;
} Unleased;

/*
 * There is no lease, nor room for one, as others have taken it.  So the row is written first, and
 * whoever leases the message from then on sees that.  We see a consumer that has leased it before,
 * and it keeps the message.  Nothing that is opened here may outlive the subtransaction.
 */
static bool
end_unleased(void *arg)
{
	Unleased   *unleased = arg;
	KvsReader  *reader = &unleased->session->reader;
	KvsReader	outer = *reader;
	KvsMessageRef row = unleased->message;

	kvs_queuexact_note_moved(outer.queue, &row);
	kvs_reader_begin(reader, outer.queue, outer.rel);
	reader->unleased = true;
	unleased->result = unleased->ending(unleased->session, unleased->receipt, unleased->request, &unleased->message);
	kvs_reader_end(reader);
	*reader = outer;
	kvs_fault_stop(KVS_FAULT_UNLEASED);
	if (kvs_leaselook_is_known(outer.queue, &row))
		unleased->result = KVS_SETTLED_GONE;
	return unleased->result != KVS_SETTLED_GONE;
}

static KvsSettled
end(Session *session, const KvsReceipt *receipt, Request *request, Ending ending)
{
	Unleased	unleased = {session, receipt, request, ending, {0}, KVS_SETTLED_GONE};

	switch (claim(session, receipt, KVS_LEASE_ENDING, DT_NOEND, &unleased.message))
	{
		case KVS_CLAIM_DONE:
			return ending(session, receipt, request, &unleased.message);
		case KVS_CLAIM_FULL:
			kvs_subxact_run(end_unleased, &unleased);
			return unleased.result;
		default:
			return KVS_SETTLED_GONE;
	}
}

/* It is not ended after all. */
static KvsSettled
leave(Session *session, const KvsMessageRef *message)
{
	if (!session->reader.unleased)
		kvs_queuexact_cancel_ending(session->reader.queue, message->id);
	return KVS_SETTLED_GONE;
}

static KvsSettled
ack_message(Session *session, const KvsReceipt *receipt, Request *request, KvsMessageRef *message)
{
	return kvs_settle_delete(&session->reader, message);
}

static KvsSettled
ack(Session *session, const KvsReceipt *receipt, Request *request)
{
	return end(session, receipt, request, ack_message);
}

static KvsSettled
nack_message(Session *session, const KvsReceipt *receipt, Request *request, KvsMessageRef *message)
{
	KvsFailure	failure = {
		.error = request->error,
		.now = request->now,
		.ready_at = request->ready_at,
		.number = receipt->number,
		.dead = request->dead
	};

	/* it has been given up already */
	if (message->dying)
		return leave(session, message);
	return kvs_settle_fail(&session->reader, message, &failure);
}

static KvsSettled
nack(Session *session, const KvsReceipt *receipt, Request *request)
{
	return end(session, receipt, request, nack_message);
}

/*
 * By the row: after a delay, or if the lease has ended, and only the row knows of it.  Then that
 * delivery has not failed.
 */
static KvsSettled
release_message(Session *session, const KvsReceipt *receipt, Request *request, KvsMessageRef *message)
{
	int			failed = kvs_message_failed(message);

	if (message->dying)
		return leave(session, message);
	if (failed == receipt->number)
		failed--;
	else if (request->ready_at <= request->now)
		return leave(session, message); /* it has been returned already */
	return kvs_settle_postpone(&session->reader, message, failed, request->ready_at);
}

static KvsSettled
release(Session *session, const KvsReceipt *receipt, Request *request)
{
	KvsSettled	result = KVS_SETTLED_GONE;
	KvsClaim	claimed = KVS_CLAIM_UNKNOWN;

	if (request->ready_at <= request->now)
		claimed = kvs_lease_release(session->reader.queue, receipt->id, &receipt->token, receipt->number);
	if (claimed == KVS_CLAIM_DONE)
		result = KVS_SETTLED_RETRY;
	else if (claimed == KVS_CLAIM_UNKNOWN)
		result = end(session, receipt, request, release_message);
	if (result == KVS_SETTLED_RETRY)
		kvs_stats_add(session->reader.queue->stat, KVS_COUNT_QUEUE_RELEASED, 1);
	return result;
}

static KvsSettled
extend(Session *session, const KvsReceipt *receipt, Request *request)
{
	KvsMessageRef	message;
	KvsClaim	claimed;

	request->deadline = kvs_queueargs_deadline(request->fcinfo, 1, session->reader.queue, request->now);
	claimed = claim(session, receipt, KVS_LEASE_HELD, request->deadline, &message);
	if (claimed == KVS_CLAIM_FULL)
		kvs_lease_raise_full(session->reader.queue);
	if (claimed != KVS_CLAIM_DONE)
		return KVS_SETTLED_GONE;
	/* it may be sooner than before, or the first that the worker hears of it */
	if (kvs_expirymap_database() != NULL)
		kvs_expiry_lower_next_due(request->deadline);
	return KVS_SETTLED_RETRY;
}

static KvsSettled
act(Session *session, const KvsReceipt *receipt, Action action, Request *request)
{
	if (open_queue(session, receipt) == NULL)
		return KVS_SETTLED_GONE;
	return action(session, receipt, request);
}

static KvsSettled
act_on_one(FunctionCallInfo fcinfo, Action action, Request *request)
{
	Session		session = {0};
	KvsReceipt	receipt;
	KvsSettled	result;

	kvs_receipt_from_text(kvs_args_text(fcinfo, 0), &receipt);
	result = act(&session, &receipt, action, request);
	close_queue(&session);
	return result;
}

/* ---- Many receipts ---- */

/* What became of one: the second column of a row, SQL NULL unless *isnull is set to false. */
typedef Datum (*Tell) (KvsSettled result, const Request *request, bool *isnull);

static Datum
tell_ok(KvsSettled result, const Request *request, bool *isnull)
{
	*isnull = false;
	return BoolGetDatum(result != KVS_SETTLED_GONE);
}

static Datum
tell_nacked(KvsSettled result, const Request *request, bool *isnull)
{
	*isnull = result != KVS_SETTLED_RETRY && result != KVS_SETTLED_DEAD;
	return *isnull ? (Datum) 0 : CStringGetTextDatum(result == KVS_SETTLED_RETRY ? "retry" : "dead");
}

static Datum
tell_deadline(KvsSettled result, const Request *request, bool *isnull)
{
	*isnull = result == KVS_SETTLED_GONE;
	return TimestampTzGetDatum(request->deadline);
}

/*
 * Act on each of an array; SQL NULL is none.  A text that is no receipt counts as stale: it must
 * not keep the others from being settled.  With "tell" there is a row for each, in the order given.
 * Returns how many were good.
 */
static int64
act_on_array(FunctionCallInfo fcinfo, Action action, Request *request, Tell tell)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Session		session = {0};
	Datum	   *receipts = NULL;
	bool	   *nulls = NULL;
	int			count = PG_ARGISNULL(0) ? 0 : kvs_array_read(PG_GETARG_ARRAYTYPE_P(0), "receipts", &receipts, &nulls);
	int64		done = 0;

	if (tell != NULL)
		InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < count; i++)
	{
		KvsReceipt	receipt;
		KvsSettled	result = KVS_SETTLED_GONE;

		CHECK_FOR_INTERRUPTS();
		if (kvs_receipt_try_text(nulls[i] ? NULL : DatumGetTextPP(receipts[i]), &receipt))
			result = act(&session, &receipt, action, request);
		done += result == KVS_SETTLED_GONE ? 0 : 1;
		if (tell != NULL)
		{
			Datum		row[2] = {receipts[i]};
			bool		row_nulls[2] = {nulls[i], true};

			row[1] = tell(result, request, &row_nulls[1]);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, row_nulls);
		}
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
	PG_RETURN_INT64(act_on_array(fcinfo, ack, &request, NULL));
}

/* kv_ack_each(receipts) returns TABLE (receipt text, ok boolean) */
PG_FUNCTION_INFO_V1(kvstore_ack_each);
Datum
kvstore_ack_each(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	kvs_queueargs_begin("kv_ack_each()");
	(void) act_on_array(fcinfo, ack, &request, tell_ok);
	return (Datum) 0;
}

/* As much of it as is kept, whole characters. */
static char *
read_error(const text *error)
{
	return pnstrdup(VARDATA_ANY(error), pg_mbcliplen(VARDATA_ANY(error), VARSIZE_ANY_EXHDR(error), ERROR_MAX_SIZE));
}

/* The arguments delay, error and dead of the nack functions. */
static void
read_nack(FunctionCallInfo fcinfo, Request *request)
{
	memset(request, 0, sizeof(Request));
	request->now = kvs_fault_now();
	request->ready_at = kvs_queueargs_delay(fcinfo, 1, request->now, DT_NOBEGIN);
	request->error = PG_ARGISNULL(2) ? NULL : read_error(PG_GETARG_TEXT_PP(2));
	request->dead = kvs_args_bool(fcinfo, 3);
}

/*
 * kv_nack(receipt, delay, error, dead) returns text: 'retry', 'dead', or NULL for a stale receipt
 */
PG_FUNCTION_INFO_V1(kvstore_nack);
Datum
kvstore_nack(PG_FUNCTION_ARGS)
{
	Request		request;

	kvs_queueargs_begin("kv_nack()");
	read_nack(fcinfo, &request);
	return tell_nacked(act_on_one(fcinfo, nack, &request), &request, &fcinfo->isnull);
}

/* kv_nack_many(receipts, delay, error, dead) returns bigint */
PG_FUNCTION_INFO_V1(kvstore_nack_many);
Datum
kvstore_nack_many(PG_FUNCTION_ARGS)
{
	Request		request;

	kvs_queueargs_begin("kv_nack_many()");
	read_nack(fcinfo, &request);
	PG_RETURN_INT64(act_on_array(fcinfo, nack, &request, NULL));
}

/* kv_nack_each(receipts, delay, error, dead) returns TABLE (receipt text, result text) */
PG_FUNCTION_INFO_V1(kvstore_nack_each);
Datum
kvstore_nack_each(PG_FUNCTION_ARGS)
{
	Request		request;

	kvs_queueargs_begin("kv_nack_each()");
	read_nack(fcinfo, &request);
	(void) act_on_array(fcinfo, nack, &request, tell_nacked);
	return (Datum) 0;
}

static void
read_release(FunctionCallInfo fcinfo, Request *request)
{
	memset(request, 0, sizeof(Request));
	request->now = kvs_fault_now();
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
	PG_RETURN_INT64(act_on_array(fcinfo, release, &request, NULL));
}

/* kv_release_each(receipts, delay) returns TABLE (receipt text, ok boolean) */
PG_FUNCTION_INFO_V1(kvstore_release_each);
Datum
kvstore_release_each(PG_FUNCTION_ARGS)
{
	Request		request;

	kvs_queueargs_begin("kv_release_each()");
	read_release(fcinfo, &request);
	(void) act_on_array(fcinfo, release, &request, tell_ok);
	return (Datum) 0;
}

/* kv_extend(receipt, lease) returns timestamptz: the new deadline, NULL for a stale receipt */
PG_FUNCTION_INFO_V1(kvstore_extend);
Datum
kvstore_extend(PG_FUNCTION_ARGS)
{
	Request		request = {.now = kvs_fault_now(), .fcinfo = fcinfo};

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
	Request		request = {.now = kvs_fault_now(), .fcinfo = fcinfo};

	kvs_queueargs_begin("kv_extend_many()");
	PG_RETURN_INT64(act_on_array(fcinfo, extend, &request, NULL));
}

/* kv_extend_each(receipts, lease) returns TABLE (receipt text, leased_until timestamptz) */
PG_FUNCTION_INFO_V1(kvstore_extend_each);
Datum
kvstore_extend_each(PG_FUNCTION_ARGS)
{
	Request		request = {.now = kvs_fault_now(), .fcinfo = fcinfo};

	kvs_queueargs_begin("kv_extend_each()");
	(void) act_on_array(fcinfo, extend, &request, tell_deadline);
	return (Datum) 0;
}
