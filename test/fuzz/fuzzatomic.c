/*
 * fuzzatomic.c
 *		Target atomic: the operations of kv_atomic(), read and then carried out, in a subtransaction that is rolled back.
 *
 * Before and after, the entries are read by another way, and must be what the operations say.
 *
 * Few changes leave JSON what it is, so an input is text only if it does not begin with 01; else each byte that follows chooses what comes next in
 * operations that are mostly good.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/errors.h"
#include "fuzz.h"
#include "store/number.h"
#include "kv/atomicread.h"
#include "store/scan.h"

/* With more operations than these, the entries are not looked at. */
#define LOOKED_AT_MAX	40

/* An entry that expires so soon may be gone when it is looked at. */
#define SOON			(60 * USECS_PER_SEC)

typedef struct Entry
{
	int64		versionstamp;	/* 0: absent */
	char		kind;
	Datum		datum;
} Entry;

typedef struct Input
{
	Jsonb	   *json;
	TimestampTz now;
	KvsOperation *operations;
	int			count;
	Entry		before[LOOKED_AT_MAX];
	Entry		after[LOOKED_AT_MAX];
} Input;

static KvsFuzzCall kv_atomic;
static SPIPlanPtr count_messages;

/* ---- The entries that there are ---- */

static void
tidy(void)
{
	static const char *const statements[] = {
		"TRUNCATE kvstore.s_default, kvstore.q_default",
		"INSERT INTO kvstore.s_default (key, value, bytes, kind, versionstamp, expires_at) VALUES "
		"(kv_key('n'), '5', NULL, 'j', 1, NULL), (kv_key('u'), '18446744073709551615', NULL, 'u', 2, NULL), "
		"(kv_key('b'), NULL, '\\x00ff', 'b', 3, NULL), (kv_key('o'), '{\"a\": [1, null]}', NULL, 'j', 4, '2999-01-01'), "
		"(kv_key('users', 1), '\"x\"', NULL, 'j', 5, NULL), (kv_key('x'), '7', NULL, 'j', 6, '2001-01-01')"
	};

	for (int i = 0; i < (int) lengthof(statements); i++)
		kvs_fuzz_execute(statements[i]);
}

static void
setup(void)
{
	kvs_fuzz_prepare(&kv_atomic, "kv_atomic(jsonb,text)");
	count_messages = SPI_prepare("SELECT count(*) FROM kvstore.q_default", 0, NULL);
	SPI_keepplan(count_messages);
	tidy();
	SPI_commit();
}

/* Read the entry of each operation that has one. */
static void
look(const Input *input, Entry *entries)
{
	KvsScan		scan;
	KvsKey		key;
	KvsRow		row;

	if (input->count > LOOKED_AT_MAX)
		return;
	kvs_scan_begin(&scan, cstring_to_text("default"), GetCurrentTimestamp());
	for (int i = 0; i < input->count; i++)
	{
		entries[i].versionstamp = 0;
		if (input->operations[i].type == KVS_OPERATION_ENQUEUE)
			continue;
		kvs_key_from_datum(&key, input->operations[i].key);
		if (!kvs_scan_find(&scan, &key, &row))
			continue;
		kvs_fuzz_require(row.versionstamp > 0);
		kvs_fuzz_require(kvs_content_is_whole(&row.content));
		entries[i].versionstamp = row.versionstamp;
		kvs_content_copy(&row.content);
		entries[i].kind = row.content.kind;
		entries[i].datum = row.content.datum;
	}
	kvs_scan_end(&scan);
}

/* ---- Input that is mostly good ---- */

#define CHOICE			0x01

/* So many operations are enough for what one has to do with another. */
#define CHOSEN_MAX		8

static const char *const names[] = {"check", "set", "delete", "sum", "min", "max", "enqueue"};

static const char *const keys[] = {
	"\"n\"", "\"u\"", "\"b\"", "\"o\"", "\"x\"", "[\"users\", 1]", "\"a\"", "\"c\"", "[\"a\"]", "[1.5, true, {\"bytes\": \"AA==\"}]",
	"[{\"utf8\": \"YQBi\"}]", "[{\"bigint\": \"-256\"}]", "\"\"", "[]"
};

static const char *const stamps[] = {"0", "1", "2", "3", "4", "5", "6", "null", "\"1\"", "9223372036854775807", "9223372036854775808", "0.5"};

