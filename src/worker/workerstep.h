/*
 * workerstep.h
 *		A step of the worker over somebody's table: bounded in time, and known to all beforehand.
 */
#ifndef KVS_WORKERSTEP_H
#define KVS_WORKERSTEP_H

#include "postgres.h"

#include "utils/timestamp.h"

/*
 * A step is a short transaction that works on one table:
 *
 *	PG_TRY: kvs_workerstep_begin(); take locks without waiting; kvs_workerstep_arm(); ...;
 *	kvs_workerstep_commit();
 *	PG_CATCH: until = kvs_workerstep_recover();
 *
 * A table may be worked on if kvs_workerstep_aside_until() has passed.
 */
extern void kvs_workerstep_begin(Oid relid, const char *activity);

/*
 * From here on the step may run code of an owner: triggers, policies, index functions, casts.  It
 * is cancelled after kvstore.step_timeout, waits for locks only shortly, and the worker ends itself
 * after twice that time.
 */
extern void kvs_workerstep_arm(void);

/*
 * Call this before each row that an armed step works on.  False: leave it to the next step, for
 * this one has taken so long that it should commit what it has done so far.
 */
extern bool kvs_workerstep_next_row(void);

/*
 * A row that an armed step works on has failed, and was rolled back.  Returns until when it is
 * backed off, or raises the ERROR that ends the step, which was cancelled.
 */
extern TimestampTz kvs_workerstep_fail_row(const ErrorData *error);


/* Raise 57014 if the step has taken too long: a trigger may have caught its cancel. */
extern void kvs_workerstep_check(void);

/*
 * The step has taken too long, but only a part of it is to blame.  That was rolled back, and the
 * caller backs it off.  The step is armed no more and can be committed; its table is not in
 * trouble.  False: it has not taken too long.
 */
extern bool kvs_workerstep_forgive(void);

/* "done": it did what it was for, so the table is no longer in trouble. */
extern void kvs_workerstep_commit(bool done);

/*
 * In PG_CATCH: end the transaction and back the table off, with one LOG line when its trouble
 * begins.  Returns until when.
 */
extern TimestampTz kvs_workerstep_recover(void);

/* Until when the table is backed off; DT_NOBEGIN: it is not. */
extern TimestampTz kvs_workerstep_aside_until(Oid relid);

/* Must each row have a subtransaction, because some have failed of late? */
extern bool kvs_workerstep_is_careful(Oid relid);

/* How many rows a step may take: "max", or fewer if that was too many of late. */
extern int64 kvs_workerstep_rows(Oid relid, int64 max);

/*
 * The worker starts, and ends; the latter returns whether it ended itself.  "find_next_due" says
 * when something is due, but for table "except".  It clears next due (expiry.h), so what is there
 * afterwards has come since.
 */
extern void kvs_workerstep_come(TimestampTz (*find_next_due) (Oid except));
extern bool kvs_workerstep_leave(void);

#endif							/* KVS_WORKERSTEP_H */
