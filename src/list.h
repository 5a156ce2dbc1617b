/*
 * list.h
 *		Ranges of keys, for list, count, export and whatever walks over a prefix.
 */
#ifndef KVS_LIST_H
#define KVS_LIST_H

#include "postgres.h"

#include "entry.h"
#include "key.h"
#include "scan.h"

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
 * A prefix argument: all strings that begin so (TEXT), all paths below it (PATH; the empty path is all).  It is required, 22004 if NULL, but
 * unlike a key it may be empty.
 */
extern void kvs_list_prefix_arg(FunctionCallInfo fcinfo, int arg, KvsForm form, KvsRange *range);

/* The range of all keys. */
extern void kvs_list_set_all(KvsRange *range);

/* Start to read; "range" must stay where it is until the end. */
extern void kvs_list_begin(KvsScan *scan, KvsRange *range);

/* The next live entry; false at the end. */
extern bool kvs_list_next(KvsScan *scan, KvsRange *range, KvsRow *row);

#endif							/* KVS_LIST_H */
