/*
 * queuexact.c
 *		What this transaction has done to queues, and what its end makes of that.
 *
 * There is one record for each queue and subtransaction.  It has the leases that were taken and
 * begun to be ended, the positions of messages sent and deleted, and the growth of the table in
 * rows.  A record becomes part of its parent's when the subtransaction commits.  At the end of the
 * transaction each queue has one record, which is published under the lock of the queue's slot.
 *
 * Records are backend memory.  Room in them is made before shared memory is changed, so that
 * between the change and the note nothing can fail.  The callbacks only walk them.  Notes are
 * undone from the last to the first: a lease that was taken and then acknowledged is first held
 * again, then returned.
 *
 * At commit leases are ended before arrivals are published.  A message that stays, with a new row,
 * must not be published while its lease makes others pass over it.
 *
 * A table that is dropped, in whatever way, takes its slot with it at commit, and so does a
 * database.  object_access_hook tells of the drop.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/shmem.h"
#include "base/xact.h"
#include "expiry/expiry.h"
#include "feed/waiter.h"
#include "lease/queuecount.h"
#include "lease/queuexact.h"

/* Random numbers fetched at once. */
#define TOKENS		64

/* Notes that are processed under one lock: others want the queue, too. */
#define NOTES_AT_ONCE	1000

/*
 * Notes for which a record has room at first; one that has grown beyond the second number is not
 * kept.
 */
#define FIRST_NOTES	16
#define KEPT_NOTES	4096

/* Records that are kept from one transaction to the next. */
#define KEPT_RECORDS	16

typedef enum NoteKind
{
	TAKEN,
	TAKEN_OWN,					/* this transaction has sent it */
	ENDING,
	ENDING_DOOMED,				/* the row stays, and says that it is given up */
	REMOVED						/* the row was deleted, whoever has leased it */
} NoteKind;

typedef struct Note
{
	NoteKind	kind;
	int64		id;
	uint64		token;
	TimestampTz enqueued_at;	/* REMOVED */
} Note;

/* Positions of one priority. */
typedef struct Range
{
	KvsPosition low;
	KvsPosition high;
	int64		count;
} Range;

typedef struct Record
{
	KvsQueueRef queue;
	SubTransactionId subid;
	bool		dropped;		/* the table is no more */
	bool		empties;		/* what was there before is gone */
	TimestampTz truncated_at;	/* if it does */
	FullTransactionId xid;		/* the top transaction's, once it has written */
	int64		change;			/* of the number of rows, since it was empty if it was */
	int			nnotes;
	int			size;
	Note	   *notes;
	uint16		arrived;		/* priorities of which a range is set, as bits */
	uint16		removed;
	uint16		passed;
	Range		arrivals[KVS_PRIORITIES];
	Range		removals[KVS_PRIORITIES];
	KvsPosition passes[KVS_PRIORITIES]; /* of the arrivals, those below are gone or leased */
} Record;

/* Those of a subtransaction follow those of its parent. */
static Record *records = NULL;
static int	nrecords = 0;
static int	records_size = 0;

static Oid	dropped_database = InvalidOid;
static object_access_hook_type previous_object_access = NULL;

/* ---- Records ---- */

static Record *
find_record(Oid relid)
{
	SubTransactionId subid = GetCurrentSubTransactionId();

	for (int i = nrecords - 1; i >= 0 && records[i].subid == subid; i--)
		if (records[i].queue.relid == relid)
			return &records[i];
	return NULL;
}

static void
make_room_for_record(void)
{
	int			wanted = Max(2 * records_size, 8);

	if (nrecords < records_size)
		return;
	records = records == NULL ? MemoryContextAlloc(TopMemoryContext, sizeof(Record) * wanted) :
		repalloc_huge(records, sizeof(Record) * wanted);
	/* those beyond nrecords keep the memory of their notes */
	memset(records + records_size, 0, sizeof(Record) * (wanted - records_size));
	records_size = wanted;
}

