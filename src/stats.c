/*
 * stats.c
 *		Counts for each store: pending ones in backend memory, published ones in shared memory.
 *
 * A call only adds to backend memory.  At the end of a transaction, at most once a second, and at exit the pending counts are added to one shared
 * entry for each table.  Without preload nothing is published, and nothing is shown.
 *
 * The shared hash has a fixed size, so publishing from a transaction callback allocates nothing and cannot fail; when it is full, the counts
 * of further tables are dropped.  Its lock protects the hash; the counts are atomics, so that publishing needs the lock in share mode only.
 */
#include "postgres.h"

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "shmem.h"
#include "stats.h"

/* Publish at most this often, in milliseconds. */
#define KVS_STATS_INTERVAL	1000

typedef struct SharedStatKey
{
	Oid			database;
	Oid			relid;
} SharedStatKey;

typedef struct SharedStat
{
	SharedStatKey key;			/* must be first */
	pg_atomic_uint64 counts[KVS_COUNTERS];
} SharedStat;

bool		kvs_stats_any_pending = false;

static HTAB *local_stats = NULL;	/* relid -> KvsStat */
static HTAB *shared_stats = NULL;	/* SharedStatKey -> SharedStat */
static LWLock *shared_stats_lock = NULL;
static TimestampTz last_publish = 0;
static bool exit_callback_registered = false;

static void stats_before_exit(int code, Datum arg);

KvsStat *
kvs_stats_local(Oid relid)
{
	KvsStat    *stat;
	bool		found;

	if (local_stats == NULL)
	{
		HASHCTL		ctl;

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(KvsStat);
		local_stats = hash_create("kvstore pending counts", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	stat = hash_search(local_stats, &relid, HASH_ENTER, &found);
	if (!found)
		memset((char *) stat + sizeof(Oid), 0, sizeof(KvsStat) - sizeof(Oid));
	if (shared_stats != NULL && !exit_callback_registered)
	{
		before_shmem_exit(stats_before_exit, (Datum) 0);
		exit_callback_registered = true;
	}
	return stat;
}

/* Add one table's pending counts to its shared entry, made if need be.  No palloc, no ERROR. */
static void
publish_one(KvsStat *stat)
{
	SharedStatKey key;
	SharedStat *shared;
	bool		found;

	key.database = MyDatabaseId;
	key.relid = stat->relid;

	LWLockAcquire(shared_stats_lock, LW_SHARED);
	shared = hash_search(shared_stats, &key, HASH_FIND, NULL);
	if (shared == NULL)
	{
		LWLockRelease(shared_stats_lock);
		LWLockAcquire(shared_stats_lock, LW_EXCLUSIVE);
		shared = hash_search(shared_stats, &key, HASH_ENTER_NULL, &found);
		if (shared != NULL && !found)
			for (int i = 0; i < KVS_COUNTERS; i++)
				pg_atomic_init_u64(&shared->counts[i], 0);
	}
	if (shared != NULL)
		for (int i = 0; i < KVS_COUNTERS; i++)
			if (stat->counts[i] != 0)
				pg_atomic_fetch_add_u64(&shared->counts[i], stat->counts[i]);
	LWLockRelease(shared_stats_lock);
}

static void
publish_all(void)
{
	HASH_SEQ_STATUS status;
	KvsStat    *stat;

	kvs_stats_any_pending = false;
	if (shared_stats == NULL || local_stats == NULL)
		return;
	hash_seq_init(&status, local_stats);
	while ((stat = hash_seq_search(&status)) != NULL)
	{
		if (!stat->pending)
			continue;
		publish_one(stat);
		memset(stat->counts, 0, sizeof(stat->counts));
		stat->pending = false;
	}
}

static void
stats_xact_callback(XactEvent event, void *arg)
{
	TimestampTz now;

	if (!kvs_stats_any_pending || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	now = GetCurrentTransactionStopTimestamp();
	if (TimestampDifferenceExceeds(last_publish, now, KVS_STATS_INTERVAL))
	{
		last_publish = now;
		publish_all();
	}
}

static void
stats_before_exit(int code, Datum arg)
{
	publish_all();
}

void
kvs_stats_request_shmem(void)
{
	RequestAddinShmemSpace(hash_estimate_size(KVS_STATS_MAX_STORES, sizeof(SharedStat)));
	RequestNamedLWLockTranche("kvstore_stats", 1);
}

void
kvs_stats_startup_shmem(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(SharedStatKey);
	ctl.entrysize = sizeof(SharedStat);
	shared_stats = ShmemInitHash("kvstore stats", KVS_STATS_MAX_STORES, KVS_STATS_MAX_STORES, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	shared_stats_lock = &GetNamedLWLockTranche("kvstore_stats")->lock;
}

void
kvs_stats_init(void)
{
	RegisterXactCallback(stats_xact_callback, NULL);
}

/* ---- SQL ---- */

/* kvstore.stat_stores(): one row for each table of this database that was counted: relid, then the counts in the order of KvsCounter. */
PG_FUNCTION_INFO_V1(kvstore_stat_stores);
Datum
kvstore_stat_stores(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HASH_SEQ_STATUS status;
	SharedStat *shared;

	InitMaterializedSRF(fcinfo, 0);
	if (shared_stats == NULL)
		return (Datum) 0;

	/* This session's own counts must not be missing from what it is shown. */
	publish_all();
	LWLockAcquire(shared_stats_lock, LW_SHARED);
	hash_seq_init(&status, shared_stats);
	while ((shared = hash_seq_search(&status)) != NULL)
	{
		Datum		values[1 + KVS_COUNTERS];
		bool		nulls[1 + KVS_COUNTERS] = {false};

		if (shared->key.database != MyDatabaseId)
			continue;
		values[0] = ObjectIdGetDatum(shared->key.relid);
		for (int i = 0; i < KVS_COUNTERS; i++)
			values[1 + i] = Int64GetDatum((int64) pg_atomic_read_u64(&shared->counts[i]));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	LWLockRelease(shared_stats_lock);
	return (Datum) 0;
}
