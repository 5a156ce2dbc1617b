/*
 * operations.h
 *		The operations of kv_atomic(), read from JSON.
 */
#ifndef KVS_OPERATIONS_H
#define KVS_OPERATIONS_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "key.h"
#include "number.h"
#include "store.h"

/* Most operations of one call. */
#define KVS_OPERATIONS_MAX	1000

typedef enum KvsOperationType
{
	KVS_OPERATION_CHECK,
	KVS_OPERATION_SET,
	KVS_OPERATION_DELETE,
	KVS_OPERATION_ARITHMETIC
} KvsOperationType;

typedef struct KvsOperation
{
	KvsOperationType type;
	int			position;		/* 1-based */
	Datum		key;			/* kvkey, not toasted */
	int64		versionstamp;	/* CHECK; 0: absent */
	KvsContent	content;		/* SET; ARITHMETIC: what an absent entry becomes */
	bool		ttl_given;		/* SET */
	TimestampTz expires_at;		/* SET, if ttl_given */
	KvsArithmetic arithmetic;	/* ARITHMETIC */
	Numeric		operand;		/* ARITHMETIC */
} KvsOperation;

/*
 * Read the operations, palloc'd; returns how many.  22023 for what is not understood, naming its position; KV002 for a key too large.
 * Values are not checked for size.
 */
extern int	kvs_operations_read(Jsonb *json, TimestampTz now, KvsOperation **operations);

/* Errors from below do not know which operation it was: while this is pushed they say so in their context. */
typedef struct KvsOperationContext
{
	int			position;
	ErrorContextCallback callback;
} KvsOperationContext;

extern void kvs_operations_push_context(KvsOperationContext *context);
extern void kvs_operations_pop_context(KvsOperationContext *context);

#endif							/* KVS_OPERATIONS_H */
