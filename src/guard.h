/* guard.h: the trigger on every store, and how our own writes pass it. */
#ifndef KVS_GUARD_H
#define KVS_GUARD_H

#include "postgres.h"

#include "tcop/dest.h"

#include "fate.h"

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

/* Which statement of ours writes which table without the guard: that whose rows go to this receiver. */
typedef struct KvsGuardPass
{
	Oid			relid;			/* InvalidOid: none */
	const DestReceiver *receiver;
	KvsFateWatch *watch;		/* what triggers of the owner's do to its rows; NULL: nobody asks */
} KvsGuardPass;

/*
 * Let a statement that is about to be started pass.  Returns what was so before, for kvs_guard_end()
 * afterwards, also on ERROR: code of a user that runs meanwhile may call our functions, too.
 */
extern KvsGuardPass kvs_guard_let_pass(Oid relid, const DestReceiver *receiver, KvsFateWatch *watch);
extern void kvs_guard_end(KvsGuardPass before);

extern void kvs_guard_init(void);

#endif							/* KVS_GUARD_H */
