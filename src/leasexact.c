/*
 * leasexact.c
 *		What this transaction has done to leases, and what its end makes of that.
 *
 * The list of what was done is backend memory.  Room in it is made before the lease table is changed, so that between the change and the note nothing can
 * fail; the callbacks only walk the list.  Notes of a subtransaction follow those of its parent, and become the parent's when it
 * commits.  They are undone from the last to the first: a lease that was taken and then acknowledged is first held again, then returned.
 *
 * At commit leases are ended first and arrivals published then: a message that stays, with a new row, must not be published while its lease makes others pass
 * over it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "arrival.h"
#include "expiry.h"
#include "leasexact.h"
#include "queuecount.h"
#include "shmem.h"
#include "testing.h"
#include "waiter.h"

/* Rolled back again and again, a message waits as its queue's backoff says, but not longer. */
#define LONGEST_WAIT	(1 * USECS_PER_SEC)

/* Random numbers fetched at once. */
#define TOKENS		64

typedef enum NoteKind
{
	TAKEN,
	ENDING,
	REMOVED						/* the row was deleted without regard to who has leased it */
} NoteKind;

typedef struct Note
{
	KvsQueueRef queue;
	int64		id;
	uint64		token;
	SubTransactionId subid;
	NoteKind	kind;
	int64		wait;			/* TAKEN: should it be rolled back again, in microseconds */
	TimestampTz enqueued_at;	/* REMOVED */
} Note;

static Note *notes = NULL;
static int	nnotes = 0;
static int	size = 0;

/* ---- Notes ---- */

static void
make_room(void)
{
	kvs_waiter_prepare();
	(void) kvs_expiry_database();
	if (notes == NULL)
	{
		notes = MemoryContextAlloc(TopMemoryContext, 64 * sizeof(Note));
		size = 64;
	}
	else if (nnotes == size)
	{
		notes = repalloc_huge(notes, 2 * (Size) size * sizeof(Note));
		size *= 2;
	}
}

static int64
first_backoff(const KvsQueue *queue)
{
	const Interval *first = &queue->backoff[0];

	if (queue->nbackoff == 0)
		return 0;
	if (first->month > 0 || first->day > 0)
		return LONGEST_WAIT;
	return Min(first->time, LONGEST_WAIT);
}

