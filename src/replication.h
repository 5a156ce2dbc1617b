/*
 * replication.h
 *		Logical replication, as a subscriber sees it.
 */
#ifndef KVS_REPLICATION_H
#define KVS_REPLICATION_H

#include "postgres.h"

/* Does this process apply what a subscription brings? */
extern bool kvs_replication_is_apply(void);

/* And is the subscription a superuser's? */
extern bool kvs_replication_is_trusted(void);

/* Does a subscription bring this table's rows?  With "enabled": one that is enabled. */
extern bool kvs_replication_brings(Oid relid, bool enabled);

#endif							/* KVS_REPLICATION_H */
