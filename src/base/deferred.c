/*
 * deferred.c
 *		Constraint triggers of a table that wait for the commit.
 *
 * The server queues no trigger for the commit in a security-restricted operation: the statement
 * fails.  So a statement that runs as the owner of a table makes them fire at once.  Only the
 * constraints of that table are named: the transaction may be a consumer's, with deferred
 * constraints of its own.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_constraint.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/reltrigger.h"
#include "utils/syscache.h"

#include "base/deferred.h"

static void
append_constraint(StringInfo names, Oid constraint)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Form_pg_constraint form;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	appendStringInfo(names, "%s%s", names->len > 0 ? ", " : "",
					 quote_qualified_identifier(get_namespace_name(form->connamespace), NameStr(form->conname)));
	ReleaseSysCache(tuple);
}

void
kvs_deferred_set(Relation rel, bool at_once)
{
	const TriggerDesc *desc = rel->trigdesc;
	StringInfoData names;

	if (likely(desc == NULL))
		return;
	initStringInfo(&names);
	for (int i = 0; i < desc->numtriggers; i++)
		if (desc->triggers[i].tginitdeferred)
			append_constraint(&names, desc->triggers[i].tgconstraint);
	if (names.len > 0)
	{
		SPI_connect();
		(void) SPI_execute(psprintf("SET CONSTRAINTS %s %s", names.data, at_once ? "IMMEDIATE" : "DEFERRED"), false, 0);
		SPI_finish();
	}
	pfree(names.data);
}
