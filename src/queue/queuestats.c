/*
 * queuestats.c
 *		SQL functions that tell how many messages there are: kv_queue_stats, kvstore.queue_counts.
 *
 * They are called often, for queues with millions of messages, so nothing here takes longer for
 * these.  The number of messages and that of leases stand in shared memory (queuecount.c, lease.c).
 * Those that are not ready yet are counted in the index, up to SPLIT_MAX.  A number that is not
 * known, or is higher, is estimated from SAMPLE_BLOCKS blocks spread over the table, and the answer
 * says so.  A table that has no more blocks is read whole: then it is no estimate.
 *
 * A message is leased, delayed, dying or ready.  An expired one counts until it is removed.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/args.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/rights.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "expiry/expiry.h"
#include "lease/lease.h"
#include "lease/queuecount.h"
#include "lease/queuexact.h"
#include "lease/survey.h"
#include "message/reader.h"
#include "queue/queueargs.h"
#include "table/catalog.h"
#include "table/shape.h"

/* Delayed messages that are counted, and entries of the index that are looked at for it. */
#define SPLIT_MAX		10000
#define SPLIT_ENTRIES	20000

/* Blocks of a table that an estimate reads. */
#define SAMPLE_BLOCKS	128

/*
 * Entries of the index that are looked at for the oldest message, from each position where it may
 * be.
 */
#define OLDEST_ENTRIES	2000

/* Columns of kv_queue_stats(). */
enum
{
	STAT_QUEUE,
	STAT_READY,
	STAT_DELAYED,
	STAT_LEASED,
	STAT_DEAD,
	STAT_OLDEST_AGE,
	STAT_ENQUEUED,
	STAT_DELIVERED,
	STAT_ACKED,
	STAT_RETRIED,
	STAT_EXPIRED,
	STAT_PAUSED,
	STAT_EXACT,
	STAT_DEAD_EXACT,
	STAT_DYING,
	STAT_STUCK,
	STATS
};

/* What shared memory knows. */
typedef struct Known
{
	bool		known;			/* how many messages there are */
	int64		messages;
	int64		leased;
	int64		waiting;		/* have failed, and wait for their backoff in memory */
	int64		dying;			/* are given up, and wait for the worker */
	/* of these, and of those that wait for their failures to be written: could not be settled */
	int64		stuck;
	/* when the first returned message was ready; DT_NOEND: there is none */
	TimestampTz returned;
	KvsSurvey	survey;
} Known;

/* What was found in the table. */
typedef struct Look
{
	KvsQueue   *queue;
	Relation	rel;
	Relation	index;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	TimestampTz now;
	ScanKeyData members[2];		/* of a scan */
} Look;

/* ---- Shared memory ---- */

static void
ask_shared(KvsQueue *queue, TimestampTz now, Known *known)
{
	KvsQueueSlot *slot = kvs_shared == NULL ? NULL : kvs_queueslot_lock_existing(queue);
	bool		asked;

	memset(known, 0, sizeof(Known));
	known->returned = DT_NOEND;
	for (int i = 0; i < KVS_PRIORITIES; i++)
		known->survey.heads[i] = (KvsHeadScan) {.filled = true, .priority = i, .start = {DT_NOBEGIN, PG_INT64_MIN}};
	if (slot == NULL)
		return;
	known->known = slot->count.known;
	known->messages = slot->count.messages;
	known->leased = slot->nheld;
	known->waiting = slot->nlater;
	known->dying = slot->ndoomed;
	known->stuck = slot->nstuck;
	known->returned = kvs_leaselook_oldest_ready(slot);
	asked = kvs_queuecount_ask(slot, now);
	LWLockRelease(slot->lock);
	kvs_survey_begin(queue, now, false, &known->survey);
	if (asked && kvs_expirymap_database() != NULL)
		kvs_expiry_lower_next_due(now);
}

/* ---- The index ---- */

/* Entries of one priority from "start" on. */
static IndexScanDesc
begin_scan(Look *look, int priority, KvsPosition start)
{
	IndexScanDesc scan = kvs_compat_index_beginscan(look->rel, look->index, look->snapshot, 2);

	kvs_reader_rescan(scan, look->members, priority, start);
	return scan;
}

