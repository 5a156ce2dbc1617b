/*
 * xact.h
 *		The end of transactions and subtransactions: which modules act at it, and in which order.
 */
#ifndef KVS_XACT_H
#define KVS_XACT_H

#include "postgres.h"

#include "access/xact.h"

/*
 * In this order.  A commit is visible to others when its callbacks run, and none of them may fail.
 * PREPARE TRANSACTION asks them before, and they may raise an error then.
 */
typedef enum KvsXactRank
{
	/* wakes the waiters of a dropped store or queue: nothing else depends on it */
	KVS_XACT_WAKE,
	/* before the feed: consumers wait for these, watchers can bear a moment more */
	KVS_XACT_QUEUES,
	KVS_XACT_FEED,
	/* after the feed: the worker that it wakes publishes changes, too */
	KVS_XACT_EXPIRY,
	KVS_XACT_STATS,				/* after all that count something */
	/* last: inserters may wait until all else is done, never the other way */
	KVS_XACT_ABSENCES,
	KVS_XACT_RANKS
} KvsXactRank;

typedef void (*KvsAtXact) (XactEvent event);
typedef void (*KvsAtSubXact) (SubXactEvent event, SubTransactionId subid, SubTransactionId parent);

/* Have these called, once for each rank; the second may be NULL. */
extern void kvs_xact_add(KvsXactRank rank, KvsAtXact at_xact, KvsAtSubXact at_subxact);

extern void kvs_xact_init(void);

#endif							/* KVS_XACT_H */
