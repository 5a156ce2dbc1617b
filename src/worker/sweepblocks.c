/*
 * sweepblocks.c
 *		Removing the expired rows of some blocks of a table.
 *
 * A group of blocks is read with a snapshot taken after its slot was reset (expiry.c).  Each
 * expired row in it is deleted through the table access method, without waiting.  That also checks
 * that it is still expired.  A row version does not change, and the snapshot keeps it from being
 * pruned and its place from being used again.  The deletion succeeds only if this very version is
 * still the latest and nobody has it locked.  Renewed meanwhile: nothing happens, and the renewal
 * has noted itself.  Locked: the group is due again after KVS_EXPIRY_RETRY.  No index is touched,
 * and no code of a user runs.
 *
 * A leased message stays: it belongs to its consumer until the lease ends.
 *
 * A table may have triggers on DELETE other than our guard (a foreign key that references it has
 * some).  It gets real DELETE statements, each on a row that was locked before.  Everything happens
 * as the table's owner in a security-restricted operation with a safe search_path.  That holds for
 * a manual sweep too: a superuser who calls kv_maintain() must not run with their rights what an
 * owner put on a table.  A trigger that keeps the row is asked again after STUBBORN_RETRY.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/fault.h"
#include "base/identity.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "base/subxact.h"
#include "expiry/expiry.h"
#include "kv/snapshot.h"
#include "lease/queuexact.h"
#include "message/reader.h"
#include "store/change.h"
#include "store/content.h"
#include "store/stamp.h"
#include "table/catalog.h"
#include "table/plan.h"
#include "table/replication.h"
#include "table/shape.h"
#include "worker/sweepblocks.h"

/* When to ask a trigger again that kept an expired row, in milliseconds. */
#define STUBBORN_RETRY		((int64) 60 * 1000)

/* ---- A table, and acting as its owner ---- */

/* Has the table triggers on DELETE other than our guard? */
static bool
has_other_triggers(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (TRIGGER_FOR_DELETE(trigger->tgtype) && trigger->tgenabled != TRIGGER_DISABLED &&
			!kvs_shape_is_guard(trigger->tgname))
			return true;
	}
	return false;
}

static TimestampTz remove_row(KvsSweep *sweep);
static TimestampTz remove_message(KvsSweep *sweep);

static const KvsSweepKind store_kind = {
	KVS_COLUMN_EXPIRES_AT + 1, true, KVS_COUNT_EXPIRED, KVS_COUNT_SWEPT, remove_row
};
static const KvsSweepKind snapshot_kind = {
	KVS_SNAPSHOT_EXPIRES_AT, false, KVS_COUNT_EXPIRED, KVS_COUNT_SWEPT, remove_row
};
static const KvsSweepKind queue_kind = {
	KVS_QUEUE_COLUMN_EXPIRES_AT + 1, false, KVS_COUNT_QUEUE_EXPIRED, -1, remove_message
};

/* NULL: it is nothing that is swept. */
static const KvsSweepKind *
find_kind(Relation rel)
{
	if (kvs_storecatalog_is_store(rel))
		return &store_kind;
	if (kvs_snapshot_is_store(rel))
		return &snapshot_kind;
	if (kvs_queue_is_named(rel) && kvs_queue_find(rel) != NULL)
		return &queue_kind;
	return NULL;
}

bool
kvs_sweepblocks_is_swept(Relation rel)
{
	return find_kind(rel) != NULL;
}

