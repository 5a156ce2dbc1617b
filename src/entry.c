/*
 * entry.c
 *		What the SQL functions have in common: reading key, expiry and store arguments, giving entries as rows.
 *
 * One rule, one helper: every function that takes a ttl says the same about a negative one.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "array.h"
#include "compat.h"
#include "duration.h"
#include "entry.h"
#include "errors.h"

/* Bytes of a user's string that a message shows. */
#define SHOWN_SIZE	100

/* ---- Arguments ---- */

int
kvs_entry_shown_size(const char *str, int len)
{
	return pg_mbcliplen(str, len, SHOWN_SIZE);
}

void
kvs_entry_null_argument(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", name)));
}

void
kvs_entry_check_key(const KvsKey *key)
{
	if (unlikely(key->size == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key must have at least one part")));
}

void
kvs_entry_key_arg(FunctionCallInfo fcinfo, int arg, KvsForm form, KvsKey *key)
{
	if (unlikely(PG_ARGISNULL(arg)))
		kvs_entry_null_argument("key");
	if (form == KVS_FORM_TEXT)
		kvs_key_from_text(key, PG_GETARG_TEXT_PP(arg));
	else
		kvs_key_from_datum(key, PG_GETARG_DATUM(arg));
	kvs_entry_check_key(key);
}

text *
kvs_entry_text_arg(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : PG_GETARG_TEXT_PP(arg);
}

bool
kvs_entry_bool_arg(FunctionCallInfo fcinfo, int arg)
{
	return !PG_ARGISNULL(arg) && PG_GETARG_BOOL(arg);
}

KvsStore *
kvs_entry_open_for_write(FunctionCallInfo fcinfo, int store_arg, const char *function)
{
	Relation	rel;
	KvsStore   *store;

	PreventCommandIfReadOnly(function);
	store = kvs_catalog_open_store(kvs_entry_text_arg(fcinfo, store_arg), RowExclusiveLock, &rel);

	/* The lock stays; the statements that write open the table themselves. */
	table_close(rel, NoLock);
	return store;
}

TimestampTz
kvs_entry_add_interval(TimestampTz now, const Interval *interval)
{
	TimestampTz result = kvs_duration_add(now, interval);

	if (TIMESTAMP_NOT_FINITE(result) && !kvs_compat_interval_is_infinite(interval))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return result;
}

TimestampTz
kvs_entry_ttl_arg(FunctionCallInfo fcinfo, int arg, TimestampTz now)
{
	TimestampTz result = kvs_entry_add_interval(now, PG_GETARG_INTERVAL_P(arg));

	if (result < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ttl must not be negative"),
				 errhint("Use kv_delete() to remove an entry at once.")));
	return result;
}

TimestampTz
kvs_entry_expiry_args(FunctionCallInfo fcinfo, int ttl_arg, int expires_at_arg, TimestampTz now, bool *given)
{
	TimestampTz result = DT_NOEND;

	*given = !PG_ARGISNULL(ttl_arg) || !PG_ARGISNULL(expires_at_arg);
	if (!PG_ARGISNULL(ttl_arg) && !PG_ARGISNULL(expires_at_arg))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ttl and expires_at must not both be given")));
	if (!PG_ARGISNULL(ttl_arg))
		result = kvs_entry_ttl_arg(fcinfo, ttl_arg, now);
	else if (!PG_ARGISNULL(expires_at_arg))
		result = PG_GETARG_TIMESTAMPTZ(expires_at_arg);
	return result;
}

TimestampTz
kvs_entry_default_expiry(const KvsStore *store, TimestampTz now)
{
	if (likely(!store->has_default_ttl))
		return DT_NOEND;
	return kvs_entry_add_interval(now, &store->default_ttl);
}

void
kvs_entry_check_kind(char kind, bool want_bytes)
{
	if (likely((kind == KVS_KIND_BYTES) == want_bytes))
		return;
	ereport(ERROR,
			(errcode(KVS_ERRCODE_WRONG_KIND),
			 want_bytes ? errmsg("entry holds JSON, not bytes") : errmsg("entry holds bytes, not JSON"),
			 want_bytes ? errhint("Use kv_get() or kv_entry().") : errhint("Use kv_get_bytes() or kv_entry().")));
}

void
kvs_entry_iterate_keys(KvsKeyIterator *iterator, Jsonb *keys, const char *name)
{
	JsonbValue	value;

	if (!JB_ROOT_IS_ARRAY(keys) || JB_ROOT_IS_SCALAR(keys))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON array", name),
				 errhint("Each element is a string or an array of parts, as in '[\"a\", [\"users\", 42]]'.")));
	iterator->jsonb = JsonbIteratorInit(&keys->root);
	iterator->position = 0;
	JsonbIteratorNext(&iterator->jsonb, &value, true);	/* WJB_BEGIN_ARRAY */
}

