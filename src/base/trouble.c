/*
 * trouble.c
 *		Tables that the worker could not work on: what is known of each, in shared memory.
 *
 * A table is here while code of its owner runs in a worker, and from a failed step over it to the
 * next that succeeds.  It is backed off for a delay that doubles with each failure.  A step takes
 * half as many rows as the failed one had reached.  SUCCESSES steps that succeed double the rows
 * again.
 *
 * Where only some rows fail, those rows are backed off, not the table.  The table stays here until
 * they have been tried again.
 *
 * The table is entered before the work begins.  So whatever ends the worker, the next one knows
 * which table its predecessor was at, and backs it off first of all.
 *
 * There is room for KVS_TROUBLES tables.  When there are more, the one that may be tried again
 * soonest is forgotten.  All that it loses is the rest of its delay.
 */
#include "postgres.h"

#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "base/guc.h"
#include "base/rights.h"
#include "base/shmem.h"
#include "base/trouble.h"

/* Tables, all databases. */
#define KVS_TROUBLES	1024

/*
 * How long a table is backed off, in milliseconds: at first, and at most, after an ERROR and after
 * a step that took too long.
 */
#define FIRST_DELAY		1000
#define LAST_DELAY		(60 * 1000)
#define LAST_DELAY_SLOW	(10 * 60 * 1000)

/* After so many steps that succeeded a step takes twice as many rows. */
#define SUCCESSES		16

/* The trouble of a table is logged at most so often, in milliseconds. */
#define TELL_INTERVAL	(10 * 60 * 1000)

/* All of it under the lock. */
typedef struct Trouble
{
	Oid			database;
	Oid			relid;
	/* rows that a step has come to which runs code of the owner; 0: none does */
	int64		working;
	int			failures;		/* in a row */
	int			successes;		/* in a row, since it had any failures or more rows */
	int			sqlstate;		/* of the last one */
	bool		slow;			/* the last one took too long */
	bool		rows_only;		/* only rows failed: they are backed off, the table is not */
	int64		rows;			/* that a step may take; 0: no limit */
	TimestampTz since;			/* the first failure */
	TimestampTz until;			/* the table is backed off */
	TimestampTz told;			/* when a log line said so */
} Trouble;

typedef struct TroubleShared
{
	LWLock	   *lock;
	int			count;
	Trouble		items[KVS_TROUBLES];
} TroubleShared;

static TroubleShared *shared = NULL;

/* ---- The list; its lock is held ---- */

static Trouble *
find(Oid relid)
{
	for (int i = 0; i < shared->count; i++)
		if (shared->items[i].relid == relid && shared->items[i].database == MyDatabaseId)
			return &shared->items[i];
	return NULL;
}

static void
forget(Trouble *trouble)
{
	*trouble = shared->items[--shared->count];
}

/* The one that may be tried again soonest, of those that no worker is at. */
static Trouble *
find_least(void)
{
	Trouble    *result = NULL;

	for (int i = 0; i < shared->count; i++)
		if (shared->items[i].working == 0 && (result == NULL || shared->items[i].until < result->until))
			result = &shared->items[i];
	return result;
}

static Trouble *
get(Oid relid)
{
	Trouble    *trouble = find(relid);

	if (trouble != NULL)
		return trouble;
	if (shared->count == KVS_TROUBLES)
		forget(find_least());
	trouble = &shared->items[shared->count++];
	*trouble = (Trouble) {.database = MyDatabaseId, .relid = relid, .until = DT_NOBEGIN, .told = DT_NOBEGIN};
	return trouble;
}

/* ---- Work ---- */

void
kvs_trouble_begin_work(Oid relid, int64 rows)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	get(relid)->working = Max(rows, 1);
	LWLockRelease(shared->lock);
}

void
kvs_trouble_end_work(Oid relid, bool well)
{
	Trouble    *trouble;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	trouble = find(relid);
	if (trouble != NULL)
	{
		trouble->working = 0;
		if (well && !(trouble->rows_only && GetCurrentTimestamp() < trouble->until))
		{
			trouble->rows_only = false;
			trouble->failures = 0;
			trouble->until = DT_NOBEGIN;
			if (++trouble->successes >= SUCCESSES)
			{
				trouble->successes = 0;
				trouble->rows = trouble->rows > KVS_MAX_SWEEP_BATCH ? 0 : 2 * trouble->rows;
			}
		}
		if (trouble->failures == 0 && trouble->rows == 0)
			forget(trouble);
	}
	LWLockRelease(shared->lock);
}

