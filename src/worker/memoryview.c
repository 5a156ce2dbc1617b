/* memoryview.c: SQL function that shows how much of each fixed part of shared memory is in use. */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "feed/waiter.h"
#include "lease/lease.h"
#include "lease/queueslot.h"

static void
give(ReturnSetInfo *rsinfo, const char *what, int64 used, int64 room)
{
	Datum		values[3] = {CStringGetTextDatum(what), Int64GetDatum(used), Int64GetDatum(room)};
	bool		nulls[3] = {false, false, false};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* kvstore.memory_in_use(): what, used, room; no rows without preload */
PG_FUNCTION_INFO_V1(kvstore_memory_in_use);
Datum
kvstore_memory_in_use(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		sessions;
	int64		targets;

	InitMaterializedSRF(fcinfo, 0);
	if (kvs_shared == NULL)
		return (Datum) 0;
	kvs_waiter_count(&sessions, &targets);
	give(rsinfo, "leases", kvs_leaselook_count(), kvs_guc_max_leases);
	give(rsinfo, "queues", kvs_queueslot_count_used(), kvs_guc_max_queues);
	give(rsinfo, "waiters", sessions, kvs_guc_max_waiters);
	give(rsinfo, "waited_for", targets, (int64) kvs_guc_max_waiters * KVS_WAIT_TARGETS);
	return (Datum) 0;
}
