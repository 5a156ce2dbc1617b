/*
 * fuzzposition.c
 *		Target position: positions of the feed as text, positions of made-up content, and kv_changes() from there.
 *
 * Checksum and epoch would keep nearly all that is made up from getting any further, so each input is also taken for the content of a position, and
 * for text in which these two are then put right.
 *
 * Of the input as content, the first byte chooses how the rest is understood: 8 bytes of position, 4 of store, then the prefix.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "base/errors.h"
#include "feed/feed.h"
#include "fuzz.h"
#include "key/key.h"
#include "watch/feedposition.h"

/* As in position.c. */
#define BODY_SIZE		49
#define TEXT_SIZE		57
#define EPOCH_AT		1

/* Columns of kv_changes() */
#define FEED_POSITION	0
#define OPERATION		1

/* Bits of the choice. */
#define FROM_END		0x01	/* the position counts from the end of the feed */
#define OUR_STORE		0x02	/* the store is the one that there is */
#define BY_PATH			0x04	/* the prefix is a kvkey */
#define FEW				0x08	/* max_count is small: what the higher bits say */
#define KNOWN			0x10	/* the position is one that kv_changes() has given */
#define FEW_SHIFT		5

#define KNOWN_MAX		4096

static KvsFuzzCall by_text;
static KvsFuzzCall by_path;
static Oid	store;
static uint64 known[KNOWN_MAX];
static int	known_count;

/* Note where changes end. */
static void
learn_positions(const text *start)
{
	char	   *sql = psprintf("SELECT feed_position FROM kv_changes('%s', kv_key(), max_count => %d)", text_to_cstring(start), KNOWN_MAX);
	Oid			relid;
	bool		isnull;

	kvs_fuzz_execute(sql);
	known_count = (int) SPI_processed;
	kvs_fuzz_require(known_count > 0);
	for (int i = 0; i < known_count; i++)
		known[i] = kvs_feedposition_from_text(DatumGetTextPP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)), &relid);
}

static void
setup(void)
{
	static const char *const statements[] = {
		"SELECT kv_set('k' || n % 10, to_jsonb(n)) FROM generate_series(1, 2000) n",
		"SELECT kv_set(kv_key('users', n), to_jsonb(n)) FROM generate_series(1, 20) n",
		"SELECT kv_delete('k1')",
		"SELECT kv_expire('k2', '1 hour')",
		"SELECT kv_delete_prefix('k')",
		"SELECT kv_delete_prefix(kv_key('users'))",
		"SELECT kv_set_bytes('b', '\\x00')",
		"SELECT kv_clear()",
		"SELECT kv_set(kv_key('users', n), to_jsonb(n)) FROM generate_series(1, 20) n",
		"SELECT kv_set('k' || n % 10, to_jsonb(n)) FROM generate_series(1, 20) n"
	};
	bool		isnull;
	text	   *start;

	kvs_fuzz_require(kvs_feed_join());
	start = kvs_feedposition_to_text(kvs_feed_end(), InvalidOid);
	kvs_fuzz_prepare(&by_text, "kv_changes(text,text,interval,bigint,text)");
	kvs_fuzz_prepare(&by_path, "kv_changes(text,kvkey,interval,bigint,text)");
	for (int i = 0; i < (int) lengthof(statements); i++)
	{
		kvs_fuzz_execute(statements[i]);
		SPI_commit();
	}
	kvs_fuzz_execute("SELECT 'kvstore.s_default'::regclass::oid");
	store = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	learn_positions(start);
}

/* ---- Reading and writing positions ---- */

typedef struct Reading
{
	const text *str;
	uint64	   *position;
	Oid		   *relid;
} Reading;

static void
read_position(void *arg)
{
	Reading    *reading = arg;

	*reading->position = kvs_feedposition_from_text(reading->str, reading->relid);
}

static bool
is_position(const text *str, uint64 *position, Oid *relid)
{
	static const int errors[] = {ERRCODE_INVALID_PARAMETER_VALUE, KVS_ERRCODE_POSITION_LOST, 0};
	Reading		reading = {str, position, relid};

	return kvs_fuzz_try(read_position, &reading, errors);
}

/* No two texts are one position. */
static bool
check_text(const text *str)
{
	uint64		position;
	Oid			relid;

	if (!is_position(str, &position, &relid))
		return false;
	kvs_fuzz_require(kvs_fuzz_same_text(kvs_feedposition_to_text(position, relid), str));
	return true;
}

