/*
 * wait.h
 *		Waiting inside a function: look, register, look again, sleep.
 */
#ifndef KVS_WAIT_H
#define KVS_WAIT_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"

#include "feed/waiter.h"

typedef struct KvsWait KvsWait;

struct KvsWait
{
	KvsWaiter	waiter;
	TimestampTz deadline;		/* in the past: look once */

	/*
	 * Is it there?  Called in a subtransaction that is rolled back, so that no lock stays, unless
	 * it sets "keep".  Sets "relid", the table that it is about, and may set "until".
	 */
	bool		(*look) (KvsWait *wait);

	/* What to wait for in table "relid"; returns how many. */
	int			(*aim) (KvsWait *wait, KvsWaitTarget *targets);

	Oid			relid;
	TimestampTz until;			/* look again then at the latest; DT_NOEND before each look */
	bool		last;			/* there is no sleep after this look; true before the last one */
	bool		found;			/* what the last look said */
	/* what the look did stays, with its locks; false before each look */
	bool		keep;

	/* What it came to. */
	bool		slept;
	int			wakeups;		/* sleeps that a waker has ended */
};

/* When a wait ends that begins now; SQL NULL: after "seconds".  22023 if it is negative. */
extern TimestampTz kvs_wait_deadline(FunctionCallInfo fcinfo, int arg, int seconds);

/*
 * 25001 unless a procedure has been called as a statement of its own; "instead" is the function
 * that can wait in a transaction.
 */
extern void kvs_wait_check_context(FunctionCallInfo fcinfo, const char *procedure, const char *instead);

/* Wait until look() says so: true.  False: the time is over. */
extern bool kvs_wait_for(KvsWait *wait);

/*
 * The same for a procedure (kvs_wait_check_context()): in transactions of its own at READ
 * COMMITTED, without a snapshot.
 */
extern void kvs_wait_in_procedure(KvsWait *wait);

#endif							/* KVS_WAIT_H */
