/*
 * queueslot.h
 *		Queues in shared memory: where deliverable messages begin, and what has arrived.
 */
#ifndef KVS_QUEUESLOT_H
#define KVS_QUEUESLOT_H

#include "postgres.h"

#include "access/transam.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "table/queuecatalog.h"

/* Priorities are 0 to 9, higher first. */
#define KVS_PRIORITIES		(KVS_MAX_PRIORITY + 1)

/* Arrivals that a queue remembers; if more come during a scan, it does not move the head. */
#define KVS_ARRIVALS		256

/* Ranges below the head that are to be looked at, of one queue. */
#define KVS_LATE_RANGES		64

/* Where a message stands among those of its priority: the order of the index. */
typedef struct KvsPosition
{
	TimestampTz ready_at;
	int64		id;
} KvsPosition;

typedef struct KvsArrival
{
	KvsPosition low;
	int			priority;
} KvsArrival;

/* Both ends belong to it. */
typedef struct KvsLateRange
{
	uint64		number;			/* its name */
	int			priority;
	KvsPosition low;
	KvsPosition high;
} KvsLateRange;

/* Running transactions that a snapshot to count with may have. */
#define KVS_COUNT_XIDS	128

/* How many messages there are, see queuecount.c. */
typedef struct KvsMessageCount
{
	bool		known;
	bool		begun;			/* what commits is added, unless this snapshot sees it */
	int64		messages;
	uint64		number;			/* of the count begun last */
	TimestampTz due;			/* when the worker is to count; DT_NOEND: it need not */
	FullTransactionId xmin;		/* the snapshot's */
	FullTransactionId xmax;
	int			nxip;
	TransactionId xip[KVS_COUNT_XIDS];
} KvsMessageCount;

/* Messages that cannot be settled, whose errors a slot remembers; and bytes of such an error. */
#define KVS_STUCK_ERRORS	8
#define KVS_STUCK_ERROR_SIZE	160

/* Why a message could not be settled. */
typedef struct KvsStuckError
{
	int64		id;
	char		text[KVS_STUCK_ERROR_SIZE];
} KvsStuckError;

/* All fields are under "lock"; database and relid change under the lock of the directory, too. */
typedef struct KvsQueueSlot
{
	LWLock	   *lock;			/* never changes */
	Oid			database;		/* InvalidOid: free */
	Oid			relid;
	uint64		generation;		/* how often the slot was given away */
	TimestampTz used_at;		/* for choosing which slot is taken; roughly */
	/* when the worker is to look below the heads; DT_NOEND: they have not moved since it did */
	TimestampTz verify_at;
	int64		verify_pause;	/* milliseconds */
	TimestampTz not_before;		/* the worker has failed over the queue */
	/* the worker has found that its table is no queue now; DT_NOBEGIN: it is one */
	TimestampTz strange_since;

	/*
	 * Per priority: all deliverable messages below the head are on a list; if it is not "filled",
	 * nothing at all is there.
	 */
	KvsPosition heads[KVS_PRIORITIES];
	bool		filled[KVS_PRIORITIES];

	uint64		narrivals;		/* ever; the arrival number */
	KvsArrival	arrivals[KVS_ARRIVALS];
	uint64		nranges;		/* ever */
	int			nlate;
	KvsLateRange late[KVS_LATE_RANGES];

	/* See lease.c. */
	dlist_head	leases;			/* all entries of the lease table */
	int			nleases;		/* how many they are */
	int			nheld;			/* held, or just being ended */
	int			nlater;			/* have to wait for their backoff */
	int			ndoomed;		/* wait for the worker to move them to the dead letters */
	int			nstuck;			/* the worker has tried in vain */
	bool		more_doomed;	/* there are rows to be moved that have no entry */
	pairingheap due;			/* held ones, by deadline */
	pairingheap later;			/* returned ones that have to wait, by time */
	pairingheap ready;			/* returned ones that can be delivered, by position */
	pairingheap work;			/* work for the worker, by time */
	uint32		nerrors;		/* ever */
	KvsStuckError errors[KVS_STUCK_ERRORS];

	KvsMessageCount count;
} KvsQueueSlot;

