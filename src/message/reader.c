/*
 * reader.c
 *		Messages out: finding the rows of a queue, and their newest versions, without the executor.
 *
 * The lease table and what is committed at this instant decide whether a message may be delivered,
 * not a snapshot.  So rows are looked at with SnapshotSelf, which sees what is committed when it
 * looks, and what this transaction has written.  It sees no more than a new snapshot for each row
 * would, costs nothing to take, and leaves no predicate locks.  The caller has to ask what a
 * REPEATABLE READ transaction may have.
 *
 * The entries of the index come with their columns.  So the position of a message that is gone is
 * known without a look at its row.  A scan that comes to a message that is not ready ends before it
 * reads the row.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/duration.h"
#include "message/reader.h"
#include "store/rowmap.h"
#include "table/backoff.h"

/* Columns of the index over (priority DESC, ready_at, id). */
enum
{
	ORDER_PRIORITY = 1,
	ORDER_READY_AT,
	ORDER_ID
};

void
kvs_reader_begin(KvsReader *reader, KvsQueue *queue, Relation rel)
{
	memset(reader, 0, sizeof(KvsReader));
	reader->queue = queue;
	reader->rel = rel;
	reader->slot = table_slot_create(rel, NULL);
}

void
kvs_reader_end(KvsReader *reader)
{
	ExecDropSingleTupleTableSlot(reader->slot);
	if (reader->scan != NULL)
		index_endscan(reader->scan);
	if (reader->order_index != NULL)
		index_close(reader->order_index, NoLock);
	if (reader->id_scan != NULL)
		index_endscan(reader->id_scan);
	if (reader->id_index != NULL)
		index_close(reader->id_index, NoLock);
}

void
kvs_reader_describe(const KvsQueue *queue, TupleTableSlot *slot, KvsMessageRef *message)
{
	slot_getallattrs(slot);
	message->id = DatumGetInt64(slot->tts_values[KVS_QUEUE_COLUMN_ID]);
	message->enqueued_at = DatumGetTimestampTz(slot->tts_values[KVS_QUEUE_COLUMN_ENQUEUED_AT]);
	message->ready_at = DatumGetTimestampTz(slot->tts_values[KVS_QUEUE_COLUMN_READY_AT]);
	message->priority = DatumGetInt16(slot->tts_values[KVS_QUEUE_COLUMN_PRIORITY]);
	/* an owner can write what the guard would refuse; what is done with them must not overflow */
	message->attempts = Min(Max(DatumGetInt32(slot->tts_values[KVS_QUEUE_COLUMN_ATTEMPTS]), 0), PG_INT32_MAX / 2);
	message->max_attempts = slot->tts_isnull[KVS_QUEUE_COLUMN_MAX_ATTEMPTS] ? queue->max_attempts :
		Max(DatumGetInt32(slot->tts_values[KVS_QUEUE_COLUMN_MAX_ATTEMPTS]), 1);
	message->dying = !slot->tts_isnull[KVS_QUEUE_COLUMN_FAILED_AT];
	message->tid = slot->tts_tid;
}

/* ---- In order ---- */

static void
open_order_index(KvsReader *reader)
{
	reader->order_index = index_open(reader->queue->order_index, RowExclusiveLock);
	reader->scan = kvs_compat_index_beginscan(reader->rel, reader->order_index, SnapshotSelf, 2);
	reader->scan->xs_want_itup = true;
}

/* priority = $1 AND (ready_at, id) >= ($2, $3): a row comparison, as the planner would make it. */
void
kvs_reader_rescan(IndexScanDesc scan, ScanKeyData *members, int priority, KvsPosition start)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], ORDER_PRIORITY, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(priority));
	ScanKeyEntryInitialize(&members[0], SK_ROW_MEMBER, ORDER_READY_AT, BTGreaterEqualStrategyNumber,
						   TIMESTAMPTZOID, InvalidOid, F_TIMESTAMPTZ_CMP, TimestampTzGetDatum(start.ready_at));
	ScanKeyEntryInitialize(&members[1], SK_ROW_MEMBER | SK_ROW_END, ORDER_ID, BTGreaterEqualStrategyNumber,
						   INT8OID, InvalidOid, F_BTINT8CMP, Int64GetDatum(start.id));
	MemSet(&keys[1], 0, sizeof(ScanKeyData));
	keys[1].sk_flags = SK_ROW_HEADER;
	keys[1].sk_attno = ORDER_READY_AT;
	keys[1].sk_strategy = BTGreaterEqualStrategyNumber;
	keys[1].sk_argument = PointerGetDatum(members);
	index_rescan(scan, keys, 2, NULL, 0);
}

void
kvs_reader_scan(KvsReader *reader, int priority, KvsPosition start)
{
	if (reader->scan == NULL)
		open_order_index(reader);
	kvs_reader_rescan(reader->scan, reader->members, priority, start);
}

