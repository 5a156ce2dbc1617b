/*
 * stats.c
 *		Counts for each store, each queue and for the database: pending ones in backend memory,
 *		published ones in shared memory.
 *
 * A call only adds to backend memory.  The pending counts are added to one shared entry for each
 * table: at the end of a transaction, at most once a second, and at exit.  Without preload nothing
 * is published, and nothing is shown.
 *
 * What belongs to no table, such as errors, is counted under relation 0, for the database.  An
 * error is counted when it reaches the server's log, through a hook, if its statement has used
 * kvstore.  That includes errors that PostgreSQL itself raised, such as a serialization failure.
 *
 * The shared hash has a fixed size, so publishing from a transaction callback allocates nothing and
 * cannot fail.  When it is full, the counts of further tables are dropped.  The worker, the
 * launcher and kv_maintain() remove the entries of tables and databases that are gone.  The lock
 * protects the hash.  The counts are atomics, so publishing needs the lock in share mode only.  At
 * a clean stop the postmaster writes all of it to a file (statefile.c).  The names of the counters
 * are in it, so another version of this library reads what it knows.
 */
#include "postgres.h"

#include "access/xact.h"
#include "funcapi.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/rights.h"
#include "base/shmem.h"
#include "base/statefile.h"
#include "base/stats.h"
#include "base/xact.h"

/* Publish at most this often, in milliseconds. */
#define KVS_STATS_INTERVAL	1000

/* Classes of SQLSTATE that are told apart; the last is for all others. */
static const char *const error_classes[] = {"0A", "22", "23", "25", "40", "42", "53", "54", "55", "57", "KV", "other"};

StaticAssertDecl(lengthof(error_classes) == KVS_ERROR_CLASSES, "as many error classes as counters for them");

/* Name, kind and help of each counter; those of errors have the class for a name, and no row. */
static const struct
{
	const char *kind;
	const char *name;
	const char *help;
}			counters[KVS_COUNT_ERRORS] = {
	[KVS_COUNT_GETS] = {"store", "gets", "Keys asked for."},
	[KVS_COUNT_HITS] = {"store", "hits", "Keys asked for and found."},
	[KVS_COUNT_LISTS] = {"store", "lists", "Listings, counts and exports."},
	[KVS_COUNT_SETS] = {"store", "sets", "Entries written."},
	[KVS_COUNT_DELETES] = {"store", "deletes", "Entries deleted."},
	[KVS_COUNT_CONFLICTS] = {"store", "conflicts", "Writes refused by if_version or a check."},
	[KVS_COUNT_EXPIRED] = {"store", "expired", "Expired entries removed."},
	[KVS_COUNT_SWEPT] = {"store", "swept", "Sweeps of the store, each one transaction."},
	[KVS_COUNT_OVERRUNS] = {"store", "overruns", "Followers of changes who were told to list again."},
	[KVS_COUNT_QUEUE_ENQUEUED] = {"queue", "queue_enqueued", "Messages sent, dead letters sent again too."},
	[KVS_COUNT_QUEUE_DELIVERED] = {"queue", "queue_delivered", "Deliveries."},
	[KVS_COUNT_QUEUE_REDELIVERED] = {"queue", "queue_redelivered", "Deliveries of messages that had failed or been rolled back before."},
	[KVS_COUNT_QUEUE_ACKED] = {"queue", "queue_acked", "Messages acknowledged."},
	[KVS_COUNT_QUEUE_RETRIED] = {"queue", "queue_retried", "Deliveries that failed, by a nack or a lapsed lease, and are tried again."},
	[KVS_COUNT_QUEUE_RELEASED] = {"queue", "queue_released", "Deliveries given back without being counted."},
	[KVS_COUNT_QUEUE_DEAD] = {"queue", "queue_dead", "Messages given up."},
	[KVS_COUNT_QUEUE_EXPIRED] = {"queue", "queue_expired", "Messages removed because their ttl was over."},
	[KVS_COUNT_QUEUE_CANCELLED] = {"queue", "queue_cancelled", "Messages deleted by kv_cancel."},
	[KVS_COUNT_QUEUE_PURGED] = {"queue", "queue_purged", "Messages deleted by kv_purge_queue."},
	[KVS_COUNT_QUEUE_FORGOTTEN] = {"queue", "queue_failures_forgotten", "Failed deliveries that could not be written down, and were forgotten to make room."},
	[KVS_COUNT_QUEUE_WAITS] = {"queue", "queue_waits", "Calls that had to wait for a message."},
	[KVS_COUNT_QUEUE_WAKEUPS] = {"queue", "queue_wakeups", "Sleeps of those calls that a message has ended."},
};

