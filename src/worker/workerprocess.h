/*
 * workerprocess.h
 *		The process of a worker: its settings, signals, waits and short transactions.
 */
#ifndef KVS_WORKERPROCESS_H
#define KVS_WORKERPROCESS_H

#include "postgres.h"

/* Connect to the database, with the settings of a worker. */
extern void kvs_workerprocess_begin_work(Oid database);

/* A short transaction, with a memory context that lasts as long. */
extern void kvs_workerprocess_begin(const char *activity);
extern void kvs_workerprocess_commit(void);

/*
 * In PG_CATCH: end the transaction.  The ERROR is logged, once a minute; or it is returned, valid
 * until the next transaction begins.
 */
extern void kvs_workerprocess_recover(void);
extern ErrorData *kvs_workerprocess_abort(void);

/* Sleep, so many milliseconds at most. */
extern void kvs_workerprocess_wait(long timeout);

/*
 * Leave off soon: the server stops, or a session wants the database to itself, or wants to drop the
 * extension.
 */
extern bool kvs_workerprocess_is_in_the_way(void);

/* Does DROP DATABASE, CREATE DATABASE ... TEMPLATE or the like wait for us to go? */
extern bool kvs_workerprocess_database_is_wanted(void);

/* Outside a transaction: end if the server stops, read the configuration if it has changed. */
extern void kvs_workerprocess_handle_signals(void);

#endif							/* KVS_WORKERPROCESS_H */
