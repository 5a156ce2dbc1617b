/* storeguard.h: the guard's rules for stores. */
#ifndef KVS_STOREGUARD_H
#define KVS_STOREGUARD_H

/* After all other rules: whatever is none of theirs is taken for a store, and looked at. */
extern void kvs_storeguard_init(void);

#endif							/* KVS_STOREGUARD_H */
