/*
 * sweepblocks.h
 *		A table that is being swept, for the files that sweep: sweepblocks.c, sweep.c,
 *		sweepmanual.c.  All others include sweep.h.
 */
#ifndef KVS_SWEEPBLOCKS_H
#define KVS_SWEEPBLOCKS_H

#include "postgres.h"

#include "executor/spi.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "base/identity.h"
#include "base/stats.h"
#include "expiry/expiry.h"
#include "store/stamp.h"
#include "worker/sweep.h"

struct KvsSweep;

/* What tables of a kind have in common. */
typedef struct KvsSweepKind
{
	int			expires_at;		/* the column */
	bool		has_versionstamps;	/* and a key */
	KvsCounter	expired;		/* what is counted: rows removed ... */
	int			swept;			/* ... and sweeps, a KvsCounter; -1: they are not */
	/*
	 * Remove the row in the slot.  Returns when to look at it again, DT_NOEND if it is gone or was
	 * renewed.
	 */
	TimestampTz (*remove) (struct KvsSweep *sweep);
} KvsSweepKind;

typedef struct KvsSweep
{
	Relation	rel;
	const KvsSweepKind *kind;
	TimestampTz now;
	int64		limit;			/* rows that may still be removed */
	int64		removed;
	KvsStampSurvey numbers;		/* versionstamps of all rows read */
	int64		number;			/* versionstamp of the deletions, 0: none yet */
	struct KvsQueue *queue;		/* rows may be leased; NULL: it is none */
	bool		by_statement;	/* the table has triggers that must run */
	bool		careful;		/* each row in a subtransaction, and failing rows are passed over */
	bool		(*next_row) (void); /* with triggers: go on with one more row? */
	/* careful: returns when to try it again; may raise it */
	TimestampTz (*fail_row) (void *arg, const ErrorData *error);
	void	   *fail_arg;
	SPIPlanPtr	plan;			/* for them; there is an SPI connection then */
	TupleTableSlot *slot;
	Snapshot	snapshot;
	KvsIdentity caller;			/* ours, to be restored */
} KvsSweep;

/* Is it a store, a snapshot store or a queue? */
extern bool kvs_sweepblocks_is_swept(Relation rel);

/*
 * Open one without waiting, lock it until the transaction ends, and choose its kind; NULL, and why.
 */
extern Relation kvs_sweepblocks_open(KvsSweep *sweep, Oid relid, KvsSweepOutcome *outcome);

/*
 * Begin to sweep an opened store, as its owner.  An ERROR restores the identity and the settings
 * together with the transaction's state.
 */
extern void kvs_sweepblocks_begin(KvsSweep *sweep, TimestampTz now, int64 limit);

/*
 * Restore our own identity, count, close the store.  The lock stays until the transaction ends.
 * All numbers given from now on are above those that were read and count (stamp.h).
 */
extern void kvs_sweepblocks_end(KvsSweep *sweep);

/* Sweep the groups that are due. */
extern void kvs_sweepblocks_groups(KvsSweep *sweep, const KvsExpiryWork *work);

/*
 * Sweep a group in the course of a pass, and tell the map what is left there.  False: the limit was
 * reached before its end.
 */
extern bool kvs_sweepblocks_group_of_pass(KvsSweep *sweep, BlockNumber block);

/*
 * Read the whole table, from block *next on.  If the limit ends that, *next is where to go on.
 * Otherwise the calls that empty a large table would read its beginning over and over.
 */
extern void kvs_sweepblocks_whole(KvsSweep *sweep, BlockNumber *next);

#endif							/* KVS_SWEEPBLOCKS_H */
