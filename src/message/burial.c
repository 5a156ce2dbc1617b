/*
 * burial.c
 *		Moving a message to the dead letters of its queue.
 *
 * One statement deletes the row and inserts the letter, as the owner of both tables, in a
 * restricted operation.  The table of the letters is opened first: its shape and owner are checked.
 * As long as its lock is held nobody can put another table in its place.
 *
 * A trigger of the owner's may keep the letter out.  The message is gone all the same, for that is
 * what its owner wants.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/deferred.h"
#include "base/identity.h"
#include "message/burial.h"
#include "table/plan.h"
#include "table/queueplan.h"

/* It gives a row for each message that it deleted. */
#define MOVE \
	"WITH m AS (DELETE FROM kvstore.q_%1$s AS m WHERE m.id OPERATOR(pg_catalog.=) $1 " \
	"AND m.enqueued_at OPERATOR(pg_catalog.=) $2 RETURNING m.*), " \
	"d AS (INSERT INTO kvstore.d_%1$s (original_id, payload, headers, error, attempts, enqueued_at, " \
	"failed_at, priority, max_attempts, backoff, ttl, dedupe_key, keys_if_undelivered, " \
	"undelivered_store, sender) SELECT m.id, m.payload, m.headers, " \
	"CASE WHEN $5 IS NULL THEN m.last_error ELSE $5 END, $3, m.enqueued_at, COALESCE(m.failed_at, $4), m.priority, " \
	"m.max_attempts, m.backoff, $6, m.dedupe_key, m.keys_if_undelivered, m.undelivered_store, m.sender " \
	"FROM m) SELECT FROM m"

/* Its arguments. */
enum
{
	ARG_ID,
	ARG_ENQUEUED_AT,
	ARG_ATTEMPTS,
	ARG_FAILED_AT,
	ARG_ERROR,
	ARG_TTL,
	ARGS
};

static const Oid types[ARGS] = {
	INT8OID, TIMESTAMPTZOID, INT4OID, TIMESTAMPTZOID, TEXTOID, INTERVALOID
};

/*
 * How long the message had to live when it was sent; false: for ever, or longer than an interval
 * can say.
 */
static bool
read_ttl(KvsReader *reader, Interval *ttl)
{
	bool		isnull;
	TimestampTz sent = DatumGetTimestampTz(kvs_reader_column(reader, KVS_QUEUE_COLUMN_ENQUEUED_AT, &isnull));
	TimestampTz expires_at = DatumGetTimestampTz(kvs_reader_column(reader, KVS_QUEUE_COLUMN_EXPIRES_AT, &isnull));

	memset(ttl, 0, sizeof(Interval));
	if (isnull || TIMESTAMP_NOT_FINITE(expires_at) || TIMESTAMP_NOT_FINITE(sent) ||
		pg_sub_s64_overflow(expires_at, sent, &ttl->time))
		return false;
	/* the owner may have written the row by plain SQL */
	ttl->time = Max(ttl->time, 0);
	return true;
}

static uint64
run_as_owner(KvsQueue *queue, Relation rel, Relation dead, ParamListInfo params)
{
	KvsIdentity saved;
	uint64		moved;

	kvs_identity_become(queue->owner, &saved);
	kvs_deferred_set(rel, true);
	kvs_deferred_set(dead, true);
	SPI_connect();
	moved = kvs_plan_execute(kvs_queue_get_plan(queue, KVS_QUEUE_PLAN_BURY, MOVE, ARGS, types),
								  params, queue->relid, NULL, NULL);
	SPI_finish();
	kvs_deferred_set(rel, false);
	kvs_deferred_set(dead, false);
	kvs_identity_restore(&saved);
	return moved;
}

bool
kvs_burial_move(KvsReader *reader, int attempts, TimestampTz failed_at, const char *error)
{
	ParamListInfo params = makeParamList(ARGS);
	Interval	ttl;
	bool		has_ttl;
	bool		isnull;
	Relation	dead = kvs_queue_open_dead(reader->queue, RowExclusiveLock);
	uint64		moved;

	slot_getallattrs(reader->slot);
	has_ttl = read_ttl(reader, &ttl);
	kvs_plan_set_param(params, ARG_ID, INT8OID,
							kvs_reader_column(reader, KVS_QUEUE_COLUMN_ID, &isnull), false);
	kvs_plan_set_param(params, ARG_ENQUEUED_AT, TIMESTAMPTZOID,
							kvs_reader_column(reader, KVS_QUEUE_COLUMN_ENQUEUED_AT, &isnull), false);
	kvs_plan_set_param(params, ARG_ATTEMPTS, INT4OID, Int32GetDatum(attempts), false);
	kvs_plan_set_param(params, ARG_FAILED_AT, TIMESTAMPTZOID, TimestampTzGetDatum(failed_at), false);
	kvs_plan_set_param(params, ARG_ERROR, TEXTOID,
							error ? CStringGetTextDatum(error) : (Datum) 0, error == NULL);
	kvs_plan_set_param(params, ARG_TTL, INTERVALOID, IntervalPGetDatum(&ttl), !has_ttl);
	moved = run_as_owner(reader->queue, reader->rel, dead, params);
	table_close(dead, NoLock);
	return moved > 0;
}
