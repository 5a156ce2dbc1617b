/*
 * leasework.c
 *		The lease table for the worker: what it has to do, and what it could not do.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "base/guc.h"
#include "expiry/expiry.h"
#include "lease/lease.h"
#include "lease/leaseentry.h"

/*
 * A message that could not be settled because another session was in the way is tried again after
 * so many milliseconds.
 */
#define RETRY		500

/*
 * One that could not be settled because of an error: after so many, twice as many each time, up to
 * a limit.
 */
#define FIRST_PAUSE	1000
#define MOST_DOUBLINGS 8

/* How long it is left alone after an error, in milliseconds. */
static int64
pause_after(const KvsLease *lease)
{
	return FIRST_PAUSE << Min(lease->tries, MOST_DOUBLINGS);
}

void
kvs_leasework_doom(KvsQueue *queue, const KvsMessageRef *row)
{
	TimestampTz now = GetCurrentTimestamp();
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	KvsLease   *lease = kvs_leaseentry_find_of_row(slot, row);
	bool		known = lease != NULL;

	if (!known && kvs_leaseentry_room_for_doomed(slot, now))
		lease = kvs_leaseentry_make(slot, row);
	if (lease == NULL)
		kvs_leaseentry_leave_to_rows(slot, now);
	else if (!known || (lease->state == KVS_LEASE_RETURNED && !lease->doomed))
	{
		lease->message = *row;
		kvs_leaseentry_give_back(slot, lease, now, DT_NOBEGIN);
	}
	LWLockRelease(slot->lock);
	if (kvs_expirymap_database() != NULL)
		kvs_expiry_lower_next_due(now);
}

int
kvs_leasework_make_room(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int			forgotten = 0;

	for (int i = 0; i < kvs_guc_max_queues; i++)
	{
		KvsQueueSlot *slot = kvs_queueslot_lock_any(i);
		dlist_mutable_iter iter;

		if (slot == NULL)
			continue;
		if (slot->nheld + slot->ndoomed < slot->nleases)
			dlist_foreach_modify(iter, &slot->leases)
			{
				KvsLease   *lease = dlist_container(KvsLease, link, iter.cur);

				if (!kvs_leaseentry_is_overdue(lease, now))
					continue;
				kvs_leaseentry_let_go(slot, lease);
				forgotten++;
			}
		LWLockRelease(slot->lock);
	}
	return forgotten;
}

bool
kvs_leasework_next_work(KvsQueue *queue, TimestampTz now, bool put_off, uint64 token, KvsMessageRef *message, KvsLeaseEnd *end,
					TimestampTz *ready_at)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	KvsLease   *lease;
	bool		found;

	if (slot == NULL)
		return false;
	lease = kvs_leaseentry_top_of_work(slot);
	found = lease != NULL && lease->work_at <= now;
	if (found)
	{
		*message = lease->message;
		*end = lease->end;
		*ready_at = lease->ready_at;
		kvs_leaseentry_begin_ending(slot, lease, token);
		if (put_off)
			lease->work_at = TimestampTzPlusMilliseconds(now, pause_after(lease));
	}
	LWLockRelease(slot->lock);
	return found;
}

static void
note_error(KvsQueueSlot *slot, int64 id, const char *text)
{
	KvsStuckError *error = NULL;

	for (int i = 0; i < KVS_STUCK_ERRORS && error == NULL; i++)
		if (slot->errors[i].id == id)
			error = &slot->errors[i];
	if (error == NULL)
		error = &slot->errors[slot->nerrors++ % KVS_STUCK_ERRORS];
	error->id = id;
	/* the caller has cut it where a character ends */
	strlcpy(error->text, text, KVS_STUCK_ERROR_SIZE);
}

int
kvs_leasework_stick(KvsQueue *queue, const KvsMessageRef *message, TimestampTz now, const char *error)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	KvsLease   *lease = slot == NULL ? NULL : kvs_leaseentry_search(slot, message->id, HASH_FIND);
	int			tries = 0;

	if (slot == NULL)
		return tries;
	if (lease != NULL && lease->message.enqueued_at == message->enqueued_at && lease->state == KVS_LEASE_RETURNED)
	{
		int64		pause = error == NULL ? RETRY : pause_after(lease);

		if (error != NULL)
		{
			kvs_leaseentry_set_tries(slot, lease, Min(lease->tries + 1, PG_UINT16_MAX));
			note_error(slot, message->id, error);
		}
		tries = lease->tries;
		kvs_leaseentry_have_work_at(slot, lease, TimestampTzPlusMilliseconds(now, pause));
	}
	LWLockRelease(slot->lock);
	return tries;
}

/* The entry of a message that is being settled, with the lock of its slot; NULL: there is none. */
static KvsLease *
lock_ending(KvsQueue *queue, const KvsMessageRef *message, KvsQueueSlot **slot)
{
	KvsLease   *lease;

	*slot = kvs_queueslot_lock_existing(queue);
	if (*slot == NULL)
		return NULL;
	lease = kvs_leaseentry_search(*slot, message->id, HASH_FIND);
	if (lease != NULL && lease->message.enqueued_at == message->enqueued_at && lease->state == KVS_LEASE_ENDING)
		return lease;
	LWLockRelease((*slot)->lock);
	return NULL;
}

int
kvs_leasework_begin_keys(KvsQueue *queue, const KvsMessageRef *message, int *tries)
{
	KvsQueueSlot *slot;
	KvsLease   *lease = lock_ending(queue, message, &slot);
	int			begun = 0;

	*tries = 0;
	if (lease == NULL)
		return begun;
	*tries = lease->tries;
	begun = lease->slow_keys;
	lease->slow_keys = Min(begun + 1, PG_UINT16_MAX);
	LWLockRelease(slot->lock);
	return begun;
}

void
kvs_leasework_end_keys(KvsQueue *queue, const KvsMessageRef *message)
{
	KvsQueueSlot *slot;
	KvsLease   *lease = lock_ending(queue, message, &slot);

	if (lease == NULL)
		return;
	if (lease->slow_keys > 0)
		lease->slow_keys--;
	LWLockRelease(slot->lock);
}

bool
kvs_leasework_any_stuck(KvsQueue *queue)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	bool		any = slot != NULL && slot->nstuck > 0;

	if (slot != NULL)
		LWLockRelease(slot->lock);
	return any;
}

bool
kvs_leasework_abandon(Oid relid, TimestampTz now)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_relid(relid);
	bool		over;

	if (slot == NULL)
		return false;
	while (kvs_leaseentry_expire(slot, now) > 0)
		;
	if (slot->strange_since == DT_NOBEGIN)
		slot->strange_since = now;
	over = now - slot->strange_since > KVS_LEASE_KEEP;
	if (over)
		kvs_lease_forget_before(slot, DT_NOEND);
	over = over && slot->nleases == 0;
	LWLockRelease(slot->lock);
	return over;
}

void
kvs_leasework_readopt(KvsQueue *queue)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);

	if (slot == NULL)
		return;
	slot->strange_since = DT_NOBEGIN;
	LWLockRelease(slot->lock);
}
