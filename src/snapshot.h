/*
 * snapshot.h
 *		Snapshot stores, as seen by the sweeper.
 */
#ifndef KVS_SNAPSHOT_H
#define KVS_SNAPSHOT_H

#include "postgres.h"

#include "utils/rel.h"

/* The column that says when a snapshot expires. */
#define KVS_SNAPSHOT_EXPIRES_AT	7

/* Is it a snapshot store: in the right schema, of the right name, of the right shape? */
extern bool kvs_snapshot_is_store(Relation rel);

#endif							/* KVS_SNAPSHOT_H */
