/*
 * atomicoperation.h
 *		An operation of kv_atomic(), and the errors for one that is not understood.
 */
#ifndef KVS_ATOMICOPERATION_H
#define KVS_ATOMICOPERATION_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "key/key.h"
#include "store/number.h"
#include "store/store.h"

typedef enum KvsOperationType
{
	KVS_OPERATION_CHECK,
	KVS_OPERATION_SET,
	KVS_OPERATION_DELETE,
	KVS_OPERATION_ARITHMETIC,
	KVS_OPERATION_ENQUEUE
} KvsOperationType;

/* See atomicqueue.c. */
typedef struct KvsEnqueue KvsEnqueue;

typedef struct KvsOperation
{
	KvsOperationType type;
	int			position;		/* 1-based */
	Datum		key;			/* kvkey, not toasted; ENQUEUE has none */
	int64		versionstamp;	/* CHECK; 0: absent */
	KvsContent	content;		/* SET; ARITHMETIC: what an absent entry becomes */
	bool		ttl_given;		/* SET */
	TimestampTz expires_at;		/* SET, if ttl_given */
	KvsArithmetic arithmetic;	/* ARITHMETIC */
	Numeric		operand;		/* ARITHMETIC */
	KvsEnqueue *enqueue;		/* ENQUEUE */
} KvsOperation;

/* 22023, with what is wrong with the operation at this position. */
#define kvs_operation_bad(position, ...) \
	ereport(ERROR, \
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), \
			 errmsg("operation %d is not valid", (position)), \
			 errdetail(__VA_ARGS__)))

/* A JSON string or part of it that is safe to show, for "%.*s". */
#define KVS_OPERATION_SHOWN(str)	kvs_args_shown_size((str).val.string.val, (str).val.string.len), (str).val.string.val

/* So many milliseconds from now on. */
extern TimestampTz kvs_atomicoperation_read_ms(const JsonbValue *value, const char *name, TimestampTz now, int position);

/*
 * Errors from below do not know which operation it was: while this is pushed they say so in their
 * context.
 */
typedef struct KvsOperationContext
{
	int			position;
	ErrorContextCallback callback;
} KvsOperationContext;

extern void kvs_atomicoperation_push_context(KvsOperationContext *context);
extern void kvs_atomicoperation_pop_context(KvsOperationContext *context);

#endif							/* KVS_ATOMICOPERATION_H */
