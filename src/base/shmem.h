/*
 * shmem.h
 *		Shared memory: there when the library is in shared_preload_libraries, absent otherwise.
 *
 * Names: kvs_shmem_, kvs_shared
 */
#ifndef KVS_SHMEM_H
#define KVS_SHMEM_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

/* Written by the postmaster before anybody else runs, constant then. */
typedef struct KvsShared
{
	TimestampTz started_at;
	bool		clean_start;	/* the cluster had been shut down cleanly, and not as a standby */
	TimeLineID	start_timeline;
} KvsShared;

/* NULL when the library was not preloaded. */
extern KvsShared *kvs_shared;

/*
 * A module's own: "request" asks for room, and may be NULL; "startup" finds or makes what is there,
 * under AddinShmemInitLock.  Both are called in the order of the calls of this function.
 */
extern void kvs_shmem_add(void (*request) (void), void (*startup) (void));

/* Raise 55000 unless there is shared memory; "function" as in kv_enqueue(). */
extern void kvs_shmem_require(const char *function);

extern void kvs_shmem_init(void);

#endif							/* KVS_SHMEM_H */
