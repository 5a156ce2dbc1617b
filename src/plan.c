/*
 * plan.c
 *		Kept plans: how one is let go of while it may be running.
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

void
kvs_plan_free(SPIPlanPtr *plan)
{
	if (*plan == NULL)
		return;
	if (running == 0)
		SPI_freeplan(*plan);
	else
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		unwanted = lappend(unwanted, *plan);
		MemoryContextSwitchTo(old);
	}
	*plan = NULL;
}
