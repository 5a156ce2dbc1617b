/*
 * backoff.h
 *		The delays between the deliveries of a message that fails.
 */
#ifndef KVS_BACKOFF_H
#define KVS_BACKOFF_H

#include "postgres.h"

#include "utils/array.h"
#include "utils/timestamp.h"

/* Most delays of a backoff. */
#define KVS_BACKOFF_MAX		16

/* That of a queue without a setting; kv_create_queue() has the same default. */
#define KVS_DEFAULT_BACKOFF	"{1s,5s,30s,2min,10min,30min,1h}"

/*
 * The delays of a backoff as it is given: at most KVS_BACKOFF_MAX, none NULL, negative or longer
 * than a year (22023), of one dimension (2202E).  Returns how many.
 */
extern int	kvs_backoff_check(ArrayType *array, Interval *delays);

/* Those of one that is stored, cut to what is allowed. */
extern int	kvs_backoff_take(ArrayType *array, Interval *delays);

/* Those of a queue without a setting. */
extern int	kvs_backoff_default(Interval *delays);

#endif							/* KVS_BACKOFF_H */
