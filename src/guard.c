/*
 * guard.c
 *		The trigger on every store and queue: what happens to rows that are not written through our functions.
 *
 * The right to write a table is also the right to write it by plain SQL, where nothing would give the rows their versionstamps and a compare-and-set
 * would be deceived.  So only the owner and a superuser may: to repair, to restore, to copy.  What they leave to us is
 * filled in: an INSERT without a versionstamp gets one, an UPDATE that left it alone gets a new one, a number that is brought along
 * counts or is replaced (stamp.c).  In a queue every row that the owner writes is an arrival, and must be one that the queue can
 * order and count.  A dead letter may become a message again, in its sender's name, so nobody else
 * may make one up.  What logical replication brings stays as it is.
 *
 * Our own statements do without it.  A BEFORE ROW trigger makes the executor fetch and lock every row of an UPDATE or DELETE before it
 * calls the trigger, which costs a set 8 % and a delete a second WAL record (measured), so a flag that the trigger looks at would come too late.
 * Instead a hook takes our trigger out of the executor's own copy of the table's trigger list, for the one statement that asked for it; the
 * triggers of users stay.  The trigger is ENABLE ALWAYS, so neither session_replication_role nor a subscription goes round it.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "catalog.h"
#include "change.h"
#include "compat.h"
#include "content.h"
#include "expiry.h"
#include "fate.h"
#include "guard.h"
#include "guc.h"
#include "key.h"
#include "queuecatalog.h"
#include "queuexact.h"
#include "replication.h"
#include "shmem.h"
#include "stamp.h"

static KvsGuardPass pass = {InvalidOid, NULL, NULL};
static ExecutorStart_hook_type previous_executor_start = NULL;
static int64 arrived = 0;		/* the highest number that a row has brought in this session */

/* Columns of a store, as numbered in its table. */
enum
{
	COLUMN_KEY = KVS_COLUMN_KEY + 1,
	COLUMN_VERSIONSTAMP = KVS_COLUMN_VERSIONSTAMP + 1,
	COLUMN_EXPIRES_AT = KVS_COLUMN_EXPIRES_AT + 1
};

/* Anybody may put the trigger on a table of his own, and move a store out of the schema: that is none of ours. */
static bool
is_ours(Relation rel)
{
	return RelationGetNamespace(rel) == kvs_catalog_get()->data_schema;
}

static void
check_owner(Relation rel)
{
	if (!kvs_compat_owns_table(RelationGetRelid(rel), GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only the owner may write to table \"%s\" directly",
						quote_qualified_identifier("kvstore", RelationGetRelationName(rel))),
				 kvs_queue_is_named(rel) ? errhint("Use the kv_* functions, such as kv_enqueue() and kv_ack().") :
				 kvs_queue_is_named_dead(rel) ? errhint("Use the kv_dead_* functions, such as kv_dead_requeue().") :
				 errhint("Use the kv_* functions, such as kv_set() and kv_delete().")));
}

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

/* ---- After a row was written: those who watch, and those who may write the key anew ---- */

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
 * The number of a replicated deletion is not known.  It is above that of the row, and below that of an
 * entry that the publisher makes of the key later.
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
guard_after_row(TriggerData *data)
{
	Relation	rel = data->tg_relation;
	HeapTuple	old = data->tg_trigtuple;

	if (!is_ours(rel))
		return;
	/* an earlier trigger of the same statement may have altered the table */
	kvs_catalog_check_store_shape(rel);
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		note_written_row(rel, old, KVS_FEED_SET, KVS_FEED_BROUGHT);
	else if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		note_deleted_row(rel, old);
	else
		note_updated_row(rel, old, data->tg_newtuple);
}

/* The row is not yet anywhere: the expiry map learns only that the table has it. */
static void
note_expiry(Relation rel, int column, HeapTuple tuple)
{
	bool		isnull;
	Datum		expires_at = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);

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

/* May the row keep its versionstamp?  After a failover to us, numbers that have not arrived yet may have been seen. */
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

/* What arrives after a replicated TRUNCATE has a number above those that have arrived before, and not above ours. */
static void
truncate_entries(Relation rel)
{
	kvs_change_note(RelationGetRelid(rel), KVS_FEED_CLEAR, kvs_replication_is_apply() ? arrived : kvs_stamp_next(), "", 0);
	kvs_stamp_note_deletion_of_all();
}

/* ---- Queues ---- */

