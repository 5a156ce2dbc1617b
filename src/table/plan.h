/*
 * plan.h
 *		Kept plans: which tables keep them, how one is run, and how it is freed while it may be
 *		running.
 */
#ifndef KVS_PLAN_H
#define KVS_PLAN_H

#include "postgres.h"

#include "executor/spi.h"
#include "executor/tuptable.h"
#include "lib/ilist.h"
#include "nodes/execnodes.h"
#include "nodes/params.h"

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
 * Where a plan of this one is, which is used now; NULL there: make it.  If too many have plans, or
 * there are too many plans, those not used longest lose theirs.
 */
extern SPIPlanPtr *kvs_plan_use(KvsPlanList *list, KvsPlanOwner *owner, int which);

/* Free the plans of this one.  While any plan is running they are kept until none is. */
extern void kvs_plan_free_all(KvsPlanList *list, KvsPlanOwner *owner);

/* Make a plan, the generic one, and keep it, inside SPI_connect(). */
extern SPIPlanPtr kvs_plan_prepare(const char *sql, int nargs, const Oid *types);

/* Set argument $i+1. */
extern void kvs_plan_set_param(ParamListInfo params, int i, Oid type, Datum value, bool isnull);

/*
 * Gets each row of a statement's RETURNING, before the next one is written; what by-reference
 * values point to does not stay.
 */
typedef void (*KvsOnRow) (TupleTableSlot *slot, void *arg);

/*
 * Gets the table that a statement writes, whose guard has been left out, before the statement runs.
 */
typedef void (*KvsObserve) (EState *estate, ResultRelInfo *info, void *arg);

/* How a plan is run. */
typedef struct KvsPlanMode
{
	bool		read_only;
	Oid			relid;			/* the table whose guard is left out, or InvalidOid */
	KvsObserve	observe;		/* of that table, or NULL */
	void	   *observe_arg;
} KvsPlanMode;

/*
 * Run a kept plan as the caller, inside SPI_connect().  on_row may be NULL.  Returns how many rows
 * it wrote, locked or gave.
 */
extern uint64 kvs_plan_run(SPIPlanPtr plan, ParamListInfo params, const KvsPlanMode *mode, KvsOnRow on_row, void *arg);

/* The same without the guard of this table. */
extern uint64 kvs_plan_execute(SPIPlanPtr plan, ParamListInfo params, Oid relid, KvsOnRow on_row, void *arg);

/* The same of a plan that only reads, with the active snapshot. */
extern uint64 kvs_plan_query(SPIPlanPtr plan, ParamListInfo params, KvsOnRow on_row, void *arg);

extern void kvs_plan_init(void);

#endif							/* KVS_PLAN_H */
