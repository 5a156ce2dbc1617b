/*
 * settings.c
 *		Settings as kv_create_*() and kv_alter_*() get them, and the registry's row of them.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "table/settings.h"

/* The name and every setting, and the end of the string of nulls. */
#define MAX_SETTINGS	8

void
kvs_settings_give(KvsSetting *setting, Datum value, bool isnull)
{
	setting->given = true;
	setting->wished = true;
	setting->isnull = isnull;
	setting->value = value;
}

/* ---- Writing ---- */

static char *
write_statement(const KvsRegistry *registry, const KvsSetting *settings, int count)
{
	StringInfoData columns;
	StringInfoData values;
	StringInfoData changes;

	initStringInfo(&columns);
	initStringInfo(&values);
	initStringInfo(&changes);
	for (int i = 0; i < count; i++)
	{
		const char *column = settings[i].column;

		appendStringInfo(&columns, ", %s", column);
		appendStringInfo(&values, ", $%d", i + 2);
		if (settings[i].given)
			appendStringInfo(&changes, "%s%s = EXCLUDED.%s", changes.len > 0 ? ", " : "", column, column);
	}
	return psprintf("INSERT INTO kvstore.%s (%s%s) VALUES ($1%s) ON CONFLICT (%s) DO %s%s",
					registry->table, registry->column, columns.data, values.data, registry->column,
					changes.len > 0 ? "UPDATE SET " : "NOTHING", changes.data);
}

void
kvs_settings_write(const KvsRegistry *registry, const char *name, const KvsSetting *settings, int count)
{
	Oid			types[MAX_SETTINGS + 1] = {TEXTOID};
	Datum		values[MAX_SETTINGS + 1] = {CStringGetTextDatum(name)};
	char		nulls[MAX_SETTINGS + 2] = " ";

	Assert(count <= MAX_SETTINGS);
	for (int i = 0; i < count; i++)
	{
		types[i + 1] = settings[i].type;
		values[i + 1] = settings[i].value;
		nulls[i + 1] = settings[i].isnull ? 'n' : ' ';
	}
	kvs_registry_run(registry, write_statement(registry, settings, count), count + 1, types, values, nulls);
}

/* ---- Comparing ---- */

typedef struct Comparison
{
	const KvsSetting *settings;
	int			count;
	StringInfoData differing;
} Comparison;

static bool
is_equal(const KvsSetting *setting, Datum there, bool isnull)
{
	TypeCacheEntry *type;

	if (setting->isnull || isnull)
		return setting->isnull == isnull;
	type = lookup_type_cache(setting->type, TYPECACHE_EQ_OPR_FINFO);
	return DatumGetBool(FunctionCall2(&type->eq_opr_finfo, there, setting->value));
}

static char *
describe(Oid type, Datum value)
{
	Oid			output;
	bool		is_varlena;

	getTypeOutputInfo(type, &output, &is_varlena);
	return OidOutputFunctionCall(output, value);
}

static void
compare(HeapTuple tuple, TupleDesc desc, void *arg)
{
	Comparison *comparison = arg;

	for (int i = 0; i < comparison->count; i++)
	{
		const KvsSetting *setting = &comparison->settings[i];
		bool		isnull;
		/* the name is the first column */
		Datum		there = heap_getattr(tuple, i + 2, desc, &isnull);

		if (!setting->wished || is_equal(setting, there, isnull))
			continue;
		appendStringInfo(&comparison->differing, "%s%s is %s", comparison->differing.len > 0 ? ", " : "",
						 setting->column, isnull ? "the default" : describe(setting->type, there));
	}
}

char *
kvs_settings_differing(const KvsRegistry *registry, const char *name, const KvsSetting *settings, int count)
{
	Comparison	comparison = {settings, count, {0}};

	initStringInfo(&comparison.differing);
	(void) kvs_registry_read(registry, name, compare, &comparison);
	return comparison.differing.len > 0 ? comparison.differing.data : NULL;
}
