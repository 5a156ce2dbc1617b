/*
 * progress.h
 *		How far a long operation of this backend has come, for the view kv_stat_progress.
 */
#ifndef KVS_PROGRESS_H
#define KVS_PROGRESS_H

#include "postgres.h"

/* The order is that of progress.c's names. */
typedef enum KvsCommand
{
	KVS_COMMAND_SET_MANY,
	KVS_COMMAND_DELETE_MANY,
	KVS_COMMAND_DELETE_PREFIX,
	KVS_COMMAND_CLEAR,
	KVS_COMMAND_IMPORT,
	KVS_COMMAND_PURGE_QUEUE,
	KVS_COMMAND_REQUEUE_ALL
} KvsCommand;

/* "total" is -1 where it is not known.  An ERROR ends it by itself. */
extern void kvs_progress_begin(KvsCommand command, Oid relid, int64 total);
extern void kvs_progress_advance(void);

/* Go on after a subtransaction was rolled back, which ends it too. */
extern void kvs_progress_resume(int64 items_done);

extern void kvs_progress_end(void);

#endif							/* KVS_PROGRESS_H */
