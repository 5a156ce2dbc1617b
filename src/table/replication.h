/*
 * replication.h
 *		Logical replication, as a subscriber sees it.
 */
#ifndef KVS_REPLICATION_H
#define KVS_REPLICATION_H

#include "postgres.h"

#include "access/htup.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* Whether a table is still replicated is asked again after so many milliseconds. */
#define KVS_REPLICATION_RETRY	10000

/* Does this process apply what a subscription brings? */
extern bool kvs_replication_is_apply(void);

/* And is the subscription a superuser's? */
extern bool kvs_replication_is_trusted(void);

/* Does a subscription bring this table's rows?  With "enabled": one that is enabled. */
extern bool kvs_replication_brings(Oid relid, bool enabled);

/*
 * A row was inserted, whose identity column has a number.  If it has arrived, those that are given
 * here after a switch-over are above it.
 */
extern void kvs_replication_follow(Relation rel, int column, HeapTuple tuple);

/* When to look for the row that expires at "when": not soon, if it has arrived. */
extern TimestampTz kvs_replication_look_at(TimestampTz when);

#endif							/* KVS_REPLICATION_H */
