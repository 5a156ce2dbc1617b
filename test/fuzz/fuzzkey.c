/*
 * fuzzkey.c
 *		Targets key_text, key_binary and key_json: the three ways in which a kvkey comes from outside.
 */
#include "postgres.h"

#include <math.h>

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "key/keyargs.h"
#include "base/errors.h"
#include "fuzz.h"
#include "key/key.h"

/* Neighbouring parts whose order is looked at. */
#define ORDERED_PARTS	4

extern Datum kvstore_kvkey_in(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_out(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_recv(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_send(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_from_bytea(PG_FUNCTION_ARGS);
extern Datum kvstore_key_from_json(PG_FUNCTION_ARGS);
extern Datum kvstore_key_to_json(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_cmp(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_lt(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_le(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_eq(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_ne(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_ge(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_gt(PG_FUNCTION_ARGS);
extern Datum kvstore_kvkey_hash(PG_FUNCTION_ARGS);

/* ---- Order ---- */

static int
sign(int64 number)
{
	return (number > 0) - (number < 0);
}

static int
compare_bytes(const char *a, int a_len, const char *b, int b_len)
{
	int			result = memcmp(a, b, Min(a_len, b_len));

	return sign(result != 0 ? result : a_len - b_len);
}

/* -NaN, -Infinity, ..., -0, 0, ..., Infinity, NaN */
static int
compare_numbers(double a, double b)
{
	int			a_rank = isnan(a) ? (signbit(a) ? -1 : 1) : 0;
	int			b_rank = isnan(b) ? (signbit(b) ? -1 : 1) : 0;

	if (a_rank != b_rank || a_rank != 0)
		return sign(a_rank - b_rank);
	if (a != b)
		return a < b ? -1 : 1;
	return sign((signbit(a) ? 0 : 1) - (signbit(b) ? 0 : 1));
}

static int
compare_bigints(const KvsPart *a, const KvsPart *b)
{
	int			flip = a->negative ? -1 : 1;

	if (a->negative != b->negative)
		return a->negative ? -1 : 1;
	return flip * (a->len != b->len ? sign(a->len - b->len) : compare_bytes(a->str, a->len, b->str, b->len));
}

static int
compare_parts(const KvsPart *a, const KvsPart *b)
{
	if (a->type != b->type)
		return sign((int) a->type - (int) b->type);
	switch (a->type)
	{
		case KVS_PART_BYTES:
		case KVS_PART_STRING:
			return compare_bytes(a->str, a->len, b->str, b->len);
		case KVS_PART_BIGINT:
			return compare_bigints(a, b);
		case KVS_PART_NUMBER:
			return compare_numbers(a->number, b->number);
		case KVS_PART_BOOLEAN:
			return sign((int) a->boolean - (int) b->boolean);
	}
	return 0;
}

/* Part by part; a path comes before what is longer. */
static int
compare_paths(const char *a, int a_size, const char *b, int b_size)
{
	int			a_pos = 0;
	int			b_pos = 0;
	KvsPart		a_part;
	KvsPart		b_part;

	for (;;)
	{
		bool		a_more = kvs_key_next_part(a, a_size, &a_pos, &a_part);
		bool		b_more = kvs_key_next_part(b, b_size, &b_pos, &b_part);
		int			result = a_more && b_more ? compare_parts(&a_part, &b_part) : (int) a_more - (int) b_more;

		if (result != 0 || !a_more)
			return result;
	}
}

static void
check_order(Datum a, Datum b, int expected)
{
	int			cmp = DatumGetInt32(DirectFunctionCall2(kvstore_kvkey_cmp, a, b));

	kvs_fuzz_require(sign(cmp) == expected);
	kvs_fuzz_require(sign(kvs_key_compare(a, b)) == expected);
	kvs_fuzz_require(sign(DatumGetInt32(DirectFunctionCall2(kvstore_kvkey_cmp, b, a))) == -expected);
	kvs_fuzz_require(DatumGetBool(DirectFunctionCall2(kvstore_kvkey_lt, a, b)) == (expected < 0));
	kvs_fuzz_require(DatumGetBool(DirectFunctionCall2(kvstore_kvkey_le, a, b)) == (expected <= 0));
	kvs_fuzz_require(DatumGetBool(DirectFunctionCall2(kvstore_kvkey_eq, a, b)) == (expected == 0));
	kvs_fuzz_require(DatumGetBool(DirectFunctionCall2(kvstore_kvkey_ne, a, b)) == (expected != 0));
	kvs_fuzz_require(DatumGetBool(DirectFunctionCall2(kvstore_kvkey_ge, a, b)) == (expected >= 0));
	kvs_fuzz_require(DatumGetBool(DirectFunctionCall2(kvstore_kvkey_gt, a, b)) == (expected > 0));
	if (expected == 0)
		kvs_fuzz_require(DirectFunctionCall1(kvstore_kvkey_hash, a) == DirectFunctionCall1(kvstore_kvkey_hash, b));
}

/* The rest of a path after each of its parts is a path too: are they in order? */
static void
check_order_of_rests(const char *data, int size)
{
	int			pos = 0;
	int			previous = 0;
	KvsPart		part;

	for (int i = 0; i < ORDERED_PARTS && kvs_key_next_part(data, size, &pos, &part); i++)
	{
		check_order(kvs_key_make_datum(data + previous, size - previous), kvs_key_make_datum(data + pos, size - pos),
					compare_paths(data + previous, size - previous, data + pos, size - pos));
		/* the path of the parts so far comes before the whole */
		check_order(kvs_key_make_datum(data, pos), kvs_key_make_datum(data, size), pos < size ? -1 : 0);
		previous = pos;
	}
}

/* ---- One key ---- */

/* Taken apart and put together again, it is the same. */
static void
check_parts(const char *data, int size)
{
	KvsKey		again;
	KvsPart		part;
	int			pos = 0;

	kvs_key_init(&again);
	while (kvs_key_next_part(data, size, &pos, &part))
		switch (part.type)
		{
			case KVS_PART_BYTES:
				kvs_key_add_bytes(&again, part.str, part.len);
				break;
			case KVS_PART_STRING:
				kvs_key_add_string(&again, part.str, part.len);
				break;
			case KVS_PART_BIGINT:
				kvs_key_add_bigint(&again, part.negative, (uint8 *) part.str, part.len);
				break;
			case KVS_PART_NUMBER:
				kvs_key_add_number(&again, part.number);
				break;
			case KVS_PART_BOOLEAN:
				kvs_key_add_boolean(&again, part.boolean);
				break;
		}
	kvs_fuzz_require(again.size == size && memcmp(KvsKeyBytes(&again), data, size) == 0);
}

static void
check_text_form(const char *data, int size)
{
	KvsPart		part;
	int			pos = 0;
	KvsKey		again;

	if (size == 0 || data[0] != KVS_TAG_STRING)
	{
		kvs_fuzz_require(!kvs_key_is_text(data, size));
		return;
	}
	kvs_key_next_part(data, size, &pos, &part);
	kvs_fuzz_require(kvs_key_first_string_size(data, size) == pos);
	kvs_fuzz_require(kvs_key_is_text(data, size) == (pos == size && memchr(part.str, '\0', part.len) == NULL));
	if (!kvs_key_is_text(data, size))
		return;
	kvs_key_from_text(&again, kvs_key_to_text(data, size));
	kvs_fuzz_require(again.size == size && memcmp(KvsKeyBytes(&again), data, size) == 0);
}

/* The same bytes with a header of one byte, if there are few enough. */
static Datum
short_datum(const char *data, int size)
{
	struct varlena *result = palloc(VARHDRSZ_SHORT + size);

	SET_VARSIZE_SHORT(result, VARHDRSZ_SHORT + size);
	memcpy(VARDATA_SHORT(result), data, size);
	return PointerGetDatum(result);
}

/* Out and in again, in each form. */
static void
check_forms(Datum key)
{
	char	   *str = DatumGetCString(DirectFunctionCall1(kvstore_kvkey_out, key));
	Datum		json = DirectFunctionCall1(kvstore_key_to_json, key);
	Datum		sent = DirectFunctionCall1(kvstore_kvkey_send, key);
	StringInfoData message;

	kvs_fuzz_require(kvs_fuzz_same_bytes(DirectFunctionCall1(kvstore_kvkey_in, CStringGetDatum(str)), key));
	kvs_fuzz_require(kvs_fuzz_same_bytes(DirectFunctionCall1(kvstore_key_from_json, json), key));
	kvs_fuzz_require(strcmp(DatumGetCString(DirectFunctionCall1(jsonb_out, json)), str) == 0);
	kvs_fuzz_require(kvs_fuzz_same_bytes(sent, key));
	kvs_fuzz_require(kvs_fuzz_same_bytes(DirectFunctionCall1(kvstore_kvkey_from_bytea, sent), key));
	initStringInfo(&message);
	appendBinaryStringInfo(&message, VARDATA_ANY(DatumGetPointer(sent)), VARSIZE_ANY_EXHDR(DatumGetPointer(sent)));
	kvs_fuzz_require(kvs_fuzz_same_bytes(DirectFunctionCall1(kvstore_kvkey_recv, PointerGetDatum(&message)), key));
}

void
kvs_fuzz_check_key(Datum key)
{
	const char *data = VARDATA_ANY(DatumGetPointer(key));
	int			size = VARSIZE_ANY_EXHDR(DatumGetPointer(key));

	kvs_fuzz_require(size <= KVS_KEY_MAX_SIZE);
	kvs_key_validate(data, size);
	check_parts(data, size);
	check_text_form(data, size);
	check_forms(key);
	check_order_of_rests(data, size);
	if (size + VARHDRSZ_SHORT <= VARATT_SHORT_MAX)
	{
		check_order(key, short_datum(data, size), 0);
		kvs_fuzz_require(kvs_fuzz_same_bytes(DirectFunctionCall1(kvstore_kvkey_send, short_datum(data, size)), key));
	}
}

/* ---- key_text: kvkey_in() ---- */

static void
run_text(const char *bytes, int size)
{
	Datum		key = DirectFunctionCall1(kvstore_kvkey_in, CStringGetDatum(kvs_fuzz_cstring(bytes, size)));

	kvs_fuzz_accepted();
	kvs_fuzz_check_key(key);
}

static const int json_errors[] = {
	ERRCODE_INVALID_TEXT_REPRESENTATION, ERRCODE_UNTRANSLATABLE_CHARACTER, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
	ERRCODE_INVALID_PARAMETER_VALUE, KVS_ERRCODE_TOO_LARGE, 0
};

const KvsFuzzTarget kvs_fuzz_key_text = {.name = "key_text", .errors = json_errors, .run = run_text};

/* ---- key_binary: kvkey_recv(), kvkey_from_bytea() ---- */

static void
run_binary(const char *bytes, int size)
{
	StringInfoData message = {.data = unconstify(char *, bytes), .len = size, .maxlen = size};
	Datum		key = DirectFunctionCall1(kvstore_kvkey_recv, PointerGetDatum(&message));

	kvs_fuzz_accepted();
	kvs_fuzz_require(message.cursor == size);
	kvs_fuzz_require((int) VARSIZE_ANY_EXHDR(DatumGetPointer(key)) == size && memcmp(VARDATA_ANY(DatumGetPointer(key)), bytes, size) == 0);
	kvs_fuzz_check_key(key);
}

static const int binary_errors[] = {ERRCODE_INVALID_BINARY_REPRESENTATION, KVS_ERRCODE_TOO_LARGE, 0};

const KvsFuzzTarget kvs_fuzz_key_binary = {.name = "key_binary", .errors = binary_errors, .run = run_binary};

/* ---- key_json: keys jsonb, as kv_..._paths(), kv_atomic() and keys_if_undelivered take it ---- */

/* A string is a key of one part; an array says what the cast of it says. */
static void
check_element(const JsonbValue *element, Datum key)
{
	const char *data = VARDATA_ANY(DatumGetPointer(key));
	int			size = VARSIZE_ANY_EXHDR(DatumGetPointer(key));
	JsonbValue	copy = *element;

	if (element->type == jbvString)
		kvs_fuzz_require(kvs_key_is_text(data, size) && size == element->val.string.len + 2 &&
						 memcmp(data + 1, element->val.string.val, element->val.string.len) == 0);
	else
		kvs_fuzz_require(kvs_fuzz_same_bytes(DirectFunctionCall1(kvstore_key_from_json, JsonbPGetDatum(JsonbValueToJsonb(&copy))), key));
}

static void
run_json(const char *bytes, int size)
{
	Jsonb	   *keys = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(kvs_fuzz_cstring(bytes, size))));
	KvsKeyIterator iterator;
	KvsKey		key;
	Datum	   *found = palloc(sizeof(Datum) * (JB_ROOT_COUNT(keys) + 1));
	int			count = 0;
	JsonbIterator *elements;
	JsonbValue	element;

	kvs_keyargs_iterate(&iterator, keys, "keys");
	while (kvs_keyargs_next(&iterator, &key))
		found[count++] = kvs_key_make_datum(KvsKeyBytes(&key), key.size);
	kvs_fuzz_accepted();
	kvs_fuzz_require(count == (int) JB_ROOT_COUNT(keys));
	elements = JsonbIteratorInit(&keys->root);
	JsonbIteratorNext(&elements, &element, true);	/* WJB_BEGIN_ARRAY */
	for (int i = 0; i < count; i++)
	{
		JsonbIteratorNext(&elements, &element, true);
		kvs_fuzz_require(VARSIZE_ANY_EXHDR(DatumGetPointer(found[i])) > 0);
		check_element(&element, found[i]);
		kvs_fuzz_check_key(found[i]);
	}
}

const KvsFuzzTarget kvs_fuzz_key_json = {.name = "key_json", .errors = json_errors, .run = run_json};
