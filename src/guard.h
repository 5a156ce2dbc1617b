/* guard.h: the trigger on every store, and how our own writes pass it. */
#ifndef KVS_GUARD_H
#define KVS_GUARD_H

#include "postgres.h"

/* Name of the trigger for rows on every store. */
#define KVS_GUARD_TRIGGER	"kvstore_guard"

/*
 * Let the next statement that this backend starts write the table without the guard.  One statement only: what a user's trigger does inside it is
 * guarded again.  Call kvs_guard_end() afterwards, also on ERROR.
 */
extern void kvs_guard_let_pass(Oid relid);
extern void kvs_guard_end(void);

extern void kvs_guard_init(void);

#endif							/* KVS_GUARD_H */
