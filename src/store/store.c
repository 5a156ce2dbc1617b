/*
 * store.c
 *		Rows in: writing, locking, deleting one entry.
 *
 * A write to a row that is there goes the short way of direct.c where possible.  All else is a kept
 * statement (statement.c).
 *
 * The number of a write is taken before a statement runs.  The statement compares it with the row
 * that it meets, under that row's lock.  Afterwards we look at the deletions (stamp.c), and wait
 * for the sessions that hold the absence of the key (absence.c).  The short way has read the row
 * when it takes its number, and writes only if nobody else has written since.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/args.h"
#include "base/errors.h"
#include "base/guc.h"
#include "store/absence.h"
#include "store/change.h"
#include "store/direct.h"
#include "store/number.h"
#include "store/policy.h"
#include "store/stamp.h"
#include "store/statement.h"
#include "store/store.h"

/* ---- Writing ---- */

void
kvs_store_check_size(const KvsStore *store, Datum value)
{
	Size		size = toast_raw_datum_size(value) - VARHDRSZ;
	int64		limit = kvs_guc_max_value_size;
	bool		of_store = store->max_value_size != 0 && store->max_value_size < limit;

	if (of_store)
		limit = store->max_value_size;
	if (likely((int64) size <= limit))
		return;
	ereport(ERROR,
			(errcode(KVS_ERRCODE_TOO_LARGE),
			 errmsg("value is too large"),
			 errdetail("It has %zu bytes; the limit is %lld.", size, (long long) limit),
			 of_store ?
			 errhint("The limit is that of the store: see kv_alter_store() and its max_value_size.") :
			 errhint("The limit is the setting kvstore.max_value_size.")));
}

/* What RETURNING_STAMP gave. */
typedef struct Stamped
{
	KvsStore   *store;
	const KvsKey *key;
	int64		versionstamp;
	bool		inserted;
	Numeric		number;			/* KVS_PLAN_INCREMENT */
	MemoryContext context;
} Stamped;

static void
take_stamp(TupleTableSlot *slot, void *arg)
{
	Stamped    *stamped = (Stamped *) arg;

	stamped->versionstamp = DatumGetInt64(slot->tts_values[0]);
	stamped->inserted = DatumGetBool(slot->tts_values[1]);
	if (stamped->inserted)
		kvs_absence_inserted(stamped->store, KvsKeyDatum(stamped->key));
}

/* After a row was written with "stamp": stamp it again if that turned out too low. */
static int64
settle_stamp(Stamped *stamped, KvsStamp *stamp)
{
	const KvsKey *key = stamped->key;
	Datum		datum = KvsKeyDatum(key);

	kvs_stamp_check(stamp, stamped->store->relid, KvsKeyBytes(key), key->size, stamped->inserted);
	if (likely(!stamp->outdated))
		return stamped->versionstamp;
	kvs_stamp_meet(stamp, stamped->versionstamp - 1);
	return kvs_storemany_restamp(stamped->store, &datum, 1, stamp);
}

typedef struct Locked
{
	KvsState   *state;
	TimestampTz now;
	MemoryContext context;
} Locked;

/* Of a row of the table, or of a statement that gives its columns in the same order. */
static void
take_state(TupleTableSlot *row, void *arg)
{
	Locked	   *locked = (Locked *) arg;
	KvsState   *state = locked->state;
	MemoryContext old;

	state->expires_at = row->tts_isnull[KVS_COLUMN_EXPIRES_AT] ? DT_NOEND :
		DatumGetTimestampTz(row->tts_values[KVS_COLUMN_EXPIRES_AT]);
	state->present = kvs_direct_is_live(row, locked->now);
	if (!state->present)
		return;
	state->versionstamp = DatumGetInt64(row->tts_values[KVS_COLUMN_VERSIONSTAMP]);
	old = MemoryContextSwitchTo(locked->context);
	kvs_content_read(row->tts_values, row->tts_isnull, &state->content);
	kvs_content_copy(&state->content);
	MemoryContextSwitchTo(old);
}

