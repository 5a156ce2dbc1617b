/*
 * keyorder.c
 *		The operators of kvkey: comparing and hashing the encoded bytes.
 *
 * They do what bytea's own functions do, which could be declared for kvkey by name (LANGUAGE
 * internal).  But such a function, with an OID that is not its own, is searched by name among all
 * built-in ones whenever a statement starts.  That is a quarter of the instructions of a kv_set,
 * measured.  Besides, the comparison runs some fifteen times in each descent of the index, so what
 * can be inlined is.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"

#include "base/compat.h"
#include "key/key.h"

PG_FUNCTION_INFO_V1(kvstore_kvkey_lt);
PG_FUNCTION_INFO_V1(kvstore_kvkey_le);
PG_FUNCTION_INFO_V1(kvstore_kvkey_eq);
PG_FUNCTION_INFO_V1(kvstore_kvkey_ne);
PG_FUNCTION_INFO_V1(kvstore_kvkey_ge);
PG_FUNCTION_INFO_V1(kvstore_kvkey_gt);
PG_FUNCTION_INFO_V1(kvstore_kvkey_cmp);
PG_FUNCTION_INFO_V1(kvstore_kvkey_hash);
PG_FUNCTION_INFO_V1(kvstore_kvkey_hash_extended);

/* An argument with its bytes in one piece: only what is compressed or out of line is copied. */
static inline struct varlena *
key_arg(FunctionCallInfo fcinfo, int arg)
{
	struct varlena *key = (struct varlena *) PG_GETARG_POINTER(arg);

	/* VARATT_IS_SHORT() is true of a toast pointer too */
	if (unlikely(VARATT_IS_EXTERNAL(key) || VARATT_IS_COMPRESSED(key)))
		return pg_detoast_datum_packed(key);
	return key;
}

/* A btree must not leak what it compares: a sort calls this as often as it likes. */
static inline void
free_key_arg(FunctionCallInfo fcinfo, int arg, struct varlena *key)
{
	if (unlikely((Pointer) key != PG_GETARG_POINTER(arg)))
		pfree(key);
}

static inline int
compare(FunctionCallInfo fcinfo)
{
	struct varlena *a = key_arg(fcinfo, 0);
	struct varlena *b = key_arg(fcinfo, 1);
	int			size_a = VARSIZE_ANY_EXHDR(a);
	int			size_b = VARSIZE_ANY_EXHDR(b);
	int			result = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(size_a, size_b));

	if (result == 0)
		result = size_a - size_b;
	free_key_arg(fcinfo, 0, a);
	free_key_arg(fcinfo, 1, b);
	return result;
}

Datum
kvstore_kvkey_lt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) < 0);
}

Datum
kvstore_kvkey_le(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) <= 0);
}

Datum
kvstore_kvkey_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) == 0);
}

Datum
kvstore_kvkey_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) != 0);
}

Datum
kvstore_kvkey_ge(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) >= 0);
}

Datum
kvstore_kvkey_gt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) > 0);
}

Datum
kvstore_kvkey_cmp(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(compare(fcinfo));
}

Datum
kvstore_kvkey_hash(PG_FUNCTION_ARGS)
{
	struct varlena *key = key_arg(fcinfo, 0);
	Datum		result = hash_any((unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));

	free_key_arg(fcinfo, 0, key);
	return result;
}

Datum
kvstore_kvkey_hash_extended(PG_FUNCTION_ARGS)
{
	struct varlena *key = key_arg(fcinfo, 0);
	Datum		result = hash_any_extended((unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key),
										   (uint64) PG_GETARG_INT64(1));

	free_key_arg(fcinfo, 0, key);
	return result;
}
