/*
 * sweepblocks.h
 *		A table that is being swept, for the files that do: sweepblocks.c, sweep.c, sweephand.c.  All others include sweep.h.
 */
#ifndef KVS_SWEEPBLOCKS_H
#define KVS_SWEEPBLOCKS_H

#include "postgres.h"

#include "executor/spi.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "expiry.h"
#include "identity.h"
#include "stamp.h"
#include "sweep.h"

typedef struct KvsSweep
{
	Relation	rel;
	TimestampTz now;
	int64		limit;			/* rows that may still be removed */
	int64		removed;
	KvsStampSurvey numbers;		/* versionstamps of all rows read */
	int64		number;			/* versionstamp of the deletions, 0: none yet */
	bool		of_store;		/* rows have a key and a versionstamp */
	struct KvsQueue *queue;		/* rows may be leased; NULL: it is none */
	int			column;			/* expires_at */
	bool		by_statement;	/* the table has triggers that must run */
	SPIPlanPtr	plan;			/* for them; there is an SPI connection then */
	TupleTableSlot *slot;
	Snapshot	snapshot;
	KvsIdentity caller;			/* who we were before */
} KvsSweep;

/* Is it a store, a snapshot store or a queue? */
extern bool kvs_sweep_is_swept(Relation rel);

/* Open one without waiting; NULL, and why. */
extern Relation kvs_sweep_open(Oid relid, KvsSweepOutcome *outcome);

/* Begin to sweep an opened store, as its owner.  An ERROR restores the identity and the settings together with the transaction's state. */
extern void kvs_sweep_begin(KvsSweep *sweep, Relation rel, TimestampTz now, int64 limit);

/*
 * Be oneself again, count, close the store; the lock stays until the transaction ends.  All numbers
 * given from now on are above those that were read and count (stamp.h).
 */
extern void kvs_sweep_end(KvsSweep *sweep);

/* Sweep the groups that are due. */
extern void kvs_sweep_groups(KvsSweep *sweep, const KvsExpiryWork *work);

/* Sweep a group in the course of a pass, and tell the map what is left there.  False: the limit was reached before its end. */
extern bool kvs_sweep_group_of_pass(KvsSweep *sweep, BlockNumber block);

/*
 * Read the whole table, from where the last call of this session reached its limit: otherwise the calls of kv_sweep() that empty a large table would
 * read its beginning over and over.
 */
extern void kvs_sweep_whole(KvsSweep *sweep);

#endif							/* KVS_SWEEPBLOCKS_H */
