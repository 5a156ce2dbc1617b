/* undelivered.h: the entries that are written when a message is given up. */
#ifndef KVS_UNDELIVERED_H
#define KVS_UNDELIVERED_H

#include "postgres.h"

#include "message/reader.h"
#include "table/catalog.h"

/*
 * Raise 0A000 if the store has row-level security: its policies are not for the role as which we
 * write.
 */
extern void kvs_undelivered_check_store(const KvsStore *store, Relation rel);

/*
 * Raise 42501 unless both the sender and the present owner of the queue may write the store now.
 * The sender's name is NULL if it is not known.  Other errors as kvs_storecatalog_open_store() and
 * kvs_undelivered_check_store().  Opens the store as the former does.
 */
extern KvsStore *kvs_undelivered_open_store(const KvsQueue *queue, const text *sender, const text *name,
											LOCKMODE lockmode, Relation *rel);

/*
 * Write what the row in the reader asks for: its payload under each of its keys_if_undelivered, as
 * the owner of the store.  NULL: it is written, or nothing was asked for; else why not, palloc'd,
 * and nothing of it is written.  The lease of the message is being ended.
 */
extern char *kvs_undelivered_write(KvsReader *reader, const KvsMessageRef *message, TimestampTz now);

/*
 * The worker: have this called after code of a store's owner has run; it raises the ERROR that ends
 * the step.
 */
extern void kvs_undelivered_set_check(void (*check) (void));

#endif							/* KVS_UNDELIVERED_H */
