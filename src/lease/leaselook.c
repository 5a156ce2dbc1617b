/*
 * leaselook.c
 *		The lease table, read for the views and for the file of a clean stop.
 */
#include "postgres.h"

#include "base/guc.h"
#include "lease/lease.h"
#include "lease/leaseentry.h"

static KvsLeaseInfo
describe(const KvsQueueSlot *slot, const KvsLease *lease)
{
	return (KvsLeaseInfo) {
		.relid = slot->relid,
		.state = lease->state,
		.message = lease->message,
		.due = lease->due,
		.since = lease->since,
		.pid = lease->pid,
		.delivered = lease->state == KVS_LEASE_HELD || (lease->state == KVS_LEASE_ENDING && lease->before == KVS_LEASE_HELD),
		.stuck = lease->tries > 0
	};
}

bool
kvs_leaselook_find(KvsQueue *queue, int64 id, TimestampTz enqueued_at, KvsLeaseInfo *info)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	KvsLease   *lease;
	bool		found;

	if (slot == NULL)
		return false;
	lease = kvs_leaseentry_search(slot, id, HASH_FIND);
	found = lease != NULL && lease->message.enqueued_at == enqueued_at;
	if (found)
		*info = describe(slot, lease);
	LWLockRelease(slot->lock);
	return found;
}

bool
kvs_leaselook_is_known(KvsQueue *queue, const KvsMessageRef *message)
{
	KvsLeaseInfo info;

	return kvs_leaselook_find(queue, message->id, message->enqueued_at, &info);
}

bool
kvs_leaselook_is_ending(KvsQueue *queue, const KvsMessageRef *message)
{
	KvsLeaseInfo info;

	return kvs_leaselook_find(queue, message->id, message->enqueued_at, &info) && info.state == KVS_LEASE_ENDING;
}

int
kvs_leaselook_first_ready(KvsQueueSlot *slot, TimestampTz now)
{
	KvsLease   *lease;

	kvs_leaseentry_wake_returned(slot, now);
	lease = kvs_leaseentry_top(&slot->ready);
	return lease == NULL ? -1 : lease->message.priority;
}

TimestampTz
kvs_leaselook_next_deadline(KvsQueueSlot *slot)
{
	KvsLease   *lease = kvs_leaseentry_top(&slot->due);

	return lease == NULL ? DT_NOEND : lease->due;
}

TimestampTz
kvs_leaselook_next_return(KvsQueueSlot *slot)
{
	KvsLease   *lease = kvs_leaseentry_top(&slot->later);

	return lease == NULL ? DT_NOEND : lease->due;
}

TimestampTz
kvs_leaselook_next_work_at(KvsQueueSlot *slot)
{
	KvsLease   *lease = kvs_leaseentry_top_of_work(slot);

	return lease == NULL ? DT_NOEND : lease->work_at;
}

TimestampTz
kvs_leaselook_oldest_ready(KvsQueueSlot *slot)
{
	KvsLease   *lease = kvs_leaseentry_top(&slot->ready);

	return lease == NULL ? DT_NOEND : lease->message.ready_at;
}

int
kvs_leaselook_list(int slot_number, KvsLeaseInfo **list, KvsStuckError *errors)
{
	Oid			relid;
	KvsQueueSlot *slot = kvs_queueslot_lock_nth(slot_number, &relid);
	int			room;
	int			count = 0;
	dlist_iter	iter;

	if (slot == NULL)
		return 0;
	room = slot->nleases;
	LWLockRelease(slot->lock);
	if (room == 0)
		return 0;
	*list = palloc_extended(room * sizeof(KvsLeaseInfo), MCXT_ALLOC_HUGE);
	slot = kvs_queueslot_lock_nth(slot_number, &relid);
	if (slot == NULL)
		return 0;
	dlist_foreach(iter, &slot->leases)
		if (count < room)
			(*list)[count++] = describe(slot, dlist_container(KvsLease, link, iter.cur));
	memcpy(errors, slot->errors, sizeof(slot->errors));
	LWLockRelease(slot->lock);
	return count;
}

Oid
kvs_leaselook_find_stuck(int64 *count)
{
	Oid			first = InvalidOid;

	*count = 0;
	for (int i = 0; i < kvs_guc_max_queues; i++)
	{
		Oid			relid;
		KvsQueueSlot *slot = kvs_queueslot_lock_nth(i, &relid);

		if (slot == NULL)
			continue;
		*count += slot->nstuck;
		if (slot->nstuck > 0 && !OidIsValid(first))
			first = relid;
		LWLockRelease(slot->lock);
	}
	return first;
}

int64
kvs_leaselook_count(void)
{
	return kvs_leaseentry_count();
}

/* ---- For leasefile.c ---- */

typedef struct Save
{
	void		(*give) (const KvsLeaseImage *lease, void *arg);
	void	   *arg;
} Save;

static void
save(const KvsLease *lease, void *arg)
{
	const Save *to = arg;
	KvsLeaseImage image = {
		lease->key.database, lease->key.relid, lease->state == KVS_LEASE_RETURNED, lease->end,
		lease->token, lease->due, lease->since, lease->message
	};

	to->give(&image, to->arg);
}

void
kvs_leaselook_save(void (*give) (const KvsLeaseImage *lease, void *arg), void *arg)
{
	Save		to = {give, arg};

	kvs_leaseentry_walk(save, &to);
}

bool
kvs_leaselook_restore(const KvsLeaseImage *image)
{
	KvsQueueSlot *slot = kvs_queueslot_restore(image->database, image->relid);
	KvsLease   *lease = slot == NULL ? NULL : kvs_leaseentry_make(slot, &image->message);

	if (lease == NULL)
		return false;
	lease->end = image->end;
	if (image->returned)
		kvs_leaseentry_give_back(slot, lease, image->since, image->due);
	else
	{
		kvs_leaseentry_hold(slot, lease, image->token, image->since, image->due);
		lease->end = image->end;
		lease->pid = 0;
	}
	return true;
}
