/*
 * launcher.c
 *		The launcher: starts a worker for each database that has something to do.
 *
 * It is connected to no database, so it holds up no DROP or CREATE DATABASE.  It starts when
 * recovery has ended, so also after a promotion, and never in a binary upgrade.  Each database that
 * can be connected to gets a worker once, to see whether the extension is there.  One that is
 * created later is found within a minute, or at once when something of ours is committed in it.
 * From then on a database's worker starts when its "next due" in the expiry map has come
 * (expiry.c).  A commit that is due earlier wakes the launcher.  With nothing due it wakes once a
 * minute.
 *
 * At most KVS_WORKERS workers run at a time, for max_worker_processes is there for others as well.
 * When more databases are due than there is room for, the one whose turn was longest ago comes
 * first.  The workers that run are told to leave soon.  A worker that ended without saying that all
 * is well is started again after a delay that doubles.
 *
 * The launcher fills in a worker's slot in shared memory before it registers the worker.  Then the
 * worker alone writes it; each field is one word.  A launcher that is started anew finds the slots
 * as they are.  A slot may have been given away since the predecessor registered a worker for it:
 * the generation keeps that worker from taking it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "base/trouble.h"
#include "expiry/expiry.h"
#include "feed/feed.h"
#include "lease/queueslot.h"
#include "worker/launcher.h"

/* All in milliseconds. */
#define DATABASES_EVERY	((int64) 60 * 1000) /* look for new databases */
#define ROOM_RETRY		1000	/* when no worker could be registered */
#define WANTED_RETRY	1000	/* when a session wants the database */
#define FIRST_BACKOFF	1000
#define LAST_BACKOFF	(60 * 1000)
#define LOG_INTERVAL	(60 * 1000)

/* A launcher that died is started again after so many seconds. */
#define LAUNCHER_RESTART	5

/* A worker's slot. */
typedef struct WorkerSlot
{
	volatile Oid database;
	volatile uint32 generation;
	volatile pid_t pid;			/* 0: not yet, or no more */
	volatile KvsWorkerEnd end;	/* why it has left */
} WorkerSlot;

typedef struct LauncherShared
{
	volatile pid_t pid;			/* 0: there is none */
	pg_atomic_uint32 wants_room;
	pg_atomic_uint32 generation;
	WorkerSlot	slots[KVS_WORKERS];
} LauncherShared;

/* A database as the launcher knows it. */
typedef struct Database
{
	Oid			oid;			/* hash key; must be first */
	bool		exists;
	bool		probed;			/* a worker has been there */
	bool		running;
	TimestampTz due;			/* DT_NOEND: the map does not know it */
	TimestampTz not_before;
	TimestampTz last_start;
	int			failures;		/* in a row */
} Database;

static LauncherShared *shared = NULL;

/* The launcher's own. */
static BackgroundWorkerHandle *handles[KVS_WORKERS];
static bool occupied[KVS_WORKERS];
static HTAB *databases = NULL;
static KvsExpiryDatabaseDue map_list[KVS_EXPIRY_DATABASES];
static int	map_count;
static TimestampTz logged_at = DT_NOBEGIN;

/* The worker's own. */
static WorkerSlot *my_slot = NULL;

/* ---- Databases ---- */

static Database *
get_database(Oid oid)
{
	bool		found;
	Database   *database = hash_search(databases, &oid, HASH_ENTER, &found);

	if (!found)
	{
		memset((char *) database + sizeof(Oid), 0, sizeof(Database) - sizeof(Oid));
		database->not_before = DT_NOBEGIN;
	}
	return database;
}

/* Read which databases there are to connect to. */
static void
read_pg_database(void)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		get_database(form->oid)->exists = true;
		if (!form->datallowconn || kvs_compat_database_is_invalid(form))
			get_database(form->oid)->not_before = DT_NOEND;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
}

/*
 * Bring the list up to date: what the map knows first, then what there is.  So a database that the
 * map knows and that is not there is gone, and not younger than our look at pg_database.
 */
