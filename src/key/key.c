/*
 * key.c
 *		Keys as bytes: building, decoding and validating the Deno KV (FoundationDB tuple) encoding.
 *
 * A key is the concatenation of its parts, each a tag byte and a body.  The order of two keys by
 * memcmp() is that of their paths: bytes < string < bigint < number < false < true, and a path
 * before every longer path that begins with it.
 *
 *		01, 02		bytes, string: 00 in it is written 00 FF, and a 00 without FF ends it
 *		0B .. 1D	bigint: 14 is zero; 14+n and 14-n have n bytes of magnitude, complemented if
 *					negative; 1D and 0B (n = 9) have a length byte (complemented too) in front,
 *					for 9 to 255 bytes
 *		21			number: the IEEE double big-endian, all bits inverted if negative, else the
 *					sign bit set
 *		26, 27		false, true
 *
 * There is one encoding of each path, and validation accepts no other.  The primary key of a store
 * compares bytes, so a second spelling of the same path would be a second entry.  Everything here
 * reads bytes that a client may have made up (casts from bytea, binary COPY).  So each length is
 * checked against the rest of the bytes before it is used.
 */
#include "postgres.h"

#include <math.h>

#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/errors.h"
#include "key/key.h"

/* Longest bigint whose length stands in the tag; the next tag means "a length byte follows". */
#define SHORT_BIGINT_SIZE	8
#define LONG_BIGINT			(SHORT_BIGINT_SIZE + 1)

#define NUMBER_SIZE			8
#define NUMBER_SIGN			UINT64CONST(0x8000000000000000)
#define NUMBER_POSITIVE_NAN UINT64CONST(0x7FF8000000000000)
#define NUMBER_NEGATIVE_NAN UINT64CONST(0xFFF8000000000000)

/* Where a checked part lies in the encoding, nothing copied yet. */
typedef struct PartSpan
{
	KvsPartType type;
	uint8		tag;
	const char *body;
	int			body_len;		/* without terminator or length byte */
	int			escapes;		/* BYTES, STRING: how many 00 FF are in the body */
} PartSpan;

#define report_malformed(...) \
	ereport(ERROR, \
			(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION), \
			 errmsg("malformed encoded key"), \
			 errdetail(__VA_ARGS__)))

static void
report_too_large(int64 size)
{
	ereport(ERROR,
			(errcode(KVS_ERRCODE_TOO_LARGE),
			 errmsg("key is too large"),
			 errdetail("Its encoding needs at least %lld bytes, and %d are allowed.",
					   (long long) size, KVS_KEY_MAX_SIZE)));
}

/* ---- building ---- */

void
kvs_key_init(KvsKey *key)
{
	key->size = 0;
	SET_VARSIZE(&key->u, VARHDRSZ);
}

/* Make the key "len" bytes longer, and say where they go; the caller fills them. */
static inline char *
extend(KvsKey *key, int64 len)
{
	char	   *dest = KvsKeyBytes(key) + key->size;

	if (unlikely(len > KVS_KEY_MAX_SIZE - key->size))
		report_too_large(key->size + len);
	key->size += (int) len;
	SET_VARSIZE(&key->u, VARHDRSZ + key->size);
	return dest;
}

static void
add_escaped(KvsKey *key, uint8 tag, const char *bytes, int len)
{
	int64		need = (int64) len + 2;
	char	   *dest;

	/* What is too large even unescaped need not be counted to the end. */
	if (need <= KVS_KEY_MAX_SIZE)
	{
		for (int i = 0; i < len; i++)
			if (bytes[i] == '\0')
				need++;
	}
	dest = extend(key, need);
	*dest++ = (char) tag;
	for (int i = 0; i < len; i++)
	{
		*dest++ = bytes[i];
		if (bytes[i] == '\0')
			*dest++ = (char) 0xFF;
	}
	*dest = '\0';
}

void
kvs_key_add_string(KvsKey *key, const char *str, int len)
{
	add_escaped(key, KVS_TAG_STRING, str, len);
}

void
kvs_key_add_bytes(KvsKey *key, const char *bytes, int len)
{
	add_escaped(key, KVS_TAG_BYTES, bytes, len);
}

void
kvs_key_add_number(KvsKey *key, double number)
{
	char	   *dest = extend(key, 1 + NUMBER_SIZE);
	uint64		bits;

	memcpy(&bits, &number, sizeof(bits));
	if (isnan(number))
		bits = (bits & NUMBER_SIGN) ? NUMBER_NEGATIVE_NAN : NUMBER_POSITIVE_NAN;
	bits = (bits & NUMBER_SIGN) ? ~bits : (bits | NUMBER_SIGN);
	bits = pg_hton64(bits);
	*dest = KVS_TAG_NUMBER;
	memcpy(dest + 1, &bits, NUMBER_SIZE);
}

