/*
 * statement.c
 *		The statements that write stores, as kept plans, run as the caller.
 *
 * The executor does what is hard: privileges, policies, the user's own indexes, constraints and
 * triggers, ON CONFLICT without lost updates, and errors of serialization.  A plan is made once in
 * a session for each store and statement.  It is always the generic one: a statement over one key
 * has no better plan.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "expiry/expiry.h"
#include "store/statement.h"
#include "table/catalog.h"
#include "table/plan.h"

/* ---- The statements ---- */

StaticAssertDecl(KVS_PLAN_END <= KVS_STORE_PLANS, "KVS_STORE_PLANS is too small");

/* Types of arguments; kvkey has no fixed OID. */
#define KEY			InvalidOid
#define KEY_ARRAY	((Oid) 1)

typedef struct Statement
{
	const char *sql;			/* %1$s: the store's name, %2$s: the schema of the functions */
	int			nargs;
	Oid			types[KVS_PLAN_ARGS];
	bool		gives_place;	/* RETURNING_PLACE ends its RETURNING */
} Statement;

#define EQ		"OPERATOR(pg_catalog.=)"
/*
 * the second is for expressions that run under the row's lock: the first may have been read before
 * the wait for that
 */
#define LIVE(now) "(t.expires_at IS NULL OR t.expires_at OPERATOR(pg_catalog.>) " now ")"
#define STILL_LIVE(now) \
	"(t.expires_at IS NULL OR (t.expires_at OPERATOR(pg_catalog.>) " now \
	" AND t.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()))"
#define THIS_KEY "t.key OPERATOR(%2$s.=) $1"
#define THIS_RANGE "t.key OPERATOR(%2$s.>=) $1 AND t.key OPERATOR(%2$s.<) $2"

#define INSERT_ROW \
	"INSERT INTO kvstore.s_%1$s AS t (key, value, bytes, kind, versionstamp, expires_at) "
#define HIGHER_STAMP(stamp) \
	"versionstamp = CASE WHEN t.versionstamp OPERATOR(pg_catalog.<) " stamp \
	" THEN " stamp " ELSE kvstore.next_versionstamp(t.versionstamp) END"
#define OVERWRITE_ROW \
	" ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, bytes = EXCLUDED.bytes, kind = EXCLUDED.kind, " \
	HIGHER_STAMP("EXCLUDED.versionstamp") ", "
/*
 * the number, and whether there was no row before: one that was there had to be locked, which
 * leaves our mark in xmax
 */
#define RETURNING_STAMP \
	" RETURNING t.versionstamp, t.xmax " EQ " '0'::pg_catalog.xid"

/* what kvs_content_read() takes: the columns in the order of the table */
#define CONTENT "t.key, t.value, t.bytes, t.kind"

/* for the expiry map: where the row is now, and when it expires */
#define RETURNING_PLACE "t.ctid, t.expires_at"

#define PUT_ARGS		KEY, JSONBOID, BYTEAOID, CHAROID, INT8OID, TIMESTAMPTZOID

