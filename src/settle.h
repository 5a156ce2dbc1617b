/*
 * settle.h
 *		What becomes of a message after its delivery: deleted, to be tried again, or dead.
 */
#ifndef KVS_SETTLE_H
#define KVS_SETTLE_H

#include "postgres.h"

#include "reader.h"

typedef enum KvsSettled
{
	KVS_SETTLED_DELETED,
	KVS_SETTLED_RETRY,			/* it will be delivered again */
	KVS_SETTLED_DEAD,			/* it is a dead letter, or gone if the queue keeps none */
	KVS_SETTLED_GONE,			/* there is no such message any more */
	KVS_SETTLED_LOCKED			/* somebody else has locked the row, and the caller does not wait */
} KvsSettled;

/*
 * The caller is about to end the lease of the message (lease.h), has been found to have the rights that this takes, and has the queue's table open in
 * "reader".  All of it is part of the transaction.
 */

/* It was processed. */
extern KvsSettled kvs_settle_delete(KvsReader *reader, KvsMessageRef *message);

/* It was not, and that does not count: deliver it again at "ready_at". */
extern KvsSettled kvs_settle_postpone(KvsReader *reader, KvsMessageRef *message, TimestampTz ready_at);

typedef struct KvsFailure
{
	const char *error;			/* NULL: none given */
	TimestampTz now;
	TimestampTz ready_at;		/* DT_NOBEGIN: as the backoff says */
	bool		counts;			/* the delivery is one more failed attempt; else all of them are counted already */
	bool		dead;			/* do not try again */
	bool		wait;			/* for who has locked the row */
} KvsFailure;

/* It failed: deliver it again after the backoff, or move it to the dead letters. */
extern KvsSettled kvs_settle_fail(KvsReader *reader, KvsMessageRef *message, const KvsFailure *failure);

/* Delete a message, as the owner of the queue; false: it is gone, or a trigger of the owner's keeps it. */
extern bool kvs_settle_delete_as_owner(KvsQueue *queue, const KvsMessageRef *message);

#endif							/* KVS_SETTLE_H */
