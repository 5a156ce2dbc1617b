/*
 * reader.h
 *		Messages out: finding the rows of a queue, and their newest versions, without the executor.
 */
#ifndef KVS_READER_H
#define KVS_READER_H

#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "utils/rel.h"

#include "lease/lease.h"
#include "table/queuecatalog.h"

typedef struct KvsReader
{
	KvsQueue   *queue;
	Relation	rel;
	bool		unleased;		/* there was no room for a lease of what is settled (ack.c) */
	TupleTableSlot *slot;		/* the row found last; its page is pinned */
	Relation	order_index;	/* NULL until used */
	IndexScanDesc scan;			/* NULL until used */
	Datum		start[2];		/* of the scan */
	ScanKeyData members[2];
	Relation	id_index;		/* NULL until used */
	IndexScanDesc id_scan;
} KvsReader;

/* What the row in a slot says; failures stay.  All columns of the slot are deformed then. */
extern void kvs_reader_describe(const KvsQueue *queue, TupleTableSlot *slot, KvsMessageRef *message);

/* Begin; the caller holds a lock on the open table.  An ERROR cleans up. */
extern void kvs_reader_begin(KvsReader *reader, KvsQueue *queue, Relation rel);
extern void kvs_reader_end(KvsReader *reader);

/* ---- In order ---- */

/* Begin a scan of the messages of a priority, from "start" on. */
extern void kvs_reader_scan(KvsReader *reader, int priority, KvsPosition start);

/*
 * The same for a scan of the caller's own over that index; the two "members" stay as long as it
 * does.
 */
extern void kvs_reader_rescan(IndexScanDesc scan, ScanKeyData *members, int priority, KvsPosition start);

/* The next entry of the index, of a message that may be gone; false at the end. */
extern bool kvs_reader_next(KvsReader *reader, KvsPosition *position);

/* Its row, as it is now; false if no version is visible. */
extern bool kvs_reader_see(KvsReader *reader, KvsMessageRef *message);

/* ---- One ---- */

/*
 * The row of a message, where it was last or where the index says; false if it is gone.  "message"
 * becomes what the row says, but for failures.
 */
extern bool kvs_reader_fetch(KvsReader *reader, KvsMessageRef *message);

/* Of a message that was not found: has the transaction that sent it, and received it, not ended? */
extern bool kvs_reader_is_coming(KvsReader *reader, KvsMessageRef *message);

typedef enum KvsRowState
{
	KVS_ROW_THERE,
	KVS_ROW_BEING_DELETED,		/* or changed, by a transaction that has not ended */
	KVS_ROW_GONE
} KvsRowState;

/* What has become of the row that was found last? */
extern KvsRowState kvs_reader_look_again(KvsReader *reader);

/* Is it there? */
static inline bool
kvs_reader_is_there(KvsReader *reader)
{
	return kvs_reader_look_again(reader) != KVS_ROW_GONE;
}

/* Is a session deleting it? */
static inline bool
kvs_reader_is_being_deleted(KvsReader *reader)
{
	return kvs_reader_look_again(reader) == KVS_ROW_BEING_DELETED;
}

/* Has this transaction written it? */
extern bool kvs_reader_is_own(const KvsReader *reader);

/* Does this snapshot see it, too? */
extern bool kvs_reader_is_visible(KvsReader *reader, Snapshot snapshot);

/* ---- Rows ---- */

/* May the row found last not be delivered any more? */
extern bool kvs_reader_has_expired(const KvsReader *reader, TimestampTz now);

/*
 * How many microseconds the message of the row found last waits after its n-th failure.  It is the
 * n-th delay of its own backoff or the queue's, or the last one.  Delays of the default backoff
 * have a jitter of KVS_JITTER in both directions, so that messages that failed together do not come
 * back together.
 */
#define KVS_JITTER	0.2

extern int64 kvs_reader_backoff(const KvsReader *reader, int n);

/* A column of the row found last; all columns are deformed. */
static inline Datum
kvs_reader_column(const KvsReader *reader, KvsQueueColumn column, bool *isnull)
{
	*isnull = reader->slot->tts_isnull[column];
	return reader->slot->tts_values[column];
}

#endif							/* KVS_READER_H */
