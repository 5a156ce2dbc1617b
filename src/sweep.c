/*
 * sweep.c
 *		Removing expired rows: by the worker in steps, by hand in one transaction.
 *
 * A group of blocks is read with a snapshot taken after its slot was reset (expiry.c), and each row that is expired in it is deleted through the
 * table access method, without waiting.  That is also the check that it is still expired: a row version does not change, the
 * snapshot keeps it from being pruned and its place from being used again, and the deletion succeeds only if this very version is still the latest
 * and nobody has it locked.  Renewed meanwhile: nothing happens, and the renewal has noted itself.  Locked: the group is due again
 * after KVS_EXPIRY_RETRY.  No index is touched, and no code of a user runs.
 *
 * A table with triggers on DELETE other than our guard (a foreign key that references it has some) gets real DELETE statements, each on a row that was locked
 * before.  Everything happens as the table's owner in a security-restricted operation with a safe search_path, also by hand:
 * a superuser who calls kv_maintain() must not run what somebody put on his own table.  Constraints that can be deferred are checked at once
 * in the worker: at commit they would run as the worker.  A trigger that keeps the row is asked again after STUBBORN_RETRY.
 *
 * By hand one needs DELETE on a table, else it is passed over.  A table whose trigger raises an ERROR becomes a WARNING and does not stop the others.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "expiry.h"
#include "guard.h"
#include "stamp.h"
#include "stats.h"
#include "sweep.h"
#include "testing.h"

/* Blocks that a pass over a whole table reads in one transaction; a multiple of KVS_EXPIRY_GROUP. */
#define PASS_BLOCKS			128

/* When to ask a trigger again that kept an expired row, in milliseconds. */
#define STUBBORN_RETRY		(60 * 1000)

/* Columns of a store. */
enum
{
	COLUMN_KEY = 1,
	COLUMN_VERSIONSTAMP = 5,
	COLUMN_EXPIRES_AT = 6
};

/* One table being swept. */
typedef struct Sweep
{
	Relation	rel;
	TimestampTz now;
	int64		limit;			/* rows that may still be removed */
	int64		removed;
	int64		highest;		/* versionstamp of all rows read */
	bool		by_statement;	/* the table has triggers that must run */
	SPIPlanPtr	plan;			/* for them; there is an SPI connection then */
	TupleTableSlot *slot;
	Snapshot	snapshot;
} Sweep;

/* ---- Opening a table, and acting as its owner ---- */

/* Has the table triggers on DELETE other than our guard? */
static bool
has_other_triggers(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (TRIGGER_FOR_DELETE(trigger->tgtype) && trigger->tgenabled != TRIGGER_DISABLED &&
			strcmp(trigger->tgname, KVS_GUARD_TRIGGER) != 0)
			return true;
	}
	return false;
}

/* Once nobody can have a note for it that is yet to be published. */
void
kvs_sweep_forget_table(Oid relid)
{
	Relation	rel;
	bool		is_store;

	/* Conflicts with every writer, and with who makes the table. */
	if (!ConditionalLockRelationOid(relid, ShareRowExclusiveLock))
	{
		kvs_expiry_put_aside(relid, GetCurrentTimestamp(), true);
		return;
	}
	rel = kvs_catalog_is_installed() ? try_relation_open(relid, NoLock) : NULL;
	is_store = rel != NULL && kvs_catalog_is_store(rel);
	if (rel != NULL)
		relation_close(rel, NoLock);
	if (!is_store)
		kvs_expiry_forget_table(MyDatabaseId, relid);
	UnlockRelationOid(relid, ShareRowExclusiveLock);
}

