/*
 * dequeue.h
 *		Which messages a dequeue gives, and in what order.
 */
#ifndef KVS_DEQUEUE_H
#define KVS_DEQUEUE_H

#include "postgres.h"

#include "nodes/execnodes.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "table/queuecatalog.h"

typedef struct KvsDequeue
{
	TimestampTz now;
	TimestampTz deadline;		/* of the leases */
	int64		wanted;
	ReturnSetInfo *rsinfo;		/* gets the rows; NULL: only look whether there is one */

	/* What came of it. */
	int64		given;			/* messages */
	/* there is a message beyond those that were wanted; not looked for if nobody waits */
	bool		more;
	TimestampTz next;			/* nothing comes by itself before; DT_NOEND: nothing does */
} KvsDequeue;

/*
 * Lease messages of the queue, whose table is open, and give them.  KV004 if there is no room for a
 * single lease.
 */
extern void kvs_dequeue(KvsDequeue *request, KvsQueue *queue, Relation rel);

#endif							/* KVS_DEQUEUE_H */
