/*
 * testing.h
 *		Hooks for tests: points at which a session stops, and a clock that is ahead.
 *
 * Three settings that no list shows, for superusers: kvstore.test_point, kvstore.test_delay, kvstore.test_clock.
 */
#ifndef KVS_TESTING_H
#define KVS_TESTING_H

#include "postgres.h"

#include "utils/timestamp.h"

/* "Any point at all": tests once, so that normal operation pays a load and a branch. */
extern char *kvs_testing_point;
extern int	kvs_testing_delay;
extern int	kvs_testing_clock;

/* Is this a point named in kvstore.test_point? */
extern bool kvs_testing_is(const char *point);

extern void kvs_testing_wait(const char *point);

/* If this is a point that was named, wait for its advisory lock, 7777 for the first; at every point, sleep kvstore.test_delay microseconds. */
static inline void
kvs_testing_stop(const char *point)
{
	if (unlikely(kvs_testing_delay > 0 || kvs_testing_point[0] != '\0'))
		kvs_testing_wait(point);
}

/* The sleep alone, where nothing may wait for a lock. */
static inline void
kvs_testing_nap(void)
{
	if (unlikely(kvs_testing_delay > 0))
		pg_usleep(kvs_testing_delay);
}

/* The clock of sweeps by hand: kvstore.test_clock seconds ahead. */
static inline TimestampTz
kvs_testing_now(void)
{
	return GetCurrentTimestamp() + kvs_testing_clock * USECS_PER_SEC;
}

extern void kvs_testing_init(void);

#endif							/* KVS_TESTING_H */
