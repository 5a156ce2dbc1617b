/*
 * storemany.c
 *		Rows in: writing and deleting many entries at once.
 *
 * As long as they have rows, entries are written the short way (direct.c), one by one in key order.  One statement writes the rest, with the same
 * number, and visits them in key order too.  So existing rows are locked, other inserters are waited for, and holders of an
 * absence (check.c) in that order: two such statements never wait for each other in a circle.  The number is taken before, so that rows
 * need not be read first; if it turns out too low for one of them, all are stamped again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

#include "change.h"
#include "check.h"
#include "direct.h"
#include "progress.h"
#include "stamp.h"
#include "statement.h"
#include "store.h"

/* ---- Writing ---- */

/* Entries of one key in the order in which they were given. */
static int
compare_entries(const void *a, const void *b)
{
	const KvsEntry *x = (const KvsEntry *) a;
	const KvsEntry *y = (const KvsEntry *) b;
	int			result = kvs_key_compare(x->key, y->key);

	return result != 0 ? result : x->position - y->position;
}

int
kvs_store_sort_entries(KvsEntry *entries, int count)
{
	int			left = 0;

	for (int i = 0; i < count; i++)
		entries[i].position = i;
	qsort(entries, count, sizeof(KvsEntry), compare_entries);
	for (int i = 0; i < count; i++)
		if (i + 1 == count || kvs_key_compare(entries[i].key, entries[i + 1].key) != 0)
			entries[left++] = entries[i];
	return left;
}

typedef struct StampedMany
{
	KvsStore   *store;
	KvsStamp	stamp;
	bool		outdated;
} StampedMany;

/* Called for each row before the next one is written: whoever holds the absence of this key is waited for in key order too. */
static void
check_stamp(TupleTableSlot *slot, void *arg)
{
	StampedMany *many = (StampedMany *) arg;
	struct varlena *key = PG_DETOAST_DATUM_PACKED(slot->tts_values[2]);
	bool		inserted = DatumGetBool(slot->tts_values[1]);

	if (inserted)
		kvs_check_inserted(many->store, slot->tts_values[2]);
	if (DatumGetInt64(slot->tts_values[0]) != many->stamp.number ||
		kvs_stamp_is_outdated(many->store->relid, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), many->stamp, inserted))
		many->outdated = true;
	kvs_progress_advance();
}

static Datum
make_array(Datum *values, bool *nulls, int count, Oid type)
{
	int			lower = 1;
	int16		typlen;
	bool		typbyval;
	char		typalign;

	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	return PointerGetDatum(construct_md_array(values, nulls, 1, &count, &lower, type, typlen, typbyval, typalign));
}

/* The arguments of KVS_PLAN_PUT_MANY, all but $5. */
static void
make_arrays(const KvsEntry *entries, int count, Datum *values)
{
	Datum	   *columns[5];
	bool	   *nulls[5];
	Oid			types[5] = {kvs_catalog_get()->kvkey_type, JSONBOID, BYTEAOID, CHAROID, TIMESTAMPTZOID};
	static const int argument[5] = {0, 1, 2, 3, 5};

	for (int i = 0; i < 5; i++)
	{
		columns[i] = palloc(sizeof(Datum) * count);
		nulls[i] = palloc0(sizeof(bool) * count);
	}
	for (int n = 0; n < count; n++)
	{
		const KvsEntry *entry = &entries[n];

		columns[0][n] = entry->key;
		columns[1][n] = columns[2][n] = entry->content.datum;
		nulls[1][n] = entry->content.kind == KVS_KIND_BYTES;
		nulls[2][n] = !nulls[1][n];
		columns[3][n] = CharGetDatum(entry->content.kind);
		columns[4][n] = TimestampTzGetDatum(entry->expires_at);
		nulls[4][n] = entry->expires_at == DT_NOEND;
	}
	for (int i = 0; i < 5; i++)
		values[argument[i]] = make_array(columns[i], nulls[i], count, types[i]);
}

/* What a bulk write makes of a row that is there. */
typedef struct Overwrite
{
	const KvsEntry *entry;
	int64		number;
	bool		outdated;
} Overwrite;

static bool
change_overwrite(TupleTableSlot *old, Datum *values, bool *nulls, void *arg)
{
	Overwrite  *overwrite = (Overwrite *) arg;

	if (DatumGetInt64(old->tts_values[KVS_COLUMN_VERSIONSTAMP]) >= overwrite->number)
		overwrite->outdated = true;
	kvs_statement_set_content(&overwrite->entry->content, overwrite->entry->expires_at, values, nulls);
	values[KVS_COLUMN_VERSIONSTAMP] = Int64GetDatum(overwrite->number);
	return true;
}

/* Write the first entries, as many as have rows, in key order; returns how many. */
static int
overwrite_first(KvsStore *store, const KvsEntry *entries, int count, KvsStamp stamp, bool *outdated)
{
	int			done;

	for (done = 0; done < count; done++)
	{
		Overwrite	overwrite = {&entries[done], stamp.number, false};
		KvsKey		key;

		kvs_key_from_datum(&key, entries[done].key);
		if (kvs_direct_change(store, &key, change_overwrite, &overwrite) != KVS_DIRECT_DONE)
			break;
		*outdated |= overwrite.outdated;
		kvs_progress_advance();
	}
	return done;
}

