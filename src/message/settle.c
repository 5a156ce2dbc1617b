/*
 * settle.c
 *		What becomes of a message after its delivery: deleted, to be tried again, or dead.
 *
 * An acknowledged message is deleted by its place, without the executor, unless triggers or indexes
 * of the owner's need it (KvsQueue.plain).  The page stays pinned from the look at the row until
 * the delete has returned: what the place points to cannot become another row meanwhile.  Only a
 * consumer that acknowledges, or fails, its own message ever waits for a row.  The worker passes
 * over locked rows.
 *
 * A failed message is changed, or moved to the dead letters, by statements that run as the owner of
 * the queue.  So consumers need no rights on the dead letters.  A row that stays is noted as an
 * arrival, for it has a new position in the order.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "base/deferred.h"
#include "base/fault.h"
#include "base/identity.h"
#include "base/stats.h"
#include "base/subxact.h"
#include "expiry/expiry.h"
#include "lease/queuexact.h"
#include "message/burial.h"
#include "message/settle.h"
#include "message/undelivered.h"
#include "table/plan.h"
#include "table/queueplan.h"

/* How long a consumer's statement waits for a lock when it writes a dead letter. */
#define LOCK_TIMEOUT	"1ms"

/* ---- Statements ---- */

#define EQ		"OPERATOR(pg_catalog.=)"
#define THIS_MESSAGE "m.id " EQ " $1 AND m.enqueued_at " EQ " $2"

static const char *const statements[KVS_QUEUE_PLAN_END] = {
	[KVS_QUEUE_PLAN_DELETE] = "DELETE FROM kvstore.q_%1$s AS m WHERE " THIS_MESSAGE,
	[KVS_QUEUE_PLAN_CHANGE] = "UPDATE kvstore.q_%1$s AS m SET attempts = $3, ready_at = $4, "
	"last_error = CASE WHEN $5 IS NULL THEN m.last_error ELSE $5 END WHERE " THIS_MESSAGE,
	[KVS_QUEUE_PLAN_GIVE_UP] = "UPDATE kvstore.q_%1$s AS m SET attempts = $3, failed_at = $4, "
	"last_error = CASE WHEN $5 IS NULL THEN m.last_error ELSE $5 END WHERE " THIS_MESSAGE,
	[KVS_QUEUE_PLAN_FREE_KEY] = "UPDATE kvstore.q_%1$s AS m SET dedupe_key = NULL WHERE " THIS_MESSAGE,
};

/* $3: attempts, $4: when, $5: the error; the statements that say only which message have two. */
static const Oid types[] = {INT8OID, TIMESTAMPTZOID, INT4OID, TIMESTAMPTZOID, TEXTOID};

/* "nulls" may be NULL. */
static uint64
execute(KvsQueue *queue, KvsQueuePlan which, const Datum *values, const bool *nulls)
{
	int			nargs = which == KVS_QUEUE_PLAN_DELETE || which == KVS_QUEUE_PLAN_FREE_KEY ? 2 : lengthof(types);
	ParamListInfo params;
	uint64		count;

	SPI_connect();
	params = makeParamList(nargs);
	for (int i = 0; i < nargs; i++)
		kvs_plan_set_param(params, i, types[i], values[i], nulls != NULL && nulls[i]);
	count = kvs_plan_execute(kvs_queue_get_plan(queue, which, statements[which], nargs, types), params, queue->relid,
								  NULL, NULL);
	SPI_finish();
	return count;
}

static uint64
execute_as_owner(KvsQueue *queue, KvsQueuePlan which, const KvsMessageRef *message, int attempts, TimestampTz when, const char *error)
{
	Datum		values[lengthof(types)] = {
		Int64GetDatum(message->id), TimestampTzGetDatum(message->enqueued_at), Int32GetDatum(attempts), TimestampTzGetDatum(when),
		error ? CStringGetTextDatum(error) : (Datum) 0
	};
	bool		nulls[] = {false, false, false, false, error == NULL};
	KvsIdentity saved;
	Relation	rel;
	uint64		count;

	/* the caller has it locked */
	rel = queue->plain ? NULL : table_open(queue->relid, NoLock);
	kvs_identity_become(queue->owner, &saved);
	if (rel != NULL)
		kvs_deferred_set(rel, true);
	count = execute(queue, which, values, nulls);
	if (rel != NULL)
		kvs_deferred_set(rel, false);
	kvs_identity_restore(&saved);
	if (rel != NULL)
		table_close(rel, NoLock);
	return count;
}