typedef struct SharedStatKey
{
	Oid			database;
	Oid			relid;
} SharedStatKey;

typedef struct SharedStat
{
	SharedStatKey key;			/* must be first */
	TimestampTz since;			/* when the counts were 0; written under the lock */
	pg_atomic_uint64 counts[KVS_COUNTERS];
} SharedStat;

bool		kvs_stats_any_pending = false;
TimestampTz kvs_stats_used_at = 0;

static HTAB *local_stats = NULL;	/* relid -> KvsStat */
static HTAB *shared_stats = NULL;	/* SharedStatKey -> SharedStat */
static LWLock *shared_stats_lock = NULL;
static TimestampTz last_publish = 0;
static bool exit_callback_registered = false;

/*
 * The counts of the database.  They are not in the hash, because counting an error must not
 * allocate.
 */
static KvsStat database_stat;
static emit_log_hook_type previous_log_hook = NULL;

static void stats_before_exit(int code, Datum arg);

static void
register_exit_callback(void)
{
	if (shared_stats == NULL || exit_callback_registered)
		return;
	before_shmem_exit(stats_before_exit, (Datum) 0);
	exit_callback_registered = true;
}

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
	register_exit_callback();
	return stat;
}

void
kvs_stats_forget_local(Oid relid)
{
	if (local_stats != NULL)
		(void) hash_search(local_stats, &relid, HASH_REMOVE, NULL);
}

static void
init_shared(SharedStat *shared, TimestampTz since)
{
	shared->since = since;
	for (int i = 0; i < KVS_COUNTERS; i++)
		pg_atomic_init_u64(&shared->counts[i], 0);
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
			init_shared(shared, GetCurrentTimestamp());
	}
	if (shared != NULL)
		for (int i = 0; i < KVS_COUNTERS; i++)
			if (stat->counts[i] != 0)
				pg_atomic_fetch_add_u64(&shared->counts[i], stat->counts[i]);
	LWLockRelease(shared_stats_lock);
	memset(stat->counts, 0, sizeof(stat->counts));
	stat->pending = false;
}

static void
publish_all(void)
{
	HASH_SEQ_STATUS status;
	KvsStat    *stat;

	kvs_stats_any_pending = false;
	if (shared_stats == NULL)
		return;
	if (database_stat.pending)
		publish_one(&database_stat);
	if (local_stats == NULL)
		return;
	hash_seq_init(&status, local_stats);
	while ((stat = hash_seq_search(&status)) != NULL)
		if (stat->pending)
			publish_one(stat);
}

static void
at_xact(XactEvent event)
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

bool
kvs_stats_read(Oid relid, int64 *counts)
{
	SharedStatKey key = {MyDatabaseId, relid};
	SharedStat *shared;

	if (shared_stats == NULL)
		return false;
	publish_all();
	LWLockAcquire(shared_stats_lock, LW_SHARED);
	shared = hash_search(shared_stats, &key, HASH_FIND, NULL);
	for (int i = 0; i < KVS_COUNTERS; i++)
		counts[i] = shared == NULL ? 0 : (int64) pg_atomic_read_u64(&shared->counts[i]);
	LWLockRelease(shared_stats_lock);
	return true;
}

/* ---- Errors ---- */

static void
count_error(ErrorData *error)
{
	int			sqlstate = error->sqlerrcode;
	char		class[3] = {PGUNSIXBIT(sqlstate), PGUNSIXBIT(sqlstate >> 6), '\0'};
	int			i = 0;

	if (shared_stats == NULL || error->elevel != ERROR || !OidIsValid(MyDatabaseId) ||
		(kvs_stats_used_at != GetCurrentStatementStartTimestamp() && strcmp(class, "KV") != 0))
		return;
	while (i < KVS_ERROR_CLASSES - 1 && strcmp(error_classes[i], class) != 0)
		i++;
	register_exit_callback();
	kvs_stats_add(&database_stat, KVS_COUNT_ERRORS + i, 1);
}

