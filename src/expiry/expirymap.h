/*
 * expirymap.h
 *		The expiry map in memory, for the files that make it up: expiry.c, expirymap.c, expirydue.c.
 *		All others include expiry.h.
 */
#ifndef KVS_EXPIRYMAP_H
#define KVS_EXPIRYMAP_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "expiry/expiry.h"

/* Groups of an extent, and its blocks: 16 MB. */
#define KVS_EXTENT_GROUPS	256
#define KVS_EXTENT_BLOCKS	(KVS_EXTENT_GROUPS * KVS_EXPIRY_GROUP)

struct KvsExpiryTable
{
	/* Under map->lock. */
	Oid			database;		/* InvalidOid: free */
	Oid			relid;

	/* Atomics. */
	KvsExpirySlot whole;
	pg_atomic_uint64 aside_until;	/* TimestampTz */
	pg_atomic_uint32 filenumber;	/* the file that the block numbers are of */
	/* where the pass is that is under way; written by the database's worker */
	pg_atomic_uint32 pass_block;
	/* a sweep runs code of its owner's; written by the database's worker */
	pg_atomic_uint32 foreign;
	pg_atomic_uint32 owner;		/* InvalidOid: no worker has looked at it yet; written likewise */
	pg_atomic_uint32 troubled;	/* the last sweep failed */
};

typedef struct KvsExpiryExtent
{
	/* Under map->lock. */
	KvsExpiryTable *table;		/* NULL: free; then all slots are "never" */
	uint32		number;			/* its first block is number * KVS_EXTENT_BLOCKS */

	KvsExpirySlot slots[KVS_EXTENT_GROUPS];
} KvsExpiryExtent;

typedef struct KvsExpiryDatabase
{
	Oid			database;		/* under map->lock; InvalidOid: free */

	/* Atomics. */
	KvsExpirySlot next_due;		/* lower bound of everything below */
	KvsExpirySlot full;			/* when all its stores are due in full */
	/* when something is due in a store that the map has no room for, without an overflow */
	KvsExpirySlot unmapped;
	pg_atomic_uint64 wake_at;	/* a commit that is due before sets the sleeper's latch */
	pg_atomic_uint64 logged_at;
	pg_atomic_uint32 full_delay;	/* milliseconds, the last one */

	/*
	 * The worker's, NULL: the launcher's.  Read without a lock: latches stay where they are, and a
	 * needless SetLatch() does no harm.
	 */
	Latch	   *volatile latch;

	/*
	 * For the stores that the map has no room for; written under map->lock, once.  NULL: none yet,
	 * or there was none free.
	 */
	struct KvsExpiryOverflow *volatile overflow;
} KvsExpiryDatabase;

/* Slots for the stores of one database that the map has no room for, by a hash of their OIDs. */
#define KVS_OVERFLOWS		16
#define KVS_OVERFLOW_SLOTS	1024

typedef struct KvsExpiryOverflow
{
	Oid			database;		/* under map->lock; InvalidOid: free, then all slots are "never" */
	KvsExpirySlot slots[KVS_OVERFLOW_SLOTS];
} KvsExpiryOverflow;

typedef struct KvsExpiryMap
{
	LWLock	   *lock;
	pg_atomic_uint64 generation;	/* advanced when a table is forgotten */
	Latch	   *volatile launcher;
	int			ntables;
	int			nextents;
	int			first_free;		/* no table before it is free; under the lock */
	KvsExpiryTable *tables;		/* behind the extents */
	KvsExpiryDatabase databases[KVS_EXPIRY_DATABASES];
	KvsExpiryOverflow overflows[KVS_OVERFLOWS];
	KvsExpiryExtent extents[FLEXIBLE_ARRAY_MEMBER];
} KvsExpiryMap;

/* NULL without preload. */
extern KvsExpiryMap *kvs_expirymap_map;

/* This database's entry, NULL until it was looked for; it stays as long as anybody is connected. */
extern KvsExpiryDatabase *kvs_expirymap_my_database;

/* A slot of a table or database that this backend has just put into the map: it is due at once. */
extern KvsExpirySlot *kvs_expirymap_made_slot;

/* This database's entry, made if need be; NULL if there is no room. */
extern KvsExpiryDatabase *kvs_expirymap_get_database(void);

/* The entry of a table of this database, NULL if there is none; the map's lock is held. */
extern KvsExpiryTable *kvs_expirymap_find_table(Oid relid);

/* At commit, lower this slot. */
extern void kvs_expiry_lower_at_commit(KvsExpirySlot *slot, TimestampTz when);

static inline TimestampTz
kvs_expiry_read_slot(KvsExpirySlot *slot)
{
	return (TimestampTz) pg_atomic_read_u64(slot);
}

/* Returns whether it was higher.  A full barrier in that case. */
static inline bool
kvs_expiry_lower_slot(KvsExpirySlot *slot, TimestampTz when)
{
	uint64		old = pg_atomic_read_u64(slot);

	while ((TimestampTz) old > when)
		if (pg_atomic_compare_exchange_u64(slot, &old, (uint64) when))
			return true;
	return false;
}

#endif							/* KVS_EXPIRYMAP_H */
