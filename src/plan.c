/*
 * plan.c
 *		Kept plans: who keeps them, and how one is let go of while it may be running.
 *
 * The plans of one store take some 100 kB, those of a queue some 140 kB, and a pooled session may come by
 * thousands of them.  So only those that were used last keep theirs; another one prepares its
 * statements again, which takes less than a millisecond.
 *
 * A statement of ours can run a user's trigger, which calls our functions again.  What these let go
 * of may be the plan of that very statement, and SPI still reads it when the trigger has returned.
 * So while any kept plan is running nothing is freed, only noted, and the next one to begin after
 * that frees it.  This memory belongs to the backend, so no lock protects it.
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "plan.h"

/* So many stores keep their plans, and so many queues. */
#define MOST_OWNERS		64

static int	running = 0;		/* kept plans that are running, one inside the other */
static List *unwanted = NIL;	/* plans to be freed when none is */

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