static void
stats_log_hook(ErrorData *error)
{
	count_error(error);
	if (previous_log_hook)
		previous_log_hook(error);
}

/* ---- Forgetting ---- */

/* Up to so many at a time: what is left is for the next time. */
#define FORGET_MAX	1024

void
kvs_stats_forget_missing(void)
{
	HASH_SEQ_STATUS status;
	SharedStat *shared;
	SharedStatKey *keys;
	int			count = 0;

	if (shared_stats == NULL)
		return;
	keys = palloc(sizeof(SharedStatKey) * FORGET_MAX);
	LWLockAcquire(shared_stats_lock, LW_SHARED);
	hash_seq_init(&status, shared_stats);
	while ((shared = hash_seq_search(&status)) != NULL)
		if (shared->key.database == MyDatabaseId && OidIsValid(shared->key.relid) && count < FORGET_MAX)
			keys[count++] = shared->key;
	LWLockRelease(shared_stats_lock);

	for (int i = 0; i < count; i++)
	{
		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(keys[i].relid)))
			continue;
		LWLockAcquire(shared_stats_lock, LW_EXCLUSIVE);
		hash_search(shared_stats, &keys[i], HASH_REMOVE, NULL);
		LWLockRelease(shared_stats_lock);
	}
	pfree(keys);
}

void
kvs_stats_forget_database(Oid database)
{
	HASH_SEQ_STATUS status;
	SharedStat *shared;

	LWLockAcquire(shared_stats_lock, LW_EXCLUSIVE);
	hash_seq_init(&status, shared_stats);
	while ((shared = hash_seq_search(&status)) != NULL)
		if (shared->key.database == database)
			hash_search(shared_stats, &shared->key, HASH_REMOVE, NULL);
	LWLockRelease(shared_stats_lock);
}

/*
 * ---- Across a restart: names of the counters, then entries with their counts.  The postmaster is
 * alone then. ----
 */

static const char *
counter_name(int i)
{
	return i < KVS_COUNT_ERRORS ? counters[i].name : error_classes[i - KVS_COUNT_ERRORS];
}

static void
stats_write(StringInfo out)
{
	HASH_SEQ_STATUS status;
	SharedStat *shared;

	pq_sendint32(out, KVS_COUNTERS);
	for (int i = 0; i < KVS_COUNTERS; i++)
		pq_sendstring(out, counter_name(i));
	hash_seq_init(&status, shared_stats);
	while ((shared = hash_seq_search(&status)) != NULL)
	{
		pq_sendint32(out, shared->key.database);
		pq_sendint32(out, shared->key.relid);
		pq_sendint64(out, shared->since);
		for (int i = 0; i < KVS_COUNTERS; i++)
			pq_sendint64(out, pg_atomic_read_u64(&shared->counts[i]));
	}
}

/* The counter of a name that was written, -1: there is none any more. */
static int
find_counter(const char *name)
{
	for (int i = 0; i < KVS_COUNTERS; i++)
		if (strcmp(counter_name(i), name) == 0)
			return i;
	return -1;
}

static void
stats_read(StringInfo in)
{
	int			count = pq_getmsgint(in, 4);
	int		   *map = palloc(sizeof(int) * count);

	for (int i = 0; i < count; i++)
		map[i] = find_counter(pq_getmsgrawstring(in));
	while (in->cursor < in->len)
	{
		SharedStatKey key;
		SharedStat *shared;
		TimestampTz since;
		bool		found;

		key.database = pq_getmsgint(in, 4);
		key.relid = pq_getmsgint(in, 4);
		since = pq_getmsgint64(in);
		shared = hash_search(shared_stats, &key, HASH_ENTER_NULL, &found);
		if (shared != NULL)
			init_shared(shared, since);
		for (int i = 0; i < count; i++)
		{
			uint64		value = pq_getmsgint64(in);

			if (shared != NULL && map[i] >= 0)
				pg_atomic_write_u64(&shared->counts[map[i]], value);
		}
	}
	pfree(map);
}

/* ---- Initialisation ---- */

static void
request_shmem(void)
{
	RequestAddinShmemSpace(hash_estimate_size(KVS_STATS_MAX_STORES, sizeof(SharedStat)));
	RequestNamedLWLockTranche("kvstore_stats", 1);
}

