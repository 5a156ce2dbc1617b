/*
 * lease.c
 *		The lease table: which consumer holds which message, and how often its delivery has failed.
 *
 * To deliver a message nothing is written: no transaction id, no WAL, no dead row.  Only the lease
 * table knows that a consumer has it.  It is in shared memory, so every other backend sees the
 * lease at once.  A lease is named by (database, queue, id) and has a token, a random number that
 * only its holder's receipt knows.  A consumer that comes later with an old receipt is told so.
 *
 *		HELD		a consumer has it until its deadline
 *		ENDING		a transaction is about to acknowledge, fail or remove it, and only that
 *					transaction decides
 *		RETURNED	nobody has it, but its delivery has failed, and the row does not know that yet
 *
 * A delivery whose lease expires, or whose transaction rolls back, has failed.  Whoever notices
 * first counts that here.  The count decides: the message waits for its backoff, or is doomed.  The
 * first failure of a message may stay in memory.  After a later one the worker writes the count and
 * the time into the row, before the message is delivered again.  It also does so when the message
 * has to wait for more than SOON.  Then the entry goes.  If the worker does not come, the message
 * is delivered all the same.  Only the worker moves doomed messages to the dead letters.  A crash
 * forgets what was not written.
 *
 * A message that is returned without a failure has no entry: it is an arrival below the head.  So
 * an entry that nobody holds is always one for the worker: soon, or when its first failure is AGE
 * old.
 *
 * A lease leaves the table with the commit that deletes its message, or when the row turns out to
 * be gone.  It also leaves with a commit that changes the message: the new row is an arrival,
 * published right after that (queuexact.c).
 *
 * After a crash all is gone, and every message is delivered again.
 *
 * The entries are in leaseentry.c, the questions of the worker in leasework.c, the views of the
 * table in leaselook.c.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "base/errors.h"
#include "base/fault.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "expiry/expiry.h"
#include "feed/waiter.h"
#include "lease/lease.h"
#include "lease/leaseentry.h"

/* ---- Taking ---- */

KvsTake
kvs_lease_take(KvsQueue *queue, KvsMessageRef *row, uint64 token, TimestampTz now, TimestampTz deadline)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	KvsLease   *lease = kvs_leaseentry_find_of_row(slot, row);
	KvsTake		result = KVS_TAKE_DONE;

	if (lease == NULL)
	{
		lease = kvs_leaseentry_make(slot, row);
		if (lease == NULL)
			result = KVS_TAKE_FULL;
	}
	else if (lease->heap != &slot->ready)
		result = KVS_TAKE_BUSY;
	if (result == KVS_TAKE_DONE)
	{
		row->failures = lease->message.failures;
		lease->message = *row;
		kvs_leaseentry_hold(slot, lease, token, now, deadline);
	}
	LWLockRelease(slot->lock);
	return result;
}

bool
kvs_lease_take_returned(KvsQueue *queue, int priority, uint64 token, TimestampTz now, TimestampTz deadline,
						KvsMessageRef *message)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	KvsLease   *lease;
	bool		taken;

	kvs_leaseentry_wake_returned(slot, now);
	lease = kvs_leaseentry_top(&slot->ready);
	taken = lease != NULL && lease->message.priority >= priority;
	if (taken)
	{
		*message = lease->message;
		kvs_leaseentry_hold(slot, lease, token, now, deadline);
	}
	LWLockRelease(slot->lock);
	return taken;
}

static int
compare_refs(const void *a, const void *b)
{
	const KvsMessageRef *x = a;
	const KvsMessageRef *y = b;

	if (x->priority != y->priority)
		return x->priority > y->priority ? -1 : 1;
	return kvs_position_compare((KvsPosition) {x->ready_at, x->id}, (KvsPosition) {y->ready_at, y->id});
}

