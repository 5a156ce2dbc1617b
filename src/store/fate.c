/*
 * fate.c
 *		What became of the rows that a statement of ours was to write.
 *
 * The owner of a store may put triggers on it.  A BEFORE trigger can skip a row, without an error,
 * or change it.  The caller of the statement is told of a skipped row: its meaning depends on the
 * function.  A trigger may change value, bytes and expires_at: the row is written as it leaves it.
 * It may not change key, kind and versionstamp, for the caller gets the number, the feed tells of
 * the key, and checks go by both.  That is 27000, as PostgreSQL raises when a trigger changes the
 * row that is being written.
 *
 * RETURNING does not show what the triggers were given, nor the rows that they skipped.  So two
 * triggers of ours are put into the executor's own copy of the table's trigger list, one before
 * those of the owner, one behind.  (plan.c takes the guard out there.)  A row that has come to the
 * first and not to the second was skipped.  They exist for one execution of one statement, and only
 * where the owner has such triggers.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/instrument.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "store/content.h"
#include "store/fate.h"

/* What stands for an OID where our functions, which are in no catalog, need one. */
#define OBSERVER_OID	((Oid) 1)

/* ---- The two triggers ---- */

/* The row that is to be written; of DELETE the one that is there. */
static HeapTuple
get_row(const TriggerData *data)
{
	return TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple;
}

static KvsFateWatch *
get_watch(const TriggerData *data)
{
	return (KvsFateWatch *) data->tg_trigger->tgargs;
}

/* Has the row that came last not left the triggers? */
static void
count_skipped(KvsFateWatch *watch)
{
	if (watch->pending)
		watch->fate.skipped++;
	watch->pending = false;
}

static void
deform(const TriggerData *data, HeapTuple row, Datum *values, bool *nulls)
{
	for (int i = 0; i < KVS_COLUMNS; i++)
		values[i] = heap_getattr(row, i + 1, RelationGetDescr(data->tg_relation), &nulls[i]);
}

static Datum
observe_first(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	KvsFateWatch *watch = get_watch(data);
	Datum		values[KVS_COLUMNS];
	bool		nulls[KVS_COLUMNS];
	KvsContent	content;

	count_skipped(watch);
	watch->pending = true;
	if (!TRIGGER_FIRED_BY_DELETE(data->tg_event))
	{
		/* our statements leave none of these NULL */
		deform(data, get_row(data), values, nulls);
		kvs_content_read(values, nulls, &content);
		watch->broken = !kvs_content_is_whole(&content);
		kvs_key_from_datum(&watch->key, values[KVS_COLUMN_KEY]);
		watch->kind = DatumGetChar(values[KVS_COLUMN_KIND]);
		watch->versionstamp = DatumGetInt64(values[KVS_COLUMN_VERSIONSTAMP]);
	}
	return PointerGetDatum(get_row(data));
}

static bool
has_key(const KvsFateWatch *watch, Datum datum)
{
	struct varlena *key = PG_DETOAST_DATUM_PACKED(datum);

	return (int) VARSIZE_ANY_EXHDR(key) == watch->key.size &&
		memcmp(VARDATA_ANY(key), KvsKeyBytes(&watch->key), watch->key.size) == 0;
}

/* Which column did a trigger change that it may not?  NULL: none. */
static const char *
find_changed_column(const KvsFateWatch *watch, const Datum *values, const bool *nulls)
{
	if (nulls[KVS_COLUMN_KEY] || !has_key(watch, values[KVS_COLUMN_KEY]))
		return "key";
	if (nulls[KVS_COLUMN_KIND] || DatumGetChar(values[KVS_COLUMN_KIND]) != watch->kind)
		return "kind";
	if (nulls[KVS_COLUMN_VERSIONSTAMP] || DatumGetInt64(values[KVS_COLUMN_VERSIONSTAMP]) != watch->versionstamp)
		return "versionstamp";
	return NULL;
}

/* Does the new row hold other content than the old one, under the same number? */
static bool
is_altered(const TriggerData *data, const Datum *values, const bool *nulls)
{
	Datum		old_values[KVS_COLUMNS];
	bool		old_nulls[KVS_COLUMNS];

	deform(data, data->tg_trigtuple, old_values, old_nulls);
	if (old_nulls[KVS_COLUMN_VERSIONSTAMP] ||
		DatumGetInt64(old_values[KVS_COLUMN_VERSIONSTAMP]) != DatumGetInt64(values[KVS_COLUMN_VERSIONSTAMP]))
		return false;
	for (int i = KVS_COLUMN_VALUE; i <= KVS_COLUMN_BYTES; i++)
		if (nulls[i] != old_nulls[i] || (!nulls[i] && !datumIsEqual(values[i], old_values[i], false, -1)))
			return true;
	return false;
}

