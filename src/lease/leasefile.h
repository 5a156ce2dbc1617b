/* leasefile.h: leases in the file that outlives a clean restart. */
#ifndef KVS_LEASEFILE_H
#define KVS_LEASEFILE_H

/* From shmem_startup_hook, after those of queueslot.c and lease.c. */
extern void kvs_leasefile_init(void);

#endif							/* KVS_LEASEFILE_H */