void
kvs_store_put_sorted(KvsStore *store, const KvsEntry *entries, int count, KvsStamp stamp, bool *outdated)
{
	Datum		values[KVS_PLAN_ARGS];
	StampedMany many = {store, stamp, false};
	int			done = overwrite_first(store, entries, count, stamp, outdated);

	if (done > 0 && done == count)
		return;
	entries += done;
	count -= done;
	for (int i = 0; i < count; i++)
		kvs_check_wait(store, entries[i].key);
	/* also when there are none: the executor checks the caller's rights */
	make_arrays(entries, count, values);
	values[4] = Int64GetDatum(stamp.number);
	kvs_statement_run(store, KVS_PLAN_PUT_MANY, values, NULL, check_stamp, &many);
	*outdated |= many.outdated;
}

int64
kvs_store_restamp(KvsStore *store, const Datum *keys, int count)
{
	int64		number = kvs_stamp_next();
	Datum		values[2] = {
		make_array(unconstify(Datum *, keys), NULL, count, kvs_catalog_get()->kvkey_type), Int64GetDatum(number)
	};

	kvs_statement_run(store, KVS_PLAN_RESTAMP_MANY, values, NULL, NULL, NULL);
	return number;
}

int64
kvs_store_put_many(KvsStore *store, const KvsEntry *entries, int count)
{
	KvsStamp	stamp = kvs_stamp_take();
	bool		outdated = false;
	int64		number = stamp.number;
	Datum	   *keys;

	kvs_store_put_sorted(store, entries, count, stamp, &outdated);
	if (unlikely(outdated))
	{
		keys = palloc(sizeof(Datum) * count);
		for (int i = 0; i < count; i++)
			keys[i] = entries[i].key;
		number = kvs_store_restamp(store, keys, count);
	}
	for (int i = 0; i < count; i++)
		kvs_change_note_datum(store->relid, KVS_FEED_SET, number, entries[i].key);
	return number;
}

bool
kvs_store_claim(KvsStore *store, const KvsEntry *entry, KvsStamp stamp, bool *outdated)
{
	StampedMany many = {store, stamp, false};
	Datum		values[KVS_PLAN_ARGS];
	bool		nulls[KVS_PLAN_ARGS] = {false};
	uint64		inserted;

	kvs_check_wait(store, entry->key);
	values[0] = entry->key;
	values[4] = Int64GetDatum(stamp.number);
	kvs_statement_set_content(&entry->content, entry->expires_at, values, nulls);
	inserted = kvs_statement_run(store, KVS_PLAN_CLAIM, values, nulls, check_stamp, &many);
	*outdated |= many.outdated;
	return inserted > 0;
}

/* ---- Deleting ---- */

typedef struct Deletion
{
	KvsStore   *store;
	int64		number;			/* of the deletion; 0: none yet */
} Deletion;

/* A row is deleted: first its number, then the word to those who may write the key anew. */
static void
note_deleted(TupleTableSlot *slot, void *arg)
{
	Deletion   *deletion = (Deletion *) arg;
	struct varlena *key = PG_DETOAST_DATUM_PACKED(slot->tts_values[0]);
	int64		number = kvs_change_deletion_stamp(DatumGetInt64(slot->tts_values[1]), &deletion->number);

	kvs_change_note(deletion->store->relid, KVS_FEED_DELETE, number, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	kvs_stamp_note_deletion(deletion->store->relid, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	kvs_progress_advance();
}

/* The range is all that is below a prefix, or all there is: its lower end is the prefix and one byte more. */
static void
note_range(Oid relid, const KvsKey *low, bool texts_only, int64 number)
{
	int			size = low->size - 1;

	kvs_change_note_more(relid, size == 0 ? KVS_FEED_CLEAR : KVS_FEED_DELETE_PREFIX, texts_only ? KVS_FEED_TEXT : 0, number,
						 KvsKeyBytes(low), size);
}

static void
count_deleted(TupleTableSlot *slot, void *arg)
{
	kvs_progress_advance();
}

int64
kvs_store_delete_sorted(KvsStore *store, const Datum *keys, int count, TimestampTz now, int64 number)
{
	Datum		values[2] = {
		make_array(unconstify(Datum *, keys), NULL, count, kvs_catalog_get()->kvkey_type), TimestampTzGetDatum(now)
	};
	Deletion	deletion = {store, number};

	return (int64) kvs_statement_run_in_key_order(store, KVS_PLAN_DELETE_MANY, values, note_deleted, &deletion);
}

int64
kvs_store_delete_range(KvsStore *store, const KvsKey *low, const KvsKey *high, bool texts_only, TimestampTz now)
{
	Datum		values[3] = {KvsKeyDatum(low), KvsKeyDatum(high), TimestampTzGetDatum(now)};
	int64		deleted;
	int64		number = 0;

	if (kvs_direct_delete_range(store, low, high, texts_only, now, &deleted) != KVS_DIRECT_DONE)
	{
		kvs_progress_resume(deleted);
		deleted += (int64) kvs_statement_run_in_key_order(store, texts_only ? KVS_PLAN_DELETE_TEXTS : KVS_PLAN_DELETE_RANGE,
														  values, count_deleted, NULL);
	}

	if (deleted == 0)
		return 0;
	if (kvs_change_active)
		note_range(store->relid, low, texts_only, kvs_change_deletion_stamp(0, &number));
	/* cheaper than to note each key */
	kvs_stamp_note_deletion_of_all();
	return deleted;
}
