/*
 * snapshotwrite.c
 *		SQL functions that write snapshots: append, delete, fork, prune.
 *
 * Whoever writes a context holds a lock on it, an advisory one of a class of its own, until the
 * transaction ends.  So within a context the order of seq is that of the commits.  A reader that
 * goes on from the highest seq it has seen misses nothing.  "keep" and "if_latest" are exact.
 * Functions that delete rows of one context in any order cannot deadlock.
 *
 * At REPEATABLE READ the transaction's snapshot may be older than the lock, and what others have
 * appended since is not in it.  So a context is read with the latest snapshot.  If the
 * transaction's own snapshot would give another answer, it gets a 40001, as for an UPDATE.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "base/args.h"
#include "base/compat.h"
#include "base/errors.h"
#include "base/guc.h"
#include "base/stats.h"
#include "kv/snapshot.h"
#include "table/replication.h"

/* Our class of advisory locks, objsubid in pg_locks; PostgreSQL has 1 and 2, absence.c 3. */
#define KVS_LOCK_CLASS_CONTEXT	4

/* Longest context, and longest hash, in bytes. */
#define KVS_SNAPSHOT_NAME_MAX	1024

/* Contexts that are looked for at once by kv_snapshot_prune(). */
#define PRUNE_FETCH		100

/* Lives at the time $1. */
#define LIVES	"(expires_at IS NULL OR expires_at > $1)"

/* ---- Opening, locking ---- */

/*
 * Open the store of an argument for writing; "function" is for 25006.  Roles that have no right to
 * write the table are refused here: they must not hold up those that have.
 */
static void
open_for_write(FunctionCallInfo fcinfo, int store_arg, const char *function, KvsSnapshotStore *store)
{
	PreventCommandIfReadOnly(function);
	kvs_snapshot_open(kvs_args_text(fcinfo, store_arg), RowExclusiveLock, store);
	if (unlikely(kvs_replication_brings(RelationGetRelid(store->rel), true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("snapshot store \"%s\" is a copy that a subscription brings", store->name),
				 errhint("Write on the publisher. To switch over, end the subscription: DROP SUBSCRIPTION.")));
	if (pg_class_aclmask(RelationGetRelid(store->rel), GetUserId(), ACL_INSERT | ACL_DELETE, ACLMASK_ANY) == 0)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, RelationGetRelationName(store->rel));
}

static LOCKTAG
context_tag(const KvsSnapshotStore *store, const text *context)
{
	LOCKTAG		tag;
	uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(context), VARSIZE_ANY_EXHDR(context),
										   RelationGetRelid(store->rel));

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, KVS_LOCK_CLASS_CONTEXT);
	return tag;
}

static void
lock_context(const KvsSnapshotStore *store, const text *context)
{
	LOCKTAG		tag = context_tag(store, context);

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* ---- Statements ---- */

/* The parameters of a statement. */
typedef struct Arguments
{
	int			count;
	Oid			types[8];
	Datum		values[8];
	char		nulls[8];
} Arguments;

static void
add(Arguments *arguments, Oid type, Datum value, bool isnull)
{
	int			i = arguments->count++;

	arguments->types[i] = type;
	arguments->values[i] = value;
	arguments->nulls[i] = isnull ? 'n' : ' ';
}

static void
add_text(Arguments *arguments, const text *value)
{
	add(arguments, TEXTOID, PointerGetDatum(value), value == NULL);
}

static void
add_time(Arguments *arguments, TimestampTz value)
{
	add(arguments, TIMESTAMPTZOID, TimestampTzGetDatum(value), value == DT_NOEND);
}

/*
 * Run a statement as the caller, inside SPI_connect(); "format" has the name of the store as %1$s.
 * "latest": it sees what has been committed so far.  As with foreign keys, it changes no row that
 * the transaction's own snapshot does not see (40001).
 */
static uint64
run(const KvsSnapshotStore *store, const char *format, Arguments *arguments, bool latest)
{
	SPIPlanPtr	plan = SPI_prepare(psprintf(format, store->name), arguments->count, arguments->types);
	int			result;

	if (plan == NULL)
		elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
	result = SPI_execute_snapshot(plan, arguments->values, arguments->nulls,
								  latest ? GetLatestSnapshot() : InvalidSnapshot,
								  latest && IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : InvalidSnapshot,
								  false, true, 0);
	if (result < 0)
		elog(ERROR, "could not run a statement: %s", SPI_result_code_string(result));
	SPI_freeplan(plan);
	return SPI_processed;
}

/* The first column of its first row. */
static Datum
first_column(bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, isnull);
}