bool
kvs_entry_next_key(KvsKeyIterator *iterator, KvsKey *key)
{
	JsonbValue	value;

	CHECK_FOR_INTERRUPTS();
	if (JsonbIteratorNext(&iterator->jsonb, &value, true) != WJB_ELEM)
		return false;
	iterator->position++;
	kvs_key_from_jsonb_value(key, &value);
	kvs_entry_check_key(key);
	return true;
}

int
kvs_entry_text_keys_arg(FunctionCallInfo fcinfo, int arg, Datum **keys)
{
	Datum	   *texts;
	bool	   *nulls;
	int			count;
	KvsKey		key;

	if (PG_ARGISNULL(arg))
		kvs_entry_null_argument("keys");
	count = kvs_array_read(PG_GETARG_ARRAYTYPE_P(arg), "keys", &texts, &nulls);
	*keys = palloc(sizeof(Datum) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			kvs_entry_null_argument("key");
		kvs_key_from_text(&key, DatumGetTextPP(texts[i]));
		(*keys)[i] = kvs_key_make_datum(KvsKeyBytes(&key), key.size);
	}
	return count;
}

int
kvs_entry_path_keys_arg(FunctionCallInfo fcinfo, int arg, Datum **keys)
{
	Jsonb	   *array;
	KvsKeyIterator iterator;
	KvsKey		key;
	int			count = 0;

	if (PG_ARGISNULL(arg))
		kvs_entry_null_argument("keys");
	array = PG_GETARG_JSONB_P(arg);
	kvs_entry_iterate_keys(&iterator, array, "keys");
	*keys = palloc(sizeof(Datum) * Max(JB_ROOT_COUNT(array), 1));
	while (kvs_entry_next_key(&iterator, &key))
		(*keys)[count++] = kvs_key_make_datum(KvsKeyBytes(&key), key.size);
	return count;
}

/* ---- Results ---- */

void
kvs_entry_begin_rows(FunctionCallInfo fcinfo, KvsForm form, KvsRows *rows)
{
	/* what the caller expects is what the function is declared to return, and takes no look-up */
	InitMaterializedSRF(fcinfo, ((ReturnSetInfo *) fcinfo->resultinfo)->expectedDesc ? MAT_SRF_USE_EXPECTED_DESC : 0);
	rows->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	rows->form = form;
	rows->scratch = AllocSetContextCreate(CurrentMemoryContext, "kvstore row", ALLOCSET_SMALL_SIZES);
}

static Datum
key_for_user(KvsForm form, const char *key, int key_size)
{
	if (form == KVS_FORM_TEXT)
		return PointerGetDatum(kvs_key_to_text(key, key_size));
	return JsonbPGetDatum(kvs_key_to_jsonb(key, key_size));
}

/* A text that every row may point to. */
static Datum
kind_for_user(char kind)
{
	static union
	{
		int32		align;
		char		bytes[VARHDRSZ + 8];
	}			names[3];
	int			which = kind == KVS_KIND_JSON ? 0 : kind == KVS_KIND_BYTES ? 1 : 2;

	if (unlikely(names[which].align == 0))
	{
		const char *name = which == 0 ? "json" : which == 1 ? "bytes" : "u64";

		SET_VARSIZE(&names[which], VARHDRSZ + strlen(name));
		memcpy(VARDATA(&names[which]), name, strlen(name));
	}
	return PointerGetDatum(&names[which]);
}

void
kvs_entry_fill_row(const KvsRow *row, Datum *values, bool *nulls)
{
	kvs_content_write(&row->content, values, nulls);
	if (row->content.datum == (Datum) 0)
		nulls[1] = nulls[2] = true;
	nulls[3] = row->content.kind == KVS_KIND_BROKEN;
	values[3] = nulls[3] ? (Datum) 0 : kind_for_user(row->content.kind);
	values[4] = Int64GetDatum(row->versionstamp);
	nulls[4] = false;
	values[5] = TimestampTzGetDatum(row->expires_at);
	nulls[5] = row->expires_at == DT_NOEND;
}

void
kvs_entry_give_row(KvsRows *rows, const char *key, int key_size, const KvsRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(rows->scratch);
	Datum		values[KVS_ENTRY_COLUMNS] = {0};
	bool		nulls[KVS_ENTRY_COLUMNS] = {false, true, true, true, false, true};

	if (row != NULL)
		kvs_entry_fill_row(row, values, nulls);
	values[0] = key_for_user(rows->form, key, key_size);
	tuplestore_putvalues(rows->rsinfo->setResult, rows->rsinfo->setDesc, values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(rows->scratch);
}
