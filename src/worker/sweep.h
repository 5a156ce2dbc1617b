/*
 * sweep.h
 *		Removing expired rows.
 */
#ifndef KVS_SWEEP_H
#define KVS_SWEEP_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "expiry/expiry.h"
#include "worker/unmapped.h"

/* What a step of the worker did. */
typedef enum KvsSweepOutcome
{
	KVS_SWEEP_DONE,
	KVS_SWEEP_LOCKED,			/* another session has locked the table */
	/* whether it has code was news, and is known now: its turn may come later */
	KVS_SWEEP_LOOKED,
	KVS_SWEEP_REPLICATED,		/* a subscription brings its rows: nothing is removed */
	KVS_SWEEP_GONE				/* there is no such store any more, and the map has forgotten it */
} KvsSweepOutcome;

typedef struct KvsSweepResult
{
	KvsSweepOutcome outcome;
	int64		removed;
	bool		more;			/* it ended because it had removed as many as it might */
	int			pass_blocks;	/* read by a pass over the whole table */
	int64		pass_removed;	/* what that found, of "removed" */
} KvsSweepResult;

/*
 * One step of the worker: remove at most "limit" rows of a table, in the transaction that the
 * caller has begun.  Waits for no lock.  May raise the errors of the owner's own triggers.
 */
extern void kvs_sweep_step(const KvsExpiryWork *work, int64 limit, KvsSweepResult *result);

/* The same for a table that the map has no room for: all of it, or as much as the limit allows. */
extern void kvs_sweep_unmapped(KvsUnmapped *item, int64 limit, KvsSweepResult *result);

/* Have the map forget a table that is gone, or is no store any more. */
extern void kvs_sweep_forget_table(Oid relid);

/*
 * The same for all that are not in this list of stores; else their slots would wait until they are
 * due.
 */
extern void kvs_sweep_forget_others(const List *stores);

/*
 * The tables that may be stores, snapshot stores or queues, a list of OIDs; those of a kind are in
 * order of their names.
 */
extern List *kvs_sweep_list_stores(void);

#endif							/* KVS_SWEEP_H */