static void
read_databases(TimestampTz now)
{
	HASH_SEQ_STATUS status;
	Database   *database;

	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		database->exists = false;
		database->due = DT_NOEND;
		/* one so far away was written before the clock was set back */
		if (database->not_before == DT_NOEND || database->not_before > TimestampTzPlusMilliseconds(now, LAST_BACKOFF))
			database->not_before = now;
	}
	map_count = kvs_expirydue_list_databases(map_list);
	for (int i = 0; i < map_count; i++)
		get_database(map_list[i].database)->due = map_list[i].due;
	read_pg_database();

	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		if (database->exists || database->running)
			continue;
		kvs_expirymap_forget_database(database->oid);
		kvs_trouble_forget_database(database->oid);
		kvs_queueslot_forget_database(database->oid);
		kvs_stats_forget_database(database->oid);
		kvs_feed_forget_database(database->oid);
		hash_search(databases, &database->oid, HASH_REMOVE, NULL);
	}
}

/* ---- Workers ---- */

/* A worker has ended: may its database have another one at once? */
static void
end_worker(int i, TimestampTz now)
{
	WorkerSlot *slot = &shared->slots[i];
	Database   *database = get_database(slot->database);

	occupied[i] = false;
	if (handles[i] != NULL)
		pfree(handles[i]);
	handles[i] = NULL;
	database->running = false;
	database->probed = slot->end != KVS_WORKER_FAILED;
	database->not_before = now;
	if (slot->end == KVS_WORKER_FAILED)
	{
		int			delay = Min(FIRST_BACKOFF << Min(database->failures, 10), LAST_BACKOFF);

		database->failures++;
		database->not_before = TimestampTzPlusMilliseconds(now, delay);
	}
	else
	{
		database->failures = 0;
		if (slot->end == KVS_WORKER_WANTED)
			database->not_before = TimestampTzPlusMilliseconds(now, WANTED_RETRY);
	}
}

static void
reap_workers(TimestampTz now)
{
	for (int i = 0; i < KVS_WORKERS; i++)
	{
		pid_t		pid;

		if (!occupied[i])
			continue;
		if (handles[i] != NULL ? GetBackgroundWorkerPid(handles[i], &pid) == BGWH_STOPPED : shared->slots[i].pid == 0)
			end_worker(i, now);
	}
}

/* Take over the workers that an earlier launcher has started. */
static void
adopt_workers(void)
{
	for (int i = 0; i < KVS_WORKERS; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->pid == 0)
			continue;
		occupied[i] = true;
		get_database(slot->database)->running = true;
	}
}

static bool
start_worker(int i, Database *database)
{
	WorkerSlot *slot = &shared->slots[i];
	BackgroundWorker worker;
	MemoryContext old;
	bool		registered;

	slot->database = database->oid;
	slot->generation = pg_atomic_add_fetch_u32(&shared->generation, 1) & 0xFFFFFF;
	slot->pid = 0;
	slot->end = KVS_WORKER_FAILED;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = UInt32GetDatum(slot->generation << 8 | (uint32) i);
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "kvstore");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "kvs_worker_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "kvstore worker for database %u", database->oid);
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "kvstore worker");

	old = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &handles[i]);
	MemoryContextSwitchTo(old);
	occupied[i] = database->running = registered;
	return registered;
}

/*
 * The database to serve next: the one that is due, and whose turn is longest ago.  NULL: none is;
 * *next_due is when one will be.
 */
static Database *
choose_database(TimestampTz now, TimestampTz *next_due)
{
	HASH_SEQ_STATUS status;
	Database   *database;
	Database   *result = NULL;

	*next_due = DT_NOEND;
	hash_seq_init(&status, databases);
	while ((database = hash_seq_search(&status)) != NULL)
	{
		TimestampTz due = database->probed ? database->due : DT_NOBEGIN;

		if (database->running || !database->exists)
			continue;
		due = due == DT_NOEND ? due : Max(due, database->not_before);
		if (due > now)
			*next_due = Min(*next_due, due);
		else if (result == NULL || database->last_start < result->last_start)
			result = database;
	}
	return result;
}

static int
find_slot(void)
{
	for (int i = 0; i < KVS_WORKERS; i++)
		if (!occupied[i])
			return i;
	return -1;
}