static void
add_note(KvsQueue *queue, int64 id, uint64 token, NoteKind kind)
{
	notes[nnotes++] = (Note) {
		{queue->relid, queue->slot, queue->slot_generation},
		id, token, GetCurrentSubTransactionId(), kind, first_backoff(queue), 0
	};
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

/* ---- Taking and ending ---- */

KvsTake
kvs_leasexact_take(KvsQueue *queue, KvsMessageRef *message, TimestampTz now, TimestampTz deadline, uint64 *token)
{
	KvsTake		result;

	make_room();
	*token = new_token();
	result = kvs_lease_take(queue, message, *token, now, deadline);
	if (result == KVS_TAKE_DONE)
		add_note(queue, message->id, *token, TAKEN);
	return result;
}

bool
kvs_leasexact_take_returned(KvsQueue *queue, int priority, TimestampTz now, TimestampTz deadline,
							KvsMessageRef *message, uint64 *token)
{
	make_room();
	*token = new_token();
	if (!kvs_lease_take_returned(queue, priority, *token, now, deadline, message))
		return false;
	add_note(queue, message->id, *token, TAKEN);
	return true;
}

KvsClaim
kvs_leasexact_begin_ending(KvsQueue *queue, uint64 token, bool row, KvsMessageRef *message)
{
	KvsClaim	result;

	make_room();
	result = kvs_lease_claim(queue, token, KVS_LEASE_ENDING, DT_NOEND, row, message);
	if (result == KVS_CLAIM_DONE)
		add_note(queue, message->id, token, ENDING);
	return result;
}

bool
kvs_leasexact_next_lapsed(KvsQueue *queue, TimestampTz now, KvsMessageRef *message, bool *doomed)
{
	uint64		token;

	make_room();
	if (!kvs_lease_next_lapsed(queue, now, message, &token, doomed))
		return false;
	add_note(queue, message->id, token, ENDING);
	return true;
}

bool
kvs_leasexact_try_end(KvsQueue *queue, KvsMessageRef *row)
{
	KvsClaim	result = kvs_leasexact_begin_ending(queue, 0, true, row);

	if (result == KVS_CLAIM_FULL)
		kvs_lease_raise_full(queue);
	return result == KVS_CLAIM_DONE;
}

bool
kvs_leasexact_is_ending(KvsQueue *queue, const KvsMessageRef *row, bool *own)
{
	*own = false;
	for (int i = 0; i < nnotes && !*own; i++)
		*own = notes[i].kind == ENDING && notes[i].id == row->id && notes[i].queue.relid == queue->relid;
	return kvs_lease_is_ending(queue, row);
}

/* That of a lease which is taken between this and the commit is not forgotten: it lapses. */
void
kvs_leasexact_note_removed(KvsQueue *queue, int64 id, TimestampTz enqueued_at)
{
	KvsMessageRef message = {.id = id, .enqueued_at = enqueued_at};

	if (kvs_shared == NULL || !kvs_lease_is_known(queue, &message))
		return;
	make_room();
	add_note(queue, id, 0, REMOVED);
	notes[nnotes - 1].enqueued_at = enqueued_at;
}

/* ---- Ends of transactions ---- */

/* As long as it was ending, waiters have passed over the message, and the worker did not see when it lapses. */
static void
undo_ending(const Note *note, TimestampTz now)
{
	TimestampTz due = kvs_lease_undo_ending(&note->queue, note->id, note->token, now);

	if (due == DT_NOBEGIN)
		kvs_waiter_wake_one(note->queue.relid);
	else if (due != DT_NOEND)
		kvs_expiry_lower_next_due(due);
}

static void
undo(const Note *note, TimestampTz now)
{
	if (note->kind == ENDING)
		undo_ending(note, now);
	else if (note->kind == TAKEN)
	{
		if (kvs_lease_undo_take(&note->queue, note->id, note->token, now, note->wait))
			kvs_expiry_lower_next_due(now);
		kvs_waiter_wake_one(note->queue.relid);
	}
}

void
kvs_leasexact_cancel_ending(void)
{
	Assert(nnotes > 0 && notes[nnotes - 1].kind == ENDING);
	nnotes--;
	undo(&notes[nnotes], GetCurrentTimestamp());
	kvs_waiter_set_latches();
}

/* A test may have either half wait for the next commit: what is committed can be seen then, and nobody has been told. */
static void
commit_notes(void)
{
	kvs_testing_nap();
	if (kvs_testing_is("finish"))
		return;
	for (int i = 0; i < nnotes; i++)
		if (notes[i].kind == ENDING)
			kvs_lease_finish(&notes[i].queue, notes[i].id, notes[i].token);
		else if (notes[i].kind == REMOVED)
			kvs_lease_forget(&notes[i].queue, notes[i].id, notes[i].enqueued_at);
	nnotes = 0;
	kvs_testing_nap();
	if (kvs_testing_is("arrival"))
		return;
	kvs_arrival_publish();
	kvs_queuecount_publish();
	kvs_waiter_set_latches();
}

static void
abort_notes(void)
{
	TimestampTz now = nnotes > 0 ? GetCurrentTimestamp() : 0;

	while (nnotes > 0)
		undo(&notes[--nnotes], now);
	kvs_arrival_forget();
	kvs_queuecount_forget();
	kvs_waiter_set_latches();
}

static void
check_prepare(void)
{
	if (nnotes > 0 || kvs_arrival_own(0) != NULL || kvs_queuecount_any())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has sent, received or deleted messages"),
				 errhint("Commit it in one phase.")));
}

static void
leasexact_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			check_prepare();
			break;
		case XACT_EVENT_COMMIT:
			commit_notes();
			break;
		case XACT_EVENT_ABORT:
			abort_notes();
			break;
		default:
			break;
	}
}

static void
leasexact_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	TimestampTz now = 0;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (int i = nnotes - 1; i >= 0 && notes[i].subid == subid; i--)
	{
		if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			notes[i].subid = parent;
			continue;
		}
		if (now == 0)
			now = GetCurrentTimestamp();
		nnotes--;
		undo(&notes[i], now);
	}
	kvs_waiter_set_latches();
	kvs_arrival_end_subtransaction(event == SUBXACT_EVENT_COMMIT_SUB, subid, parent);
	kvs_queuecount_end_subtransaction(event == SUBXACT_EVENT_COMMIT_SUB, subid, parent);
}

void
kvs_leasexact_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	RegisterXactCallback(leasexact_xact_callback, NULL);
	RegisterSubXactCallback(leasexact_subxact_callback, NULL);
}