Relation
kvs_sweepblocks_open(KvsSweep *sweep, Oid relid, KvsSweepOutcome *outcome)
{
	Relation	rel;

	*outcome = KVS_SWEEP_LOCKED;
	if (!kvs_catalog_keep_extension() || !ConditionalLockRelationOid(relid, RowExclusiveLock))
		return NULL;
	memset(sweep, 0, sizeof(KvsSweep));
	rel = try_relation_open(relid, NoLock);
	sweep->kind = rel ? find_kind(rel) : NULL;
	if (sweep->kind == NULL)
		*outcome = KVS_SWEEP_GONE;
	else if (kvs_replication_brings(relid, false))
		*outcome = KVS_SWEEP_REPLICATED;
	else
	{
		*outcome = KVS_SWEEP_DONE;
		sweep->rel = rel;
		sweep->by_statement = has_other_triggers(rel);
		return rel;
	}
	if (rel != NULL)
		relation_close(rel, NoLock);
	UnlockRelationOid(relid, RowExclusiveLock);
	return NULL;
}

void
kvs_sweepblocks_begin(KvsSweep *sweep, TimestampTz now, int64 limit)
{
	sweep->now = now;
	sweep->limit = limit;
	sweep->queue = sweep->kind == &queue_kind ? kvs_queue_of(sweep->rel) : NULL;
	kvs_identity_become(sweep->rel->rd_rel->relowner, &sweep->caller);
	sweep->slot = table_slot_create(sweep->rel, NULL);
	if (sweep->kind->has_versionstamps)
		kvs_stamp_begin_survey(&sweep->numbers);
	if (sweep->by_statement)
		SPI_connect();
}

/* The worker, which comes again, says it as rarely as it tells of an ERROR. */
static void
take_survey(KvsSweep *sweep)
{
	kvs_stamp_end_survey(&sweep->numbers);
	if (sweep->numbers.beyond && (MyBackendType != B_BG_WORKER || kvs_expirydue_may_log(sweep->now)))
		kvs_stamp_warn(sweep->rel, true);
}

void
kvs_sweepblocks_end(KvsSweep *sweep)
{
	if (sweep->by_statement)
		SPI_finish();
	ExecDropSingleTupleTableSlot(sweep->slot);
	if (sweep->removed > 0)
		kvs_stats_add(kvs_stats_local(RelationGetRelid(sweep->rel)), sweep->kind->expired, sweep->removed);
	if (sweep->kind->swept >= 0)
		kvs_stats_add(kvs_stats_local(RelationGetRelid(sweep->rel)), sweep->kind->swept, 1);
	kvs_identity_restore(&sweep->caller);
	if (sweep->kind->has_versionstamps)
		take_survey(sweep);
	relation_close(sweep->rel, NoLock);
}

/* ---- Removing a row ---- */

