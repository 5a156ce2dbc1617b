/*
 * redrive.c
 *		SQL functions that send dead letters again: kv_dead_requeue, kv_dead_requeue_all.
 *
 * A letter is deleted, and becomes a message anew.  It has no failed attempts, and its time to live
 * begins now.  All else is kept, its sender too.  Both happen with the caller's rights: SELECT and
 * DELETE on the dead letters, INSERT on the queue.
 *
 * Three kinds of letters may have to stay.  One has a dedupe_key that a message in the queue has.
 * One has undelivered keys that the sender or the queue's owner may no longer write: whoever sends
 * it again lends it no rights.  For the third, a trigger of the owner's keeps the message out,
 * which is known only when the letter is gone.  kv_dead_requeue() says why.  kv_dead_requeue_all()
 * leaves them.  It sends the letters that have neither by one statement.  Then it sends those of
 * the others that it has found to be fit, in batches, each in a subtransaction.  A batch of which
 * one has to stay is done again, letter by letter.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/duration.h"
#include "base/progress.h"
#include "base/shmem.h"
#include "base/subxact.h"
#include "message/message.h"
#include "message/undelivered.h"
#include "queue/deadletter.h"
#include "table/plan.h"
#include "table/queueplan.h"

/* Letters that are taken in one subtransaction, if all goes well. */
#define BATCH		100

#define TAKE	"DELETE FROM " KVS_DEAD_TABLE
#define RETURNING_LETTER \
	" RETURNING payload, priority, headers, max_attempts, backoff, dedupe_key, keys_if_undelivered, " \
	"undelivered_store, sender, ttl"
#define HAS_CONDITIONS	"(dedupe_key IS NOT NULL OR keys_if_undelivered IS NOT NULL)"

/* What RETURNING_LETTER gives. */
enum
{
	LETTER_PAYLOAD,
	LETTER_PRIORITY,
	LETTER_HEADERS,
	LETTER_MAX_ATTEMPTS,
	LETTER_BACKOFF,
	LETTER_DEDUPE_KEY,
	LETTER_KEYS,
	LETTER_STORE,
	LETTER_SENDER,
	LETTER_TTL
};

typedef struct Redrive
{
	KvsQueue   *queue;
	Relation	rel;
	KvsMessageWriter writer;
	TimestampTz now;
	int64		last_id;
	bool		present;		/* a message had the dedupe_key of the letter taken last */
	bool		kept_out;		/* a trigger of the owner's did not let it in */
	MemoryContext scratch;
} Redrive;

static void
begin_redrive(Redrive *redrive, KvsQueue *queue, Relation rel)
{
	redrive->queue = queue;
	redrive->rel = rel;
	redrive->now = GetCurrentTimestamp();
	redrive->last_id = 0;
	redrive->present = redrive->kept_out = false;
	redrive->scratch = AllocSetContextCreate(CurrentMemoryContext, "kvstore dead letter", ALLOCSET_DEFAULT_SIZES);
}

/* ---- One letter ---- */

static void
fill_message(KvsMessage *message, TupleTableSlot *slot, TimestampTz now)
{
	static const struct
	{
		int			from;
		KvsQueueColumn to;
	}			kept[] = {
		{LETTER_HEADERS, KVS_QUEUE_COLUMN_HEADERS},
		{LETTER_MAX_ATTEMPTS, KVS_QUEUE_COLUMN_MAX_ATTEMPTS},
		{LETTER_BACKOFF, KVS_QUEUE_COLUMN_BACKOFF},
		{LETTER_DEDUPE_KEY, KVS_QUEUE_COLUMN_DEDUPE_KEY},
		{LETTER_KEYS, KVS_QUEUE_COLUMN_KEYS_IF_UNDELIVERED},
		{LETTER_STORE, KVS_QUEUE_COLUMN_UNDELIVERED_STORE},
		{LETTER_SENDER, KVS_QUEUE_COLUMN_SENDER},
	};
	int			priority = DatumGetInt16(slot->tts_values[LETTER_PRIORITY]);
	TimestampTz expires_at = DT_NOEND;

	kvs_message_init(message, now);
	for (int i = 0; i < (int) lengthof(kept); i++)
	{
		message->values[kept[i].to] = slot->tts_values[kept[i].from];
		message->nulls[kept[i].to] = slot->tts_isnull[kept[i].from];
	}
	/* The owner may have written the table by plain SQL. */
	kvs_message_set(message, KVS_QUEUE_COLUMN_PRIORITY, Int16GetDatum(Min(Max(priority, 0), KVS_MAX_PRIORITY)));
	if (!slot->tts_isnull[LETTER_TTL])
		expires_at = Max(kvs_duration_add(now, DatumGetIntervalP(slot->tts_values[LETTER_TTL])), now);
	/* a lifetime beyond all timestamps does not expire */
	if (expires_at <= KVS_LAST_MOMENT)
		kvs_message_set(message, KVS_QUEUE_COLUMN_EXPIRES_AT, TimestampTzGetDatum(expires_at));
}

