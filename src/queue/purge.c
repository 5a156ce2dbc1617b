/*
 * purge.c
 *		SQL functions that delete messages: kv_purge_queue and kv_cancel.
 *
 * Both need DELETE and nothing else.  But a DELETE statement with a WHERE clause needs SELECT, too,
 * and one without waits for every session that is just acknowledging a message.  So rows of a plain
 * table are deleted by the table access method.  If the table has triggers or constraints of the
 * owner's, a statement deletes them.  It waits, and for kv_cancel it needs SELECT.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "base/args.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/progress.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "base/subxact.h"
#include "lease/queuexact.h"
#include "message/message.h"
#include "message/reader.h"
#include "table/plan.h"
#include "table/queuecatalog.h"
#include "table/queueplan.h"

static void
check_delete(Relation rel)
{
	AclResult	result = pg_class_aclcheck(RelationGetRelid(rel), GetUserId(), ACL_DELETE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_TABLE, RelationGetRelationName(rel));
	CheckCmdReplicaIdentity(rel, CMD_DELETE);
}

/* ---- Purge ---- */

static void
note_removed(KvsQueue *queue, TupleTableSlot *slot)
{
	KvsMessageRef row = {0};

	kvs_reader_describe(queue, slot, &row);
	kvs_queuexact_note_removed(queue, &row);
}

/*
 * One pass over the rows that are there now, at every isolation level.  *changed: rows were changed
 * meanwhile, so another pass may find their new versions.
 */
static int64
purge_pass(KvsQueue *queue, Relation rel, bool *changed)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int64		removed = 0;

	*changed = false;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		switch (kvs_messageremove_remove(rel, slot, false))
		{
			case KVS_REMOVED:
				note_removed(queue, slot);
				removed++;
				kvs_progress_advance();
				break;
			case KVS_REMOVAL_CHANGED:
				*changed = true;
				break;
			case KVS_REMOVAL_GONE:
			/* being acknowledged, or put back: that is for its consumer to finish */
			case KVS_REMOVAL_BUSY:
				break;
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
	return removed;
}

/*
 * A statement does not tell which rows it has deleted: that would take the right to SELECT.  So the
 * rows of leased messages are looked for.  A message that is just being sent has no row yet that
 * could have been deleted.
 */
static void
note_leased_removed(KvsQueue *queue, Relation rel)
{
	KvsStuckError errors[KVS_STUCK_ERRORS];
	KvsLeaseInfo *leases = NULL;
	KvsReader	reader;
	KvsQueueSlot *slot = kvs_shared == NULL ? NULL : kvs_queueslot_lock_existing(queue);
	int			count;

	if (slot == NULL)
		return;
	LWLockRelease(slot->lock);
	count = kvs_leaselook_list(queue->slot, &leases, errors);
	kvs_reader_begin(&reader, queue, rel);
	for (int i = 0; i < count; i++)
	{
		KvsMessageRef message = leases[i].message;

		CHECK_FOR_INTERRUPTS();
		if (leases[i].relid == queue->relid && !kvs_reader_fetch(&reader, &message) &&
			!kvs_reader_is_coming(&reader, &message))
			kvs_queuexact_note_removed(queue, &message);
	}
	kvs_reader_end(&reader);
	if (leases != NULL)
		pfree(leases);
}

static int64
purge_by_statement(KvsQueue *queue, Relation rel)
{
	int64		removed;

	kvs_queuexact_note_any_removed(queue);
	SPI_connect();
	removed = kvs_plan_execute(kvs_queue_get_plan(queue, KVS_QUEUE_PLAN_PURGE, "DELETE FROM kvstore.q_%s", 0, NULL),
							   NULL, queue->relid, NULL, NULL);
	SPI_finish();
	note_leased_removed(queue, rel);
	return removed;
}

static int64
purge(KvsQueue *queue, Relation rel)
{
	int64		removed = 0;
	bool		changed = true;

	kvs_queue_note_removal(queue->relid);
	if (!queue->plain)
		return purge_by_statement(queue, rel);
	check_delete(rel);
	while (changed)
		removed += purge_pass(queue, rel, &changed);
	return removed;
}

/* kv_purge_queue(queue) returns bigint: how many messages were deleted, leased ones too */
PG_FUNCTION_INFO_V1(kvstore_purge_queue);
Datum
kvstore_purge_queue(PG_FUNCTION_ARGS)
{
	Relation	rel;
	KvsQueue   *queue;
	int64		removed;

	PreventCommandIfReadOnly("kv_purge_queue()");
	queue = kvs_queue_open(kvs_args_text(fcinfo, 0), RowExclusiveLock, &rel);
	kvs_progress_begin(KVS_COMMAND_PURGE_QUEUE, queue->relid, -1);
	removed = purge(queue, rel);
	kvs_queuexact_note_count(queue, -removed);
	kvs_stats_add(queue->stat, KVS_COUNT_QUEUE_PURGED, removed);
	kvs_progress_end();
	table_close(rel, NoLock);
	PG_RETURN_INT64(removed);
}

