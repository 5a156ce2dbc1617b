/* storecount.h: how many stores and keys there are, estimated. */
#ifndef KVS_STORECOUNT_H
#define KVS_STORECOUNT_H

extern void kvs_storecount_init(void);

#endif							/* KVS_STORECOUNT_H */
