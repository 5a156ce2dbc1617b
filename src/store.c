/*
 * store.c
 *		Rows in: writing a store by kept plans, as the caller.
 *
 * The executor does what is hard: privileges, policies, the user's own indexes, constraints and triggers, ON CONFLICT without lost updates, and
 * errors of serialization.  A plan is made once in a session for each store and kind of statement; it is always the generic one, for a statement
 * over one key has no better.
 *
 * The number of a write is taken before the statement runs.  The statement compares it with the row that it meets, under
 * that row's lock; afterwards the deletions are looked at (stamp.c).  So nothing is read before it is written.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "check.h"
#include "errors.h"
#include "guard.h"
#include "guc.h"
#include "number.h"
#include "progress.h"
#include "scan.h"
#include "stamp.h"
#include "store.h"

/* ---- The statements ---- */

enum
{
	PLAN_PUT = KVS_READ_PLANS,
	PLAN_PUT_KEEP,
	PLAN_PUT_ABSENT,
	PLAN_PUT_VERSION,
	PLAN_PUT_MANY,
	PLAN_RESTAMP_MANY,
	PLAN_DELETE,
	PLAN_DELETE_VERSION,
	PLAN_DELETE_MANY,
	PLAN_DELETE_RANGE,
	PLAN_DELETE_TEXTS,
	PLAN_EXPIRE,
	PLAN_EXPIRE_VERSION,
	PLAN_INCREMENT,
	PLAN_CLAIM,
	PLAN_LOCK_SHARED,
	PLAN_LOCK,
	PLAN_PLACE,
	PLAN_REMOVE,
	PLAN_END
};

StaticAssertDecl(PLAN_END <= KVS_STORE_PLANS, "KVS_STORE_PLANS is too small");

#define MAX_ARGS 9

/* Types of arguments; kvkey has no fixed OID. */
#define KEY			InvalidOid
#define KEY_ARRAY	((Oid) 1)

typedef struct Statement
{
	const char *sql;			/* %1$s: the store's name, %2$s: the schema of the functions */
	int			nargs;
	Oid			types[MAX_ARGS];
} Statement;

#define EQ		"OPERATOR(pg_catalog.=)"
#define LIVE(now) "(t.expires_at IS NULL OR t.expires_at OPERATOR(pg_catalog.>) " now ")"
#define THIS_KEY "t.key OPERATOR(%2$s.=) $1"
#define THIS_RANGE "t.key OPERATOR(%2$s.>=) $1 AND t.key OPERATOR(%2$s.<) $2"

#define INSERT_ROW \
	"INSERT INTO kvstore.s_%1$s AS t (key, value, bytes, kind, versionstamp, expires_at) "
#define HIGHER_STAMP \
	"versionstamp = CASE WHEN t.versionstamp OPERATOR(pg_catalog.<) EXCLUDED.versionstamp " \
	"THEN EXCLUDED.versionstamp ELSE kvstore.next_versionstamp() END"
#define OVERWRITE_ROW \
	" ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, bytes = EXCLUDED.bytes, kind = EXCLUDED.kind, " \
	HIGHER_STAMP ", "
#define RETURNING_STAMP \
	" RETURNING t.versionstamp, t.xmax " EQ " '0'::pg_catalog.xid"

#define PUT_ARGS		KEY, JSONBOID, BYTEAOID, CHAROID, INT8OID, TIMESTAMPTZOID