/* Open a store without waiting; NULL, and why. */
static Relation
open_store(Oid relid, KvsSweepOutcome *outcome)
{
	Relation	rel;

	*outcome = KVS_SWEEP_LOCKED;
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		return NULL;
	rel = try_relation_open(relid, NoLock);
	if (rel != NULL && kvs_catalog_is_store(rel))
	{
		*outcome = KVS_SWEEP_DONE;
		return rel;
	}
	if (rel != NULL)
		relation_close(rel, NoLock);
	UnlockRelationOid(relid, RowExclusiveLock);
	*outcome = KVS_SWEEP_GONE;
	return NULL;
}

typedef struct Identity
{
	Oid			user;
	int			context;
	int			guc_level;
} Identity;

/* An ERROR restores the identity and the setting together with the transaction's state. */
static void
become_owner(Relation rel, Identity *saved)
{
	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(rel->rd_rel->relowner,
						   saved->context | SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
	saved->guc_level = NewGUCNestLevel();
	kvs_compat_restrict_search_path();
}

static void
become_oneself(const Identity *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->user, saved->context);
}

/* Sweep with this, as the owner; end_sweep() when done. */
static void
begin_sweep(Sweep *sweep, Relation rel, TimestampTz now, int64 limit)
{
	memset(sweep, 0, sizeof(Sweep));
	sweep->rel = rel;
	sweep->now = now;
	sweep->limit = limit;
	sweep->by_statement = has_other_triggers(rel);
	sweep->slot = table_slot_create(rel, NULL);
	if (sweep->by_statement)
		SPI_connect();
}

static void
end_sweep(Sweep *sweep)
{
	if (sweep->by_statement)
		SPI_finish();
	ExecDropSingleTupleTableSlot(sweep->slot);
	if (sweep->removed > 0)
		kvs_stats_add(kvs_stats_local(RelationGetRelid(sweep->rel)), KVS_COUNT_EXPIRED, sweep->removed);
}

/* ---- Removing a row ---- */

