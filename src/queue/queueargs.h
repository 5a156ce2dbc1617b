/* queueargs.h: what the functions of queues share: reading their arguments, checking rights. */
#ifndef KVS_QUEUEARGS_H
#define KVS_QUEUEARGS_H

#include "postgres.h"

#include "fmgr.h"
#include "nodes/parsenodes.h"

#include "table/queuecatalog.h"

/* 25006 in a read-only transaction and on a standby, 55000 without preload. */
extern void kvs_queueargs_begin(const char *function);

/* 42501 unless the caller has all of these rights on the queue's table. */
extern void kvs_queueargs_check_rights(const KvsQueue *queue, AclMode rights);

/* A count of at least 0; SQL NULL is "missing". */
extern int64 kvs_queueargs_count(FunctionCallInfo fcinfo, int arg, int64 missing);

/*
 * When a lease ends that begins now; SQL NULL is the queue's own.  22023: not positive, or too
 * long.
 */
extern TimestampTz kvs_queueargs_deadline(FunctionCallInfo fcinfo, int arg, const KvsQueue *queue, TimestampTz now);

/* A delay that is not negative, from now; SQL NULL is "missing". */
extern TimestampTz kvs_queueargs_delay(FunctionCallInfo fcinfo, int arg, TimestampTz now, TimestampTz missing);

#endif							/* KVS_QUEUEARGS_H */
