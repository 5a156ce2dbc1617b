/*
 * atomicread.c
 *		The operations of kv_atomic(), read from JSON.
 *
 * An operation is an object with one field, its name, and in it an object of arguments.  Nothing is
 * guessed.  An unknown operation, an unknown or missing argument, or one of the wrong type is
 * 22023, with the position of the operation.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "base/base64.h"
#include "key/keyargs.h"
#include "kv/atomicqueue.h"
#include "kv/atomicread.h"
#include "store/number.h"

/* Arguments, as bits: what an operation may have. */
#define ARG_KEY				(1 << 0)
#define ARG_VERSIONSTAMP	(1 << 1)
#define ARG_VALUE			(1 << 2)
#define ARG_BYTES			(1 << 3)
#define ARG_U64				(1 << 4)
#define ARG_TTL_MS			(1 << 5)

#define ARG_CONTENT			(ARG_VALUE | ARG_BYTES | ARG_U64)

static const struct
{
	const char *name;
	int			bit;
}			arguments[] = {
	{"key", ARG_KEY},
	{"versionstamp", ARG_VERSIONSTAMP},
	{"value", ARG_VALUE},
	{"bytes", ARG_BYTES},
	{"u64", ARG_U64},
	{"ttl_ms", ARG_TTL_MS},
};

static const struct
{
	const char *name;
	KvsOperationType type;
	KvsArithmetic arithmetic;
	int			allowed;
	int			one_of;			/* exactly one of these is needed */
}			kinds[] = {
	{"check", KVS_OPERATION_CHECK, KVS_SUM, ARG_KEY | ARG_VERSIONSTAMP, ARG_VERSIONSTAMP},
	{"set", KVS_OPERATION_SET, KVS_SUM, ARG_KEY | ARG_CONTENT | ARG_TTL_MS, ARG_CONTENT},
	{"delete", KVS_OPERATION_DELETE, KVS_SUM, ARG_KEY, 0},
	{"sum", KVS_OPERATION_ARITHMETIC, KVS_SUM, ARG_KEY | ARG_VALUE | ARG_U64, ARG_VALUE | ARG_U64},
	{"min", KVS_OPERATION_ARITHMETIC, KVS_MIN, ARG_KEY | ARG_VALUE | ARG_U64, ARG_VALUE | ARG_U64},
	{"enqueue", KVS_OPERATION_ENQUEUE, KVS_SUM, 0, 0},	/* atomicqueue.c */
	{"max", KVS_OPERATION_ARITHMETIC, KVS_MAX, ARG_KEY | ARG_VALUE | ARG_U64, ARG_VALUE | ARG_U64},
};

/* ---- Arguments ---- */

static int64
read_versionstamp(const JsonbValue *value, int position)
{
	uint64		number = 0;

	if (value->type == jbvNull)
		return 0;
	if (value->type == jbvNumeric)
	{
		char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));

		if (kvs_u64_parse(text, strlen(text), &number) && number <= PG_INT64_MAX)
			return (int64) number;
	}
	else if (value->type == jbvString &&
			 kvs_u64_parse(value->val.string.val, value->val.string.len, &number) && number <= PG_INT64_MAX)
		return (int64) number;
	kvs_operation_bad(position, "\"versionstamp\" must be a number from 0 up, as such or as a decimal string, or null for 0.");
	return 0;
}

static KvsContent
read_content(int bit, JsonbValue *value, int position)
{
	KvsContent	content = {KVS_KIND_JSON, (Datum) 0};
	uint64		number;

	switch (bit)
	{
		case ARG_VALUE:
			content.datum = JsonbPGetDatum(JsonbValueToJsonb(value));
			break;
		case ARG_BYTES:
			content.kind = KVS_KIND_BYTES;
			if (value->type == jbvString)
				content.datum = PointerGetDatum(kvs_base64_decode(value->val.string.val, value->val.string.len));
			if (content.datum == (Datum) 0)
				kvs_operation_bad(position, "\"bytes\" must be a string of base64 with padding.");
			break;
		default:
			if (value->type != jbvString ||
				!kvs_u64_parse(value->val.string.val, value->val.string.len, &number))
				kvs_operation_bad(position, "\"u64\" must be a string of decimal digits, at most 18446744073709551615.");
			content = kvs_u64_content(number);
			break;
	}
	return content;
}

static void
read_argument(KvsOperation *operation, int bit, JsonbValue *value, TimestampTz now)
{
	int			position = operation->position;

	if (bit == ARG_KEY)
	{
		KvsKey		key;

		kvs_keyjson_from_jsonb_value(&key, value);
		kvs_keyargs_check(&key);
		operation->key = kvs_key_make_datum(KvsKeyBytes(&key), key.size);
	}
	else if (bit == ARG_VERSIONSTAMP)
		operation->versionstamp = read_versionstamp(value, position);
	else if (bit == ARG_TTL_MS)
	{
		operation->ttl_given = value->type != jbvNull;
		operation->expires_at = operation->ttl_given ? kvs_atomicoperation_read_ms(value, "ttl_ms", now, position) : DT_NOEND;
	}
	else
	{
		operation->content = read_content(bit, value, position);
		if (operation->type != KVS_OPERATION_ARITHMETIC)
			return;
		if (bit == ARG_VALUE && value->type != jbvNumeric)
			kvs_operation_bad(position, "\"value\" must be a number.");
		operation->operand = kvs_number_of(&operation->content);
	}
}

