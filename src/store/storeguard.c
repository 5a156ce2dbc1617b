/*
 * storeguard.c
 *		The guard's rules for stores: what it does with a row that is written by plain SQL.
 *
 * What the owner leaves to us is filled in.  An INSERT without a versionstamp gets one.  An UPDATE
 * that left it alone gets a new one.  A number that is brought along counts or is replaced
 * (stamp.c).  Rows that logical replication brings stay as they are.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "expiry/expiry.h"
#include "key/key.h"
#include "store/change.h"
#include "store/content.h"
#include "store/stamp.h"
#include "store/storeguard.h"
#include "table/catalog.h"
#include "table/guard.h"
#include "table/replication.h"

/* Columns of a store, as numbered in its table. */
enum
{
	COLUMN_KEY = KVS_COLUMN_KEY + 1,
	COLUMN_VERSIONSTAMP = KVS_COLUMN_VERSIONSTAMP + 1,
	COLUMN_EXPIRES_AT = KVS_COLUMN_EXPIRES_AT + 1
};

static int64 arrived = 0;		/* the highest number that a row has brought in this session */

/* Does the row hold what its kind promises? */
static void
check_content(TupleDesc desc, HeapTuple tuple)
{
	Datum		values[KVS_COLUMNS];
	bool		nulls[KVS_COLUMNS];
	KvsContent	content;

	for (int i = 0; i <= KVS_COLUMN_KIND; i++)
		values[i] = heap_getattr(tuple, i + 1, desc, &nulls[i]);
	if (nulls[KVS_COLUMN_KIND])
		return;					/* the column is NOT NULL: the executor says so */
	kvs_content_read(values, nulls, &content);
	if (content.kind == KVS_KIND_BROKEN)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("row does not hold what its kind promises"),
				 errhint("Kind is 'j' or 'u' with a value and without bytes, or 'b' with bytes and without a value.")));
	if (!kvs_content_is_whole(&content))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("value of kind u64 must be an integer from 0 to 18446744073709551615")));
}

/* No function can name the empty path. */
static void
check_key(TupleDesc desc, HeapTuple tuple)
{
	bool		isnull;
	Datum		key = heap_getattr(tuple, COLUMN_KEY, desc, &isnull);

	if (!isnull && toast_raw_datum_size(key) == VARHDRSZ)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("key must have at least one part")));
}

/* ---- After a row was written: for watchers, and for later writers of the key ---- */

static bool
read_row(Relation rel, HeapTuple tuple, KvsKey *key, int64 *versionstamp)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		isnull;
	Datum		datum = heap_getattr(tuple, COLUMN_KEY, desc, &isnull);

	if (isnull)
		return false;
	kvs_key_from_datum(key, datum);
	datum = heap_getattr(tuple, COLUMN_VERSIONSTAMP, desc, &isnull);
	*versionstamp = isnull ? 0 : DatumGetInt64(datum);
	return true;
}

/*
 * The number of a replicated deletion is not known.  It is above that of the row, and below that of
 * an entry that the publisher makes of the key later.
 */
static void
note_deleted_row(Relation rel, HeapTuple tuple)
{
	Oid			relid = RelationGetRelid(rel);
	KvsKey		key;
	int64		versionstamp;
	int64		number;

	if (!read_row(rel, tuple, &key, &versionstamp))
		return;
	number = kvs_replication_is_apply() && versionstamp < PG_INT64_MAX ? versionstamp + 1 : 0;
	number = kvs_stamp_delete(relid, KvsKeyBytes(&key), key.size, versionstamp, &number);
	kvs_change_note(relid, KVS_FEED_DELETE, number, KvsKeyBytes(&key), key.size);
}

/* "flags": KVS_FEED_BROUGHT if the number may be one that the row brought along. */
static void
note_written_row(Relation rel, HeapTuple tuple, KvsFeedOperation operation, uint8 flags)
{
	KvsKey		key;
	int64		versionstamp;

	if (kvs_change_active && read_row(rel, tuple, &key, &versionstamp))
		kvs_change_note_more(RelationGetRelid(rel), operation, flags, versionstamp, KvsKeyBytes(&key), key.size);
}

static void
note_updated_row(Relation rel, HeapTuple old, HeapTuple new)
{
	KvsKey		a;
	KvsKey		b;
	int64		old_stamp;
	int64		new_stamp;
	bool		same_key = read_row(rel, old, &a, &old_stamp) && read_row(rel, new, &b, &new_stamp) && a.size == b.size &&
		memcmp(KvsKeyBytes(&a), KvsKeyBytes(&b), a.size) == 0;

	if (!same_key)
		note_deleted_row(rel, old);
	/* only replication leaves the number as it is */
	note_written_row(rel, new, same_key && old_stamp == new_stamp ? KVS_FEED_TOUCH : KVS_FEED_SET,
					 !same_key || kvs_replication_is_apply() ? KVS_FEED_BROUGHT : 0);
}

