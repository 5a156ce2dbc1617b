/*
 * storemany.c
 *		Rows in: writing and deleting many entries at once.
 *
 * As long as they have rows, entries are written the short way (direct.c), one by one in key order.
 * One statement writes the rest, with the same number, and visits them in key order too.  So it
 * locks existing rows, and waits for other inserters and for holders of an absence (absence.c), in
 * that order.  Two such statements never wait for each other in a circle.  The number is taken
 * before, so that rows need not be read first.  If it turns out too low for one of them, all are
 * stamped again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

#include "base/progress.h"
#include "store/absence.h"
#include "store/change.h"
#include "store/direct.h"
#include "store/policy.h"
#include "store/stamp.h"
#include "store/statement.h"
#include "store/store.h"

/* ---- Writing ---- */

/* Entries of one key in the order in which they were given. */
static int
compare_entries(const void *a, const void *b)
{
	const KvsEntry *x = (const KvsEntry *) a;
	const KvsEntry *y = (const KvsEntry *) b;
	int			result = kvs_key_compare(x->key, y->key);

	/* to sort millions takes seconds */
	CHECK_FOR_INTERRUPTS();
	return result != 0 ? result : x->position - y->position;
}

int
kvs_storemany_sort_entries(KvsEntry *entries, int count)
{
	int			left = 0;

	for (int i = 0; i < count; i++)
		entries[i].position = i;
	qsort(entries, count, sizeof(KvsEntry), compare_entries);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i + 1 == count || kvs_key_compare(entries[i].key, entries[i + 1].key) != 0)
			entries[left++] = entries[i];
	}
	return left;
}

typedef struct StampedMany
{
	KvsStore   *store;
	KvsStamp   *stamp;
	/* the first entry whose row has not come; NULL: they are not told apart */
	KvsEntry   *next;
	KvsEntry   *end;
} StampedMany;

/* Rows come in the order of the entries, all but those that a trigger has skipped. */
static void
mark_written(StampedMany *many, struct varlena *key)
{
	while (many->next < many->end && kvs_key_compare(many->next->key, PointerGetDatum(key)) != 0)
		many->next++;
	if (many->next == many->end)
		elog(ERROR, "a row was written that nobody asked for");
	(many->next++)->written = true;
}

/*
 * Called for each row before the next one is written: holders of an absence are waited for in key
 * order, too.
 */
static void
check_stamp(TupleTableSlot *slot, void *arg)
{
	StampedMany *many = (StampedMany *) arg;
	struct varlena *key = PG_DETOAST_DATUM_PACKED(slot->tts_values[2]);
	int64		number = DatumGetInt64(slot->tts_values[0]);
	bool		inserted = DatumGetBool(slot->tts_values[1]);

	if (inserted)
		kvs_absence_inserted(many->store, slot->tts_values[2]);
	/* a number that is not ours follows that of the row */
	if (number != many->stamp->number)
		kvs_stamp_meet(many->stamp, number - 1);
	kvs_stamp_check(many->stamp, many->store->relid, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), inserted);
	if (many->next != NULL)
		mark_written(many, key);
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

		CHECK_FOR_INTERRUPTS();
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
	KvsStamp   *stamp;
} Overwrite;

static bool
change_overwrite(TupleTableSlot *old, Datum *values, bool *nulls, void *arg)
{
	Overwrite  *overwrite = (Overwrite *) arg;

	kvs_stamp_meet(overwrite->stamp, DatumGetInt64(old->tts_values[KVS_COLUMN_VERSIONSTAMP]));
	kvs_statement_set_content(&overwrite->entry->content, overwrite->entry->expires_at, values, nulls);
	values[KVS_COLUMN_VERSIONSTAMP] = Int64GetDatum(overwrite->stamp->number);
	return true;
}

/* Write the first entries, as many as have rows, in key order; returns how many. */
static int
overwrite_first(KvsStore *store, KvsEntry *entries, int count, KvsStamp *stamp)
{
	int			done;

	for (int i = 0; i < count; i++)
		entries[i].written = false;
	for (done = 0; done < count; done++)
	{
		Overwrite	overwrite = {&entries[done], stamp};
		KvsKey		key;

		kvs_key_from_datum(&key, entries[done].key);
		if (kvs_direct_change(store, &key, KVS_PUT_RIGHTS, change_overwrite, &overwrite) != KVS_DIRECT_DONE)
			break;
		entries[done].written = true;
		kvs_progress_advance();
	}
	return done;
}

