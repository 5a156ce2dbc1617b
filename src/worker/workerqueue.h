/* workerqueue.h: the worker's task of looking after queues. */
#ifndef KVS_WORKERQUEUE_H
#define KVS_WORKERQUEUE_H

#include "worker/workertask.h"

extern const KvsWorkerTask kvs_workerqueue_task;

#endif							/* KVS_WORKERQUEUE_H */
