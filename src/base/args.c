/*
 * args.c
 *		Arguments of SQL functions: texts, options, times.  One rule, one helper: every function
 *		that takes a ttl says the same about a negative one.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/compat.h"
#include "base/duration.h"

/* Bytes of a user's string that a message shows. */
#define SHOWN_SIZE	100

int
kvs_args_shown_size(const char *str, int len)
{
	return pg_mbcliplen(str, len, SHOWN_SIZE);
}

void
kvs_args_report_null(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", name)));
}

text *
kvs_args_text(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : PG_GETARG_TEXT_PP(arg);
}

bool
kvs_args_bool(FunctionCallInfo fcinfo, int arg)
{
	return !PG_ARGISNULL(arg) && PG_GETARG_BOOL(arg);
}

TimestampTz
kvs_args_add_interval(TimestampTz now, const Interval *interval)
{
	TimestampTz result = kvs_duration_add(now, interval);

	if (TIMESTAMP_NOT_FINITE(result) && !kvs_compat_interval_is_infinite(interval))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return result;
}

TimestampTz
kvs_args_ttl(FunctionCallInfo fcinfo, int arg, TimestampTz now)
{
	TimestampTz result = kvs_args_add_interval(now, PG_GETARG_INTERVAL_P(arg));

	if (result < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ttl must not be negative"),
				 errhint("Use kv_delete() to remove an entry at once.")));
	return result;
}

TimestampTz
kvs_args_expiry(FunctionCallInfo fcinfo, int ttl_arg, int expires_at_arg, TimestampTz now, bool *given)
{
	TimestampTz result = DT_NOEND;

	*given = !PG_ARGISNULL(ttl_arg) || !PG_ARGISNULL(expires_at_arg);
	if (!PG_ARGISNULL(ttl_arg) && !PG_ARGISNULL(expires_at_arg))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ttl and expires_at must not both be given")));
	if (!PG_ARGISNULL(ttl_arg))
		result = kvs_args_ttl(fcinfo, ttl_arg, now);
	else if (!PG_ARGISNULL(expires_at_arg))
		result = PG_GETARG_TIMESTAMPTZ(expires_at_arg);
	return result;
}