int
kvs_storemany_put_sorted(KvsStore *store, KvsEntry *entries, int count, KvsStamp *stamp)
{
	Datum		values[KVS_PLAN_ARGS];
	StampedMany many = {.store = store, .stamp = stamp};
	int			done = overwrite_first(store, entries, count, stamp);

	if (done > 0 && done == count)
		return done;
	entries += done;
	count -= done;
	many.next = entries;
	many.end = entries + count;
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		kvs_absence_wait(store, entries[i].key);
	}
	/* also when there are none: the executor checks the caller's rights */
	make_arrays(entries, count, values);
	values[4] = Int64GetDatum(stamp->number);
	return done + (int) kvs_statement_run(store, KVS_PLAN_PUT_MANY, values, NULL, check_stamp, &many).written;
}

/* A statement over rows that this transaction has written or locked must not pass any over. */
static void
check_all(const KvsStore *store, KvsFate fate, int count)
{
	if (fate.written == (uint64) count)
		return;
	if (fate.skipped > 0)
		kvs_fate_report_skipped(store->relid);
	kvs_policy_report(store);
}

int64
kvs_storemany_restamp(KvsStore *store, const Datum *keys, int count, const KvsStamp *stamp)
{
	int64		number = kvs_stamp_above(stamp->met);
	Datum		values[2] = {
		make_array(unconstify(Datum *, keys), NULL, count, kvs_catalog_get()->kvkey_type), Int64GetDatum(number)
	};

	check_all(store, kvs_statement_run(store, KVS_PLAN_RESTAMP_MANY, values, NULL, NULL, NULL), count);
	return number;
}

int64
kvs_storemany_put_many(KvsStore *store, KvsEntry *entries, int count, int *written)
{
	KvsStamp	stamp = kvs_stamp_take();
	int			done = kvs_storemany_put_sorted(store, entries, count, &stamp);
	int64		number = stamp.number;
	Datum	   *keys;
	int			key_count = 0;

	if (written != NULL)
		*written = done;
	else if (done < count)
		kvs_fate_report_skipped(store->relid);
	if (unlikely(stamp.outdated))
	{
		keys = palloc_extended(sizeof(Datum) * count, MCXT_ALLOC_HUGE);
		for (int i = 0; i < count; i++)
			if (entries[i].written)
				keys[key_count++] = entries[i].key;
		number = kvs_storemany_restamp(store, keys, key_count, &stamp);
	}
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (entries[i].written)
			kvs_change_note_datum(store->relid, KVS_FEED_SET, number, entries[i].key);
	}
	return number;
}

bool
kvs_storemany_claim(KvsStore *store, const KvsEntry *entry, KvsStamp *stamp)
{
	StampedMany many = {.store = store, .stamp = stamp};
	Datum		values[KVS_PLAN_ARGS];
	bool		nulls[KVS_PLAN_ARGS] = {false};
	KvsFate		fate;

	kvs_absence_wait(store, entry->key);
	values[0] = entry->key;
	values[4] = Int64GetDatum(stamp->number);
	kvs_statement_set_content(&entry->content, entry->expires_at, values, nulls);
	fate = kvs_statement_run(store, KVS_PLAN_CLAIM, values, nulls, check_stamp, &many);
	if (fate.skipped > 0)
		kvs_fate_report_skipped(store->relid);
	return fate.written > 0;
}

/* ---- Deleting ---- */

typedef struct Deletion
{
	KvsStore   *store;
	int64		number;			/* of the deletion; 0: none yet */
} Deletion;

static void
note_deleted(TupleTableSlot *slot, void *arg)
{
	Deletion   *deletion = (Deletion *) arg;
	struct varlena *key = PG_DETOAST_DATUM_PACKED(slot->tts_values[0]);
	int64		number = kvs_stamp_delete(deletion->store->relid, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key),
										  DatumGetInt64(slot->tts_values[1]), &deletion->number);

	kvs_change_note(deletion->store->relid, KVS_FEED_DELETE, number, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	kvs_progress_advance();
}

