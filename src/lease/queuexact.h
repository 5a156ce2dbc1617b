/*
 * queuexact.h
 *		What this transaction has done to queues, and what its end makes of that.
 */
#ifndef KVS_QUEUEXACT_H
#define KVS_QUEUEXACT_H

#include "postgres.h"

#include "lease/lease.h"

/* ---- Leases ---- */

/*
 * kvs_lease_take(), kvs_lease_take_returned(), with a token of their own: if the transaction or
 * subtransaction aborts, the delivery has failed.  "own": this transaction has sent the message, so
 * then there will be no such message.
 */
extern KvsTake kvs_queuexact_take(KvsQueue *queue, KvsMessageRef *row, TimestampTz now, TimestampTz deadline, bool own,
								  uint64 *token);
extern bool kvs_queuexact_take_returned(KvsQueue *queue, int priority, TimestampTz now, TimestampTz deadline,
										KvsMessageRef *message, uint64 *token);

/*
 * kvs_lease_claim() for ending the lease, kvs_lease_mark(), kvs_leasework_next_work(): the lease
 * ends with the commit.  If the transaction aborts, it is what it was.
 */
extern KvsClaim kvs_queuexact_begin_ending(KvsQueue *queue, uint64 token, int number, bool row, KvsMessageRef *message);
extern KvsMark kvs_queuexact_mark(KvsQueue *queue, const KvsMessageRef *row);
extern bool kvs_queuexact_next_work(KvsQueue *queue, TimestampTz now, bool put_off, KvsMessageRef *message, KvsLeaseEnd *end,
						TimestampTz *ready_at);

/*
 * For the lease that this transaction is ending; a trigger that ran since may have ended others.
 * The message stays, with a row that says that it is given up.
 */
extern void kvs_queuexact_leave_to_worker(const KvsQueue *queue, int64 id);

/* It is not ended after all. */
extern void kvs_queuexact_cancel_ending(const KvsQueue *queue, int64 id);

/*
 * This transaction had sent the message, and has deleted it.  If the same subtransaction took the
 * lease, nobody can ever see the message: the lease ends at once.
 */
extern void kvs_queuexact_end_own(const KvsQueue *queue, int64 id);

/* Is a transaction about to end it?  *own: it is this one. */
extern bool kvs_queuexact_is_ending(KvsQueue *queue, const KvsMessageRef *row, bool *own);

/* ---- Rows ---- */

/*
 * Messages of one priority that a statement has written, "count" of them, from the lowest to the
 * highest position.
 */
extern void kvs_queuexact_note_arrival(KvsQueue *queue, int priority, KvsPosition low, KvsPosition high, int64 count);

/*
 * The row of a message was deleted, whoever has leased it: the lease goes with the commit.  If the
 * transaction aborts, the row is there again, and others may have passed over it.
 */
extern void kvs_queuexact_note_removed(KvsQueue *queue, const KvsMessageRef *row);

/* The same of a row that is changed, and stays: its lease does, too. */
extern void kvs_queuexact_note_moved(KvsQueue *queue, const KvsMessageRef *row);

/* The same, of rows that nobody knows, wherever they are. */
extern void kvs_queuexact_note_any_removed(KvsQueue *queue);

/* So many rows more, or less. */
extern void kvs_queuexact_note_count(KvsQueue *queue, int64 change);

/* All rows are gone: TRUNCATE. */
extern void kvs_queuexact_note_truncated(Oid relid);

/*
 * Where messages are that nobody but this transaction can see.  "cursor" is 0 at first; false: no
 * more.
 */
extern bool kvs_queuexact_next_own(const KvsQueue *queue, int priority, int *cursor, KvsPosition *low, KvsPosition *high);

/*
 * Below this position none of them is left that could be received; until this subtransaction
 * aborts, or sends one.
 */
extern void kvs_queuexact_pass_own(KvsQueue *queue, int priority, KvsPosition position);

/* Has this transaction sent messages to the queue? */
extern bool kvs_queuexact_has_sent(const KvsQueue *queue);

/* What this transaction, whose rows nobody else sees, makes of so many committed ones. */
extern int64 kvs_queuexact_count_with_own(Oid relid, int64 messages);

extern void kvs_queuexact_init(void);

#endif							/* KVS_QUEUEXACT_H */
