/*
 * absence.h
 *		The absence of an entry, held until the transaction ends.
 */
#ifndef KVS_ABSENCE_H
#define KVS_ABSENCE_H

#include "postgres.h"

#include "key/key.h"
#include "table/catalog.h"

/*
 * Hold the absence of a key until the transaction ends; waits for a transaction that is inserting
 * it.  False: there is an entry after all.  Only with shared memory.
 */
extern bool kvs_absence_hold(const KvsStore *store, const KvsKey *key);

/* Before a statement that may insert a row for this key: wait for whoever holds its absence. */
extern void kvs_absence_wait(const KvsStore *store, Datum key);

/*
 * After a row was inserted, inside the statement: the same.  40001 at REPEATABLE READ and above if
 * the snapshot sees a row that is gone.
 */
extern void kvs_absence_inserted(const KvsStore *store, Datum key);

extern void kvs_absence_init(void);

#endif							/* KVS_ABSENCE_H */
