/*
 * args.h
 *		Arguments of SQL functions: texts, options, times.
 */
#ifndef KVS_ARGS_H
#define KVS_ARGS_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"

/* A text argument, NULL if SQL NULL; short headers stay. */
extern text *kvs_args_text(FunctionCallInfo fcinfo, int arg);

/* A boolean option; SQL NULL means "not given". */
extern bool kvs_args_bool(FunctionCallInfo fcinfo, int arg);

/* now + interval, as kvs_duration_add(); 22008 for what is too long, not infinite. */
extern TimestampTz kvs_args_add_interval(TimestampTz now, const Interval *interval);

/*
 * When something expires that is written now with this ttl, which is not SQL NULL; 22023 if it is
 * negative.
 */
extern TimestampTz kvs_args_ttl(FunctionCallInfo fcinfo, int arg, TimestampTz now);

/*
 * When an entry expires that is written now with these two arguments (either may be SQL NULL).
 * DT_NOEND is never, also if neither is given; *given tells whether one was.  22023: both given, or
 * ttl negative.
 */
extern TimestampTz kvs_args_expiry(FunctionCallInfo fcinfo, int ttl_arg, int expires_at_arg, TimestampTz now,
								   bool *given);

/* How many bytes of a string to show in a message: whole characters, at most 100 bytes. */
extern int	kvs_args_shown_size(const char *str, int len);

/* Raise 22004: this argument must not be null. */
pg_noreturn extern void kvs_args_report_null(const char *name);

#endif							/* KVS_ARGS_H */
