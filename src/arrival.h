/*
 * arrival.h
 *		Messages that become deliverable when this transaction commits.
 */
#ifndef KVS_ARRIVAL_H
#define KVS_ARRIVAL_H

#include "postgres.h"

#include "utils/timestamp.h"

#include "queuecatalog.h"

/*
 * Remember that this transaction has put "count" messages of this priority into the queue, from (low_ready_at, low_id) to (high_ready_at, high_id);
 * published at commit.  Once per statement and priority; needs shared memory.
 */
extern void kvs_arrival_note(KvsQueue *queue, int priority, TimestampTz low_ready_at, int64 low_id,
							 TimestampTz high_ready_at, int64 high_id, int64 count);

#endif							/* KVS_ARRIVAL_H */