static void
clear_record(Record *record)
{
	Note	   *notes = record->size > KEPT_NOTES ? NULL : record->notes;
	int			size = record->size > KEPT_NOTES ? 0 : record->size;

	if (notes == NULL && record->notes != NULL)
		pfree(record->notes);
	memset(record, 0, sizeof(Record));
	record->notes = notes;
	record->size = size;
}

/* That of this subtransaction, made if need be, with all that its callbacks will want. */
static Record *
get_record(Oid relid, int slot)
{
	Record	   *record = find_record(relid);

	if (likely(record != NULL))
		return record;
	kvs_waiter_prepare();
	(void) kvs_expirymap_database();
	make_room_for_record();
	record = &records[nrecords];
	clear_record(record);
	record->queue = (KvsQueueRef) {relid, slot};
	record->subid = GetCurrentSubTransactionId();
	nrecords++;
	return record;
}

static void
make_room_for_notes(Record *record, int wanted)
{
	int			size = Max(record->size, FIRST_NOTES);

	if (record->nnotes + wanted <= record->size)
		return;
	while (size < record->nnotes + wanted)
		size *= 2;
	record->notes = record->notes == NULL ? MemoryContextAlloc(TopMemoryContext, sizeof(Note) * size) :
		repalloc_huge(record->notes, sizeof(Note) * (Size) size);
	record->size = size;
}

/* A record in which one more note can be made without fail. */
static Record *
prepare_note(KvsQueue *queue)
{
	Record	   *record = get_record(queue->relid, queue->slot);

	make_room_for_notes(record, 1);
	return record;
}

static void
add_note(Record *record, KvsQueue *queue, NoteKind kind, int64 id, uint64 token)
{
	record->queue.slot = queue->slot;
	record->notes[record->nnotes++] = (Note) {kind, id, token, 0};
}

static void
widen(Range *ranges, uint16 *which, int priority, const Range *with)
{
	Range	   *range = &ranges[priority];

	if ((*which & (1 << priority)) == 0)
		*range = *with;
	else
	{
		if (kvs_position_compare(with->low, range->low) < 0)
			range->low = with->low;
		if (kvs_position_compare(with->high, range->high) > 0)
			range->high = with->high;
		range->count += with->count;
	}
	*which |= 1 << priority;
}

