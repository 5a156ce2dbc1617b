/*
 * statefile.h
 *		A file with what shared memory held, from a clean stop to the next start.
 */
#ifndef KVS_STATEFILE_H
#define KVS_STATEFILE_H

#include "postgres.h"

#include "lib/stringinfo.h"

/* Sections that there can be. */
#define KVS_STATEFILE_SECTIONS	8

/*
 * Add a section, from a module's function for shmem_startup_hook.  "write" appends it to the
 * buffer, in the postmaster after all other processes have gone.  "read" gets the same bytes, in
 * the postmaster before any other process starts.  Both run without locks.  Neither need expect a
 * wrong file, but "read" may get the bytes of another version of the library.  It may raise an
 * ERROR, which loses its section alone.  The pq_ functions of pqformat.h suit both.
 */
extern void kvs_statefile_add(const char *name, void (*write) (StringInfo out), void (*read) (StringInfo in));

/*
 * Read the file, if there is one, and have it written when the server stops.  Call it after all
 * sections were added.
 */
extern void kvs_statefile_startup(void);

#endif							/* KVS_STATEFILE_H */