/* ---- Cancel ---- */

static bool
cancel_by_statement(KvsQueue *queue, int64 id)
{
	static const Oid types[] = {INT8OID};
	ParamListInfo params;
	uint64		removed;

	SPI_connect();
	params = makeParamList(1);
	kvs_plan_set_param(params, 0, INT8OID, Int64GetDatum(id), false);
	removed = kvs_plan_execute(kvs_queue_get_plan(queue, KVS_QUEUE_PLAN_CANCEL,
													   "DELETE FROM kvstore.q_%s WHERE id OPERATOR(pg_catalog.=) $1", 1, types),
									params, queue->relid, NULL, NULL);
	SPI_finish();
	return removed > 0;
}

static bool
cancel_by_place(KvsQueue *queue, Relation rel, int64 id, TupleTableSlot *slot)
{
	KvsRemoval	removal;

	do
	{
		CHECK_FOR_INTERRUPTS();
		removal = kvs_messageremove_remove(rel, slot, true);
	} while (removal == KVS_REMOVAL_CHANGED &&
			 kvs_messageremove_find(rel, queue->id_index, F_INT8EQ, Int64GetDatum(id), slot));
	CommandCounterIncrement();
	return removal == KVS_REMOVED;
}

typedef struct Cancel
{
	KvsQueue   *queue;
	Relation	rel;
	int64		id;
	TupleTableSlot *slot;
	KvsMessageRef row;
	bool		done;
} Cancel;

static void
remove_it(Cancel *cancel)
{
	cancel->done = cancel->queue->plain ? cancel_by_place(cancel->queue, cancel->rel, cancel->id, cancel->slot) :
		cancel_by_statement(cancel->queue, cancel->id);
}

/*
 * The queue has no slot, or there is no room to say that nobody may lease the message.  So it is
 * deleted first, and whoever leases it from then on sees that.  We see a consumer that has leased
 * it before, and it keeps the message.
 */
static bool
remove_unmarked(void *arg)
{
	Cancel	   *cancel = arg;

	kvs_queuexact_note_removed(cancel->queue, &cancel->row);
	remove_it(cancel);
	if (cancel->done && kvs_leaselook_is_known(cancel->queue, &cancel->row))
		cancel->done = false;
	return cancel->done;
}

/* Nobody may lease it from now on: its consumer would work for nothing. */
static void
remove_marked(Cancel *cancel)
{
	KvsPosition position = {cancel->row.ready_at, cancel->row.id};

	remove_it(cancel);
	/*
	 * it stays, because of a trigger or our own snapshot: others may have passed over it meanwhile
	 */
	if (!cancel->done)
		kvs_queuexact_note_arrival(cancel->queue, cancel->row.priority, position, position, 0);
}

static bool
cancel(KvsQueue *queue, Relation rel, int64 id)
{
	Cancel		cancel = {.queue = queue, .rel = rel, .id = id, .slot = table_slot_create(rel, NULL)};

	if (kvs_messageremove_find(rel, queue->id_index, F_INT8EQ, Int64GetDatum(id), cancel.slot))
	{
		KvsMark		mark;

		kvs_reader_describe(queue, cancel.slot, &cancel.row);
		mark = kvs_shared == NULL ? KVS_MARK_DONE : kvs_queuexact_mark(queue, &cancel.row);
		kvs_fault_stop(KVS_FAULT_CANCEL);
		if (mark == KVS_MARK_DONE)
			remove_marked(&cancel);
		else if (mark == KVS_MARK_NONE)
			kvs_subxact_run(remove_unmarked, &cancel);
	}
	if (cancel.done)
	{
		kvs_queuexact_note_count(queue, -1);
		kvs_stats_add(queue->stat, KVS_COUNT_QUEUE_CANCELLED, 1);
	}
	ExecDropSingleTupleTableSlot(cancel.slot);
	return cancel.done;
}

/* kv_cancel(queue, id) returns boolean: false if the message is leased or gone */
PG_FUNCTION_INFO_V1(kvstore_cancel);
Datum
kvstore_cancel(PG_FUNCTION_ARGS)
{
	Relation	rel;
	KvsQueue   *queue;
	int64		id;
	bool		result;

	if (PG_ARGISNULL(1))
		kvs_args_report_null("id");
	id = PG_GETARG_INT64(1);
	PreventCommandIfReadOnly("kv_cancel()");
	queue = kvs_queue_open(kvs_args_text(fcinfo, 0), RowExclusiveLock, &rel);
	check_delete(rel);
	result = cancel(queue, rel, id);
	table_close(rel, NoLock);
	PG_RETURN_BOOL(result);
}
