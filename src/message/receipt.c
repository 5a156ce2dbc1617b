/*
 * receipt.c
 *		Receipts: what a consumer shows to acknowledge a message.
 *
 * 36 bytes, their CRC and two zeros, in base64: 56 characters, and none of them is padding, so no
 * two texts are one receipt.  The CRC tells a damaged receipt from a stale one.  It need not
 * protect from somebody who makes receipts up.  The token is a random number, and to use a receipt
 * takes the rights of a consumer of the queue.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/builtins.h"

#include "base/base64.h"
#include "base/compat.h"
#include "message/receipt.h"

/* As it is encoded; without padding, for the compiler adds none. */
typedef struct Packed
{
	uint32		database;
	uint32		queue;
	int64		id;
	int64		enqueued_at;
	uint64		token;
	int32		number;
	uint32		crc;
	uint16		zero;
} Packed;

#define PACKED_SIZE	((Size) 42)

/* Deliveries are not counted further. */
#define MOST_DELIVERIES	(PG_INT32_MAX / 2)

StaticAssertDecl(offsetof(Packed, zero) + sizeof(uint16) == PACKED_SIZE, "receipts have gaps");

static uint32
checksum(const Packed *packed)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, packed, offsetof(Packed, crc));
	FIN_CRC32C(crc);
	return crc;
}

text *
kvs_receipt_to_text(const KvsReceipt *receipt)
{
	Packed		packed;

	packed.database = receipt->database;
	packed.queue = receipt->queue;
	packed.id = receipt->id;
	packed.enqueued_at = receipt->enqueued_at;
	packed.token = receipt->token;
	/* an owner may have written any number of failures into a row */
	packed.number = Min(receipt->number, MOST_DELIVERIES);
	packed.crc = checksum(&packed);
	packed.zero = 0;
	return cstring_to_text(kvs_base64_encode((char *) &packed, PACKED_SIZE));
}

/* False: it is damaged, or none. */
static bool
unpack(const text *str, KvsReceipt *receipt)
{
	bytea	   *bytes;
	Packed		packed;

	bytes = VARSIZE_ANY_EXHDR(str) <= 2 * PACKED_SIZE ? kvs_base64_decode(VARDATA_ANY(str), VARSIZE_ANY_EXHDR(str)) : NULL;
	if (bytes == NULL || VARSIZE_ANY_EXHDR(bytes) != PACKED_SIZE)
		return false;
	memcpy(&packed, VARDATA_ANY(bytes), PACKED_SIZE);
	if (packed.crc != checksum(&packed) || packed.zero != 0 || packed.number < 1 || packed.number > MOST_DELIVERIES)
		return false;
	receipt->database = packed.database;
	receipt->queue = packed.queue;
	receipt->id = packed.id;
	receipt->enqueued_at = packed.enqueued_at;
	receipt->token = packed.token;
	receipt->number = packed.number;
	return true;
}

void
kvs_receipt_from_text(const text *str, KvsReceipt *receipt)
{
	if (str == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("receipt must not be null")));
	if (!unpack(str, receipt))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid receipt"),
				 errhint("Use the receipt that kv_dequeue() has given, unchanged.")));
	if (receipt->database != MyDatabaseId)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("receipt is from another database")));
}

bool
kvs_receipt_try_text(const text *str, KvsReceipt *receipt)
{
	return str != NULL && unpack(str, receipt) && receipt->database == MyDatabaseId;
}
