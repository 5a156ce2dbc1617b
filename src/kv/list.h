/*
 * list.h
 *		Ranges of keys, for list, count, export and all else that walks over a prefix.
 */
#ifndef KVS_LIST_H
#define KVS_LIST_H

#include "postgres.h"

#include "key/key.h"
#include "kv/entry.h"
#include "store/scan.h"

/* [low, high) of encoded bytes, and which keys of it are wanted. */
typedef struct KvsRange
{
	KvsForm		form;			/* TEXT: plain-string keys only */
	bool		reverse;
	bool		empty;
	KvsKey		low;
	KvsKey		high;
} KvsRange;

/*
 * A prefix argument: all strings that begin so (TEXT), all paths below it (PATH; the empty path is
 * all).  It is required, 22004 if NULL, but unlike a key it may be empty.
 */
extern void kvs_list_prefix_arg(FunctionCallInfo fcinfo, int arg, KvsForm form, KvsRange *range);

/* The range of all keys. */
extern void kvs_list_set_all(KvsRange *range);

/* Start to read; "range" must stay where it is until the end. */
extern void kvs_list_begin(KvsScan *scan, KvsRange *range);

/* The next live entry; false at the end. */
extern bool kvs_list_next(KvsScan *scan, KvsRange *range, KvsRow *row);

/* ---- kv_list() ---- */

/* Arguments: (prefix, start_key, end_key, after, page_size, reverse, keys_only, store) */
#define KVS_LIST_STORE_ARG	7
#define KVS_LIST_ARGS		8

typedef struct KvsList
{
	KvsRange	range;
	bool		keys_only;
	int64		left;			/* of page_size */
	KvsScan		scan;
} KvsList;

/* Everything but the store. */
extern void kvs_list_read_args(FunctionCallInfo fcinfo, KvsForm form, KvsList *list);

/* The next entry to give; false at the end.  The scan must have begun, and the range. */
extern bool kvs_list_fetch(KvsList *list, KvsRow *row);

/* The SQL-callable symbols, by which the planner knows the function. */
extern PGDLLEXPORT Datum kvstore_list(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum kvstore_list_path(PG_FUNCTION_ARGS);

/* ---- listnode.c ---- */

extern void kvs_listnode_init(void);

#endif							/* KVS_LIST_H */
