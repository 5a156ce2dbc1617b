/* subxact.h: work in a subtransaction of its own. */
#ifndef KVS_SUBXACT_H
#define KVS_SUBXACT_H

#include "postgres.h"

/*
 * Do something in a subtransaction, with the caller's memory context and resource owner restored
 * after it.  "work" says whether it is to stay: if not, it is rolled back, and its locks are
 * released.  An ERROR is thrown on after the rollback: the caller must not be left in a
 * subtransaction that it does not know of.
 */
extern void kvs_subxact_run(bool (*work) (void *arg), void *arg);

/*
 * The same, but an ERROR is rolled back and given to the caller, palloc'd; NULL: there was none,
 * and all of it stays.  An ERROR for which "passes" is true is thrown on; NULL: none is.
 */
extern ErrorData *kvs_subxact_try(void (*work) (void *arg), void *arg, bool (*passes) (int sqlerrcode));

/*
 * Was the statement really cancelled?  The SQLSTATE does not tell: any code of a user can raise it.
 * So we ask which function of the server raised the ERROR: such code cannot choose that.
 */
extern bool kvs_subxact_is_cancel(const ErrorData *error);

#endif							/* KVS_SUBXACT_H */