void
kvs_key_add_boolean(KvsKey *key, bool value)
{
	*extend(key, 1) = value ? KVS_TAG_TRUE : KVS_TAG_FALSE;
}

void
kvs_key_add_bigint(KvsKey *key, bool negative, const uint8 *magnitude, int len)
{
	bool		is_long = len > SHORT_BIGINT_SIZE;
	int			distance = is_long ? LONG_BIGINT : len;
	uint8		flip = negative ? 0xFF : 0;
	char	   *dest;

	Assert(len == 0 || magnitude[0] != 0);
	if (len > KVS_BIGINT_MAX_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("bigint part needs more than %d bytes", KVS_BIGINT_MAX_SIZE)));
	dest = extend(key, 1 + (is_long ? 1 : 0) + len);
	*dest++ = (char) (negative ? KVS_TAG_BIGINT_ZERO - distance : KVS_TAG_BIGINT_ZERO + distance);
	if (is_long)
		*dest++ = (char) (len ^ flip);
	for (int i = 0; i < len; i++)
		dest[i] = (char) (magnitude[i] ^ flip);
}

void
kvs_key_from_text(KvsKey *key, const text *str)
{
	int			len = VARSIZE_ANY_EXHDR(str);
	char	   *dest;

	/* A text holds no U+0000, so there is nothing to escape. */
	kvs_key_init(key);
	dest = extend(key, (int64) len + 2);
	dest[0] = KVS_TAG_STRING;
	memcpy(dest + 1, VARDATA_ANY(str), len);
	dest[1 + len] = '\0';
}

void
kvs_key_from_datum(KvsKey *key, Datum datum)
{
	struct varlena *bytes = PG_DETOAST_DATUM_PACKED(datum);
	int			size = VARSIZE_ANY_EXHDR(bytes);

	kvs_key_init(key);
	memcpy(extend(key, size), VARDATA_ANY(bytes), size);
	if ((Pointer) bytes != DatumGetPointer(datum))
		pfree(bytes);
}

Datum
kvs_key_make_datum(const char *data, int size)
{
	struct varlena *result = palloc(VARHDRSZ + size);

	SET_VARSIZE(result, VARHDRSZ + size);
	memcpy(VARDATA(result), data, size);
	return PointerGetDatum(result);
}

/* ---- checking ---- */

/* Raise 22P03 unless "len" bytes are left from "pos" on. */
static void
require(int size, int pos, int len)
{
	if (len > size - pos)
		report_malformed("It ends in the middle of a part, after byte %d.", size);
}

/*
 * Find the end of an escaped body.  The text between two U+0000 is checked on its own.  A character
 * cannot reach over an escape, and pg_encoding_verifymbstr() takes a zero byte for the end.
 */
static int
check_escaped(const char *data, int size, int pos, PartSpan *span)
{
	span->body = data + pos;
	span->escapes = 0;
	for (;;)
	{
		const char *segment = data + pos;
		const char *zero = memchr(segment, '\0', size - pos);
		int			len;

		if (zero == NULL)
			report_malformed("It ends in the middle of a part, after byte %d.", size);
		len = (int) (zero - segment);
		if (span->type == KVS_PART_STRING && pg_encoding_verifymbstr(PG_UTF8, segment, len) != len)
			report_malformed("The text from byte %d on is not valid UTF-8.", pos + 1);
		pos += len + 1;
		if (pos == size || (uint8) data[pos] != 0xFF)
			break;
		span->escapes++;
		pos++;
	}
	span->body_len = (int) (data + pos - 1 - span->body);
	return pos;
}

static int
check_bigint(const char *data, int size, int pos, PartSpan *span)
{
	bool		negative = span->tag < KVS_TAG_BIGINT_ZERO;
	uint8		flip = negative ? 0xFF : 0;
	int			len = negative ? KVS_TAG_BIGINT_ZERO - span->tag : span->tag - KVS_TAG_BIGINT_ZERO;

	if (len == LONG_BIGINT)
	{
		require(size, pos, 1);
		len = (uint8) data[pos++] ^ flip;
		if (len <= SHORT_BIGINT_SIZE)
			report_malformed("The bigint part at byte %d is too short for a length byte.", pos - 1);
	}
	require(size, pos, len);
	if (len > 0 && (uint8) data[pos] == flip)
		report_malformed("The bigint part has a leading zero at byte %d.", pos + 1);
	span->body = data + pos;
	span->body_len = len;
	return pos + len;
}

static double
decode_number(const char *body, uint64 *bits)
{
	double		number;

	memcpy(bits, body, NUMBER_SIZE);
	*bits = pg_ntoh64(*bits);
	*bits = (*bits & NUMBER_SIGN) ? (*bits ^ NUMBER_SIGN) : ~*bits;
	memcpy(&number, bits, sizeof(number));
	return number;
}