int
kvs_lease_list_ready(KvsQueue *queue, int priority, TimestampTz now, KvsMessageRef **messages)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	int			room = slot->nleases - slot->nheld;
	int			count = 0;
	dlist_iter	iter;

	LWLockRelease(slot->lock);
	*messages = room == 0 ? NULL : palloc_extended(room * sizeof(KvsMessageRef), MCXT_ALLOC_HUGE);
	if (room == 0)
		return 0;
	slot = kvs_queueslot_lock(queue);
	kvs_leaseentry_wake_returned(slot, now);
	dlist_foreach(iter, &slot->leases)
	{
		KvsLease   *lease = dlist_container(KvsLease, link, iter.cur);

		/* later arrivals are for the next call */
		if (lease->heap == &slot->ready && lease->message.priority >= priority && count < room)
			(*messages)[count++] = lease->message;
	}
	LWLockRelease(slot->lock);
	qsort(*messages, count, sizeof(KvsMessageRef), compare_refs);
	return count;
}

bool
kvs_lease_peek_ready(KvsQueue *queue, TimestampTz now, KvsMessageRef *message)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	KvsLease   *lease;

	if (slot == NULL)
		return false;
	kvs_leaseentry_wake_returned(slot, now);
	lease = kvs_leaseentry_top(&slot->ready);
	if (lease != NULL)
		*message = lease->message;
	LWLockRelease(slot->lock);
	return lease != NULL;
}

/*
 * The last look may have been too early: the row's own transaction may have been about to commit.
 * So the position is published as an arrival, as others have passed over it because of us.  If a
 * session is just deleting the row, it publishes the position itself if it aborts.
 */
void
kvs_lease_drop(KvsQueue *queue, const KvsMessageRef *message, uint64 token, bool announce)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	KvsLease   *lease = kvs_leaseentry_find_token(slot, message->id, token);

	if (lease != NULL)
	{
		KvsPosition position = {message->ready_at, message->id};

		kvs_leaseentry_remove(slot, lease);
		if (announce && !kvs_fault_is(KVS_FAULT_DROP_SILENTLY))
			kvs_queueslot_arrive(slot, message->priority, position, position);
	}
	LWLockRelease(slot->lock);
}

void
kvs_lease_defer(KvsQueue *queue, const KvsMessageRef *message, uint64 token)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	KvsLease   *lease = kvs_leaseentry_find_token(slot, message->id, token);

	if (lease != NULL && lease->state == KVS_LEASE_HELD)
	{
		lease->message = *message;
		lease->due = lease->ready_at = message->ready_at;
		lease->work_at = GetCurrentTimestamp();
		kvs_leaseentry_put_returned(slot, lease);
	}
	LWLockRelease(slot->lock);
}

void
kvs_lease_refresh(KvsQueue *queue, const KvsMessageRef *message, uint64 token)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	KvsLease   *lease = kvs_leaseentry_find_token(slot, message->id, token);

	/* a held lease is in the heap of what comes due, which knows nothing of positions */
	if (lease != NULL && lease->state == KVS_LEASE_HELD)
	{
		int			failures = lease->message.failures;

		lease->message = *message;
		lease->message.failures = failures;
	}
	LWLockRelease(slot->lock);
}

void
kvs_lease_raise_full(const KvsQueue *queue)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(unconstify(KvsQueue *, queue));
	bool		has_its_share = slot != NULL && kvs_leaseentry_is_full(slot);

	if (slot != NULL)
		LWLockRelease(slot->lock);
	if (has_its_share)
		ereport(ERROR,
				(errcode(KVS_ERRCODE_TOO_MANY_LEASES),
				 errmsg("queue \"%s\" has too many leases", queue->name),
				 errhint("Acknowledge messages, or increase \"kvstore.max_leases_per_queue\" or \"kvstore.max_leases\".")));
	ereport(ERROR,
			(errcode(KVS_ERRCODE_TOO_MANY_LEASES),
			 errmsg("too many leases"),
			 errhint("Acknowledge messages, or increase \"kvstore.max_leases\", which is %d, and restart the server.",
					 kvs_guc_max_leases)));
}

/* ---- What a receipt can do ---- */

/*
 * The delivery has not failed after all, if it is the last that has.  False: the message stays
 * given up all the same, and nothing is taken back.
 */
static bool
take_back_failure(KvsMessageRef *message, int number)
{
	KvsMessageRef without = *message;

	if (kvs_message_failed(message) == number)
		without.failures--;
	if (kvs_message_is_doomed(&without))
		return false;
	*message = without;
	return true;
}