/* The same with the epoch of this server and the right checksum; NULL if it is far from being a position. */
static text *
put_right(const text *str)
{
	text	   *result;
	char	   *body;
	char		hex[17];
	pg_crc32c	crc;

	if (VARSIZE_ANY_EXHDR(str) < BODY_SIZE)
		return NULL;
	result = palloc(VARHDRSZ + TEXT_SIZE);
	SET_VARSIZE(result, VARHDRSZ + TEXT_SIZE);
	body = VARDATA(result);
	memcpy(body, VARDATA_ANY(str), BODY_SIZE);
	snprintf(hex, sizeof(hex), "%016llx", (unsigned long long) kvs_feed_epoch());
	memcpy(body + EPOCH_AT, hex, 16);
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, body, BODY_SIZE);
	FIN_CRC32C(crc);
	snprintf(hex, sizeof(hex), "%08x", crc);
	memcpy(body + BODY_SIZE, hex, 8);
	return result;
}

static void
check_damage(const text *str, int at)
{
	text	   *damaged = cstring_to_text_with_len(VARDATA_ANY(str), TEXT_SIZE);
	char	   *place = VARDATA(damaged) + at % TEXT_SIZE;
	uint64		position;
	Oid			relid;

	*place = *place == '1' ? '2' : '1';
	kvs_fuzz_require(!is_position(damaged, &position, &relid));
}

/* ---- Following from there ---- */

typedef struct Use
{
	text	   *str;
	uint64		position;
	KvsFuzzCall *call;
	Datum		prefix;
	int64		max_count;
} Use;

static void
use(void *arg)
{
	Use		   *it = arg;
	KvsFuzzCall *call = it->call;
	TupleTableSlot *slot;
	uint64		last = it->position;
	int64		count = 0;
	bool		progress = false;

	KvsFuzzArg(call, 0, PointerGetDatum(it->str));
	KvsFuzzArg(call, 1, it->prefix);
	KvsFuzzArg(call, 3, Int64GetDatum(it->max_count));
	KvsFuzzArg(call, 4, CStringGetTextDatum("default"));
	kvs_fuzz_call(call, NULL);
	kvs_fuzz_accepted();
	slot = kvs_fuzz_rows(call);
	while (kvs_fuzz_next_row(call, slot))
	{
		uint64		position;
		Oid			relid;

		kvs_fuzz_require(!progress);
		position = kvs_feedposition_from_text(DatumGetTextPP(slot->tts_values[FEED_POSITION]), &relid);
		kvs_fuzz_require(relid == store);
		progress = strcmp(TextDatumGetCString(slot->tts_values[OPERATION]), "progress") == 0;
		kvs_fuzz_require(progress ? position >= last : position > last);
		last = position;
		count += progress ? 0 : 1;
	}
	kvs_fuzz_require(count <= it->max_count && progress == (count < it->max_count));
	ExecDropSingleTupleTableSlot(slot);
}

static void
run(const char *bytes, int size)
{
	text	   *str = kvs_fuzz_text(bytes, size);
	uint8		choice = 0;
	uint64		position = 0;
	uint64		again;
	Oid			relid = InvalidOid;
	Oid			relid_again;
	Use			it = {0};

	check_text(str);
	str = put_right(str);
	if (str != NULL)
		check_text(str);

	kvs_fuzz_take(&bytes, &size, &choice, sizeof(choice));
	kvs_fuzz_take(&bytes, &size, &position, sizeof(position));
	kvs_fuzz_take(&bytes, &size, &relid, sizeof(relid));
	if (choice & FROM_END)
		position = kvs_feed_end() - position;
	if (choice & KNOWN)
		position = known[position % known_count];
	if (choice & OUR_STORE)
		relid = store;
	it.position = position;
	it.str = kvs_feedposition_to_text(position, relid);
	kvs_fuzz_require(VARSIZE_ANY_EXHDR(it.str) == TEXT_SIZE && check_text(it.str));
	kvs_fuzz_require(is_position(it.str, &again, &relid_again) && again == position && relid_again == relid);
	check_damage(it.str, choice);

	it.max_count = choice & FEW ? 1 + (choice >> FEW_SHIFT) : 100;
	it.call = choice & BY_PATH ? &by_path : &by_text;
	if (choice & BY_PATH)
	{
		kvs_key_validate(bytes, size);
		it.prefix = kvs_key_make_datum(bytes, size);
	}
	else
		it.prefix = PointerGetDatum(kvs_fuzz_text(bytes, size));
	kvs_fuzz_rolled_back(use, &it);
}

/* Nothing is left in the feed by what is rolled back: a new transaction now and then is all. */
static void
tidy(void)
{
}

/* 22023: no position of the feed; KV003: of another store, or no longer there; the others are about the prefix */
static const int errors[] = {
	ERRCODE_INVALID_PARAMETER_VALUE, KVS_ERRCODE_POSITION_LOST, ERRCODE_INVALID_BINARY_REPRESENTATION, KVS_ERRCODE_TOO_LARGE, 0
};

const KvsFuzzTarget kvs_fuzz_position = {.name = "position", .errors = errors, .setup = setup, .run = run, .tidy = tidy};
