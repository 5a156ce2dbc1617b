/* workerverify.h: looking for messages that no dequeue would find. */
#ifndef KVS_WORKERVERIFY_H
#define KVS_WORKERVERIFY_H

#include "postgres.h"

#include "message/reader.h"

/*
 * There should be none: each is a bug, is logged, and can be delivered from then on.  In a
 * transaction of the worker.  Returns false if the look has to be repeated, because another session
 * is in the way.
 */
extern bool kvs_workerverify_queue(KvsReader *reader);

#endif							/* KVS_WORKERVERIFY_H */