/* Returns whether it is news.  The lock is held. */
static bool
fail(Trouble *trouble, int sqlstate, bool slow, int64 rows)
{
	TimestampTz now = GetCurrentTimestamp();
	int			last = slow ? LAST_DELAY_SLOW : LAST_DELAY;
	int			delay = Min(FIRST_DELAY << Min(trouble->failures, 10), last);
	bool		tell = trouble->failures == 0 &&
		(trouble->told == DT_NOBEGIN || TimestampDifferenceExceeds(trouble->told, now, TELL_INTERVAL));

	if (trouble->failures == 0)
		trouble->since = now;
	trouble->working = 0;
	trouble->failures++;
	trouble->successes = 0;
	trouble->sqlstate = sqlstate;
	trouble->slow = slow;
	trouble->rows_only = false;
	if (rows > 0)
		trouble->rows = Max(rows / 2, 1);
	trouble->until = TimestampTzPlusMilliseconds(now, delay);
	if (tell)
		trouble->told = now;
	return tell;
}

TimestampTz
kvs_trouble_fail(Oid relid, int sqlstate, bool slow, int64 rows, bool *tell)
{
	TimestampTz until;
	Trouble    *trouble;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	trouble = get(relid);
	*tell = fail(trouble, sqlstate, slow, rows);
	until = trouble->until;
	LWLockRelease(shared->lock);
	return until;
}

TimestampTz
kvs_trouble_fail_row(Oid relid, int sqlstate, bool *tell)
{
	TimestampTz until;
	Trouble    *trouble;
	int64		working;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	trouble = get(relid);
	working = trouble->working;
	*tell = fail(trouble, sqlstate, false, 0);
	trouble->working = working;
	trouble->rows_only = true;
	until = trouble->until;
	LWLockRelease(shared->lock);
	return until;
}

Oid
kvs_trouble_take_unfinished(bool *tell)
{
	Oid			relid = InvalidOid;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->count && !OidIsValid(relid); i++)
	{
		Trouble    *trouble = &shared->items[i];

		if (trouble->database != MyDatabaseId || trouble->working == 0)
			continue;
		*tell = fail(trouble, ERRCODE_QUERY_CANCELED, true, trouble->working);
		relid = trouble->relid;
	}
	LWLockRelease(shared->lock);
	return relid;
}

TimestampTz
kvs_trouble_until(Oid relid)
{
	TimestampTz result = DT_NOBEGIN;
	Trouble    *trouble;

	LWLockAcquire(shared->lock, LW_SHARED);
	trouble = find(relid);
	if (trouble != NULL && !trouble->rows_only)
		result = trouble->until;
	LWLockRelease(shared->lock);
	/* one so far away was written before the clock was set back */
	return result > TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LAST_DELAY_SLOW) ? DT_NOBEGIN : result;
}

bool
kvs_trouble_is_slow(Oid relid)
{
	bool		result;
	Trouble    *trouble;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	trouble = find(relid);
	result = trouble != NULL && trouble->slow && trouble->until > GetCurrentTimestamp();
	LWLockRelease(shared->lock);
	return result;
}

bool
kvs_trouble_is_known(Oid relid)
{
	bool		result;
	Trouble    *trouble;

	LWLockAcquire(shared->lock, LW_SHARED);
	trouble = find(relid);
	result = trouble != NULL && (trouble->failures > 0 || trouble->rows > 0);
	LWLockRelease(shared->lock);
	return result;
}

int64
kvs_trouble_rows(Oid relid, int64 max)
{
	Trouble    *trouble;

	LWLockAcquire(shared->lock, LW_SHARED);
	trouble = find(relid);
	if (trouble != NULL && trouble->rows > 0)
		max = Min(max, trouble->rows);
	LWLockRelease(shared->lock);
	return max;
}

/* ---- Forgetting ---- */

/*
 * Copy the entries of this database, since catalogs must not be read under the lock.  Returns how
 * many.
 */
static int
copy(Trouble *items)
{
	int			count = 0;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->count; i++)
		if (shared->items[i].database == MyDatabaseId)
			items[count++] = shared->items[i];
	LWLockRelease(shared->lock);
	return count;
}