/* Can the queue order and count it? */
static void
check_message(TupleDesc desc, HeapTuple tuple)
{
	bool		isnull;
	Datum		datum = heap_getattr(tuple, KVS_QUEUE_COLUMN_PRIORITY + 1, desc, &isnull);

	if (DatumGetInt16(datum) < 0 || DatumGetInt16(datum) > KVS_MAX_PRIORITY)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("priority must be between 0 and %d", KVS_MAX_PRIORITY)));
	datum = heap_getattr(tuple, KVS_QUEUE_COLUMN_READY_AT + 1, desc, &isnull);
	if (TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(datum)))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("ready_at must not be infinite")));
	datum = heap_getattr(tuple, KVS_QUEUE_COLUMN_ATTEMPTS + 1, desc, &isnull);
	if (DatumGetInt32(datum) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("attempts must not be negative")));
	datum = heap_getattr(tuple, KVS_QUEUE_COLUMN_MAX_ATTEMPTS + 1, desc, &isnull);
	if (!isnull)
		kvs_queue_check_max_attempts(DatumGetInt32(datum));
	datum = heap_getattr(tuple, KVS_QUEUE_COLUMN_BACKOFF + 1, desc, &isnull);
	if (!isnull)
	{
		Interval	delays[KVS_BACKOFF_MAX];

		kvs_backoff_check(DatumGetArrayTypeP(datum), delays);
	}
}

/* What the lease table wants to know of a row. */
static KvsMessageRef
read_message(TupleDesc desc, HeapTuple tuple)
{
	KvsMessageRef row = {0};
	bool		isnull;

	row.id = DatumGetInt64(heap_getattr(tuple, KVS_QUEUE_COLUMN_ID + 1, desc, &isnull));
	row.enqueued_at = DatumGetTimestampTz(heap_getattr(tuple, KVS_QUEUE_COLUMN_ENQUEUED_AT + 1, desc, &isnull));
	row.ready_at = DatumGetTimestampTz(heap_getattr(tuple, KVS_QUEUE_COLUMN_READY_AT + 1, desc, &isnull));
	row.priority = DatumGetInt16(heap_getattr(tuple, KVS_QUEUE_COLUMN_PRIORITY + 1, desc, &isnull));
	return row;
}

/* The row as it has become, after all triggers that change it, whatever their names. */
static void
note_written_message(KvsQueue *queue, Relation rel, HeapTuple tuple)
{
	TupleDesc	desc = RelationGetDescr(rel);
	KvsMessageRef row;
	KvsPosition position;
	bool		never;
	Datum		expires_at = heap_getattr(tuple, KVS_QUEUE_COLUMN_EXPIRES_AT + 1, desc, &never);

	check_message(desc, tuple);
	if (!never)
		kvs_expiry_note(RelationGetRelid(rel), ItemPointerGetBlockNumber(&tuple->t_self), DatumGetTimestampTz(expires_at));
	row = read_message(desc, tuple);
	position = (KvsPosition) {row.ready_at, row.id};
	kvs_queuexact_note_arrival(queue, row.priority, position, position, 1);
}

/* A table that was altered meanwhile is none of ours any more; nobody knows what it has. */
static void
guard_after_message(TriggerData *data)
{
	Relation	rel = data->tg_relation;
	KvsQueue   *queue = kvs_queue_find(rel);
	KvsMessageRef old;

	if (queue == NULL)
		return;
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
	{
		note_written_message(queue, rel, data->tg_trigtuple);
		kvs_queuexact_note_count(queue, 1);
		return;
	}
	old = read_message(RelationGetDescr(rel), data->tg_trigtuple);
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
	{
		kvs_queuexact_note_moved(queue, &old);
		note_written_message(queue, rel, data->tg_newtuple);
	}
	else
	{
		kvs_queuexact_note_removed(queue, &old);
		kvs_queuexact_note_count(queue, -1);
	}
}

/* Nobody else has the table, so all leases that there are go with the commit. */
static void
truncate_messages(Relation rel)
{
	kvs_queue_note_removal(RelationGetRelid(rel));
	kvs_queuexact_note_truncated(RelationGetRelid(rel));
}

static HeapTuple
guard_message(TriggerData *data)
{
	Relation	rel = data->tg_relation;
	HeapTuple	tuple = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple;

	check_owner(rel);
	if (!TRIGGER_FIRED_BY_INSERT(data->tg_event))
		kvs_queue_note_removal(RelationGetRelid(rel));
	if (!TRIGGER_FIRED_BY_DELETE(data->tg_event))
	{
		(void) kvs_queue_of(rel);	/* is it one? */
		kvs_replication_follow(rel, KVS_QUEUE_COLUMN_ID + 1, tuple);
	}
	return tuple;
}

/* ---- All rows ---- */

