/*
 * check.h
 *		Checks that hold until the transaction ends.
 */
#ifndef KVS_CHECK_H
#define KVS_CHECK_H

#include "postgres.h"

#include "key/key.h"
#include "store/store.h"
#include "table/catalog.h"

/*
 * Give the state of a key's entry.  Until this transaction ends, nobody else commits a change of
 * it.  Waits for whoever is changing it now.  42501 if policies hide the entry from the caller, or
 * protect it.  40001 at REPEATABLE READ and above, if it has changed since the transaction's
 * snapshot.
 */
extern void kvs_check_hold(KvsStore *store, const KvsKey *key, TimestampTz now, KvsState *state);

#endif							/* KVS_CHECK_H */
