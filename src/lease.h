/*
 * lease.h
 *		The lease table: who holds which message, and until when.
 *
 * Every function here that takes a KvsQueue locks its place itself.  None of those that take a KvsQueueRef allocates or raises anything: they are
 * called from transaction callbacks.
 */
#ifndef KVS_LEASE_H
#define KVS_LEASE_H

#include "postgres.h"

#include "storage/itemptr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "queueslot.h"

/* What the lease table knows of a message. */
typedef struct KvsMessageRef
{
	int64		id;
	TimestampTz enqueued_at;	/* tells a message from another one that has its id after TRUNCATE ... RESTART IDENTITY */
	TimestampTz ready_at;
	int			priority;
	int			attempts;		/* failed ones, as the row says */
	int			max_attempts;
	int			rollbacks;		/* deliveries whose transaction was rolled back since */
	ItemPointerData tid;		/* where the row was last */
} KvsMessageRef;

typedef enum KvsLeaseState
{
	KVS_LEASE_NONE,
	KVS_LEASE_HELD,
	KVS_LEASE_ENDING,			/* a transaction is about to end it */
	KVS_LEASE_RETURNED			/* nobody holds it, but it is known to be below the head */
} KvsLeaseState;

typedef enum KvsTake
{
	KVS_TAKE_DONE,
	KVS_TAKE_BUSY,				/* somebody else has it, or it has to wait */
	KVS_TAKE_FULL				/* no room */
} KvsTake;

/* ---- Taking ---- */

/* Lease a message that was found in the table.  Fills in message->rollbacks. */
extern KvsTake kvs_lease_take(KvsQueue *queue, KvsMessageRef *message, uint64 token, TimestampTz now, TimestampTz deadline);

/* Lease the first returned message of at least this priority; false if there is none. */
extern bool kvs_lease_take_returned(KvsQueue *queue, int priority, uint64 token, TimestampTz now, TimestampTz deadline,
									KvsMessageRef *message);

/*
 * What was leased turns out not to be there: drop the lease.  Its position counts as an arrival, as others may have passed over it
 * because of the lease.
 */
extern void kvs_lease_drop(KvsQueue *queue, const KvsMessageRef *message, uint64 token);

/* The same, if the message is there and has to wait for its ready_at: rollbacks of it that were counted must not be forgotten. */
extern void kvs_lease_defer(KvsQueue *queue, const KvsMessageRef *message, uint64 token);

/* The row of a message that this token holds is where "message" says, with what it says. */
extern void kvs_lease_refresh(KvsQueue *queue, const KvsMessageRef *message, uint64 token);

/* KV004, with what to do. */
pg_noreturn extern void kvs_lease_raise_full(const KvsQueue *queue);

/* ---- What a receipt can do ---- */

typedef enum KvsClaim
{
	KVS_CLAIM_DONE,
	KVS_CLAIM_STALE,			/* somebody else has it */
	KVS_CLAIM_UNKNOWN,			/* no lease: look whether the row is there, and call again with "row" */
	KVS_CLAIM_FULL
} KvsClaim;

/*
 * Claim a message by its token: succeeds also if nobody holds it.  "state" ENDING: this transaction is about to end the lease, and must say how.
 * HELD: it is (again) held until "deadline".  "message" has id and enqueued_at, and becomes what the table knows.  "row": it is what
 * the row says, for a lease that is to be made.
 */
extern KvsClaim kvs_lease_claim(KvsQueue *queue, uint64 token, KvsLeaseState state, TimestampTz deadline, bool row,
								KvsMessageRef *message);

/*
 * Give a held lease back at once, without counting, and wake a waiter; false if the token does not hold it.  "token" NULL: whoever holds it; false if
 * nobody does, or a transaction is just about to end it.
 */
extern bool kvs_lease_release(KvsQueue *queue, int64 id, const uint64 *token);