void
kvs_trouble_forget_missing(void)
{
	Trouble    *items = palloc(sizeof(Trouble) * KVS_TROUBLES);
	int			count = copy(items);

	for (int i = 0; i < count; i++)
	{
		Trouble    *trouble;

		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(items[i].relid)))
			continue;
		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		trouble = find(items[i].relid);
		if (trouble != NULL)
			forget(trouble);
		LWLockRelease(shared->lock);
	}
	pfree(items);
}

void
kvs_trouble_forget_database(Oid database)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = shared->count - 1; i >= 0; i--)
		if (shared->items[i].database == database)
			forget(&shared->items[i]);
	LWLockRelease(shared->lock);
}

/* ---- Shared memory ---- */

static void
request_shmem(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(TroubleShared)));
	RequestNamedLWLockTranche("kvstore_trouble", 1);
}

static void
startup_shmem(void)
{
	bool		found;

	shared = ShmemInitStruct("kvstore trouble", sizeof(TroubleShared), &found);
	if (found)
		return;
	memset(shared, 0, sizeof(TroubleShared));
	shared->lock = &GetNamedLWLockTranche("kvstore_trouble")->lock;
}

void
kvs_trouble_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
}

/* ---- SQL ---- */

/* Tables that kv_health() names; it counts the others. */
#define NAMED	10

static int
compare_since(const void *a, const void *b)
{
	TimestampTz x = ((const Trouble *) a)->since;
	TimestampTz y = ((const Trouble *) b)->since;

	return x < y ? -1 : x > y ? 1 : 0;
}

/* The table, by the name that users know, and why. */
static void
append_trouble(StringInfo text, const char *table, const Trouble *trouble)
{
	const char *noun = table[0] == 'q' ? "queue" : table[0] == 'p' ? "snapshot store" : "store";

	appendStringInfo(text, "%s%s \"%s\" (", text->len > 0 ? ", " : "the worker sets aside ", noun, table + 2);
	if (trouble->slow)
		appendStringInfoString(text, "it took longer than kvstore.step_timeout)");
	else
		appendStringInfo(text, "SQLSTATE %s)", unpack_sql_state(trouble->sqlstate));
}

/*
 * kvstore.trouble_reason() returns text: what kv_health() says of kvstore.troubles(), the oldest
 * first; NULL: there are none
 */
PG_FUNCTION_INFO_V1(kvstore_trouble_reason);
Datum
kvstore_trouble_reason(PG_FUNCTION_ARGS)
{
	StringInfoData text;
	Trouble    *items;
	int			count;
	int			found = 0;

	if (shared == NULL || shared->count == 0)
		PG_RETURN_NULL();
	items = palloc(sizeof(Trouble) * KVS_TROUBLES);
	count = copy(items);
	qsort(items, count, sizeof(Trouble), compare_since);
	initStringInfo(&text);
	for (int i = 0; i < count; i++)
	{
		char	   *table = items[i].failures > 0 ? get_rel_name(items[i].relid) : NULL;

		if (table != NULL && strlen(table) > 2 && ++found <= NAMED)
			append_trouble(&text, table, &items[i]);
	}
	if (found == 0)
		PG_RETURN_NULL();
	if (found > NAMED)
		appendStringInfo(&text, " and %d more", found - NAMED);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(text.data, text.len));
}

/*
 * kvstore.troubles(): the tables of this database that the worker backs off.  Columns: table,
 * failures in a row, SQLSTATE of the last one, since when, until when
 */
PG_FUNCTION_INFO_V1(kvstore_troubles);
Datum
kvstore_troubles(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Trouble    *items = palloc(sizeof(Trouble) * KVS_TROUBLES);
	int			count = shared ? copy(items) : 0;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < count; i++)
	{
		Datum		values[] = {
			ObjectIdGetDatum(items[i].relid), Int64GetDatum(items[i].failures),
			CStringGetTextDatum(unpack_sql_state(items[i].sqlstate)), TimestampTzGetDatum(items[i].since),
			TimestampTzGetDatum(items[i].until)
		};
		bool		nulls[lengthof(values)] = {false};

		if (items[i].failures > 0 && kvs_rights_may_see(items[i].relid))
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
