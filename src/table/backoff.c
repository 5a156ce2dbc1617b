/*
 * backoff.c
 *		The delays between the deliveries of a message that fails.
 *
 * Delays that are given are checked.  Stored ones may have come past that check: the owner has
 * disabled the guard, or a superuser has written the registry.  It must be possible to fail every
 * message, as one that cannot fail would stop others.  So stored delays are cut to the allowed
 * range.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "base/array.h"
#include "base/duration.h"
#include "table/backoff.h"

/* From midnight of 2000-01-01, which begins a leap year. */
static bool
is_longer_than_a_year(const Interval *delay)
{
	return kvs_duration_add(0, delay) > 366 * USECS_PER_DAY;
}

static bool
is_negative(const Interval *delay)
{
	return kvs_duration_add(0, delay) < 0;
}

int
kvs_backoff_check(ArrayType *array, Interval *delays)
{
	Datum	   *values;
	bool	   *nulls;
	int			count = kvs_array_read(array, "backoff", &values, &nulls);

	if (count > KVS_BACKOFF_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("backoff must be a list of at most %d delays", KVS_BACKOFF_MAX),
				 errhint("The last one repeats.")));
	for (int i = 0; i < count; i++)
	{
		if (nulls[i] || is_negative(DatumGetIntervalP(values[i])))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("delays of backoff must not be negative or null")));
		if (is_longer_than_a_year(DatumGetIntervalP(values[i])))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("delays of backoff must not be longer than a year")));
		delays[i] = *DatumGetIntervalP(values[i]);
	}
	return count;
}

int
kvs_backoff_take(ArrayType *array, Interval *delays)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;

	deconstruct_array(array, INTERVALOID, sizeof(Interval), false, TYPALIGN_DOUBLE, &values, &nulls, &count);
	count = Min(count, KVS_BACKOFF_MAX);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i] || is_negative(DatumGetIntervalP(values[i])))
			delays[i] = (Interval) {0};
		else if (is_longer_than_a_year(DatumGetIntervalP(values[i])))
			delays[i] = (Interval) {.month = MONTHS_PER_YEAR};
		else
			delays[i] = *DatumGetIntervalP(values[i]);
	}
	return count;
}

int
kvs_backoff_default(Interval *delays)
{
	Datum		array = OidFunctionCall3(F_ARRAY_IN, CStringGetDatum(KVS_DEFAULT_BACKOFF),
										 ObjectIdGetDatum(INTERVALOID), Int32GetDatum(-1));

	return kvs_backoff_take(DatumGetArrayTypeP(array), delays);
}