/* Has the newest snapshot of a context this hash?  If the hash is '': is there no snapshot? */
static bool
newest_is(const KvsSnapshotStore *store, const text *context, const text *hash, TimestampTz now, bool latest)
{
	Arguments	arguments = {0};
	bool		isnull;

	add_time(&arguments, now);
	add_text(&arguments, context);
	add_text(&arguments, hash);
	if (run(store, "SELECT hash = $3 FROM kvstore.p_%1$s WHERE context = $2 AND " LIVES " ORDER BY seq DESC LIMIT 1",
			&arguments, latest) == 0)
		return VARSIZE_ANY_EXHDR(hash) == 0;
	return VARSIZE_ANY_EXHDR(hash) > 0 && DatumGetBool(first_column(&isnull));
}

/* Which snapshots of a context are deleted: those for which all of this is true. */
typedef struct Removal
{
	const text *context;
	const text *hash;			/* NULL: any */
	int64		keep;			/* not among the last so many */
	TimestampTz before;			/* made before; DT_NOEND: ever */
	TimestampTz now;
} Removal;

/* The context is locked.  Returns how many have gone that others could see. */
static int64
remove_snapshots(const KvsSnapshotStore *store, const Removal *removal)
{
	Arguments	arguments = {0};
	bool		isnull;
	int64		result;

	add_time(&arguments, removal->now);
	add_text(&arguments, removal->context);
	add_text(&arguments, removal->hash);
	add(&arguments, INT8OID, Int64GetDatum(removal->keep), removal->keep == 0);
	add_time(&arguments, removal->before);
	run(store, "WITH gone AS (DELETE FROM kvstore.p_%1$s WHERE context = $2 AND ($3 IS NULL OR hash = $3) "
		"AND ($4 IS NULL OR seq <= (SELECT seq FROM kvstore.p_%1$s WHERE context = $2 AND " LIVES " "
		"ORDER BY seq DESC OFFSET $4 LIMIT 1)) AND ($5 IS NULL OR created_at < $5) RETURNING expires_at) "
		"SELECT count(*) FROM gone WHERE " LIVES, &arguments, true);
	result = DatumGetInt64(first_column(&isnull));
	SPI_freetuptable(SPI_tuptable);
	return result;
}

/*
 * The context has the hash: the expiry of its snapshot is renewed.  If others have come since, it
 * becomes the newest again, for recovery must go on from the state that was appended last.  "$2":
 * one cannot tell whether others have come, so it gets a new number.  The row of an expired one is
 * there until it is swept, and becomes a new one.  Another state under the same hash changes
 * nothing.
 */
#define INSERT_INTO	"INSERT INTO kvstore.p_%1$s AS p (context, hash, state, metadata, created_at, expires_at, state_size) "
#define EXPIRED		"p.expires_at <= $1"
#define ON_CONFLICT " ON CONFLICT (hash, context) DO UPDATE SET expires_at = EXCLUDED.expires_at, " \
	"metadata = CASE WHEN " EXPIRED " THEN EXCLUDED.metadata ELSE COALESCE(EXCLUDED.metadata, p.metadata) END, " \
	"state = CASE WHEN " EXPIRED " THEN EXCLUDED.state ELSE p.state END, " \
	"state_size = CASE WHEN " EXPIRED " THEN EXCLUDED.state_size ELSE p.state_size END, " \
	"created_at = CASE WHEN " EXPIRED " THEN EXCLUDED.created_at ELSE p.created_at END, " \
	"seq = CASE WHEN " EXPIRED " OR $2 OR p.seq < (SELECT max(seq) FROM kvstore.p_%1$s WHERE context = p.context) " \
	"THEN EXCLUDED.seq ELSE p.seq END " \
	"WHERE " EXPIRED " OR p.state::text = EXCLUDED.state::text"

/* ---- Append ---- */

/* A snapshot to be appended. */
typedef struct Snap
{
	text	   *context;
	text	   *hash;
	Jsonb	   *state;
	Jsonb	   *metadata;		/* NULL: none */
	int64		state_size;
	TimestampTz now;
	TimestampTz expires_at;
} Snap;