/*
 * The letter is deleted, and becomes a message, unless its key is in use or a trigger keeps it out.
 */
static void
send_letter(TupleTableSlot *slot, void *arg)
{
	Redrive    *redrive = (Redrive *) arg;
	KvsMessageWriter *writer = &redrive->writer;
	MemoryContext old = MemoryContextSwitchTo(redrive->scratch);
	KvsMessage	message;

	fill_message(&message, slot, redrive->now);
	if (message.nulls[KVS_QUEUE_COLUMN_DEDUPE_KEY])
		kvs_message_insert(writer, &message, &slot->tts_values[LETTER_PAYLOAD], 1, &redrive->last_id);
	else
		redrive->last_id = kvs_message_insert_unless_present(writer, &message, slot->tts_values[LETTER_PAYLOAD],
															 redrive->now);
	redrive->present = writer->present;
	redrive->kept_out = redrive->last_id == 0;
	kvs_progress_advance();
	MemoryContextSwitchTo(old);
	MemoryContextReset(redrive->scratch);
}

/* Whoever keeps it out does not mean that it is lost. */
static void
raise_kept_out(const Redrive *redrive)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("a trigger of table \"%s\" kept a dead letter from becoming a message",
					RelationGetRelationName(redrive->rel)),
			 errhint("A trigger BEFORE INSERT must return NEW.  To be rid of the dead letter use kv_dead_delete().")));
}

/* The same, but say why if it is not to be sent. */
static void
check_and_send_letter(TupleTableSlot *slot, void *arg)
{
	Redrive    *redrive = (Redrive *) arg;
	char	   *key;

	if (!slot->tts_isnull[LETTER_KEYS])
	{
		Relation	rel;

		kvs_undelivered_open_store(redrive->queue,
								   slot->tts_isnull[LETTER_SENDER] ? NULL : DatumGetTextPP(slot->tts_values[LETTER_SENDER]),
								   slot->tts_isnull[LETTER_STORE] ? NULL : DatumGetTextPP(slot->tts_values[LETTER_STORE]),
								   AccessShareLock, &rel);
		table_close(rel, NoLock);
	}
	send_letter(slot, arg);
	if (redrive->kept_out)
		raise_kept_out(redrive);
	if (!redrive->present)
		return;
	key = TextDatumGetCString(slot->tts_values[LETTER_DEDUPE_KEY]);
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("message %lld of queue \"%s\" has the dedupe_key of the dead letter",
					(long long) redrive->last_id, redrive->queue->name),
			 errdetail("The key is \"%.*s\".", kvs_args_shown_size(key, strlen(key)), key)));
}

/* Returns how many letters of this id there were: 1 or 0. */
static int64
take_letter(Redrive *redrive, int64 id, KvsOnRow on_row)
{
	return kvs_deadletter_run(redrive->queue, KVS_QUEUE_PLAN_DEAD_TAKE, TAKE KVS_DEAD_THIS RETURNING_LETTER, &id, on_row,
							  redrive);
}

/* ---- All that may be sent ---- */

/* Letters that may have to stay: how many there are, and which of them seem fit to be sent. */
typedef struct Fit
{
	Redrive    *redrive;
	int64		all;
	int64		count;
	int64		size;
	int64	   *ids;
} Fit;

