/*
 * keyargs.h
 *		Keys as arguments of SQL functions: one, or many as text[] or jsonb.
 */
#ifndef KVS_KEYARGS_H
#define KVS_KEYARGS_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/jsonb.h"

#include "key/key.h"

/* The two signatures of each function of a key. */
typedef enum KvsForm
{
	KVS_FORM_TEXT,				/* key text */
	KVS_FORM_PATH				/* key kvkey, shown as jsonb */
} KvsForm;

/*
 * The SQL-callable symbols kvstore_<name> and kvstore_<name>_path of a static function
 * <name>(fcinfo, form).
 */
#define KVS_FUNCTION_OF_KEY(name) \
	PG_FUNCTION_INFO_V1(kvstore_##name); \
	PG_FUNCTION_INFO_V1(kvstore_##name##_path); \
	Datum kvstore_##name(PG_FUNCTION_ARGS) { return name(fcinfo, KVS_FORM_TEXT); } \
	Datum kvstore_##name##_path(PG_FUNCTION_ARGS) { return name(fcinfo, KVS_FORM_PATH); } \
	extern Datum kvstore_##name(PG_FUNCTION_ARGS)	/* takes the semicolon */

/* Raise 22023 for the empty path, which no entry can have. */
extern void kvs_keyargs_check(const KvsKey *key);

/* A key argument; 22004 if NULL, 22023 if the path is empty. */
extern void kvs_keyargs_key(FunctionCallInfo fcinfo, int arg, KvsForm form, KvsKey *key);

/* Reading keys jsonb, an array whose elements are a string or an array of parts. */
typedef struct KvsKeyIterator
{
	JsonbIterator *jsonb;
	int			position;		/* 1-based, of the key given last */
} KvsKeyIterator;

/* 22023 unless it is an array; "name" is that of the argument. */
extern void kvs_keyargs_iterate(KvsKeyIterator *iterator, Jsonb *keys, const char *name);

/* The next key; false at the end.  22023 for an element that is no key. */
extern bool kvs_keyargs_next(KvsKeyIterator *iterator, KvsKey *key);

/* Keys in an array, as text[] or jsonb; returns how many.  22004, 22023 for what is no key. */
extern int	kvs_keyargs_texts(FunctionCallInfo fcinfo, int arg, Datum **keys);
extern int	kvs_keyargs_paths(FunctionCallInfo fcinfo, int arg, Datum **keys);

#endif							/* KVS_KEYARGS_H */
