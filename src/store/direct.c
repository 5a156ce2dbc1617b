/*
 * direct.c
 *		Rows in, the short way: changing and locking a row that is there, without the executor.
 *
 * Starting and ending the executor is most of what a small write costs.  ON CONFLICT also writes a
 * second WAL record, to lock the row it then updates.  Nearly every write of a running application
 * changes a row that is there, in a table that has nothing but our columns.  For that case the row
 * is found by its key with a new snapshot (find.c).  It is replaced by table_tuple_update(), or
 * locked by table_tuple_lock().  These do all that concurrency asks for.  They wait for the
 * transaction that is writing the row, and tell when the version that we saw is not the latest.
 * READ COMMITTED then begins anew with a new snapshot, as the executor would go on with the new
 * version.
 *
 * All other cases are left to the statements of statement.c, with nothing written: REPEATABLE READ
 * whose row has changed (the executor raises 40001), a caller without the rights on the whole
 * table, and every table that needs the executor (KvsStore.plain).  An update is never lost: it
 * succeeds only on the version that it has read.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "expiry/expiry.h"
#include "store/direct.h"
#include "store/find.h"

bool
kvs_direct_is_possible(const KvsStore *store, AclMode rights)
{
	return store->plain && pg_class_aclmask(store->relid, GetUserId(), rights, ACLMASK_ALL) == rights;
}

/* The clock is read again, for we may have waited for the row since "now" was read. */
bool
kvs_direct_is_live(TupleTableSlot *row, TimestampTz now)
{
	TimestampTz expires_at;

	if (row->tts_isnull[KVS_COLUMN_EXPIRES_AT])
		return true;
	expires_at = DatumGetTimestampTz(row->tts_values[KVS_COLUMN_EXPIRES_AT]);
	return expires_at > now && expires_at > GetCurrentTimestamp();
}

/* What became of one attempt, and whether another may follow. */
static KvsDirect
judge(TM_Result result, bool *again)
{
	*again = false;
	if (result == TM_Ok)
		return KVS_DIRECT_DONE;
	*again = (result == TM_Updated || result == TM_Deleted) && !IsolationUsesXactSnapshot();
	return KVS_DIRECT_IMPOSSIBLE;
}

/*
 * An entry for the new version in the key index; other indexes, if there were any, would make the
 * table not plain.
 */
static void
insert_index_entry(KvsFinder *finder, TupleTableSlot *slot)
{
	/* the row map may have found the row without the index */
	kvs_find_open_index(finder);
	index_insert(finder->index, slot->tts_values, slot->tts_isnull, &slot->tts_tid, finder->rel, UNIQUE_CHECK_YES,
				 true, BuildIndexInfo(finder->index));
}

static TM_Result
replace(KvsFinder *finder, const Datum *values, const bool *nulls, bool wait)
{
	TupleTableSlot *new = MakeSingleTupleTableSlot(RelationGetDescr(finder->rel), &TTSOpsVirtual);
	TM_FailureData failure;
	LockTupleMode lockmode;
	KvsCompatUpdateIndexes update_indexes;
	TM_Result	result;

	memcpy(new->tts_values, values, sizeof(Datum) * KVS_COLUMNS);
	memcpy(new->tts_isnull, nulls, sizeof(bool) * KVS_COLUMNS);
	ExecStoreVirtualTuple(new);
	result = table_tuple_update(finder->rel, &finder->slot->tts_tid, new, GetCurrentCommandId(true),
								finder->snapshot, InvalidSnapshot, wait, &failure, &lockmode, &update_indexes);
	if (result == TM_Ok && kvs_compat_needs_index_entries(update_indexes))
		insert_index_entry(finder, new);
	if (result == TM_Ok && !nulls[KVS_COLUMNS - 1])
		kvs_expiry_note(RelationGetRelid(finder->rel), ItemPointerGetBlockNumber(&new->tts_tid),
						DatumGetTimestampTz(values[KVS_COLUMNS - 1]));
	ExecDropSingleTupleTableSlot(new);
	return result;
}

/* Lock the row that the finder has found, as it is and not an older version. */
static TM_Result
lock_row(KvsFinder *finder, bool exclusive)
{
	ItemPointerData tid = finder->slot->tts_tid;
	TM_FailureData failure;

	return table_tuple_lock(finder->rel, &tid, finder->snapshot, finder->slot, GetCurrentCommandId(false),
							exclusive ? LockTupleNoKeyExclusive : LockTupleShare, LockWaitBlock,
							TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS, &failure);
}

/* Have the row changed.  False: the callback does not want to. */
static bool
change_found(KvsFinder *finder, KvsChangeRow change, void *arg, bool wait, TM_Result *result)
{
	TupleTableSlot *old = finder->slot;
	Datum		values[KVS_COLUMNS];
	bool		nulls[KVS_COLUMNS];

	slot_getsomeattrs(old, KVS_COLUMNS);
	memcpy(values, old->tts_values, sizeof(values));
	memcpy(nulls, old->tts_isnull, sizeof(nulls));
	if (!change(old, values, nulls, arg))
		return false;
	*result = replace(finder, values, nulls, wait);
	return true;
}

