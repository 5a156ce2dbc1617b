/*
 * queueplan.c
 *		The kept plans of queues: made at first use, of a limited number of queues.
 *
 * The plans of one queue take some 140 kB, and a pooled session may come by thousands of queues.  So
 * only the queues that were used last keep theirs; another one prepares its statements again, which
 * takes less than a millisecond.  The list belongs to the backend, so no lock protects it.
 */
#include "postgres.h"

#include "plan.h"
#include "queueplan.h"
#include "statement.h"

/* Queues that keep their plans. */
#define MOST_QUEUES		64

static dlist_head planned = DLIST_STATIC_INIT(planned); /* queues with plans, the one used last first */
static int	nplanned = 0;

void
kvs_queue_free_plans(KvsQueue *queue)
{
	if (!queue->has_plans)
		return;
	dlist_delete(&queue->planned);
	nplanned--;
	queue->has_plans = false;
	for (int i = 0; i < KVS_QUEUE_PLANS; i++)
		kvs_plan_free(&queue->plans[i]);
}

/* This is the queue used last; if it is one too many, the one that was not used longest loses its plans. */
static void
touch(KvsQueue *queue)
{
	if (queue->has_plans)
		dlist_move_head(&planned, &queue->planned);
	else
	{
		dlist_push_head(&planned, &queue->planned);
		queue->has_plans = true;
		nplanned++;
	}
	if (nplanned > MOST_QUEUES)
		kvs_queue_free_plans(dlist_tail_element(KvsQueue, planned, &planned));
}

SPIPlanPtr
kvs_queue_get_plan(KvsQueue *queue, KvsQueuePlan which, const char *format, int nargs, const Oid *types)
{
	touch(queue);
	if (unlikely(queue->plans[which] == NULL))
		queue->plans[which] = kvs_statement_prepare(psprintf(format, queue->name), nargs, types);
	return queue->plans[which];
}
