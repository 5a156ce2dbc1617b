/*
 * bulk.c
 *		SQL functions that write many keys at once: set many, delete many, delete a prefix, clear.
 *
 * Each is one atomic operation with one versionstamp.  All of them lock rows in encoded key order.
 * So none deadlocks with another when each is its transaction's only statement.  They can be
 * cancelled at any row, and kv_stat_progress shows how far they are.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/array.h"
#include "base/progress.h"
#include "base/stats.h"
#include "key/keyargs.h"
#include "kv/entry.h"
#include "kv/list.h"
#include "store/store.h"

/* ---- Arguments ---- */

static int
read_array_values(FunctionCallInfo fcinfo, int arg, Datum **values)
{
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(arg))
		kvs_args_report_null("new_values");
	count = kvs_array_read(PG_GETARG_ARRAYTYPE_P(arg), "new_values", values, &nulls);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			kvs_args_report_null("value");
	}
	return count;
}

static int
read_json_values(FunctionCallInfo fcinfo, int arg, Datum **values)
{
	Jsonb	   *array;
	JsonbIterator *iterator;
	JsonbValue	value;
	int			count = 0;

	if (PG_ARGISNULL(arg))
		kvs_args_report_null("new_values");
	array = PG_GETARG_JSONB_P(arg);
	if (!JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("new_values must be a JSON array")));
	*values = palloc(sizeof(Datum) * Max(JB_ROOT_COUNT(array), 1));
	iterator = JsonbIteratorInit(&array->root);
	JsonbIteratorNext(&iterator, &value, true); /* WJB_BEGIN_ARRAY */
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_ELEM)
	{
		CHECK_FOR_INTERRUPTS();
		(*values)[count++] = JsonbPGetDatum(JsonbValueToJsonb(&value));
	}
	return count;
}

/* ---- Set ---- */

/* (keys, new_values, ttl, expires_at, store) */
static Datum
set_many(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsStore   *store = kvs_entry_open_for_write(fcinfo, 4, "kv_set_many()");
	TimestampTz now = GetCurrentTimestamp();
	bool		given;
	TimestampTz expires_at = kvs_args_expiry(fcinfo, 2, 3, now, &given);
	Datum	   *keys;
	Datum	   *values;
	int			count = form == KVS_FORM_TEXT ? kvs_keyargs_texts(fcinfo, 0, &keys) : kvs_keyargs_paths(fcinfo, 0, &keys);
	int			value_count = form == KVS_FORM_TEXT ? read_array_values(fcinfo, 1, &values) : read_json_values(fcinfo, 1, &values);
	KvsEntry   *entries;
	int64		versionstamp;

	if (count != value_count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("keys and new_values must have the same length"),
				 errdetail("There are %d keys and %d values.", count, value_count)));
	entries = palloc(sizeof(KvsEntry) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		kvs_store_check_size(store, values[i]);
		entries[i].key = keys[i];
		entries[i].content.kind = KVS_KIND_JSON;
		entries[i].content.datum = values[i];
		entries[i].expires_at = given ? expires_at : kvs_store_default_expiry(store, now);
	}
	count = kvs_storemany_sort_entries(entries, count);
	kvs_progress_begin(KVS_COMMAND_SET_MANY, store->relid, count);
	versionstamp = kvs_storemany_put_many(store, entries, count, NULL);
	kvs_progress_end();
	kvs_stats_add(store->stat, KVS_COUNT_SETS, count);
	PG_RETURN_INT64(versionstamp);
}

/* ---- Delete ---- */

/* (keys, store) */
static Datum
delete_many(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsStore   *store = kvs_entry_open_for_write(fcinfo, 1, "kv_delete_many()");
	Datum	   *keys;
	int			count = form == KVS_FORM_TEXT ? kvs_keyargs_texts(fcinfo, 0, &keys) : kvs_keyargs_paths(fcinfo, 0, &keys);
	int64		deleted;

	kvs_storemany_sort_keys(keys, count);
	kvs_progress_begin(KVS_COMMAND_DELETE_MANY, store->relid, count);
	deleted = kvs_storemany_delete_sorted(store, keys, count, GetCurrentTimestamp());
	kvs_progress_end();
	kvs_stats_add(store->stat, KVS_COUNT_DELETES, deleted);
	PG_RETURN_INT64(deleted);
}

static int64
delete_range(KvsStore *store, const KvsRange *range, KvsCommand command)
{
	int64		deleted;

	kvs_progress_begin(command, store->relid, -1);
	deleted = kvs_storemany_delete_range(store, &range->low, &range->high, range->form == KVS_FORM_TEXT,
									 GetCurrentTimestamp());
	kvs_progress_end();
	kvs_stats_add(store->stat, KVS_COUNT_DELETES, deleted);
	return deleted;
}

/* (prefix, store) */
static Datum
delete_prefix(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsStore   *store = kvs_entry_open_for_write(fcinfo, 1, "kv_delete_prefix()");
	KvsRange	range;

	kvs_list_prefix_arg(fcinfo, 0, form, &range);
	if (range.low.size <= (form == KVS_FORM_TEXT ? 2 : 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("prefix must not be empty"),
				 errhint("Use kv_clear() to delete all entries of a store.")));
	PG_RETURN_INT64(delete_range(store, &range, KVS_COMMAND_DELETE_PREFIX));
}

/* ---- SQL ---- */

KVS_FUNCTION_OF_KEY(set_many);
KVS_FUNCTION_OF_KEY(delete_many);
KVS_FUNCTION_OF_KEY(delete_prefix);

/* kv_clear(store) returns bigint: how many entries were deleted */
PG_FUNCTION_INFO_V1(kvstore_clear);
Datum
kvstore_clear(PG_FUNCTION_ARGS)
{
	KvsStore   *store = kvs_entry_open_for_write(fcinfo, 0, "kv_clear()");
	KvsRange	range;

	kvs_list_set_all(&range);
	PG_RETURN_INT64(delete_range(store, &range, KVS_COMMAND_CLEAR));
}

/* kvstore.is_text(key kvkey) returns boolean: is this a plain-string key? */
PG_FUNCTION_INFO_V1(kvstore_is_text);
Datum
kvstore_is_text(PG_FUNCTION_ARGS)
{
	struct varlena *key = PG_GETARG_VARLENA_PP(0);

	PG_RETURN_BOOL(kvs_key_is_text(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key)));
}