/* The next lease that has lapsed, now ENDING; false if there is none.  *doomed: it is over with the message, by rollbacks. */
extern bool kvs_lease_next_lapsed(KvsQueue *queue, TimestampTz now, KvsMessageRef *message, uint64 *token, bool *doomed);

/* ---- Looking ---- */

/* Does somebody hold the message?  *until: until when. */
extern bool kvs_lease_is_held(KvsQueue *queue, int64 id, TimestampTz enqueued_at, TimestampTz *until);

/* Is there a lease of the message, in whatever state?  One of another message that had the id before does not count. */
extern bool kvs_lease_is_known(KvsQueue *queue, const KvsMessageRef *message);

/* Is a transaction about to end it? */
extern bool kvs_lease_is_ending(KvsQueue *queue, const KvsMessageRef *message);

/* With the lock held: has a lease lapsed?  *returned: the highest priority of returned messages that are ready; -1: there is none. */
extern bool kvs_lease_look(KvsQueueSlot *slot, TimestampTz now, int *returned);

/* With the lock held: when the first lease lapses; DT_NOEND: never. */
extern TimestampTz kvs_lease_next_due(KvsQueueSlot *slot);

/* With the lock held: when the next of the returned messages has waited long enough; DT_NOEND: never. */
extern TimestampTz kvs_lease_next_return(KvsQueueSlot *slot);

/* With the lock held: since when the first returned message is ready; DT_NOEND: there is none. */
extern TimestampTz kvs_lease_first_returned(KvsQueueSlot *slot);

/* A lease, for who wants to see it. */
typedef struct KvsLeaseInfo
{
	Oid			relid;
	KvsLeaseState state;
	KvsMessageRef	message;
	TimestampTz due;
	TimestampTz since;
	int			pid;
} KvsLeaseInfo;

/* The leases of this database, up to "max"; a picture, taken without stopping anybody.  Returns how many. */
extern int	kvs_lease_list(KvsLeaseInfo *list, int max);

/* ---- Callbacks ---- */

/* The transaction that was ending the lease commits: with an arrival, if the message stays. */
extern void kvs_lease_finish(const KvsQueueRef *ref, int64 id, uint64 token);

/* ... aborts: it is what it was before.  Returns when it lapses; DT_NOBEGIN: anybody can take the message at once; DT_NOEND: there is no such lease. */
extern TimestampTz kvs_lease_undo_ending(const KvsQueueRef *ref, int64 id, uint64 token, TimestampTz now);

/*
 * The transaction that took it aborts: the message is returned.  From the second time on after "delay" microseconds.  True: it is doomed, for the
 * worker to see to.
 */
extern bool kvs_lease_undo_take(const KvsQueueRef *ref, int64 id, uint64 token, TimestampTz now, int64 delay);

/* The row of a message is gone: forget its lease, unless a transaction is just about to end it. */
extern void kvs_lease_forget(const KvsQueueRef *ref, int64 id, TimestampTz enqueued_at);

/* ---- For leasefile.c: in the postmaster, when nobody else runs ---- */

typedef struct KvsLeaseImage
{
	Oid			database;
	Oid			relid;
	bool		returned;		/* else held */
	bool		doomed;
	uint64		token;
	TimestampTz due;
	TimestampTz since;
	KvsMessageRef message;
} KvsLeaseImage;

/* Hand out all leases. */
extern void kvs_lease_save(void (*give) (const KvsLeaseImage *lease, void *arg), void *arg);

/* Make one as it was; false: there is no room. */
extern bool kvs_lease_restore(const KvsLeaseImage *image);

/* ---- For queueslot.c ---- */

extern void kvs_lease_init_slot(KvsQueueSlot *slot);

/* With the lock held: remove all leases of the queue, none of which a transaction is about to end. */
extern void kvs_lease_forget_all(KvsQueueSlot *slot);

extern void kvs_lease_request_shmem(void);
extern void kvs_lease_startup_shmem(void);

#endif							/* KVS_LEASE_H */
