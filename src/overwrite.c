/*
 * overwrite.c
 *		Rows in, the short way: overwriting a row that is there, without the executor.
 *
 * Starting and ending the executor is most of what a small write costs, and ON CONFLICT writes a second WAL record to lock the row it then
 * updates.  Nearly every write of a running application overwrites a row that nobody else is writing; for that case alone the row is
 * found by its key with a new snapshot (find.c) and replaced by table_tuple_update(), which does all that concurrency asks for: it waits for who is
 * writing the row, and tells when the version that we saw is not the latest.
 *
 * Whatever is not that case is left to the statements of statement.c, with nothing written: no such row, somebody else's version came in between
 * (READ COMMITTED then looks at that one, REPEATABLE READ raises 40001; both are the executor's), a caller without the rights on the whole table,
 * and every table with something that the executor would have to see to (KvsStore.plain).  So there is one place that decides what
 * is right, and this one never loses an update: it succeeds only on the version that it has read.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "find.h"
#include "overwrite.h"
#include "stamp.h"

#define COLUMNS	6

/* An entry for the new version in the key index; other indexes, if there were any, would make the table not plain. */
static void
insert_index_entry(Relation rel, Relation index, TupleTableSlot *slot)
{
	index_insert(index, slot->tts_values, slot->tts_isnull, &slot->tts_tid, rel, UNIQUE_CHECK_YES, true,
				 BuildIndexInfo(index));
}

/* Replace the version that was found; false if it is not the latest any more. */
static bool
replace(KvsFinder *finder, const Datum *values, const bool *nulls)
{
	Relation	rel = finder->rel;
	TupleTableSlot *new = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	TM_FailureData failure;
	LockTupleMode lockmode;
	KvsCompatUpdateIndexes update_indexes;
	bool		done;

	memcpy(new->tts_values, values, sizeof(Datum) * COLUMNS);
	memcpy(new->tts_isnull, nulls, sizeof(bool) * COLUMNS);
	ExecStoreVirtualTuple(new);
	done = table_tuple_update(rel, &finder->slot->tts_tid, new, GetCurrentCommandId(true), GetActiveSnapshot(), InvalidSnapshot,
							  true, &failure, &lockmode, &update_indexes) == TM_Ok;
	if (done && kvs_compat_needs_index_entries(update_indexes))
	{
		/* the row map may have found the row without the index */
		kvs_find_open_index(finder);
		insert_index_entry(rel, finder->index, new);
	}
	ExecDropSingleTupleTableSlot(new);
	return done;
}

/* May the caller write the whole table? */
static bool
may_write(Oid relid)
{
	AclMode		mode = ACL_SELECT | ACL_INSERT | ACL_UPDATE;

	return pg_class_aclmask(relid, GetUserId(), mode, ACLMASK_ALL) == mode;
}

/* What the write makes of the row that it met; false if if_version does not match. */
static bool
complete_row(const KvsWrite *write, TupleTableSlot *old, Datum *values, bool *nulls)
{
	int64		old_stamp;
	bool		live;

	slot_getsomeattrs(old, COLUMNS);
	old_stamp = DatumGetInt64(old->tts_values[4]);
	live = old->tts_isnull[5] || DatumGetTimestampTz(old->tts_values[5]) > write->now;
	if (write->if_version_given && (!live || old_stamp != write->if_version))
		return false;
	if (old_stamp >= DatumGetInt64(values[4]))
		values[4] = Int64GetDatum(kvs_stamp_next());
	if (write->keep_ttl && live)
	{
		values[5] = old->tts_values[5];
		nulls[5] = old->tts_isnull[5];
	}
	return true;
}

KvsOverwritten
kvs_overwrite(KvsStore *store, const KvsKey *key, const KvsWrite *write, Datum *values, bool *nulls)
{
	KvsOverwritten result = KVS_OVERWRITE_NOT_DONE;
	Relation	rel;
	KvsFinder	finder;

	if (!store->plain || !may_write(store->relid))
		return KVS_OVERWRITE_NOT_DONE;

	/* The lock on the table is held already. */
	rel = table_open(store->relid, NoLock);
	CheckCmdReplicaIdentity(rel, CMD_UPDATE);

	/* As SPI does for a statement that writes: see all that is committed by now, and what this transaction wrote before. */
	PushActiveSnapshot(GetTransactionSnapshot());
	CommandCounterIncrement();
	UpdateActiveSnapshotCommandId();

	kvs_find_begin(&finder, rel, store->indexid, RowExclusiveLock, GetActiveSnapshot());
	if (kvs_find(&finder, key) == KVS_FOUND)
	{
		if (!complete_row(write, finder.slot, values, nulls))
			result = KVS_OVERWRITE_NO_MATCH;
		else if (replace(&finder, values, nulls))
			result = KVS_OVERWRITE_DONE;
	}
	kvs_find_end(&finder);
	PopActiveSnapshot();
	if (result == KVS_OVERWRITE_DONE)
		CommandCounterIncrement();
	table_close(rel, NoLock);
	return result;
}
