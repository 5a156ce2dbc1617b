/*
 * plan.c
 *		Kept plans: which tables keep them, how one is run, and how it is freed while it may be
 *		running.
 *
 * The plans of one store take some 100 kB, those of a queue some 140 kB, and a pooled session may
 * use thousands of them.  So only those that were used last keep their plans.  Another one prepares
 * its statements again, which takes less than a millisecond.
 *
 * A statement of ours can run a user's trigger, which calls our functions again.  The plan that
 * these drop may be that of the very statement, and SPI still reads it when the trigger has
 * returned.  So while any kept plan is running nothing is freed, only noted.  The next one to begin
 * after that frees it.  This memory belongs to the backend, so no lock protects it.
 *
 * A statement of ours runs without the guard of the table that it writes (guard.c).  A BEFORE ROW
 * trigger makes the executor fetch and lock every row of an UPDATE or DELETE before it calls the
 * trigger.  That costs a set 8 % and a delete a second WAL record (measured).  So a flag that the
 * trigger looks at would come too late.  Instead a hook takes the guard out of the executor's own
 * copy of the table's trigger list, for the one statement that asked for it.  Triggers of users
 * stay.
 *
 * The rows of RETURNING go straight to a callback, without the tuple table that SPI would build.
 */
#include "postgres.h"

#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "table/plan.h"
#include "table/shape.h"

/* So many stores keep their plans, and so many queues. */
#define MOST_OWNERS		64

static int	running = 0;		/* kept plans that are running, one inside the other */
static List *unwanted = NIL;	/* plans to be freed when none is */

/* Which statement of ours runs: that whose rows go to this receiver. */
typedef struct Pass
{
	const KvsPlanMode *mode;	/* NULL: none */
	const DestReceiver *receiver;
} Pass;

static Pass pass = {NULL, NULL};
static ExecutorStart_hook_type previous_executor_start = NULL;

/* ---- Which tables keep them ---- */

void
kvs_plan_begin(void)
{
	while (running == 0 && unwanted != NIL)
	{
		SPIPlanPtr	plan = linitial(unwanted);

		unwanted = list_delete_first(unwanted);
		SPI_freeplan(plan);
	}
	running++;
}

void
kvs_plan_end(void)
{
	Assert(running > 0);
	running--;
}

