/*
 * survey.c
 *		Scans for what can be delivered: where they begin, and how far heads move by them.
 *
 * The rules, and why no message is missed, are at the head of queueslot.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "lease/lease.h"
#include "lease/survey.h"

static const KvsPosition lowest_position = {DT_NOBEGIN, PG_INT64_MIN};
static const KvsPosition highest_position = {DT_NOEND, PG_INT64_MAX};

void
kvs_survey_begin(KvsQueue *queue, TimestampTz now, bool make, KvsSurvey *survey)
{
	KvsQueueSlot *slot = make ? kvs_queueslot_lock(queue) : kvs_queueslot_lock_existing(queue);

	survey->returned = -1;
	survey->next_due = DT_NOEND;
	survey->expired = survey->nlate = 0;
	survey->verify_at = DT_NOEND;
	for (int i = 0; i < KVS_PRIORITIES; i++)
		survey->heads[i] = (KvsHeadScan) {true, i, lowest_position, 0, highest_position};
	if (slot == NULL)
		return;
	/* a queue with receivers is verified now and then, also if no head has moved */
	if (make && slot->verify_at == DT_NOEND)
		slot->verify_at = TimestampTzPlusMilliseconds(now, slot->verify_pause);
	if (make && kvs_fault_is(KVS_FAULT_VERIFY_SOON))
		slot->verify_at = now;
	survey->verify_at = slot->verify_at;
	survey->expired = kvs_leaseentry_expire(slot, now);
	survey->returned = kvs_leaselook_first_ready(slot, now);
	survey->next_due = Min(kvs_leaselook_next_return(slot), kvs_leaselook_next_deadline(slot));
	for (int i = 0; i < KVS_PRIORITIES; i++)
		survey->heads[i] = (KvsHeadScan) {slot->filled[i], i, slot->heads[i], slot->narrivals, highest_position};
	survey->nlate = slot->nlate;
	memcpy(survey->late, slot->late, slot->nlate * sizeof(KvsLateRange));
	LWLockRelease(slot->lock);
}

/* Lower the limit to the arrivals that came since.  Returns whether there were any. */
static bool
note_arrivals(const KvsQueueSlot *slot, KvsHeadScan *scan)
{
	uint64		came = slot->narrivals - scan->number;
	bool		any = false;

	if (came > KVS_ARRIVALS)
	{
		scan->limit = lowest_position;
		any = true;
	}
	else
		for (uint64 n = scan->number; n < slot->narrivals; n++)
		{
			const KvsArrival *arrival = &slot->arrivals[n % KVS_ARRIVALS];

			if (arrival->priority != scan->priority)
				continue;
			any = true;
			if (kvs_position_compare(arrival->low, scan->limit) < 0)
				scan->limit = arrival->low;
		}
	scan->number = slot->narrivals;
	return any;
}

void
kvs_survey_advance(KvsQueue *queue, KvsHeadScan *scan, KvsPosition reached, bool at_end)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	bool		arrivals = note_arrivals(slot, scan);

	/* for tests of the tests: what happens without this rule */
	if (kvs_fault_is(KVS_FAULT_HEAD_IGNORES_ARRIVALS))
		scan->limit = highest_position;
	if (kvs_position_compare(scan->limit, reached) < 0)
		reached = scan->limit;
	if (kvs_position_compare(reached, slot->heads[scan->priority]) > 0)
	{
		slot->heads[scan->priority] = reached;
		if (slot->verify_at == DT_NOEND)
			slot->verify_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), slot->verify_pause);
		if (kvs_fault_is(KVS_FAULT_VERIFY_SOON))
			slot->verify_at = GetCurrentTimestamp();
	}
	if (at_end && !arrivals && kvs_position_compare(scan->limit, highest_position) == 0)
		slot->filled[scan->priority] = false;
	slot->used_at = GetCurrentStatementStartTimestamp();
	LWLockRelease(slot->lock);
}

void
kvs_survey_advance_late(KvsQueue *queue, const KvsLateRange *range, KvsPosition reached)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);

	for (int i = 0; i < slot->nlate; i++)
	{
		KvsLateRange *found = &slot->late[i];

		if (found->number != range->number)
			continue;
		if (kvs_position_compare(reached, found->low) > 0)
			found->low = reached;
		if (kvs_position_compare(found->low, found->high) > 0)
			*found = slot->late[--slot->nlate];
		break;
	}
	LWLockRelease(slot->lock);
}