/* Delete a row that we have locked, so that the triggers of its table run.  False: one of them kept it. */
static bool
delete_by_statement(Sweep *sweep, ItemPointer tid)
{
	Oid			type = TIDOID;
	Datum		value = PointerGetDatum(tid);
	volatile int result = 0;

	if (sweep->plan == NULL)
	{
		char	   *sql = psprintf("DELETE FROM %s AS t WHERE t.ctid OPERATOR(pg_catalog.=) $1",
								   quote_qualified_identifier(get_namespace_name(RelationGetNamespace(sweep->rel)),
															  RelationGetRelationName(sweep->rel)));

		sweep->plan = SPI_prepare(sql, 1, &type);
		if (sweep->plan == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	}
	kvs_guard_let_pass(RelationGetRelid(sweep->rel));
	PG_TRY();
	{
		result = SPI_execute_plan(sweep->plan, &value, NULL, false, 0);
	}
	PG_FINALLY();
	{
		kvs_guard_end();
	}
	PG_END_TRY();
	if (result < 0)
		elog(ERROR, "could not sweep \"%s\": %s", RelationGetRelationName(sweep->rel), SPI_result_code_string(result));
	return SPI_processed > 0;
}

static void
note_deletion(Sweep *sweep)
{
	bool		isnull;
	Datum		datum = slot_getattr(sweep->slot, COLUMN_KEY, &isnull);
	struct varlena *key = PG_DETOAST_DATUM_PACKED(datum);

	kvs_stamp_note_deletion(RelationGetRelid(sweep->rel), VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	if (PointerGetDatum(key) != datum)
		pfree(key);
}

/* Remove the row in the slot, which has expired.  Returns when to look at it again, DT_NOEND if it is gone or was renewed. */
static TimestampTz
remove_row(Sweep *sweep)
{
	ItemPointerData tid = sweep->slot->tts_tid;
	TM_FailureData failure;
	TM_Result	result;

	kvs_testing_stop("found");
	if (sweep->by_statement)
	{
		TupleTableSlot *locked = table_slot_create(sweep->rel, NULL);

		result = table_tuple_lock(sweep->rel, &tid, sweep->snapshot, locked, GetCurrentCommandId(true),
								  LockTupleExclusive, LockWaitSkip, 0, &failure);
		ExecDropSingleTupleTableSlot(locked);
		if (result == TM_Ok && !delete_by_statement(sweep, &tid))
			return TimestampTzPlusMilliseconds(sweep->now, STUBBORN_RETRY);
	}
	else
		result = table_tuple_delete(sweep->rel, &tid, GetCurrentCommandId(true), sweep->snapshot, InvalidSnapshot,
									false, &failure, false);

	if (result == TM_BeingModified || result == TM_WouldBlock)
		return TimestampTzPlusMilliseconds(sweep->now, KVS_EXPIRY_RETRY);
	if (result != TM_Ok)
		return DT_NOEND;
	note_deletion(sweep);
	sweep->removed++;
	sweep->limit--;
	return DT_NOEND;
}

/* ---- Sweeping blocks ---- */

/*
 * Remove what has expired in a group of blocks.  Returns the earliest time at which one of its rows is due then: at once, if the limit
 * is reached.  The slots that cover the group must have been reset before.
 */
static TimestampTz
sweep_group(Sweep *sweep, BlockNumber block)
{
	TimestampTz left = DT_NOEND;
	ItemPointerData low;
	ItemPointerData high;
	TableScanDesc scan;

	kvs_testing_stop("reset");
	sweep->snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(sweep->snapshot);
	kvs_testing_stop("snapshot");
	ItemPointerSet(&low, block, FirstOffsetNumber);
	ItemPointerSet(&high, block + KVS_EXPIRY_GROUP - 1, MaxOffsetNumber);
	scan = table_beginscan_tidrange(sweep->rel, sweep->snapshot, &low, &high);
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, sweep->slot))
	{
		bool		isnull;
		TimestampTz when;

		CHECK_FOR_INTERRUPTS();
		when = DatumGetTimestampTz(slot_getattr(sweep->slot, COLUMN_EXPIRES_AT, &isnull));
		sweep->highest = Max(sweep->highest, DatumGetInt64(sweep->slot->tts_values[COLUMN_VERSIONSTAMP - 1]));
		if (isnull)
			continue;
		if (when <= sweep->now && sweep->limit > 0)
			when = remove_row(sweep);
		left = Min(left, when);
		if (left <= sweep->now)
			break;
	}
	table_endscan(scan);
	PopActiveSnapshot();
	UnregisterSnapshot(sweep->snapshot);
	kvs_testing_stop("scanned");
	return left;
}

/* Sweep the groups that are due. */
static void
sweep_groups(Sweep *sweep, const KvsExpiryWork *work)
{
	for (int i = 0; i < work->ngroups && sweep->limit > 0; i++)
	{
		KvsExpirySlot *slot = work->groups[i].slot;

		kvs_expiry_reset(slot);
		kvs_expiry_lower(slot, sweep_group(sweep, work->groups[i].block));
	}
}

/* Sweep a group in the course of a pass, and tell the map what is left there.  False: the limit was reached before its end. */
static bool
sweep_group_of_pass(Sweep *sweep, BlockNumber block)
{
	TimestampTz left = sweep_group(sweep, block);
	KvsExpirySlot *slot;

	if (left <= sweep->now)
		return false;
	if (left == DT_NOEND || !kvs_expiry_is_there())
		return true;
	slot = kvs_expiry_get_slot(RelationGetRelid(sweep->rel), block);
	if (slot == NULL)
		slot = kvs_expiry_database();
	if (slot != NULL)
		kvs_expiry_lower(slot, left);
	return true;
}

/* All numbers given from now on must be above those that are stored, whoever stored them. */
static void
raise_stamp(Sweep *sweep)
{
	if (sweep->highest > 0)
		kvs_stamp_raise(sweep->highest);
}

/* ---- Steps of the worker ---- */