static const Statement statements[PLAN_END] = {
	[PLAN_PUT] = {
		INSERT_ROW "VALUES ($1, $2, $3, $4, $5, $6)" OVERWRITE_ROW
		"expires_at = EXCLUDED.expires_at" RETURNING_STAMP,
		6, {PUT_ARGS}
	},
	[PLAN_PUT_KEEP] = {
		INSERT_ROW "VALUES ($1, $2, $3, $4, $5, $6)" OVERWRITE_ROW
		"expires_at = CASE WHEN " LIVE("$7") " THEN t.expires_at ELSE EXCLUDED.expires_at END" RETURNING_STAMP,
		7, {PUT_ARGS, TIMESTAMPTZOID}
	},
	[PLAN_PUT_ABSENT] = {
		INSERT_ROW "VALUES ($1, $2, $3, $4, $5, $6)" OVERWRITE_ROW
		"expires_at = EXCLUDED.expires_at WHERE NOT " LIVE("$7") RETURNING_STAMP,
		7, {PUT_ARGS, TIMESTAMPTZOID}
	},
	[PLAN_PUT_VERSION] = {
		"UPDATE kvstore.s_%1$s AS t SET value = $2, bytes = $3, kind = $4, versionstamp = $5, "
		"expires_at = CASE WHEN $9 THEN t.expires_at ELSE $6 END "
		"WHERE " THIS_KEY " AND " LIVE("$7") " AND t.versionstamp " EQ " $8" RETURNING_STAMP,
		9, {PUT_ARGS, TIMESTAMPTZOID, INT8OID, BOOLOID}
	},
	[PLAN_PUT_MANY] = {
		INSERT_ROW "SELECT n.key, n.value, n.bytes, n.kind, $5, n.expires_at FROM "
		"ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), "
		"pg_catalog.unnest($6)) AS n (key, value, bytes, kind, expires_at)"
		OVERWRITE_ROW "expires_at = EXCLUDED.expires_at" RETURNING_STAMP ", t.key",
		6, {KEY_ARRAY, JSONBARRAYOID, BYTEAARRAYOID, CHARARRAYOID, INT8OID, TIMESTAMPTZARRAYOID}
	},
	[PLAN_RESTAMP_MANY] = {
		"UPDATE kvstore.s_%1$s AS t SET versionstamp = $2 WHERE t.key OPERATOR(%2$s.=) ANY ($1)",
		2, {KEY_ARRAY, INT8OID}
	},
	[PLAN_DELETE] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE " THIS_KEY " AND " LIVE("$2") " RETURNING t.kind, t.value, t.bytes",
		2, {KEY, TIMESTAMPTZOID}
	},
	[PLAN_DELETE_VERSION] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE " THIS_KEY " AND " LIVE("$2")
		" AND t.versionstamp " EQ " $3 RETURNING t.kind, t.value, t.bytes",
		3, {KEY, TIMESTAMPTZOID, INT8OID}
	},
	[PLAN_DELETE_MANY] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE t.key OPERATOR(%2$s.=) ANY ($1) AND " LIVE("$2") " RETURNING t.key",
		2, {KEY_ARRAY, TIMESTAMPTZOID}
	},
	[PLAN_DELETE_RANGE] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE " THIS_RANGE " AND " LIVE("$3") " RETURNING NULL",
		3, {KEY, KEY, TIMESTAMPTZOID}
	},
	[PLAN_DELETE_TEXTS] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE " THIS_RANGE " AND " LIVE("$3") " AND kvstore.is_text(t.key) RETURNING NULL",
		3, {KEY, KEY, TIMESTAMPTZOID}
	},
	[PLAN_EXPIRE] = {
		"UPDATE kvstore.s_%1$s AS t SET expires_at = $3 WHERE " THIS_KEY " AND " LIVE("$2"),
		3, {KEY, TIMESTAMPTZOID, TIMESTAMPTZOID}
	},
	[PLAN_EXPIRE_VERSION] = {
		"UPDATE kvstore.s_%1$s AS t SET expires_at = $3 WHERE " THIS_KEY " AND " LIVE("$2")
		" AND t.versionstamp " EQ " $4",
		4, {KEY, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID}
	},
	[PLAN_INCREMENT] = {
		INSERT_ROW "VALUES ($1, $2, NULL, 'j', $3, $4) ON CONFLICT (key) DO UPDATE SET "
		"value = CASE WHEN " LIVE("$5") " THEN kvstore.add(t.value, t.kind, $6) ELSE EXCLUDED.value END, "
		"bytes = NULL, kind = CASE WHEN " LIVE("$5") " THEN t.kind ELSE EXCLUDED.kind END, "
		"expires_at = CASE WHEN " LIVE("$5") " THEN t.expires_at ELSE EXCLUDED.expires_at END, "
		HIGHER_STAMP RETURNING_STAMP ", t.value",
		6, {KEY, JSONBOID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, NUMERICOID}
	},
	[PLAN_CLAIM] = {
		INSERT_ROW "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key) DO UPDATE SET versionstamp = t.versionstamp "
		"WHERE false" RETURNING_STAMP ", t.key",
		6, {PUT_ARGS}
	},
	[PLAN_LOCK_SHARED] = {
		"SELECT t.kind, t.value, t.bytes, t.versionstamp, t.expires_at FROM kvstore.s_%1$s AS t "
		"WHERE " THIS_KEY " FOR SHARE",
		1, {KEY}
	},
	[PLAN_LOCK] = {
		"SELECT t.kind, t.value, t.bytes, t.versionstamp, t.expires_at FROM kvstore.s_%1$s AS t "
		"WHERE " THIS_KEY " FOR NO KEY UPDATE",
		1, {KEY}
	},
	[PLAN_PLACE] = {
		INSERT_ROW "VALUES ($1, 'null', NULL, 'j', 1, NULL) ON CONFLICT (key) DO NOTHING",
		1, {KEY}
	},
	[PLAN_REMOVE] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE " THIS_KEY,
		1, {KEY}
	},
};

