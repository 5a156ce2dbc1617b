/*
 * guard.h
 *		The trigger on every store and queue, and the rules for each kind of table.
 */
#ifndef KVS_GUARD_H
#define KVS_GUARD_H

#include "postgres.h"

#include "access/htup.h"
#include "commands/trigger.h"
#include "utils/rel.h"

/* The rules for rows that the owner of a table of one kind writes by plain SQL. */
typedef struct KvsGuardRules
{
	const char *prefix;			/* of the names of its tables */
	const char *hint;			/* for whoever is not the owner: what to use instead */
	HeapTuple	(*before_row) (TriggerData *data);	/* the row as it is to be */
	void		(*after_row) (TriggerData *data);	/* NULL: nothing */
	void		(*truncate) (Relation rel);	/* NULL: nothing */
} KvsGuardRules;

/* The first rules whose prefix fits are asked. */
extern void kvs_guard_add(const KvsGuardRules *rules);

#endif							/* KVS_GUARD_H */
