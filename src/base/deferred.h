/* deferred.h: constraint triggers of a table that wait for the commit. */
#ifndef KVS_DEFERRED_H
#define KVS_DEFERRED_H

#include "postgres.h"

#include "utils/rel.h"

/*
 * Have the triggers of an open table that are initially deferred fire with each statement
 * ("at_once"), or with the commit again.  The former fires those that wait.  Nothing, if the table
 * has none.
 */
extern void kvs_deferred_set(Relation rel, bool at_once);

#endif							/* KVS_DEFERRED_H */
