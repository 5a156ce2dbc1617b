/* subxact.h: work in a subtransaction of its own. */
#ifndef KVS_SUBXACT_H
#define KVS_SUBXACT_H

#include "postgres.h"

/*
 * Do something in a subtransaction, with the caller's memory context and resource owner restored
 * after it.  "work" says whether it is to stay: if not, it is rolled back, and its locks are let
 * go.  An ERROR is thrown on, after the rollback: nobody must be left in a subtransaction that he
 * does not know of.
 */
extern void kvs_subxact_run(bool (*work) (void *arg), void *arg);

/*
 * The same, but an ERROR is rolled back and given to the caller, palloc'd; NULL: there was none,
 * and all of it stays.  Those that "passes" says yes to are thrown on.
 */
extern ErrorData *kvs_subxact_try(void (*work) (void *arg), void *arg, bool (*passes) (int sqlerrcode));

/*
 * Was the statement really cancelled?  The SQLSTATE does not tell: any code of a user can raise
 * that. So it is asked which function of the server raised the ERROR, which such code cannot
 * choose.
 */
extern bool kvs_subxact_is_cancel(const ErrorData *error);

#endif							/* KVS_SUBXACT_H */
