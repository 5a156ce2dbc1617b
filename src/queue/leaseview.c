/* leaseview.c: SQL functions that show leases, and end them. */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"

#include "base/args.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "lease/lease.h"
#include "queue/queueargs.h"

#define LEASE_COLUMNS	8

static const char *
state_name(const KvsLeaseInfo *lease)
{
	if (lease->state == KVS_LEASE_HELD)
		return "leased";
	if (lease->state == KVS_LEASE_ENDING)
		return "ending";
	if (lease->stuck)
		return "stuck";
	return kvs_message_is_doomed(&lease->message) ? "dying" : "returned";
}

/* Why it is stuck; NULL: it is not, or the reason is no longer known. */
static const char *
find_error(const KvsLeaseInfo *lease, const KvsStuckError *errors)
{
	for (int i = 0; lease->stuck && i < KVS_STUCK_ERRORS; i++)
		if (errors[i].id == lease->message.id)
			return errors[i].text;
	return NULL;
}

static void
give_lease(const KvsLeaseInfo *lease, const char *error, ReturnSetInfo *rsinfo)
{
	bool		held = lease->delivered;
	Datum		values[LEASE_COLUMNS] = {
		ObjectIdGetDatum(lease->relid), Int64GetDatum(lease->message.id), Int32GetDatum(lease->pid),
		TimestampTzGetDatum(lease->since), TimestampTzGetDatum(lease->due),
		Int32GetDatum(kvs_message_failed(&lease->message) + (held ? 1 : 0)),
		CStringGetTextDatum(state_name(lease)), error == NULL ? (Datum) 0 : CStringGetTextDatum(error)
	};
	bool		nulls[LEASE_COLUMNS] = {false, false, !held, !held, !held, false, false, error == NULL};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * kvstore.leases(): queue (its table), id, pid, since, leased_until, attempts, state, error.  No
 * rows for a role that may not read all statistics.
 */
PG_FUNCTION_INFO_V1(kvstore_leases);
Datum
kvstore_leases(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (kvs_shared == NULL || !has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		return (Datum) 0;
	for (int slot = 0; slot < kvs_guc_max_queues; slot++)
	{
		KvsLeaseInfo *list = NULL;
		KvsStuckError errors[KVS_STUCK_ERRORS];
		int			count = kvs_leaselook_list(slot, &list, errors);

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < count; i++)
			give_lease(&list[i], find_error(&list[i], errors), rsinfo);
		if (list != NULL)
			pfree(list);
	}
	return (Datum) 0;
}

/*
 * kvstore.stuck_reason() returns text: what kv_health() says of messages that the worker could not
 * settle; NULL: there are none
 */
PG_FUNCTION_INFO_V1(kvstore_stuck_reason);
Datum
kvstore_stuck_reason(PG_FUNCTION_ARGS)
{
	int64		count;
	Oid			relid = kvs_shared == NULL ? InvalidOid : kvs_leaselook_find_stuck(&count);
	char	   *table = OidIsValid(relid) ? get_rel_name(relid) : NULL;

	if (table == NULL || strncmp(table, "q_", 2) != 0)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%lld messages cannot be settled, such as of queue \"%s\": see kv_leases",
											  (long long) count, table + 2)));
}

/*
 * kv_release_id(queue, id) returns boolean: end the lease of a message, whoever holds it; for the
 * owner
 */
PG_FUNCTION_INFO_V1(kvstore_release_id);
Datum
kvstore_release_id(PG_FUNCTION_ARGS)
{
	Relation	rel;
	KvsQueue   *queue;
	bool		held;

	kvs_queueargs_begin("kv_release_id()");
	queue = kvs_queue_open(kvs_args_text(fcinfo, 0), RowExclusiveLock, &rel);
	if (!kvs_compat_owns_table(queue->relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, psprintf("q_%s", queue->name));
	if (PG_ARGISNULL(1))
		kvs_args_report_null("id");
	held = kvs_lease_release(queue, PG_GETARG_INT64(1), NULL, 0) == KVS_CLAIM_DONE;
	if (held)
		kvs_stats_add(queue->stat, KVS_COUNT_QUEUE_RELEASED, 1);
	table_close(rel, NoLock);
	PG_RETURN_BOOL(held);
}