/*
 * One attempt to change the row that the finder has found.  It first waits for whoever has locked
 * the row.  Then the callback is asked anew: the entry may have expired meanwhile.
 */
static KvsDirect
try_change(KvsFinder *finder, KvsChangeRow change, void *arg, bool *again)
{
	TM_Result	result;

	if (!change_found(finder, change, arg, false, &result))
		return KVS_DIRECT_REFUSED;
	if (unlikely(result == TM_BeingModified))
	{
		result = lock_row(finder, true);
		if (result == TM_Ok && !change_found(finder, change, arg, true, &result))
			return KVS_DIRECT_REFUSED;
	}
	return judge(result, again);
}

/* One attempt to lock it. */
static KvsDirect
try_lock(KvsFinder *finder, bool exclusive, KvsLockedRow locked, void *arg, bool *again)
{
	KvsDirect	result = judge(lock_row(finder, exclusive), again);

	if (result == KVS_DIRECT_DONE)
	{
		slot_getsomeattrs(finder->slot, KVS_COLUMNS);
		locked(finder->slot, arg);
	}
	return result;
}

static KvsDirect
try_delete(KvsFinder *finder, bool *again)
{
	TM_FailureData failure;

	return judge(table_tuple_delete(finder->rel, &finder->slot->tts_tid, GetCurrentCommandId(true), finder->snapshot,
									InvalidSnapshot, true, &failure, false), again);
}

/* What to do with the row, once it is found. */
typedef struct Request
{
	KvsChangeRow change;
	bool		exclusive;
	KvsLockedRow locked;		/* neither: delete it */
	void	   *arg;
} Request;

static KvsDirect
try_request(KvsFinder *finder, const Request *request, bool *again)
{
	if (request->change)
		return try_change(finder, request->change, request->arg, again);
	if (request->locked)
		return try_lock(finder, request->exclusive, request->locked, request->arg, again);
	return try_delete(finder, again);
}

static KvsDirect
attempt(KvsStore *store, Relation rel, const KvsKey *key, const Request *request, bool *again)
{
	KvsDirect	result = KVS_DIRECT_IMPOSSIBLE;
	KvsFinder	finder;

	*again = false;

	/*
	 * As SPI does for a statement that writes: see all that is committed by now, and what this
	 * transaction wrote before.
	 */
	PushActiveSnapshot(GetTransactionSnapshot());
	CommandCounterIncrement();
	UpdateActiveSnapshotCommandId();

	kvs_find_begin(&finder, rel, store->indexid, RowExclusiveLock, GetActiveSnapshot());
	switch (kvs_find(&finder, key))
	{
		case KVS_FOUND:
			result = try_request(&finder, request, again);
			break;
		case KVS_ABSENT:
			result = KVS_DIRECT_NO_ROW;
			break;
		case KVS_INDEX_TOO_YOUNG:
			break;
	}
	kvs_find_end(&finder);
	PopActiveSnapshot();
	if (result == KVS_DIRECT_DONE)
		CommandCounterIncrement();
	return result;
}

static KvsDirect
attempt_until_settled(KvsStore *store, const KvsKey *key, const Request *request)
{
	/* The lock on the table is held already. */
	Relation	rel = table_open(store->relid, NoLock);
	KvsDirect	result;
	bool		again;

	CheckCmdReplicaIdentity(rel, CMD_UPDATE);
	do
	{
		CHECK_FOR_INTERRUPTS();
		result = attempt(store, rel, key, request, &again);
	} while (again);
	table_close(rel, NoLock);
	return result;
}

KvsDirect
kvs_direct_change(KvsStore *store, const KvsKey *key, AclMode rights, KvsChangeRow change, void *arg)
{
	Request		request = {.change = change, .arg = arg};

	if (!kvs_direct_is_possible(store, rights))
		return KVS_DIRECT_IMPOSSIBLE;
	return attempt_until_settled(store, key, &request);
}

KvsDirect
kvs_direct_lock(KvsStore *store, const KvsKey *key, bool exclusive, KvsLockedRow locked, void *arg)
{
	Request		request = {.exclusive = exclusive, .locked = locked, .arg = arg};

	if (!kvs_direct_is_possible(store, ACL_SELECT | ACL_UPDATE))
		return KVS_DIRECT_IMPOSSIBLE;
	return attempt_until_settled(store, key, &request);
}

KvsDirect
kvs_direct_undo(KvsStore *store, const KvsKey *key)
{
	Request		request = {0};

	return store->plain ? attempt_until_settled(store, key, &request) : KVS_DIRECT_IMPOSSIBLE;
}
