/*
 * key.h
 *		Keys: paths of typed parts in the Deno KV (FoundationDB tuple) encoding.
 *
 * Four files share this header: key.c (bytes), keynumber.c (numbers and their decimal forms),
 * keyjson.c (the JSON form), keytype.c (the SQL type kvkey; its operators are in keyorder.c).
 */
#ifndef KVS_KEY_H
#define KVS_KEY_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/numeric.h"

/* Largest key, in encoded bytes. */
#define KVS_KEY_MAX_SIZE	2048

/* First byte of an encoded part. */
#define KVS_TAG_BYTES		0x01
#define KVS_TAG_STRING		0x02
/* others: plus or minus the number of bytes, or 9 when a length byte follows */
#define KVS_TAG_BIGINT_ZERO 0x14
#define KVS_TAG_NUMBER		0x21
#define KVS_TAG_FALSE		0x26
#define KVS_TAG_TRUE		0x27

/*
 * A key being built, or handed around inside one call: a kvkey datum on the stack.  "size" is the
 * number of encoded bytes in "data".  Every function below keeps the varlena header right, so
 * KvsKeyDatum() may be taken at any time.
 */
typedef struct KvsKey
{
	int			size;
	union
	{
		int32		header;		/* varlena header; makes the whole a valid kvkey datum */
		/* one more for the bound of a range, see list.c */
		char		raw[VARHDRSZ + KVS_KEY_MAX_SIZE + 1];
	}			u;
} KvsKey;

/* Most bytes the magnitude of a bigint may have: its length is one byte. */
#define KVS_BIGINT_MAX_SIZE 255

#define KvsKeyBytes(key)	((key)->u.raw + VARHDRSZ)
#define KvsKeyDatum(key)	PointerGetDatum(&(key)->u)

/* ---- key.c ---- */

/* The empty path, to which parts are then added. */
extern void kvs_key_init(KvsKey *key);

/* Add one part.  All raise KV002 when the key would exceed KVS_KEY_MAX_SIZE. */
/* "str" is valid UTF-8, U+0000 allowed */
extern void kvs_key_add_string(KvsKey *key, const char *str, int len);
extern void kvs_key_add_bytes(KvsKey *key, const char *bytes, int len);
/* NaN is made canonical, its sign kept */
extern void kvs_key_add_number(KvsKey *key, double number);
extern void kvs_key_add_boolean(KvsKey *key, bool value);
/*
 * A bigint of any sign: "magnitude" big-endian without leading zero bytes; "len" 0 is zero, at most
 * 255 (else 22003).
 */
extern void kvs_key_add_bigint(KvsKey *key, bool negative, const uint8 *magnitude, int len);

/* The key of one string part: what a text argument means.  The hot path of every text form. */
extern void kvs_key_from_text(KvsKey *key, const text *str);

/* Copy the bytes of a kvkey datum (possibly toasted or short) into "key". */
extern void kvs_key_from_datum(KvsKey *key, Datum datum);

/* The order of two kvkey datums that are not toasted. */
extern int	kvs_key_compare(Datum a, Datum b);

/* Is this encoding one string part without U+0000, which the text forms can show? */
extern bool kvs_key_is_text(const char *data, int size);

/* How many bytes the first part of a key has, a string. */
extern int	kvs_key_first_string_size(const char *data, int size);

/* The string of a key for which kvs_key_is_text() is true, palloc'd. */
extern text *kvs_key_to_text(const char *data, int size);

/*
 * One part, decoded.  kvs_key_next_part() reads the part at *pos and moves *pos behind it; false at
 * the end.  Bytes that are no canonical encoding raise 22P03, so a kvkey that came through
 * validation never does.
 */
typedef enum KvsPartType
{
	KVS_PART_BYTES,
	KVS_PART_STRING,
	KVS_PART_BIGINT,
	KVS_PART_NUMBER,
	KVS_PART_BOOLEAN
} KvsPartType;

typedef struct KvsPart
{
	KvsPartType type;
	/* BYTES, STRING: unescaped, palloc'd; BIGINT: magnitude, big-endian, palloc'd */
	char	   *str;
	int			len;
	bool		negative;		/* BIGINT */
	double		number;			/* NUMBER */
	bool		boolean;		/* BOOLEAN */
} KvsPart;

extern bool kvs_key_next_part(const char *data, int size, int *pos, KvsPart *part);

/* Raise 22P03 unless the bytes are a canonical encoding, KV002 if there are too many of them. */
extern void kvs_key_validate(const char *data, int size);

/* A palloc'd kvkey datum of these bytes. */
extern Datum kvs_key_make_datum(const char *data, int size);

/*
 * ---- keynumber.c: "position", here and below, is the 1-based place of the part, for the error
 * message ----
 */

/*
 * Add a number part; 22003 for an integer beyond 2^53, which a double need not hold.  Other
 * numerics become the nearest double.
 */
extern void kvs_keynumber_add_integer(KvsKey *key, int64 value, int position);
extern void kvs_keynumber_add_numeric(KvsKey *key, Numeric value, int position);

/*
 * Add a number part from the text of {"number": ...}: NaN, -NaN, Infinity, -Infinity, or decimal;
 * 22P02 otherwise.
 */
extern void kvs_keynumber_add_number_text(KvsKey *key, const char *str, int len, int position);

/* Add a bigint part from -?[0-9]+; 22P02 otherwise, 22003 beyond 255 bytes. */
extern void kvs_keynumber_add_bigint_text(KvsKey *key, const char *str, int len, int position);

/* The text of a number or bigint part, palloc'd; the two functions above read it back exactly. */
extern char *kvs_keynumber_number_text(double number);
extern char *kvs_keynumber_bigint_text(const KvsPart *part);

/*
 * Is this a double that JSON numbers say exactly, and that kvs_keynumber_add_numeric() would take
 * back?
 */
extern bool kvs_keynumber_number_is_plain(double number);

/* ---- keyjson.c ---- */

/* The JSON form, an array of parts. */
extern Jsonb *kvs_keyjson_to_jsonb(const char *data, int size);

/*
 * Read the JSON form from a container that must be an array of parts; 22P02, 22003 or KV002
 * otherwise.
 */
extern void kvs_keyjson_from_jsonb(KvsKey *key, JsonbContainer *array);

/*
 * Add the part that one JSON value stands for: a scalar, or a container with an object of one
 * field.
 */
extern void kvs_keyjson_add_jsonb_part(KvsKey *key, const JsonbValue *value, int position);

/*
 * Read a key as kv_..._paths, kv_atomic and kv_import take it: a string (one string part) or an
 * array of parts; else 22023.
 */
extern void kvs_keyjson_from_jsonb_value(KvsKey *key, const JsonbValue *value);

#endif							/* KVS_KEY_H */
