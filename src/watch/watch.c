/*
 * watch.c
 *		SQL functions that tell when entries differ from what the client knows: kv_watch,
 *		kv_wait_watch.
 *
 * It looks at the entries themselves, with a new snapshot each time.  So it needs no position,
 * honours row-level security, and works on a standby too.  There nobody wakes it, so it looks every
 * kvstore.fallback_poll.  It tells of an expiry when its time comes, as it waits for the clock,
 * too.
 *
 * kv_watch gives those entries, but a statement holds a snapshot as long as it runs.  The procedure
 * kv_wait_watch waits without one, and gives nothing: the client reads afterwards.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "base/args.h"
#include "base/array.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "feed/feed.h"
#include "feed/wait.h"
#include "key/keyargs.h"
#include "kv/entry.h"
#include "store/scan.h"

typedef struct Watch
{
	KvsWait		wait;			/* must be first */
	text	   *store_name;
	bool		gives;			/* else it is enough to know that there is one */
	KvsRows		rows;
	Datum	   *keys;
	int			count;
	Datum	   *known;			/* versionstamps */
} Watch;

/* ---- Looking ---- */

static void
give(Watch *watch, const KvsKey *key, KvsRow *row)
{
	/* the snapshot that keeps what lies out of line ends with the look */
	if (row != NULL)
	{
		kvs_content_check(&row->content, row->key, row->key_size);
		row->content.datum = PointerGetDatum(PG_DETOAST_DATUM(row->content.datum));
	}
	kvs_entry_give_row(&watch->rows, KvsKeyBytes(key), key->size, row);
}

/* Give what differs; false: nothing does. */
static bool
look(KvsWait *wait)
{
	Watch	   *watch = (Watch *) wait;
	bool		found = false;
	KvsScan		scan;

	PushActiveSnapshot(IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : GetLatestSnapshot());
	kvs_scan_begin(&scan, watch->store_name, GetCurrentTimestamp());
	wait->relid = scan.store->relid;
	for (int i = 0; i < watch->count; i++)
	{
		KvsKey		key;
		KvsRow		row;
		bool		present;

		CHECK_FOR_INTERRUPTS();
		kvs_key_from_datum(&key, watch->keys[i]);
		present = kvs_scan_find(&scan, &key, &row);
		if (present)
			wait->until = Min(wait->until, row.expires_at);
		if (watch->known != NULL && (present ? row.versionstamp : 0) == DatumGetInt64(watch->known[i]))
			continue;
		found = true;
		if (!watch->gives)
			break;
		give(watch, &key, present ? &row : NULL);
	}
	kvs_stats_add(scan.store->stat, KVS_COUNT_GETS, watch->count);
	kvs_scan_end(&scan);
	PopActiveSnapshot();
	return found;
}

/* Each key; too many of them: any key of the store. */
static int
aim(KvsWait *wait, KvsWaitTarget *targets)
{
	Watch	   *watch = (Watch *) wait;

	if (watch->count > KVS_WAIT_TARGETS)
	{
		targets[0].kind = KVS_WAIT_PREFIX;
		targets[0].relid = wait->relid;
		return 1;
	}
	for (int i = 0; i < watch->count; i++)
	{
		struct varlena *key = (struct varlena *) DatumGetPointer(watch->keys[i]);

		targets[i].kind = KVS_WAIT_KEY;
		targets[i].relid = wait->relid;
		targets[i].hash = kvs_feed_hash(wait->relid, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	}
	return watch->count;
}

/* ---- Arguments ---- */

static void
read_known(FunctionCallInfo fcinfo, int arg, Watch *watch)
{
	bool	   *nulls;
	int			count;

	watch->known = NULL;
	if (PG_ARGISNULL(arg))
		return;
	count = kvs_array_read(PG_GETARG_ARRAYTYPE_P(arg), "versionstamps", &watch->known, &nulls);
	if (count != watch->count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("keys and versionstamps must have the same length"),
				 errdetail("There are %d keys and %d versionstamps.", watch->count, count)));
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			watch->known[i] = Int64GetDatum(0);
		if (DatumGetInt64(watch->known[i]) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("versionstamp must not be negative")));
	}
}

/* (keys, versionstamps, wait, store) */
static Watch *
begin_watch(FunctionCallInfo fcinfo, KvsForm form)
{
	Watch	   *watch = palloc0(sizeof(Watch));

	watch->count = form == KVS_FORM_TEXT ? kvs_keyargs_texts(fcinfo, 0, &watch->keys) :
		kvs_keyargs_paths(fcinfo, 0, &watch->keys);
	read_known(fcinfo, 1, watch);
	watch->wait.deadline = kvs_wait_deadline(fcinfo, 2, 30);
	watch->store_name = kvs_args_text(fcinfo, 3);
	watch->wait.look = look;
	watch->wait.aim = aim;
	return watch;
}

static Datum
watch(FunctionCallInfo fcinfo, KvsForm form)
{
	Watch	   *watch;

	kvs_shmem_require("kv_watch()");
	watch = begin_watch(fcinfo, form);
	if (IsolationUsesXactSnapshot() && watch->wait.deadline > GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("kv_watch() can only wait at READ COMMITTED"),
				 errhint("This transaction cannot see what is committed after its snapshot was taken.")));
	watch->gives = true;
	kvs_entry_begin_rows(fcinfo, form, &watch->rows);
	kvs_wait_for(&watch->wait);
	return (Datum) 0;
}

static Datum
wait_watch(FunctionCallInfo fcinfo, KvsForm form)
{
	kvs_shmem_require("kv_wait_watch()");
	kvs_wait_check_context(fcinfo, "kv_wait_watch()", "kv_watch()");
	kvs_wait_in_procedure(&begin_watch(fcinfo, form)->wait);
	PG_RETURN_NULL();
}

/* ---- SQL ---- */

PG_FUNCTION_INFO_V1(kvstore_watch);
Datum
kvstore_watch(PG_FUNCTION_ARGS)
{
	return watch(fcinfo, KVS_FORM_TEXT);
}

PG_FUNCTION_INFO_V1(kvstore_watch_paths);
Datum
kvstore_watch_paths(PG_FUNCTION_ARGS)
{
	return watch(fcinfo, KVS_FORM_PATH);
}

PG_FUNCTION_INFO_V1(kvstore_wait_watch);
Datum
kvstore_wait_watch(PG_FUNCTION_ARGS)
{
	return wait_watch(fcinfo, KVS_FORM_TEXT);
}

PG_FUNCTION_INFO_V1(kvstore_wait_watch_paths);
Datum
kvstore_wait_watch_paths(PG_FUNCTION_ARGS)
{
	return wait_watch(fcinfo, KVS_FORM_PATH);
}
