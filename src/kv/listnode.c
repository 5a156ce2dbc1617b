/*
 * listnode.c
 *		kv_list() in FROM as a node of the plan, which gives each entry as it finds it.
 *
 * The executor puts all that a function in FROM returns into a tuplestore before it gives out the
 * first row.  For a list that is a third of the cost (measured), and LIMIT saves nothing.  So the
 * planner's hook replaces a scan of kv_list() by a custom scan.  Its rows point into the pages of
 * the store, as those of an index scan do.
 *
 * It reads with the snapshot of the query, as the function does, and takes the time when it first
 * starts.  So an entry that expires while a statement reads the list over and over is there each
 * time, or never.  For a cursor that may go backward the rows are kept as they are given, as
 * Material does.
 *
 * Two cases are left to the function, which the node then calls as the executor would: a store that
 * only the executor can read (scan.c), and counting calls of functions.  The planner leaves to the
 * function all that asks for more than the six columns: ordinality, whole rows (which FOR UPDATE
 * and UPDATE ... FROM ask for too), several functions in one ROWS FROM.
 *
 * An open cursor over a list keeps the table open, as one over any table does.  Until it is closed,
 * the session cannot drop or truncate the store.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/stats.h"
#include "key/keyargs.h"
#include "kv/entry.h"
#include "kv/list.h"

typedef struct ListState
{
	CustomScanState css;		/* must be first */
	KvsForm		form;
	SetExprState *function;		/* the call, whose right to EXECUTE has been checked */
	MemoryContext arguments;	/* of the call; it resets that of the row before it begins */
	TimestampTz now;			/* what has expired by then is hidden; 0: not yet taken */
	bool		backward;		/* whoever reads may turn round */
	bool		started;
	bool		scanning;		/* "list" is open */
	bool		exhausted;		/* "list" has no more entries */
	KvsList		list;
	/* what the function gave, or what the list has given so far; NULL: nothing is kept */
	Tuplestorestate *rows;
	TupleTableSlot *stored;		/* a row of that */
	struct
	{
		int32		header;
		char		data[KVS_KEY_MAX_SIZE];
	}			key;			/* the text of the last row's key */
} ListState;

static set_rel_pathlist_hook_type previous_pathlist_hook = NULL;

/* ---- Execution ---- */

static TupleTableSlot *
give_row(ListState *state, const KvsRow *row)
{
	TupleTableSlot *slot = state->css.ss.ss_ScanTupleSlot;
	MemoryContext old;

	ExecClearTuple(slot);
	kvs_entry_fill_row(row, slot->tts_values, slot->tts_isnull);
	slot->tts_isnull[0] = false;
	if (state->form == KVS_FORM_TEXT)
	{
		int			size = row->key_size - 2;	/* without tag and terminator */

		SET_VARSIZE(&state->key, VARHDRSZ + size);
		memcpy(state->key.data, row->key + 1, size);
		slot->tts_values[0] = PointerGetDatum(&state->key);
	}
	else
	{
		old = MemoryContextSwitchTo(state->css.ss.ps.ps_ExprContext->ecxt_per_tuple_memory);
		slot->tts_values[0] = JsonbPGetDatum(kvs_keyjson_to_jsonb(row->key, row->key_size));
		MemoryContextSwitchTo(old);
	}
	return ExecStoreVirtualTuple(slot);
}

/* The next row of those that are kept, in the direction of the query; empty if there is none. */
static TupleTableSlot *
give_stored(ListState *state, bool forward)
{
	TupleTableSlot *slot = state->css.ss.ss_ScanTupleSlot;

	ExecClearTuple(slot);
	if (!tuplestore_gettupleslot(state->rows, forward, false, state->stored))
		return slot;
	slot_getallattrs(state->stored);
	memcpy(slot->tts_values, state->stored->tts_values, sizeof(Datum) * KVS_ENTRY_COLUMNS);
	memcpy(slot->tts_isnull, state->stored->tts_isnull, sizeof(bool) * KVS_ENTRY_COLUMNS);
	return ExecStoreVirtualTuple(slot);
}

/* The next row of a list of which all rows are kept; see ExecMaterial(). */
static TupleTableSlot *
give_kept(ListState *state)
{
	bool		forward = ScanDirectionIsForward(state->css.ss.ps.state->es_direction);
	TupleTableSlot *slot;
	KvsRow		row;

	/* the row that was given last is the last one that is kept: the one before it is wanted */
	if (!forward && state->scanning && !state->exhausted && tuplestore_ateof(state->rows) &&
		!tuplestore_advance(state->rows, false))
		return ExecClearTuple(state->css.ss.ss_ScanTupleSlot);
	slot = give_stored(state, forward);
	if (!TupIsNull(slot) || !forward || !state->scanning || state->exhausted)
		return slot;
	state->exhausted = !kvs_list_fetch(&state->list, &row);
	if (state->exhausted)
		return slot;
	slot = give_row(state, &row);
	tuplestore_puttupleslot(state->rows, slot);
	return slot;
}

