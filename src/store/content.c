/*
 * content.c
 *		What an entry holds: the one way into and out of the columns of its row.
 *
 * The owner of a store can write anything into its table.  They can go round the guard (guard.c),
 * or make a table without kv_create_store().  The shape of the table is checked (shape.c).  But a
 * row may have a kind that does not exist, no value, or a value that is no number where the kind
 * says u64.  So all code reads the columns value, bytes and kind by kvs_content_read(), which gives
 * what they hold, or BROKEN.  A function that gives an entry's content raises KV005 then.
 * Functions that do not look at it go on: such an entry can be counted, overwritten and deleted.
 */
#include "postgres.h"

#include "utils/jsonb.h"

#include "base/errors.h"
#include "key/key.h"
#include "store/content.h"
#include "store/number.h"

void
kvs_content_write(const KvsContent *content, Datum *values, bool *nulls)
{
	bool		bytes = content->kind == KVS_KIND_BYTES;

	values[KVS_COLUMN_VALUE] = values[KVS_COLUMN_BYTES] = content->datum;
	nulls[KVS_COLUMN_VALUE] = bytes;
	nulls[KVS_COLUMN_BYTES] = !bytes;
	values[KVS_COLUMN_KIND] = CharGetDatum(content->kind);
	nulls[KVS_COLUMN_KIND] = false;
}

bool
kvs_content_is_whole(const KvsContent *content)
{
	return content->kind != KVS_KIND_BROKEN && (content->kind != KVS_KIND_U64 || kvs_u64_is(content->datum));
}

void
kvs_content_check(const KvsContent *content, const char *key, int key_size)
{
	Jsonb	   *shown;

	if (likely(kvs_content_is_whole(content)))
		return;
	shown = kvs_keyjson_to_jsonb(key, key_size);
	ereport(ERROR,
			(errcode(KVS_ERRCODE_WRONG_KIND),
			 errmsg("entry %s does not hold what its kind promises",
					JsonbToCString(NULL, &shown->root, VARSIZE(shown))),
			 errdetail("Its row was written past the functions of kvstore."),
			 errhint("Write the entry anew with kv_set(), or delete it with kv_delete().")));
}

void
kvs_content_copy(KvsContent *content)
{
	if (content->datum != (Datum) 0)
		content->datum = PointerGetDatum(PG_DETOAST_DATUM_COPY(content->datum));
}
