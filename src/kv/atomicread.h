/*
 * atomicread.h
 *		The operations of kv_atomic(), read from JSON.
 */
#ifndef KVS_ATOMICREAD_H
#define KVS_ATOMICREAD_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "kv/atomicoperation.h"

/* Most operations of one call. */
#define KVS_OPERATIONS_MAX	1000

/*
 * Read the operations, palloc'd; returns how many.  22023 for what is not understood, naming its
 * position; KV002 for a key too large.  Values are not checked for size.
 */
extern int	kvs_atomicread_read(Jsonb *json, TimestampTz now, KvsOperation **operations);

#endif							/* KVS_ATOMICREAD_H */
