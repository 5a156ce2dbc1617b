/*
 * duration.c
 *		Lengths of time from now on: a day has 24 hours, whatever the time zone.
 *
 * PostgreSQL adds a day by the calendar of the session's time zone: where the clocks change it has
 * 23 or 25 hours.  Pods in several zones would not mean the same by "in 200 days", so we add as in
 * UTC.  Months are those of the UTC calendar.
 */
#include "postgres.h"

#include "common/int.h"
#include "utils/datetime.h"

#include "base/compat.h"
#include "base/duration.h"

/* More are beyond all timestamps; their sum with a month of the year overflows nothing. */
#define MOST_MONTHS		(1000000 * MONTHS_PER_YEAR)

/* False: there is no such timestamp. */
static bool
add_months(TimestampTz *time, int32 months)
{
	struct pg_tm tm;
	fsec_t		fraction;
	int			month;

	if (months == 0)
		return true;
	if (abs(months) > MOST_MONTHS || timestamp2tm(*time, NULL, &tm, &fraction, NULL, NULL) != 0)
		return false;
	/* counted from 0, so that it divides into years and months */
	month = tm.tm_year * MONTHS_PER_YEAR + tm.tm_mon - 1 + months;
	tm.tm_year = month / MONTHS_PER_YEAR;
	tm.tm_mon = month % MONTHS_PER_YEAR + 1;
	if (tm.tm_mon < 1)
	{
		tm.tm_mon += MONTHS_PER_YEAR;
		tm.tm_year--;
	}
	/* the 31st of a shorter month is its last day */
	tm.tm_mday = Min(tm.tm_mday, day_tab[isleap(tm.tm_year)][tm.tm_mon - 1]);
	return tm2timestamp(&tm, fraction, NULL, time) == 0;
}

TimestampTz
kvs_duration_add(TimestampTz now, const Interval *interval)
{
	TimestampTz result = now;
	int64		days;

	if (kvs_compat_interval_is_infinite(interval))
		return kvs_compat_interval_is_minus_infinity(interval) ? DT_NOBEGIN : DT_NOEND;
	if (!add_months(&result, interval->month))
		return interval->month < 0 ? DT_NOBEGIN : DT_NOEND;
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &days) ||
		pg_add_s64_overflow(result, days, &result))
		return interval->day < 0 ? DT_NOBEGIN : DT_NOEND;
	if (pg_add_s64_overflow(result, interval->time, &result))
		return interval->time < 0 ? DT_NOBEGIN : DT_NOEND;
	if (!IS_VALID_TIMESTAMP(result))
		return result < 0 ? DT_NOBEGIN : DT_NOEND;
	return result;
}