/* The SHA-256 of a text, in hex. */
static text *
hash_of(const text *document)
{
	bytea	   *digest = DatumGetByteaPP(DirectFunctionCall1(sha256_bytea, PointerGetDatum(document)));
	int			size = VARSIZE_ANY_EXHDR(digest);
	text	   *result = palloc(VARHDRSZ + 2 * size);

	SET_VARSIZE(result, VARHDRSZ + hex_encode(VARDATA_ANY(digest), size, VARDATA(result)));
	return result;
}

static text *
document_of(Jsonb *jsonb)
{
	char	   *str = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	text	   *result = cstring_to_text(str);

	pfree(str);
	return result;
}

static void
check_name_size(const text *name)
{
	if (VARSIZE_ANY_EXHDR(name) > KVS_SNAPSHOT_NAME_MAX)
		ereport(ERROR,
				(errcode(KVS_ERRCODE_TOO_LARGE),
				 errmsg("context and hash may have at most %d bytes each", KVS_SNAPSHOT_NAME_MAX)));
}

static text *
context_arg(FunctionCallInfo fcinfo, int arg, const char *name)
{
	text	   *context = kvs_args_text(fcinfo, arg);

	if (context == NULL)
		kvs_args_report_null(name);
	return context;
}

/* A number of snapshots that stay; 0: not given. */
static int64
keep_arg(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return 0;
	if (PG_GETARG_INT64(arg) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("keep must be at least 1")));
	return PG_GETARG_INT64(arg);
}

/* State, metadata and hash. */
static void
read_content(FunctionCallInfo fcinfo, int state_arg, int metadata_arg, int hash_arg, Snap *snap)
{
	text	   *document;
	int64		size;

	if (PG_ARGISNULL(state_arg))
		kvs_args_report_null("state");
	snap->state = PG_GETARG_JSONB_P(state_arg);
	snap->metadata = PG_ARGISNULL(metadata_arg) ? NULL : PG_GETARG_JSONB_P(metadata_arg);
	document = document_of(snap->state);
	snap->state_size = VARSIZE_ANY_EXHDR(document);
	size = snap->state_size + (snap->metadata ? VARSIZE_ANY_EXHDR(document_of(snap->metadata)) : 0);
	if (size > kvs_guc_max_value_size)
		ereport(ERROR,
				(errcode(KVS_ERRCODE_TOO_LARGE),
				 errmsg("snapshot of %lld bytes is larger than kvstore.max_value_size", (long long) size),
				 errhint("Raise kvstore.max_value_size, or keep large parts elsewhere.")));
	snap->hash = PG_ARGISNULL(hash_arg) ? hash_of(document) : PG_GETARG_TEXT_PP(hash_arg);
	check_name_size(snap->hash);
	pfree(document);
}

/* Nothing was written: say why. */
static void
report_unwritten(const KvsSnapshotStore *store, const Snap *snap)
{
	Arguments	arguments = {0};

	add_time(&arguments, snap->now);
	add_text(&arguments, snap->context);
	add_text(&arguments, snap->hash);
	add(&arguments, JSONBOID, JsonbPGetDatum(snap->state), false);
	if (run(store, "SELECT FROM kvstore.p_%1$s WHERE context = $2 AND hash = $3 AND state::text <> $4::text AND " LIVES,
			&arguments, true) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("the context has another state under this hash"),
				 errhint("Give each state a hash of its own, or leave hash out: then it is computed from the state.")));
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("a trigger on table \"kvstore.p_%s\" has skipped the snapshot", store->name),
			 errhint("Let the trigger raise an error where a snapshot must not be appended.")));
}

static void
append(const KvsSnapshotStore *store, const Snap *snap)
{
	Arguments	arguments = {0};
	bool		isnull;
	bool		unsure = IsolationUsesXactSnapshot() ||
		check_enable_rls(RelationGetRelid(store->rel), InvalidOid, true) == RLS_ENABLED;

	add_time(&arguments, snap->now);
	add(&arguments, BOOLOID, BoolGetDatum(unsure), false);
	add_text(&arguments, snap->context);
	add_text(&arguments, snap->hash);
	add(&arguments, JSONBOID, JsonbPGetDatum(snap->state), false);
	add(&arguments, JSONBOID, JsonbPGetDatum(snap->metadata), snap->metadata == NULL);
	add_time(&arguments, snap->expires_at);
	add(&arguments, INT8OID, Int64GetDatum(snap->state_size), false);
	if (run(store, INSERT_INTO "VALUES ($3, $4, $5, $6, $1, $7, $8)" ON_CONFLICT
			" RETURNING context = $3 AND hash = $4", &arguments, false) == 0)
		report_unwritten(store, snap);
	if (!DatumGetBool(first_column(&isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger on table \"kvstore.p_%s\" has changed the context or hash of the snapshot", store->name),
				 errhint("Let the trigger leave both alone.")));
}