bool
kvs_reader_next(KvsReader *reader, KvsPosition *position)
{
	TupleDesc	desc = reader->scan->xs_itupdesc;
	bool		isnull;

	if (index_getnext_tid(reader->scan, ForwardScanDirection) == NULL)
		return false;
	position->ready_at = DatumGetTimestampTz(index_getattr(reader->scan->xs_itup, ORDER_READY_AT, desc, &isnull));
	position->id = DatumGetInt64(index_getattr(reader->scan->xs_itup, ORDER_ID, desc, &isnull));
	return true;
}

bool
kvs_reader_see(KvsReader *reader, KvsMessageRef *message)
{
	if (!index_fetch_heap(reader->scan, reader->slot))
		return false;
	kvs_reader_describe(reader->queue, reader->slot, message);
	return true;
}

/* ---- One ---- */

static bool
fetch_by_place(KvsReader *reader, KvsMessageRef *message, Snapshot snapshot)
{
	KvsMessageRef	found;

	if (!ItemPointerIsValid(&message->tid) ||
		!kvs_rowmap_block_exists(reader->rel, ItemPointerGetBlockNumber(&message->tid)) ||
		!table_tuple_fetch_row_version(reader->rel, &message->tid, snapshot, reader->slot))
		return false;
	found = *message;
	kvs_reader_describe(reader->queue, reader->slot, &found);
	if (found.id != message->id || found.enqueued_at != message->enqueued_at)
		return false;
	*message = found;
	return true;
}

static void
open_id_index(KvsReader *reader)
{
	reader->id_index = index_open(reader->queue->id_index, RowExclusiveLock);
	reader->id_scan = kvs_compat_index_beginscan(reader->rel, reader->id_index, SnapshotSelf, 1);
}

static bool
fetch_by_id(KvsReader *reader, KvsMessageRef *message)
{
	ScanKeyData key;
	KvsMessageRef	found = *message;

	if (reader->id_scan == NULL)
		open_id_index(reader);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(message->id));
	index_rescan(reader->id_scan, &key, 1, NULL, 0);
	while (index_getnext_slot(reader->id_scan, ForwardScanDirection, reader->slot))
	{
		kvs_reader_describe(reader->queue, reader->slot, &found);
		if (found.enqueued_at != message->enqueued_at)
			continue;
		*message = found;
		return true;
	}
	return false;
}

bool
kvs_reader_fetch(KvsReader *reader, KvsMessageRef *message)
{
	return fetch_by_place(reader, message, SnapshotSelf) || fetch_by_id(reader, message);
}

bool
kvs_reader_is_coming(KvsReader *reader, KvsMessageRef *message)
{
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	return fetch_by_place(reader, message, &dirty);
}

KvsRowState
kvs_reader_look_again(KvsReader *reader)
{
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	if (!table_tuple_satisfies_snapshot(reader->rel, reader->slot, &dirty) || TransactionIdIsValid(dirty.xmin))
		return KVS_ROW_GONE;
	return TransactionIdIsValid(dirty.xmax) ? KVS_ROW_BEING_DELETED : KVS_ROW_THERE;
}

bool
kvs_reader_is_own(const KvsReader *reader)
{
	bool		isnull;
	Datum		xmin = slot_getsysattr(reader->slot, MinTransactionIdAttributeNumber, &isnull);

	return TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
}

bool
kvs_reader_has_expired(const KvsReader *reader, TimestampTz now)
{
	bool		isnull;
	Datum		expires_at = kvs_reader_column(reader, KVS_QUEUE_COLUMN_EXPIRES_AT, &isnull);

	return !isnull && DatumGetTimestampTz(expires_at) <= now;
}

bool
kvs_reader_is_visible(KvsReader *reader, Snapshot snapshot)
{
	return table_tuple_satisfies_snapshot(reader->rel, reader->slot, snapshot);
}

int64
kvs_reader_backoff(const KvsReader *reader, int n)
{
	const Interval *backoff = reader->queue->backoff;
	int			count = reader->queue->nbackoff;
	bool		jitter = reader->queue->jitter;
	Interval	own[KVS_BACKOFF_MAX];
	bool		isnull;
	Datum		array = kvs_reader_column(reader, KVS_QUEUE_COLUMN_BACKOFF, &isnull);
	int64		delay;

	if (unlikely(!isnull))
	{
		count = kvs_backoff_take(DatumGetArrayTypeP(array), own);
		backoff = own;
		jitter = false;
	}
	if (count == 0)
		return 0;
	/* at most a year, so nothing overflows */
	delay = Max(kvs_duration_add(0, &backoff[Min(Max(n, 1), count) - 1]), 0);
	return jitter ? delay * (1 - KVS_JITTER + 2 * KVS_JITTER * pg_prng_double(&pg_global_prng_state)) : delay;
}