static const Statement statements[KVS_PLAN_END] = {
	[KVS_PLAN_PUT] = {
		INSERT_ROW "VALUES ($1, $2, $3, $4, $5, $6)" OVERWRITE_ROW
		"expires_at = EXCLUDED.expires_at" RETURNING_STAMP ", " RETURNING_PLACE,
		6, {PUT_ARGS}, true
	},
	[KVS_PLAN_PUT_KEEP] = {
		INSERT_ROW "VALUES ($1, $2, $3, $4, $5, $6)" OVERWRITE_ROW
		"expires_at = CASE WHEN " STILL_LIVE("$7") " THEN t.expires_at ELSE EXCLUDED.expires_at END" RETURNING_STAMP ", " RETURNING_PLACE,
		7, {PUT_ARGS, TIMESTAMPTZOID}, true
	},
	[KVS_PLAN_PUT_ABSENT] = {
		INSERT_ROW "VALUES ($1, $2, $3, $4, $5, $6)" OVERWRITE_ROW
		"expires_at = EXCLUDED.expires_at WHERE NOT " STILL_LIVE("$7") RETURNING_STAMP ", " RETURNING_PLACE,
		7, {PUT_ARGS, TIMESTAMPTZOID}, true
	},
	[KVS_PLAN_PUT_VERSION] = {
		"UPDATE kvstore.s_%1$s AS t SET value = $2, bytes = $3, kind = $4, "
		HIGHER_STAMP("$5") ", expires_at = CASE WHEN $9 THEN t.expires_at ELSE $6 END "
		"WHERE " THIS_KEY " AND " LIVE("$7") " AND t.versionstamp " EQ " $8 RETURNING t.versionstamp, false, " RETURNING_PLACE,
		9, {PUT_ARGS, TIMESTAMPTZOID, INT8OID, BOOLOID}, true
	},
	[KVS_PLAN_PUT_MANY] = {
		INSERT_ROW "SELECT n.key, n.value, n.bytes, n.kind, $5, n.expires_at FROM "
		"ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), "
		"pg_catalog.unnest($6)) AS n (key, value, bytes, kind, expires_at)"
		OVERWRITE_ROW "expires_at = EXCLUDED.expires_at" RETURNING_STAMP ", t.key, " RETURNING_PLACE,
		6, {KEY_ARRAY, JSONBARRAYOID, BYTEAARRAYOID, CHARARRAYOID, INT8OID, TIMESTAMPTZARRAYOID}, true
	},
	[KVS_PLAN_RESTAMP_MANY] = {
		"UPDATE kvstore.s_%1$s AS t SET versionstamp = $2 WHERE t.key OPERATOR(%2$s.=) ANY ($1) RETURNING " RETURNING_PLACE,
		2, {KEY_ARRAY, INT8OID}, true
	},
	[KVS_PLAN_DELETE] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE " THIS_KEY " AND " LIVE("$2") " RETURNING " CONTENT ", t.versionstamp, t.expires_at",
		2, {KEY, TIMESTAMPTZOID}, false
	},
	[KVS_PLAN_DELETE_VERSION] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE " THIS_KEY " AND " LIVE("$2")
		" AND t.versionstamp " EQ " $3 RETURNING " CONTENT ", t.versionstamp, t.expires_at",
		3, {KEY, TIMESTAMPTZOID, INT8OID}, false
	},
	[KVS_PLAN_DELETE_MANY] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE t.key OPERATOR(%2$s.=) ANY ($1) AND " LIVE("$2") " RETURNING t.key, t.versionstamp",
		2, {KEY_ARRAY, TIMESTAMPTZOID}, false
	},
	[KVS_PLAN_DELETE_RANGE] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE " THIS_RANGE " AND " LIVE("$3") " RETURNING t.key, t.versionstamp",
		3, {KEY, KEY, TIMESTAMPTZOID}, false
	},
	[KVS_PLAN_DELETE_TEXTS] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE " THIS_RANGE " AND " LIVE("$3") " AND kvstore.is_text(t.key) RETURNING t.key, t.versionstamp",
		3, {KEY, KEY, TIMESTAMPTZOID}, false
	},
	[KVS_PLAN_EXPIRE] = {
		"UPDATE kvstore.s_%1$s AS t SET expires_at = $3 WHERE " THIS_KEY " AND " LIVE("$2")
		" RETURNING t.versionstamp, " RETURNING_PLACE,
		3, {KEY, TIMESTAMPTZOID, TIMESTAMPTZOID}, true
	},
	[KVS_PLAN_EXPIRE_VERSION] = {
		"UPDATE kvstore.s_%1$s AS t SET expires_at = $3 WHERE " THIS_KEY " AND " LIVE("$2")
		" AND t.versionstamp " EQ " $4 RETURNING t.versionstamp, " RETURNING_PLACE,
		4, {KEY, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID}, true
	},
	[KVS_PLAN_INCREMENT] = {
		INSERT_ROW "VALUES ($1, $2, NULL, 'j', $3, $4) ON CONFLICT (key) DO UPDATE SET "
		"value = CASE WHEN " STILL_LIVE("$5") " THEN kvstore.add(t.value, t.bytes, t.kind, $6) ELSE EXCLUDED.value END, "
		"bytes = NULL, kind = CASE WHEN " STILL_LIVE("$5") " THEN t.kind ELSE EXCLUDED.kind END, "
		"expires_at = CASE WHEN " STILL_LIVE("$5") " THEN t.expires_at ELSE EXCLUDED.expires_at END, "
		HIGHER_STAMP("EXCLUDED.versionstamp") RETURNING_STAMP ", " CONTENT ", " RETURNING_PLACE,
		6, {KEY, JSONBOID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, NUMERICOID}, true
	},
	[KVS_PLAN_CLAIM] = {
		INSERT_ROW "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key) DO UPDATE SET versionstamp = t.versionstamp "
		"WHERE false" RETURNING_STAMP ", t.key, " RETURNING_PLACE,
		6, {PUT_ARGS}, true
	},
	[KVS_PLAN_LOCK_SHARED] = {
		"SELECT " CONTENT ", t.versionstamp, t.expires_at FROM kvstore.s_%1$s AS t "
		"WHERE " THIS_KEY " FOR SHARE",
		1, {KEY}, false
	},
	[KVS_PLAN_LOCK] = {
		"SELECT " CONTENT ", t.versionstamp, t.expires_at FROM kvstore.s_%1$s AS t "
		"WHERE " THIS_KEY " FOR NO KEY UPDATE",
		1, {KEY}, false
	},
	[KVS_PLAN_LOCK_LIVE] = {
		"SELECT " CONTENT ", t.versionstamp, t.expires_at FROM kvstore.s_%1$s AS t "
		"WHERE " THIS_KEY " AND " LIVE("$2") " FOR NO KEY UPDATE",
		2, {KEY, TIMESTAMPTZOID}, false
	},
	[KVS_PLAN_PLACE] = {
		INSERT_ROW "VALUES ($1, 'null', NULL, 'j', 1, NULL) ON CONFLICT (key) DO NOTHING",
		1, {KEY}, false
	},
	[KVS_PLAN_REMOVE] = {
		"DELETE FROM kvstore.s_%1$s AS t WHERE " THIS_KEY,
		1, {KEY}, false
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
	SPIPlanPtr *plan = kvs_storecatalog_plan(store, which);
	Oid			types[KVS_PLAN_ARGS];
	char	   *sql;

	if (likely(*plan != NULL))
		return *plan;
	for (int i = 0; i < statement->nargs; i++)
		types[i] = resolve_type(statement->types[i]);
	sql = psprintf(statement->sql, store->name, kvs_catalog_function_schema());
	return *plan = kvs_plan_prepare(sql, statement->nargs, types);
}

