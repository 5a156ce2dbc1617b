/*
 * message.h
 *		Messages in: writing rows of a queue.
 */
#ifndef KVS_MESSAGE_H
#define KVS_MESSAGE_H

#include "postgres.h"

#include "utils/rel.h"

#include "queuecatalog.h"

/* A row of a queue, in the order of its columns. */
typedef struct KvsMessage
{
	Datum		values[KVS_QUEUE_COLUMNS];
	bool		nulls[KVS_QUEUE_COLUMNS];
} KvsMessage;

/* A message that is ready at once and has nothing but its time; payload and id are left to the functions below. */
extern void kvs_message_init(KvsMessage *message, TimestampTz now);

extern void kvs_message_set(KvsMessage *message, KvsQueueColumn column, Datum value);

/*
 * Insert messages that are alike but for their payloads, as the caller, and note their arrival.  "ids" gets their ids, 0 for one that a trigger of the
 * owner's kept out.  The table must be open and locked with RowExclusiveLock.  42501 without INSERT.
 */
extern void kvs_message_insert(KvsQueue *queue, Relation rel, const KvsMessage *message, const Datum *payloads, int count,
							   int64 *ids);

/* The same for one with a dedupe_key, unless the queue has a message with that, whose id is returned then. */
extern int64 kvs_message_insert_unless_present(KvsQueue *queue, Relation rel, const KvsMessage *message, Datum payload,
											   TimestampTz now);

#endif							/* KVS_MESSAGE_H */
