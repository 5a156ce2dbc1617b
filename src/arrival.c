/*
 * arrival.c
 *		Messages that this transaction has sent: published when it has committed.
 *
 * A range for each queue and priority, not a note for each message: a transaction that sends a million messages one by one has one range.  The list belongs to
 * this backend; nothing is allocated when it is published.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "arrival.h"
#include "queuecount.h"
#include "waiter.h"

static KvsOwnRange *ranges = NULL;
static int	nranges = 0;
static int	size = 0;

static KvsOwnRange *
find_range(Oid relid, int priority, SubTransactionId subid)
{
	/* those of older subtransactions come first */
	for (int i = nranges - 1; i >= 0 && ranges[i].subid == subid; i--)
		if (ranges[i].queue.relid == relid && ranges[i].priority == priority)
			return &ranges[i];
	return NULL;
}

static KvsOwnRange *
add_range(void)
{
	if (ranges == NULL)
	{
		ranges = MemoryContextAlloc(TopMemoryContext, sizeof(KvsOwnRange) * 16);
		size = 16;
	}
	else if (nranges == size)
	{
		ranges = repalloc(ranges, sizeof(KvsOwnRange) * 2 * size);
		size *= 2;
	}
	return &ranges[nranges++];
}

static void
widen(KvsOwnRange *range, KvsPosition low, KvsPosition high, int64 count)
{
	if (kvs_position_compare(low, range->low) < 0)
		range->low = low;
	if (kvs_position_compare(high, range->high) > 0)
		range->high = high;
	range->count += count;
}

void
kvs_arrival_note(KvsQueue *queue, int priority, TimestampTz low_ready_at, int64 low_id,
				 TimestampTz high_ready_at, int64 high_id, int64 count)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	KvsOwnRange *range = find_range(queue->relid, priority, subid);
	KvsPosition low = {low_ready_at, low_id};
	KvsPosition high = {high_ready_at, high_id};

	kvs_waiter_prepare();
	if (range == NULL)
	{
		KvsQueueRef ref = kvs_queueslot_ref(queue);

		range = add_range();
		*range = (KvsOwnRange) {ref, subid, priority, low, high, count};
	}
	else
		widen(range, low, high, count);
}

const KvsOwnRange *
kvs_arrival_own(int number)
{
	return number < nranges ? &ranges[number] : NULL;
}

/* One for each message; for one that was there before and has changed, too. */
static void
wake_waiters(const KvsOwnRange *range)
{
	int64		count = Max(range->count, 1);

	while (count-- > 0 && kvs_waiter_wake_one(range->queue.relid))
		;
}

void
kvs_arrival_publish(void)
{
	for (int i = 0; i < nranges; i++)
	{
		const KvsOwnRange *range = &ranges[i];
		KvsQueueSlot *slot = kvs_queueslot_lock_ref(&range->queue);

		/* without a place, nobody has looked at the queue since it was given away: the head is at the bottom; but waiters looked before */
		if (slot != NULL)
		{
			kvs_queueslot_arrive(slot, range->priority, range->low, range->high);
			kvs_queuecount_publish_to(slot);
			LWLockRelease(slot->lock);
		}
		wake_waiters(range);
	}
	nranges = 0;
}

void
kvs_arrival_forget(void)
{
	nranges = 0;
}

void
kvs_arrival_end_subtransaction(bool commit, SubTransactionId subid, SubTransactionId parent)
{
	for (int i = nranges - 1; i >= 0 && ranges[i].subid == subid; i--)
	{
		if (commit)
			ranges[i].subid = parent;
		else
			nranges--;
	}
}
