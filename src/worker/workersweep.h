/* workersweep.h: the worker's task of removing expired rows. */
#ifndef KVS_WORKERSWEEP_H
#define KVS_WORKERSWEEP_H

#include "worker/workertask.h"

extern const KvsWorkerTask kvs_workersweep_task;

#endif							/* KVS_WORKERSWEEP_H */
