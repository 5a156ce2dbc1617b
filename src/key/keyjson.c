/*
 * keyjson.c
 *		Keys as JSON: an array of parts, which is the text form too.
 *
 *		"abc"					string
 *		{"utf8": "<base64>"}	string with U+0000, which jsonb cannot hold
 *		42, 0.5					number
 *		{"number": "<text>"}	number: NaN, infinities, -0, integral beyond 2^53
 *		{"bigint": "<decimal>"}	bigint
 *		{"bytes": "<base64>"}	bytes
 *		true, false				boolean
 *
 * Reading takes any form that can say the part ({"utf8": "YWJj"} is "abc").  Writing uses one form
 * for each part, so the text of two keys is equal when the keys are.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "base/base64.h"
#include "base/compat.h"
#include "key/key.h"

/*
 * The function that adds the part an object of one field stands for, given the string in the field.
 */
typedef void (*AddForm) (KvsKey *key, const char *str, int len, int position);

static void add_bytes_form(KvsKey *key, const char *str, int len, int position);
static void add_utf8_form(KvsKey *key, const char *str, int len, int position);

static const struct
{
	const char *field;
	AddForm		add;
}			forms[] =
{
	{"bytes", add_bytes_form},
	{"utf8", add_utf8_form},
	{"bigint", kvs_keynumber_add_bigint_text},
	{"number", kvs_keynumber_add_number_text},
};

static void
report_bad_part(int position, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("key part %d is %s", position, what),
			 errdetail("A part is a string, a number, a boolean, or an object with one field, "
					   "\"bytes\", \"utf8\", \"bigint\" or \"number\", and a string in it.")));
}

static bytea *
decode_base64(const char *str, int len, const char *field, int position)
{
	bytea	   *decoded = kvs_base64_decode(str, len);

	if (decoded == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid \"%s\" in key part %d", field, position),
				 errdetail("It is not base64 with padding.")));
	return decoded;
}

static void
add_bytes_form(KvsKey *key, const char *str, int len, int position)
{
	bytea	   *bytes = decode_base64(str, len, "bytes", position);

	kvs_key_add_bytes(key, VARDATA(bytes), VARSIZE(bytes) - VARHDRSZ);
	pfree(bytes);
}

static void
add_utf8_form(KvsKey *key, const char *str, int len, int position)
{
	bytea	   *bytes = decode_base64(str, len, "utf8", position);
	char	   *decoded = VARDATA(bytes);
	int			n = VARSIZE(bytes) - VARHDRSZ;

	/* The verifier takes a zero byte for the end of the string: check from one to the next. */
	for (int start = 0; start < n;)
	{
		int			segment_len = (int) strnlen(decoded + start, n - start);

		if (pg_encoding_verifymbstr(PG_UTF8, decoded + start, segment_len) != segment_len)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					 errmsg("invalid \"utf8\" in key part %d", position),
					 errdetail("Its bytes are not valid UTF-8.")));
		start += segment_len + 1;
	}
	kvs_key_add_string(key, decoded, n);
	pfree(bytes);
}

/* ---- reading ---- */

/*
 * A part that JSON has no scalar for: an object with one of the fields in forms[] and a string in
 * it.
 */
static void
add_object(KvsKey *key, JsonbContainer *object, int position)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	field;
	JsonbValue	value;

	if (JsonContainerSize(object) == 1)
	{
		(void) JsonbIteratorNext(&it, &field, true);	/* the beginning of the object */
		(void) JsonbIteratorNext(&it, &field, true);
		(void) JsonbIteratorNext(&it, &value, true);
		for (int i = 0; i < (int) lengthof(forms); i++)
		{
			if (value.type == jbvString &&
				field.val.string.len == (int) strlen(forms[i].field) &&
				memcmp(field.val.string.val, forms[i].field, field.val.string.len) == 0)
			{
				forms[i].add(key, value.val.string.val, value.val.string.len, position);
				return;
			}
		}
	}
	report_bad_part(position, "an object of another form");
}