static const char *const contents[] = {
	"\"value\": 1", "\"value\": {\"a\": [1, null]}", "\"value\": null", "\"value\": \"x\"", "\"value\": 1e300", "\"bytes\": \"AAH/\"", "\"bytes\": \"\"",
	"\"u64\": \"0\"", "\"u64\": \"18446744073709551615\"", "\"value\": 1, \"u64\": \"1\"", "\"bytes\": \"A\""
};

static const char *const expiries[] = {
	"", "", "", ", \"ttl_ms\": 0", ", \"ttl_ms\": 3600000", ", \"ttl_ms\": null", ", \"ttl_ms\": 3600000.5", ", \"ttl_ms\": -1",
	", \"ttl_ms\": 9000000000000000"
};

static const char *const operands[] = {
	"\"value\": 1", "\"value\": -1", "\"value\": 2.5", "\"value\": 0", "\"value\": 18446744073709551615", "\"value\": -36893488147419103233",
	"\"value\": 1e300", "\"u64\": \"1\"", "\"u64\": \"18446744073709551615\"", "\"u64\": \"0\"", "\"value\": \"1\"", "\"value\": 9e131071"
};

static const char *const options[] = {
	"", ", \"delay_ms\": 1000", ", \"priority\": 9", ", \"headers\": {\"h\": 1}", ", \"max_attempts\": 3", ", \"backoff_ms\": [0, 100]",
	", \"ttl_ms\": 60000", ", \"dedupe_key\": \"a\"", ", \"dedupe_key\": \"b\"", ", \"keys_if_undelivered\": [\"a\", [\"b\", 1]]",
	", \"undelivered_store\": \"default\"", ", \"priority\": 10", ", \"delay_ms\": 1e18", ", \"priority\": null"
};

typedef struct Choices
{
	const char *bytes;
	int			size;
} Choices;

static const char *
choose(Choices *choices, const char *const *from, int count)
{
	uint8		byte = 0;

	kvs_fuzz_take(&choices->bytes, &choices->size, &byte, sizeof(byte));
	return from[byte % count];
}

#define choose_from(choices, list) choose(choices, list, lengthof(list))

static void
append_operation(StringInfo json, Choices *choices)
{
	const char *name = choose_from(choices, names);

	appendStringInfo(json, "{\"%s\": {", name);
	if (strcmp(name, "enqueue") == 0)
	{
		appendStringInfoString(json, "\"queue\": \"default\", \"payload\": 1");
		appendStringInfoString(json, choose_from(choices, options));
		appendStringInfoString(json, choose_from(choices, options));
	}
	else
	{
		appendStringInfo(json, "\"key\": %s", choose_from(choices, keys));
		if (strcmp(name, "check") == 0)
			appendStringInfo(json, ", \"versionstamp\": %s", choose_from(choices, stamps));
		else if (strcmp(name, "set") == 0)
		{
			appendStringInfo(json, ", %s", choose_from(choices, contents));
			appendStringInfoString(json, choose_from(choices, expiries));
		}
		else if (strcmp(name, "delete") != 0)
			appendStringInfo(json, ", %s", choose_from(choices, operands));
	}
	appendStringInfoString(json, "}}");
}

static char *
make_operations(Choices choices)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	for (int i = 0; i < CHOSEN_MAX && choices.size > 0; i++)
	{
		appendStringInfoString(&json, i > 0 ? ", " : "");
		append_operation(&json, &choices);
	}
	appendStringInfoChar(&json, ']');
	return json.data;
}

/* ---- What was read ---- */

static void
check_operation(const KvsOperation *operation, TimestampTz now)
{
	if (operation->type == KVS_OPERATION_ENQUEUE)
	{
		kvs_fuzz_require(operation->enqueue != NULL);
		return;
	}
	kvs_fuzz_require(VARSIZE_ANY_EXHDR(DatumGetPointer(operation->key)) > 0);
	kvs_key_validate(VARDATA_ANY(DatumGetPointer(operation->key)), VARSIZE_ANY_EXHDR(DatumGetPointer(operation->key)));
	kvs_fuzz_require(operation->versionstamp >= 0);
	if (operation->type == KVS_OPERATION_SET || operation->type == KVS_OPERATION_ARITHMETIC)
	{
		char		kind = operation->content.kind;

		kvs_fuzz_require(kind == KVS_KIND_JSON || kind == KVS_KIND_U64 || (kind == KVS_KIND_BYTES && operation->type == KVS_OPERATION_SET));
		kvs_fuzz_require(kind != KVS_KIND_U64 || kvs_u64_is(operation->content.datum));
		kvs_fuzz_require(!operation->ttl_given || operation->expires_at >= now);
	}
}