static void
prepare_statement(KvsSweep *sweep)
{
	Oid			type = TIDOID;
	char	   *sql;

	if (sweep->plan != NULL)
		return;
	sql = psprintf("DELETE FROM %s AS t WHERE t.ctid OPERATOR(pg_catalog.=) $1",
				   quote_qualified_identifier(get_namespace_name(RelationGetNamespace(sweep->rel)),
											  RelationGetRelationName(sweep->rel)));
	sweep->plan = SPI_prepare(sql, 1, &type);
	if (sweep->plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
}

/*
 * Delete a row that we have locked, so that the triggers of its table run.  False: one of them kept
 * it.
 */
static bool
delete_by_statement(KvsSweep *sweep, ItemPointer tid)
{
	ParamListInfo params = makeParamList(1);
	uint64		deleted;

	kvs_plan_set_param(params, 0, TIDOID, PointerGetDatum(tid), false);
	deleted = kvs_plan_execute(sweep->plan, params, RelationGetRelid(sweep->rel), NULL, NULL);
	pfree(params);
	return deleted > 0;
}

static void
note_deletion(KvsSweep *sweep)
{
	bool		isnull;
	Datum		datum = slot_getattr(sweep->slot, KVS_COLUMN_KEY + 1, &isnull);
	struct varlena *key;
	int64		number;

	if (isnull)
		return;					/* nobody can have asked for it */
	key = PG_DETOAST_DATUM_PACKED(datum);
	number = kvs_stamp_delete(RelationGetRelid(sweep->rel), VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key),
							  DatumGetInt64(sweep->slot->tts_values[KVS_COLUMN_VERSIONSTAMP]), &sweep->number);
	kvs_change_note(RelationGetRelid(sweep->rel), KVS_FEED_EXPIRE, number, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	if (PointerGetDatum(key) != datum)
		pfree(key);
}

/* What became of a row of a table with triggers. */
typedef struct Deletion
{
	KvsSweep   *sweep;
	TM_Result	result;
	bool		kept;			/* by a trigger */
} Deletion;

static void
lock_and_delete(void *arg)
{
	Deletion   *deletion = arg;
	KvsSweep   *sweep = deletion->sweep;
	ItemPointerData tid = sweep->slot->tts_tid;
	TupleTableSlot *locked = table_slot_create(sweep->rel, NULL);
	TM_FailureData failure;

	deletion->result = table_tuple_lock(sweep->rel, &tid, sweep->snapshot, locked, GetCurrentCommandId(true),
										LockTupleExclusive, LockWaitSkip, 0, &failure);
	ExecDropSingleTupleTableSlot(locked);
	deletion->kept = deletion->result == TM_Ok && !delete_by_statement(sweep, &tid);
	if (deletion->result == TM_Ok && !deletion->kept && sweep->kind->has_versionstamps)
		note_deletion(sweep);
}

/* When to look at the row again, by what became of it. */
static TimestampTz
finish_row(KvsSweep *sweep, TM_Result result)
{
	if (result == TM_BeingModified || result == TM_WouldBlock)
		return TimestampTzPlusMilliseconds(sweep->now, KVS_EXPIRY_RETRY);
	if (result != TM_Ok)
		return DT_NOEND;
	sweep->removed++;
	sweep->limit--;
	return DT_NOEND;
}

/*
 * By a statement.  One row that fails must not keep all others: so where some have failed, each has
 * a subtransaction of its own.
 */
static TimestampTz
remove_by_statement(KvsSweep *sweep)
{
	Deletion	deletion = {.sweep = sweep};
	ErrorData  *error = NULL;
	TimestampTz until;

	if (!sweep->next_row())
	{
		sweep->limit = 0;
		return sweep->now;
	}
	prepare_statement(sweep);
	if (sweep->careful)
		error = kvs_subxact_try(lock_and_delete, &deletion, NULL);
	else
		lock_and_delete(&deletion);
	if (error != NULL)
	{
		until = sweep->fail_row(sweep->fail_arg, error);
		FreeErrorData(error);
		return until;
	}
	return deletion.kept ? TimestampTzPlusMilliseconds(sweep->now, STUBBORN_RETRY) : finish_row(sweep, deletion.result);
}

static TimestampTz
remove_row(KvsSweep *sweep)
{
	ItemPointerData tid = sweep->slot->tts_tid;
	TM_FailureData failure;
	TM_Result	result;

	kvs_fault_stop(KVS_FAULT_FOUND);
	if (sweep->by_statement)
		return remove_by_statement(sweep);
	result = table_tuple_delete(sweep->rel, &tid, GetCurrentCommandId(true), sweep->snapshot, InvalidSnapshot,
								false, &failure, false);
	if (result == TM_Ok && sweep->kind->has_versionstamps)
		note_deletion(sweep);
	return finish_row(sweep, result);
}

/*
 * The same for a message: not while a consumer has leased it, and nobody may lease it from now on.
 * A message that is given up is moved, not removed.
 */
static TimestampTz
remove_message(KvsSweep *sweep)
{
	KvsMessageRef ref = {0};
	int64		removed = sweep->removed;
	KvsMark		mark;
	TimestampTz left;

	kvs_reader_describe(sweep->queue, sweep->slot, &ref);
	if (ref.dying)
		return DT_NOEND;
	mark = kvs_shared == NULL ? KVS_MARK_NONE : kvs_queuexact_mark(sweep->queue, &ref);
	if (mark == KVS_MARK_HELD)
		return TimestampTzPlusMilliseconds(sweep->now, KVS_EXPIRY_RETRY);
	left = remove_row(sweep);
	if (sweep->removed > removed)
		kvs_queuexact_note_count(sweep->queue, -1);
	else if (mark == KVS_MARK_DONE)
		kvs_queuexact_cancel_ending(sweep->queue, ref.id);
	return left;
}

/* ---- Sweeping blocks ---- */

/*
 * Remove what has expired in a group of blocks.  Returns the earliest time at which one of its rows
 * is due then: at once, if the limit is reached.  The slots that cover the group must have been
 * reset before.
 */
static TimestampTz
sweep_group(KvsSweep *sweep, BlockNumber block)
{
	TimestampTz left = DT_NOEND;
	ItemPointerData low;
	ItemPointerData high;
	TableScanDesc scan;

	kvs_fault_stop(KVS_FAULT_RESET);
	sweep->snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(sweep->snapshot);
	kvs_fault_stop(KVS_FAULT_SNAPSHOT);
	ItemPointerSet(&low, block, FirstOffsetNumber);
	ItemPointerSet(&high, block + KVS_EXPIRY_GROUP - 1, MaxOffsetNumber);
	scan = table_beginscan_tidrange(sweep->rel, sweep->snapshot, &low, &high);
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, sweep->slot))
	{
		bool		isnull;
		TimestampTz when;

		CHECK_FOR_INTERRUPTS();
		when = DatumGetTimestampTz(slot_getattr(sweep->slot, sweep->kind->expires_at, &isnull));
		if (sweep->kind->has_versionstamps)
			kvs_stamp_survey(&sweep->numbers, DatumGetInt64(sweep->slot->tts_values[KVS_COLUMN_VERSIONSTAMP]));
		if (isnull)
			continue;
		if (when <= sweep->now && sweep->limit > 0)
			when = sweep->kind->remove(sweep);
		left = Min(left, when);
		if (left <= sweep->now)
			break;
	}
	table_endscan(scan);
	PopActiveSnapshot();
	UnregisterSnapshot(sweep->snapshot);
	kvs_fault_stop(KVS_FAULT_SCANNED);
	return left;
}

