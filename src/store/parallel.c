/*
 * parallel.c
 *		Queries that read stores in parallel, as the policies allow.
 *
 * A function that reads a store is as safe in a parallel worker as a scan of its table.  Under
 * row-level security such a scan runs functions of the table's owner, and the planner asks of each
 * whether it is PARALLEL SAFE.  It does not see what runs inside our functions.  A policy that
 * writes, or begins a subtransaction, would be an error in a worker.  One that reads what its
 * session keeps in memory would find nothing there, and show or hide the wrong rows.
 *
 * So a hook of the planner finds which stores a query reads.  If one has policies that are not all
 * PARALLEL SAFE, the query gets a plan without workers, as one that reads the table itself would.
 * The policies of all roles count: a plan is kept when the role changes.  Such a plan, and a
 * parallel one, is made anew when the stores change, or their policies.  A store whose name is not
 * known yet might be any: no workers.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/planner.h"
#include "rewrite/rowsecurity.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "store/parallel.h"
#include "table/catalog.h"
#include "table/shape.h"

static planner_hook_type previous_planner = NULL;

/* ---- Policies ---- */

static bool
is_safe(const RowSecurityPolicy *policy)
{
	Query	   *query;

	if (policy->qual == NULL || (policy->polcmd != '*' && policy->polcmd != ACL_SELECT_CHR))
		return true;
	query = makeNode(Query);
	query->commandType = CMD_SELECT;
	query->targetList = list_make1(makeTargetEntry(policy->qual, 1, NULL, false));
	return max_parallel_hazard(query) == PROPARALLEL_SAFE;
}

static bool
policies_are_safe(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	bool		safe = true;
	ListCell   *lc;

	if (rel == NULL)
		return true;
	if (rel->rd_rsdesc != NULL)
		foreach(lc, rel->rd_rsdesc->policies)
			safe = safe && is_safe((const RowSecurityPolicy *) lfirst(lc));
	relation_close(rel, AccessShareLock);
	return safe;
}

/* ---- Functions that read a store ---- */

/* The index of the argument that names the store; -1: it is none of our functions that read one. */
static int
find_store_argument(Oid function, bool *snapshots)
{
	HeapTuple	tuple;
	Form_pg_proc form;
	char	  **names = NULL;
	int			count = 0;
	int			result = -1;

	if (function < FirstNormalObjectId)
		return -1;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return -1;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	*snapshots = strncmp(NameStr(form->proname), "kv_snapshot_", 12) == 0;
	if (strncmp(NameStr(form->proname), "kv_", 3) == 0 && form->proparallel == PROPARALLEL_SAFE &&
		kvs_catalog_is_installed() && form->pronamespace == kvs_catalog_get()->function_schema)
	{
		bool		no_modes;
		bool		no_names;
		Datum		modes = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proargmodes, &no_modes);
		Datum		all = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proargnames, &no_names);

		if (!no_names)
			count = get_func_input_arg_names(all, no_modes ? (Datum) 0 : modes, &names);
	}
	for (int i = 0; i < count; i++)
		if (names[i] != NULL && strcmp(names[i], "store") == 0)
			result = i;
	ReleaseSysCache(tuple);
	return result;
}

/* The argument of a call with this index, as it was written; NULL: it was left out. */
static Node *
get_argument(const FuncExpr *call, int place)
{
	int			i = 0;
	ListCell   *lc;

	foreach(lc, call->args)
	{
		Node	   *arg = lfirst(lc);
		int			number = IsA(arg, NamedArgExpr) ? ((NamedArgExpr *) arg)->argnumber : i;

		if (number == place)
			return IsA(arg, NamedArgExpr) ? (Node *) ((NamedArgExpr *) arg)->arg : arg;
		i++;
	}
	return NULL;
}

/* Does this call forbid workers?  If not, the table that it reads is added to the list. */
static bool
forbids_workers(const FuncExpr *call, List **relids)
{
	bool		snapshots;
	int			place = find_store_argument(call->funcid, &snapshots);
	const char *name = "default";
	Node	   *arg;
	Oid			relid;

	if (place < 0)
		return false;
	arg = get_argument(call, place);
	if (arg != NULL)
	{
		if (!IsA(arg, Const) || ((Const *) arg)->consttype != TEXTOID)
			return true;
		if (((Const *) arg)->constisnull)
			return false;		/* an error, wherever it is raised */
		name = TextDatumGetCString(((Const *) arg)->constvalue);
	}
	if (strlen(name) > KVS_NAME_MAX)
		return false;
	relid = kvs_catalog_find_table(snapshots ? "p_" : "s_", name);
	if (!OidIsValid(relid))
		return false;
	*relids = list_append_unique_oid(*relids, relid);
	return kvs_shape_has_row_security(relid) && !policies_are_safe(relid);
}

static bool
look_for_calls(Node *node, void *relids)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && forbids_workers((FuncExpr *) node, (List **) relids))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, look_for_calls, relids, 0);
	return expression_tree_walker(node, look_for_calls, relids);
}

/* ---- The hook ---- */

static PlannedStmt *
plan_query(Query *parse, const char *query_string, int cursor_options, ParamListInfo bound_params)
{
	List	   *relids = NIL;
	bool		forbidden = (cursor_options & CURSOR_OPT_PARALLEL_OK) != 0 && max_parallel_workers_per_gather > 0 &&
		look_for_calls((Node *) parse, &relids);
	PlannedStmt *result;

	if (forbidden)
		cursor_options &= ~CURSOR_OPT_PARALLEL_OK;
	if (previous_planner)
		result = previous_planner(parse, query_string, cursor_options, bound_params);
	else
		result = standard_planner(parse, query_string, cursor_options, bound_params);
	if (result->parallelModeNeeded || forbidden)
		result->relationOids = list_concat(result->relationOids, relids);
	return result;
}

void
kvs_parallel_init(void)
{
	previous_planner = planner_hook;
	planner_hook = plan_query;
}