bool
kvs_settle_delete_as_owner(KvsQueue *queue, const KvsMessageRef *message)
{
	return execute_as_owner(queue, KVS_QUEUE_PLAN_DELETE, message, 0, message->ready_at, NULL) > 0;
}

bool
kvs_settle_free_key_as_owner(KvsQueue *queue, const KvsMessageRef *message)
{
	return execute_as_owner(queue, KVS_QUEUE_PLAN_FREE_KEY, message, 0, message->ready_at, NULL) > 0;
}

/* The transaction's own snapshot does not see what we were to write. */
static void
check_serializable(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
}

/* ---- Deleting ---- */

/* A row that this very command has inserted cannot be deleted by it. */
static void
see_own_rows(const KvsReader *reader)
{
	bool		isnull;
	Datum		xmin = slot_getsysattr(reader->slot, MinTransactionIdAttributeNumber, &isnull);

	if (TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)))
		CommandCounterIncrement();
}

/* By a statement, which a trigger of the owner's may thwart. */
static TM_Result
delete_row_by_statement(KvsReader *reader, const KvsMessageRef *message)
{
	Datum		values[] = {Int64GetDatum(message->id), TimestampTzGetDatum(message->enqueued_at)};

	if (execute(reader->queue, KVS_QUEUE_PLAN_DELETE, values, NULL) > 0)
		return TM_Ok;
	check_serializable();
	if (kvs_reader_is_there(reader))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger of table \"%s\" kept a message from being deleted", RelationGetRelationName(reader->rel)),
				 errhint("A trigger BEFORE DELETE must return OLD.")));
	return TM_Deleted;
}

static TM_Result
delete_row(KvsReader *reader, KvsMessageRef *message)
{
	TM_FailureData failure;

	see_own_rows(reader);
	if (!reader->queue->plain)
		return delete_row_by_statement(reader, message);
	CheckCmdReplicaIdentity(reader->rel, CMD_DELETE);
	return table_tuple_delete(reader->rel, &reader->slot->tts_tid, GetCurrentCommandId(true), GetActiveSnapshot(),
							  InvalidSnapshot, true, &failure, false);
}

KvsSettled
kvs_settle_delete(KvsReader *reader, KvsMessageRef *message)
{
	kvs_fault_stop(KVS_FAULT_SETTLE);
	while (kvs_reader_fetch(reader, message))
	{
		TM_Result	result = delete_row(reader, message);

		CHECK_FOR_INTERRUPTS();
		if (result == TM_Ok)
		{
			kvs_queuexact_note_count(reader->queue, -1);
			kvs_stats_add(reader->queue->stat, KVS_COUNT_QUEUE_ACKED, 1);
			if (!reader->unleased && kvs_queuexact_has_sent(reader->queue) && kvs_reader_is_own(reader))
				kvs_queuexact_end_own(reader->queue, message->id);
			return KVS_SETTLED_DELETED;
		}
		check_serializable();
	}
	return KVS_SETTLED_GONE;
}

/* ---- Changing ---- */

/* Lock the row, so that the statement that follows meets nobody. */
static KvsSettled
lock_row(KvsReader *reader, KvsMessageRef *message, bool wait)
{
	while (kvs_reader_fetch(reader, message))
	{
		ItemPointerData tid = message->tid;
		TM_FailureData failure;
		TM_Result	result;

		see_own_rows(reader);
		result = table_tuple_lock(reader->rel, &tid, GetActiveSnapshot(), reader->slot, GetCurrentCommandId(false),
								  LockTupleExclusive, wait ? LockWaitBlock : LockWaitSkip, 0, &failure);
		CHECK_FOR_INTERRUPTS();
		if (result == TM_Ok)
			return KVS_SETTLED_RETRY;
		if (result == TM_WouldBlock)
			return KVS_SETTLED_LOCKED;
		check_serializable();
	}
	/* its sender holds a row that nobody else sees yet */
	if (!wait && kvs_reader_is_coming(reader, message))
		return KVS_SETTLED_LOCKED;
	return KVS_SETTLED_GONE;
}

