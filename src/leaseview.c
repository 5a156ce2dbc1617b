/* leaseview.c: SQL functions that show leases, and take them away. */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "entry.h"
#include "guc.h"
#include "lease.h"
#include "queueargs.h"
#include "shmem.h"
#include "stats.h"

#define LEASE_COLUMNS	7

/* The hash table has a few entries more than it was asked for: it rounds up for each of its 32 free lists. */
#define MOST_LEASES		(kvs_guc_max_leases + 32)

static const char *
state_name(KvsLeaseState state)
{
	switch (state)
	{
		case KVS_LEASE_HELD:
			return "leased";
		case KVS_LEASE_ENDING:
			return "ending";
		default:
			return "returned";
	}
}

/* kvstore.leases(): queue (its table), id, pid, since, leased_until, attempts, state.  Nothing for who may not read all statistics. */
PG_FUNCTION_INFO_V1(kvstore_leases);
Datum
kvstore_leases(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	KvsLeaseInfo *list;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (kvs_shared == NULL || !has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		return (Datum) 0;
	list = palloc_extended(MOST_LEASES * sizeof(KvsLeaseInfo), MCXT_ALLOC_HUGE);
	count = kvs_lease_list(list, MOST_LEASES);
	for (int i = 0; i < count; i++)
	{
		const KvsLeaseInfo *lease = &list[i];
		bool		held = lease->state != KVS_LEASE_RETURNED;
		Datum		values[LEASE_COLUMNS] = {
			ObjectIdGetDatum(lease->relid), Int64GetDatum(lease->message.id), Int32GetDatum(lease->pid),
			TimestampTzGetDatum(lease->since), TimestampTzGetDatum(lease->due),
			Int32GetDatum(lease->message.attempts + lease->message.rollbacks + (held ? 1 : 0)),
			CStringGetTextDatum(state_name(lease->state))
		};
		bool		nulls[LEASE_COLUMNS] = {false, false, !held, !held, !held, false, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	pfree(list);
	return (Datum) 0;
}

/* kv_release_id(queue, id) returns boolean: take a message from whoever holds it; for the owner */
PG_FUNCTION_INFO_V1(kvstore_release_id);
Datum
kvstore_release_id(PG_FUNCTION_ARGS)
{
	Relation	rel;
	KvsQueue   *queue;
	bool		held;

	kvs_queueargs_begin("kv_release_id()");
	queue = kvs_queue_open(kvs_entry_text_arg(fcinfo, 0), RowExclusiveLock, &rel);
	if (!kvs_compat_owns_table(queue->relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, psprintf("q_%s", queue->name));
	if (PG_ARGISNULL(1))
		kvs_entry_null_argument("id");
	held = kvs_lease_release(queue, PG_GETARG_INT64(1), NULL);
	if (held)
		kvs_stats_add(queue->stat, KVS_COUNT_QUEUE_RELEASED, 1);
	table_close(rel, NoLock);
	PG_RETURN_BOOL(held);
}
