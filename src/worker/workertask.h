/* workertask.h: a kind of work of the worker. */
#ifndef KVS_WORKERTASK_H
#define KVS_WORKERTASK_H

#include "postgres.h"

#include "utils/timestamp.h"

/*
 * A kind of work.  Its functions are called outside a transaction, and make short ones of their
 * own.  They catch the errors that they may well raise: an ERROR that gets here ends the worker.
 */
typedef struct KvsWorkerTask
{
	/* Do a bit of what is due; false: nothing is. */
	bool		(*step) (void);

	/*
	 * When to call step() next; DT_NOEND: never, unless next due is lowered (expiry.h).  What there
	 * is to do for table "except" does not count.
	 */
	TimestampTz (*next) (Oid except);

	/* No task has anything due any more. */
	void		(*idle) (void);
} KvsWorkerTask;

#endif							/* KVS_WORKERTASK_H */
