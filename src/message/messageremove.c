/*
 * messageremove.c
 *		One row of a queue: finding it by a unique index, deleting it by the table access method.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "message/message.h"

bool
kvs_messageremove_find(Relation rel, Oid indexid, RegProcedure equal, Datum value, TupleTableSlot *slot)
{
	Relation	index = index_open(indexid, AccessShareLock);
	Snapshot	snapshot;
	ScanKeyData key;
	IndexScanDesc scan;
	bool		found;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, equal, value);
	key.sk_collation = index->rd_indcollation[0];
	scan = kvs_compat_index_beginscan(rel, index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
	{
		ExecMaterializeSlot(slot);
		slot_getallattrs(slot);
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	index_close(index, NoLock);
	return found;
}

KvsRemoval
kvs_messageremove_remove(Relation rel, TupleTableSlot *slot, bool wait)
{
	TM_FailureData failure;

	CheckCmdReplicaIdentity(rel, CMD_DELETE);
	switch (table_tuple_delete(rel, &slot->tts_tid, GetCurrentCommandId(true), InvalidSnapshot, InvalidSnapshot, wait,
							   &failure, false))
	{
		case TM_Ok:
			return KVS_REMOVED;
		case TM_Deleted:
			return KVS_REMOVAL_GONE;
		case TM_Updated:
			return KVS_REMOVAL_CHANGED;
		default:
			/* also what this very command has done already */
			return KVS_REMOVAL_BUSY;
	}
}
