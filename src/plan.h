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
} KvsPlanList;

#define KVS_PLAN_LIST(name)	{DLIST_STATIC_INIT((name).owners), 0}

/* This one is used now, and may get plans.  If there are too many that have, the one not used longest loses them. */
extern void kvs_plan_touch(KvsPlanList *list, KvsPlanOwner *owner);

/* Free the plans of this one.  While any plan is running they are kept until none is. */
extern void kvs_plan_free_all(KvsPlanList *list, KvsPlanOwner *owner);

#endif							/* KVS_PLAN_H */