static TimestampTz
ready_at(TupleTableSlot *slot)
{
	bool		isnull;

	return DatumGetTimestampTz(slot_getattr(slot, KVS_QUEUE_COLUMN_READY_AT + 1, &isnull));
}

/* Returns whether all of them were counted. */
static bool
count_delayed(Look *look, int64 *delayed)
{
	int			entries = 0;

	*delayed = 0;
	for (int priority = 0; priority <= KVS_MAX_PRIORITY; priority++)
	{
		IndexScanDesc scan = begin_scan(look, priority, (KvsPosition) {look->now + 1, PG_INT64_MIN});

		while (entries <= SPLIT_ENTRIES && *delayed <= SPLIT_MAX && index_getnext_tid(scan, ForwardScanDirection) != NULL)
		{
			CHECK_FOR_INTERRUPTS();
			entries++;
			if (index_fetch_heap(scan, look->slot))
				(*delayed)++;
		}
		index_endscan(scan);
	}
	return entries <= SPLIT_ENTRIES && *delayed <= SPLIT_MAX;
}

/* When the message in the slot became ready, if nobody has it; else DT_NOEND. */
static TimestampTz
ready_since(Look *look, TupleTableSlot *slot)
{
	KvsMessageRef message = {0};

	kvs_reader_describe(look->queue, slot, &message);
	if (message.ready_at > look->now || kvs_message_is_doomed(&message) ||
		(kvs_shared != NULL && kvs_leaselook_is_known(look->queue, &message)))
		return DT_NOEND;
	return message.ready_at;
}

/* Entries of one priority that are ready, the last first. */
static IndexScanDesc
begin_backward_scan(Look *look, int priority)
{
	IndexScanDesc scan = kvs_compat_index_beginscan(look->rel, look->index, look->snapshot, 2);
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(priority));
	ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(look->now));
	index_rescan(scan, keys, 2, NULL, 0);
	return scan;
}

/*
 * When the first message of a scan that nobody has became ready; DT_NOEND: there is none, or
 * (*too_many) it is not found so quickly.
 */
static TimestampTz
first_of(Look *look, IndexScanDesc scan, ScanDirection direction, bool *too_many)
{
	TimestampTz result = DT_NOEND;
	int			entries = 0;

	while (result == DT_NOEND && entries < OLDEST_ENTRIES && index_getnext_tid(scan, direction) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		entries++;
		if (!index_fetch_heap(scan, look->slot))
			continue;
		if (ready_at(look->slot) > look->now)
			break;
		result = ready_since(look, look->slot);
	}
	index_endscan(scan);
	*too_many = result == DT_NOEND && entries == OLDEST_ENTRIES;
	return result;
}

/*
 * The oldest from there on.  If too many dead or leased ones lie before it, the youngest is taken.
 * There may be an older one, but then the answer is not "none" while a message is ready.
 */
static TimestampTz
first_ready(Look *look, int priority, KvsPosition low)
{
	bool		too_many;
	TimestampTz result = first_of(look, begin_scan(look, priority, low), ForwardScanDirection, &too_many);

	if (too_many)
		result = first_of(look, begin_backward_scan(look, priority), BackwardScanDirection, &too_many);
	return result;
}

static TimestampTz
find_oldest(Look *look, const Known *known)
{
	TimestampTz oldest = known->returned;

	for (int priority = 0; priority <= KVS_MAX_PRIORITY; priority++)
		if (known->survey.heads[priority].filled)
			oldest = Min(oldest, first_ready(look, priority, known->survey.heads[priority].start));
	for (int i = 0; i < known->survey.nlate; i++)
		oldest = Min(oldest, first_ready(look, known->survey.late[i].priority, known->survey.late[i].low));
	return oldest;
}

/* ---- Samples ---- */

typedef struct Sample
{
	bool		whole;			/* nothing is left out, so these are the numbers */
	int64		rows;			/* estimated, of the table */
	int64		delayed;
} Sample;