static Oid
resolve_type(Oid type)
{
	if (type == KEY)
		return kvs_catalog_get()->kvkey_type;
	if (type == KEY_ARRAY)
		return get_array_type(kvs_catalog_get()->kvkey_type);
	return type;
}

static SPIPlanPtr
get_plan(KvsStore *store, int which)
{
	const Statement *statement = &statements[which];
	Oid			types[MAX_ARGS];
	char	   *sql;
	SPIPlanPtr	plan = store->plans[which];

	if (likely(plan != NULL))
		return plan;
	for (int i = 0; i < statement->nargs; i++)
		types[i] = resolve_type(statement->types[i]);
	sql = psprintf(statement->sql, store->name, kvs_catalog_function_schema());
	plan = SPI_prepare_cursor(sql, statement->nargs, types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return store->plans[which] = plan;
}

/* ---- Running one ---- */

/* Takes the rows of RETURNING as they come, without the tuple table that SPI would build for them. */
typedef struct Sink
{
	DestReceiver receiver;		/* must be first */
	void		(*on_row) (TupleTableSlot *slot, void *arg);
	void	   *arg;
} Sink;

static bool
sink_receive(TupleTableSlot *slot, DestReceiver *self)
{
	Sink	   *sink = (Sink *) self;

	slot_getallattrs(slot);
	sink->on_row(slot, sink->arg);
	return true;
}

static void
sink_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
sink_nothing(DestReceiver *self)
{
}

static void
ignore_row(TupleTableSlot *slot, void *arg)
{
}

static int
execute_unguarded(SPIPlanPtr plan, const SPIExecuteOptions *options, Oid relid)
{
	volatile int result = 0;

	kvs_guard_let_pass(relid);
	PG_TRY();
	{
		result = SPI_execute_plan_extended(plan, options);
	}
	PG_FINALLY();
	{
		kvs_guard_end();
	}
	PG_END_TRY();
	return result;
}

/* Run a statement; on_row gets each row of its RETURNING.  Returns how many rows it wrote. */
static uint64
run(KvsStore *store, int which, const Datum *values, const bool *nulls,
	void (*on_row) (TupleTableSlot *slot, void *arg), void *arg)
{
	const Statement *statement = &statements[which];
	SPIExecuteOptions options;
	ParamListInfo params;
	Sink		sink;
	uint64		written;
	int			result;

	memset(&sink, 0, sizeof(sink));
	sink.receiver.receiveSlot = sink_receive;
	sink.receiver.rStartup = sink_startup;
	sink.receiver.rShutdown = sink_nothing;
	sink.receiver.rDestroy = sink_nothing;
	sink.receiver.mydest = DestNone;
	sink.on_row = on_row ? on_row : ignore_row;
	sink.arg = arg;

	SPI_connect();
	params = makeParamList(statement->nargs);
	for (int i = 0; i < statement->nargs; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls != NULL && nulls[i];
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = statement->types[i] == KEY || statement->types[i] == KEY_ARRAY ?
			resolve_type(statement->types[i]) : statement->types[i];
	}
	memset(&options, 0, sizeof(options));
	options.params = params;
	options.dest = &sink.receiver;

	result = execute_unguarded(get_plan(store, which), &options, store->relid);
	if (result < 0)
		elog(ERROR, "could not write store \"%s\": %s", store->name, SPI_result_code_string(result));
	written = SPI_processed;	/* SPI_finish() clears it */
	SPI_finish();
	return written;
}

/* Copy what the columns kind, value, bytes hold, the first of a row. */
static void
copy_content(TupleTableSlot *slot, KvsContent *content, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	content->kind = DatumGetChar(slot->tts_values[0]);
	content->datum = (Datum) 0;
	for (int column = 1; column <= 2; column++)
		if (!slot->tts_isnull[column])
			content->datum = PointerGetDatum(PG_DETOAST_DATUM_COPY(slot->tts_values[column]));
	MemoryContextSwitchTo(old);
}

/* ---- Writing one ---- */

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
	Numeric		number;			/* PLAN_INCREMENT */
	MemoryContext context;
} Stamped;