static void
make_stored_slot(ListState *state)
{
	if (state->stored == NULL)
		state->stored = MakeSingleTupleTableSlot(state->css.ss.ss_ScanTupleSlot->tts_tupleDescriptor, &TTSOpsMinimalTuple);
}

/* Open the list, if it can be read directly. */
static bool
start_scan(ListState *state)
{
	LOCAL_FCINFO(fcinfo, KVS_LIST_ARGS);
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	MemoryContext old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	KvsList    *list = &state->list;
	const text *store;
	ListCell   *lc;
	int			i = 0;

	foreach(lc, state->function->args)
	{
		fcinfo->args[i].value = ExecEvalExpr((ExprState *) lfirst(lc), econtext, &fcinfo->args[i].isnull);
		i++;
	}
	kvs_list_read_args(fcinfo, state->form, list);
	store = kvs_args_text(fcinfo, KVS_LIST_STORE_ARG);
	MemoryContextSwitchTo(state->css.ss.ps.state->es_query_cxt);
	if (state->now == 0)
		state->now = GetCurrentTimestamp();
	kvs_scan_begin_with(&list->scan, store, state->now, state->css.ss.ps.state->es_snapshot);
	if (!kvs_scan_is_direct(&list->scan))
	{
		kvs_scan_end(&list->scan);
		MemoryContextSwitchTo(old);
		return false;
	}
	state->scanning = true;
	kvs_stats_add(list->scan.store->stat, KVS_COUNT_LISTS, 1);
	kvs_list_begin(&list->scan, &list->range);
	if (state->backward)
	{
		state->rows = tuplestore_begin_heap(true, false, work_mem);
		make_stored_slot(state);
	}
	MemoryContextSwitchTo(old);
	return true;
}

static void
call_function(ListState *state)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	TupleDesc	desc = state->css.ss.ss_ScanTupleSlot->tts_tupleDescriptor;

	state->rows = ExecMakeTableFunctionResult(state->function, econtext, state->arguments, desc, state->backward);
	make_stored_slot(state);
}

static TupleTableSlot *
next_row(ScanState *node)
{
	ListState  *state = (ListState *) node;
	KvsRow		row;

	if (unlikely(!state->started))
	{
		state->started = true;
		if (pgstat_track_functions >= TRACK_FUNC_ALL || !start_scan(state))
			call_function(state);
	}
	if (unlikely(state->rows != NULL))
		return give_kept(state);
	if (state->scanning && kvs_list_fetch(&state->list, &row))
		return give_row(state, &row);
	return ExecClearTuple(node->ss_ScanTupleSlot);
}

/* Rows of a function are never checked again: there is nothing to check them with. */
static bool
recheck_row(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

static TupleTableSlot *
exec_node(CustomScanState *node)
{
	return ExecScan(&node->ss, next_row, recheck_row);
}

static void
begin_node(CustomScanState *node, EState *estate, int eflags)
{
	ListState  *state = (ListState *) node;
	CustomScan *plan = (CustomScan *) node->ss.ps.plan;

	state->form = intVal(linitial(plan->custom_private));
	state->backward = (eflags & EXEC_FLAG_BACKWARD) != 0;
	state->function = ExecInitTableFunctionResult(linitial(plan->custom_exprs), node->ss.ps.ps_ExprContext, &node->ss.ps);
	state->arguments = AllocSetContextCreate(CurrentMemoryContext, "kv_list arguments", ALLOCSET_SMALL_SIZES);
}

static void
stop(ListState *state)
{
	ExecClearTuple(state->css.ss.ss_ScanTupleSlot);
	if (state->scanning)
		kvs_scan_end(&state->list.scan);
	state->scanning = false;
	if (state->stored != NULL)
		ExecClearTuple(state->stored);
	if (state->rows != NULL)
		tuplestore_end(state->rows);
	state->rows = NULL;
	state->started = state->exhausted = false;
}

static void
rescan_node(CustomScanState *node)
{
	ListState  *state = (ListState *) node;

	/* what is kept is good as long as the arguments are the same */
	if (state->rows == NULL || node->ss.ps.chgParam != NULL)
		stop(state);
	else
		tuplestore_rescan(state->rows);
	ExecScanReScan(&node->ss);
}

static void
end_node(CustomScanState *node)
{
	ListState  *state = (ListState *) node;

	stop(state);
	if (state->stored != NULL)
		ExecDropSingleTupleTableSlot(state->stored);
}

static Node *create_state(CustomScan *plan);

static const CustomScanMethods scan_methods = {
	.CustomName = "kv_list",
	.CreateCustomScanState = create_state
};

static const CustomExecMethods exec_methods = {
	.CustomName = "kv_list",
	.BeginCustomScan = begin_node,
	.ExecCustomScan = exec_node,
	.EndCustomScan = end_node,
	.ReScanCustomScan = rescan_node
};

static Node *
create_state(CustomScan *plan)
{
	ListState  *state = (ListState *) newNode(sizeof(ListState), T_CustomScanState);

	state->css.methods = &exec_methods;
	return (Node *) state;
}

/* ---- Planning ---- */

/* The six columns of the scan, as the query's Vars name them. */
static List *
make_columns(Index relid, TupleDesc desc)
{
	List	   *columns = NIL;

	for (AttrNumber i = 1; i <= KVS_ENTRY_COLUMNS; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i - 1);
		Var		   *var = makeVar(relid, i, attr->atttypid, attr->atttypmod, attr->attcollation, 0);

		columns = lappend(columns, makeTargetEntry((Expr *) var, i, NULL, false));
	}
	return columns;
}