/*
 * Lock the row of a live entry, and see whether it is one still.  UPDATE asks that before it waits
 * for whoever has locked the row, and does not ask again.
 */
static bool
is_still_live(KvsStore *store, const KvsKey *key, TimestampTz now)
{
	KvsState	state = {0};
	Locked		locked = {&state, now, CurrentMemoryContext};
	Datum		values[2] = {KvsKeyDatum(key), TimestampTzGetDatum(now)};

	(void) kvs_statement_run(store, KVS_PLAN_LOCK_LIVE, values, NULL, take_state, &locked);
	return state.present;
}

/* Which statement a write needs; sets the arguments from $7 on. */
static int
choose_put(const KvsWrite *write, Datum *values)
{
	values[6] = TimestampTzGetDatum(write->now);
	if (!write->if_version_given)
		return write->keep_ttl ? KVS_PLAN_PUT_KEEP : KVS_PLAN_PUT;
	if (write->if_version == 0)
		return KVS_PLAN_PUT_ABSENT;
	values[7] = Int64GetDatum(write->if_version);
	values[8] = BoolGetDatum(write->keep_ttl);
	return KVS_PLAN_PUT_VERSION;
}

/* What a put makes of a row that is there. */
typedef struct Put
{
	const KvsContent *content;
	const KvsWrite *write;
	int64		versionstamp;
} Put;

static bool
change_put(TupleTableSlot *old, Datum *values, bool *nulls, void *arg)
{
	Put		   *put = (Put *) arg;
	const KvsWrite *write = put->write;
	bool		live = kvs_direct_is_live(old, write->now);
	Datum		expires_at = values[KVS_COLUMN_EXPIRES_AT];
	bool		never = nulls[KVS_COLUMN_EXPIRES_AT];

	if (write->if_version_given &&
		(live ? DatumGetInt64(old->tts_values[KVS_COLUMN_VERSIONSTAMP]) : 0) != write->if_version)
		return false;
	put->versionstamp = kvs_stamp_above(DatumGetInt64(old->tts_values[KVS_COLUMN_VERSIONSTAMP]));
	kvs_statement_set_content(put->content, write->expires_at, values, nulls);
	values[KVS_COLUMN_VERSIONSTAMP] = Int64GetDatum(put->versionstamp);
	if (write->keep_ttl && live)
	{
		values[KVS_COLUMN_EXPIRES_AT] = expires_at;
		nulls[KVS_COLUMN_EXPIRES_AT] = never;
	}
	return true;
}

static int64
put_by_statement(KvsStore *store, const KvsKey *key, const KvsContent *content, const KvsWrite *write)
{
	Datum		values[KVS_PLAN_ARGS];
	bool		nulls[KVS_PLAN_ARGS] = {false};
	int			statement = choose_put(write, values);
	KvsStamp	stamp;
	Stamped		stamped = {.store = store, .key = key};
	int64		versionstamp;

	if (statement == KVS_PLAN_PUT_VERSION && !is_still_live(store, key, write->now))
		return 0;
	kvs_absence_wait(store, KvsKeyDatum(key));
	stamp = kvs_stamp_take();
	values[0] = KvsKeyDatum(key);
	values[4] = Int64GetDatum(stamp.number);
	kvs_statement_set_content(content, write->expires_at, values, nulls);
	if (kvs_statement_run(store, statement, values, nulls, take_stamp, &stamped).written == 0)
	{
		if (!write->if_version_given)
			kvs_fate_report_skipped(store->relid);
		return 0;
	}
	versionstamp = settle_stamp(&stamped, &stamp);
	kvs_change_note(store->relid, KVS_FEED_SET, versionstamp, KvsKeyBytes(key), key->size);
	return versionstamp;
}