/* A token that nobody can guess; never 0. */
static uint64
new_token(void)
{
	static uint64 tokens[TOKENS];
	static int	left = 0;

	if (left == 0)
	{
		if (!pg_strong_random(tokens, sizeof(tokens)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values for receipts")));
		left = TOKENS;
	}
	left--;
	return tokens[left] == 0 ? 1 : tokens[left];
}

/* ---- Leases ---- */

KvsTake
kvs_queuexact_take(KvsQueue *queue, KvsMessageRef *row, TimestampTz now, TimestampTz deadline, bool own, uint64 *token)
{
	Record	   *record = prepare_note(queue);
	KvsTake		result;

	*token = new_token();
	result = kvs_lease_take(queue, row, *token, now, deadline);
	if (result == KVS_TAKE_DONE)
		add_note(record, queue, own ? TAKEN_OWN : TAKEN, row->id, *token);
	return result;
}

bool
kvs_queuexact_take_returned(KvsQueue *queue, int priority, TimestampTz now, TimestampTz deadline,
							KvsMessageRef *message, uint64 *token)
{
	Record	   *record = prepare_note(queue);

	*token = new_token();
	if (!kvs_lease_take_returned(queue, priority, *token, now, deadline, message))
		return false;
	add_note(record, queue, TAKEN, message->id, *token);
	return true;
}

KvsClaim
kvs_queuexact_begin_ending(KvsQueue *queue, uint64 token, int number, bool row, KvsMessageRef *message)
{
	Record	   *record = prepare_note(queue);
	KvsClaim	result = kvs_lease_claim(queue, token, number, KVS_LEASE_ENDING, DT_NOEND, row, message);

	if (result == KVS_CLAIM_DONE)
		add_note(record, queue, ENDING, message->id, token);
	return result;
}

KvsMark
kvs_queuexact_mark(KvsQueue *queue, const KvsMessageRef *row)
{
	Record	   *record = prepare_note(queue);
	uint64		token = new_token();
	KvsMark		result = kvs_lease_mark(queue, row, token);

	if (result == KVS_MARK_DONE)
		add_note(record, queue, ENDING, row->id, token);
	return result;
}

bool
kvs_queuexact_next_work(KvsQueue *queue, TimestampTz now, bool put_off, KvsMessageRef *message, KvsLeaseEnd *end,
						TimestampTz *ready_at)
{
	Record	   *record = prepare_note(queue);
	uint64		token = new_token();

	if (!kvs_leasework_next_work(queue, now, put_off, token, message, end, ready_at))
		return false;
	add_note(record, queue, ENDING, message->id, token);
	return true;
}

/* The note that a lease is being ended, and its record.  Nearly always it is the last one. */
static Note *
find_ending(const KvsQueue *queue, int64 id, Record **record)
{
	for (int i = nrecords - 1; i >= 0; i--)
	{
		if (records[i].queue.relid != queue->relid)
			continue;
		for (int k = records[i].nnotes - 1; k >= 0; k--)
			if (records[i].notes[k].kind == ENDING && records[i].notes[k].id == id)
			{
				*record = &records[i];
				return &records[i].notes[k];
			}
	}
	elog(ERROR, "the lease of message %lld is not being ended", (long long) id);
}

/* Take that note out.  Returns the slot of its queue, locked, NULL if there is none any more. */
static KvsQueueSlot *
take_ending(const KvsQueue *queue, int64 id, Note *taken)
{
	Record	   *record;
	Note	   *note = find_ending(queue, id, &record);

	*taken = *note;
	memmove(note, note + 1, (record->notes + record->nnotes - (note + 1)) * sizeof(Note));
	record->nnotes--;
	return kvs_queueslot_lock_ref(&record->queue);
}

void
kvs_queuexact_leave_to_worker(const KvsQueue *queue, int64 id)
{
	Record	   *record;

	find_ending(queue, id, &record)->kind = ENDING_DOOMED;
}

/* Was this lease taken by the same subtransaction? */
static bool
is_taken_in(const Record *record, uint64 token)
{
	for (int i = record->nnotes - 1; i >= 0; i--)
		if (record->notes[i].token == token && (record->notes[i].kind == TAKEN || record->notes[i].kind == TAKEN_OWN))
			return true;
	return false;
}

/*
 * An abort may bring the message back without undoing that its lease was taken.  It must find the
 * lease, which is held again then.
 */
void
kvs_queuexact_end_own(const KvsQueue *queue, int64 id)
{
	Record	   *record;
	Note	   *ending = find_ending(queue, id, &record);
	Note		note;
	KvsQueueSlot *slot;

	if (!is_taken_in(record, ending->token))
		return;
	slot = take_ending(queue, id, &note);
	if (slot == NULL)
		return;
	kvs_lease_finish(slot, note.id, note.token, false, 0);
	LWLockRelease(slot->lock);
}

bool
kvs_queuexact_is_ending(KvsQueue *queue, const KvsMessageRef *row, bool *own)
{
	*own = false;
	for (int i = 0; i < nrecords && !*own; i++)
		for (int k = 0; records[i].queue.relid == queue->relid && k < records[i].nnotes && !*own; k++)
			*own = records[i].notes[k].kind == ENDING && records[i].notes[k].id == row->id;
	return kvs_leaselook_is_ending(queue, row);
}

/* ---- Rows ---- */

void
kvs_queuexact_note_arrival(KvsQueue *queue, int priority, KvsPosition low, KvsPosition high, int64 count)
{
	Record	   *record;

	/* an owner went round the guard and gave it a priority that nobody looks for */
	if (kvs_shared == NULL || priority < 0 || priority >= KVS_PRIORITIES)
		return;
	record = get_record(queue->relid, queue->slot);
	widen(record->arrivals, &record->arrived, priority, &(Range) {low, high, count});
	for (int i = 0; i < nrecords; i++)
		if (records[i].queue.relid == queue->relid && kvs_position_compare(low, records[i].passes[priority]) < 0)
			records[i].passed &= ~(1 << priority);
}

void
kvs_queuexact_note_moved(KvsQueue *queue, const KvsMessageRef *row)
{
	KvsPosition position = {row->ready_at, row->id};
	Record	   *record;

	if (kvs_shared == NULL || row->priority < 0 || row->priority >= KVS_PRIORITIES)
		return;
	record = get_record(queue->relid, queue->slot);
	widen(record->removals, &record->removed, row->priority, &(Range) {position, position, 1});
}

/*
 * A lease that is taken between this and the commit is none: whoever takes it checks whether a
 * session is deleting the row.
 */
void
kvs_queuexact_note_removed(KvsQueue *queue, const KvsMessageRef *row)
{
	Record	   *record;

	kvs_queuexact_note_moved(queue, row);
	if (kvs_shared == NULL || !kvs_leaselook_is_known(queue, row))
		return;
	record = prepare_note(queue);
	add_note(record, queue, REMOVED, row->id, 0);
	record->notes[record->nnotes - 1].enqueued_at = row->enqueued_at;
}

void
kvs_queuexact_note_any_removed(KvsQueue *queue)
{
	Range		all = {{DT_NOBEGIN, PG_INT64_MIN}, {DT_NOEND, PG_INT64_MAX}, 1};
	Record	   *record;

	if (kvs_shared == NULL)
		return;
	record = get_record(queue->relid, queue->slot);
	for (int priority = 0; priority < KVS_PRIORITIES; priority++)
		widen(record->removals, &record->removed, priority, &all);
}

void
kvs_queuexact_note_count(KvsQueue *queue, int64 change)
{
	Record	   *record;

	if (kvs_shared == NULL || change == 0)
		return;
	record = get_record(queue->relid, queue->slot);
	record->change += change;
	record->xid = GetTopFullTransactionIdIfAny();
}

void
kvs_queuexact_note_truncated(Oid relid)
{
	Record	   *record;

	if (kvs_shared == NULL)
		return;
	record = get_record(relid, -1);
	record->empties = true;
	record->change = 0;
	record->truncated_at = GetCurrentTimestamp();
	record->xid = GetTopFullTransactionIdIfAny();
}

bool
kvs_queuexact_next_own(const KvsQueue *queue, int priority, int *cursor, KvsPosition *low, KvsPosition *high)
{
	for (; *cursor < nrecords; (*cursor)++)
	{
		const Record *record = &records[*cursor];

		if (record->queue.relid != queue->relid || (record->arrived & (1 << priority)) == 0)
			continue;
		*low = record->arrivals[priority].low;
		*high = record->arrivals[priority].high;
		(*cursor)++;
		for (int i = 0; i < nrecords; i++)
			if (records[i].queue.relid == queue->relid && (records[i].passed & (1 << priority)) &&
				kvs_position_compare(*low, records[i].passes[priority]) < 0)
				*low = records[i].passes[priority];
		return true;
	}
	return false;
}

void
kvs_queuexact_pass_own(KvsQueue *queue, int priority, KvsPosition position)
{
	Record	   *record = get_record(queue->relid, queue->slot);

	if ((record->passed & (1 << priority)) == 0 || kvs_position_compare(position, record->passes[priority]) > 0)
		record->passes[priority] = position;
	record->passed |= 1 << priority;
}

bool
kvs_queuexact_has_sent(const KvsQueue *queue)
{
	for (int i = 0; i < nrecords; i++)
		if (records[i].queue.relid == queue->relid && records[i].arrived != 0)
			return true;
	return false;
}

int64
kvs_queuexact_count_with_own(Oid relid, int64 messages)
{
	for (int i = 0; i < nrecords; i++)
		if (records[i].queue.relid == relid)
			messages = (records[i].empties ? 0 : messages) + records[i].change;
	return messages;
}

/* ---- Waking ---- */

static void
wake_waiters(Oid relid, int64 count)
{
	while (count-- > 0 && kvs_waiter_wake_one(relid))
		;
}

/*
 * Wake one for each message, also for one that was there before and has changed.  Messages that are
 * ready only later concern the first in line.  If there are both, one is woken, and wakes the next
 * if there is more.
 */
static void
wake_for_arrivals(const Record *record, TimestampTz now)
{
	for (int priority = 0; priority < KVS_PRIORITIES; priority++)
	{
		const Range *range = &record->arrivals[priority];

		if ((record->arrived & (1 << priority)) == 0)
			continue;
		if (range->low.ready_at > now)
			kvs_waiter_wake_for(record->queue.relid, range->low.ready_at);
		else
			wake_waiters(record->queue.relid, range->high.ready_at > now ? 1 : Max(range->count, 1));
	}
}

/* ---- Undoing ---- */

static void
undo_note(KvsQueueSlot *slot, const Note *note, TimestampTz now)
{
	switch (note->kind)
	{
		case TAKEN:
		case TAKEN_OWN:
			kvs_lease_undo_take(slot, note->id, note->token, note->kind == TAKEN_OWN, now);
			break;
		case ENDING:
		case ENDING_DOOMED:
			kvs_lease_undo_ending(slot, note->id, note->token, now);
			break;
		case REMOVED:
			break;
	}
}

/* The rows are there again, and whoever looked meanwhile has passed over them. */
static void
undo_removals(KvsQueueSlot *slot, const Record *record)
{
	for (int priority = 0; priority < KVS_PRIORITIES; priority++)
		if (record->removed & (1 << priority))
			kvs_queueslot_arrive(slot, priority, record->removals[priority].low, record->removals[priority].high);
}

/*
 * As long as it was taken or being ended, waiters have passed over a message, and the worker did
 * not see when it expires.
 */
static void
undo(Record *record, TimestampTz now)
{
	int64		count = record->nnotes + (record->removed != 0);
	KvsQueueSlot *slot = count == 0 ? NULL : kvs_queueslot_lock_ref(&record->queue);
	TimestampTz due;

	while (slot != NULL && record->nnotes > 0)
	{
		for (int i = 0; i < NOTES_AT_ONCE && record->nnotes > 0; i++)
			undo_note(slot, &record->notes[--record->nnotes], now);
		if (record->nnotes == 0)
			break;
		LWLockRelease(slot->lock);
		slot = kvs_queueslot_lock_ref(&record->queue);
	}
	if (slot == NULL)
		return;
	undo_removals(slot, record);
	due = Min(kvs_leaselook_next_work_at(slot), kvs_leaselook_next_deadline(slot));
	LWLockRelease(slot->lock);
	if (due != DT_NOEND)
		kvs_expiry_lower_next_due(due);
	wake_waiters(record->queue.relid, count);
}

void
kvs_queuexact_cancel_ending(const KvsQueue *queue, int64 id)
{
	Note		note;
	KvsQueueSlot *slot = take_ending(queue, id, &note);

	if (slot == NULL)
		return;
	undo_note(slot, &note, GetCurrentTimestamp());
	LWLockRelease(slot->lock);
	kvs_waiter_wake_one_now(queue->relid);
}

/* ---- Publishing ---- */

static void
finish_note(KvsQueueSlot *slot, const Note *note, TimestampTz now)
{
	if (note->kind == ENDING || note->kind == ENDING_DOOMED)
		kvs_lease_finish(slot, note->id, note->token, note->kind == ENDING_DOOMED, now);
	else if (note->kind == REMOVED)
		kvs_lease_forget(slot, note->id, note->enqueued_at);
}

/* Returns the slot, locked, if there is still one. */
static KvsQueueSlot *
finish_notes(KvsQueueSlot *slot, Record *record, TimestampTz now)
{
	if (record->empties)
		kvs_lease_forget_before(slot, record->truncated_at);
	for (int i = 0; i < record->nnotes; i++)
	{
		finish_note(slot, &record->notes[i], now);
		if (i % NOTES_AT_ONCE != NOTES_AT_ONCE - 1)
			continue;
		LWLockRelease(slot->lock);
		slot = kvs_queueslot_lock_ref(&record->queue);
		if (slot == NULL)
			break;
	}
	record->nnotes = 0;
	return slot;
}

/*
 * Without a slot nobody has looked at the queue, or the result is forgotten.  The head is at the
 * bottom, and whoever counts later has a later snapshot.  But waiters may have looked before.
 */
static void
publish(Record *record, TimestampTz now)
{
	KvsQueueSlot *slot;
	TimestampTz due = DT_NOEND;

	if (record->dropped)
	{
		kvs_queueslot_forget(record->queue.relid);
		return;
	}
	slot = kvs_queueslot_lock_ref(&record->queue);
	if (slot != NULL)
		slot = finish_notes(slot, record, now);
	if (kvs_fault_is(KVS_FAULT_ARRIVAL))
	{
		if (slot != NULL)
			LWLockRelease(slot->lock);
		return;
	}
	if (slot != NULL)
	{
		for (int priority = 0; priority < KVS_PRIORITIES; priority++)
			if (record->arrived & (1 << priority))
				kvs_queueslot_arrive(slot, priority, record->arrivals[priority].low, record->arrivals[priority].high);
		kvs_queuecount_publish(&slot->count, record->xid, record->empties, record->change);
		if (slot->ndoomed > 0)
			due = kvs_leaselook_next_work_at(slot);
		LWLockRelease(slot->lock);
	}
	if (due <= now)
		kvs_expiry_lower_next_due(now);
	wake_for_arrivals(record, now);
}

/* ---- Ends of transactions ---- */

static void
forget_dropped_database(void)
{
	if (OidIsValid(dropped_database))
		kvs_queueslot_forget_database(dropped_database);
	dropped_database = InvalidOid;
}

/*
 * A test can make either half wait for the next commit: then the commit is visible, and nobody has
 * been told.
 */
static void
commit_records(void)
{
	TimestampTz now;

	forget_dropped_database();
	if (nrecords == 0)
		return;
	now = GetCurrentTimestamp();
	kvs_fault_nap();
	if (kvs_fault_is(KVS_FAULT_FINISH))
		return;
	for (int i = 0; i < nrecords; i++)
		publish(&records[i], now);
	kvs_waiter_set_latches();
	if (!kvs_fault_is(KVS_FAULT_ARRIVAL))
		nrecords = 0;
}

/* From the last one down to, but not, this number. */
static void
undo_records(int down_to)
{
	TimestampTz now;

	if (nrecords <= down_to)
		return;
	now = GetCurrentTimestamp();
	while (nrecords > down_to)
		undo(&records[--nrecords], now);
	kvs_waiter_set_latches();
}

/* What only a transaction of many subtransactions, or messages, needs.  Nothing here can fail. */
static void
trim_records(void)
{
	if (nrecords > 0)
		return;
	for (int i = 0; i < records_size; i++)
		if (records[i].notes != NULL && (i >= KEPT_RECORDS || records[i].size > KEPT_NOTES))
		{
			pfree(records[i].notes);
			records[i].notes = NULL;
			records[i].size = 0;
		}
	if (records_size <= KEPT_RECORDS)
		return;
	for (int i = 0; i < KEPT_RECORDS; i++)
		if (records[i].notes != NULL)
			pfree(records[i].notes);
	pfree(records);
	records = NULL;
	records_size = 0;
}

static void
check_prepare(void)
{
	if (nrecords > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has sent, received or deleted messages"),
				 errhint("Commit it in one phase.")));
}

static void
at_xact(XactEvent event)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			check_prepare();
			break;
		case XACT_EVENT_COMMIT:
			commit_records();
			trim_records();
			break;
		case XACT_EVENT_ABORT:
			undo_records(0);
			trim_records();
			dropped_database = InvalidOid;
			break;
		default:
			break;
	}
}

