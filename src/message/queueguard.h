/* queueguard.h: the guard's rules for queues and dead letters. */
#ifndef KVS_QUEUEGUARD_H
#define KVS_QUEUEGUARD_H

extern void kvs_queueguard_init(void);

#endif							/* KVS_QUEUEGUARD_H */
