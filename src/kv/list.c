/*
 * list.c
 *		SQL functions over a range of keys: list, count.
 *
 * A range is [low, high) of encoded bytes; every option only narrows it, so list and count share
 * one loop.  A bound need not be a valid key: it is only ever compared.
 *
 * The text forms see plain-string keys only, yet paths that begin with a string lie between them.
 * After "a" come ["a", 1], ["a", 2], ... and then "b".  Such a family can be large, so the scan
 * steps over it by one new descent instead of reading it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/stats.h"
#include "key/keyargs.h"
#include "kv/entry.h"
#include "kv/list.h"

/* ---- Bounds ---- */

static int
compare_bounds(const KvsKey *a, const KvsKey *b)
{
	int			result = memcmp(KvsKeyBytes(a), KvsKeyBytes(b), Min(a->size, b->size));

	return result != 0 ? result : a->size - b->size;
}

/* Make "bound" the given bytes and one more behind them. */
static void
make_bound(KvsKey *bound, const char *bytes, int size, uint8 next)
{
	memmove(KvsKeyBytes(bound), bytes, size);
	KvsKeyBytes(bound)[size] = (char) next;
	bound->size = size + 1;
	SET_VARSIZE(&bound->u, VARHDRSZ + bound->size);
}

static void
raise_low(KvsRange *range, const KvsKey *bound)
{
	if (compare_bounds(bound, &range->low) > 0)
		range->low = *bound;
}

static void
lower_high(KvsRange *range, const KvsKey *bound)
{
	if (compare_bounds(bound, &range->high) < 0)
		range->high = *bound;
}

static void
set_prefix(KvsRange *range, KvsForm form, const KvsKey *prefix)
{
	int			size = prefix->size;

	range->form = form;
	range->reverse = false;

	/*
	 * A text prefix is a string without its terminator.  UTF-8 follows, or the terminator 00, all
	 * below FF.  A path prefix is followed by the tag of another part, from 01 to 27.  00 would be
	 * no tag, and 00 FF is a string that goes on with U+0000.
	 */
	if (form == KVS_FORM_TEXT)
		size--;
	make_bound(&range->low, KvsKeyBytes(prefix), size, 0x00);
	make_bound(&range->high, KvsKeyBytes(prefix), size, 0xFF);
}

void
kvs_list_set_all(KvsRange *range)
{
	KvsKey		empty;

	kvs_key_init(&empty);
	set_prefix(range, KVS_FORM_PATH, &empty);
}

/* ---- Reading a range ---- */

/* Step over the paths that begin with the string at the head of this key, if it is such a path. */
static void
skip_family(KvsScan *scan, KvsRange *range, const KvsRow *row)
{
	int			size = kvs_key_first_string_size(row->key, row->key_size);

	if (size == row->key_size)
		return;					/* one string with U+0000, which text cannot show */
	if (range->reverse)
		make_bound(&range->high, row->key, size, KVS_TAG_BYTES);
	else
		make_bound(&range->low, row->key, size, 0xFF);
	kvs_scan_range(scan, &range->low, &range->high, range->reverse);
}

void
kvs_list_begin(KvsScan *scan, KvsRange *range)
{
	range->empty = compare_bounds(&range->low, &range->high) >= 0;
	if (!range->empty)
		kvs_scan_range(scan, &range->low, &range->high, range->reverse);
}

bool
kvs_list_next(KvsScan *scan, KvsRange *range, KvsRow *row)
{
	if (range->empty)
		return false;
	while (kvs_scan_next(scan, row))
	{
		if (range->form == KVS_FORM_PATH || kvs_key_is_text(row->key, row->key_size))
			return true;
		skip_family(scan, range, row);
	}
	return false;
}

/* ---- Arguments ---- */