void
kvs_settle_raise_renamed(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("a trigger of table \"%s\" changed the identity of a message", RelationGetRelationName(rel)),
			 errdetail("There is no message of the id and enqueued_at that were written."),
			 errhint("A trigger must leave the columns id and enqueued_at as they are.")));
}

/*
 * The row stays: note it as an arrival, where it is.  That is where we have put it, unless a
 * trigger of the owner's has changed or skipped the row.  "written": a statement says that it has
 * changed it.
 */
static KvsSettled
note_where_it_is(KvsReader *reader, const KvsMessageRef *message, bool written)
{
	KvsMessageRef found = *message;
	KvsPosition position;

	if (!reader->queue->plain && !kvs_reader_fetch(reader, &found))
	{
		if (written)
			kvs_settle_raise_renamed(reader->rel);
		return KVS_SETTLED_GONE;
	}
	position = (KvsPosition) {found.ready_at, found.id};
	kvs_queuexact_note_arrival(reader->queue, found.priority, position, position, 0);
	return KVS_SETTLED_RETRY;
}

static KvsSettled
change_row(KvsReader *reader, const KvsMessageRef *message, int attempts, TimestampTz ready_at, const char *error,
		   bool *written)
{
	KvsMessageRef changed = *message;
	bool		never;
	TimestampTz expires_at;

	slot_getallattrs(reader->slot);
	expires_at = DatumGetTimestampTz(kvs_reader_column(reader, KVS_QUEUE_COLUMN_EXPIRES_AT, &never));
	*written = execute_as_owner(reader->queue, KVS_QUEUE_PLAN_CHANGE, message, attempts, ready_at, error) > 0;
	if (!*written)
		check_serializable();
	changed.ready_at = ready_at;
	if (!never)
	{
		KvsMessageRef found = *message;
		bool		there = kvs_reader_fetch(reader, &found);

		kvs_expiry_note(reader->queue->relid, there ? ItemPointerGetBlockNumber(&found.tid) : InvalidBlockNumber, expires_at);
	}
	return note_where_it_is(reader, &changed, *written);
}

/* That is the owner's own doing: the worker must not try for ever. */
static void
raise_kept(const KvsReader *reader, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("a trigger of table \"%s\" kept a message from being %s", RelationGetRelationName(reader->rel), what),
			 errhint("A trigger BEFORE UPDATE or DELETE must return NEW or OLD.")));
}

KvsSettled
kvs_settle_postpone(KvsReader *reader, KvsMessageRef *message, int failed, TimestampTz ready_at)
{
	KvsSettled	locked = lock_row(reader, message, true);
	bool		written;

	if (locked != KVS_SETTLED_RETRY)
		return locked;
	return change_row(reader, message, failed, ready_at, NULL, &written);
}

KvsSettled
kvs_settle_write(KvsReader *reader, KvsMessageRef *message, TimestampTz ready_at, const char *error)
{
	KvsSettled	result = lock_row(reader, message, false);
	bool		written;

	if (result != KVS_SETTLED_RETRY)
		return result;
	result = change_row(reader, message, kvs_message_failed(message), Max(ready_at, message->ready_at), error, &written);
	if (!written)
		raise_kept(reader, "changed");
	return result;
}

/* ---- Giving up ---- */

/*
 * The error of the dead letter, with what went wrong when its undelivered keys were to be written.
 */
static const char *
write_undelivered(KvsReader *reader, const KvsMessageRef *message, TimestampTz now, const char *error)
{
	const char *problem = kvs_undelivered_write(reader, message, now);
	bool		isnull;
	Datum		last;

	if (problem == NULL)
		return error;
	last = kvs_reader_column(reader, KVS_QUEUE_COLUMN_LAST_ERROR, &isnull);
	if (error == NULL && !isnull)
		error = TextDatumGetCString(last);
	if (!reader->queue->keep_dead)
		ereport(WARNING,
				(errmsg("undelivered keys of a message of queue \"%s\" were not written: %s", reader->queue->name, problem)));
	return psprintf("%s%sundelivered keys not written: %s", error ? error : "", error ? "; " : "", problem);
}