/* ---- What came of it ---- */

/* Checks fail whose entry has another number, and no others. */
static int
check_failed(const Input *input, Datum failed)
{
	Datum	   *positions;
	int			count;
	int			found = 0;

	deconstruct_array(DatumGetArrayTypeP(failed), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &positions, NULL, &count);
	for (int i = 0; i < input->count && input->count <= LOOKED_AT_MAX; i++)
	{
		const KvsOperation *operation = &input->operations[i];

		if (operation->type != KVS_OPERATION_CHECK || operation->versionstamp == input->before[i].versionstamp)
			continue;
		kvs_fuzz_require(found < count && DatumGetInt64(positions[found]) == operation->position);
		found++;
	}
	kvs_fuzz_require(input->count > LOOKED_AT_MAX || found == count);
	return count;
}

/* Does one of the operations from there on write the same key? */
static bool
is_written_from(const Input *input, int i, int from)
{
	for (int j = from; j < input->count; j++)
		if (j != i && input->operations[j].type != KVS_OPERATION_CHECK && input->operations[j].type != KVS_OPERATION_ENQUEUE &&
			kvs_fuzz_same_bytes(input->operations[j].key, input->operations[i].key))
			return true;
	return false;
}

static void
check_unchanged(const Entry *before, const Entry *after)
{
	kvs_fuzz_require(before->versionstamp == after->versionstamp);
	if (before->versionstamp != 0)
		kvs_fuzz_require(before->kind == after->kind && kvs_fuzz_same_bytes(before->datum, after->datum));
}

/* No later operation writes its key. */
static void
check_last(const KvsOperation *operation, const Entry *after, int64 versionstamp)
{
	switch (operation->type)
	{
		case KVS_OPERATION_DELETE:
			kvs_fuzz_require(after->versionstamp == 0);
			break;
		case KVS_OPERATION_SET:
			if (operation->ttl_given && operation->expires_at < GetCurrentTimestamp() + SOON)
				break;
			kvs_fuzz_require(after->versionstamp == versionstamp && after->kind == operation->content.kind);
			kvs_fuzz_require(kvs_fuzz_same_bytes(after->datum, operation->content.datum));
			break;
		case KVS_OPERATION_ARITHMETIC:
			/* an entry that another operation here gave a short ttl may have expired */
			if (after->versionstamp == 0)
				break;
			kvs_fuzz_require(after->versionstamp == versionstamp);
			kvs_fuzz_require(after->kind == KVS_KIND_U64 ? kvs_u64_is(after->datum) : after->kind == KVS_KIND_JSON);
			break;
		case KVS_OPERATION_CHECK:
		case KVS_OPERATION_ENQUEUE:
			break;
	}
}

static Numeric
call(PGFunction function, Numeric a, Numeric b)
{
	return DatumGetNumeric(DirectFunctionCall2(function, NumericGetDatum(a), NumericGetDatum(b)));
}

static Numeric
number_of(const Entry *entry)
{
	KvsContent	content = {entry->kind, entry->datum};

	return kvs_number_of(&content);
}

static void
check_arithmetic(const KvsOperation *operation, const Entry *before, const Entry *after)
{
	PGFunction	functions[] = {[KVS_SUM] = numeric_add, [KVS_MIN] = numeric_smaller, [KVS_MAX] = numeric_larger};
	Numeric		limit = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum("18446744073709551616"), ObjectIdGetDatum(InvalidOid),
															Int32GetDatum(-1)));
	Numeric		expected;

	if (before->versionstamp == 0)
	{
		kvs_fuzz_require(after->kind == operation->content.kind && kvs_fuzz_same_bytes(after->datum, operation->content.datum));
		return;
	}
	kvs_fuzz_require(after->kind == before->kind);
	expected = call(functions[operation->arithmetic], number_of(before), operation->operand);
	/* the remainder has the sign of what is divided */
	if (after->kind == KVS_KIND_U64)
		expected = call(numeric_mod, call(numeric_add, call(numeric_mod, expected, limit), limit), limit);
	kvs_fuzz_require(DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(expected), NumericGetDatum(number_of(after)))));
}

