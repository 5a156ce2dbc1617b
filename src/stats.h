/*
 * stats.h
 *		Counts for each store: what happened how often.
 */
#ifndef KVS_STATS_H
#define KVS_STATS_H

#include "postgres.h"

/* The order is that of the columns of kvstore.stat_stores(). */
typedef enum KvsCounter
{
	KVS_COUNT_GETS,				/* keys asked for */
	KVS_COUNT_HITS,				/* ... and found */
	KVS_COUNT_LISTS,			/* kv_list and kv_count */
	KVS_COUNT_SETS,				/* entries written */
	KVS_COUNT_DELETES,			/* entries deleted */
	KVS_COUNT_CONFLICTS,		/* writes refused by if_version or a check */
	KVS_COUNT_EXPIRED			/* expired entries removed by a sweep */
} KvsCounter;

#define KVS_COUNTERS	(KVS_COUNT_EXPIRED + 1)

/* Stores that can be counted apart, all databases; what comes later is not counted. */
#define KVS_STATS_MAX_STORES	4096

/* Counts of one table that this backend has not yet published. */
typedef struct KvsStat
{
	Oid			relid;			/* hash key; must be first */
	bool		pending;
	int64		counts[KVS_COUNTERS];
} KvsStat;

/* The pending counts of a table; the pointer holds as long as the session. */
extern KvsStat *kvs_stats_local(Oid relid);

/* A transaction that only counted would not be published: this is what asks for it. */
extern bool kvs_stats_any_pending;

static inline void
kvs_stats_add(KvsStat *stat, KvsCounter counter, int64 n)
{
	stat->counts[counter] += n;
	stat->pending = true;
	kvs_stats_any_pending = true;
}

extern void kvs_stats_request_shmem(void);
extern void kvs_stats_startup_shmem(void);
extern void kvs_stats_init(void);

#endif							/* KVS_STATS_H */