static KvsClaim
claim_locked(KvsQueueSlot *slot, uint64 token, int number, KvsLeaseState state, TimestampTz deadline, bool row, KvsMessageRef *message)
{
	TimestampTz now = GetCurrentTimestamp();
	KvsLease   *lease = row ? kvs_leaseentry_find_of_row(slot, message) : kvs_leaseentry_search(slot, message->id, HASH_FIND);

	if (lease == NULL && !row)
		return KVS_CLAIM_UNKNOWN;
	if (lease == NULL)
	{
		lease = kvs_leaseentry_make(slot, message);
		if (lease == NULL)
			return KVS_CLAIM_FULL;
		/* if the transaction aborts, it is as if it had been returned */
		kvs_leaseentry_set_state(slot, lease, KVS_LEASE_RETURNED);
		lease->due = lease->ready_at = DT_NOBEGIN;
		lease->work_at = lease->since = now;
	}
	else if (lease->message.enqueued_at != message->enqueued_at || lease->state == KVS_LEASE_ENDING ||
			 (lease->state == KVS_LEASE_HELD && lease->token != token && !kvs_fault_is(KVS_FAULT_NO_FENCE)))
		return KVS_CLAIM_STALE;

	if (state == KVS_LEASE_ENDING)
	{
		*message = lease->message;
		kvs_leaseentry_begin_ending(slot, lease, token);
		return KVS_CLAIM_DONE;
	}
	if (lease->state == KVS_LEASE_RETURNED && !take_back_failure(&lease->message, number))
	{
		kvs_leaseentry_put_returned(slot, lease);
		return KVS_CLAIM_STALE;
	}
	*message = lease->message;
	kvs_leaseentry_hold(slot, lease, token, now, deadline);
	/* a later delivery has failed since, and so had this one */
	if (number <= kvs_message_failed(message))
		lease->end = KVS_END_EXPIRED;
	return KVS_CLAIM_DONE;
}

KvsClaim
kvs_lease_claim(KvsQueue *queue, uint64 token, int number, KvsLeaseState state, TimestampTz deadline, bool row, KvsMessageRef *message)
{
	/* a session that only ends a lease makes no slot: others may have taken all that there are */
	KvsQueueSlot *slot = row && state == KVS_LEASE_HELD ? kvs_queueslot_lock(queue) : kvs_queueslot_lock_existing(queue);
	KvsClaim	result = row ? KVS_CLAIM_FULL : KVS_CLAIM_UNKNOWN;

	if (slot != NULL)
		result = claim_locked(slot, token, number, state, deadline, row, message);
	if (slot != NULL)
		LWLockRelease(slot->lock);
	return result;
}

/* Does this token hold it, or has its delivery failed only by expiry?  Then it has not failed. */
static bool
may_release(KvsLease *lease, const uint64 *token, int number)
{
	if (lease->state == KVS_LEASE_HELD)
		return token == NULL || lease->token == *token;
	return lease->state == KVS_LEASE_RETURNED && token != NULL && kvs_message_failed(&lease->message) == number &&
		take_back_failure(&lease->message, number);
}

KvsClaim
kvs_lease_release(KvsQueue *queue, int64 id, const uint64 *token, int number)
{
	KvsQueueSlot *slot;
	KvsLease   *lease;
	KvsClaim	result = KVS_CLAIM_UNKNOWN;

	kvs_waiter_prepare();
	slot = kvs_queueslot_lock_existing(queue);
	if (slot == NULL)
		return result;
	lease = kvs_leaseentry_search(slot, id, HASH_FIND);
	if (lease != NULL)
		result = may_release(lease, token, number) ? KVS_CLAIM_DONE : KVS_CLAIM_STALE;
	if (result == KVS_CLAIM_DONE)
		kvs_leaseentry_give_back(slot, lease, GetCurrentTimestamp(), DT_NOBEGIN);
	LWLockRelease(slot->lock);
	/* whoever looked while it was held has passed over it */
	if (result == KVS_CLAIM_DONE)
		kvs_waiter_wake_one_now(queue->relid);
	return result;
}

