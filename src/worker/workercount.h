/* workercount.h: counting the messages of a queue. */
#ifndef KVS_WORKERCOUNT_H
#define KVS_WORKERCOUNT_H

#include "postgres.h"

#include "utils/rel.h"

#include "table/queuecatalog.h"

/* Count, in a transaction that has not written anything.  False: not now, and a new time is set. */
extern bool kvs_workercount_run(KvsQueue *queue, Relation rel);

#endif							/* KVS_WORKERCOUNT_H */