int64
kvs_store_put(KvsStore *store, const KvsKey *key, const KvsContent *content, const KvsWrite *write)
{
	Put			put = {content, write, 0};

	/*
	 * Only a statement can say whether an entry is absent: it waits for the session that is
	 * inserting or deleting it.
	 */
	if (write->if_version_given && write->if_version == 0)
		return put_by_statement(store, key, content, write);
	switch (kvs_direct_change(store, key, KVS_PUT_RIGHTS, change_put, &put))
	{
		case KVS_DIRECT_DONE:
			kvs_change_note(store->relid, KVS_FEED_SET, put.versionstamp, KvsKeyBytes(key), key->size);
			return put.versionstamp;
		case KVS_DIRECT_REFUSED:
			return 0;
		default:
			return put_by_statement(store, key, content, write);
	}
}

/* Columns of RETURNING_STAMP. */
#define STAMP_COLUMNS	2

static void
take_number(TupleTableSlot *slot, void *arg)
{
	Stamped    *stamped = (Stamped *) arg;
	MemoryContext old = MemoryContextSwitchTo(stamped->context);
	KvsContent	content;

	kvs_content_read(slot->tts_values + STAMP_COLUMNS, slot->tts_isnull + STAMP_COLUMNS, &content);
	kvs_content_copy(&content);
	stamped->number = kvs_number_of(&content);
	MemoryContextSwitchTo(old);
	take_stamp(slot, arg);
}

static Numeric
increment_by_statement(KvsStore *store, const KvsKey *key, Numeric by, const KvsContent *initial,
					   const KvsWrite *write)
{
	KvsStamp	stamp;
	Stamped		stamped = {.store = store, .key = key, .context = CurrentMemoryContext};
	Datum		values[6] = {
		KvsKeyDatum(key), initial->datum, (Datum) 0,
		TimestampTzGetDatum(write->expires_at), TimestampTzGetDatum(write->now), NumericGetDatum(by)
	};
	bool		nulls[6] = {false, false, false, write->expires_at == DT_NOEND, false, false};

	kvs_absence_wait(store, KvsKeyDatum(key));
	stamp = kvs_stamp_take();
	values[2] = Int64GetDatum(stamp.number);
	if (kvs_statement_run(store, KVS_PLAN_INCREMENT, values, nulls, take_number, &stamped).written == 0)
		kvs_fate_report_skipped(store->relid);
	kvs_change_note(store->relid, KVS_FEED_SET, settle_stamp(&stamped, &stamp), KvsKeyBytes(key), key->size);
	return stamped.number;
}

/* What an increment makes of a row that is there. */
typedef struct Increment
{
	Numeric		by;
	const KvsContent *initial;	/* what an absent entry becomes */
	const KvsWrite *write;
	Numeric		sum;
	int64		versionstamp;
} Increment;

static bool
change_increment(TupleTableSlot *old, Datum *values, bool *nulls, void *arg)
{
	Increment  *increment = (Increment *) arg;
	KvsContent	content;

	if (!kvs_direct_is_live(old, increment->write->now))
	{
		content = *increment->initial;
		kvs_statement_set_content(&content, increment->write->expires_at, values, nulls);
	}
	else
	{
		kvs_content_read(values, nulls, &content);
		content = kvs_number_apply(KVS_SUM, &content, increment->by);
		values[KVS_COLUMN_VALUE] = content.datum;
	}
	increment->sum = kvs_number_of(&content);
	increment->versionstamp = kvs_stamp_above(DatumGetInt64(old->tts_values[KVS_COLUMN_VERSIONSTAMP]));
	values[KVS_COLUMN_VERSIONSTAMP] = Int64GetDatum(increment->versionstamp);
	return true;
}

