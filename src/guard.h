/* guard.h: the trigger on every store, and how our own writes pass it. */
#ifndef KVS_GUARD_H
#define KVS_GUARD_H

#include "postgres.h"

/* The triggers on every store: before and after each row, and before TRUNCATE.  Queues do without the second. */
#define KVS_GUARD_TRIGGER	"kvstore_guard"
#define KVS_GUARD_AFTER		"kvstore_guard_after"
#define KVS_GUARD_TRUNCATE	"kvstore_guard_truncate"
#define KVS_GUARD_TRIGGERS	3

/* Is a trigger of this name ours? */
static inline bool
kvs_guard_is_own(const char *name)
{
	return strcmp(name, KVS_GUARD_TRIGGER) == 0 || strcmp(name, KVS_GUARD_AFTER) == 0 || strcmp(name, KVS_GUARD_TRUNCATE) == 0;
}

/*
 * Let the next statement that this backend starts write the table without the guard.  One statement only: what a user's trigger does inside it is
 * guarded again.  Call kvs_guard_end() afterwards, also on ERROR.
 */
extern void kvs_guard_let_pass(Oid relid);
extern void kvs_guard_end(void);

extern void kvs_guard_init(void);

#endif							/* KVS_GUARD_H */
