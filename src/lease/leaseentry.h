/*
 * leaseentry.h
 *		The entries of the lease table: for lease*.c alone.
 *
 * Every function here is called with the lock of the queue's slot held, allocates nothing and
 * raises nothing.
 */
#ifndef KVS_LEASEENTRY_H
#define KVS_LEASEENTRY_H

#include "postgres.h"

#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "utils/hsearch.h"

#include "lease/lease.h"

typedef struct KvsLeaseKey
{
	Oid			database;
	Oid			relid;
	int64		id;
} KvsLeaseKey;

typedef struct KvsLease
{
	KvsLeaseKey	key;			/* must be first */
	KvsLeaseState state;
	KvsLeaseState before;		/* of an ENDING one; NONE: meanwhile its row has gone */
	/* RETURNED: how it failed; HELD: how it did before, which is counted */
	KvsLeaseEnd end;
	bool		doomed;			/* is counted as such */
	bool		rolled_back;	/* ENDING: meanwhile so was the transaction that took it */
	bool		working;		/* is in the heap of work for the worker */
	uint16		tries;			/* of the worker, in vain */
	/* how often its undelivered keys were begun to be written, and that did not end */
	uint16		slow_keys;
	int			pid;			/* of the session that took it */
	pairingheap *heap;			/* due, later or ready; NULL: in none of them */
	pairingheap_node node;
	pairingheap_node work_node;
	dlist_node	link;			/* among all of the queue */
	KvsMessageRef message;
	uint64		token;
	TimestampTz due;			/* HELD: deadline; RETURNED: not before; DT_NOBEGIN: at once */
	TimestampTz ready_at;		/* RETURNED: when its backoff is over; DT_NOBEGIN: it has none */
	TimestampTz work_at;		/* RETURNED: when it is due for the worker */
	TimestampTz since;			/* when it was taken, or returned */
} KvsLease;

static inline bool
kvs_lease_is_held(KvsLeaseState state)
{
	return state == KVS_LEASE_HELD || state == KVS_LEASE_ENDING;
}

/* The first of a heap; NULL: it is empty. */
extern KvsLease *kvs_leaseentry_top(pairingheap *heap);

/* The first entry for the worker; NULL: none. */
extern KvsLease *kvs_leaseentry_top_of_work(KvsQueueSlot *slot);

/* Out of the heap it is in, into another one or, NULL, none. */
extern void kvs_leaseentry_move_to(KvsQueueSlot *slot, KvsLease *lease, pairingheap *heap);

/* It is no work for the worker. */
extern void kvs_leaseentry_leave_work(KvsQueueSlot *slot, KvsLease *lease);

/* It is work for the worker then. */
extern void kvs_leaseentry_have_work_at(KvsQueueSlot *slot, KvsLease *lease, TimestampTz when);

/* Set a field that the slot counts. */
extern void kvs_leaseentry_set_state(KvsQueueSlot *slot, KvsLease *lease, KvsLeaseState state);
extern void kvs_leaseentry_set_doomed(KvsQueueSlot *slot, KvsLease *lease, bool doomed);
extern void kvs_leaseentry_set_tries(KvsQueueSlot *slot, KvsLease *lease, int tries);

/* The entry of an id, found, made or removed; NULL: none, or no room. */
extern KvsLease *kvs_leaseentry_search(KvsQueueSlot *slot, int64 id, HASHACTION action);

/* The entry goes. */
extern void kvs_leaseentry_remove(KvsQueueSlot *slot, KvsLease *lease);

/* May one more doomed message have an entry? */
extern bool kvs_leaseentry_room_for_doomed(KvsQueueSlot *slot, TimestampTz now);

/* Has the queue all the leases that it may have? */
extern bool kvs_leaseentry_is_full(const KvsQueueSlot *slot);

/*
 * A message whose row says that it is given up has no entry: the worker is to look for such rows.
 */
extern void kvs_leaseentry_leave_to_rows(KvsQueueSlot *slot, TimestampTz now);

/* A new entry, not yet in any state; NULL: no room. */
extern KvsLease *kvs_leaseentry_make(KvsQueueSlot *slot, const KvsMessageRef *message);

/* The entry of a message whose row the caller has seen. */
extern KvsLease *kvs_leaseentry_find_of_row(KvsQueueSlot *slot, const KvsMessageRef *message);

/* The entry of this token, unless nobody holds it any more. */
extern KvsLease *kvs_leaseentry_find_token(KvsQueueSlot *slot, int64 id, uint64 token);

/* A consumer has it until the deadline. */
extern void kvs_leaseentry_hold(KvsQueueSlot *slot, KvsLease *lease, uint64 token, TimestampTz now, TimestampTz deadline);

/* A transaction is about to end it. */
extern void kvs_leaseentry_begin_ending(KvsQueueSlot *slot, KvsLease *lease, uint64 token);

/* Into the heaps in which a returned lease is. */
extern void kvs_leaseentry_put_returned(KvsQueueSlot *slot, KvsLease *lease);

/*
 * Nobody has it, and there is nothing to remember: it is an arrival, as others may have passed over
 * it.
 */
extern void kvs_leaseentry_let_go(KvsQueueSlot *slot, KvsLease *lease);

/* Nobody has it any more.  "ready_at": when its backoff is over, DT_NOBEGIN for at once. */
extern void kvs_leaseentry_give_back(KvsQueueSlot *slot, KvsLease *lease, TimestampTz now, TimestampTz ready_at);

/* A delivery has failed. */
extern void kvs_leaseentry_fail(KvsQueueSlot *slot, KvsLease *lease, TimestampTz now, KvsLeaseEnd end);

/* Returned messages that have waited long enough are ready. */
extern void kvs_leaseentry_wake_returned(KvsQueueSlot *slot, TimestampTz now);

/* How many entries there are, of all databases. */
extern int64 kvs_leaseentry_count(void);

/* Has it failed for KVS_LEASE_KEEP to write what it remembers? */
extern bool kvs_leaseentry_is_overdue(const KvsLease *lease, TimestampTz now);

/* Hand out all entries; in the postmaster, when nobody else runs. */
extern void kvs_leaseentry_walk(void (*give) (const KvsLease *lease, void *arg), void *arg);

extern void kvs_leaseentry_init(void);

#endif							/* KVS_LEASEENTRY_H */
