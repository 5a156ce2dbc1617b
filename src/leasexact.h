/*
 * leasexact.h
 *		What this transaction has done to leases, and what its end makes of that.
 */
#ifndef KVS_LEASEXACT_H
#define KVS_LEASEXACT_H

#include "postgres.h"

#include "lease.h"

/*
 * kvs_lease_take(), kvs_lease_take_returned(), with a token of their own: should the transaction or subtransaction abort, the message is
 * returned.
 */
extern KvsTake kvs_leasexact_take(KvsQueue *queue, KvsMessageRef *message, TimestampTz now, TimestampTz deadline, uint64 *token);
extern bool kvs_leasexact_take_returned(KvsQueue *queue, int priority, TimestampTz now, TimestampTz deadline,
										KvsMessageRef *message, uint64 *token);

/* kvs_lease_claim() for ending the lease, kvs_lease_next_lapsed(): the lease ends with the commit; should the transaction abort, it is what it was. */
extern KvsClaim kvs_leasexact_begin_ending(KvsQueue *queue, uint64 token, bool row, KvsMessageRef *message);
extern bool kvs_leasexact_next_lapsed(KvsQueue *queue, TimestampTz now, KvsMessageRef *message, bool *doomed);

/* Make sure that nobody leases the message of a row until this transaction ends; false if somebody has it. */
extern bool kvs_leasexact_try_end(KvsQueue *queue, KvsMessageRef *row);

/* Has a transaction made sure of that?  *own: it is this one. */
extern bool kvs_leasexact_is_ending(KvsQueue *queue, const KvsMessageRef *row, bool *own);

/* The row of a message was deleted without regard to who has leased it: the lease goes with the commit. */
extern void kvs_leasexact_note_removed(KvsQueue *queue, int64 id, TimestampTz enqueued_at);

/* Change one's mind about the lease that was begun to be ended last. */
extern void kvs_leasexact_cancel_ending(void);

extern void kvs_leasexact_init(void);

#endif							/* KVS_LEASEXACT_H */
