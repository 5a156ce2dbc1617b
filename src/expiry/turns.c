/*
 * turns.c
 *		Whose turn it is in the worker of a database.
 *
 * All owners of a database share one worker.  If each table had its turn, an owner of many tables
 * would have most of the worker.  So turns go by owner: next is the one that has had the least of
 * the worker's time.  The time that an owner has had counts half after HALF_LIFE, so no debt or
 * credit lasts for long.
 *
 * Tables that run no code of their owner's come before the others, and tables in trouble come last.
 *
 * All of it is this worker's own memory.  The next worker begins with equal owners.
 */
#include "postgres.h"

#include <math.h>

#include "utils/hsearch.h"

#include "expiry/turns.h"

/* In microseconds. */
#define HALF_LIFE	((double) 60 * USECS_PER_SEC)

typedef struct Owner
{
	Oid			owner;			/* the key */
	double		used;			/* in microseconds, as of "at" */
	TimestampTz at;
} Owner;

static HTAB *owners = NULL;

/* NULL: the owner has had no time, and is not to be entered. */
static Owner *
find(Oid owner, HASHACTION action)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(Owner)};
	bool		found;
	Owner	   *result;

	if (owners == NULL)
		owners = hash_create("kvstore turns", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	result = hash_search(owners, &owner, action, &found);
	if (!found && result != NULL)
		result->used = result->at = 0;
	return result;
}

/*
 * The time that the owner has had, as it counts now.  A clock that was set back takes nothing off.
 */
static double
get_used(const Owner *owner, TimestampTz now)
{
	if (owner == NULL)
		return 0;
	return owner->used * exp2(-(double) Max(now - owner->at, 0) / HALF_LIFE);
}

bool
kvs_turns_precedes(const KvsTurn *a, const KvsTurn *b)
{
	if (a->rank != b->rank)
		return a->rank < b->rank;
	if (a->used != b->used)
		return a->used < b->used;
	return a->served < b->served;
}

KvsTurn
kvs_turns_get(Oid owner, int rank, uint64 served, TimestampTz now)
{
	return (KvsTurn) {rank, get_used(find(owner, HASH_FIND), now), served};
}

void
kvs_turns_charge(Oid owner, TimestampTz start)
{
	TimestampTz now = GetCurrentTimestamp();
	Owner	   *found = find(owner, HASH_ENTER);

	found->used = get_used(found, now) + Max(now - start, 0);
	found->at = now;
}

uint64
kvs_turns_next(void)
{
	static uint64 served = 0;

	return ++served;
}