typedef struct Conditions
{
	Redrive    *redrive;
	const text *sender;
	const text *store;
} Conditions;

static void
check_store(void *arg)
{
	Conditions *conditions = (Conditions *) arg;
	Relation	rel;

	kvs_undelivered_open_store(conditions->redrive->queue, conditions->sender, conditions->store, AccessShareLock, &rel);
	table_close(rel, NoLock);
}

/* The errors of kvs_undelivered_open_store() that are not about this letter. */
static bool
is_not_about_letter(int sqlerrcode)
{
	return sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE && sqlerrcode != ERRCODE_UNDEFINED_TABLE &&
		sqlerrcode != ERRCODE_FEATURE_NOT_SUPPORTED && sqlerrcode != ERRCODE_WRONG_OBJECT_TYPE &&
		sqlerrcode != ERRCODE_INVALID_PARAMETER_VALUE && sqlerrcode != ERRCODE_NULL_VALUE_NOT_ALLOWED;
}

/* Those with conditions or, with $1, all. */
#define LIST_CONDITIONS \
	"SELECT id, dedupe_key, keys_if_undelivered IS NULL, undelivered_store, sender FROM " KVS_DEAD_TABLE \
	" WHERE $1 OR " HAS_CONDITIONS " ORDER BY id"

static bool
is_fit(Redrive *redrive, TupleTableSlot *slot)
{
	Conditions	conditions = {
		.redrive = redrive,
		.store = slot->tts_isnull[3] ? NULL : DatumGetTextPP(slot->tts_values[3]),
		.sender = slot->tts_isnull[4] ? NULL : DatumGetTextPP(slot->tts_values[4])
	};

	if (!slot->tts_isnull[1] &&
		kvs_message_is_key_in_use(redrive->queue, redrive->rel, slot->tts_values[1], redrive->now))
		return false;
	return DatumGetBool(slot->tts_values[2]) || kvs_subxact_try(check_store, &conditions, is_not_about_letter) == NULL;
}

static void
note_fit(TupleTableSlot *slot, void *arg)
{
	Fit		   *fit = (Fit *) arg;
	MemoryContext old = MemoryContextSwitchTo(fit->redrive->scratch);
	bool		fits;

	CHECK_FOR_INTERRUPTS();
	fit->all++;
	fits = is_fit(fit->redrive, slot);
	MemoryContextSwitchTo(old);
	MemoryContextReset(fit->redrive->scratch);
	if (!fits)
		return;
	if (fit->count == fit->size)
	{
		fit->size *= 2;
		fit->ids = repalloc_huge(fit->ids, sizeof(int64) * fit->size);
	}
	fit->ids[fit->count++] = DatumGetInt64(slot->tts_values[0]);
}

static void
find_fit(Redrive *redrive, bool all, Fit *fit)
{
	static const Oid types[] = {BOOLOID};
	ParamListInfo params;

	fit->redrive = redrive;
	fit->all = fit->count = 0;
	fit->size = BATCH;
	fit->ids = palloc(sizeof(int64) * fit->size);
	SPI_connect();
	params = makeParamList(1);
	kvs_plan_set_param(params, 0, BOOLOID, BoolGetDatum(all), false);
	kvs_plan_query(kvs_queue_get_plan(redrive->queue, KVS_QUEUE_PLAN_DEAD_CONDITIONS, LIST_CONDITIONS, 1, types), params,
				   note_fit, fit);
	SPI_finish();
}

typedef struct Batch
{
	Redrive    *redrive;
	const int64 *ids;
	int			count;
	int64		taken;
} Batch;

/* Has it to stay? */
static bool
was_refused(const Redrive *redrive)
{
	return redrive->present || redrive->kept_out;
}

/* All of them, or (false) none: one has to stay. */
static bool
take_batch(void *arg)
{
	Batch	   *batch = (Batch *) arg;
	Redrive    *redrive = batch->redrive;

	batch->taken = 0;
	kvs_message_begin(&redrive->writer, redrive->queue, redrive->rel);
	for (int i = 0; i < batch->count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		redrive->present = redrive->kept_out = false;
		batch->taken += take_letter(redrive, batch->ids[i], send_letter);
		if (was_refused(redrive))
			return false;
	}
	kvs_message_end(&redrive->writer);
	return true;
}

