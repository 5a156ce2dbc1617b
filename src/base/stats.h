/*
 * stats.h
 *		Counts for each store and queue, and for the database: what happened how often.
 */
#ifndef KVS_STATS_H
#define KVS_STATS_H

#include "postgres.h"

#include "access/xact.h"
#include "utils/timestamp.h"

/*
 * A counter has a name, a kind and a line of help in the table in stats.c.  Everything else
 * (kvstore.stat_counts(), kv_metrics(), the file that outlives a restart) goes by that table.  A
 * new one is an enumerator here and a row there, and a column in the view of its kind.
 */
typedef enum KvsCounter
{
	/* of a store */
	KVS_COUNT_GETS,				/* keys asked for */
	KVS_COUNT_HITS,				/* ... and found */
	KVS_COUNT_LISTS,			/* kv_list and kv_count */
	KVS_COUNT_SETS,				/* entries written */
	KVS_COUNT_DELETES,			/* entries deleted */
	KVS_COUNT_CONFLICTS,		/* writes refused by if_version or a check */
	KVS_COUNT_EXPIRED,			/* expired entries removed by a sweep */
	KVS_COUNT_SWEPT,			/* sweeps, each one transaction */
	/* followers told that changes after their position are no longer in the feed */
	KVS_COUNT_OVERRUNS,

	/* of a queue; as with stores, what a rollback undoes stays counted */
	KVS_COUNT_QUEUE_ENQUEUED,	/* messages sent, dead letters sent again too */
	KVS_COUNT_QUEUE_DELIVERED,	/* deliveries */
	KVS_COUNT_QUEUE_REDELIVERED,	/* ... of messages that had failed or been rolled back before */
	KVS_COUNT_QUEUE_ACKED,
	/* deliveries that failed, by a nack or an expired lease, and are tried again */
	KVS_COUNT_QUEUE_RETRIED,
	KVS_COUNT_QUEUE_RELEASED,
	KVS_COUNT_QUEUE_DEAD,		/* messages given up */
	KVS_COUNT_QUEUE_EXPIRED,	/* messages removed because their ttl was over */
	KVS_COUNT_QUEUE_CANCELLED,
	KVS_COUNT_QUEUE_PURGED,
	KVS_COUNT_QUEUE_FORGOTTEN,	/* failures that could not be written down */
	KVS_COUNT_QUEUE_WAITS,		/* calls that had to wait */
	KVS_COUNT_QUEUE_WAKEUPS,	/* waits that a sender has ended */

	/* of the database: errors by class of SQLSTATE, in the order of error_classes in stats.c */
	KVS_COUNT_ERRORS
} KvsCounter;

#define KVS_ERROR_CLASSES	12
#define KVS_COUNTERS		(KVS_COUNT_ERRORS + KVS_ERROR_CLASSES)

/*
 * Stores, queues and databases that can be counted apart, all databases; later ones are not
 * counted.
 */
#define KVS_STATS_MAX_STORES	4096

/* Counts of one table that this backend has not yet published. */
typedef struct KvsStat
{
	Oid			relid;			/* hash key; must be first */
	bool		pending;
	int64		counts[KVS_COUNTERS];
} KvsStat;

/*
 * The pending counts of a table; the pointer holds as long as the session, unless they are
 * forgotten.
 */
extern KvsStat *kvs_stats_local(Oid relid);

/* The table is gone, and nobody has the pointer any more. */
extern void kvs_stats_forget_local(Oid relid);

/*
 * All counts of a table, this session's pending ones too; false: there are none, without preload.
 */
extern bool kvs_stats_read(Oid relid, int64 *counts);

/* A transaction that only counted would not be published: this is what asks for it. */
extern bool kvs_stats_any_pending;

static inline void
kvs_stats_add(KvsStat *stat, KvsCounter counter, int64 n)
{
	stat->counts[counter] += n;
	stat->pending = true;
	kvs_stats_any_pending = true;
}

/* Say that this statement uses kvstore: its errors are counted. */
extern TimestampTz kvs_stats_used_at;

static inline void
kvs_stats_used(void)
{
	kvs_stats_used_at = GetCurrentStatementStartTimestamp();
}

/* Forget the tables of this database that are gone, in a transaction; a database that is gone. */
extern void kvs_stats_forget_missing(void);
extern void kvs_stats_forget_database(Oid database);

extern void kvs_stats_init(void);

#endif							/* KVS_STATS_H */
