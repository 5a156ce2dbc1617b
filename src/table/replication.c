/*
 * replication.c
 *		Logical replication, as a subscriber sees it.
 *
 * A table that a subscription brings is a copy.  What arrives is kept as it is, and nobody else
 * removes anything: the publisher removes what has expired, and that arrives too.  A subscriber
 * that removed an entry by itself would lose it, should the publisher have renewed it in time: the
 * renewal would find no row.
 *
 * pg_subscription_rel says whether a table is a copy, so a subscription that is disabled for a
 * while counts.  A table is a copy until DROP SUBSCRIPTION.  A queue can be used as soon as its
 * subscription is disabled.
 *
 * Sequences are not replicated, so those of identity columns follow the rows that arrive.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_subscription_rel.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "replication/worker_internal.h"
#include "utils/catcache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "table/replication.h"
#include "table/sequence.h"

/* How far an identity sequence is moved when it is, so that not each row moves it. */
#define NUMBERS_AHEAD	1000

bool
kvs_replication_is_apply(void)
{
	return IsLogicalWorker();
}

bool
kvs_replication_is_trusted(void)
{
	return IsLogicalWorker() && superuser_arg(MySubscription->owner);
}

static bool
is_enabled(Oid subscription)
{
	HeapTuple	tuple = SearchSysCache1(SUBSCRIPTIONOID, ObjectIdGetDatum(subscription));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_subscription) GETSTRUCT(tuple))->subenabled;
	ReleaseSysCache(tuple);
	return result;
}

void
kvs_replication_follow(Relation rel, int column, HeapTuple tuple)
{
	Oid			sequence;
	bool		isnull;
	Datum		number;

	if (likely(!IsLogicalWorker()))
		return;
	number = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);
	sequence = kvs_compat_identity_sequence(rel, column);
	if (!isnull && OidIsValid(sequence))
		kvs_sequence_raise(sequence, DatumGetInt64(number), NUMBERS_AHEAD);
}

TimestampTz
kvs_replication_look_at(TimestampTz when)
{
	if (likely(!IsLogicalWorker()))
		return when;
	return Max(when, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), KVS_REPLICATION_RETRY));
}

bool
kvs_replication_brings(Oid relid, bool enabled)
{
	CatCList   *list = SearchSysCacheList1(SUBSCRIPTIONRELMAP, ObjectIdGetDatum(relid));
	bool		result = false;

	for (int i = 0; i < list->n_members && !result; i++)
	{
		Form_pg_subscription_rel form = (Form_pg_subscription_rel) GETSTRUCT(&list->members[i]->tuple);

		result = !enabled || is_enabled(form->srsubid);
	}
	ReleaseSysCacheList(list);
	return result;
}
