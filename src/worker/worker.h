/*
 * worker.h
 *		The worker of one database.
 */
#ifndef KVS_WORKER_H
#define KVS_WORKER_H

#include "postgres.h"

/* Entry point of the process; the launcher starts it. */
extern PGDLLEXPORT void kvs_worker_main(Datum main_arg);

#endif							/* KVS_WORKER_H */