/* Compare two positions, as the index does: <0, 0, >0. */
static inline int
kvs_position_compare(KvsPosition a, KvsPosition b)
{
	if (a.ready_at != b.ready_at)
		return a.ready_at < b.ready_at ? -1 : 1;
	return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/* The first position behind this one. */
static inline KvsPosition
kvs_position_behind(KvsPosition position)
{
	position.id++;				/* ids end long before 2^63 */
	return position;
}

/* What the leases of a queue have in its slot; all are called with its lock held (leaseentry.c). */
typedef struct KvsSlotLeases
{
	/* it belongs to another queue now, which has none */
	void		(*reset) (KvsQueueSlot *slot);
	void		(*forget) (KvsQueueSlot *slot); /* the queue is gone */

	/*
	 * May they be forgotten?  Then each is a returned one whose failures could not be written for
	 * KVS_LEASE_KEEP.
	 */
	bool		(*are_overdue) (KvsQueueSlot *slot, TimestampTz now);
} KvsSlotLeases;

/* Once, before any slot is used. */
extern void kvs_queueslot_set_leases(const KvsSlotLeases *rules);

/*
 * Lock a queue's slot, found or made; 53400 if there is none left.  Only receivers call it.
 * Release the lock of the slot it returns.
 */
extern KvsQueueSlot *kvs_queueslot_lock(KvsQueue *queue);

/*
 * The same, but NULL, and nothing locked, if the queue has no slot: then nobody has received from
 * it lately, and nothing is leased.
 */
extern KvsQueueSlot *kvs_queueslot_lock_existing(KvsQueue *queue);

/* What a transaction callback knows of a queue. */
typedef struct KvsQueueRef
{
	Oid			relid;
	int			slot;			/* where it was last, -1: nowhere */
} KvsQueueRef;

/* The same as kvs_queueslot_lock_existing(), for callbacks: allocates nothing, raises nothing. */
extern KvsQueueSlot *kvs_queueslot_lock_ref(const KvsQueueRef *ref);

/*
 * The i-th slot of all, locked, if it belongs to this database, else NULL; *relid is its table.
 * "i" up to kvs_guc_max_queues.
 */
extern KvsQueueSlot *kvs_queueslot_lock_nth(int i, Oid *relid);

/* The i-th slot of all, locked, of whatever database; NULL if it is free. */
extern KvsQueueSlot *kvs_queueslot_lock_any(int i);

/*
 * The slot of a queue of this database, locked, for a caller without a KvsQueue; NULL if it has
 * none.
 */
extern KvsQueueSlot *kvs_queueslot_lock_relid(Oid relid);

/*
 * The queue is gone: nobody can have its table open.  Its leases go, and its slot is free.
 * Callbacks may call it.
 */
extern void kvs_queueslot_forget(Oid relid);

/* The worker could not look after the queue: not again before then. */
extern void kvs_queueslot_put_aside(Oid relid, TimestampTz not_before);

/* Have the worker look after the queue, if it has a slot, when it comes next. */
extern void kvs_queueslot_look_soon(Oid relid);

/* The same as kvs_queueslot_forget() for all queues of a database that is gone. */
extern void kvs_queueslot_forget_database(Oid database);

/*
 * In the postmaster, when nobody else runs: a queue's slot, found or made, not locked; NULL if
 * there is none left.
 */
extern KvsQueueSlot *kvs_queueslot_restore(Oid database, Oid relid);

/* ---- With the lock held ---- */

/* Messages of this priority, from "low" to "high", can be delivered from now on. */
extern void kvs_queueslot_arrive(KvsQueueSlot *slot, int priority, KvsPosition low, KvsPosition high);

/* There is a message that no scan would have found, and perhaps others from there on. */
extern void kvs_queueslot_announce_from(KvsQueue *queue, int priority, KvsPosition low);

/* Nobody knows where messages are: all scans begin at the bottom again. */
extern void kvs_queueslot_start_over(Oid relid);

/* The worker is about to look below the heads. */
extern void kvs_queueslot_verifying(KvsQueue *queue);

/*
 * The worker has looked below the heads, and is to look again after so many milliseconds if they
 * move.
 */
extern void kvs_queueslot_verified(KvsQueue *queue, int64 pause);

/* How many slots of all databases cannot be given away just now, as something is kept in them. */
extern int	kvs_queueslot_count_used(void);

extern void kvs_queueslot_init(void);

#endif							/* KVS_QUEUESLOT_H */