static void
take_stamp(TupleTableSlot *slot, void *arg)
{
	Stamped    *stamped = (Stamped *) arg;

	stamped->versionstamp = DatumGetInt64(slot->tts_values[0]);
	stamped->inserted = DatumGetBool(slot->tts_values[1]);
	if (stamped->inserted)
		kvs_check_wait(stamped->store->relid, KvsKeyBytes(stamped->key), stamped->key->size);
}

/* After a row was written with "stamp": stamp it again if that turned out too low. */
static int64
settle_stamp(Stamped *stamped, KvsStamp stamp)
{
	const KvsKey *key = stamped->key;
	Datum		datum = KvsKeyDatum(key);

	if (likely(!kvs_stamp_is_outdated(stamped->store->relid, KvsKeyBytes(key), key->size, stamp, stamped->inserted)))
		return stamped->versionstamp;
	return kvs_store_restamp(stamped->store, &datum, 1);
}

static void
set_content(const KvsContent *content, TimestampTz expires_at, Datum *values, bool *nulls)
{
	values[1] = values[2] = content->datum;
	nulls[1] = content->kind == KVS_KIND_BYTES;
	nulls[2] = !nulls[1];
	values[3] = CharGetDatum(content->kind);
	values[5] = TimestampTzGetDatum(expires_at);
	nulls[5] = expires_at == DT_NOEND;
}

/* Which statement a write needs; sets the arguments from $7 on. */
static int
choose_put(const KvsWrite *write, Datum *values)
{
	values[6] = TimestampTzGetDatum(write->now);
	if (!write->if_version_given)
		return write->keep_ttl ? PLAN_PUT_KEEP : PLAN_PUT;
	if (write->if_version == 0)
		return PLAN_PUT_ABSENT;
	values[7] = Int64GetDatum(write->if_version);
	values[8] = BoolGetDatum(write->keep_ttl);
	return PLAN_PUT_VERSION;
}

int64
kvs_store_put(KvsStore *store, const KvsKey *key, const KvsContent *content, const KvsWrite *write)
{
	Datum		values[MAX_ARGS];
	bool		nulls[MAX_ARGS] = {false};
	int			statement = choose_put(write, values);
	KvsStamp	stamp = kvs_stamp_take();
	Stamped		stamped = {.store = store, .key = key};

	values[0] = KvsKeyDatum(key);
	values[4] = Int64GetDatum(stamp.number);
	set_content(content, write->expires_at, values, nulls);
	if (run(store, statement, values, nulls, take_stamp, &stamped) == 0)
		return 0;
	return settle_stamp(&stamped, stamp);
}

static void
take_number(TupleTableSlot *slot, void *arg)
{
	Stamped    *stamped = (Stamped *) arg;
	MemoryContext old = MemoryContextSwitchTo(stamped->context);
	KvsContent	content = {KVS_KIND_JSON, PointerGetDatum(PG_DETOAST_DATUM_COPY(slot->tts_values[2]))};

	stamped->number = kvs_number_of(&content);
	MemoryContextSwitchTo(old);
	take_stamp(slot, arg);
}

