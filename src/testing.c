/*
 * testing.c
 *		Hooks for tests: points at which a session stops, and a clock that is ahead.
 *
 * An isolation test has to stop a session between two steps of ours.  It names the point in kvstore.test_point; the session then waits there for the
 * advisory lock 7777, which another session holds, and isolationtester sees that it waits.  Of several
 * points, separated by commas, the second has the lock 7778, and so on.  They are settings and not a
 * build option so that what is tested is what is shipped.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"

#include "testing.h"

#define TEST_LOCK	7777

char	   *kvs_testing_point = "";
int			kvs_testing_delay = 0;
int			kvs_testing_clock = 0;

/* Where the point stands in the list, from 0; -1: it does not. */
static int
find_point(const char *point)
{
	int			number = 0;
	size_t		length = strlen(point);

	for (const char *name = kvs_testing_point; *name != '\0'; number++)
	{
		size_t		this = strcspn(name, ",");

		if (this == length && strncmp(name, point, length) == 0)
			return number;
		name += this;
		if (*name == ',')
			name++;
	}
	return -1;
}

bool
kvs_testing_is(const char *point)
{
	return unlikely(kvs_testing_point[0] != '\0') && find_point(point) >= 0;
}

void
kvs_testing_wait(const char *point)
{
	LOCKTAG		tag;
	int			number = find_point(point);

	if (kvs_testing_delay > 0)
		pg_usleep(kvs_testing_delay);
	if (number < 0)
		return;
	/* as pg_advisory_lock(7777) */
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, TEST_LOCK + number, 1);
	LockAcquire(&tag, ShareLock, false, false);
	LockRelease(&tag, ShareLock, false);
}

void
kvs_testing_init(void)
{
	int			flags = GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE;

	DefineCustomStringVariable("kvstore.test_point", "For tests: the point at which this session stops.", NULL,
							   &kvs_testing_point, "", PGC_SUSET, flags, NULL, NULL, NULL);
	DefineCustomIntVariable("kvstore.test_delay", "For tests: how long to sleep at each such point, in microseconds.", NULL,
							&kvs_testing_delay, 0, 0, 1000000, PGC_SUSET, flags, NULL, NULL, NULL);
	DefineCustomIntVariable("kvstore.test_clock", "For tests: by how many seconds a sweep by hand is ahead of the clock.", NULL,
							&kvs_testing_clock, 0, 0, 1000000000, PGC_SUSET, flags, NULL, NULL, NULL);
}
