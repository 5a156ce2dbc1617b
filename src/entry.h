/*
 * entry.h
 *		What the SQL functions have in common: reading key, expiry and store arguments, giving entries as rows.
 */
#ifndef KVS_ENTRY_H
#define KVS_ENTRY_H

#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"

#include "catalog.h"
#include "compat.h"
#include "key.h"
#include "scan.h"

/* The two signatures of each function of a key. */
typedef enum KvsForm
{
	KVS_FORM_TEXT,				/* key text */
	KVS_FORM_PATH				/* key kvkey, shown as jsonb */
} KvsForm;

/* Columns of every function that gives entries. */
#define KVS_ENTRY_COLUMNS	6

/* The SQL-callable symbols kvstore_<name> and kvstore_<name>_path of a static function <name>(fcinfo, form). */
#define KVS_FUNCTION_OF_KEY(name) \
	PG_FUNCTION_INFO_V1(kvstore_##name); \
	PG_FUNCTION_INFO_V1(kvstore_##name##_path); \
	Datum kvstore_##name(PG_FUNCTION_ARGS) { return name(fcinfo, KVS_FORM_TEXT); } \
	Datum kvstore_##name##_path(PG_FUNCTION_ARGS) { return name(fcinfo, KVS_FORM_PATH); } \
	extern Datum kvstore_##name(PG_FUNCTION_ARGS)	/* takes the semicolon */

/* Raise 22023 for the empty path, which no entry can have. */
extern void kvs_entry_check_key(const KvsKey *key);

/* A key argument; 22004 if NULL, 22023 if the path is empty. */
extern void kvs_entry_key_arg(FunctionCallInfo fcinfo, int arg, KvsForm form, KvsKey *key);

/* A text argument, NULL if SQL NULL; short headers stay. */
extern text *kvs_entry_text_arg(FunctionCallInfo fcinfo, int arg);

/* A boolean option; SQL NULL means "not given". */
extern bool kvs_entry_bool_arg(FunctionCallInfo fcinfo, int arg);

/* now + interval, as kvs_duration_add(); 22008 for what is too long, not infinite. */
extern TimestampTz kvs_entry_add_interval(TimestampTz now, const Interval *interval);

/* When something expires that is written now with this ttl, which is not SQL NULL; 22023 if it is negative. */
extern TimestampTz kvs_entry_ttl_arg(FunctionCallInfo fcinfo, int arg, TimestampTz now);

/*
 * When an entry expires that is written now with these two arguments (either may be SQL NULL): DT_NOEND is never, also if neither is given.
 * *given tells whether one was.  22023: both given, or ttl negative.
 */
extern TimestampTz kvs_entry_expiry_args(FunctionCallInfo fcinfo, int ttl_arg, int expires_at_arg,
										 TimestampTz now, bool *given);

/* When an entry expires that is written now to this store with no expiry given. */
extern TimestampTz kvs_entry_default_expiry(const KvsStore *store, TimestampTz now);

/* Open the store of an argument for writing; "function" is for 25006, the error on a standby and in a read-only transaction. */
extern KvsStore *kvs_entry_open_for_write(FunctionCallInfo fcinfo, int store_arg, const char *function);

/* Raise KV005 unless the entry can be given as jsonb (want_bytes: as bytea). */
extern void kvs_entry_check_kind(char kind, bool want_bytes);

/* Reading keys jsonb, an array whose elements are a string or an array of parts. */
typedef struct KvsKeyIterator
{
	JsonbIterator *jsonb;
	int			position;		/* 1-based, of the key given last */
} KvsKeyIterator;

/* 22023 unless it is an array; "name" is that of the argument. */
extern void kvs_entry_iterate_keys(KvsKeyIterator *iterator, Jsonb *keys, const char *name);

/* The next key; false at the end.  22023 for an element that is no key. */
extern bool kvs_entry_next_key(KvsKeyIterator *iterator, KvsKey *key);

/* Keys in an array, as text[] or jsonb; returns how many.  22004, 22023 for what is no key. */
extern int	kvs_entry_text_keys_arg(FunctionCallInfo fcinfo, int arg, Datum **keys);
extern int	kvs_entry_path_keys_arg(FunctionCallInfo fcinfo, int arg, Datum **keys);

/* How many bytes of a string to show in a message: whole characters, at most 100 bytes. */
extern int	kvs_entry_shown_size(const char *str, int len);

/* Raise 22004: this argument must not be null. */
pg_noreturn extern void kvs_entry_null_argument(const char *name);

/* A result that gives rows of KVS_ENTRY_COLUMNS columns. */
typedef struct KvsRows
{
	ReturnSetInfo *rsinfo;
	KvsForm		form;
	MemoryContext scratch;		/* reset after each row: a list may have millions */
} KvsRows;

extern void kvs_entry_begin_rows(FunctionCallInfo fcinfo, KvsForm form, KvsRows *rows);

/* Give an entry, whose content has been checked; "row" NULL: the key is absent. */
extern void kvs_entry_give_row(KvsRows *rows, const char *key, int key_size, const KvsRow *row);

/* The columns of an entry but its key; they point where the row does. */
extern void kvs_entry_fill_row(const KvsRow *row, Datum *values, bool *nulls);

#endif							/* KVS_ENTRY_H */
