/*
 * kv.c
 *		SQL functions over one key, and over a given list of keys: get, set, delete, take, expire.
 *
 * Each is thin: read the arguments, read the clock once, call scan.c or store.c, count.  The
 * functions come in pairs, for text and for kvkey.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/array.h"
#include "base/compat.h"
#include "base/stats.h"
#include "key/keyargs.h"
#include "kv/entry.h"
#include "store/store.h"

/* ---- Reading ---- */

/* Copy what an entry holds, as jsonb or bytea, out of the scan; (Datum) 0 if absent. */
static Datum
get_content(FunctionCallInfo fcinfo, KvsForm form, bool want_bytes)
{
	KvsKey		key;
	KvsScan		scan;
	KvsRow		row;
	bool		found;
	Datum		result = (Datum) 0;

	kvs_keyargs_key(fcinfo, 0, form, &key);
	kvs_scan_begin(&scan, kvs_args_text(fcinfo, 1), GetCurrentTimestamp());
	kvs_stats_add(scan.store->stat, KVS_COUNT_GETS, 1);
	found = kvs_scan_find(&scan, &key, &row);
	if (found)
	{
		kvs_content_check(&row.content, row.key, row.key_size);
		kvs_entry_check_kind(row.content.kind, want_bytes);
		kvs_stats_add(scan.store->stat, KVS_COUNT_HITS, 1);
		kvs_content_copy(&row.content);
		result = row.content.datum;
	}
	kvs_scan_end(&scan);
	return result;
}

static Datum
get(FunctionCallInfo fcinfo, KvsForm form)
{
	Datum		result = get_content(fcinfo, form, false);

	if (result == (Datum) 0)
		PG_RETURN_NULL();
	return result;
}

static Datum
get_bytes(FunctionCallInfo fcinfo, KvsForm form)
{
	Datum		result = get_content(fcinfo, form, true);

	if (result == (Datum) 0)
		PG_RETURN_NULL();
	return result;
}

static Datum
exists(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsKey		key;
	KvsScan		scan;
	KvsRow		row;
	bool		found;

	kvs_keyargs_key(fcinfo, 0, form, &key);
	kvs_scan_begin(&scan, kvs_args_text(fcinfo, 1), GetCurrentTimestamp());
	found = kvs_scan_find(&scan, &key, &row);
	kvs_stats_add(scan.store->stat, KVS_COUNT_GETS, 1);
	kvs_stats_add(scan.store->stat, KVS_COUNT_HITS, found ? 1 : 0);
	kvs_scan_end(&scan);
	PG_RETURN_BOOL(found);
}

/* Give the row of one key, whether it is there or not. */
static void
give_entry(KvsScan *scan, KvsRows *rows, const KvsKey *key)
{
	KvsRow		row;
	bool		found = kvs_scan_find(scan, key, &row);

	kvs_stats_add(scan->store->stat, KVS_COUNT_GETS, 1);
	kvs_stats_add(scan->store->stat, KVS_COUNT_HITS, found ? 1 : 0);
	if (found)
		kvs_content_check(&row.content, row.key, row.key_size);
	kvs_entry_give_row(rows, KvsKeyBytes(key), key->size, found ? &row : NULL);
}

static Datum
entry(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsRows		rows;
	KvsKey		key;
	KvsScan		scan;

	kvs_entry_begin_rows(fcinfo, form, &rows);
	kvs_keyargs_key(fcinfo, 0, form, &key);
	kvs_scan_begin(&scan, kvs_args_text(fcinfo, 1), GetCurrentTimestamp());
	give_entry(&scan, &rows, &key);
	kvs_scan_end(&scan);
	return (Datum) 0;
}

/* ---- Writing ---- */

/* if_version: NULL is no check, 0 is absent. */
static void
read_if_version(FunctionCallInfo fcinfo, int arg, KvsWrite *write)
{
	write->if_version_given = !PG_ARGISNULL(arg);
	write->if_version = write->if_version_given ? PG_GETARG_INT64(arg) : 0;
	if (write->if_version < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("if_version must not be negative"),
				 errhint("Give the versionstamp that you saw, or 0 if the entry must be absent.")));
}