/* ---- Running one ---- */

/* Rows of a statement that ends with RETURNING_PLACE. */
typedef struct NotedRows
{
	Oid			relid;
	KvsOnRow	on_row;
	void	   *arg;
} NotedRows;

/* Tell the expiry map where a row is that expires. */
static void
note_row(TupleTableSlot *slot, void *arg)
{
	NotedRows  *noted = (NotedRows *) arg;
	int			last = slot->tts_nvalid - 1;

	if (!slot->tts_isnull[last])
		kvs_expiry_note(noted->relid, ItemPointerGetBlockNumber((ItemPointer) DatumGetPointer(slot->tts_values[last - 1])),
						DatumGetTimestampTz(slot->tts_values[last]));
	if (noted->on_row != NULL)
		noted->on_row(slot, noted->arg);
}

KvsFate
kvs_statement_run(KvsStore *store, KvsPlan which, const Datum *values, const bool *nulls,
				  KvsOnRow on_row, void *arg)
{
	const Statement *statement = &statements[which];
	NotedRows	noted = {store->relid, on_row, arg};
	KvsFateWatch watch;
	KvsPlanMode mode = {.relid = store->relid, .observe = kvs_fate_observe, .observe_arg = &watch};
	ParamListInfo params;
	uint64		written;

	kvs_fate_begin(&watch);
	SPI_connect();
	params = makeParamList(statement->nargs);
	for (int i = 0; i < statement->nargs; i++)
		kvs_plan_set_param(params, i, resolve_type(statement->types[i]), values[i], nulls != NULL && nulls[i]);
	written = kvs_plan_run(get_plan(store, which), params, &mode, statement->gives_place ? note_row : on_row,
						   statement->gives_place ? (void *) &noted : arg);
	SPI_finish();
	return kvs_fate_end(&watch, written);
}

static void
set_until_nest_level_ends(const char *setting, const char *value)
{
	(void) set_config_option(setting, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

KvsFate
kvs_statement_run_in_key_order(KvsStore *store, KvsPlan which, const Datum *values, KvsOnRow on_row, void *arg)
{
	int			level = NewGUCNestLevel();
	KvsFate		result;

	set_until_nest_level_ends("enable_indexscan", "on");
	set_until_nest_level_ends("enable_seqscan", "off");
	set_until_nest_level_ends("enable_bitmapscan", "off");
	result = kvs_statement_run(store, which, values, NULL, on_row, arg);
	AtEOXact_GUC(true, level);
	return result;
}

/* ---- What an entry holds ---- */

void
kvs_statement_set_content(const KvsContent *content, TimestampTz expires_at, Datum *values, bool *nulls)
{
	kvs_content_write(content, values, nulls);
	values[KVS_COLUMN_EXPIRES_AT] = TimestampTzGetDatum(expires_at);
	nulls[KVS_COLUMN_EXPIRES_AT] = expires_at == DT_NOEND;
}
