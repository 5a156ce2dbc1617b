/* guard.h: the trigger on every store, and how our own writes pass it. */
#ifndef KVS_GUARD_H
#define KVS_GUARD_H

#include "postgres.h"

/* The table that a function of ours is writing now; whoever sets it restores what was there, also on ERROR. */
extern Oid	kvs_guard_writing;

#endif							/* KVS_GUARD_H */
