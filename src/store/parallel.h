/* parallel.h: queries that read stores in parallel, as the policies allow. */
#ifndef KVS_PARALLEL_H
#define KVS_PARALLEL_H

extern void kvs_parallel_init(void);

#endif							/* KVS_PARALLEL_H */
