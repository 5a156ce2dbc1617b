/*
 * fault.h
 *		For tests: points at which a session stops or a rule is broken, and a clock that is ahead.
 *
 * Three settings that no list shows, for superusers: kvstore.test_point, kvstore.test_delay and
 * kvstore.test_clock.  They are settings and not an option of the build, so that tests run the code
 * that is shipped.  doc/testing.md says what each point is for.  A test compares its tables with
 * this list.
 */
#ifndef KVS_FAULT_H
#define KVS_FAULT_H

#include "postgres.h"

#include "utils/timestamp.h"

/* All points there are: a name for the code, and one for kvstore.test_point. */
#define KVS_FAULT_LIST(POINT) \
	/* a session waits */ \
	POINT(DEQUEUE_SURVEYED, "dequeue-surveyed") \
	POINT(DEQUEUE_SEEN, "dequeue-seen") \
	POINT(DEQUEUE_LEASED, "dequeue-leased") \
	POINT(DEQUEUE_ADVANCE, "dequeue-advance") \
	POINT(SETTLE, "settle") \
	POINT(UNLEASED, "unleased") \
	POINT(CANCEL, "cancel") \
	POINT(CHORES, "chores") \
	POINT(COUNT, "count") \
	POINT(FOUND, "found") \
	POINT(RESET, "reset") \
	POINT(SNAPSHOT, "snapshot") \
	POINT(SCANNED, "scanned") \
	/* something is left out until the next commit */ \
	POINT(FEED, "feed") \
	POINT(PUBLISH, "publish") \
	POINT(FINISH, "finish") \
	POINT(ARRIVAL, "arrival") \
	/* a rule is broken */ \
	POINT(NO_FENCE, "no-fence") \
	POINT(NO_RECHECK, "no-recheck") \
	POINT(HEAD_IGNORES_ARRIVALS, "head-ignores-arrivals") \
	POINT(LATE_FORGOTTEN, "late-forgotten") \
	POINT(FORGET_RETURNED, "forget-returned") \
	POINT(DROP_SILENTLY, "drop-silently") \
	/* the worker verifies a queue at once */ \
	POINT(VERIFY_SOON, "verify-soon")

#define KVS_FAULT_ENUM(code, name) KVS_FAULT_##code,

typedef enum KvsFault
{
	KVS_FAULT_LIST(KVS_FAULT_ENUM)
	KVS_FAULTS
} KvsFault;

/* "Any point at all": tests once, so that normal operation pays a load and a branch. */
extern bool kvs_fault_any;
extern int	kvs_fault_delay;
extern int	kvs_fault_clock;

extern bool kvs_fault_is_set(KvsFault point);
extern void kvs_fault_wait(KvsFault point);

/* Is this a point named in kvstore.test_point? */
static inline bool
kvs_fault_is(KvsFault point)
{
	return unlikely(kvs_fault_any) && kvs_fault_is_set(point);
}

/*
 * If this is a point that was named, wait for its advisory lock, 7777 for the first.  At every
 * point, sleep kvstore.test_delay microseconds.
 */
static inline void
kvs_fault_stop(KvsFault point)
{
	if (unlikely(kvs_fault_delay > 0 || kvs_fault_any))
		kvs_fault_wait(point);
}

/* The sleep alone, where nothing may wait for a lock. */
static inline void
kvs_fault_nap(void)
{
	if (unlikely(kvs_fault_delay > 0))
		pg_usleep(kvs_fault_delay);
}

/* The clock of manual sweeps and of receivers: kvstore.test_clock seconds ahead. */
static inline TimestampTz
kvs_fault_now(void)
{
	return GetCurrentTimestamp() + kvs_fault_clock * USECS_PER_SEC;
}

extern void kvs_fault_init(void);

#endif							/* KVS_FAULT_H */
