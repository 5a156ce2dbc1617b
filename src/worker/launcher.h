/*
 * launcher.h
 *		The launcher: starts a worker for each database that has something to do.
 */
#ifndef KVS_LAUNCHER_H
#define KVS_LAUNCHER_H

#include "postgres.h"

/* Workers at a time, of all databases. */
#define KVS_WORKERS		3

/*
 * A worker says that it has started; its argument tells which database it is for.  InvalidOid: it
 * is not wanted any more.
 */
extern Oid	kvs_launcher_worker_comes(Datum main_arg);

/* ... that it goes, and why. */
typedef enum KvsWorkerEnd
{
	KVS_WORKER_FAILED,			/* it died */
	KVS_WORKER_DONE,			/* next due says when to come again */
	KVS_WORKER_WANTED,			/* a session wants the database to itself */
	KVS_WORKER_ENDED_STEP		/* it ended itself, for nothing else ended a step: others are due */
} KvsWorkerEnd;

extern void kvs_launcher_worker_leaves(KvsWorkerEnd end);

/* Other databases wait for a worker. */
extern bool kvs_launcher_wants_room(void);

extern PGDLLEXPORT void kvs_launcher_main(Datum main_arg);

extern void kvs_launcher_init(void);

#endif							/* KVS_LAUNCHER_H */
