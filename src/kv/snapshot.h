/*
 * snapshot.h
 *		Snapshot stores: one that is safe to use, and what the sweeper must know.
 */
#ifndef KVS_SNAPSHOT_H
#define KVS_SNAPSHOT_H

#include "postgres.h"

#include "storage/lock.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* The columns that give the order, and say when a snapshot expires. */
#define KVS_SNAPSHOT_SEQ		3
#define KVS_SNAPSHOT_EXPIRES_AT	7

/* An open snapshot store. */
typedef struct KvsSnapshotStore
{
	char	   *name;
	Relation	rel;
	bool		has_default_ttl;	/* else its snapshots stay */
	Interval	default_ttl;
} KvsSnapshotStore;

/*
 * Open a snapshot store by name, checked; the lock stays until the transaction ends, close it with
 * relation_close(store->rel, NoLock).  Errors as kvs_storecatalog_open_store().
 */
extern void kvs_snapshot_open(const text *name, LOCKMODE lockmode, KvsSnapshotStore *store);

/* Is it a snapshot store: in the right schema, of the right name, of the right shape? */
extern bool kvs_snapshot_is_store(Relation rel);

#endif							/* KVS_SNAPSHOT_H */
