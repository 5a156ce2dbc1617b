/*
 * duration.h
 *		Lengths of time from now on: a day has 24 hours, whatever the time zone.
 */
#ifndef KVS_DURATION_H
#define KVS_DURATION_H

#include "postgres.h"

#include "utils/timestamp.h"

/* The last moment that anything of a queue may have: the year 9999 is over then, in UTC. */
#define KVS_LAST_MOMENT		(INT64CONST(2921940) * USECS_PER_DAY - 1)

/* now + interval; DT_NOEND or DT_NOBEGIN for what is infinite, or beyond all timestamps. */
extern TimestampTz kvs_duration_add(TimestampTz now, const Interval *interval);

#endif							/* KVS_DURATION_H */