/* Free a plan, or have it freed later. */
static void
free_plan(SPIPlanPtr plan)
{
	MemoryContext old;

	if (running == 0)
	{
		SPI_freeplan(plan);
		return;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	unwanted = lappend(unwanted, plan);
	MemoryContextSwitchTo(old);
}

void
kvs_plan_free_all(KvsPlanList *list, KvsPlanOwner *owner)
{
	if (!owner->listed)
		return;
	dlist_delete(&owner->node);
	list->count--;
	owner->listed = false;
	for (int i = 0; i < owner->nplans; i++)
	{
		SPIPlanPtr	plan = owner->plans[i];

		owner->plans[i] = NULL;
		if (plan != NULL)
			free_plan(plan);
	}
}

static int
count_plans(KvsPlanList *list)
{
	dlist_iter	iter;
	int			count = 0;

	dlist_foreach(iter, &list->owners)
	{
		const KvsPlanOwner *owner = dlist_container(KvsPlanOwner, node, iter.cur);

		for (int i = 0; i < owner->nplans; i++)
			count += owner->plans[i] != NULL;
	}
	return count;
}

static void
move_to_head(KvsPlanList *list, KvsPlanOwner *owner)
{
	if (owner->listed)
		dlist_move_head(&list->owners, &owner->node);
	else
	{
		dlist_push_head(&list->owners, &owner->node);
		owner->listed = true;
		list->count++;
	}
}

SPIPlanPtr *
kvs_plan_use(KvsPlanList *list, KvsPlanOwner *owner, int which)
{
	move_to_head(list, owner);
	/* to make one takes a thousand times as long as to count them */
	if (unlikely(owner->plans[which] == NULL))
		while (list->count > MOST_OWNERS || (list->count > 1 && count_plans(list) >= list->most_plans))
			kvs_plan_free_all(list, dlist_tail_element(KvsPlanOwner, node, &list->owners));
	return &owner->plans[which];
}

SPIPlanPtr
kvs_plan_prepare(const char *sql, int nargs, const Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare_cursor(sql, nargs, unconstify(Oid *, types), CURSOR_OPT_GENERIC_PLAN);

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return plan;
}

/* ---- The guard is left out ---- */

/* Does any trigger of the list fire before, or after, each row for this event? */
static bool
has_row_trigger(const TriggerDesc *desc, int16 timing, int16 event)
{
	for (int i = 0; i < desc->numtriggers; i++)
		if (TRIGGER_TYPE_MATCHES(desc->triggers[i].tgtype, TRIGGER_TYPE_ROW, timing, event))
			return true;
	return false;
}

/* Take our trigger out of a list that belongs to one execution. */
static void
remove_guard(TriggerDesc *desc)
{
	int			left = 0;

	for (int i = 0; i < desc->numtriggers; i++)
		if (!kvs_shape_is_guard(desc->triggers[i].tgname))
			desc->triggers[left++] = desc->triggers[i];
	desc->numtriggers = left;
	desc->trig_insert_before_row = has_row_trigger(desc, TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_INSERT);
	desc->trig_update_before_row = has_row_trigger(desc, TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_UPDATE);
	desc->trig_delete_before_row = has_row_trigger(desc, TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_DELETE);
	desc->trig_insert_after_row = has_row_trigger(desc, TRIGGER_TYPE_AFTER, TRIGGER_TYPE_INSERT);
	desc->trig_update_after_row = has_row_trigger(desc, TRIGGER_TYPE_AFTER, TRIGGER_TYPE_UPDATE);
	desc->trig_delete_after_row = has_row_trigger(desc, TRIGGER_TYPE_AFTER, TRIGGER_TYPE_DELETE);
}

static void
plan_executor_start(QueryDesc *query, int eflags)
{
	ListCell   *lc;

	if (previous_executor_start)
		previous_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	/* not those that a user's code starts, before this statement begins or inside it */
	if (likely(pass.mode == NULL) || !OidIsValid(pass.mode->relid) || query->dest != pass.receiver)
		return;
	foreach(lc, query->estate->es_opened_result_relations)
	{
		ResultRelInfo *info = (ResultRelInfo *) lfirst(lc);

		if (RelationGetRelid(info->ri_RelationDesc) != pass.mode->relid || info->ri_TrigDesc == NULL)
			continue;
		remove_guard(info->ri_TrigDesc);
		if (pass.mode->observe != NULL)
			pass.mode->observe(query->estate, info, pass.mode->observe_arg);
	}
}

void
kvs_plan_init(void)
{
	previous_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = plan_executor_start;
}

/* ---- Running one ---- */

void
kvs_plan_set_param(ParamListInfo params, int i, Oid type, Datum value, bool isnull)
{
	params->params[i].value = value;
	params->params[i].isnull = isnull;
	params->params[i].pflags = PARAM_FLAG_CONST;
	params->params[i].ptype = type;
}

typedef struct Sink
{
	DestReceiver receiver;		/* must be first */
	KvsOnRow	on_row;
	void	   *arg;
} Sink;

static bool
sink_receive(TupleTableSlot *slot, DestReceiver *self)
{
	Sink	   *sink = (Sink *) self;

	slot_getallattrs(slot);
	sink->on_row(slot, sink->arg);
	return true;
}

static void
sink_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
sink_nothing(DestReceiver *self)
{
}

static void
ignore_row(TupleTableSlot *slot, void *arg)
{
}

static void
set_sink(Sink *sink, KvsOnRow on_row, void *arg)
{
	memset(sink, 0, sizeof(*sink));
	sink->receiver.receiveSlot = sink_receive;
	sink->receiver.rStartup = sink_startup;
	sink->receiver.rShutdown = sink_nothing;
	sink->receiver.rDestroy = sink_nothing;
	sink->receiver.mydest = DestNone;
	sink->on_row = on_row ? on_row : ignore_row;
	sink->arg = arg;
}

uint64
kvs_plan_run(SPIPlanPtr plan, ParamListInfo params, const KvsPlanMode *mode, KvsOnRow on_row, void *arg)
{
	SPIExecuteOptions options;
	Pass		before;
	Sink		sink;
	volatile int result = 0;

	set_sink(&sink, on_row, arg);
	memset(&options, 0, sizeof(options));
	options.params = params;
	options.read_only = mode->read_only;
	options.dest = &sink.receiver;
	kvs_plan_begin();
	before = pass;
	pass = (Pass) {mode, &sink.receiver};
	PG_TRY();
	{
		result = SPI_execute_plan_extended(plan, &options);
	}
	PG_FINALLY();
	{
		/* code of a user that ran meanwhile may have called our functions, too */
		pass = before;
		kvs_plan_end();
	}
	PG_END_TRY();
	if (result < 0)
		elog(ERROR, "could not run a statement: %s", SPI_result_code_string(result));
	return SPI_processed;
}

uint64
kvs_plan_execute(SPIPlanPtr plan, ParamListInfo params, Oid relid, KvsOnRow on_row, void *arg)
{
	KvsPlanMode mode = {.relid = relid};

	return kvs_plan_run(plan, params, &mode, on_row, arg);
}

uint64
kvs_plan_query(SPIPlanPtr plan, ParamListInfo params, KvsOnRow on_row, void *arg)
{
	KvsPlanMode mode = {.read_only = true};

	return kvs_plan_run(plan, params, &mode, on_row, arg);
}
