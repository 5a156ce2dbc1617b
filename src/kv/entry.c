/*
 * entry.c
 *		Entries as SQL functions give them: their rows, and the store that they are in.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/args.h"
#include "base/compat.h"
#include "base/errors.h"
#include "key/keyargs.h"
#include "kv/entry.h"

KvsStore *
kvs_entry_open_for_write(FunctionCallInfo fcinfo, int store_arg, const char *function)
{
	Relation	rel;
	KvsStore   *store;

	PreventCommandIfReadOnly(function);
	store = kvs_storecatalog_open_store(kvs_args_text(fcinfo, store_arg), RowExclusiveLock, &rel);

	/* The lock stays; the statements that write open the table themselves. */
	table_close(rel, NoLock);
	return store;
}

void
kvs_entry_check_kind(char kind, bool want_bytes)
{
	if (likely((kind == KVS_KIND_BYTES) == want_bytes))
		return;
	ereport(ERROR,
			(errcode(KVS_ERRCODE_WRONG_KIND),
			 want_bytes ? errmsg("entry holds JSON, not bytes") : errmsg("entry holds bytes, not JSON"),
			 want_bytes ? errhint("Use kv_get() or kv_entry().") : errhint("Use kv_get_bytes() or kv_entry().")));
}

/* ---- Results ---- */

void
kvs_entry_begin_rows(FunctionCallInfo fcinfo, KvsForm form, KvsRows *rows)
{
	/* what the caller expects is what the function is declared to return, and takes no look-up */
	InitMaterializedSRF(fcinfo, ((ReturnSetInfo *) fcinfo->resultinfo)->expectedDesc ? MAT_SRF_USE_EXPECTED_DESC : 0);
	rows->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	rows->form = form;
	rows->scratch = AllocSetContextCreate(CurrentMemoryContext, "kvstore row", ALLOCSET_SMALL_SIZES);
}

static Datum
key_for_user(KvsForm form, const char *key, int key_size)
{
	if (form == KVS_FORM_TEXT)
		return PointerGetDatum(kvs_key_to_text(key, key_size));
	return JsonbPGetDatum(kvs_keyjson_to_jsonb(key, key_size));
}

/* A text that every row may point to. */
static Datum
kind_for_user(char kind)
{
	static union
	{
		int32		align;
		char		bytes[VARHDRSZ + 8];
	}			names[3];
	int			which = kind == KVS_KIND_JSON ? 0 : kind == KVS_KIND_BYTES ? 1 : 2;

	if (unlikely(names[which].align == 0))
	{
		const char *name = which == 0 ? "json" : which == 1 ? "bytes" : "u64";

		SET_VARSIZE(&names[which], VARHDRSZ + strlen(name));
		memcpy(VARDATA(&names[which]), name, strlen(name));
	}
	return PointerGetDatum(&names[which]);
}

void
kvs_entry_fill_row(const KvsRow *row, Datum *values, bool *nulls)
{
	kvs_content_write(&row->content, values, nulls);
	if (row->content.datum == (Datum) 0)
		nulls[1] = nulls[2] = true;
	nulls[3] = row->content.kind == KVS_KIND_BROKEN;
	values[3] = nulls[3] ? (Datum) 0 : kind_for_user(row->content.kind);
	values[4] = Int64GetDatum(row->versionstamp);
	nulls[4] = false;
	values[5] = TimestampTzGetDatum(row->expires_at);
	nulls[5] = row->expires_at == DT_NOEND;
}

void
kvs_entry_give_row(KvsRows *rows, const char *key, int key_size, const KvsRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(rows->scratch);
	Datum		values[KVS_ENTRY_COLUMNS] = {0};
	bool		nulls[KVS_ENTRY_COLUMNS] = {false, true, true, true, false, true};

	if (row != NULL)
		kvs_entry_fill_row(row, values, nulls);
	values[0] = key_for_user(rows->form, key, key_size);
	tuplestore_putvalues(rows->rsinfo->setResult, rows->rsinfo->setDesc, values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(rows->scratch);
}