/* ---- Ends of subtransactions ---- */

static int
first_of(SubTransactionId subid, int end)
{
	int			first = end;

	while (first > 0 && records[first - 1].subid == subid)
		first--;
	return first;
}

/* The parent's record of the same queue; NULL: it has none. */
static Record *
find_parent(const Record *child, int first, SubTransactionId parent)
{
	for (int i = first - 1; i >= 0 && records[i].subid == parent; i--)
		if (records[i].queue.relid == child->queue.relid)
			return &records[i];
	return NULL;
}

/* Before it is too late for an ERROR. */
static void
make_room_in_parents(SubTransactionId subid, SubTransactionId parent)
{
	int			first = first_of(subid, nrecords);

	for (int i = first; i < nrecords; i++)
	{
		Record	   *into = find_parent(&records[i], first, parent);

		if (into != NULL)
			make_room_for_notes(into, records[i].nnotes);
	}
}

static void
merge(Record *into, const Record *child)
{
	if (child->nnotes > 0)
	{
		memcpy(into->notes + into->nnotes, child->notes, sizeof(Note) * child->nnotes);
		into->nnotes += child->nnotes;
	}
	into->passed |= child->passed;
	for (int priority = 0; priority < KVS_PRIORITIES; priority++)
	{
		if (child->arrived & (1 << priority))
			widen(into->arrivals, &into->arrived, priority, &child->arrivals[priority]);
		if (child->removed & (1 << priority))
			widen(into->removals, &into->removed, priority, &child->removals[priority]);
		if (child->passed & (1 << priority))
			into->passes[priority] = child->passes[priority];
	}
	if (child->empties)
	{
		into->empties = true;
		into->truncated_at = child->truncated_at;
		into->change = 0;
	}
	into->change += child->change;
	into->dropped |= child->dropped;
	if (FullTransactionIdIsValid(child->xid))
		into->xid = child->xid;
	if (child->queue.slot >= 0)
		into->queue.slot = child->queue.slot;
}