static void
after_row(TriggerData *data)
{
	Relation	rel = data->tg_relation;
	HeapTuple	old = data->tg_trigtuple;

	/* an earlier trigger of the same statement may have altered the table */
	kvs_storecatalog_check_store_shape(rel);
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		note_written_row(rel, old, KVS_FEED_SET, KVS_FEED_BROUGHT);
	else if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		note_deleted_row(rel, old);
	else
		note_updated_row(rel, old, data->tg_newtuple);
}

/* The row is not yet anywhere: the expiry map learns only that the table has it. */
static void
note_expiry(Relation rel, HeapTuple tuple)
{
	bool		isnull;
	Datum		expires_at = heap_getattr(tuple, COLUMN_EXPIRES_AT, RelationGetDescr(rel), &isnull);

	if (!isnull)
		kvs_expiry_note(RelationGetRelid(rel), InvalidBlockNumber,
						kvs_replication_look_at(DatumGetTimestampTz(expires_at)));
}

/* Once for each table and transaction: a restore may bring very many rows. */
static void
warn_of_stamp(Relation rel)
{
	static Oid	warned_of = InvalidOid;
	static TimestampTz warned_in = 0;

	if (warned_of == RelationGetRelid(rel) && warned_in == GetCurrentTransactionStartTimestamp())
		return;
	warned_of = RelationGetRelid(rel);
	warned_in = GetCurrentTransactionStartTimestamp();
	kvs_stamp_warn(rel, false);
}

/*
 * May the row keep its versionstamp?  After a failover to us, numbers that have not arrived yet may
 * have been seen.
 */
static bool
keeps_stamp(Relation rel, int64 stamp)
{
	bool		is_apply = kvs_replication_is_apply();

	if (stamp > 0 && kvs_stamp_bring(stamp, superuser() || kvs_replication_is_trusted(), is_apply ? KVS_STAMP_JUMP / 2 : 0))
	{
		arrived = Max(arrived, stamp);
		return true;
	}
	warn_of_stamp(rel);
	return false;
}

/* The row with the versionstamp it is to have. */
static HeapTuple
stamp_row(Relation rel, HeapTuple tuple, HeapTuple old)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			column = COLUMN_VERSIONSTAMP;
	bool		isnull;
	bool		old_isnull = true;
	Datum		stamp = heap_getattr(tuple, column, desc, &isnull);
	Datum		old_stamp = old ? heap_getattr(old, column, desc, &old_isnull) : (Datum) 0;
	int64		met = old_isnull ? 0 : DatumGetInt64(old_stamp);

	if (!isnull && DatumGetInt64(stamp) < 1 && !kvs_replication_is_apply())
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("versionstamp must be positive")));
	if (!isnull && (DatumGetInt64(stamp) > met || kvs_replication_is_apply()) && keeps_stamp(rel, DatumGetInt64(stamp)))
		return tuple;
	stamp = Int64GetDatum(kvs_stamp_above(met));
	isnull = false;
	return heap_modify_tuple_by_cols(tuple, desc, 1, &column, &stamp, &isnull);
}

/*
 * What arrives after a replicated TRUNCATE has a number above those that have arrived before, and
 * not above ours.
 */
static void
truncate_entries(Relation rel)
{
	kvs_change_note(RelationGetRelid(rel), KVS_FEED_CLEAR, kvs_replication_is_apply() ? arrived : kvs_stamp_next(), "", 0);
	kvs_stamp_note_deletion_of_all();
}

static HeapTuple
before_row(TriggerData *data)
{
	Relation	rel = data->tg_relation;
	bool		is_update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	HeapTuple	old = data->tg_trigtuple;
	HeapTuple	new = is_update ? data->tg_newtuple : old;

	kvs_storecatalog_check_store_shape(rel);
	if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		return new;
	/*
	 * rows that went round the publisher's guard must not stop a subscription: a reader sees what
	 * they are
	 */
	if (!kvs_replication_is_apply())
	{
		check_key(RelationGetDescr(rel), new);
		check_content(RelationGetDescr(rel), new);
	}
	note_expiry(rel, new);
	return stamp_row(rel, new, is_update ? old : NULL);
}

static const KvsGuardRules rules = {
	.prefix = "",
	.hint = "Use the kv_* functions, such as kv_set() and kv_delete().",
	.before_row = before_row,
	.after_row = after_row,
	.truncate = truncate_entries
};

void
kvs_storeguard_init(void)
{
	kvs_guard_add(&rules);
}
