/*
 * plan.h
 *		Kept plans: how one is let go of while it may be running.
 */
#ifndef KVS_PLAN_H
#define KVS_PLAN_H

#include "postgres.h"

#include "executor/spi.h"

/* A kept plan runs between these two; the second must be called after an ERROR, too. */
extern void kvs_plan_begin(void);
extern void kvs_plan_end(void);

/* Free a kept plan, if there is one, and forget it.  While any is running it is kept until none is. */
extern void kvs_plan_free(SPIPlanPtr *plan);

#endif							/* KVS_PLAN_H */
