/*
 * queuecount.h
 *		How many messages each queue has, without counting them.
 */
#ifndef KVS_QUEUECOUNT_H
#define KVS_QUEUECOUNT_H

#include "postgres.h"

#include "utils/rel.h"

#include "queueslot.h"

/* ---- What this transaction does; published when it commits ---- */

/* So many rows more, or less. */
extern void kvs_queuecount_note(const KvsQueue *queue, int64 change);

/* The table is empty now: TRUNCATE. */
extern void kvs_queuecount_note_empty(Oid relid);

extern bool kvs_queuecount_any(void);

/* What this transaction, whose rows nobody else sees, makes of so many committed ones. */
extern int64 kvs_queuecount_with_own(Oid relid, int64 messages);

/* With the lock held, at commit: all that concerns this queue. */
extern void kvs_queuecount_publish_to(KvsQueueSlot *slot);

/* For leasexact.c: the end of the transaction or a subtransaction; publish what is left. */
extern void kvs_queuecount_publish(void);
extern void kvs_queuecount_forget(void);
extern void kvs_queuecount_end_subtransaction(bool commit, SubTransactionId subid, SubTransactionId parent);

/* ---- Counting ---- */

/* With the lock held: nobody knows how many there are. */
extern void kvs_queuecount_init_slot(KvsQueueSlot *slot);

/* With the lock held: have the worker count, if need be.  True: lower next due (expiry.h), when the lock is released. */
extern bool kvs_queuecount_ask(KvsQueueSlot *slot, TimestampTz now);

/* Have all queues of this database counted anew. */
extern void kvs_queuecount_ask_all(void);

/* Count, in a transaction that has not written anything.  False: not now, and a new time is set. */
extern bool kvs_queuecount_run(KvsQueue *queue, Relation rel);

#endif							/* KVS_QUEUECOUNT_H */