/* Is the context's newest snapshot what the caller goes on from? */
static bool
goes_on(const KvsSnapshotStore *store, const Snap *snap, const text *if_latest)
{
	if (newest_is(store, snap->context, if_latest, snap->now, true))
		return true;
	if (IsolationUsesXactSnapshot() && newest_is(store, snap->context, if_latest, snap->now, false))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update"),
				 errdetail("The context has a newer snapshot than this transaction sees.")));
	return false;
}

/* kv_snapshot_append(context, state, ttl, metadata, hash, keep, store, if_latest) returns text */
PG_FUNCTION_INFO_V1(kvstore_snapshot_append);
Datum
kvstore_snapshot_append(PG_FUNCTION_ARGS)
{
	KvsSnapshotStore store;
	Snap		snap;
	int64		keep;
	text	   *if_latest = kvs_args_text(fcinfo, 7);
	bool		appends;

	/* an error about an argument counts, too */
	kvs_stats_used();
	keep = keep_arg(fcinfo, 5);
	snap.context = context_arg(fcinfo, 0, "context");
	check_name_size(snap.context);
	read_content(fcinfo, 1, 3, 4, &snap);
	open_for_write(fcinfo, 6, "kv_snapshot_append()", &store);
	lock_context(&store, snap.context);

	snap.now = GetCurrentTimestamp();
	snap.expires_at = DT_NOEND;
	if (!PG_ARGISNULL(2))
		snap.expires_at = kvs_args_add_interval(snap.now, PG_GETARG_INTERVAL_P(2));
	else if (store.has_default_ttl)
		snap.expires_at = kvs_args_add_interval(snap.now, &store.default_ttl);
	if (snap.expires_at < snap.now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ttl must not be negative")));

	SPI_connect();
	appends = if_latest == NULL || goes_on(&store, &snap, if_latest);
	if (appends)
	{
		append(&store, &snap);
		if (keep > 0)
			(void) remove_snapshots(&store, &(Removal) {.context = snap.context, .keep = keep,
									.before = DT_NOEND, .now = snap.now});
	}
	SPI_finish();
	relation_close(store.rel, NoLock);
	if (!appends)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(snap.hash);
}

/* ---- Delete, prune ---- */

/* kv_snapshot_delete(context, store, hash) returns bigint: how many */
PG_FUNCTION_INFO_V1(kvstore_snapshot_delete);
Datum
kvstore_snapshot_delete(PG_FUNCTION_ARGS)
{
	KvsSnapshotStore store;
	Removal		removal = {.hash = kvs_args_text(fcinfo, 2), .before = DT_NOEND};
	int64		result;

	removal.context = context_arg(fcinfo, 0, "context");
	open_for_write(fcinfo, 1, "kv_snapshot_delete()", &store);
	lock_context(&store, removal.context);
	removal.now = GetCurrentTimestamp();
	SPI_connect();
	result = remove_snapshots(&store, &removal);
	SPI_finish();
	relation_close(store.rel, NoLock);
	PG_RETURN_INT64(result);
}

/* A cursor over the contexts that have something to prune, in order. */
static Portal
open_prunable(const KvsSnapshotStore *store, const Removal *removal)
{
	Arguments	arguments = {0};

	add_time(&arguments, removal->now);
	add(&arguments, INT8OID, Int64GetDatum(removal->keep), removal->keep == 0);
	add_time(&arguments, removal->before);
	return SPI_cursor_open_with_args(NULL, psprintf(
		"SELECT context FROM kvstore.p_%s WHERE " LIVES " GROUP BY context HAVING ($2 IS NULL OR count(*) > $2) "
		"AND ($3 IS NULL OR min(created_at) < $3) ORDER BY context", store->name),
		arguments.count, arguments.types, arguments.values, arguments.nulls, false, 0);
}

/*
 * Each context is locked only while its rows are deleted: there may be more contexts than locks.
 * That is enough, for no number is given here, and whoever wants the same rows waits for ours.
 */
static int64
prune_context(const KvsSnapshotStore *store, Removal *removal)
{
	LOCKTAG		tag = context_tag(store, removal->context);
	int64		result;

	lock_context(store, removal->context);
	result = remove_snapshots(store, removal);
	LockRelease(&tag, ExclusiveLock, false);
	return result;
}

static int64
prune(const KvsSnapshotStore *store, Removal *removal)
{
	Portal		portal = open_prunable(store, removal);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "kvstore prune", ALLOCSET_SMALL_SIZES);
	int64		result = 0;

	while (SPI_cursor_fetch(portal, true, PRUNE_FETCH), SPI_processed > 0)
	{
		SPITupleTable *contexts = SPI_tuptable;
		uint64		count = SPI_processed;

		for (uint64 i = 0; i < count; i++)
		{
			MemoryContext caller = MemoryContextSwitchTo(scratch);
			bool		isnull;

			CHECK_FOR_INTERRUPTS();
			removal->context = DatumGetTextPP(SPI_getbinval(contexts->vals[i], contexts->tupdesc, 1, &isnull));
			result += prune_context(store, removal);
			MemoryContextSwitchTo(caller);
			MemoryContextReset(scratch);
		}
		SPI_freetuptable(contexts);
	}
	SPI_cursor_close(portal);
	return result;
}

