/*
 * chores.h
 *		What only the worker does for a queue: it writes failures down, and moves messages that are
 *		given up to the dead letters.
 */
#ifndef KVS_CHORES_H
#define KVS_CHORES_H

#include "postgres.h"

#include "utils/rel.h"
#include "utils/timestamp.h"

#include "table/queuecatalog.h"

/*
 * End the expired leases of the queue, and settle up to "limit" messages, in this transaction.  An
 * ERROR about one of them is kept: that message is stuck for a while.  Returns how many were looked
 * at.  "manual": in a manual step (manualstep.h), not one of the worker.
 */
extern int	kvs_chores_run(KvsQueue *queue, Relation rel, TimestampTz now, int limit, bool manual);

#endif							/* KVS_CHORES_H */
