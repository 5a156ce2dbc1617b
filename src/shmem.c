/*
 * shmem.c
 *		Reserves and initialises the shared memory of all modules.
 *
 * Shared memory can only be had while the postmaster starts, so it exists only with shared_preload_libraries = 'kvstore'.  Key-value
 * functions work without it; kvs_shared is NULL then.  Sizes are fixed at start: nothing here ever grows.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "expiry.h"
#include "feed.h"
#include "launcher.h"
#include "lease.h"
#include "leasefile.h"
#include "queueslot.h"
#include "rowmap.h"
#include "shmem.h"
#include "statefile.h"
#include "storecount.h"
#include "stats.h"
#include "trouble.h"
#include "waiter.h"

KvsShared  *kvs_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static void
shmem_request(void)
{
	if (previous_request_hook)
		previous_request_hook();

	RequestAddinShmemSpace(MAXALIGN(sizeof(KvsShared)));
	RequestNamedLWLockTranche("kvstore", 1);
	kvs_stats_request_shmem();
	kvs_rowmap_request_shmem();
	kvs_expiry_request_shmem();
	kvs_trouble_request_shmem();
	kvs_storecount_request_shmem();
	kvs_feed_request_shmem();
	kvs_waiter_request_shmem();
	kvs_launcher_request_shmem();
	kvs_queueslot_request_shmem();
	kvs_lease_request_shmem();
}

/*
 * Did the server stop in order, as a primary?  Only then do the sequences on disk know every number that somebody saw.  The control
 * file still says how the last run ended: it is rewritten after this hook.
 */
static void
read_start_state(KvsShared *shared)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	shared->clean_start = crc_ok && control->state == DB_SHUTDOWNED;
	shared->start_timeline = control->checkPointCopy.ThisTimeLineID;
	pfree(control);
}

static void
shmem_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	kvs_shared = ShmemInitStruct("kvstore", sizeof(KvsShared), &found);
	if (!found)
	{
		memset(kvs_shared, 0, sizeof(KvsShared));
		kvs_shared->lock = &GetNamedLWLockTranche("kvstore")->lock;
		kvs_shared->started_at = GetCurrentTimestamp();
		read_start_state(kvs_shared);
		pg_atomic_init_u32(&kvs_shared->remembers, 0);
		pg_atomic_init_u64(&kvs_shared->deletion_clock, 0);
		for (int i = 0; i < KVS_DELETED_SLOTS; i++)
			pg_atomic_init_u64(&kvs_shared->deleted[i], 0);
		for (int i = 0; i < KVS_ABSENCE_BUCKETS; i++)
			pg_atomic_init_u32(&kvs_shared->absences[i], 0);
	}
	kvs_stats_startup_shmem();
	kvs_rowmap_startup_shmem();
	kvs_expiry_startup_shmem();
	kvs_trouble_startup_shmem();
	kvs_storecount_startup_shmem();
	kvs_feed_startup_shmem();
	kvs_waiter_startup_shmem();
	kvs_launcher_startup_shmem();
	kvs_queueslot_startup_shmem();
	kvs_lease_startup_shmem();
	kvs_leasefile_startup_shmem();
	kvs_statefile_startup();
	LWLockRelease(AddinShmemInitLock);
}

void
kvs_shmem_require(const char *function)
{
	if (unlikely(kvs_shared == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs kvstore in shared_preload_libraries", function),
				 errhint("Put shared_preload_libraries = 'kvstore' into postgresql.conf and restart the server.")));
}

void
kvs_shmem_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}
