/*
 * deadletter.h: the dead letters of a queue, which only statements touch, with the caller's rights.
 */
#ifndef KVS_DEADLETTER_H
#define KVS_DEADLETTER_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/rel.h"

#include "store/statement.h"
#include "table/queuecatalog.h"

/* In the text of a statement: their table, and one of them. */
#define KVS_DEAD_TABLE	"kvstore.d_%s"
#define KVS_DEAD_THIS	" WHERE id OPERATOR(pg_catalog.=) $1"

/*
 * Open a queue, the first argument of a function, and its dead letters, to change these.  With
 * "all" nobody else may do so meanwhile.  Two sessions that delete all of them, each in the order
 * in which it meets them, would wait for each other in a circle.
 */
extern KvsQueue *kvs_deadletter_open(FunctionCallInfo fcinfo, const char *function, bool all, Relation *rel);

/*
 * Run a statement over all dead letters, or ("id" not NULL) over that of an id; on_row may be NULL.
 */
extern int64 kvs_deadletter_run(KvsQueue *queue, KvsQueuePlan which, const char *format, const int64 *id,
								KvsOnRow on_row, void *arg);

/* The second argument of a function, an id; 22004 if it is NULL. */
extern int64 kvs_deadletter_id_arg(FunctionCallInfo fcinfo);

#endif							/* KVS_DEADLETTER_H */