KvsMark
kvs_lease_mark(KvsQueue *queue, const KvsMessageRef *row, uint64 token)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	KvsMark		result = KVS_MARK_DONE;
	KvsLease   *lease;

	if (slot == NULL)
		return KVS_MARK_NONE;
	lease = kvs_leaseentry_find_of_row(slot, row);
	if (lease == NULL)
	{
		lease = kvs_leaseentry_make(slot, row);
		if (lease == NULL)
			result = KVS_MARK_NONE;
		else
		{
			kvs_leaseentry_set_state(slot, lease, KVS_LEASE_RETURNED);
			lease->due = lease->ready_at = DT_NOBEGIN;
			lease->work_at = lease->since = GetCurrentTimestamp();
		}
	}
	else if (kvs_lease_is_held(lease->state))
		result = KVS_MARK_HELD;
	if (result == KVS_MARK_DONE)
		kvs_leaseentry_begin_ending(slot, lease, token);
	LWLockRelease(slot->lock);
	return result;
}

/* ---- Ends of transactions ---- */

void
kvs_lease_finish(KvsQueueSlot *slot, int64 id, uint64 token, bool doomed, TimestampTz now)
{
	KvsLease   *lease = kvs_leaseentry_find_token(slot, id, token);

	if (lease == NULL || lease->state != KVS_LEASE_ENDING)
		return;
	if (!doomed)
	{
		kvs_leaseentry_remove(slot, lease);
		return;
	}
	if (!kvs_leaseentry_room_for_doomed(slot, now))
	{
		kvs_leaseentry_remove(slot, lease);
		kvs_leaseentry_leave_to_rows(slot, now);
		return;
	}
	/* the row counts all of its failures */
	lease->message.dying = true;
	lease->message.failures = 0;
	kvs_leaseentry_give_back(slot, lease, now, DT_NOBEGIN);
}

void
kvs_lease_forget(KvsQueueSlot *slot, int64 id, TimestampTz enqueued_at)
{
	KvsLease   *lease = kvs_leaseentry_search(slot, id, HASH_FIND);

	if (lease == NULL || lease->message.enqueued_at != enqueued_at)
		return;
	if (lease->state == KVS_LEASE_ENDING)
		lease->before = KVS_LEASE_NONE;
	else
		kvs_leaseentry_remove(slot, lease);
}

void
kvs_lease_forget_before(KvsQueueSlot *slot, TimestampTz when)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &slot->leases)
	{
		KvsLease   *lease = dlist_container(KvsLease, link, iter.cur);

		/* one that was extended since is of a message that has gone all the same */
		if ((lease->since <= when || lease->message.enqueued_at <= when) && lease->state != KVS_LEASE_ENDING)
			kvs_leaseentry_remove(slot, lease);
	}
}

void
kvs_lease_undo_ending(KvsQueueSlot *slot, int64 id, uint64 token, TimestampTz now)
{
	KvsLease   *lease = kvs_leaseentry_find_token(slot, id, token);

	if (lease == NULL || lease->state != KVS_LEASE_ENDING)
		return;
	switch (lease->before)
	{
		case KVS_LEASE_NONE:
			kvs_leaseentry_let_go(slot, lease);
			return;
		case KVS_LEASE_RETURNED:
			kvs_leaseentry_put_returned(slot, lease);
			return;
		default:
			break;
	}
	if (lease->rolled_back)
	{
		kvs_leaseentry_fail(slot, lease, now, KVS_END_ROLLED_BACK);
		return;
	}
	kvs_leaseentry_set_state(slot, lease, lease->before);
	kvs_leaseentry_move_to(slot, lease, &slot->due);
}

void
kvs_lease_undo_take(KvsQueueSlot *slot, int64 id, uint64 token, bool own, TimestampTz now)
{
	KvsLease   *lease = kvs_leaseentry_find_token(slot, id, token);

	/* another session has its receipt, and is ending it: if that aborts, nobody holds it */
	if (lease != NULL && lease->state == KVS_LEASE_ENDING)
		lease->rolled_back = true;
	if (lease == NULL || lease->state != KVS_LEASE_HELD)
		return;
	if (own)
		kvs_leaseentry_remove(slot, lease);
	else
		kvs_leaseentry_fail(slot, lease, now, KVS_END_ROLLED_BACK);
}