/* Returns how many were sent. */
static int64
take_fit(Redrive *redrive, const int64 *ids, int count)
{
	Batch		batch = {redrive, ids, count, 0};
	int64		taken = 0;

	kvs_subxact_run(take_batch, &batch);
	if (!was_refused(redrive))
		return batch.taken;
	batch.count = 1;
	for (int i = 0; i < count && count > 1; i++)
	{
		batch.ids = ids + i;
		kvs_subxact_run(take_batch, &batch);
		taken += was_refused(redrive) ? 0 : batch.taken;
	}
	return taken;
}

/* Those without conditions, and those that fit; returns how many were sent. */
static int64
redrive_all(Redrive *redrive)
{
	int64		sent = 0;
	int64		sent_fit = 0;
	bool		one_by_one;
	Fit			fit;

	kvs_message_begin(&redrive->writer, redrive->queue, redrive->rel);
	/* a statement that deletes letters cannot let some of them stay */
	one_by_one = redrive->writer.changed;
	if (!one_by_one)
		sent = kvs_deadletter_run(redrive->queue, KVS_QUEUE_PLAN_DEAD_TAKE_ALL,
								  TAKE " WHERE NOT " HAS_CONDITIONS RETURNING_LETTER, NULL, send_letter, redrive);
	kvs_message_end(&redrive->writer);
	find_fit(redrive, one_by_one, &fit);
	for (int64 i = 0; i < fit.count; i += BATCH)
		sent_fit += take_fit(redrive, fit.ids + i, Min(BATCH, fit.count - i));
	pfree(fit.ids);
	if (sent_fit < fit.all)
		ereport(NOTICE,
				(errmsg_plural("%lld dead letter of queue \"%s\" was left", "%lld dead letters of queue \"%s\" were left",
							   (unsigned long) (fit.all - sent_fit), (long long) (fit.all - sent_fit), redrive->queue->name),
				 errdetail("A dedupe_key is in use, undelivered keys may not be written, or a trigger keeps the message out."),
				 errhint("kv_dead_requeue() says which it is.")));
	return sent + sent_fit;
}

/* ---- SQL ---- */

/*
 * kv_dead_requeue(queue, id) returns bigint: the new message's id, NULL if there is no such dead
 * letter
 */
PG_FUNCTION_INFO_V1(kvstore_dead_requeue);
Datum
kvstore_dead_requeue(PG_FUNCTION_ARGS)
{
	int64		id = kvs_deadletter_id_arg(fcinfo);
	Redrive		redrive;
	Relation	rel;
	KvsQueue   *queue = kvs_deadletter_open(fcinfo, "kv_dead_requeue()", false, &rel);

	kvs_shmem_require("kv_dead_requeue()");
	begin_redrive(&redrive, queue, rel);
	kvs_message_begin(&redrive.writer, queue, rel);
	take_letter(&redrive, id, check_and_send_letter);
	kvs_message_end(&redrive.writer);
	MemoryContextDelete(redrive.scratch);
	table_close(rel, NoLock);
	if (redrive.last_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(redrive.last_id);
}

/* kv_dead_requeue_all(queue) returns bigint: how many */
PG_FUNCTION_INFO_V1(kvstore_dead_requeue_all);
Datum
kvstore_dead_requeue_all(PG_FUNCTION_ARGS)
{
	Redrive		redrive;
	Relation	rel;
	KvsQueue   *queue = kvs_deadletter_open(fcinfo, "kv_dead_requeue_all()", true, &rel);
	int64		count;

	kvs_shmem_require("kv_dead_requeue_all()");
	kvs_progress_begin(KVS_COMMAND_REQUEUE_ALL, queue->relid, -1);
	begin_redrive(&redrive, queue, rel);
	count = redrive_all(&redrive);
	MemoryContextDelete(redrive.scratch);
	kvs_progress_end();
	table_close(rel, NoLock);
	PG_RETURN_INT64(count);
}
