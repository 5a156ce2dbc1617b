/*
 * lease.h
 *		The lease table: which consumer holds which message, and how often its delivery has failed.
 *
 * Every function here that takes a KvsQueue locks its slot itself.  None of those that take a
 * KvsQueueSlot, which the caller has locked, allocates or raises anything: they are called from
 * transaction callbacks.
 */
#ifndef KVS_LEASE_H
#define KVS_LEASE_H

#include "postgres.h"

#include "storage/itemptr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "lease/queueslot.h"

/*
 * A returned message may be forgotten if its failures could not be written down for so long, in
 * microseconds.
 */
#define KVS_LEASE_KEEP		(60 * USECS_PER_SEC)

/* What the lease table knows of a message. */
typedef struct KvsMessageRef
{
	int64		id;
	/* tells a message from one with the same id after TRUNCATE ... RESTART IDENTITY */
	TimestampTz enqueued_at;
	TimestampTz ready_at;
	/* should this delivery fail, the message waits so many microseconds */
	int64		delay;
	int			priority;
	int			attempts;		/* failed ones, as the row says */
	int			max_attempts;
	/* those that the row does not know of; negative: it says too many */
	int			failures;
	bool		dying;			/* the row says that it has been given up */
	ItemPointerData tid;		/* where the row was last */
} KvsMessageRef;

/* Failed deliveries. */
static inline int
kvs_message_failed(const KvsMessageRef *message)
{
	return message->attempts + message->failures;
}

/* Is the message given up, or about to be?  Then it is never delivered. */
static inline bool
kvs_message_is_doomed(const KvsMessageRef *message)
{
	return message->dying || kvs_message_failed(message) >= message->max_attempts;
}

typedef enum KvsLeaseState
{
	KVS_LEASE_NONE,
	KVS_LEASE_HELD,
	KVS_LEASE_ENDING,			/* a transaction is about to end it */
	KVS_LEASE_RETURNED			/* nobody holds it, but there is something to remember of it */
} KvsLeaseState;

/* How the last delivery of a returned message has failed. */
typedef enum KvsLeaseEnd
{
	KVS_END_NONE,
	KVS_END_EXPIRED,
	KVS_END_ROLLED_BACK
} KvsLeaseEnd;

typedef enum KvsTake
{
	KVS_TAKE_DONE,
	KVS_TAKE_BUSY,				/* another consumer has it, or it has to wait */
	KVS_TAKE_FULL				/* no room */
} KvsTake;

/* ---- Taking ---- */

/* Lease a message that was found in the table, as "row" says.  Fills in row->failures. */
extern KvsTake kvs_lease_take(KvsQueue *queue, KvsMessageRef *row, uint64 token, TimestampTz now, TimestampTz deadline);

/* Lease the first returned message of at least this priority; false if there is none. */
extern bool kvs_lease_take_returned(KvsQueue *queue, int priority, uint64 token, TimestampTz now, TimestampTz deadline,
									KvsMessageRef *message);

/*
 * The returned messages of at least this priority that are ready, in their order, palloc'd; returns
 * how many.
 */
extern int	kvs_lease_list_ready(KvsQueue *queue, int priority, TimestampTz now, KvsMessageRef **messages);

/* The first returned message that is ready; false if there is none. */
extern bool kvs_lease_peek_ready(KvsQueue *queue, TimestampTz now, KvsMessageRef *message);

/*
 * The leased message turns out not to be there ("announce"), or a session is just deleting it: drop
 * the lease.
 */
extern void kvs_lease_drop(KvsQueue *queue, const KvsMessageRef *message, uint64 token, bool announce);

/*
 * The same, if the message is there and has to wait for its ready_at: failures that were counted
 * must not be forgotten.
 */
extern void kvs_lease_defer(KvsQueue *queue, const KvsMessageRef *message, uint64 token);

/*
 * The row of a message that this token holds is where "message" says, with what it says;
 * message->failures stays.
 */
extern void kvs_lease_refresh(KvsQueue *queue, const KvsMessageRef *message, uint64 token);

/*
 * A message is given up, as its row says: leave it to the worker.  If there is no room for it, the
 * worker looks for such rows later.
 */