/* (key, content, ttl, expires_at, if_version, keep_ttl, store) */
static Datum
set_content(FunctionCallInfo fcinfo, KvsForm form, KvsContent content, const char *function)
{
	KvsKey		key;
	KvsStore   *store;
	KvsWrite	write;
	bool		expiry_given;
	int64		versionstamp;

	kvs_keyargs_key(fcinfo, 0, form, &key);
	store = kvs_entry_open_for_write(fcinfo, 6, function);
	kvs_store_check_size(store, content.datum);

	write.now = GetCurrentTimestamp();
	write.expires_at = kvs_args_expiry(fcinfo, 2, 3, write.now, &expiry_given);
	if (!expiry_given)
		write.expires_at = kvs_store_default_expiry(store, write.now);
	read_if_version(fcinfo, 4, &write);
	write.keep_ttl = kvs_args_bool(fcinfo, 5);

	versionstamp = kvs_store_put(store, &key, &content, &write);
	kvs_stats_add(store->stat, versionstamp != 0 ? KVS_COUNT_SETS : KVS_COUNT_CONFLICTS, 1);
	if (versionstamp == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(versionstamp);
}

static Datum
set(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsContent	content = {KVS_KIND_JSON, PG_GETARG_DATUM(1)};

	if (PG_ARGISNULL(1))
		kvs_args_report_null("value");
	return set_content(fcinfo, form, content, "kv_set()");
}

static Datum
set_bytes(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsContent	content = {KVS_KIND_BYTES, PG_GETARG_DATUM(1)};

	if (PG_ARGISNULL(1))
		kvs_args_report_null("bytes");
	return set_content(fcinfo, form, content, "kv_set_bytes()");
}

/* (key, if_version, store) */
static Datum
delete(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsKey		key;
	KvsStore   *store;
	KvsWrite	write = {0};
	bool		deleted;

	kvs_keyargs_key(fcinfo, 0, form, &key);
	store = kvs_entry_open_for_write(fcinfo, 2, "kv_delete()");
	write.now = GetCurrentTimestamp();
	read_if_version(fcinfo, 1, &write);
	deleted = kvs_store_delete(store, &key, &write, NULL);
	if (deleted)
		kvs_stats_add(store->stat, KVS_COUNT_DELETES, 1);
	else if (write.if_version_given)
		kvs_stats_add(store->stat, KVS_COUNT_CONFLICTS, 1);
	PG_RETURN_BOOL(deleted);
}

/* (key, store) */
static Datum
take(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsKey		key;
	KvsStore   *store;
	KvsWrite	write = {0};
	KvsContent	content;

	kvs_keyargs_key(fcinfo, 0, form, &key);
	store = kvs_entry_open_for_write(fcinfo, 1, "kv_take()");
	write.now = GetCurrentTimestamp();
	kvs_stats_add(store->stat, KVS_COUNT_GETS, 1);
	if (!kvs_store_delete(store, &key, &write, &content))
		PG_RETURN_NULL();
	kvs_content_check(&content, KvsKeyBytes(&key), key.size);
	kvs_entry_check_kind(content.kind, false);
	kvs_stats_add(store->stat, KVS_COUNT_HITS, 1);
	kvs_stats_add(store->stat, KVS_COUNT_DELETES, 1);
	return content.datum;
}

/* (key, ttl, expires_at, if_version, store) */
static Datum
expire(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsKey		key;
	KvsStore   *store;
	KvsWrite	write = {0};
	bool		given;
	bool		renewed;

	kvs_keyargs_key(fcinfo, 0, form, &key);
	store = kvs_entry_open_for_write(fcinfo, 4, "kv_expire()");
	write.now = GetCurrentTimestamp();
	write.expires_at = kvs_args_expiry(fcinfo, 1, 2, write.now, &given);
	read_if_version(fcinfo, 3, &write);
	renewed = kvs_store_expire(store, &key, &write);
	if (!renewed && write.if_version_given)
		kvs_stats_add(store->stat, KVS_COUNT_CONFLICTS, 1);
	PG_RETURN_BOOL(renewed);
}

/* ---- SQL ---- */

KVS_FUNCTION_OF_KEY(get);
KVS_FUNCTION_OF_KEY(get_bytes);
KVS_FUNCTION_OF_KEY(exists);
KVS_FUNCTION_OF_KEY(entry);
KVS_FUNCTION_OF_KEY(set);
KVS_FUNCTION_OF_KEY(set_bytes);
KVS_FUNCTION_OF_KEY(delete);
KVS_FUNCTION_OF_KEY(take);
KVS_FUNCTION_OF_KEY(expire);

/* kv_get_many(keys text[], store) */
PG_FUNCTION_INFO_V1(kvstore_get_many);
Datum
kvstore_get_many(PG_FUNCTION_ARGS)
{
	KvsRows		rows;
	Datum	   *keys;
	bool	   *nulls;
	int			count;
	KvsScan		scan;

	if (PG_ARGISNULL(0))
		kvs_args_report_null("keys");
	kvs_entry_begin_rows(fcinfo, KVS_FORM_TEXT, &rows);
	count = kvs_array_read(PG_GETARG_ARRAYTYPE_P(0), "keys", &keys, &nulls);
	kvs_scan_begin(&scan, kvs_args_text(fcinfo, 1), GetCurrentTimestamp());
	for (int i = 0; i < count; i++)
	{
		KvsKey		key;

		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			kvs_args_report_null("key");
		kvs_key_from_text(&key, DatumGetTextPP(keys[i]));
		give_entry(&scan, &rows, &key);
	}
	kvs_scan_end(&scan);
	return (Datum) 0;
}

/* kv_get_many_paths(keys jsonb, store) */
PG_FUNCTION_INFO_V1(kvstore_get_many_paths);
Datum
kvstore_get_many_paths(PG_FUNCTION_ARGS)
{
	KvsRows		rows;
	KvsKeyIterator iterator;
	KvsKey		key;
	KvsScan		scan;

	if (PG_ARGISNULL(0))
		kvs_args_report_null("keys");
	kvs_entry_begin_rows(fcinfo, KVS_FORM_PATH, &rows);
	kvs_keyargs_iterate(&iterator, PG_GETARG_JSONB_P(0), "keys");
	kvs_scan_begin(&scan, kvs_args_text(fcinfo, 1), GetCurrentTimestamp());
	while (kvs_keyargs_next(&iterator, &key))
		give_entry(&scan, &rows, &key);
	kvs_scan_end(&scan);
	return (Datum) 0;
}
