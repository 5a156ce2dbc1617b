/*
 * storeddl.c
 *		SQL functions that create, alter and drop stores.
 *
 * A store is a table of the user's own.  It is created with the caller's rights and belongs to
 * them.  It is dumped with its indexes and grants.  DROP EXTENSION does not take it along without
 * CASCADE.  Its settings are a row in the registry kvstore.stores (registry.c), where NULL means
 * the default.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/guc.h"
#include "expiry/expiry.h"
#include "store/change.h"
#include "table/catalog.h"
#include "table/registry.h"
#include "table/shape.h"
#include "table/tableddl.h"

/* In the order of the registry's columns, after the name. */
enum
{
	SETTING_DEFAULT_TTL,
	SETTING_MAX_VALUE_SIZE,
	SETTINGS
};

static void
read_default_ttl(Interval *default_ttl, KvsSetting *setting)
{
	int			sign = kvs_tableddl_interval_sign(default_ttl);

	if (sign < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("default_ttl must not be negative"),
				 errhint("Use '0' for no default.")));
	kvs_settings_give(setting, IntervalPGetDatum(default_ttl), sign == 0);
}

static void
read_max_value_size(int64 size, KvsSetting *setting)
{
	if (size < 0 || size > (int64) KVS_MAX_VALUE_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_value_size must be between 0 and %d bytes", KVS_MAX_VALUE_SIZE),
				 errhint("Use 0 for no limit other than the setting kvstore.max_value_size.")));
	kvs_settings_give(setting, Int64GetDatum(size), size == 0);
}

/* SQL NULL is "not given"; a zero is the default, that is NULL in the registry. */
static void
read_settings(FunctionCallInfo fcinfo, int first, KvsSetting *settings)
{
	settings[SETTING_DEFAULT_TTL] = (KvsSetting) {"default_ttl", INTERVALOID, .isnull = true};
	settings[SETTING_MAX_VALUE_SIZE] = (KvsSetting) {"max_value_size", INT8OID, .isnull = true};
	if (!PG_ARGISNULL(first))
		read_default_ttl(PG_GETARG_INTERVAL_P(first), &settings[SETTING_DEFAULT_TTL]);
	if (!PG_ARGISNULL(first + 1))
		read_max_value_size(PG_GETARG_INT64(first + 1), &settings[SETTING_MAX_VALUE_SIZE]);
}

/* ---- Create ---- */

static void
check_shape(Relation rel)
{
	kvs_storecatalog_check_store_shape(rel);
}

/*
 * fillfactor 90 leaves room for HOT updates, and the primary key is the only index.  So an
 * overwrite, with or without a TTL, touches no index.
 */
static void
create_table(const char *name, bool unlogged)
{
	const char *schema = kvs_catalog_function_schema();

	kvs_tableddl_run_utility(psprintf("CREATE %s TABLE kvstore.s_%s (key %s.kvkey PRIMARY KEY, value pg_catalog.jsonb, bytes pg_catalog.bytea, "
						 "kind pg_catalog.\"char\" NOT NULL DEFAULT 'j', versionstamp pg_catalog.int8 NOT NULL, expires_at pg_catalog.timestamptz) "
						 "USING heap WITH (fillfactor = 90)",
						 unlogged ? "UNLOGGED" : "", name, schema));
	kvs_tableddl_create_guard("s_", name);
	kvs_tableddl_run_utility(psprintf("CREATE TRIGGER " KVS_GUARD_AFTER " AFTER INSERT OR UPDATE OR DELETE ON kvstore.s_%s "
								 "FOR EACH ROW EXECUTE FUNCTION kvstore.guard()", name));
	kvs_tableddl_run_utility(psprintf("ALTER TABLE kvstore.s_%s ENABLE ALWAYS TRIGGER " KVS_GUARD_AFTER, name));
}

static void
create_view(const char *name, bool unlogged)
{
	kvs_tableddl_run_utility(psprintf("CREATE VIEW kvstore.v_%s WITH (security_invoker) AS "
						 "SELECT key, value, bytes, CASE WHEN kind OPERATOR(pg_catalog.=) 'b' THEN 'bytes' "
						 "WHEN kind OPERATOR(pg_catalog.=) 'u' THEN 'u64' ELSE 'json' END AS kind, "
						 "versionstamp, expires_at FROM kvstore.s_%s "
						 "WHERE expires_at IS NULL OR expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()", name, name));
	/* with security_invoker the rights on the table decide */
	kvs_tableddl_run_utility(psprintf("GRANT SELECT ON kvstore.v_%s TO PUBLIC", name));
}