static void
check_row(const TriggerData *data, KvsFateWatch *watch)
{
	Datum		values[KVS_COLUMNS];
	bool		nulls[KVS_COLUMNS];
	const char *changed;
	KvsContent	content;

	deform(data, get_row(data), values, nulls);
	changed = find_changed_column(watch, values, nulls);
	if (changed != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger of table \"%s\" changed the %s of an entry", RelationGetRelationName(data->tg_relation), changed),
				 errhint("Have the trigger change value, bytes and expires_at alone.")));
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event) && is_altered(data, values, nulls))
		watch->fate.altered = true;
	kvs_content_read(values, nulls, &content);
	if (!watch->broken && !kvs_content_is_whole(&content))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger of table \"%s\" left an entry that does not hold what its kind promises",
						RelationGetRelationName(data->tg_relation)),
				 errhint("Have the trigger set value for kinds 'j' and 'u', bytes for kind 'b', and leave the other NULL.")));
}

static Datum
observe_last(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	KvsFateWatch *watch = get_watch(data);

	watch->pending = false;
	if (!TRIGGER_FIRED_BY_DELETE(data->tg_event))
		check_row(data, watch);
	return PointerGetDatum(get_row(data));
}

/* ---- Putting them into the list ---- */

/* The events before which triggers of the owner run for each row. */
static int16
find_events(const TriggerDesc *desc)
{
	int16		events = 0;

	for (int i = 0; i < desc->numtriggers; i++)
	{
		int16		type = desc->triggers[i].tgtype;

		if (TRIGGER_FOR_ROW(type) && TRIGGER_FOR_BEFORE(type))
			events |= type & (TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE);
	}
	return events;
}

static void
set_observer(ResultRelInfo *info, int place, int16 events, PGFunction function, KvsFateWatch *watch)
{
	Trigger    *trigger = &info->ri_TrigDesc->triggers[place];
	FmgrInfo   *call = &info->ri_TrigFunctions[place];

	memset(trigger, 0, sizeof(*trigger));
	trigger->tgname = "kvstore_observer";
	trigger->tgfoid = OBSERVER_OID;
	trigger->tgtype = TRIGGER_TYPE_ROW | TRIGGER_TYPE_BEFORE | events;
	trigger->tgenabled = TRIGGER_FIRES_ALWAYS;
	trigger->tgargs = (char **) watch;

	/* what the executor would otherwise look up by the OID */
	memset(call, 0, sizeof(*call));
	call->fn_addr = function;
	call->fn_oid = OBSERVER_OID;
	call->fn_stats = TRACK_FUNC_ALL;
	call->fn_mcxt = CurrentMemoryContext;
}

void
kvs_fate_observe(EState *estate, ResultRelInfo *info, void *watch)
{
	TriggerDesc *desc = info->ri_TrigDesc;
	int16		events = desc ? find_events(desc) : 0;
	MemoryContext old;
	Trigger    *triggers;
	int			last;

	if (likely(events == 0))
		return;
	old = MemoryContextSwitchTo(estate->es_query_cxt);
	last = desc->numtriggers + 1;
	triggers = palloc(sizeof(Trigger) * (last + 1));
	memcpy(triggers + 1, desc->triggers, sizeof(Trigger) * desc->numtriggers);
	desc->triggers = triggers;
	desc->numtriggers = last + 1;

	/* these go by the index in the list, and nothing has been put into them yet */
	info->ri_TrigFunctions = palloc0(sizeof(FmgrInfo) * (last + 1));
	info->ri_TrigWhenExprs = palloc0(sizeof(ExprState *) * (last + 1));
	if (info->ri_TrigInstrument != NULL)
		info->ri_TrigInstrument = InstrAlloc(last + 1, estate->es_instrument, false);
	set_observer(info, 0, events, observe_first, watch);
	set_observer(info, last, events, observe_last, watch);
	MemoryContextSwitchTo(old);
}

/* ---- What the others call ---- */

void
kvs_fate_begin(KvsFateWatch *watch)
{
	watch->fate = (KvsFate) {0};
	watch->pending = false;
}

KvsFate
kvs_fate_end(KvsFateWatch *watch, uint64 written)
{
	count_skipped(watch);
	watch->fate.written = written;
	return watch->fate;
}

void
kvs_fate_report_skipped(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("a trigger of table \"%s\" skipped an entry that was to be written or deleted", get_rel_name(relid)),
			 errhint("Have the trigger raise an error, or let the row pass.")));
}
