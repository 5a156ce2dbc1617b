/*
 * keytype.c
 *		The SQL type kvkey: its input and output, kv_key(), and the conversions from and to JSON and
 *		bytea.
 *
 * A kvkey datum is a varlena whose content is the encoding of key.c, always valid and canonical:
 * every way in goes through validation.  So comparing and hashing (keyorder.c) look at bytes only.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/uuid.h"

#include "base/array.h"
#include "base/compat.h"
#include "key/key.h"

PG_FUNCTION_INFO_V1(kvstore_kvkey_in);
PG_FUNCTION_INFO_V1(kvstore_kvkey_out);
PG_FUNCTION_INFO_V1(kvstore_kvkey_recv);
PG_FUNCTION_INFO_V1(kvstore_kvkey_send);
PG_FUNCTION_INFO_V1(kvstore_kvkey_from_bytea);
PG_FUNCTION_INFO_V1(kvstore_key);
PG_FUNCTION_INFO_V1(kvstore_key_from_json);
PG_FUNCTION_INFO_V1(kvstore_key_to_json);

/* ---- kv_key(): one part from one argument ---- */

static void
add_text(KvsKey *key, Datum value)
{
	text	   *str = DatumGetTextPP(value);

	kvs_key_add_string(key, VARDATA_ANY(str), VARSIZE_ANY_EXHDR(str));
}

/* A string part of what the output function of a type gives. */
static void
add_output(KvsKey *key, PGFunction output, Datum value)
{
	char	   *str = DatumGetCString(DirectFunctionCall1(output, value));

	kvs_key_add_string(key, str, (int) strlen(str));
	pfree(str);
}

/*
 * A float is the double it is, -0 included.  Only the sign of a NaN is dropped: SQL neither shows
 * nor compares it, and the processor sets it as it likes.  So all of them are the one that prints
 * as NaN.
 */
static void
add_float(KvsKey *key, double number)
{
	kvs_key_add_number(key, isnan(number) ? get_float8_nan() : number);
}

static void
add_jsonb(KvsKey *key, Datum value, int position)
{
	Jsonb	   *jb = DatumGetJsonbP(value);
	JsonbValue	part;

	if (!JsonbExtractScalar(&jb->root, &part))
	{
		part.type = jbvBinary;
		part.val.binary.data = &jb->root;
		part.val.binary.len = VARSIZE_ANY_EXHDR(jb);
	}
	kvs_keyjson_add_jsonb_part(key, &part, position);
}

static void add_argument(KvsKey *key, Datum value, Oid type, int position);

/* A type that is none of PostgreSQL's own: an enum or a domain over what a key can hold. */
static void
add_user_type(KvsKey *key, Datum value, Oid type, int position)
{
	Oid			base = getBaseType(type);

	if (base != type)
		add_argument(key, value, base, position);
	else if (type_is_enum(type))
		add_output(key, enum_out, value);
	else
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("key part %d has type %s, which a key cannot hold", position, format_type_be(type)),
				 errhint("Cast it to text with ::text.")));
}

static void
add_argument(KvsKey *key, Datum value, Oid type, int position)
{
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
			add_text(key, value);
			break;
		case NAMEOID:
			add_output(key, nameout, value);
			break;
		case UUIDOID:
			add_output(key, uuid_out, value);
			break;
		case INT2OID:
			kvs_key_add_number(key, DatumGetInt16(value));
			break;
		case INT4OID:
			kvs_key_add_number(key, DatumGetInt32(value));
			break;
		case INT8OID:
			kvs_keynumber_add_integer(key, DatumGetInt64(value), position);
			break;
		case FLOAT4OID:
			add_float(key, DatumGetFloat4(value));
			break;
		case FLOAT8OID:
			add_float(key, DatumGetFloat8(value));
			break;
		case NUMERICOID:
			kvs_keynumber_add_numeric(key, DatumGetNumeric(value), position);
			break;
		case BOOLOID:
			kvs_key_add_boolean(key, DatumGetBool(value));
			break;
		case BYTEAOID:
			{
				bytea	   *bytes = DatumGetByteaPP(value);

				kvs_key_add_bytes(key, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
				break;
			}
		case JSONBOID:
			add_jsonb(key, value, position);
			break;
		default:
			add_user_type(key, value, type, position);
	}
}

/* ---- SQL functions ---- */

Datum
kvstore_key(PG_FUNCTION_ARGS)
{
	KvsKey		key;
	Datum	   *values;
	Oid		   *types;
	bool	   *nulls;
	int			nparts = 0;

	kvs_key_init(&key);

	/* kv_key() without arguments is a function of its own in SQL, with this same code. */
	if (get_fn_expr_variadic(fcinfo->flinfo) && !PG_ARGISNULL(0))
		kvs_array_check_dimensions(PG_GETARG_ARRAYTYPE_P(0), "the array of key parts");
	if (PG_NARGS() > 0)
		nparts = extract_variadic_args(fcinfo, 0, true, &values, &types, &nulls);
	if (nparts < 0)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the array of key parts is null")));
	for (int i = 0; i < nparts; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("key part %d is null", i + 1)));
		add_argument(&key, values[i], types[i], i + 1);
	}
	return kvs_key_make_datum(KvsKeyBytes(&key), key.size);
}

/* The kvkey of a jsonb datum that holds the whole JSON form. */
static Datum
key_from_jsonb_datum(Datum datum)
{
	KvsKey		key;

	kvs_keyjson_from_jsonb(&key, &DatumGetJsonbP(datum)->root);
	return kvs_key_make_datum(KvsKeyBytes(&key), key.size);
}

Datum
kvstore_key_from_json(PG_FUNCTION_ARGS)
{
	return key_from_jsonb_datum(PG_GETARG_DATUM(0));
}

Datum
kvstore_key_to_json(PG_FUNCTION_ARGS)
{
	struct varlena *key = PG_GETARG_VARLENA_PP(0);

	PG_RETURN_JSONB_P(kvs_keyjson_to_jsonb(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key)));
}

Datum
kvstore_kvkey_in(PG_FUNCTION_ARGS)
{
	return key_from_jsonb_datum(DirectFunctionCall1(jsonb_in, PG_GETARG_DATUM(0)));
}

Datum
kvstore_kvkey_out(PG_FUNCTION_ARGS)
{
	struct varlena *key = PG_GETARG_VARLENA_PP(0);
	Jsonb	   *jb = kvs_keyjson_to_jsonb(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));

	PG_RETURN_CSTRING(JsonbToCString(NULL, &jb->root, VARSIZE(jb)));
}

Datum
kvstore_kvkey_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			size = buf->len - buf->cursor;
	const char *data = pq_getmsgbytes(buf, size);

	kvs_key_validate(data, size);
	return kvs_key_make_datum(data, size);
}

Datum
kvstore_kvkey_send(PG_FUNCTION_ARGS)
{
	return byteasend(fcinfo);
}

Datum
kvstore_kvkey_from_bytea(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);

	kvs_key_validate(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	return kvs_key_make_datum(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
}
