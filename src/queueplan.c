/*
 * queueplan.c
 *		The kept plans of queues: made at first use, of a limited number of queues (plan.c).
 */
#include "postgres.h"

#include "plan.h"
#include "queueplan.h"
#include "statement.h"

static KvsPlanList planned = KVS_PLAN_LIST(planned);

void
kvs_queue_free_plans(KvsQueue *queue)
{
	kvs_plan_free_all(&planned, &queue->planned);
}

SPIPlanPtr
kvs_queue_get_plan(KvsQueue *queue, KvsQueuePlan which, const char *format, int nargs, const Oid *types)
{
	kvs_plan_touch(&planned, &queue->planned);
	if (unlikely(queue->plans[which] == NULL))
		queue->plans[which] = kvs_statement_prepare(psprintf(format, queue->name), nargs, types);
	return queue->plans[which];
}
