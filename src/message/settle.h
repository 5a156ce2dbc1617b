/*
 * settle.h
 *		What becomes of a message after its delivery: deleted, to be tried again, or dead.
 */
#ifndef KVS_SETTLE_H
#define KVS_SETTLE_H

#include "postgres.h"

#include "message/reader.h"

typedef enum KvsSettled
{
	KVS_SETTLED_DELETED,
	KVS_SETTLED_RETRY,			/* it will be delivered again */
	KVS_SETTLED_DEAD,			/* it is a dead letter, or gone if the queue keeps none */
	KVS_SETTLED_GONE,			/* there is no such message any more */
	KVS_SETTLED_LOCKED			/* somebody else has locked the row, and the caller does not wait */
} KvsSettled;

/*
 * The caller is about to end the lease of the message (queuexact.h), unless the reader is
 * "unleased".  It has been found to have the rights that this takes, and has the queue's table open
 * in "reader".  All of it is part of the transaction.
 */

/* ---- For consumers, about their own messages: these wait for locked rows ---- */

/* It was processed. */
extern KvsSettled kvs_settle_delete(KvsReader *reader, KvsMessageRef *message);

/* It was not processed, and so many deliveries have failed: deliver it again at "ready_at". */
extern KvsSettled kvs_settle_postpone(KvsReader *reader, KvsMessageRef *message, int failed, TimestampTz ready_at);

typedef struct KvsFailure
{
	const char *error;			/* NULL: none given */
	TimestampTz now;
	TimestampTz ready_at;		/* DT_NOBEGIN: as the backoff says */
	int			number;			/* of the delivery that has failed, 1 for the first */
	bool		dead;			/* do not try again */
} KvsFailure;

/*
 * A delivery has failed: deliver the message again after the backoff, or give it up.  It becomes a
 * dead letter here only if that runs no code of users, and no other session is in the way.  Else
 * its row says that it is given up, and the worker does the rest.
 */
extern KvsSettled kvs_settle_fail(KvsReader *reader, KvsMessageRef *message, const KvsFailure *failure);

/*
 * Delete a message, as the owner of the queue; false: it is gone, or a trigger of the owner's keeps
 * it.
 */
extern bool kvs_settle_delete_as_owner(KvsQueue *queue, const KvsMessageRef *message);

/* Take its dedupe_key from a message that stays, in the same way. */
extern bool kvs_settle_free_key_as_owner(KvsQueue *queue, const KvsMessageRef *message);

/* 27000: a trigger of the owner's has changed id or enqueued_at, by which a message is known. */
pg_noreturn extern void kvs_settle_raise_renamed(Relation rel);

/* ---- For the worker: these pass over locked rows ---- */

/*
 * Write down the failures that were counted in memory, with the last error, and until when the
 * message waits; DT_NOBEGIN: it does not.
 */
extern KvsSettled kvs_settle_write(KvsReader *reader, KvsMessageRef *message, TimestampTz ready_at, const char *error);

/* Move a message that is given up to the dead letters; "error" NULL: as the row says. */
extern KvsSettled kvs_settle_bury(KvsReader *reader, KvsMessageRef *message, TimestampTz now, const char *error);

#endif							/* KVS_SETTLE_H */