void
kvs_keyjson_add_jsonb_part(KvsKey *key, const JsonbValue *value, int position)
{
	switch (value->type)
	{
		case jbvString:
			kvs_key_add_string(key, value->val.string.val, value->val.string.len);
			break;
		case jbvNumeric:
			kvs_keynumber_add_numeric(key, value->val.numeric, position);
			break;
		case jbvBool:
			kvs_key_add_boolean(key, value->val.boolean);
			break;
		case jbvNull:
			report_bad_part(position, "null");
			break;
		case jbvBinary:
			if (JsonContainerIsObject(value->val.binary.data))
				add_object(key, value->val.binary.data, position);
			else
				report_bad_part(position, "an array");
			break;
		default:
			elog(ERROR, "unexpected jsonb value type: %d", (int) value->type);
	}
}

void
kvs_keyjson_from_jsonb(KvsKey *key, JsonbContainer *array)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	int			position = 0;

	kvs_key_init(key);
	if (!JsonContainerIsArray(array) || JsonContainerIsScalar(array))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("a kvkey has to be a JSON array of parts"),
				 errhint("Write the key of one string as [\"...\"], or give it as text.")));
	it = JsonbIteratorInit(array);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM)
			kvs_keyjson_add_jsonb_part(key, &value, ++position);
	}
}

void
kvs_keyjson_from_jsonb_value(KvsKey *key, const JsonbValue *value)
{
	if (value->type == jbvString)
	{
		kvs_key_init(key);
		kvs_key_add_string(key, value->val.string.val, value->val.string.len);
	}
	else if (value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data))
		kvs_keyjson_from_jsonb(key, value->val.binary.data);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a key has to be a string or an array of parts")));
}

/* ---- writing ---- */

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, const char *str, int len)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, str);
	value.val.string.len = len;
	(void) pushJsonbValue(state, token, &value);
}

/* {"field": "str"} */
static void
push_object(JsonbParseState **state, const char *field, const char *str, int len)
{
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_string(state, WJB_KEY, field, (int) strlen(field));
	push_string(state, WJB_VALUE, str, len);
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
push_base64(JsonbParseState **state, const char *field, const KvsPart *part)
{
	char	   *encoded = kvs_base64_encode(part->str, part->len);

	push_object(state, field, encoded, (int) strlen(encoded));
}

static void
push_number(JsonbParseState **state, double number)
{
	char	   *str = kvs_keynumber_number_text(number);
	JsonbValue	value;

	if (!kvs_keynumber_number_is_plain(number))
	{
		push_object(state, "number", str, (int) strlen(str));
		return;
	}
	value.type = jbvNumeric;
	value.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(str),
															ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	(void) pushJsonbValue(state, WJB_ELEM, &value);
}

static void
push_part(JsonbParseState **state, const KvsPart *part)
{
	JsonbValue	value;
	char	   *decimal;

	switch (part->type)
	{
		case KVS_PART_BYTES:
			push_base64(state, "bytes", part);
			break;
		case KVS_PART_STRING:
			if (memchr(part->str, '\0', part->len) != NULL)
				push_base64(state, "utf8", part);
			else
				push_string(state, WJB_ELEM, part->str, part->len);
			break;
		case KVS_PART_BIGINT:
			decimal = kvs_keynumber_bigint_text(part);
			push_object(state, "bigint", decimal, (int) strlen(decimal));
			break;
		case KVS_PART_NUMBER:
			push_number(state, part->number);
			break;
		case KVS_PART_BOOLEAN:
			value.type = jbvBool;
			value.val.boolean = part->boolean;
			(void) pushJsonbValue(state, WJB_ELEM, &value);
			break;
	}
}

Jsonb *
kvs_keyjson_to_jsonb(const char *data, int size)
{
	JsonbParseState *state = NULL;
	KvsPart		part;
	int			pos = 0;

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	while (kvs_key_next_part(data, size, &pos, &part))
		push_part(&state, &part);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}
