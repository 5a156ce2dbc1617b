/*
 * page.c
 *		Listing rows by id, page by page: what kv_peek and kv_dead_letters have in common.
 *
 * An id asks for one row, "after" for the rows that follow it.  Both are bounds, so one plan, an
 * index scan, serves every combination.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "queue/page.h"
#include "table/plan.h"

#define DEFAULT_COUNT	10

void
kvs_page_set_params(ParamListInfo params, FunctionCallInfo fcinfo, int first)
{
	int64		max_count = PG_ARGISNULL(first) ? DEFAULT_COUNT : PG_GETARG_INT64(first);
	int64		low = PG_INT64_MIN;
	int64		high = PG_INT64_MAX;

	if (max_count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must not be negative")));
	if (!PG_ARGISNULL(first + 1))
	{
		int64		after = PG_GETARG_INT64(first + 1);

		if (after == PG_INT64_MAX)
			max_count = 0;
		else
			low = after + 1;
	}
	if (!PG_ARGISNULL(first + 2))
	{
		low = Max(low, PG_GETARG_INT64(first + 2));
		high = PG_GETARG_INT64(first + 2);
	}
	kvs_plan_set_param(params, 0, INT8OID, Int64GetDatum(low), false);
	kvs_plan_set_param(params, 1, INT8OID, Int64GetDatum(high), false);
	kvs_plan_set_param(params, 2, INT8OID, Int64GetDatum(max_count), false);
}