extern void kvs_leasework_doom(KvsQueue *queue, const KvsMessageRef *row);

/* KV004, with what to do. */
pg_noreturn extern void kvs_lease_raise_full(const KvsQueue *queue);

/*
 * To make room, forget in all queues the failures that could not be written down for too long.
 * Returns how many are forgotten.
 */
extern int	kvs_leasework_make_room(void);

/* ---- What a receipt can do ---- */

typedef enum KvsClaim
{
	KVS_CLAIM_DONE,
	KVS_CLAIM_STALE,			/* somebody else has it */
	/* no lease: look whether the row is there, and call again with "row" */
	KVS_CLAIM_UNKNOWN,
	KVS_CLAIM_FULL				/* nobody has it, and there is no room for a lease */
} KvsClaim;

/*
 * Claim a message for the holder of the receipt of its delivery "number"; succeeds also if nobody
 * holds it.  "state" ENDING: this transaction is about to end the lease, and must say how.  HELD:
 * it is (again) held until "deadline", and that delivery has not failed.  "message" has id and
 * enqueued_at, and gets what the table knows.  "row": it is what the row says, for a lease that is
 * to be made.
 */
extern KvsClaim kvs_lease_claim(KvsQueue *queue, uint64 token, int number, KvsLeaseState state, TimestampTz deadline, bool row,
								KvsMessageRef *message);

/*
 * Return a held lease at once, without counting, and wake a waiter.  "token" NULL: whoever holds
 * it.  Then an expired delivery has not failed.  STALE: another consumer holds it.  UNKNOWN: nobody
 * does, so that it can be taken by the row.
 */
extern KvsClaim kvs_lease_release(KvsQueue *queue, int64 id, const uint64 *token, int number);

typedef enum KvsMark
{
	KVS_MARK_DONE,
	KVS_MARK_NONE,				/* the queue has no slot, or that no room: nobody holds it now */
	KVS_MARK_HELD				/* somebody has it */
} KvsMark;

/*
 * The row of a message is about to be deleted, without a receipt: nobody may lease it from now on.
 * Then the lease is ENDING.
 */
extern KvsMark kvs_lease_mark(KvsQueue *queue, const KvsMessageRef *row, uint64 token);

/* ---- For the worker ---- */

/*
 * The next message for the worker that is due by now; then it is ENDING.  "put_off": if the work
 * fails, it is not the next again at once.  False: there is none.
 */
extern bool kvs_leasework_next_work(KvsQueue *queue, TimestampTz now, bool put_off, uint64 token, KvsMessageRef *message, KvsLeaseEnd *end,
								TimestampTz *ready_at);

/*
 * A returned message could not be settled: it is backed off.  "error" is shown, and makes the delay
 * longer each time.  NULL: another session was in the way.  Returns how often that was so.
 */
extern int	kvs_leasework_stick(KvsQueue *queue, const KvsMessageRef *message, TimestampTz now, const char *error);

/*
 * The undelivered keys of a message that is being settled are about to be written.  Returns how
 * often that was begun before and did not end;
 * *tries: how often the worker has tried in vain to settle the message.
 */
extern int	kvs_leasework_begin_keys(KvsQueue *queue, const KvsMessageRef *message, int *tries);

/* They were written, or refused, in time. */
extern void kvs_leasework_end_keys(KvsQueue *queue, const KvsMessageRef *message);

/*
 * The table of a queue is there, but is no queue now, for example under another name.  Its leases
 * expire all the same.  After KVS_LEASE_KEEP all are forgotten but those that a transaction is just
 * ending.  True: none is left, and there need be no slot.
 */
extern bool kvs_leasework_abandon(Oid relid, TimestampTz now);

/* It is a queue, or is one again. */
extern void kvs_leasework_readopt(KvsQueue *queue);

/* Is there a message of the queue that the worker has tried in vain to settle? */
extern bool kvs_leasework_any_stuck(KvsQueue *queue);

/* ---- Looking ---- */