static int
find_argument(const JsonbValue *name)
{
	for (int i = 0; i < (int) lengthof(arguments); i++)
		if ((int) strlen(arguments[i].name) == name->val.string.len &&
			memcmp(arguments[i].name, name->val.string.val, name->val.string.len) == 0)
			return arguments[i].bit;
	return 0;
}

/* ---- Operations ---- */

/* The arguments of one operation, whose type is known. */
static void
read_arguments(KvsOperation *operation, int kind, JsonbValue *object, TimestampTz now)
{
	int			position = operation->position;
	int			seen = 0;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbValue	name = {0};

	if (object->type != jbvBinary || !JsonContainerIsObject(object->val.binary.data))
		kvs_operation_bad(position, "\"%s\" must be an object.", kinds[kind].name);
	if (operation->type == KVS_OPERATION_ENQUEUE)
	{
		kvs_atomicqueue_read(operation, object, now);
		return;
	}
	iterator = JsonbIteratorInit(object->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		int			bit;

		if (token == WJB_KEY)
			name = value;
		if (token != WJB_VALUE)
			continue;
		bit = find_argument(&name);
		if ((bit & kinds[kind].allowed) == 0)
			kvs_operation_bad(position, "\"%s\" has no field \"%.*s\".", kinds[kind].name, KVS_OPERATION_SHOWN(name));
		seen |= bit;
		read_argument(operation, bit, &value, now);
	}
	if ((seen & ARG_KEY) == 0)
		kvs_operation_bad(position, "\"%s\" needs the field \"key\".", kinds[kind].name);
	if (kinds[kind].one_of != 0 && pg_popcount32(seen & kinds[kind].one_of) != 1)
		kvs_operation_bad(position, "\"%s\" needs %s.", kinds[kind].name,
					  kinds[kind].type == KVS_OPERATION_CHECK ? "the field \"versionstamp\"" :
					  kinds[kind].type == KVS_OPERATION_SET ? "one of the fields \"value\", \"bytes\" and \"u64\"" :
					  "one of the fields \"value\" and \"u64\"");
}

static void
read_operation(KvsOperation *operation, JsonbValue *object, TimestampTz now)
{
	int			position = operation->position;
	JsonbIterator *iterator;
	JsonbValue	name;
	JsonbValue	value;
	int			kind = -1;

	if (object->type != jbvBinary || !JsonContainerIsObject(object->val.binary.data) ||
		JsonContainerSize(object->val.binary.data) != 1)
		kvs_operation_bad(position, "An operation is an object with one field, such as {\"set\": {\"key\": \"k\", \"value\": 1}}.");
	iterator = JsonbIteratorInit(object->val.binary.data);
	JsonbIteratorNext(&iterator, &value, true); /* WJB_BEGIN_OBJECT */
	JsonbIteratorNext(&iterator, &name, true);
	JsonbIteratorNext(&iterator, &value, true);
	for (int i = 0; i < (int) lengthof(kinds); i++)
		if ((int) strlen(kinds[i].name) == name.val.string.len &&
			memcmp(kinds[i].name, name.val.string.val, name.val.string.len) == 0)
			kind = i;
	if (kind < 0)
		kvs_operation_bad(position, "There is no operation \"%.*s\".", KVS_OPERATION_SHOWN(name));
	operation->type = kinds[kind].type;
	operation->arithmetic = kinds[kind].arithmetic;
	read_arguments(operation, kind, &value, now);
}

int
kvs_atomicread_read(Jsonb *json, TimestampTz now, KvsOperation **operations)
{
	int			position = 0;
	KvsOperationContext context;
	JsonbIterator *iterator;
	JsonbValue	value;

	if (!JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("operations must be a JSON array")));
	if (JB_ROOT_COUNT(json) > KVS_OPERATIONS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("too many operations"),
				 errdetail("There are %u, and %d are allowed.", JB_ROOT_COUNT(json), KVS_OPERATIONS_MAX),
				 errhint("Use several calls in one transaction.")));
	*operations = palloc0(sizeof(KvsOperation) * Max(JB_ROOT_COUNT(json), 1));
	iterator = JsonbIteratorInit(&json->root);
	JsonbIteratorNext(&iterator, &value, true); /* WJB_BEGIN_ARRAY */
	kvs_atomicoperation_push_context(&context);
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_ELEM)
	{
		KvsOperation *operation = &(*operations)[position++];

		operation->position = context.position = position;
		read_operation(operation, &value, now);
	}
	kvs_atomicoperation_pop_context(&context);
	return position;
}
