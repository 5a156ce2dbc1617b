/* operationqueue.h: the operation of kv_atomic() that sends a message. */
#ifndef KVS_OPERATIONQUEUE_H
#define KVS_OPERATIONQUEUE_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "operations.h"

/* Read its arguments, the object in {"enqueue": {...}}. */
extern void kvs_operationqueue_read(KvsOperation *operation, JsonbValue *object, TimestampTz now);

/* Send all messages of these operations, whose order is changed: those with a dedupe_key in order of that, so that no two calls wait for each other. */
extern void kvs_operationqueue_send(KvsOperation *operations, int count, TimestampTz now);

#endif							/* KVS_OPERATIONQUEUE_H */