/* A bit of a pass over the whole table.  Returns the blocks read. */
static int
continue_pass(Sweep *sweep, KvsExpiryTable *table)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(sweep->rel);
	BlockNumber start = kvs_expiry_pass_block(table);
	BlockNumber block;

	if (start == InvalidBlockNumber)
	{
		kvs_expiry_begin_pass(table);
		/* Rows added before that may be in new blocks. */
		nblocks = RelationGetNumberOfBlocks(sweep->rel);
		start = 0;
	}
	block = start;
	while (block < nblocks && block - start < PASS_BLOCKS && sweep_group_of_pass(sweep, block))
		block += KVS_EXPIRY_GROUP;
	kvs_expiry_advance_pass(table, block >= nblocks ? InvalidBlockNumber : block);
	return block - start;
}

void
kvs_sweep_step(const KvsExpiryWork *work, int64 limit, KvsSweepResult *result)
{
	Relation	rel = open_store(work->relid, &result->outcome);
	Identity	identity;
	Sweep		sweep;

	result->removed = result->pass_removed = 0;
	result->pass_blocks = 0;
	if (rel == NULL)
	{
		if (result->outcome == KVS_SWEEP_GONE)
			kvs_sweep_forget_table(work->relid);
		return;
	}
	become_owner(rel, &identity);
	begin_sweep(&sweep, rel, GetCurrentTimestamp(), limit);
	if (sweep.by_statement)
		SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);
	kvs_expiry_check_file(work->table, rel->rd_rel->relfilenode);
	sweep_groups(&sweep, work);
	result->removed = sweep.removed;
	if (work->whole && sweep.limit > 0)
		result->pass_blocks = continue_pass(&sweep, work->table);
	result->pass_removed = sweep.removed - result->removed;
	end_sweep(&sweep);
	become_oneself(&identity);
	raise_stamp(&sweep);
	result->removed = sweep.removed;
	relation_close(rel, NoLock);
}

/* ---- A whole table in one transaction ---- */

/*
 * Read the whole table, from where the last call of this session reached its limit: otherwise the calls of kv_sweep() that empty a large table would
 * read its beginning over and over.
 */
static void
sweep_whole(Sweep *sweep)
{
	static Oid	last_relid = InvalidOid;
	static BlockNumber last_block = 0;

	BlockNumber nblocks = RelationGetNumberOfBlocks(sweep->rel);
	BlockNumber start = RelationGetRelid(sweep->rel) == last_relid && last_block < nblocks ? last_block : 0;

	last_relid = RelationGetRelid(sweep->rel);
	last_block = 0;
	for (BlockNumber done = 0; done < nblocks; done += KVS_EXPIRY_GROUP)
	{
		BlockNumber ngroups = (nblocks + KVS_EXPIRY_GROUP - 1) / KVS_EXPIRY_GROUP;
		BlockNumber block = (start + done) / KVS_EXPIRY_GROUP % ngroups * KVS_EXPIRY_GROUP;

		if (!sweep_group_of_pass(sweep, block))
		{
			last_block = block;
			return;
		}
	}
}

void
kvs_sweep_table(Oid relid, int64 limit, KvsSweepResult *result)
{
	Relation	rel = open_store(relid, &result->outcome);
	Identity	identity;
	Sweep		sweep;

	result->removed = 0;
	if (rel == NULL)
		return;
	become_owner(rel, &identity);
	begin_sweep(&sweep, rel, GetCurrentTimestamp(), limit);
	sweep_whole(&sweep);
	end_sweep(&sweep);
	become_oneself(&identity);
	raise_stamp(&sweep);
	result->removed = sweep.removed;
	relation_close(rel, NoLock);
}

