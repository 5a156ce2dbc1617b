/*
 * transfer.c
 *		kv_import and kv_export: many entries as one JSON document.
 *
 * There are two forms.  Plain-string keys: the object that a Map saved to a file looks like,
 * {"key": {"value": ..., "expiresAt": ms}}.  Paths: an array of {"key": [...], "value": ...,
 * "expiresAt": ms}.  In both, bytes are {"bytes": "<base64>"} and u64 {"u64": "<decimal>"} in place
 * of the value.  expiresAt is epoch milliseconds.  Without it an entry never expires, whatever the
 * store's default: what was exported comes back the same.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/base64.h"
#include "base/compat.h"
#include "base/progress.h"
#include "base/stats.h"
#include "key/keyargs.h"
#include "kv/entry.h"
#include "kv/list.h"
#include "store/number.h"
#include "store/store.h"

/* Expiries are epoch milliseconds in the document, microseconds from 2000 in the table. */
#define EPOCH_SHIFT_MS	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000)

/* ---- Import ---- */

typedef struct Import
{
	KvsStore   *store;
	TimestampTz now;
	KvsEntry   *entries;
	int			count;
	int			capacity;
	char	   *name;			/* of the entry being read, for messages */
} Import;

pg_noreturn static void bad_entry(const Import *import, const char *detail);

static void
bad_entry(const Import *import, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("cannot import entry %s", import->name),
			 errdetail_internal("%s", detail)));
}

/* Errors from below, such as a key or value too large, do not know which entry it was. */
static void
import_error_context(void *arg)
{
	Import	   *import = (Import *) arg;

	if (import->name != NULL)
		errcontext("entry %s of the data to import", import->name);
}

static TimestampTz
read_expires_at(Import *import, const JsonbValue *value)
{
	Numeric		limit = int64_to_numeric(PG_INT64_MAX / 1000);
	Numeric		number;
	int64		ms;

	if (value->type == jbvNull)
		return DT_NOEND;
	if (value->type != jbvNumeric)
		bad_entry(import, "Field \"expiresAt\" must be a number of milliseconds since 1970.");
	number = value->val.numeric;
	if (DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(number), NumericGetDatum(limit))) > 0)
		return DT_NOEND;
	if (DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(number),
										  NumericGetDatum(int64_to_numeric(0)))) < 0)
		return DT_NOBEGIN;
	ms = DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(number)));
	return (ms - EPOCH_SHIFT_MS) * 1000 < END_TIMESTAMP ? (ms - EPOCH_SHIFT_MS) * 1000 : DT_NOEND;
}

static Datum
read_base64(Import *import, const JsonbValue *value)
{
	bytea	   *bytes = value->type == jbvString ?
		kvs_base64_decode(value->val.string.val, value->val.string.len) : NULL;

	if (bytes == NULL)
		bad_entry(import, "Field \"bytes\" must be a string of base64 with padding.");
	return PointerGetDatum(bytes);
}

static KvsContent
read_u64(Import *import, const JsonbValue *value)
{
	uint64		number;

	if (value->type != jbvString || !kvs_u64_parse(value->val.string.val, value->val.string.len, &number))
		bad_entry(import, "Field \"u64\" must be a string of decimal digits, at most 18446744073709551615.");
	return kvs_u64_content(number);
}

/* Read one field of an entry into it; "key" was read before. */
static void
read_field(Import *import, const char *field, int len, JsonbValue *value, KvsEntry *entry, bool paths)
{
	KvsContent	content = {0};

	if (len == 9 && memcmp(field, "expiresAt", 9) == 0)
	{
		entry->expires_at = read_expires_at(import, value);
		return;
	}
	if (paths && len == 3 && memcmp(field, "key", 3) == 0)
		return;
	if (len == 5 && memcmp(field, "value", 5) == 0)
	{
		content.kind = KVS_KIND_JSON;
		content.datum = JsonbPGetDatum(JsonbValueToJsonb(value));
	}
	else if (len == 5 && memcmp(field, "bytes", 5) == 0)
	{
		content.kind = KVS_KIND_BYTES;
		content.datum = read_base64(import, value);
	}
	else if (len == 3 && memcmp(field, "u64", 3) == 0)
		content = read_u64(import, value);
	else
		bad_entry(import, psprintf("Field \"%.*s\" is not known.", kvs_args_shown_size(field, len), field));
	if (entry->content.kind != 0)
		bad_entry(import, "It must have one of \"value\", \"bytes\" and \"u64\", not several.");
	entry->content = content;
}

