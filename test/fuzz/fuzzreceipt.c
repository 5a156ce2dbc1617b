/*
 * fuzzreceipt.c
 *		Target receipt: receipts as text, receipts of made-up content, and what ack, nack, release and extend do with them.
 *
 * A checksum would keep nearly all that is made up from getting any further, so each input is also taken for the content of a receipt, and
 * for text whose checksum is then put right.
 *
 * Of the input as content, the first byte chooses what is done and with which queue and message, and the rest fills the fields.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/base64.h"
#include "base/errors.h"
#include "fuzz.h"
#include "message/receipt.h"

/* As in receipt.c: how it is encoded, the number of the delivery, the checksum of what is before it, and zeros. */
#define PACKED_SIZE		42
#define NUMBER_AT		32
#define CHECKSUM_AT		36
#define ZERO_AT			40
#define TEXT_SIZE		56

#define MESSAGES		4
#define LEASED			2

enum
{
	ACK,
	NACK,
	RELEASE,
	EXTEND,
	ACTIONS
};

static KvsFuzzCall calls[ACTIONS];
static KvsReceipt messages[MESSAGES];

/* ---- A queue with some messages, two of them leased ---- */

static int64
read_int64(int row, int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull));
}

static void
tidy(void)
{
	kvs_fuzz_execute("TRUNCATE kvstore.q_default, kvstore.d_default RESTART IDENTITY");
	kvs_fuzz_execute("SELECT kv_enqueue('default', to_jsonb(n)) FROM generate_series(1, 4) n");
	SPI_commit();
	kvs_fuzz_execute("SELECT id, enqueued_at, 'kvstore.q_default'::regclass::oid::bigint FROM kvstore.q_default ORDER BY id");
	kvs_fuzz_require(SPI_processed == MESSAGES);
	for (int i = 0; i < MESSAGES; i++)
		messages[i] = (KvsReceipt) {.database = MyDatabaseId, .queue = (Oid) read_int64(i, 3), .id = read_int64(i, 1), .enqueued_at = read_int64(i, 2)};
	kvs_fuzz_execute("SELECT receipt FROM kv_dequeue('default', 2, '12 hours') ORDER BY id");
	kvs_fuzz_require(SPI_processed == LEASED);
	for (int i = 0; i < LEASED; i++)
	{
		bool		isnull;

		kvs_receipt_from_text(DatumGetTextPP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)), &messages[i]);
	}
}

static void
setup(void)
{
	kvs_fuzz_prepare(&calls[ACK], "kv_ack(text)");
	kvs_fuzz_prepare(&calls[NACK], "kv_nack(text,interval,text,boolean)");
	kvs_fuzz_prepare(&calls[RELEASE], "kv_release(text,interval)");
	kvs_fuzz_prepare(&calls[EXTEND], "kv_extend(text,interval)");
	tidy();
	SPI_commit();
}

/* ---- Reading and writing receipts ---- */

typedef struct Reading
{
	const text *str;
	KvsReceipt *receipt;
} Reading;

static void
read_receipt(void *arg)
{
	Reading    *reading = arg;

	kvs_receipt_from_text(reading->str, reading->receipt);
}

/* Is it a receipt?  Whatever is none has to be refused by the one right error. */
static bool
is_receipt(const text *str, KvsReceipt *receipt)
{
	static const int errors[] = {ERRCODE_INVALID_PARAMETER_VALUE, 0};
	Reading		reading = {str, receipt};

	return kvs_fuzz_try(read_receipt, &reading, errors);
}

/* No two texts are one receipt. */
static bool
check_text(const text *str)
{
	KvsReceipt	receipt;

	if (!is_receipt(str, &receipt))
		return false;
	kvs_fuzz_require(VARSIZE_ANY_EXHDR(str) == TEXT_SIZE && receipt.database == MyDatabaseId);
	kvs_fuzz_require(kvs_fuzz_same_text(kvs_receipt_to_text(&receipt), str));
	return true;
}

/* Of a delivery. */
static int32
possible_number(int32 number)
{
	return Max(number & (PG_INT32_MAX / 2), 1);
}

