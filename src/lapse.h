/*
 * lapse.h
 *		Ending leases whose deadline has passed.
 */
#ifndef KVS_LAPSE_H
#define KVS_LAPSE_H

#include "postgres.h"

#include "reader.h"

/*
 * End up to "limit" leases of the queue that have lapsed, in this transaction: each is a failed attempt.  Waits for nobody.  Returns how many it
 * has looked at.
 */
extern int	kvs_lapse_end(KvsReader *reader, TimestampTz now, int limit);

#endif							/* KVS_LAPSE_H */
