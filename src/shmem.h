/*
 * shmem.h
 *		Shared memory: there when the library is in shared_preload_libraries, absent otherwise.
 */
#ifndef KVS_SHMEM_H
#define KVS_SHMEM_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/lwlock.h"

#include "check.h"

/* Slots in which deletions are published, by hash of table and key; a power of two. */
#define KVS_DELETED_SLOTS	16384

/* Databases whose versionstamps are known to have jumped since an unclean start; further ones jump once a session. */
#define KVS_JUMPED_MAX		1024

/* The highest versionstamp that was given in a database, or counts (stamp.c), since the server started. */
typedef struct KvsHighestStamp
{
	Oid			database;
	Oid			sequence;		/* that gave it: CREATE EXTENSION makes a new one */
	pg_atomic_uint64 number;
} KvsHighestStamp;

/* Places for keys that were deleted with a versionstamp that the sequence did not follow. */
#define KVS_REMEMBERED_STAMPS	256

typedef struct KvsDeletedStamp
{
	uint64		key;			/* hash of database, table and key */
	int64		number;
} KvsDeletedStamp;

typedef struct KvsShared
{
	/* Written by the postmaster before anybody else runs, constant then. */
	TimestampTz started_at;
	bool		clean_start;	/* the cluster had been shut down cleanly, and not as a standby */
	TimeLineID	start_timeline;

	/* Under "lock". */
	LWLock	   *lock;
	int			jumped_count;
	Oid			jumped[KVS_JUMPED_MAX];
	int			highest_count;
	KvsHighestStamp highest[KVS_JUMPED_MAX];	/* its numbers are atomics */
	KvsDeletedStamp remembered[KVS_REMEMBERED_STAMPS];
	pg_atomic_uint32 remembers; /* is anything remembered?  Read without the lock. */

	/* Atomics, no lock: a clock that each deletion advances, and when a key of the slot was last deleted. */
	pg_atomic_uint64 deletion_clock;
	pg_atomic_uint64 deleted[KVS_DELETED_SLOTS];

	/* Atomics, no lock: how many transactions hold the absence of a key of the bucket, see check.c. */
	pg_atomic_uint32 absences[KVS_ABSENCE_BUCKETS];
} KvsShared;

/* NULL when the library was not preloaded. */
extern KvsShared *kvs_shared;

/* Raise 55000 unless there is shared memory; "function" as in kv_enqueue(). */
extern void kvs_shmem_require(const char *function);

extern void kvs_shmem_init(void);

#endif							/* KVS_SHMEM_H */
