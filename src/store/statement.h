/*
 * statement.h
 *		The kept plans that write stores, and how they are run.
 */
#ifndef KVS_STATEMENT_H
#define KVS_STATEMENT_H

#include "postgres.h"

#include "store/fate.h"
#include "store/store.h"
#include "table/catalog.h"
#include "table/plan.h"

/*
 * The statements; statement.c has their text and arguments.  The plans that read come before them,
 * see scan.c.
 */
typedef enum KvsPlan
{
	KVS_PLAN_PUT = KVS_READ_PLANS,
	KVS_PLAN_PUT_KEEP,
	KVS_PLAN_PUT_ABSENT,
	KVS_PLAN_PUT_VERSION,
	KVS_PLAN_PUT_MANY,
	KVS_PLAN_RESTAMP_MANY,
	KVS_PLAN_DELETE,
	KVS_PLAN_DELETE_VERSION,
	KVS_PLAN_DELETE_MANY,
	KVS_PLAN_DELETE_RANGE,
	KVS_PLAN_DELETE_TEXTS,
	KVS_PLAN_EXPIRE,
	KVS_PLAN_EXPIRE_VERSION,
	KVS_PLAN_INCREMENT,
	KVS_PLAN_CLAIM,
	KVS_PLAN_LOCK_SHARED,
	KVS_PLAN_LOCK,
	KVS_PLAN_LOCK_LIVE,
	KVS_PLAN_PLACE,
	KVS_PLAN_REMOVE,
	KVS_PLAN_END
} KvsPlan;

/* Most arguments that a statement has. */
#define KVS_PLAN_ARGS	9

/*
 * Run a statement of a store as the caller, without the guard trigger.  "nulls" and on_row may be
 * NULL.  Returns what became of its rows.  27000 if a trigger changed what is not its to change.
 */
extern KvsFate kvs_statement_run(KvsStore *store, KvsPlan which, const Datum *values, const bool *nulls,
								 KvsOnRow on_row, void *arg);

/*
 * The same for a statement over many rows, by an index scan: it visits, and so locks, them in key
 * order.  A sequential or bitmap scan would lock them in table order, and two such statements would
 * deadlock.
 */
extern KvsFate kvs_statement_run_in_key_order(KvsStore *store, KvsPlan which, const Datum *values,
											  KvsOnRow on_row, void *arg);

/*
 * Set what an entry is to hold, and its expiry: in the columns of its row, or in arguments $2 to $4
 * and $6 of a statement that writes it.
 */
extern void kvs_statement_set_content(const KvsContent *content, TimestampTz expires_at, Datum *values, bool *nulls);

#endif							/* KVS_STATEMENT_H */
