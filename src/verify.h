/* verify.h: looking for messages that no dequeue would find. */
#ifndef KVS_VERIFY_H
#define KVS_VERIFY_H

#include "postgres.h"

#include "reader.h"

/*
 * There should be none: each is a bug, is logged, and can be delivered from then on.  In a transaction of the worker.  Returns false if the look has to be
 * repeated, because somebody is in the way.
 */
extern bool kvs_verify_queue(KvsReader *reader);

#endif							/* KVS_VERIFY_H */
