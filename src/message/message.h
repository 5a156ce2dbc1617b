/*
 * message.h
 *		Messages in: writing rows of a queue.
 */
#ifndef KVS_MESSAGE_H
#define KVS_MESSAGE_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/rel.h"

#include "table/queuecatalog.h"

/* A row of a queue, in the order of its columns. */
typedef struct KvsMessage
{
	Datum		values[KVS_QUEUE_COLUMNS];
	bool		nulls[KVS_QUEUE_COLUMNS];
} KvsMessage;

/*
 * A message of the current user that is ready at once and has no options; payload and id are left
 * to the functions below.
 */
extern void kvs_message_init(KvsMessage *message, TimestampTz now);

extern void kvs_message_set(KvsMessage *message, KvsQueueColumn column, Datum value);

/*
 * Messages of one priority that one call has written, the first and the last in the queue's order.
 */
typedef struct KvsArrived
{
	int64		count;
	TimestampTz low_ready_at;
	int64		low_id;
	TimestampTz high_ready_at;
	int64		high_id;
} KvsArrived;

/* One call that writes messages. */
typedef struct KvsMessageWriter
{
	KvsQueue   *queue;
	Relation	rel;
	bool		direct;			/* by the table access method */
	bool		changed;		/* triggers of the owner's may change a row, or keep it out */
	bool		present;		/* a message had the dedupe_key of the one to be written last */
	Relation	order_index;	/* NULL until used */
	Relation	id_index;
	struct IndexInfo *order_info;
	struct IndexInfo *id_info;
	KvsArrived	arrived[KVS_MAX_PRIORITY + 1];
} KvsMessageWriter;

/*
 * Begin to write as the caller; the table must be open and locked with RowExclusiveLock.  An ERROR
 * cleans up.  To end it is what makes the rows visible to the next statement and notes their
 * arrival.
 */
extern void kvs_message_begin(KvsMessageWriter *writer, KvsQueue *queue, Relation rel);
extern void kvs_message_end(KvsMessageWriter *writer);

/*
 * Insert messages that are alike but for their payloads.  "ids" gets their ids, 0 for one that a
 * trigger of the owner's kept out.  42501 without INSERT.
 */
extern void kvs_message_insert(KvsMessageWriter *writer, const KvsMessage *message, const Datum *payloads, int count,
							   int64 *ids);

/*
 * The same for one with a dedupe_key, unless the queue has a message with that, whose id is
 * returned then.
 */
extern int64 kvs_message_insert_unless_present(KvsMessageWriter *writer, const KvsMessage *message, Datum payload,
											   TimestampTz now);

/* Has a message this dedupe_key, as far as one can see?  One that has expired does not keep it. */
extern bool kvs_message_is_key_in_use(KvsQueue *queue, Relation rel, Datum key, TimestampTz now);

/* ---- messageremove.c ---- */

typedef enum KvsRemoval
{
	KVS_REMOVED,
	KVS_REMOVAL_GONE,			/* somebody has deleted it */
	KVS_REMOVAL_CHANGED,		/* somebody has changed it: look again */
	KVS_REMOVAL_BUSY			/* somebody is doing so, and "wait" was false */
} KvsRemoval;

/*
 * Delete a row that was found, by the table access method; the queue must be plain.  No right is
 * checked.
 */
extern KvsRemoval kvs_messageremove_remove(Relation rel, TupleTableSlot *slot, bool wait);

/*
 * Find a row by one of the unique indexes, with a new snapshot that sees what this transaction
 * wrote.  All columns are deformed, in the slot's own memory.  No right is checked.
 */
extern bool kvs_messageremove_find(Relation rel, Oid indexid, RegProcedure equal, Datum value, TupleTableSlot *slot);

#endif							/* KVS_MESSAGE_H */
