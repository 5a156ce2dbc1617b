/*
 * guard.c
 *		The trigger on every store and queue, for rows that are not written through our functions.
 *
 * The right to write a table is also the right to write it by plain SQL.  There nothing would give
 * the rows their versionstamps, and a compare-and-set would be deceived.  So only the owner and a
 * superuser may write it so: to repair, to restore, to copy.  Columns that they leave to us are
 * filled in, by rules for each kind of table (storeguard.c, queueguard.c).
 *
 * Our own statements run without it (plan.c).  The trigger is ENABLE ALWAYS, so neither
 * session_replication_role nor a subscription goes round it.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "table/catalog.h"
#include "table/guard.h"

/* Queues, dead letters, stores. */
#define MAX_RULES	3

static const KvsGuardRules *all_rules[MAX_RULES];
static int	nrules = 0;

void
kvs_guard_add(const KvsGuardRules *rules)
{
	Assert(nrules < MAX_RULES);
	all_rules[nrules++] = rules;
}

/*
 * NULL: anybody may put the trigger on a table of their own, and move a store out of the schema;
 * that is none of ours.
 */
static const KvsGuardRules *
find_rules(Relation rel)
{
	if (RelationGetNamespace(rel) != kvs_catalog_get()->data_schema)
		return NULL;
	for (int i = 0; i < nrules; i++)
		if (strncmp(RelationGetRelationName(rel), all_rules[i]->prefix, strlen(all_rules[i]->prefix)) == 0)
			return all_rules[i];
	return NULL;
}

static void
check_owner(Relation rel, const KvsGuardRules *rules)
{
	if (!kvs_compat_owns_table(RelationGetRelid(rel), GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only the owner may write to table \"%s\" directly",
						quote_qualified_identifier("kvstore", RelationGetRelationName(rel))),
				 errhint("%s", rules->hint)));
}

static HeapTuple
guard_row(TriggerData *data, const KvsGuardRules *rules)
{
	if (rules == NULL)
		return TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple;
	check_owner(data->tg_relation, rules);
	return rules->before_row(data);
}

PG_FUNCTION_INFO_V1(kvstore_guard);
Datum
kvstore_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	const KvsGuardRules *rules;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		(!TRIGGER_FIRED_BEFORE(data->tg_event) && !(TRIGGER_FIRED_AFTER(data->tg_event) && TRIGGER_FIRED_FOR_ROW(data->tg_event))))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("kvstore.guard() must be called as a BEFORE trigger or for each row")));
	rules = find_rules(data->tg_relation);
	if (TRIGGER_FIRED_BEFORE(data->tg_event) && TRIGGER_FIRED_FOR_ROW(data->tg_event))
		return PointerGetDatum(guard_row(data, rules));
	if (TRIGGER_FIRED_AFTER(data->tg_event))
	{
		if (rules != NULL && rules->after_row != NULL)
			rules->after_row(data);
	}
	else if (rules != NULL)
	{
		check_owner(data->tg_relation, rules);
		if (rules->truncate != NULL)
			rules->truncate(data->tg_relation);
	}
	return PointerGetDatum(NULL);
}
