/*
 * arrival.c
 *		Messages that become deliverable when this transaction commits.
 */
#include "postgres.h"

#include "arrival.h"

void
kvs_arrival_note(KvsQueue *queue, int priority, TimestampTz low_ready_at, int64 low_id,
				 TimestampTz high_ready_at, int64 high_id, int64 count)
{
}
