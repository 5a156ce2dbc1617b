/* queueargs.c: what the functions of queues share: reading their arguments, checking rights. */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/duration.h"
#include "base/shmem.h"
#include "message/send.h"
#include "queue/queueargs.h"

void
kvs_queueargs_begin(const char *function)
{
	PreventCommandIfReadOnly(function);
	kvs_shmem_require(function);
}

void
kvs_queueargs_check_rights(const KvsQueue *queue, AclMode rights)
{
	if (pg_class_aclmask(queue->relid, GetUserId(), rights, ACLMASK_ALL) != rights)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, psprintf("q_%s", queue->name));
}

int64
kvs_queueargs_count(FunctionCallInfo fcinfo, int arg, int64 missing)
{
	int64		count = PG_ARGISNULL(arg) ? missing : PG_GETARG_INT64(arg);

	if (count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must not be negative")));
	return count;
}

TimestampTz
kvs_queueargs_deadline(FunctionCallInfo fcinfo, int arg, const KvsQueue *queue, TimestampTz now)
{
	Interval	lease = PG_ARGISNULL(arg) ? queue->lease : *PG_GETARG_INTERVAL_P(arg);
	TimestampTz deadline = kvs_duration_add(now, &lease);

	if (deadline <= now || deadline - now > KVS_MAX_LEASE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be positive, and not longer than 12 hours"),
				 errhint("A consumer that needs longer calls kv_extend() from time to time.")));
	return deadline;
}

TimestampTz
kvs_queueargs_delay(FunctionCallInfo fcinfo, int arg, TimestampTz now, TimestampTz missing)
{
	TimestampTz result;

	if (PG_ARGISNULL(arg))
		return missing;
	result = kvs_duration_add(now, PG_GETARG_INTERVAL_P(arg));
	if (result < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delay must not be negative")));
	kvs_send_check_moment(result, "delay");
	return result;
}