/* Of the queue's own table, or of that of its dead letters. */
static void
take_sample(Look *look, Relation rel, Sample *sample)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	int			taken = Min(nblocks, SAMPLE_BLOCKS);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	memset(sample, 0, sizeof(Sample));
	sample->whole = taken == (int) nblocks;
	for (int i = 0; i < taken; i++)
	{
		BlockNumber block = (BlockNumber) ((uint64) nblocks * i / taken);
		ItemPointerData low;
		ItemPointerData high;
		TableScanDesc scan;

		CHECK_FOR_INTERRUPTS();
		ItemPointerSet(&low, block, FirstOffsetNumber);
		ItemPointerSet(&high, block, MaxOffsetNumber);
		scan = table_beginscan_tidrange(rel, look->snapshot, &low, &high);
		while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
		{
			sample->rows++;
			if (rel == look->rel && ready_at(slot) > look->now)
				sample->delayed++;
		}
		table_endscan(scan);
	}
	ExecDropSingleTupleTableSlot(slot);
	if (taken > 0)
	{
		sample->rows = sample->rows * nblocks / taken;
		sample->delayed = sample->delayed * nblocks / taken;
	}
}

/* Returns whether that is their number, not an estimate. */
static bool
count_dead(Look *look, int64 *dead)
{
	Oid			relid = kvs_catalog_find_table("d_", look->queue->name);
	Relation	rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	Sample		sample = {.whole = true};

	if (rel != NULL)
	{
		if (rel->rd_rel->relowner == look->queue->owner && kvs_shape_find_wrong_table(rel) == NULL)
			take_sample(look, rel, &sample);
		relation_close(rel, NoLock);
	}
	*dead = sample.rows;
	return sample.whole;
}

/* ---- One queue ---- */

/*
 * Messages that are delayed, of so many that there are.  If that number is not known, it is found,
 * too.  Returns whether both are exact.
 */
static bool
split(Look *look, const Known *known, int64 *messages, int64 *delayed)
{
	Sample		sample = {0};
	bool		counted;

	*messages = kvs_queuexact_count_with_own(look->queue->relid, known->messages);
	if (!known->known)
	{
		take_sample(look, look->rel, &sample);
		*messages = sample.rows;
		*delayed = sample.delayed;
		if (sample.whole)
			return true;
		/* to count so many would be in vain, however far off the estimate is */
		if (sample.delayed / 4 > SPLIT_MAX)
			return false;
	}
	counted = count_delayed(look, delayed);
	if (!counted)
	{
		if (known->known)
			take_sample(look, look->rel, &sample);
		if (sample.rows > 0)
			*delayed = Max(*delayed, (int64) ((double) *messages * sample.delayed / sample.rows));
	}
	/* it was estimated, or has changed meanwhile */
	*messages = Max(*messages, *delayed);
	return known->known && counted;
}

static void
set_counts(Oid relid, Datum *values, bool *nulls)
{
	static const struct
	{
		int			column;
		KvsCounter	counter;
	}			columns[] = {
		{STAT_ENQUEUED, KVS_COUNT_QUEUE_ENQUEUED}, {STAT_DELIVERED, KVS_COUNT_QUEUE_DELIVERED}, {STAT_ACKED, KVS_COUNT_QUEUE_ACKED},
		{STAT_RETRIED, KVS_COUNT_QUEUE_RETRIED}, {STAT_EXPIRED, KVS_COUNT_QUEUE_EXPIRED}
	};
	int64		counts[KVS_COUNTERS];
	bool		counted = kvs_stats_read(relid, counts);

	for (int i = 0; i < (int) lengthof(columns); i++)
	{
		nulls[columns[i].column] = !counted;
		values[columns[i].column] = Int64GetDatum(counted ? counts[columns[i].counter] : 0);
	}
}

