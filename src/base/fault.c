/*
 * fault.c
 *		For tests: points at which a session stops or a rule is broken, and a clock that is ahead.
 *
 * An isolation test has to stop a session between two steps of ours.  It names the point in
 * kvstore.test_point.  The session then waits there for the advisory lock 7777, which another
 * session holds, and isolationtester sees that it waits.  If the setting names several points,
 * separated by commas, the second has the lock 7778, and so on.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"

#include "base/fault.h"

#define TEST_LOCK	7777

#define NAME_OF(code, name) name,

static const char *const names[KVS_FAULTS] = {KVS_FAULT_LIST(NAME_OF)};

bool		kvs_fault_any = false;
int			kvs_fault_delay = 0;
int			kvs_fault_clock = 0;

static char *setting = "";

/* Where each point stands in the setting, from 1; 0: it does not. */
static int	places[KVS_FAULTS];

static int
find_name(const char *name, size_t length)
{
	for (int i = 0; i < KVS_FAULTS; i++)
		if (strlen(names[i]) == length && strncmp(names[i], name, length) == 0)
			return i;
	return -1;
}

static char *
list_names(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < KVS_FAULTS; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", names[i]);
	return list.data;
}

/* Read names that are separated by commas; false: there is no such point. */
static bool
read_points(const char *value, int *into)
{
	int			place = 0;

	memset(into, 0, sizeof(places));
	while (*value != '\0')
	{
		size_t		length = strcspn(value, ",");
		int			point = find_name(value, length);

		if (point < 0)
			return false;
		into[point] = ++place;
		value += length;
		value += *value == ',';
	}
	return true;
}

static bool
check_points(char **value, void **extra, GucSource source)
{
	int			unused[KVS_FAULTS];

	if (read_points(*value, unused))
		return true;
	GUC_check_errdetail("There is no such point.");
	GUC_check_errhint("The points are %s.", list_names());
	return false;
}

static void
assign_points(const char *value, void *extra)
{
	kvs_fault_any = value[0] != '\0';
	(void) read_points(value, places);
}

bool
kvs_fault_is_set(KvsFault point)
{
	return places[point] > 0;
}

void
kvs_fault_wait(KvsFault point)
{
	LOCKTAG		tag;
	int			place = places[point];

	if (kvs_fault_delay > 0)
		pg_usleep(kvs_fault_delay);
	if (place == 0)
		return;
	/* as pg_advisory_lock(7777) */
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, TEST_LOCK + place - 1, 1);
	LockAcquire(&tag, ShareLock, false, false);
	LockRelease(&tag, ShareLock, false);
}

void
kvs_fault_init(void)
{
	int			flags = GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE;

	DefineCustomStringVariable("kvstore.test_point", "For tests: the points at which this session stops.", NULL,
							   &setting, "", PGC_SUSET, flags, check_points, assign_points, NULL);
	DefineCustomIntVariable("kvstore.test_delay", "For tests: how long to sleep at each such point, in microseconds.", NULL,
							&kvs_fault_delay, 0, 0, 1000000, PGC_SUSET, flags, NULL, NULL, NULL);
	DefineCustomIntVariable("kvstore.test_clock", "For tests: by how many seconds a manual sweep is ahead of the clock.", NULL,
							&kvs_fault_clock, 0, 0, 1000000000, PGC_SUSET, flags, NULL, NULL, NULL);
}