List *
kvs_sweep_list_stores(void)
{
	Relation	rel = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *result = NIL;

	ScanKeyInit(&key, Anum_pg_class_relnamespace, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(kvs_catalog_get()->data_schema));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		if (form->relkind == RELKIND_RELATION && strncmp(NameStr(form->relname), "s_", 2) == 0)
			result = lappend_oid(result, form->oid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* ---- By hand ---- */

/* What the map knows of a table; with "full", or without a map, all of it. */
static void
sweep_what_is_due(Sweep *sweep, bool full)
{
	Oid			relid = RelationGetRelid(sweep->rel);
	KvsExpiryTable *table = kvs_expiry_is_there() ? kvs_expiry_get_table(relid) : NULL;
	KvsExpiryWork *work;

	if (table == NULL)
	{
		sweep_whole(sweep);
		return;
	}
	work = palloc(sizeof(KvsExpiryWork));
	kvs_expiry_check_file(table, sweep->rel->rd_rel->relfilenode);
	while (!full && sweep->limit > 0 && kvs_expiry_find_work(relid, sweep->now, true, work))
	{
		full = work->whole;
		if (!full)
			sweep_groups(sweep, work);
	}
	pfree(work);
	if (full && sweep->limit > 0)
	{
		TimestampTz old = kvs_expiry_reset(kvs_expiry_whole(table));

		sweep_whole(sweep);
		if (sweep->limit == 0)
			kvs_expiry_lower(kvs_expiry_whole(table), old);
	}
}

/* Returns how many rows were removed. */
static int64
sweep_by_hand(Oid relid, bool full, int64 limit)
{
	KvsSweepOutcome outcome;
	Relation	rel;
	Identity	identity;
	Sweep		sweep;
	bool		is_missing = false;

	if (pg_class_aclcheck_ext(relid, GetUserId(), ACL_DELETE, &is_missing) != ACLCHECK_OK || is_missing)
		return 0;
	rel = open_store(relid, &outcome);
	if (rel == NULL)
		return 0;
	become_owner(rel, &identity);
	begin_sweep(&sweep, rel, kvs_testing_now(), limit);
	sweep_what_is_due(&sweep, full);
	end_sweep(&sweep);
	become_oneself(&identity);
	if (full)
		raise_stamp(&sweep);
	relation_close(rel, NoLock);
	return sweep.removed;
}

/* The same in a subtransaction: an ERROR, from a trigger of the table, becomes a WARNING. */
static int64
sweep_guarded(Oid relid, bool full, int64 limit)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile int64 removed = 0;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		removed = sweep_by_hand(relid, full, limit);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not sweep table %u: %s", relid, error->message)));
		FreeErrorData(error);
		removed = 0;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return removed;
}

static int64
sweep_all_by_hand(bool full, int64 limit)
{
	int64		removed = 0;
	ListCell   *lc;

	foreach(lc, kvs_sweep_list_stores())
	{
		if (removed >= limit)
			break;
		CHECK_FOR_INTERRUPTS();
		removed += sweep_guarded(lfirst_oid(lc), full, limit - removed);
	}
	return removed;
}

/* ---- SQL ---- */

/* kv_sweep(max_count) returns bigint: remove up to max_count expired entries of this database (NULL: all), return how many */
PG_FUNCTION_INFO_V1(kvstore_sweep);
Datum
kvstore_sweep(PG_FUNCTION_ARGS)
{
	int64		limit = PG_ARGISNULL(0) ? PG_INT64_MAX : PG_GETARG_INT64(0);

	if (limit < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must not be negative")));
	PreventCommandIfReadOnly("kv_sweep()");
	PreventCommandDuringRecovery("kv_sweep()");
	PG_RETURN_INT64(sweep_all_by_hand(false, limit));
}

/* kv_maintain() returns bigint: read all stores, remove what has expired, return how many entries that were */
PG_FUNCTION_INFO_V1(kvstore_maintain);
Datum
kvstore_maintain(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("kv_maintain()");
	PreventCommandDuringRecovery("kv_maintain()");
	PG_RETURN_INT64(sweep_all_by_hand(true, PG_INT64_MAX));
}