static Plan *
make_plan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses, List *custom_plans)
{
	CustomScan *plan = makeNode(CustomScan);
	FuncExpr   *call = linitial(path->custom_private);
	TupleDesc	desc;

	get_expr_result_type((Node *) call, NULL, &desc);
	plan->scan.plan.targetlist = tlist;
	plan->scan.plan.qual = extract_actual_clauses(clauses, false);
	plan->flags = path->flags;
	plan->custom_exprs = list_make1(call);
	plan->custom_private = list_make1(lsecond(path->custom_private));
	plan->custom_scan_tlist = make_columns(rel->relid, desc);
	plan->methods = &scan_methods;
	return &plan->scan.plan;
}

static const CustomPathMethods path_methods = {
	.CustomName = "kv_list",
	.PlanCustomPath = make_plan
};

/*
 * Is this a call of kv_list(), and of which form?  By its symbol: names and OIDs change.  Volatile
 * arguments are for the function: it is called once, while the node reads them at each rescan.
 */
static bool
is_list_call(const RangeTblEntry *rte, FuncExpr **call, KvsForm *form)
{
	RangeTblFunction *function;
	FmgrInfo	info;

	if (rte->rtekind != RTE_FUNCTION || rte->funcordinality || list_length(rte->functions) != 1)
		return false;
	function = linitial(rte->functions);
	*call = (FuncExpr *) function->funcexpr;
	if (!IsA(*call, FuncExpr) || !(*call)->funcretset || (*call)->funcresulttype != RECORDOID ||
		list_length((*call)->args) != KVS_LIST_ARGS || function->funccolcount != KVS_ENTRY_COLUMNS ||
		contain_volatile_functions((Node *) (*call)->args))
		return false;
	fmgr_info((*call)->funcid, &info);
	*form = info.fn_addr == kvstore_list ? KVS_FORM_TEXT : KVS_FORM_PATH;
	return info.fn_addr == kvstore_list || info.fn_addr == kvstore_list_path;
}

/* Does the query want the row as one value? */
static bool
wants_whole_row(RelOptInfo *rel)
{
	Bitmapset  *columns = NULL;
	ListCell   *lc;

	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &columns);
	foreach(lc, rel->baserestrictinfo)
		pull_varattnos((Node *) lfirst_node(RestrictInfo, lc)->clause, rel->relid, &columns);
	return bms_is_member(InvalidAttrNumber - FirstLowInvalidHeapAttributeNumber, columns);
}

static void
replace_function_scan(RelOptInfo *rel, FuncExpr *call, KvsForm form)
{
	Path	   *function_scan = linitial(rel->pathlist);
	CustomPath *path = makeNode(CustomPath);

	path->path = *function_scan;
	path->path.type = T_CustomPath;
	path->path.pathtype = T_CustomScan;
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION | CUSTOMPATH_SUPPORT_BACKWARD_SCAN;
	path->custom_private = list_make2(call, makeInteger(form));
	path->methods = &path_methods;
	rel->pathlist = list_make1(path);
}

static void
plan_list(PlannerInfo *root, RelOptInfo *rel, Index relid, RangeTblEntry *rte)
{
	FuncExpr   *call;
	KvsForm		form;

	if (previous_pathlist_hook)
		previous_pathlist_hook(root, rel, relid, rte);
	if (is_list_call(rte, &call, &form) && list_length(rel->pathlist) == 1 &&
		((Path *) linitial(rel->pathlist))->pathtype == T_FunctionScan && !wants_whole_row(rel))
		replace_function_scan(rel, call, form);
}

void
kvs_listnode_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
	previous_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = plan_list;
}
