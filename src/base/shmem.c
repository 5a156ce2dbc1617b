/*
 * shmem.c
 *		Reserves and initialises shared memory, for the modules that ask for some.
 *
 * Shared memory can be requested only while the postmaster starts, so it exists only with
 * shared_preload_libraries = 'kvstore'.  Key-value functions work without it; kvs_shared is NULL
 * then.  Sizes are fixed at start: nothing here ever grows.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/shmem.h"
#include "base/statefile.h"

/* As many modules as may have shared memory. */
#define MAX_PARTS	16

typedef struct Part
{
	void		(*request) (void);
	void		(*startup) (void);
} Part;

static Part parts[MAX_PARTS];
static int	nparts = 0;

KvsShared  *kvs_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static void
shmem_request(void)
{
	if (previous_request_hook)
		previous_request_hook();

	RequestAddinShmemSpace(MAXALIGN(sizeof(KvsShared)));
	for (int i = 0; i < nparts; i++)
		if (parts[i].request != NULL)
			parts[i].request();
}

/*
 * Did the server stop cleanly, as a primary?  Only then do the sequences on disk know every number
 * that a client saw.  The control file still says how the last run ended: it is rewritten after
 * this hook.
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
		kvs_shared->started_at = GetCurrentTimestamp();
		read_start_state(kvs_shared);
	}
	for (int i = 0; i < nparts; i++)
		parts[i].startup();
	kvs_statefile_startup();
	LWLockRelease(AddinShmemInitLock);
}

void
kvs_shmem_add(void (*request) (void), void (*startup) (void))
{
	if (nparts == MAX_PARTS)
		elog(ERROR, "kvstore has too many parts of shared memory");
	parts[nparts++] = (Part) {request, startup};
}

void
kvs_shmem_require(const char *function)
{
	if (unlikely(kvs_shared == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs kvstore in shared_preload_libraries", function),
				 errhint("Add kvstore to shared_preload_libraries in postgresql.conf, and restart the server.")));
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