/* The same receipt as if it had been given here; NULL if it is far from being one. */
static text *
put_right(const text *str)
{
	bytea	   *packed = kvs_base64_decode(VARDATA_ANY(str), VARSIZE_ANY_EXHDR(str));
	int32		number;
	pg_crc32c	crc;

	if (packed == NULL || VARSIZE_ANY_EXHDR(packed) != PACKED_SIZE)
		return NULL;
	memcpy(VARDATA(packed), &MyDatabaseId, sizeof(Oid));
	memcpy(&number, VARDATA(packed) + NUMBER_AT, sizeof(number));
	number = possible_number(number);
	memcpy(VARDATA(packed) + NUMBER_AT, &number, sizeof(number));
	memset(VARDATA(packed) + ZERO_AT, 0, PACKED_SIZE - ZERO_AT);
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, VARDATA(packed), CHECKSUM_AT);
	FIN_CRC32C(crc);
	memcpy(VARDATA(packed) + CHECKSUM_AT, &crc, sizeof(crc));
	return cstring_to_text(kvs_base64_encode(VARDATA(packed), PACKED_SIZE));
}

/* One character changed is noticed. */
static void
check_damage(const text *str, int at)
{
	text	   *damaged = cstring_to_text_with_len(VARDATA_ANY(str), TEXT_SIZE);
	char	   *place = VARDATA(damaged) + at % TEXT_SIZE;
	KvsReceipt	receipt;

	*place = *place == 'A' ? 'B' : 'A';
	kvs_fuzz_require(!is_receipt(damaged, &receipt));
}

/* ---- Using them ---- */

typedef struct Use
{
	int			action;
	text	   *str;
} Use;

static void
use(void *arg)
{
	Use		   *it = arg;
	KvsReceipt	receipt;
	bool		isnull;
	Datum		result;
	bool		exists = false;

	kvs_receipt_from_text(it->str, &receipt);
	for (int i = 0; i < MESSAGES; i++)
		exists |= receipt.queue == messages[i].queue && receipt.id == messages[i].id;
	KvsFuzzArg(&calls[it->action], 0, PointerGetDatum(it->str));
	result = kvs_fuzz_call(&calls[it->action], &isnull);
	kvs_fuzz_accepted();
	if (it->action == ACK || it->action == RELEASE)
		kvs_fuzz_require(!isnull && (!DatumGetBool(result) || exists));
	else
		kvs_fuzz_require(isnull || exists);
}

static void
run(const char *bytes, int size)
{
	text	   *str = kvs_fuzz_text(bytes, size);
	KvsReceipt	receipt = {0};
	KvsReceipt	again;
	uint8		choice = size > 0 ? (uint8) *bytes : 0;
	Use			it = {.action = choice % ACTIONS};

	check_text(str);
	it.str = put_right(str);
	if (it.str != NULL)
	{
		kvs_fuzz_require(check_text(it.str));
		kvs_fuzz_rolled_back(use, &it);
	}

	/* from one of the messages, or from nothing; then as many fields as the input has bytes for, the token first */
	if ((choice / ACTIONS) % (MESSAGES + 1) < MESSAGES)
		receipt = messages[(choice / ACTIONS) % (MESSAGES + 1)];
	kvs_fuzz_take(&bytes, &size, &choice, sizeof(choice));
	kvs_fuzz_take(&bytes, &size, &receipt.token, sizeof(receipt.token));
	kvs_fuzz_take(&bytes, &size, &receipt.enqueued_at, sizeof(receipt.enqueued_at));
	kvs_fuzz_take(&bytes, &size, &receipt.id, sizeof(receipt.id));
	kvs_fuzz_take(&bytes, &size, &receipt.queue, sizeof(receipt.queue));
	kvs_fuzz_take(&bytes, &size, &receipt.number, sizeof(receipt.number));
	receipt.number = possible_number(receipt.number);
	receipt.database = MyDatabaseId;
	it.str = kvs_receipt_to_text(&receipt);
	kvs_fuzz_require(check_text(it.str));
	kvs_fuzz_require(is_receipt(it.str, &again) && again.queue == receipt.queue && again.id == receipt.id &&
					 again.enqueued_at == receipt.enqueued_at && again.token == receipt.token && again.number == receipt.number);
	check_damage(it.str, choice);
	kvs_fuzz_rolled_back(use, &it);
}

/* None: what a receipt may be refused with is looked at above. */
static const int errors[] = {0};

const KvsFuzzTarget kvs_fuzz_receipt = {.name = "receipt", .errors = errors, .setup = setup, .run = run, .tidy = tidy};