static HeapTuple
guard_row(TriggerData *data)
{
	Relation	rel = data->tg_relation;
	HeapTuple	old = data->tg_trigtuple;
	HeapTuple	new = old;

	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		new = data->tg_newtuple;
	if (!is_ours(rel))
		return new;
	if (kvs_queue_is_named(rel))
		return guard_message(data);
	check_owner(rel);
	if (kvs_queue_is_named_dead(rel))
	{
		if (!TRIGGER_FIRED_BY_DELETE(data->tg_event))
			kvs_replication_follow(rel, 1, new);	/* id */
		return new;
	}
	kvs_catalog_check_store_shape(rel);
	if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		return new;
	/* what was written past the guard of the publisher is to stop no subscription: who reads it sees what it is */
	if (!kvs_replication_is_apply())
	{
		check_key(RelationGetDescr(rel), new);
		check_content(RelationGetDescr(rel), new);
	}
	note_expiry(rel, COLUMN_EXPIRES_AT, new);
	return stamp_row(rel, new, TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? old : NULL);
}

/* ---- Our own statements ---- */

/* Does any trigger of the list fire before, or after, each row for this event? */
static bool
has_row_trigger(const TriggerDesc *desc, int16 timing, int16 event)
{
	for (int i = 0; i < desc->numtriggers; i++)
		if (TRIGGER_TYPE_MATCHES(desc->triggers[i].tgtype, TRIGGER_TYPE_ROW, timing, event))
			return true;
	return false;
}

/* Take our trigger out of a list that belongs to one execution. */
static void
remove_guard(TriggerDesc *desc)
{
	int			left = 0;

	for (int i = 0; i < desc->numtriggers; i++)
		if (!kvs_guard_is_own(desc->triggers[i].tgname))
			desc->triggers[left++] = desc->triggers[i];
	desc->numtriggers = left;
	desc->trig_insert_before_row = has_row_trigger(desc, TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_INSERT);
	desc->trig_update_before_row = has_row_trigger(desc, TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_UPDATE);
	desc->trig_delete_before_row = has_row_trigger(desc, TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_DELETE);
	desc->trig_insert_after_row = has_row_trigger(desc, TRIGGER_TYPE_AFTER, TRIGGER_TYPE_INSERT);
	desc->trig_update_after_row = has_row_trigger(desc, TRIGGER_TYPE_AFTER, TRIGGER_TYPE_UPDATE);
	desc->trig_delete_after_row = has_row_trigger(desc, TRIGGER_TYPE_AFTER, TRIGGER_TYPE_DELETE);
}

static void
guard_executor_start(QueryDesc *query, int eflags)
{
	ListCell   *lc;

	if (previous_executor_start)
		previous_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	/* not those that a user's code starts, before this statement begins or inside it */
	if (likely(!OidIsValid(pass.relid)) || query->dest != pass.receiver)
		return;
	foreach(lc, query->estate->es_opened_result_relations)
	{
		ResultRelInfo *info = (ResultRelInfo *) lfirst(lc);

		if (RelationGetRelid(info->ri_RelationDesc) != pass.relid || info->ri_TrigDesc == NULL)
			continue;
		remove_guard(info->ri_TrigDesc);
		if (pass.watch != NULL)
			kvs_fate_observe(query->estate, info, pass.watch);
	}
}

KvsGuardPass
kvs_guard_let_pass(Oid relid, const DestReceiver *receiver, KvsFateWatch *watch)
{
	KvsGuardPass before = pass;

	pass = (KvsGuardPass) {relid, receiver, watch};
	return before;
}

void
kvs_guard_end(KvsGuardPass before)
{
	pass = before;
}

void
kvs_guard_init(void)
{
	previous_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = guard_executor_start;
}

/* ---- SQL ---- */

PG_FUNCTION_INFO_V1(kvstore_guard);
Datum
kvstore_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		(!TRIGGER_FIRED_BEFORE(data->tg_event) && !(TRIGGER_FIRED_AFTER(data->tg_event) && TRIGGER_FIRED_FOR_ROW(data->tg_event))))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("kvstore.guard() must be called as a BEFORE trigger or for each row")));
	if (TRIGGER_FIRED_AFTER(data->tg_event))
	{
		if (is_ours(data->tg_relation) && kvs_queue_is_named(data->tg_relation))
			guard_after_message(data);
		else
			guard_after_row(data);
		return PointerGetDatum(NULL);
	}
	if (TRIGGER_FIRED_FOR_ROW(data->tg_event))
		return PointerGetDatum(guard_row(data));

	/* TRUNCATE */
	if (is_ours(data->tg_relation))
	{
		check_owner(data->tg_relation);
		if (kvs_queue_is_named(data->tg_relation))
			truncate_messages(data->tg_relation);
		else
			truncate_entries(data->tg_relation);
	}
	return PointerGetDatum(NULL);
}
