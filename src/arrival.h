/*
 * arrival.h
 *		Messages that this transaction has sent: published when it has committed.
 */
#ifndef KVS_ARRIVAL_H
#define KVS_ARRIVAL_H

#include "postgres.h"

#include "queueslot.h"

/* Messages of one priority that a statement has written, "count" of them, from the lowest to the highest position. */
extern void kvs_arrival_note(KvsQueue *queue, int priority, TimestampTz low_ready_at, int64 low_id,
							 TimestampTz high_ready_at, int64 high_id, int64 count);

/* Messages that nobody but this transaction can see. */
typedef struct KvsOwnRange
{
	KvsQueueRef queue;
	SubTransactionId subid;
	int			priority;
	KvsPosition low;
	KvsPosition high;
	int64		count;
} KvsOwnRange;

/* They are given by number, from 0; NULL: no more. */
extern const KvsOwnRange *kvs_arrival_own(int number);

/* For leasexact.c: the end of the transaction or a subtransaction. */
extern void kvs_arrival_publish(void);
extern void kvs_arrival_forget(void);
extern void kvs_arrival_end_subtransaction(bool commit, SubTransactionId subid, SubTransactionId parent);

#endif							/* KVS_ARRIVAL_H */
