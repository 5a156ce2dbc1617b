/*
 * policy.c
 *		Row-level security: rows that a statement of ours has passed over.
 *
 * An INSERT of a row that is there fails, whatever the policies.  Locking or deleting one does not.
 * A row that a policy hides, or shows and protects, is passed over as if it were not there.  For a
 * check that would be an endless loop: no row can be locked, yet there is one.  kv_take() would say
 * "absent" of an entry that kv_get() gives.
 *
 * A single look cannot tell whether a row was passed over, or has come or gone meanwhile.  So there
 * are two looks, and the statement runs between them.  A number is never given twice.  So a row
 * that has the same one both times was there all the time, and the statement has seen it.  At
 * REPEATABLE READ and above the statement has seen what the transaction's snapshot sees: one look
 * is enough.
 *
 * Somebody may write the row all the time, or a policy may do so itself.  So the number of runs is
 * limited: after so many, a statement is not going to find the row that is there.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "store/find.h"
#include "store/policy.h"
#include "store/scan.h"

/* Statements that have passed a row over, until it is said to be hidden or protected. */
#define MOST_ROUNDS	3

/* The row of a key, whatever the policies. */
static void
look_past_policies(const KvsStore *store, const KvsKey *key, KvsPassedOver *row)
{
	Relation	rel = table_open(store->relid, AccessShareLock);
	Relation	index = index_open(store->indexid, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	row->seen = kvs_find_row(rel, index, KvsKeyDatum(key), GetActiveSnapshot(), slot);
	if (row->seen)
	{
		slot_getsomeattrs(slot, KVS_COLUMNS);
		row->versionstamp = DatumGetInt64(slot->tts_values[KVS_COLUMN_VERSIONSTAMP]);
	}
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(rel, NoLock);
}

/* The live entry of a key, if the caller may see it. */
static void
look_as_caller(const KvsStore *store, const KvsKey *key, TimestampTz now, KvsPassedOver *row)
{
	KvsScan		scan;
	KvsRow		found;

	kvs_scan_begin(&scan, cstring_to_text(store->name), now);
	row->seen = kvs_scan_find(&scan, key, &found);
	if (row->seen)
		row->versionstamp = found.versionstamp;
	kvs_scan_end(&scan);
}

bool
kvs_policy_passed_over(KvsStore *store, const KvsKey *key, bool hidden, TimestampTz now, KvsPassedOver *row)
{
	KvsPassedOver before = *row;

	if (check_enable_rls(store->relid, InvalidOid, true) != RLS_ENABLED)
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	if (hidden)
		look_past_policies(store, key, row);
	else
		look_as_caller(store, key, now, row);
	PopActiveSnapshot();
	row->rounds++;
	if (row->seen && (IsolationUsesXactSnapshot() || row->rounds > MOST_ROUNDS ||
					  (before.seen && before.versionstamp == row->versionstamp)))
		kvs_policy_report(store);
	return row->seen;
}

void
kvs_policy_report(const KvsStore *store)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("row-level security of store \"%s\" keeps you from locking or deleting an entry that is there", store->name),
			 errhint("Ask the owner of the store for policies that let you SELECT and UPDATE the entry. To delete it you need DELETE, too.")));
}