void
kvs_list_prefix_arg(FunctionCallInfo fcinfo, int arg, KvsForm form, KvsRange *range)
{
	KvsKey		prefix;

	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("prefix must not be null"),
				 errhint("The prefix '' is all plain-string keys, kv_key() is all keys.")));
	if (form == KVS_FORM_TEXT)
		kvs_key_from_text(&prefix, PG_GETARG_TEXT_PP(arg));
	else
		kvs_key_from_datum(&prefix, PG_GETARG_DATUM(arg));
	set_prefix(range, form, &prefix);
}

/* start_key, end_key and after narrow the range. */
static void
read_bounds(FunctionCallInfo fcinfo, KvsForm form, KvsRange *range)
{
	KvsKey		bound;

	range->reverse = kvs_args_bool(fcinfo, 5);
	if (!PG_ARGISNULL(1))
	{
		kvs_keyargs_key(fcinfo, 1, form, &bound);
		raise_low(range, &bound);
	}
	if (!PG_ARGISNULL(2))
	{
		kvs_keyargs_key(fcinfo, 2, form, &bound);
		lower_high(range, &bound);
	}
	if (!PG_ARGISNULL(3))
	{
		kvs_keyargs_key(fcinfo, 3, form, &bound);
		if (range->reverse)
			lower_high(range, &bound);
		else
		{
			make_bound(&bound, KvsKeyBytes(&bound), bound.size, 0x00);
			raise_low(range, &bound);
		}
	}
}

static int64
read_page_size(FunctionCallInfo fcinfo, int arg)
{
	int64		page_size = PG_ARGISNULL(arg) ? PG_INT64_MAX : PG_GETARG_INT64(arg);

	if (page_size < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("page_size must be at least 1"),
				 errhint("Leave page_size out to get all entries.")));
	return page_size;
}

void
kvs_list_read_args(FunctionCallInfo fcinfo, KvsForm form, KvsList *list)
{
	list->keys_only = kvs_args_bool(fcinfo, 6);
	list->left = read_page_size(fcinfo, 4);
	kvs_list_prefix_arg(fcinfo, 0, form, &list->range);
	read_bounds(fcinfo, form, &list->range);
}

bool
kvs_list_fetch(KvsList *list, KvsRow *row)
{
	if (list->left <= 0 || !kvs_list_next(&list->scan, &list->range, row))
		return false;
	list->left--;
	if (list->keys_only)
		row->content.datum = (Datum) 0;
	else
		kvs_content_check(&row->content, row->key, row->key_size);
	return true;
}

static Datum
list(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsRows		rows;
	KvsList		list;
	KvsRow		row;

	kvs_entry_begin_rows(fcinfo, form, &rows);
	kvs_list_read_args(fcinfo, form, &list);
	kvs_scan_begin(&list.scan, kvs_args_text(fcinfo, KVS_LIST_STORE_ARG), GetCurrentTimestamp());
	kvs_stats_add(list.scan.store->stat, KVS_COUNT_LISTS, 1);
	kvs_list_begin(&list.scan, &list.range);
	while (kvs_list_fetch(&list, &row))
		kvs_entry_give_row(&rows, row.key, row.key_size, &row);
	kvs_scan_end(&list.scan);
	return (Datum) 0;
}

/* (prefix, store) */
static Datum
count(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsRange	range;
	KvsScan		scan;
	KvsRow		row;
	int64		result = 0;

	kvs_list_prefix_arg(fcinfo, 0, form, &range);
	kvs_scan_begin(&scan, kvs_args_text(fcinfo, 1), GetCurrentTimestamp());
	kvs_stats_add(scan.store->stat, KVS_COUNT_LISTS, 1);
	kvs_list_begin(&scan, &range);
	while (kvs_list_next(&scan, &range, &row))
		result++;
	kvs_scan_end(&scan);
	PG_RETURN_INT64(result);
}

/* ---- SQL ---- */

KVS_FUNCTION_OF_KEY(list);
KVS_FUNCTION_OF_KEY(count);