static KvsSettled
bury(KvsReader *reader, const KvsMessageRef *message, int failed, TimestampTz now, const char *error)
{
	error = write_undelivered(reader, message, now, error);
	if (reader->queue->keep_dead ? kvs_burial_move(reader, failed, now, error) :
		kvs_settle_delete_as_owner(reader->queue, message))
	{
		kvs_queuexact_note_count(reader->queue, -1);
		kvs_stats_add(reader->queue->stat, KVS_COUNT_QUEUE_DEAD, 1);
		return KVS_SETTLED_DEAD;
	}
	check_serializable();
	return note_where_it_is(reader, message, false);
}

KvsSettled
kvs_settle_bury(KvsReader *reader, KvsMessageRef *message, TimestampTz now, const char *error)
{
	KvsSettled	result = lock_row(reader, message, false);

	if (result != KVS_SETTLED_RETRY)
		return result;
	if (reader->queue->keep_dead && !kvs_queue_try_lock_dead(reader->queue, false))
		return KVS_SETTLED_LOCKED;
	slot_getallattrs(reader->slot);
	result = bury(reader, message, kvs_message_failed(message), now, error);
	if (result == KVS_SETTLED_RETRY)
		raise_kept(reader, "deleted");
	return result;
}

/* Does only our own code run when it becomes a dead letter, and is no other session in the way? */
static bool
can_bury_at_once(KvsReader *reader)
{
	bool		no_keys;

	(void) kvs_reader_column(reader, KVS_QUEUE_COLUMN_KEYS_IF_UNDELIVERED, &no_keys);
	return no_keys && reader->queue->plain && (!reader->queue->keep_dead || kvs_queue_try_lock_dead(reader->queue, true));
}

typedef struct Burial
{
	KvsReader  *reader;
	const KvsMessageRef *message;
	int			failed;
	const KvsFailure *failure;
	KvsSettled	result;
} Burial;

static void
bury_quickly(void *arg)
{
	Burial	   *burial = arg;
	int			level = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	burial->result = bury(burial->reader, burial->message, burial->failed, burial->failure->now, burial->failure->error);
	AtEOXact_GUC(true, level);
}

/*
 * False: leave it to the worker.  Another session may be about to insert a letter of the same id,
 * or has done so.  The consumer shall not wait for that, nor fail.
 */
static bool
try_to_bury_at_once(Burial *burial)
{
	ErrorData  *error = kvs_subxact_try(bury_quickly, burial, NULL);

	if (error == NULL)
		return true;
	if (kvs_subxact_is_cancel(error))
		ReThrowError(error);
	FreeErrorData(error);
	return false;
}

static KvsSettled
give_up(KvsReader *reader, const KvsMessageRef *message, int failed, const KvsFailure *failure)
{
	Burial		burial = {reader, message, failed, failure, KVS_SETTLED_GONE};

	if (can_bury_at_once(reader) && try_to_bury_at_once(&burial))
		return burial.result;
	if (execute_as_owner(reader->queue, KVS_QUEUE_PLAN_GIVE_UP, message, failed, failure->now, failure->error) == 0)
	{
		/* a trigger of the owner's keeps it */
		check_serializable();
		return note_where_it_is(reader, message, false);
	}
	/* without a lease it is for whoever finds the row */
	if (reader->unleased || !reader->queue->plain)
		(void) note_where_it_is(reader, message, true);
	if (!reader->unleased)
		kvs_queuexact_leave_to_worker(reader->queue, message->id);
	return KVS_SETTLED_DEAD;
}

KvsSettled
kvs_settle_fail(KvsReader *reader, KvsMessageRef *message, const KvsFailure *failure)
{
	KvsSettled	locked = lock_row(reader, message, true);
	TimestampTz ready_at = failure->ready_at;
	bool		written;
	int			failed;

	if (locked != KVS_SETTLED_RETRY)
		return locked;
	/* a delivery fails once: it may have been counted when its lease expired */
	failed = Max(kvs_message_failed(message), failure->number);
	slot_getallattrs(reader->slot);
	if (failure->dead || failed >= message->max_attempts)
		return give_up(reader, message, failed, failure);
	if (ready_at == DT_NOBEGIN)
		ready_at = failure->now + kvs_reader_backoff(reader, failed);
	kvs_stats_add(reader->queue->stat, KVS_COUNT_QUEUE_RETRIED, 1);
	return change_row(reader, message, failed, ready_at, failure->error, &written);
}
