/*
 * lease.h
 *		Who holds which message.
 */
#ifndef KVS_LEASE_H
#define KVS_LEASE_H

#include "postgres.h"

#include "utils/timestamp.h"

#include "queuecatalog.h"

/* Is a message leased, and until when? */
extern bool kvs_lease_is_held(KvsQueue *queue, int64 id, TimestampTz *until);

/* Make sure that nobody leases a message until this transaction ends; false if somebody has it. */
extern bool kvs_lease_try_end(KvsQueue *queue, int64 id);

#endif							/* KVS_LEASE_H */