static void
check_view(Relation rel)
{
	if (rel->rd_rel->relkind != RELKIND_VIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"kvstore.%s\" is not a view", RelationGetRelationName(rel)),
				 errhint("Rename it, and call kv_create_store() with if_not_exists => true to have the view made.")));
}

static const KvsCompanion view = {"v_", "view", "view", check_view, create_view};

/* Followers of another store of this name have to list this one. */
static void
note_new_store(const char *name)
{
	kvs_change_note_lost(kvs_catalog_find_table("s_", name));
}

/* kv_create_store(store, unlogged, default_ttl, max_value_size, if_not_exists) returns text */
PG_FUNCTION_INFO_V1(kvstore_create_store);
Datum
kvstore_create_store(PG_FUNCTION_ARGS)
{
	KvsSetting	settings[SETTINGS];
	KvsCreation creation = {
		.registry = &kvs_registry_stores,
		.companion = &view,
		.check = check_shape,
		.create = create_table,
		.name = kvs_catalog_check_name(kvs_args_text(fcinfo, 0), "store"),
		.unlogged = kvs_args_bool(fcinfo, 1),
		.if_not_exists = kvs_args_bool(fcinfo, 4),
		.settings = settings,
		.nsettings = SETTINGS
	};

	read_settings(fcinfo, 2, settings);
	PreventCommandIfReadOnly("kv_create_store()");
	if (kvs_tableddl_create(&creation))
		note_new_store(creation.name);
	PG_RETURN_TEXT_P(kvs_tableddl_table_name(creation.registry, creation.name));
}

/* ---- Alter, drop ---- */

/*
 * kv_alter_store(store, default_ttl, max_value_size) returns boolean: true; zero removes a setting
 */
PG_FUNCTION_INFO_V1(kvstore_alter_store);
Datum
kvstore_alter_store(PG_FUNCTION_ARGS)
{
	KvsSetting	settings[SETTINGS];
	char	   *name = kvs_catalog_check_name(kvs_args_text(fcinfo, 0), "store");
	Relation	rel;
	KvsStore   *store;

	read_settings(fcinfo, 1, settings);
	PreventCommandIfReadOnly("kv_alter_store()");
	kvs_registry_spare_warning(kvs_tableddl_lock_own_table("s_", name, ShareUpdateExclusiveLock));
	store = kvs_storecatalog_open_store(kvs_args_text(fcinfo, 0), ShareUpdateExclusiveLock, &rel);
	kvs_settings_write(&kvs_registry_stores, store->name, settings, SETTINGS);
	kvs_registry_changed(store->relid);
	table_close(rel, NoLock);
	PG_RETURN_BOOL(true);
}

/* Is there a view of the store's name that reads the store?  Any other one is not ours to drop. */
static bool
has_view(const char *name, Oid store)
{
	Relation	view = kvs_catalog_lock_table("v_", name, AccessShareLock);
	bool		result = false;

	if (view == NULL)
		return false;
	if (view->rd_rel->relkind == RELKIND_VIEW)
	{
		Query	   *query = get_view_query(view);
		ListCell   *lc;

		foreach(lc, query->rtable)
			if (((RangeTblEntry *) lfirst(lc))->relid == store &&
				((RangeTblEntry *) lfirst(lc))->rtekind == RTE_RELATION)
				result = true;
	}
	relation_close(view, NoLock);
	return result;
}

/* kv_drop_store(store) returns boolean: false if there is none */
PG_FUNCTION_INFO_V1(kvstore_drop_store);
Datum
kvstore_drop_store(PG_FUNCTION_ARGS)
{
	char	   *name = kvs_catalog_check_name(kvs_args_text(fcinfo, 0), "store");
	Oid			relid;

	PreventCommandIfReadOnly("kv_drop_store()");
	if (!OidIsValid(kvs_tableddl_find_own_table("s_", name)))
		PG_RETURN_BOOL(false);
	kvs_tableddl_lock_name(name);
	relid = kvs_tableddl_lock_own_table("s_", name, AccessExclusiveLock);
	if (!OidIsValid(relid))
		PG_RETURN_BOOL(false);

	SPI_connect();
	if (has_view(name, relid))
		kvs_tableddl_run_utility(psprintf("DROP VIEW kvstore.v_%s", name));
	kvs_tableddl_run_utility(psprintf("DROP TABLE kvstore.s_%s", name));
	SPI_finish();
	/*
	 * The worker looks for what is due there, sees that the table is gone, and returns its slots.
	 */
	kvs_expiry_note(relid, InvalidBlockNumber, DT_NOBEGIN);
	kvs_registry_delete(&kvs_registry_stores, name);
	PG_RETURN_BOOL(true);
}
