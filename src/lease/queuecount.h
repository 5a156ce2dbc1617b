/*
 * queuecount.h
 *		How many messages each queue has, without counting them.
 */
#ifndef KVS_QUEUECOUNT_H
#define KVS_QUEUECOUNT_H

#include "postgres.h"

#include "lease/queueslot.h"

/*
 * With the lock of the slot held: a transaction has committed that adds or removes so many rows.
 * "empties": it was a TRUNCATE, so the count starts from none.
 */
extern void kvs_queuecount_publish(KvsMessageCount *count, FullTransactionId xid, bool empties, int64 change);

/*
 * With the lock held: have the worker count, if need be.  True: lower next due (expiry.h), when the
 * lock is released.
 */
extern bool kvs_queuecount_ask(KvsQueueSlot *slot, TimestampTz now);

/* Have all queues of this database counted anew. */
extern void kvs_queuecount_ask_all(void);

#endif							/* KVS_QUEUECOUNT_H */