static void
give_stats(KvsQueue *queue, Relation rel, ReturnSetInfo *rsinfo)
{
	Look		look = {.queue = queue, .rel = rel, .now = GetCurrentTimestamp()};
	Known		known;
	int64		messages;
	int64		delayed;
	int64		dead;
	TimestampTz oldest;
	Datum		values[STATS];
	bool		nulls[STATS] = {false};

	ask_shared(queue, look.now, &known);
	look.snapshot = RegisterSnapshot(GetLatestSnapshot());
	look.slot = table_slot_create(rel, NULL);
	look.index = index_open(queue->order_index, AccessShareLock);
	values[STAT_EXACT] = BoolGetDatum(split(&look, &known, &messages, &delayed));
	values[STAT_DEAD_EXACT] = BoolGetDatum(count_dead(&look, &dead));
	oldest = find_oldest(&look, &known);
	index_close(look.index, AccessShareLock);
	ExecDropSingleTupleTableSlot(look.slot);
	UnregisterSnapshot(look.snapshot);

	values[STAT_QUEUE] = CStringGetTextDatum(queue->name);
	values[STAT_READY] = Int64GetDatum(Max(messages - delayed - known.waiting - known.leased - known.dying, 0));
	values[STAT_DELAYED] = Int64GetDatum(delayed + known.waiting);
	values[STAT_LEASED] = Int64GetDatum(known.leased);
	values[STAT_DEAD] = Int64GetDatum(dead);
	nulls[STAT_OLDEST_AGE] = oldest == DT_NOEND;
	values[STAT_OLDEST_AGE] = NumericGetDatum(int64_div_fast_to_numeric(oldest == DT_NOEND ? 0 : Max(look.now - oldest, 0), 6));
	values[STAT_DYING] = Int64GetDatum(known.dying);
	values[STAT_STUCK] = Int64GetDatum(known.stuck);
	values[STAT_PAUSED] = BoolGetDatum(queue->paused);
	set_counts(queue->relid, values, nulls);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* ---- SQL ---- */

/* One of all queues, unless the caller may not look at it, or it cannot be read now. */
static void
give_stats_if_readable(Oid relid, ReturnSetInfo *rsinfo)
{
	Relation	rel;
	KvsQueue   *queue = NULL;

	if (!kvs_rights_may_see(relid))
		return;
	rel = try_relation_open(relid, AccessShareLock);
	if (rel == NULL)
		return;
	if (kvs_queue_is_named(rel) && !rel->rd_rel->relrowsecurity &&
		!(rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED && RecoveryInProgress()))
		queue = kvs_queue_find(rel);
	if (queue != NULL)
		give_stats(queue, rel, rsinfo);
	relation_close(rel, NoLock);
}

/* kv_queue_stats(queue, NULL: all) returns TABLE (...) */
PG_FUNCTION_INFO_V1(kvstore_queue_stats);
Datum
kvstore_queue_stats(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *relids;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	if (!PG_ARGISNULL(0))
	{
		Relation	rel;
		KvsQueue   *queue = kvs_queue_open(kvs_args_text(fcinfo, 0), AccessShareLock, &rel);

		if (!kvs_rights_may_see(queue->relid))
			kvs_queueargs_check_rights(queue, ACL_SELECT);
		give_stats(queue, rel, rsinfo);
		table_close(rel, NoLock);
		return (Datum) 0;
	}
	relids = kvs_queue_list();
	foreach(lc, relids)
	{
		CHECK_FOR_INTERRUPTS();
		give_stats_if_readable(lfirst_oid(lc), rsinfo);
	}
	return (Datum) 0;
}

/*
 * kvstore.queue_counts(): what shared memory knows of each queue of this database that it knows:
 * relid, messages (NULL: not counted), leased, dying, stuck
 */
PG_FUNCTION_INFO_V1(kvstore_queue_counts);
Datum
kvstore_queue_counts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	bool		asked = false;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; kvs_shared != NULL && i < kvs_guc_max_queues; i++)
	{
		Oid			relid;
		KvsQueueSlot *slot = kvs_queueslot_lock_nth(i, &relid);
		Datum		values[5];
		bool		nulls[5] = {false};

		if (slot == NULL)
			continue;
		values[0] = ObjectIdGetDatum(relid);
		values[1] = Int64GetDatum(slot->count.messages);
		nulls[1] = !slot->count.known;
		values[2] = Int64GetDatum(slot->nheld);
		values[3] = Int64GetDatum(slot->ndoomed);
		values[4] = Int64GetDatum(slot->nstuck);
		asked |= kvs_queuecount_ask(slot, now);
		LWLockRelease(slot->lock);
		if (kvs_rights_may_see(relid))
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	if (asked && kvs_expirymap_database() != NULL)
		kvs_expiry_lower_next_due(now);
	return (Datum) 0;
}