static void
startup_shmem(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(SharedStatKey);
	ctl.entrysize = sizeof(SharedStat);
	shared_stats = ShmemInitHash("kvstore stats", KVS_STATS_MAX_STORES, KVS_STATS_MAX_STORES, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	shared_stats_lock = &GetNamedLWLockTranche("kvstore_stats")->lock;
	kvs_statefile_add("statistics", stats_write, stats_read);
}

void
kvs_stats_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
	kvs_xact_add(KVS_XACT_STATS, at_xact, NULL);
	previous_log_hook = emit_log_hook;
	emit_log_hook = stats_log_hook;
}

/* ---- SQL ---- */

/*
 * kvstore.stat_counters(): kind, name and help of each counter of a kind that has a table; errors
 * have their class for a name
 */
PG_FUNCTION_INFO_V1(kvstore_stat_counters);
Datum
kvstore_stat_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < KVS_COUNTERS; i++)
	{
		bool		is_error = i >= KVS_COUNT_ERRORS;
		Datum		values[3] = {
			CStringGetTextDatum(is_error ? "error" : counters[i].kind), CStringGetTextDatum(counter_name(i)),
			CStringGetTextDatum(is_error ? "Errors of statements that used kvstore, by class of SQLSTATE." : counters[i].help)
		};
		bool		nulls[3] = {false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * The entries of this database; returns how many.  Each count is right, but they may be of two
 * moments.
 */
static int
copy_stats(SharedStat *copies, int max)
{
	HASH_SEQ_STATUS status;
	SharedStat *shared;
	int			count = 0;

	LWLockAcquire(shared_stats_lock, LW_SHARED);
	hash_seq_init(&status, shared_stats);
	while ((shared = hash_seq_search(&status)) != NULL)
		if (shared->key.database == MyDatabaseId && count < max)
			memcpy(&copies[count++], shared, sizeof(SharedStat));
	LWLockRelease(shared_stats_lock);
	return count;
}

/*
 * kvstore.stat_counts(): a row for each table of this database that was counted (0: the database)
 * and each counter: relid, counter, count, since
 */
PG_FUNCTION_INFO_V1(kvstore_stat_counts);
Datum
kvstore_stat_counts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SharedStat *copies;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (shared_stats == NULL)
		return (Datum) 0;

	/* This session's own counts must not be missing from what it is shown. */
	publish_all();
	copies = palloc(sizeof(SharedStat) * KVS_STATS_MAX_STORES * 2);
	count = copy_stats(copies, KVS_STATS_MAX_STORES * 2);
	for (int k = 0; k < count; k++)
	{
		Oid			relid = copies[k].key.relid;

		/* those of the database belong to no table */
		if (OidIsValid(relid) && !kvs_rights_may_see(relid))
			continue;
		for (int i = 0; i < KVS_COUNTERS; i++)
		{
			Datum		values[4] = {
				ObjectIdGetDatum(relid), CStringGetTextDatum(counter_name(i)),
				Int64GetDatum((int64) pg_atomic_read_u64(&copies[k].counts[i])), TimestampTzGetDatum(copies[k].since)
			};
			bool		nulls[4] = {false};

			if (OidIsValid(relid) == (i < KVS_COUNT_ERRORS))
				tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	pfree(copies);
	return (Datum) 0;
}

/*
 * kv_stat_reset() returns boolean: all counts of this database are 0 from now on; false: there are
 * none, without preload
 */
PG_FUNCTION_INFO_V1(kvstore_stat_reset);
Datum
kvstore_stat_reset(PG_FUNCTION_ARGS)
{
	HASH_SEQ_STATUS status;
	SharedStat *shared;
	TimestampTz now = GetCurrentTimestamp();

	if (shared_stats == NULL)
		PG_RETURN_BOOL(false);
	publish_all();
	LWLockAcquire(shared_stats_lock, LW_EXCLUSIVE);
	hash_seq_init(&status, shared_stats);
	while ((shared = hash_seq_search(&status)) != NULL)
		if (shared->key.database == MyDatabaseId)
			init_shared(shared, now);
	LWLockRelease(shared_stats_lock);
	PG_RETURN_BOOL(true);
}
