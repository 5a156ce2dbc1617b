/* send.h: sending a message, for whoever has its options in hand. */
#ifndef KVS_SEND_H
#define KVS_SEND_H

#include "postgres.h"

#include "utils/array.h"
#include "utils/jsonb.h"

#include "message/message.h"

/*
 * Options, checked as those of kv_enqueue() are.  DT_NOEND: it never expires; "name" is that of the
 * argument.
 */
extern void kvs_send_set_ready_at(KvsMessage *message, TimestampTz ready_at, const char *name);
extern void kvs_send_set_expiry(KvsMessage *message, TimestampTz expires_at, const char *name);
extern void kvs_send_set_priority(KvsMessage *message, int64 priority);
extern void kvs_send_set_headers(KvsMessage *message, Datum headers);
extern void kvs_send_set_backoff(KvsMessage *message, ArrayType *backoff);
extern void kvs_send_set_dedupe_key(KvsMessage *message, const text *key);
extern void kvs_send_set_undelivered(KvsMessage *message, Jsonb *keys, const text *store_name);

/* KV002 if it is too large. */
extern void kvs_send_check_payload(Datum payload);

/*
 * Send; returns the id, that of the message which has the dedupe_key already, or 0 if a trigger of
 * the owner's keeps it out.
 */
extern int64 kvs_send(KvsQueue *queue, Relation rel, const KvsMessage *message, Datum payload, TimestampTz now);

/* 22023 if a message would have a moment that is so far away; "name" is that of the argument. */
extern void kvs_send_check_moment(TimestampTz moment, const char *name);

#endif							/* KVS_SEND_H */