Numeric
kvs_store_increment(KvsStore *store, const KvsKey *key, Numeric by, const KvsWrite *write)
{
	KvsContent	initial = kvs_number_content(by);
	Increment	increment = {by, &initial, write, NULL, 0};

	if (kvs_direct_change(store, key, KVS_PUT_RIGHTS, change_increment, &increment) != KVS_DIRECT_DONE)
		return increment_by_statement(store, key, by, &initial, write);
	kvs_change_note(store->relid, KVS_FEED_SET, increment.versionstamp, KvsKeyBytes(key), key->size);
	return increment.sum;
}

/* ---- Locking ---- */

bool
kvs_store_lock(KvsStore *store, const KvsKey *key, bool exclusive, TimestampTz now, KvsState *state)
{
	Locked		locked = {state, now, CurrentMemoryContext};
	Datum		value = KvsKeyDatum(key);

	memset(state, 0, sizeof(*state));
	switch (kvs_direct_lock(store, key, exclusive, take_state, &locked))
	{
		case KVS_DIRECT_DONE:
			return true;
		case KVS_DIRECT_NO_ROW:
			return false;
		default:
			return kvs_statement_run(store, exclusive ? KVS_PLAN_LOCK : KVS_PLAN_LOCK_SHARED, &value, NULL,
									 take_state, &locked).written > 0;
	}
}

bool
kvs_store_place(KvsStore *store, const KvsKey *key)
{
	Datum		value = KvsKeyDatum(key);

	return kvs_statement_run(store, KVS_PLAN_PLACE, &value, NULL, NULL, NULL).written > 0;
}

void
kvs_store_remove(KvsStore *store, const KvsKey *key)
{
	Datum		value = KvsKeyDatum(key);

	if (kvs_direct_undo(store, key) == KVS_DIRECT_DONE)
		return;
	if (kvs_statement_run(store, KVS_PLAN_REMOVE, &value, NULL, NULL, NULL).written == 0)
		kvs_fate_report_skipped(store->relid);
}

/* ---- Deleting and renewing ---- */

typedef struct Taken
{
	KvsContent *content;		/* NULL: not wanted */
	MemoryContext context;
	int64		versionstamp;
	bool		live;			/* it had not expired when its turn came */
} Taken;

static void
take_content(TupleTableSlot *slot, void *arg)
{
	Taken	   *taken = (Taken *) arg;
	MemoryContext old;

	taken->versionstamp = DatumGetInt64(slot->tts_values[KVS_COLUMN_VERSIONSTAMP]);
	taken->live = kvs_direct_is_live(slot, DT_NOBEGIN);
	if (taken->content == NULL || !taken->live)
		return;
	old = MemoryContextSwitchTo(taken->context);
	kvs_content_read(slot->tts_values, slot->tts_isnull, taken->content);
	kvs_content_copy(taken->content);
	MemoryContextSwitchTo(old);
}

bool
kvs_store_delete(KvsStore *store, const KvsKey *key, const KvsWrite *write, KvsContent *taken)
{
	Taken		sink = {.content = taken, .context = CurrentMemoryContext};
	Datum		values[3] = {
		KvsKeyDatum(key), TimestampTzGetDatum(write->now), Int64GetDatum(write->if_version)
	};
	int			statement = write->if_version_given ? KVS_PLAN_DELETE_VERSION : KVS_PLAN_DELETE;
	int64		number = 0;
	KvsPassedOver row = {0};
	KvsFate		fate;

	while ((fate = kvs_statement_run(store, statement, values, NULL, take_content, &sink)).written == 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (taken == NULL)
			return false;
		if (fate.skipped > 0)
			kvs_fate_report_skipped(store->relid);
		if (!kvs_policy_passed_over(store, key, false, write->now, &row))
			return false;
	}
	number = kvs_stamp_delete(store->relid, KvsKeyBytes(key), key->size, sink.versionstamp, &number);
	kvs_change_note(store->relid, sink.live ? KVS_FEED_DELETE : KVS_FEED_EXPIRE, number, KvsKeyBytes(key), key->size);
	return sink.live;
}

