/*
 * worker.h
 *		The worker of one database, and what it offers to its tasks.
 */
#ifndef KVS_WORKER_H
#define KVS_WORKER_H

#include "postgres.h"

#include "utils/timestamp.h"

/*
 * A kind of work.  Its functions are called outside a transaction, and make short ones of their own, and catch what they may well raise: an
 * ERROR that gets here ends the worker.
 */
typedef struct KvsWorkerTask
{
	/* Do a bit of what is due; false: nothing is. */
	bool		(*step) (void);

	/*
	 * When to call step() next; DT_NOEND: never, unless next due is lowered (expiry.h).  What there is to
	 * do for table "except" does not count.
	 */
	TimestampTz (*next) (Oid except);

	/* No task has anything due any more. */
	void		(*rest) (void);
} KvsWorkerTask;

/* workersweep.c */
extern const KvsWorkerTask kvs_worker_sweep_task;

/* workerqueue.c */
extern const KvsWorkerTask kvs_worker_queue_task;

/* A short transaction, with a memory context that lasts as long. */
extern void kvs_worker_begin(const char *activity);
extern void kvs_worker_commit(void);

/*
 * In PG_CATCH: end the transaction.  The ERROR is logged, once a minute; or it is returned, valid until the
 * next transaction begins.
 */
extern void kvs_worker_recover(void);
extern ErrorData *kvs_worker_abort(void);

/*
 * When something is due, but for table "except".  It clears next due (expiry.h), so what the caller
 * learns there afterwards has come since.
 */
extern TimestampTz kvs_worker_next_due(Oid except);

/* Sleep, so many milliseconds at most. */
extern void kvs_worker_wait(long timeout);

/* Leave off soon: the server stops, or somebody wants the database for himself, or to drop the extension. */
extern bool kvs_worker_is_in_the_way(void);

/* Entry point of the process; the launcher starts it. */
extern PGDLLEXPORT void kvs_worker_main(Datum main_arg);

#endif							/* KVS_WORKER_H */