/*
 * The range is all that is below a prefix, or all there is: its lower end is the prefix and one
 * byte more.
 */
static void
note_range(Oid relid, const KvsKey *low, bool texts_only, int64 number)
{
	int			size = low->size - 1;

	kvs_change_note_more(relid, size == 0 ? KVS_FEED_CLEAR : KVS_FEED_DELETE_PREFIX, texts_only ? KVS_FEED_TEXT : 0, number,
						 KvsKeyBytes(low), size);
}

static void
note_deleted_of_range(TupleTableSlot *slot, void *arg)
{
	kvs_directrange_note_deleted((KvsRangeDeletion *) arg, slot->tts_values[0], DatumGetInt64(slot->tts_values[1]));
}

static int
compare_keys(const void *a, const void *b)
{
	/* to sort millions takes seconds */
	CHECK_FOR_INTERRUPTS();
	return kvs_key_compare(*(const Datum *) a, *(const Datum *) b);
}

void
kvs_storemany_sort_keys(Datum *keys, int count)
{
	qsort(keys, count, sizeof(Datum), compare_keys);
}

/*
 * The index is asked for all keys of a statement without a look whether it was cancelled, if none
 * is there.
 */
#define DELETE_BATCH	10000

static KvsFate
delete_sorted(KvsStore *store, const Datum *keys, int count, TimestampTz now, int64 number)
{
	Deletion	deletion = {store, number};
	KvsFate		all = {0};
	int			done = 0;

	/* also when there are none: the executor checks the caller's rights */
	do
	{
		int			batch = Min(count - done, DELETE_BATCH);
		Datum		values[2] = {
			make_array(unconstify(Datum *, keys + done), NULL, batch, kvs_catalog_get()->kvkey_type), TimestampTzGetDatum(now)
		};
		KvsFate		fate;

		CHECK_FOR_INTERRUPTS();
		fate = kvs_statement_run_in_key_order(store, KVS_PLAN_DELETE_MANY, values, note_deleted, &deletion);
		pfree(DatumGetPointer(values[0]));
		all.written += fate.written;
		all.skipped += fate.skipped;
		done += batch;
	} while (done < count);
	return all;
}

int64
kvs_storemany_delete_sorted(KvsStore *store, const Datum *keys, int count, TimestampTz now)
{
	return (int64) delete_sorted(store, keys, count, now, 0).written;
}

void
kvs_storemany_delete_locked(KvsStore *store, const Datum *keys, int count, TimestampTz now, int64 number)
{
	check_all(store, delete_sorted(store, keys, count, now, number), count);
}

/*
 * Where rows may be passed over, each one that is deleted is told: the range is not what has gone.
 */
static int64
delete_some_of_range(KvsStore *store, bool texts_only, const Datum *values)
{
	Deletion	deletion = {store, 0};

	return (int64) kvs_statement_run_in_key_order(store, texts_only ? KVS_PLAN_DELETE_TEXTS : KVS_PLAN_DELETE_RANGE, values,
												  note_deleted, &deletion).written;
}

int64
kvs_storemany_delete_range(KvsStore *store, const KvsKey *low, const KvsKey *high, bool texts_only, TimestampTz now)
{
	Datum		values[3] = {KvsKeyDatum(low), KvsKeyDatum(high), TimestampTzGetDatum(now)};
	KvsRangeDeletion deletion = {.relid = store->relid};
	int64		number;

	if (store->selective)
		return delete_some_of_range(store, texts_only, values);
	kvs_stamp_begin_survey(&deletion.numbers);
	if (kvs_directrange_delete_range(store, low, high, texts_only, now, &deletion) != KVS_DIRECT_DONE)
	{
		kvs_progress_resume(deletion.count);
		deletion.count += (int64) kvs_statement_run_in_key_order(store, texts_only ? KVS_PLAN_DELETE_TEXTS : KVS_PLAN_DELETE_RANGE,
																 values, note_deleted_of_range, &deletion).written;
	}
	if (deletion.count == 0)
		return 0;
	kvs_stamp_end_survey(&deletion.numbers);
	number = kvs_stamp_next();
	if (kvs_change_active)
		note_range(store->relid, low, texts_only, number);
	/* cheaper than to note each key */
	kvs_stamp_note_deletion_of_all();
	return deletion.count;
}