static int
check_number(const char *data, int size, int pos, PartSpan *span)
{
	uint64		bits;

	require(size, pos, NUMBER_SIZE);
	if (isnan(decode_number(data + pos, &bits)) && bits != NUMBER_POSITIVE_NAN && bits != NUMBER_NEGATIVE_NAN)
		report_malformed("The number part at byte %d is a NaN other than the canonical two.", pos);
	span->body = data + pos;
	span->body_len = NUMBER_SIZE;
	return pos + NUMBER_SIZE;
}

/* Check the part at "pos" < "size", describe it in *span, and give the position behind it. */
static int
check_part(const char *data, int size, int pos, PartSpan *span)
{
	uint8		tag = (uint8) data[pos++];

	span->tag = tag;
	switch (tag)
	{
		case KVS_TAG_BYTES:
			span->type = KVS_PART_BYTES;
			return check_escaped(data, size, pos, span);
		case KVS_TAG_STRING:
			span->type = KVS_PART_STRING;
			return check_escaped(data, size, pos, span);
		case KVS_TAG_NUMBER:
			span->type = KVS_PART_NUMBER;
			return check_number(data, size, pos, span);
		case KVS_TAG_FALSE:
		case KVS_TAG_TRUE:
			span->type = KVS_PART_BOOLEAN;
			return pos;
		default:
			if (tag < KVS_TAG_BIGINT_ZERO - LONG_BIGINT || tag > KVS_TAG_BIGINT_ZERO + LONG_BIGINT)
				report_malformed("Byte %d is 0x%02X, which is no tag of a part.", pos, tag);
			span->type = KVS_PART_BIGINT;
			return check_bigint(data, size, pos, span);
	}
}

void
kvs_key_validate(const char *data, int size)
{
	int			pos = 0;
	PartSpan	span;

	if (size > KVS_KEY_MAX_SIZE)
		report_too_large(size);
	while (pos < size)
		pos = check_part(data, size, pos, &span);
}

/* ---- reading ---- */

static void
copy_escaped(const PartSpan *span, KvsPart *part)
{
	const char *src = span->body;
	char	   *dest;

	part->len = span->body_len - span->escapes;
	part->str = dest = palloc(part->len + 1);
	for (int i = 0; i < part->len; i++)
	{
		dest[i] = *src++;
		if (dest[i] == '\0')
			src++;
	}
	dest[part->len] = '\0';
}

static void
copy_magnitude(const PartSpan *span, KvsPart *part)
{
	uint8		flip;

	part->negative = span->tag < KVS_TAG_BIGINT_ZERO;
	part->len = span->body_len;
	part->str = palloc(part->len + 1);
	flip = part->negative ? 0xFF : 0;
	for (int i = 0; i < part->len; i++)
		part->str[i] = (char) ((uint8) span->body[i] ^ flip);
}

bool
kvs_key_next_part(const char *data, int size, int *pos, KvsPart *part)
{
	PartSpan	span;
	uint64		bits;

	if (*pos >= size)
		return false;
	*pos = check_part(data, size, *pos, &span);
	memset(part, 0, sizeof(*part));
	part->type = span.type;
	switch (span.type)
	{
		case KVS_PART_BYTES:
		case KVS_PART_STRING:
			copy_escaped(&span, part);
			break;
		case KVS_PART_BIGINT:
			copy_magnitude(&span, part);
			break;
		case KVS_PART_NUMBER:
			part->number = decode_number(span.body, &bits);
			break;
		case KVS_PART_BOOLEAN:
			part->boolean = span.tag == KVS_TAG_TRUE;
			break;
	}
	return true;
}

int
kvs_key_compare(Datum a, Datum b)
{
	const struct varlena *x = (const struct varlena *) DatumGetPointer(a);
	const struct varlena *y = (const struct varlena *) DatumGetPointer(b);
	int			nx = VARSIZE_ANY_EXHDR(x);
	int			ny = VARSIZE_ANY_EXHDR(y);
	int			result = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(nx, ny));

	return result != 0 ? result : nx - ny;
}

bool
kvs_key_is_text(const char *data, int size)
{
	return size >= 2 && data[0] == KVS_TAG_STRING && memchr(data + 1, '\0', size - 1) == data + size - 1;
}

int
kvs_key_first_string_size(const char *data, int size)
{
	const char *end = data + 1;

	Assert(size >= 2 && data[0] == KVS_TAG_STRING);
	/* a zero that FF follows belongs to the string */
	while ((end = memchr(end, '\0', data + size - end)) != NULL &&
		   end + 1 < data + size && (uint8) end[1] == 0xFF)
		end += 2;
	return end == NULL ? size : (int) (end - data) + 1;
}

text *
kvs_key_to_text(const char *data, int size)
{
	Assert(kvs_key_is_text(data, size));
	return cstring_to_text_with_len(data + 1, size - 2);
}
