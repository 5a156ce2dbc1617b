/*
 * plan.h
 *		Kept plans: who keeps them, and how one is let go of while it may be running.
 */
#ifndef KVS_PLAN_H
#define KVS_PLAN_H

#include "postgres.h"

#include "executor/spi.h"
#include "lib/ilist.h"

/* A kept plan runs between these two; the second must be called after an ERROR, too. */
extern void kvs_plan_begin(void);
extern void kvs_plan_end(void);

/* The plans of a store or a queue; all 0 but for "plans" and "nplans". */
typedef struct KvsPlanOwner
{
	SPIPlanPtr *plans;
	int			nplans;
	bool		listed;			/* it may have some, and is in the list of those that do */
	dlist_node	node;
} KvsPlanOwner;

/* Those that may have plans, the one used last first. */
typedef struct KvsPlanList
{
	dlist_head	owners;
	int			count;
	int			most_plans;		/* of all of them */
} KvsPlanList;

#define KVS_PLAN_LIST(name, most)	{DLIST_STATIC_INIT((name).owners), 0, (most)}

/*
 * Where a plan of this one is, which is used now; NULL there: make it.  If too many have plans, or there
 * are too many plans, those not used longest lose theirs.
 */
extern SPIPlanPtr *kvs_plan_use(KvsPlanList *list, KvsPlanOwner *owner, int which);

/* Free the plans of this one.  While any plan is running they are kept until none is. */
extern void kvs_plan_free_all(KvsPlanList *list, KvsPlanOwner *owner);

#endif							/* KVS_PLAN_H */
