/*
 * manualstep.h
 *		A manual step over somebody's table: bounded in time, in a subtransaction of the caller's.
 */
#ifndef KVS_MANUALSTEP_H
#define KVS_MANUALSTEP_H

#include "postgres.h"

/*
 * Do something that may run code of a table's owner.  It is cancelled after kvstore.step_timeout.
 * An ERROR, that one too, is rolled back and given to the caller; NULL: there was none.  A cancel
 * of the session's own statement (the user's, or statement_timeout) is raised, whatever that code
 * makes of it.
 */
extern ErrorData *kvs_manualstep_try(void (*work) (void *arg), void *arg);

/* Has this step, or the last one, been cancelled, by its timer or with the session's statement? */
extern bool kvs_manualstep_is_cancelled(void);

/* The same, but by its timer. */
extern bool kvs_manualstep_took_too_long(void);

/*
 * May the step go on to another row?  False: it has taken so long that it should commit what it has
 * done.
 */
extern bool kvs_manualstep_next_row(void);

#endif							/* KVS_MANUALSTEP_H */
