/*
 * queueplan.c
 *		The kept plans of queues: made at first use, of a limited number of queues (plan.c).
 */
#include "postgres.h"

#include "table/plan.h"
#include "table/queueplan.h"

static KvsPlanList planned = KVS_PLAN_LIST(planned, PG_INT32_MAX);

void
kvs_queue_free_plans(KvsQueue *queue)
{
	kvs_plan_free_all(&planned, &queue->planned);
}

SPIPlanPtr
kvs_queue_get_plan(KvsQueue *queue, KvsQueuePlan which, const char *format, int nargs, const Oid *types)
{
	SPIPlanPtr *plan = kvs_plan_use(&planned, &queue->planned, which);

	if (unlikely(*plan == NULL))
		*plan = kvs_plan_prepare(psprintf(format, queue->name), nargs, types);
	return *plan;
}