/* A lease, as it is shown. */
typedef struct KvsLeaseInfo
{
	Oid			relid;
	KvsLeaseState state;
	KvsMessageRef message;
	TimestampTz due;			/* HELD: the deadline; RETURNED: not before; DT_NOBEGIN: at once */
	TimestampTz since;
	int			pid;
	bool		delivered;		/* a consumer has it, or is about to end it */
	bool		stuck;			/* the worker could not settle it */
} KvsLeaseInfo;

/* What is known of a message; false: nothing. */
extern bool kvs_leaselook_find(KvsQueue *queue, int64 id, TimestampTz enqueued_at, KvsLeaseInfo *info);

/*
 * Is there a lease of the message, in whatever state?  One of another message that had the id
 * before does not count.
 */
extern bool kvs_leaselook_is_known(KvsQueue *queue, const KvsMessageRef *message);

/* Is a transaction about to end it? */
extern bool kvs_leaselook_is_ending(KvsQueue *queue, const KvsMessageRef *message);

/*
 * The leases of the queue with this slot, if it is of this database.  That is a snapshot of memory.
 * *list is palloc'd; "errors" gets the latest of the queue.  Returns how many.
 */
extern int	kvs_leaselook_list(int slot, KvsLeaseInfo **list, KvsStuckError *errors);

/*
 * A queue of this database, by its table, with messages that the worker could not settle;
 * InvalidOid: none has.  *count: of all queues.
 */
extern Oid	kvs_leaselook_find_stuck(int64 *count);

/* How many entries the table has, of all databases. */
extern int64 kvs_leaselook_count(void);

/* ---- With the lock of the slot held ---- */

/* End the expired leases: each is a failure.  Returns how many. */
extern int	kvs_leaseentry_expire(KvsQueueSlot *slot, TimestampTz now);

/* The highest priority of returned messages that are ready; -1: there is none. */
extern int	kvs_leaselook_first_ready(KvsQueueSlot *slot, TimestampTz now);

/* When the first lease expires; DT_NOEND: never. */
extern TimestampTz kvs_leaselook_next_deadline(KvsQueueSlot *slot);

/* When the next of the returned messages has waited long enough; DT_NOEND: never. */
extern TimestampTz kvs_leaselook_next_return(KvsQueueSlot *slot);

/* When the worker has something to do; DT_NOEND: never. */
extern TimestampTz kvs_leaselook_next_work_at(KvsQueueSlot *slot);

/* Since when the first returned message is ready; DT_NOEND: there is none. */
extern TimestampTz kvs_leaselook_oldest_ready(KvsQueueSlot *slot);

/*
 * The transaction that was ending the lease commits; "doomed": with a row that is given up, and
 * left to the worker.
 */
extern void kvs_lease_finish(KvsQueueSlot *slot, int64 id, uint64 token, bool doomed, TimestampTz now);

/* ... aborts: the lease is what it was before. */
extern void kvs_lease_undo_ending(KvsQueueSlot *slot, int64 id, uint64 token, TimestampTz now);

/*
 * The transaction that took it aborts.  "own": it has also sent it, so there is no such message;
 * else the delivery has failed.
 */
extern void kvs_lease_undo_take(KvsQueueSlot *slot, int64 id, uint64 token, bool own, TimestampTz now);

/*
 * The row of a message is gone: forget its lease.  One that a transaction is just about to end goes
 * when that has ended.
 */
extern void kvs_lease_forget(KvsQueueSlot *slot, int64 id, TimestampTz enqueued_at);

/* All rows were removed at that time: forget all leases of messages from before. */
extern void kvs_lease_forget_before(KvsQueueSlot *slot, TimestampTz when);

/* ---- For leasefile.c: in the postmaster, when nobody else runs ---- */

typedef struct KvsLeaseImage
{
	Oid			database;
	Oid			relid;
	bool		returned;		/* else held */
	uint8		end;			/* KvsLeaseEnd */
	uint64		token;
	TimestampTz due;
	TimestampTz since;
	KvsMessageRef message;
} KvsLeaseImage;

/* Hand out all leases. */
extern void kvs_leaselook_save(void (*give) (const KvsLeaseImage *lease, void *arg), void *arg);

/* Make one as it was; false: there is no room. */
extern bool kvs_leaselook_restore(const KvsLeaseImage *image);

#endif							/* KVS_LEASE_H */
