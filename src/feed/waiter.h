/*
 * waiter.h
 *		Sessions that wait for something, and how they are woken.
 *
 * Only with shared memory.  A waiter registers, then looks, then sleeps (wait.h).  A session that
 * changes something makes it visible first, then wakes.
 */
#ifndef KVS_WAITER_H
#define KVS_WAITER_H

#include "postgres.h"

#include "utils/timestamp.h"

/* What a session waits for. */
typedef enum KvsWaitKind
{
	KVS_WAIT_KEY,				/* changes of one key of a store */
	KVS_WAIT_PREFIX,			/* changes of keys that begin with some bytes */
	KVS_WAIT_QUEUE				/* a message of a queue */
} KvsWaitKind;

/* Most things that one session waits for at once; with more it waits for something wider. */
#define KVS_WAIT_TARGETS		10

/*
 * Bytes of a prefix that are compared before a waiter is woken.  A difference behind them wakes it
 * in vain.
 */
#define KVS_WAIT_PREFIX_SIZE	64

typedef struct KvsWaitTarget
{
	KvsWaitKind kind;
	Oid			relid;			/* store or queue, in this database */
	uint64		hash;			/* KEY */
	int			prefix_size;	/* PREFIX */
	char		prefix[KVS_WAIT_PREFIX_SIZE];
} KvsWaitTarget;

/* ---- Waiters ---- */

/*
 * A wait of this session, {0} before it is registered.  A look may run code of a user that waits,
 * too, so there may be several, one inside the other; each has its own.
 */
typedef struct KvsWaiter
{
	int			slot;			/* its number plus 1; 0: it is not registered */
} KvsWaiter;

/*
 * Register, after what was registered before has ended; 53400 if kvstore.max_waiters are waiting.
 * It lasts until kvs_waiter_end(), or the session's exit.  All that follows does nothing, and says
 * false, if the waiter is not registered.
 */
extern void kvs_waiter_begin(KvsWaiter *waiter, const KvsWaitTarget *targets, int count);

/* From now on the waiter can be chosen (again); before each look. */
extern void kvs_waiter_rearm(KvsWaiter *waiter);

/*
 * Has it been chosen since?  Then there is something to look at: a message was meant for it, or one
 * of its keys has changed.
 */
extern bool kvs_waiter_is_woken(const KvsWaiter *waiter);

/*
 * A waiter for a queue asks before it sleeps: is it the first in line?  Then it holds the timer,
 * and looks by itself when "next" comes (DT_NOEND: nothing will).  When it ends, the next is woken,
 * to hold it.
 */
extern bool kvs_waiter_hold_timer(KvsWaiter *waiter, TimestampTz next);

/*
 * The wait ends.  A waiter for a queue that was chosen and has not looked since, or that held the
 * timer, chooses the next.
 */
extern void kvs_waiter_end(KvsWaiter *waiter);

/*
 * The same after an ERROR.  The last look may not have come to its end, so the message for which it
 * was woken may still be there.
 */
extern void kvs_waiter_fail(KvsWaiter *waiter);

/*
 * ---- Wakers: what is below runs in transaction callbacks, so it allocates nothing and raises
 * nothing ----
 */

/* Memory for the others, before the callback. */
extern void kvs_waiter_prepare(void);

/* Does any session wait?  What it is to see must be visible before, with a full barrier between. */
extern bool kvs_waiter_any(void);

/* Choose the waiters for this key, alone or as one of many. */
extern void kvs_waiter_wake_key(Oid relid, uint64 hash, const char *key, int size);

/* Choose all waiters for this store or queue. */
extern void kvs_waiter_wake_all(Oid relid);

/* Choose all waiters for any prefix in this database. */
extern void kvs_waiter_wake_prefixes(void);

/*
 * Choose the waiter that has waited longest for this queue and was not chosen yet; false: there is
 * none.
 */
extern bool kvs_waiter_wake_one(Oid relid);

/*
 * Something of this queue is ready at that moment: choose the waiter that is first in line, unless
 * it looks by itself before.
 */
extern void kvs_waiter_wake_for(Oid relid, TimestampTz moment);

/* Set the latches of all chosen waiters.  No lock may be held. */
extern void kvs_waiter_set_latches(void);

/* If this transaction commits, wake all waiters for this store or queue; not for callbacks. */
extern void kvs_waiter_wake_all_at_commit(Oid relid);

/* Both for one waiter of a queue; not for callbacks, but for those of a session that has waited. */
extern void kvs_waiter_wake_one_now(Oid relid);

extern void kvs_waiter_init(void);

/* How many sessions wait, and for how many things, in all databases. */
extern void kvs_waiter_count(int64 *sessions, int64 *targets);


#endif							/* KVS_WAITER_H */
