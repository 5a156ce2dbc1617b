/*
 * lapse.c
 *		Ending leases whose deadline has passed.
 *
 * The worker does it when the deadline comes, and so does a dequeue that finds one, so that nothing depends on the worker.  Either works in its own transaction:
 * until that commits the lease is as good as held, and if it aborts the lease is what it was.
 */
#include "postgres.h"

#include "lapse.h"
#include "leasexact.h"
#include "settle.h"

int
kvs_lapse_end(KvsReader *reader, TimestampTz now, int limit)
{
	int			count = 0;
	KvsMessageRef	message;
	bool		doomed;

	while (count < limit && kvs_leasexact_next_lapsed(reader->queue, now, &message, &doomed))
	{
		KvsFailure	failure = {
			.error = doomed ? "rolled back" : "lease expired",
			.now = now,
			.ready_at = DT_NOBEGIN,
			.counts = !doomed,
			.dead = doomed,
			.wait = false
		};

		count++;
		if (kvs_settle_fail(reader, &message, &failure) == KVS_SETTLED_LOCKED)
			kvs_leasexact_cancel_ending();
	}
	return count;
}
