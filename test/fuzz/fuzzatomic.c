/*
 * fuzzatomic.c
 *		Target atomic: the operations of kv_atomic(), read and then carried out, in a subtransaction that is rolled back.
 *
 * Before and after, the entries are read by another way, and must be what the operations say.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "fuzz.h"
#include "number.h"
#include "operations.h"
#include "scan.h"

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
		kvs_fuzz_require((row.kind == KVS_KIND_BYTES) == row.has_bytes && row.has_value != row.has_bytes);
		entries[i].versionstamp = row.versionstamp;
		entries[i].kind = row.kind;
		entries[i].datum = PointerGetDatum(PG_DETOAST_DATUM_COPY(row.has_value ? row.value : row.bytes));
	}
	kvs_scan_end(&scan);
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

/* Does a later operation write the same key? */
static bool
is_overridden(const Input *input, int i)
{
	for (int j = i + 1; j < input->count; j++)
		if (input->operations[j].type != KVS_OPERATION_CHECK && input->operations[j].type != KVS_OPERATION_ENQUEUE &&
			kvs_fuzz_same_bytes(input->operations[j].key, input->operations[i].key))
			return true;
	return false;
}

static void
check_written(const KvsOperation *operation, const Entry *before, const Entry *after, int64 versionstamp)
{
	switch (operation->type)
	{
		case KVS_OPERATION_CHECK:
			kvs_fuzz_require(before->versionstamp == after->versionstamp);
			break;
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
		case KVS_OPERATION_ENQUEUE:
			break;
	}
}

static void
check_result(Input *input, bool ok, int64 versionstamp)
{
	if (input->count > LOOKED_AT_MAX)
		return;
	look(input, input->after);
	for (int i = 0; i < input->count; i++)
		if (!ok)
			kvs_fuzz_require(input->before[i].versionstamp == input->after[i].versionstamp);
		else if (input->operations[i].type != KVS_OPERATION_ENQUEUE && !is_overridden(input, i))
			check_written(&input->operations[i], &input->before[i], &input->after[i], versionstamp);
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
	kvs_fuzz_require(!kvs_fuzz_next_row(&kv_atomic, slot));
	ExecDropSingleTupleTableSlot(slot);
}

static void
run(const char *bytes, int size)
{
	Input	   *input = palloc0(sizeof(Input));

	input->json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(kvs_fuzz_cstring(bytes, size))));
	input->now = GetCurrentTimestamp();
	input->count = kvs_operations_read(input->json, input->now, &input->operations);
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
