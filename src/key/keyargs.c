/*
 * keyargs.c
 *		Keys as arguments of SQL functions: one, or many as text[] or jsonb.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "base/args.h"
#include "base/array.h"
#include "key/keyargs.h"

void
kvs_keyargs_check(const KvsKey *key)
{
	if (unlikely(key->size == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key must have at least one part")));
}

void
kvs_keyargs_key(FunctionCallInfo fcinfo, int arg, KvsForm form, KvsKey *key)
{
	if (unlikely(PG_ARGISNULL(arg)))
		kvs_args_report_null("key");
	if (form == KVS_FORM_TEXT)
		kvs_key_from_text(key, PG_GETARG_TEXT_PP(arg));
	else
		kvs_key_from_datum(key, PG_GETARG_DATUM(arg));
	kvs_keyargs_check(key);
}

void
kvs_keyargs_iterate(KvsKeyIterator *iterator, Jsonb *keys, const char *name)
{
	JsonbValue	value;

	if (!JB_ROOT_IS_ARRAY(keys) || JB_ROOT_IS_SCALAR(keys))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON array", name),
				 errhint("Each element is a string or an array of parts, as in '[\"a\", [\"users\", 42]]'.")));
	iterator->jsonb = JsonbIteratorInit(&keys->root);
	iterator->position = 0;
	JsonbIteratorNext(&iterator->jsonb, &value, true);	/* WJB_BEGIN_ARRAY */
}

bool
kvs_keyargs_next(KvsKeyIterator *iterator, KvsKey *key)
{
	JsonbValue	value;

	CHECK_FOR_INTERRUPTS();
	if (JsonbIteratorNext(&iterator->jsonb, &value, true) != WJB_ELEM)
		return false;
	iterator->position++;
	kvs_keyjson_from_jsonb_value(key, &value);
	kvs_keyargs_check(key);
	return true;
}

int
kvs_keyargs_texts(FunctionCallInfo fcinfo, int arg, Datum **keys)
{
	Datum	   *texts;
	bool	   *nulls;
	int			count;
	KvsKey		key;

	if (PG_ARGISNULL(arg))
		kvs_args_report_null("keys");
	count = kvs_array_read(PG_GETARG_ARRAYTYPE_P(arg), "keys", &texts, &nulls);
	*keys = palloc(sizeof(Datum) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			kvs_args_report_null("key");
		kvs_key_from_text(&key, DatumGetTextPP(texts[i]));
		(*keys)[i] = kvs_key_make_datum(KvsKeyBytes(&key), key.size);
	}
	return count;
}

int
kvs_keyargs_paths(FunctionCallInfo fcinfo, int arg, Datum **keys)
{
	Jsonb	   *array;
	KvsKeyIterator iterator;
	KvsKey		key;
	int			count = 0;

	if (PG_ARGISNULL(arg))
		kvs_args_report_null("keys");
	array = PG_GETARG_JSONB_P(arg);
	kvs_keyargs_iterate(&iterator, array, "keys");
	*keys = palloc(sizeof(Datum) * Max(JB_ROOT_COUNT(array), 1));
	while (kvs_keyargs_next(&iterator, &key))
		(*keys)[count++] = kvs_key_make_datum(KvsKeyBytes(&key), key.size);
	return count;
}