/* Read the object that says what an entry holds, and keep it unless it has expired. */
static void
read_entry(Import *import, const KvsKey *key, JsonbValue *object, bool paths)
{
	KvsEntry	entry = {0};
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbValue	field = {0};

	entry.expires_at = DT_NOEND;
	if (object->type != jbvBinary || !JsonContainerIsObject(object->val.binary.data))
		bad_entry(import, "It must be an object with \"value\", \"bytes\" or \"u64\", and optionally \"expiresAt\".");
	iterator = JsonbIteratorInit(object->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			field = value;
		else if (token == WJB_VALUE)
			read_field(import, field.val.string.val, field.val.string.len, &value, &entry, paths);
	}
	if (entry.content.kind == 0)
		bad_entry(import, "It has none of \"value\", \"bytes\" and \"u64\".");
	if (entry.expires_at <= import->now)
		return;
	kvs_store_check_size(import->store, entry.content.datum);
	entry.key = kvs_key_make_datum(KvsKeyBytes(key), key->size);
	if (import->count == import->capacity)
	{
		import->capacity *= 2;
		import->entries = repalloc_huge(import->entries, sizeof(KvsEntry) * import->capacity);
	}
	import->entries[import->count++] = entry;
}

/* {"key": {...}, ...} */
static void
read_object(Import *import, JsonbContainer *root)
{
	JsonbIterator *iterator = JsonbIteratorInit(root);
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbValue	name = {0};
	KvsKey		key;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		CHECK_FOR_INTERRUPTS();
		if (token == WJB_KEY)
			name = value;
		else if (token == WJB_VALUE)
		{
			import->name = psprintf("\"%.*s\"", kvs_args_shown_size(name.val.string.val, name.val.string.len),
									name.val.string.val);
			kvs_keyjson_from_jsonb_value(&key, &name);
			read_entry(import, &key, &value, false);
		}
	}
}

/* [{"key": [...], ...}, ...] */
static void
read_array(Import *import, JsonbContainer *root)
{
	JsonbIterator *iterator = JsonbIteratorInit(root);
	JsonbValue	value;
	JsonbValue	name;
	int			position = 0;
	KvsKey		key;

	JsonbIteratorNext(&iterator, &value, true); /* WJB_BEGIN_ARRAY */
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_ELEM)
	{
		JsonbValue *found = NULL;

		CHECK_FOR_INTERRUPTS();
		import->name = psprintf("number %d", ++position);
		if (value.type == jbvBinary && JsonContainerIsObject(value.val.binary.data))
			found = getKeyJsonValueFromContainer(value.val.binary.data, "key", 3, &name);
		if (found == NULL)
			bad_entry(import, "It must be an object with the field \"key\".");
		kvs_keyjson_from_jsonb_value(&key, found);
		kvs_keyargs_check(&key);
		read_entry(import, &key, &value, true);
	}
}

/* kv_import(data jsonb, store) returns bigint: how many entries were written */
PG_FUNCTION_INFO_V1(kvstore_import);
Datum
kvstore_import(PG_FUNCTION_ARGS)
{
	Import		import = {0};
	ErrorContextCallback context = {error_context_stack, import_error_context, &import};
	Jsonb	   *data;
	int			count;

	if (PG_ARGISNULL(0))
		kvs_args_report_null("data");
	data = PG_GETARG_JSONB_P(0);
	import.store = kvs_entry_open_for_write(fcinfo, 1, "kv_import()");
	import.now = GetCurrentTimestamp();
	import.capacity = 64;
	import.entries = palloc(sizeof(KvsEntry) * import.capacity);

	error_context_stack = &context;
	if (JB_ROOT_IS_OBJECT(data))
		read_object(&import, &data->root);
	else if (JB_ROOT_IS_ARRAY(data) && !JB_ROOT_IS_SCALAR(data))
		read_array(&import, &data->root);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("data to import must be a JSON object or array"),
				 errhint("Use what kv_export() gives, or an object such as {\"key\": {\"value\": 1}}.")));
	error_context_stack = context.previous;

	count = kvs_storemany_sort_entries(import.entries, import.count);
	kvs_progress_begin(KVS_COMMAND_IMPORT, import.store->relid, count);
	kvs_storemany_put_many(import.store, import.entries, count, &count);
	kvs_progress_end();
	kvs_stats_add(import.store->stat, KVS_COUNT_SETS, count);
	PG_RETURN_INT64(count);
}

/* ---- Export ---- */