/* No other operation writes its key. */
static void
check_only(const KvsOperation *operation, const Entry *before, const Entry *after)
{
	if (operation->type == KVS_OPERATION_CHECK)
		check_unchanged(before, after);
	else if (operation->type == KVS_OPERATION_ARITHMETIC)
		check_arithmetic(operation, before, after);
}

/* All messages are sent, or none; one with the dedupe_key of another is that one. */
static void
check_messages(const Input *input, bool ok)
{
	int			sent = 0;
	int64		found;
	bool		isnull;

	for (int i = 0; i < input->count; i++)
		sent += input->operations[i].type == KVS_OPERATION_ENQUEUE ? 1 : 0;
	if (sent == 0)
		return;
	SPI_connect();
	kvs_fuzz_require(SPI_execute_plan(count_messages, NULL, NULL, false, 1) == SPI_OK_SELECT);
	found = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	kvs_fuzz_require(ok ? found >= 1 && found <= sent : found == 0);
}

static void
check_result(Input *input, bool ok, int64 versionstamp)
{
	if (input->count > LOOKED_AT_MAX)
		return;
	look(input, input->after);
	for (int i = 0; i < input->count; i++)
		if (!ok)
			check_unchanged(&input->before[i], &input->after[i]);
		else if (input->operations[i].type != KVS_OPERATION_ENQUEUE)
		{
			if (!is_written_from(input, i, i + 1))
				check_last(&input->operations[i], &input->after[i], versionstamp);
			if (!is_written_from(input, i, 0))
				check_only(&input->operations[i], &input->before[i], &input->after[i]);
		}
}

static void
execute(void *arg)
{
	Input	   *input = arg;
	TupleTableSlot *slot;
	bool		ok;

	look(input, input->before);
	KvsFuzzArg(&kv_atomic, 0, JsonbPGetDatum(input->json));
	KvsFuzzArg(&kv_atomic, 1, CStringGetTextDatum("default"));
	kvs_fuzz_call(&kv_atomic, NULL);
	kvs_fuzz_accepted();
	kvs_fuzz_new_snapshot();
	slot = kvs_fuzz_rows(&kv_atomic);
	kvs_fuzz_require(kvs_fuzz_next_row(&kv_atomic, slot));
	ok = DatumGetBool(slot->tts_values[0]);
	kvs_fuzz_require(!slot->tts_isnull[0] && slot->tts_isnull[1] == !ok && !slot->tts_isnull[2]);
	kvs_fuzz_require(!ok || DatumGetInt64(slot->tts_values[1]) > 0);
	kvs_fuzz_require(ok == (check_failed(input, slot->tts_values[2]) == 0));
	check_result(input, ok, DatumGetInt64(slot->tts_values[1]));
	check_messages(input, ok);
	kvs_fuzz_require(!kvs_fuzz_next_row(&kv_atomic, slot));
	ExecDropSingleTupleTableSlot(slot);
}

static void
run(const char *bytes, int size)
{
	Input	   *input = palloc0(sizeof(Input));
	char	   *str;

	str = size > 0 && *bytes == CHOICE ? make_operations((Choices) {bytes + 1, size - 1}) : kvs_fuzz_cstring(bytes, size);
	input->json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(str)));
	input->now = GetCurrentTimestamp();
	input->count = kvs_atomicread_read(input->json, input->now, &input->operations);
	kvs_fuzz_require(input->count == (int) JB_ROOT_COUNT(input->json) && input->count <= KVS_OPERATIONS_MAX);
	for (int i = 0; i < input->count; i++)
	{
		kvs_fuzz_require(input->operations[i].position == i + 1);
		check_operation(&input->operations[i], input->now);
	}
	kvs_fuzz_rolled_back(execute, input);
}

static const int errors[] = {
	ERRCODE_INVALID_TEXT_REPRESENTATION, ERRCODE_UNTRANSLATABLE_CHARACTER, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
	ERRCODE_INVALID_PARAMETER_VALUE, ERRCODE_UNDEFINED_TABLE, KVS_ERRCODE_TOO_LARGE, KVS_ERRCODE_WRONG_KIND, 0
};

const KvsFuzzTarget kvs_fuzz_atomic = {.name = "atomic", .errors = errors, .setup = setup, .run = run, .tidy = tidy};
