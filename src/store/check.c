/*
 * check.c
 *		Checks that hold until the transaction ends: nobody else commits a change of what was
 *		checked.
 *
 * If the entry is there, its row is locked FOR SHARE.  The absence of an entry has no row to lock:
 * with shared memory absence.c holds it.
 *
 * Without shared memory the checker inserts a row and deletes it again: an inserter of the same key
 * waits for the end of that transaction.  That is twice as dear, and not possible where the user's
 * constraints or triggers would see the row.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "base/shmem.h"
#include "store/absence.h"
#include "store/check.h"
#include "store/policy.h"
#include "table/shape.h"

/* Without shared memory; false if there is a row after all. */
static bool
hold_by_row(KvsStore *store, const KvsKey *key)
{
	Relation	rel = table_open(store->relid, NoLock);
	TupleConstr *constraints = RelationGetDescr(rel)->constr;
	bool		plain = !kvs_shape_has_trigger(rel, TRIGGER_TYPE_INSERT | TRIGGER_TYPE_DELETE);

	if (constraints != NULL && constraints->num_check > 0)
		plain = false;
	table_close(rel, NoLock);
	if (!plain)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot check that an entry is absent in a store with constraints or triggers of its own"),
				 errhint("Add kvstore to shared_preload_libraries and restart the server.")));
	if (!kvs_store_place(store, key))
		return false;
	kvs_store_remove(store, key);
	return true;
}

static bool
hold_absence(KvsStore *store, const KvsKey *key)
{
	return kvs_shared == NULL ? hold_by_row(store, key) : kvs_absence_hold(store, key);
}

void
kvs_check_hold(KvsStore *store, const KvsKey *key, TimestampTz now, KvsState *state)
{
	KvsPassedOver row = {0};

	while (!kvs_store_lock(store, key, false, now, state))
	{
		CHECK_FOR_INTERRUPTS();
		if (hold_absence(store, key))
			return;
		if (kvs_policy_passed_over(store, key, true, now, &row))
			continue;

		/*
		 * A row that our snapshot does not see: a new statement has a new snapshot, unless the
		 * transaction has but one.
		 */
		if (IsolationUsesXactSnapshot())
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent update")));
	}
}