/* jsonb cannot be larger than this; well before, say so in words that help. */
#define EXPORT_MAX_SIZE		((Size) 200 * 1024 * 1024)
#define EXPORT_MAX_ENTRIES	Min(JB_CMASK, MaxAllocSize / sizeof(JsonbPair))

typedef struct Export
{
	JsonbParseState *state;
	KvsForm		form;
	Size		size;
	Size		count;
} Export;

static void
check_export_size(Export *export, const KvsRow *row)
{
	Size		size = toast_raw_datum_size(row->content.datum);

	export->size += row->key_size * 2 + 64;
	export->size += row->content.kind == KVS_KIND_BYTES ? size * 4 / 3 : size;
	if (export->size > EXPORT_MAX_SIZE || ++export->count > EXPORT_MAX_ENTRIES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("there is more to export than one jsonb value holds"),
				 errhint("Export smaller prefixes, or use pg_dump for the whole store.")));
}

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, const char *str, int len)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, str);
	value.val.string.len = len;
	pushJsonbValue(state, token, &value);
}

static void
push_field(JsonbParseState **state, const char *name)
{
	push_string(state, WJB_KEY, name, strlen(name));
}

static void
push_jsonb(JsonbParseState **state, Jsonb *jsonb)
{
	JsonbValue	value;

	if (JB_ROOT_IS_SCALAR(jsonb))
		JsonbExtractScalar(&jsonb->root, &value);
	else
	{
		value.type = jbvBinary;
		value.val.binary.data = &jsonb->root;
		value.val.binary.len = VARSIZE(jsonb) - VARHDRSZ;
	}
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_content(JsonbParseState **state, const KvsContent *content)
{
	char	   *str;
	bytea	   *bytes;

	if (content->kind == KVS_KIND_BYTES)
	{
		push_field(state, "bytes");
		bytes = DatumGetByteaPP(content->datum);
		str = kvs_base64_encode(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
		push_string(state, WJB_VALUE, str, strlen(str));
	}
	else if (content->kind == KVS_KIND_U64)
	{
		push_field(state, "u64");
		str = kvs_u64_text(content->datum);
		push_string(state, WJB_VALUE, str, strlen(str));
	}
	else
	{
		push_field(state, "value");
		push_jsonb(state, (Jsonb *) PG_DETOAST_DATUM_COPY(content->datum));
	}
}

static void
push_entry(Export *export, const KvsRow *row)
{
	JsonbParseState **state = &export->state;
	JsonbValue	number;

	if (export->form == KVS_FORM_TEXT)
	{
		text	   *key = kvs_key_to_text(row->key, row->key_size);

		push_string(state, WJB_KEY, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	}
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	if (export->form == KVS_FORM_PATH)
	{
		push_field(state, "key");
		push_jsonb(state, kvs_keyjson_to_jsonb(row->key, row->key_size));
	}
	push_content(state, &row->content);
	if (row->expires_at != DT_NOEND)
	{
		/* rounded up: an entry does not expire early because it was exported */
		push_field(state, "expiresAt");
		number.type = jbvNumeric;
		number.val.numeric = int64_to_numeric((row->expires_at + 999) / 1000 + EPOCH_SHIFT_MS);
		pushJsonbValue(state, WJB_VALUE, &number);
	}
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* (prefix, store) */
static Datum
export_entries(FunctionCallInfo fcinfo, KvsForm form)
{
	Export		export = {NULL, form, 0, 0};
	bool		is_text = form == KVS_FORM_TEXT;
	KvsRange	range;
	KvsScan		scan;
	KvsRow		row;
	JsonbValue *result;

	kvs_list_prefix_arg(fcinfo, 0, form, &range);
	kvs_scan_begin(&scan, kvs_args_text(fcinfo, 1), GetCurrentTimestamp());
	kvs_stats_add(scan.store->stat, KVS_COUNT_LISTS, 1);
	kvs_list_begin(&scan, &range);
	pushJsonbValue(&export.state, is_text ? WJB_BEGIN_OBJECT : WJB_BEGIN_ARRAY, NULL);
	while (kvs_list_next(&scan, &range, &row))
	{
		kvs_content_check(&row.content, row.key, row.key_size);
		check_export_size(&export, &row);
		push_entry(&export, &row);
	}
	result = pushJsonbValue(&export.state, is_text ? WJB_END_OBJECT : WJB_END_ARRAY, NULL);
	kvs_scan_end(&scan);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(result));
}

KVS_FUNCTION_OF_KEY(export_entries);