/* kv_snapshot_prune(before, keep, store) returns bigint: how many were deleted */
PG_FUNCTION_INFO_V1(kvstore_snapshot_prune);
Datum
kvstore_snapshot_prune(PG_FUNCTION_ARGS)
{
	KvsSnapshotStore store;
	Removal		removal = {.keep = keep_arg(fcinfo, 1)};
	int64		result;

	if (PG_ARGISNULL(0) && removal.keep == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("before or keep must be given"),
				 errhint("Use kv_snapshot_delete() for all snapshots of a context.")));
	removal.before = PG_ARGISNULL(0) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(0);
	open_for_write(fcinfo, 2, "kv_snapshot_prune()", &store);
	removal.now = GetCurrentTimestamp();
	SPI_connect();
	result = prune(&store, &removal);
	SPI_finish();
	relation_close(store.rel, NoLock);
	PG_RETURN_INT64(result);
}

/* ---- Fork ---- */

/* Copy snapshots up to that of a hash, NULL: all, with all they have. */
static int64
fork_context(const KvsSnapshotStore *store, const text *context, const text *into, const text *hash, TimestampTz now)
{
	Arguments	arguments = {0};

	if (!newest_is(store, into, cstring_to_text(""), now, true))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("the context to fork into has snapshots"),
				 errhint("Fork into another one, or call kv_snapshot_delete() first.")));
	add_time(&arguments, now);
	add(&arguments, BOOLOID, BoolGetDatum(true), false);
	add_text(&arguments, context);
	add_text(&arguments, into);
	add_text(&arguments, hash);
	/* numbers are given in the order of the subquery; an expired row may be in the way */
	return run(store, INSERT_INTO "SELECT $4, hash, state, metadata, created_at, expires_at, state_size "
			   "FROM kvstore.p_%1$s WHERE context = $3 AND " LIVES " AND ($5 IS NULL OR seq <= "
			   "(SELECT seq FROM kvstore.p_%1$s WHERE context = $3 AND hash = $5 AND " LIVES ")) ORDER BY seq" ON_CONFLICT,
			   &arguments, false);
}

/* kv_snapshot_fork(context, into_context, hash, store) returns bigint: how many were copied */
PG_FUNCTION_INFO_V1(kvstore_snapshot_fork);
Datum
kvstore_snapshot_fork(PG_FUNCTION_ARGS)
{
	KvsSnapshotStore store;
	text	   *context = context_arg(fcinfo, 0, "context");
	text	   *into = context_arg(fcinfo, 1, "into_context");
	int64		result;

	if (VARSIZE_ANY_EXHDR(context) == VARSIZE_ANY_EXHDR(into) &&
		memcmp(VARDATA_ANY(context), VARDATA_ANY(into), VARSIZE_ANY_EXHDR(into)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a context must not be forked into itself")));
	check_name_size(into);
	open_for_write(fcinfo, 3, "kv_snapshot_fork()", &store);
	lock_context(&store, into);
	SPI_connect();
	result = fork_context(&store, context, into, kvs_args_text(fcinfo, 2), GetCurrentTimestamp());
	SPI_finish();
	relation_close(store.rel, NoLock);
	PG_RETURN_INT64(result);
}
