/* atomicqueue.h: the operation of kv_atomic() that sends a message. */
#ifndef KVS_ATOMICQUEUE_H
#define KVS_ATOMICQUEUE_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "kv/atomicoperation.h"

/* Read its arguments, the object in {"enqueue": {...}}. */
extern void kvs_atomicqueue_read(KvsOperation *operation, JsonbValue *object, TimestampTz now);

/*
 * Send all messages of these operations, and change their order.  Those with a dedupe_key are sent
 * in order of that, so that no two calls wait for each other.
 */
extern void kvs_atomicqueue_send(KvsOperation *operations, int count, TimestampTz now);

#endif							/* KVS_ATOMICQUEUE_H */