Numeric
kvs_store_increment(KvsStore *store, const KvsKey *key, Numeric by, const KvsWrite *write)
{
	KvsStamp	stamp = kvs_stamp_take();
	Stamped		stamped = {.store = store, .key = key, .context = CurrentMemoryContext};
	Datum		values[6] = {
		KvsKeyDatum(key), kvs_number_content(by).datum, Int64GetDatum(stamp.number),
		TimestampTzGetDatum(write->expires_at), TimestampTzGetDatum(write->now), NumericGetDatum(by)
	};
	bool		nulls[6] = {false, false, false, write->expires_at == DT_NOEND, false, false};

	run(store, PLAN_INCREMENT, values, nulls, take_number, &stamped);
	settle_stamp(&stamped, stamp);
	return stamped.number;
}

/* ---- Writing many ---- */

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
		kvs_check_wait(many->store->relid, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
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

/* The arguments of PLAN_PUT_MANY, all but $5. */
static void
make_arrays(const KvsEntry *entries, int count, Datum *values)
{
	Datum	   *columns[5];
	bool	   *nulls[5];
	Oid			types[5] = {kvs_catalog_get()->kvkey_type, JSONBOID, BYTEAOID, CHAROID, TIMESTAMPTZOID};
	int			argument[5] = {0, 1, 2, 3, 5};

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

void
kvs_store_put_sorted(KvsStore *store, const KvsEntry *entries, int count, KvsStamp stamp, bool *outdated)
{
	Datum		values[MAX_ARGS];
	StampedMany many = {store, stamp, false};

	if (count == 0)
		return;
	make_arrays(entries, count, values);
	values[4] = Int64GetDatum(stamp.number);
	run(store, PLAN_PUT_MANY, values, NULL, check_stamp, &many);
	*outdated |= many.outdated;
}

int64
kvs_store_restamp(KvsStore *store, const Datum *keys, int count)
{
	int64		number = kvs_stamp_next();
	Datum		values[2] = {
		make_array(unconstify(Datum *, keys), NULL, count, kvs_catalog_get()->kvkey_type), Int64GetDatum(number)
	};

	run(store, PLAN_RESTAMP_MANY, values, NULL, NULL, NULL);
	return number;
}

int64
kvs_store_put_many(KvsStore *store, const KvsEntry *entries, int count)
{
	KvsStamp	stamp = kvs_stamp_take();
	bool		outdated = false;
	Datum	   *keys;

	kvs_store_put_sorted(store, entries, count, stamp, &outdated);
	if (likely(!outdated))
		return stamp.number;
	keys = palloc(sizeof(Datum) * count);
	for (int i = 0; i < count; i++)
		keys[i] = entries[i].key;
	return kvs_store_restamp(store, keys, count);
}

/* ---- Locking ---- */

bool
kvs_store_claim(KvsStore *store, const KvsEntry *entry, KvsStamp stamp, bool *outdated)
{
	StampedMany many = {store, stamp, false};
	Datum		values[MAX_ARGS];
	bool		nulls[MAX_ARGS] = {false};
	uint64		inserted;

	values[0] = entry->key;
	values[4] = Int64GetDatum(stamp.number);
	set_content(&entry->content, entry->expires_at, values, nulls);
	inserted = run(store, PLAN_CLAIM, values, nulls, check_stamp, &many);
	*outdated |= many.outdated;
	return inserted > 0;
}

typedef struct Locked
{
	KvsState   *state;
	TimestampTz now;
	MemoryContext context;
} Locked;

static void
take_state(TupleTableSlot *slot, void *arg)
{
	Locked	   *locked = (Locked *) arg;
	KvsState   *state = locked->state;

	state->expires_at = slot->tts_isnull[4] ? DT_NOEND : DatumGetTimestampTz(slot->tts_values[4]);
	state->present = state->expires_at > locked->now;
	if (!state->present)
		return;
	state->versionstamp = DatumGetInt64(slot->tts_values[3]);
	copy_content(slot, &state->content, locked->context);
}

bool
kvs_store_lock(KvsStore *store, const KvsKey *key, bool exclusive, TimestampTz now, KvsState *state)
{
	Locked		locked = {state, now, CurrentMemoryContext};
	Datum		value = KvsKeyDatum(key);

	memset(state, 0, sizeof(*state));
	return run(store, exclusive ? PLAN_LOCK : PLAN_LOCK_SHARED, &value, NULL, take_state, &locked) > 0;
}

bool
kvs_store_place(KvsStore *store, const KvsKey *key)
{
	Datum		value = KvsKeyDatum(key);

	return run(store, PLAN_PLACE, &value, NULL, NULL, NULL) > 0;
}

void
kvs_store_remove(KvsStore *store, const KvsKey *key)
{
	Datum		value = KvsKeyDatum(key);

	run(store, PLAN_REMOVE, &value, NULL, NULL, NULL);
}

/* ---- Deleting and renewing ---- */

typedef struct Taken
{
	KvsContent *content;		/* NULL: not wanted */
	MemoryContext context;
} Taken;

static void
take_content(TupleTableSlot *slot, void *arg)
{
	Taken	   *taken = (Taken *) arg;

	if (taken->content != NULL)
		copy_content(slot, taken->content, taken->context);
}

bool
kvs_store_delete(KvsStore *store, const KvsKey *key, const KvsWrite *write, KvsContent *taken)
{
	Taken		sink = {taken, CurrentMemoryContext};
	Datum		values[3] = {
		KvsKeyDatum(key), TimestampTzGetDatum(write->now), Int64GetDatum(write->if_version)
	};
	int			statement = write->if_version_given ? PLAN_DELETE_VERSION : PLAN_DELETE;

	if (run(store, statement, values, NULL, take_content, &sink) == 0)
		return false;
	kvs_stamp_note_deletion(store->relid, KvsKeyBytes(key), key->size);
	return true;
}

static void
note_deleted(TupleTableSlot *slot, void *arg)
{
	KvsStore   *store = (KvsStore *) arg;
	struct varlena *key = PG_DETOAST_DATUM_PACKED(slot->tts_values[0]);

	kvs_stamp_note_deletion(store->relid, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	kvs_progress_advance();
}

static void
count_deleted(TupleTableSlot *slot, void *arg)
{
	kvs_progress_advance();
}

/*
 * Run a statement over many rows by an index scan: it visits, and so locks, them in key order.  A sequential or bitmap scan would lock them in
 * table order, and two such statements would deadlock.
 */
static uint64
run_in_key_order(KvsStore *store, int which, const Datum *values,
				 void (*on_row) (TupleTableSlot *slot, void *arg), void *arg)
{
	int			level = NewGUCNestLevel();
	uint64		result;

	SetConfigOption("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("enable_bitmapscan", "off", PGC_USERSET, PGC_S_SESSION);
	result = run(store, which, values, NULL, on_row, arg);
	AtEOXact_GUC(true, level);
	return result;
}

int64
kvs_store_delete_sorted(KvsStore *store, const Datum *keys, int count, TimestampTz now)
{
	Datum		values[2] = {
		make_array(unconstify(Datum *, keys), NULL, count, kvs_catalog_get()->kvkey_type), TimestampTzGetDatum(now)
	};

	return (int64) run_in_key_order(store, PLAN_DELETE_MANY, values, note_deleted, store);
}

int64
kvs_store_delete_range(KvsStore *store, const KvsKey *low, const KvsKey *high, bool texts_only, TimestampTz now)
{
	Datum		values[3] = {KvsKeyDatum(low), KvsKeyDatum(high), TimestampTzGetDatum(now)};
	uint64		deleted = run_in_key_order(store, texts_only ? PLAN_DELETE_TEXTS : PLAN_DELETE_RANGE, values,
										   count_deleted, NULL);

	/* cheaper than to note each key */
	if (deleted > 0)
		kvs_stamp_note_deletion_of_all();
	return (int64) deleted;
}

bool
kvs_store_expire(KvsStore *store, const KvsKey *key, const KvsWrite *write)
{
	Datum		values[4] = {
		KvsKeyDatum(key), TimestampTzGetDatum(write->now),
		TimestampTzGetDatum(write->expires_at), Int64GetDatum(write->if_version)
	};
	bool		nulls[4] = {false, false, write->expires_at == DT_NOEND, false};
	int			statement = write->if_version_given ? PLAN_EXPIRE_VERSION : PLAN_EXPIRE;

	return run(store, statement, values, nulls, NULL, NULL) > 0;
}
