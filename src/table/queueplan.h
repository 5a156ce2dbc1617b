/*
 * queueplan.h
 *		The kept plans of queues: made at first use, of a limited number of queues.
 *
 * Names: kvs_queue_
 */
#ifndef KVS_QUEUEPLAN_H
#define KVS_QUEUEPLAN_H

#include "postgres.h"

#include "table/queuecatalog.h"

/*
 * A kept plan, made at first use, inside SPI_connect(); "%s" in the text is the queue's name.  It
 * is good until the next call of this for any queue: run it with kvs_plan_execute() or _query().
 */
extern SPIPlanPtr kvs_queue_get_plan(KvsQueue *queue, KvsQueuePlan which, const char *format, int nargs, const Oid *types);

/* Free all plans of a queue: its table is gone, or has another name. */
extern void kvs_queue_free_plans(KvsQueue *queue);

#endif							/* KVS_QUEUEPLAN_H */
