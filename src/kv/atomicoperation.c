/*
 * atomicoperation.c
 *		An operation of kv_atomic(): a time in it, and the errors for one that is not understood.
 */
#include "postgres.h"

#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "kv/atomicoperation.h"

TimestampTz
kvs_atomicoperation_read_ms(const JsonbValue *value, const char *name, TimestampTz now, int position)
{
	Numeric		limit;
	int64		ms;

	limit = int64_to_numeric((END_TIMESTAMP - now) / 1000 - 1);
	if (value->type != jbvNumeric ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, NumericGetDatum(value->val.numeric),
										 NumericGetDatum(int64_to_numeric(0)))) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, NumericGetDatum(value->val.numeric), NumericGetDatum(limit))))
		kvs_operation_bad(position, "\"%s\" must be a number of milliseconds from 0 up.", name);
	ms = DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(value->val.numeric)));
	return now + ms * 1000;
}

/* Errors from below, such as a key that is too large, do not know which operation it was. */
static void
operation_error_context(void *arg)
{
	errcontext("operation %d of kv_atomic()", ((KvsOperationContext *) arg)->position);
}

void
kvs_atomicoperation_push_context(KvsOperationContext *context)
{
	context->position = 0;
	context->callback.previous = error_context_stack;
	context->callback.callback = operation_error_context;
	context->callback.arg = context;
	error_context_stack = &context->callback;
}

void
kvs_atomicoperation_pop_context(KvsOperationContext *context)
{
	error_context_stack = context->callback.previous;
}