static void
log_no_room(TimestampTz now)
{
	if (logged_at != DT_NOBEGIN && !TimestampDifferenceExceeds(logged_at, now, LOG_INTERVAL))
		return;
	logged_at = now;
	ereport(LOG,
			(errmsg("kvstore: no background worker is free for a database that has something to do"),
			 errhint("Raise max_worker_processes.")));
}

/* Start what is due as long as there is room.  Returns when to look again. */
static TimestampTz
start_workers(TimestampTz now)
{
	TimestampTz next_due;
	Database   *database;

	while ((database = choose_database(now, &next_due)) != NULL)
	{
		int			slot = find_slot();

		if (slot < 0 || !start_worker(slot, database))
		{
			if (slot >= 0)
				log_no_room(now);
			pg_atomic_write_u32(&shared->wants_room, 1);
			return TimestampTzPlusMilliseconds(now, ROOM_RETRY);
		}
		database->last_start = now;
	}
	pg_atomic_write_u32(&shared->wants_room, 0);
	return next_due;
}

/* ---- What workers say ---- */

Oid
kvs_launcher_worker_comes(Datum main_arg)
{
	uint32		arg = DatumGetUInt32(main_arg);
	WorkerSlot *slot = &shared->slots[arg & 0xFF];

	if (slot->generation != arg >> 8)
		return InvalidOid;
	my_slot = slot;
	slot->pid = MyProcPid;
	return slot->database;
}

void
kvs_launcher_worker_leaves(KvsWorkerEnd end)
{
	my_slot->end = end;
	my_slot->pid = 0;
}

bool
kvs_launcher_wants_room(void)
{
	return pg_atomic_read_u32(&shared->wants_room) != 0;
}

/* ---- The process ---- */

static void
launcher_before_exit(int code, Datum arg)
{
	shared->pid = 0;
}

static void
sleep_until(TimestampTz now, TimestampTz wake_at)
{
	wake_at = Min(wake_at, TimestampTzPlusMilliseconds(now, DATABASES_EVERY));
	if (!kvs_expirydue_launcher_sleeps(wake_at, map_list, map_count))
		return;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Max(TimestampDifferenceMilliseconds(now, wake_at), 1), kvs_compat_wait_event("KvstoreLauncher"));
}

void
kvs_launcher_main(Datum main_arg)
{
	HASHCTL		ctl;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Database);
	databases = hash_create("kvstore databases", 32, &ctl, HASH_ELEM | HASH_BLOBS);
	before_shmem_exit(launcher_before_exit, (Datum) 0);
	shared->pid = MyProcPid;
	kvs_expirydue_launcher_starts();
	adopt_workers();

	for (;;)
	{
		TimestampTz now;

		ResetLatch(MyLatch);
		/* Outside a transaction there is nothing to say: the postmaster logs that we have gone. */
		if (ProcDiePending)
			proc_exit(1);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		now = GetCurrentTimestamp();
		reap_workers(now);
		read_databases(now);
		sleep_until(now, start_workers(now));
	}
}

/* ---- Initialisation ---- */

static void
request_shmem(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(LauncherShared)));
}

static void
startup_shmem(void)
{
	bool		found;

	shared = ShmemInitStruct("kvstore launcher", sizeof(LauncherShared), &found);
	if (found)
		return;
	memset(shared, 0, sizeof(LauncherShared));
	pg_atomic_init_u32(&shared->wants_room, 0);
	pg_atomic_init_u32(&shared->generation, 0);
}

void
kvs_launcher_init(void)
{
	BackgroundWorker worker;

	kvs_shmem_add(request_shmem, startup_shmem);
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = LAUNCHER_RESTART;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "kvstore");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "kvs_launcher_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "kvstore launcher");
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "kvstore launcher");
	RegisterBackgroundWorker(&worker);
}

/* ---- SQL ---- */

/* kvstore.worker_running() returns boolean: does the launcher run? */
PG_FUNCTION_INFO_V1(kvstore_worker_running);
Datum
kvstore_worker_running(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(shared != NULL && shared->pid != 0);
}
