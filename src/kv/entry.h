/*
 * entry.h
 *		Entries as SQL functions give them: their rows, and the store that they are in.
 */
#ifndef KVS_ENTRY_H
#define KVS_ENTRY_H

#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"

#include "base/compat.h"
#include "key/keyargs.h"
#include "store/scan.h"
#include "table/catalog.h"

/* Columns of every function that gives entries. */
#define KVS_ENTRY_COLUMNS	6

/*
 * Open the store of an argument for writing; "function" is for 25006, the error on a standby and in
 * a read-only transaction.
 */
extern KvsStore *kvs_entry_open_for_write(FunctionCallInfo fcinfo, int store_arg, const char *function);

/* Raise KV005 unless the entry can be given as jsonb (want_bytes: as bytea). */
extern void kvs_entry_check_kind(char kind, bool want_bytes);

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