static void
take_versionstamp(TupleTableSlot *slot, void *arg)
{
	*(int64 *) arg = DatumGetInt64(slot->tts_values[0]);
}

static bool
expire_by_statement(KvsStore *store, const KvsKey *key, const KvsWrite *write)
{
	Datum		values[4] = {
		KvsKeyDatum(key), TimestampTzGetDatum(write->now),
		TimestampTzGetDatum(write->expires_at), Int64GetDatum(write->if_version)
	};
	bool		nulls[4] = {false, false, write->expires_at == DT_NOEND, false};
	int			statement = write->if_version_given ? KVS_PLAN_EXPIRE_VERSION : KVS_PLAN_EXPIRE;
	int64		versionstamp = 0;
	KvsFate		fate;

	if (!is_still_live(store, key, write->now))
		return false;
	fate = kvs_statement_run(store, statement, values, nulls, take_versionstamp, &versionstamp);
	if (fate.written == 0)
		return false;
	/* two contents must not have one number */
	if (fate.altered)
		versionstamp = kvs_storemany_restamp(store, values, 1, &(KvsStamp) {.met = versionstamp});
	kvs_change_note(store->relid, fate.altered ? KVS_FEED_SET : KVS_FEED_TOUCH, versionstamp, KvsKeyBytes(key), key->size);
	return true;
}

/* What a new expiry makes of a row that is there. */
typedef struct Renewal
{
	const KvsWrite *write;
	int64		versionstamp;
} Renewal;

static bool
change_expiry(TupleTableSlot *old, Datum *values, bool *nulls, void *arg)
{
	Renewal    *renewal = arg;
	const KvsWrite *write = renewal->write;

	renewal->versionstamp = DatumGetInt64(old->tts_values[KVS_COLUMN_VERSIONSTAMP]);
	if (!kvs_direct_is_live(old, write->now) ||
		(write->if_version_given && renewal->versionstamp != write->if_version))
		return false;
	values[KVS_COLUMN_EXPIRES_AT] = TimestampTzGetDatum(write->expires_at);
	nulls[KVS_COLUMN_EXPIRES_AT] = write->expires_at == DT_NOEND;
	return true;
}

bool
kvs_store_expire(KvsStore *store, const KvsKey *key, const KvsWrite *write)
{
	Renewal		renewal = {write, 0};

	switch (kvs_direct_change(store, key, ACL_SELECT | ACL_UPDATE, change_expiry, &renewal))
	{
		case KVS_DIRECT_DONE:
			kvs_change_note(store->relid, KVS_FEED_TOUCH, renewal.versionstamp, KvsKeyBytes(key), key->size);
			return true;
		case KVS_DIRECT_REFUSED:
		case KVS_DIRECT_NO_ROW:
			return false;
		default:
			return expire_by_statement(store, key, write);
	}
}

/* ---- SQL ---- */

/*
 * kvstore.add(value jsonb, bytes bytea, kind "char", by numeric) returns jsonb: for the statement
 * of kv_incr(), under the row's lock
 */
PG_FUNCTION_INFO_V1(kvstore_add);
Datum
kvstore_add(PG_FUNCTION_ARGS)
{
	Datum		values[KVS_COLUMNS] = {0};
	bool		nulls[KVS_COLUMNS] = {0};
	KvsContent	content;

	for (int i = 0; i < 3; i++)
	{
		values[KVS_COLUMN_VALUE + i] = PG_GETARG_DATUM(i);
		nulls[KVS_COLUMN_VALUE + i] = PG_ARGISNULL(i);
	}
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("by must not be null")));
	kvs_content_read(values, nulls, &content);
	return kvs_number_apply(KVS_SUM, &content, PG_GETARG_NUMERIC(3)).datum;
}

TimestampTz
kvs_store_default_expiry(const KvsStore *store, TimestampTz now)
{
	if (likely(!store->has_default_ttl))
		return DT_NOEND;
	return kvs_args_add_interval(now, &store->default_ttl);
}