/* Records for which the parent has none move up as they are; the others are behind them then. */
static void
merge_into_parents(SubTransactionId subid, SubTransactionId parent)
{
	int			first = first_of(subid, nrecords);
	int			kept = first;

	for (int i = first; i < nrecords; i++)
	{
		Record	   *into = find_parent(&records[i], first, parent);
		Record		record = records[i];

		if (into != NULL)
		{
			merge(into, &record);
			continue;
		}
		record.subid = parent;
		records[i] = records[kept];
		records[kept++] = record;
	}
	nrecords = kept;
}

static void
at_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent)
{
	if (nrecords == 0 || records[nrecords - 1].subid != subid)
		return;
	if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
		make_room_in_parents(subid, parent);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		merge_into_parents(subid, parent);
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		undo_records(first_of(subid, nrecords));
}

/* ---- Drops ---- */

static void
note_dropped(Oid classid, Oid objectid, int subid)
{
	KvsQueueSlot *slot;

	if (classid == DatabaseRelationId)
		dropped_database = objectid;
	if (classid != RelationRelationId || subid != 0)
		return;
	slot = kvs_queueslot_lock_relid(objectid);
	if (slot == NULL)
		return;
	LWLockRelease(slot->lock);
	get_record(objectid, -1)->dropped = true;
}

static void
queuexact_object_access(ObjectAccessType access, Oid classid, Oid objectid, int subid, void *arg)
{
	if (previous_object_access)
		previous_object_access(access, classid, objectid, subid, arg);
	if (access == OAT_DROP && kvs_shared != NULL)
		note_dropped(classid, objectid, subid);
}

void
kvs_queuexact_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	kvs_xact_add(KVS_XACT_QUEUES, at_xact, at_subxact);
	previous_object_access = object_access_hook;
	object_access_hook = queuexact_object_access;
}