void
kvs_sweepblocks_groups(KvsSweep *sweep, const KvsExpiryWork *work)
{
	for (int i = 0; i < work->ngroups && sweep->limit > 0; i++)
	{
		KvsExpirySlot *slot = work->groups[i].slot;

		kvs_expiry_reset(slot);
		kvs_expiry_lower(slot, sweep_group(sweep, work->groups[i].block));
	}
}

bool
kvs_sweepblocks_group_of_pass(KvsSweep *sweep, BlockNumber block)
{
	TimestampTz left = sweep_group(sweep, block);
	KvsExpirySlot *slot;

	if (left <= sweep->now)
		return false;
	if (left == DT_NOEND || !kvs_expiry_is_there())
		return true;
	slot = kvs_expirymap_get_slot(RelationGetRelid(sweep->rel), block);
	if (slot == NULL)
		slot = kvs_expirymap_unmapped(RelationGetRelid(sweep->rel));
	if (slot != NULL)
		kvs_expiry_lower(slot, left);
	return true;
}

void
kvs_sweepblocks_whole(KvsSweep *sweep, BlockNumber *next)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(sweep->rel);
	BlockNumber start = *next < nblocks ? *next : 0;

	*next = 0;
	for (BlockNumber done = 0; done < nblocks; done += KVS_EXPIRY_GROUP)
	{
		BlockNumber ngroups = (nblocks + KVS_EXPIRY_GROUP - 1) / KVS_EXPIRY_GROUP;
		BlockNumber block = (start + done) / KVS_EXPIRY_GROUP % ngroups * KVS_EXPIRY_GROUP;

		if (!kvs_sweepblocks_group_of_pass(sweep, block))
		{
			*next = block;
			return;
		}
	}
}
