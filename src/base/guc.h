/* guc.h: the settings of kvstore; doc/reference.md has the table of them. */
#ifndef KVS_GUC_H
#define KVS_GUC_H

#include "postgres.h"

#define KVS_MIN_VALUE_SIZE		1
#define KVS_DEFAULT_VALUE_SIZE	(16 * 1024 * 1024)
#define KVS_MAX_VALUE_SIZE		(64 * 1024 * 1024)

/* Largest value, in bytes as stored uncompressed. */
extern int	kvs_guc_max_value_size;

#define KVS_MIN_FEED_SIZE			256
#define KVS_DEFAULT_FEED_SIZE		(16 * 1024)
#define KVS_MAX_FEED_SIZE			(8 * 1024 * 1024)

/* Memory of the feed, in kilobytes. */
extern int	kvs_guc_feed_size;

#define KVS_MIN_MAX_WAITERS			8
#define KVS_DEFAULT_MAX_WAITERS		1024
#define KVS_MAX_MAX_WAITERS			65536

/* Sessions that wait at once. */
extern int	kvs_guc_max_waiters;

#define KVS_DEFAULT_FALLBACK_POLL	1000

/* A waiter looks again after so many milliseconds. */
extern int	kvs_guc_fallback_poll;

/* Memory of the row map, in kilobytes. */
extern int	kvs_guc_row_map_size;

#define KVS_MIN_EXPIRY_SLOTS		256
#define KVS_DEFAULT_EXPIRY_SLOTS	65536
#define KVS_MAX_EXPIRY_SLOTS		(64 * 1024 * 1024)

/* Slots of the expiry map: one for each 64 kB of tables whose entries expire. */
extern int	kvs_guc_expiry_slots;

#define KVS_MIN_EXPIRY_TABLES		16
#define KVS_DEFAULT_EXPIRY_TABLES	16384
#define KVS_MAX_EXPIRY_TABLES		(4 * 1024 * 1024)

/* Tables in the expiry map, all databases. */
extern int	kvs_guc_expiry_tables;

#define KVS_MIN_SWEEP_BATCH			1
#define KVS_DEFAULT_SWEEP_BATCH		1000
#define KVS_MAX_SWEEP_BATCH			1000000

/* Rows that the worker removes in one transaction. */
extern int	kvs_guc_sweep_batch;

#define KVS_MIN_STEP_TIMEOUT		100
#define KVS_DEFAULT_STEP_TIMEOUT	5000
#define KVS_MAX_STEP_TIMEOUT		(60 * 60 * 1000)

/*
 * A step of the worker that runs code of a table's owner is cancelled after so many milliseconds.
 */
extern int	kvs_guc_step_timeout;

#define KVS_DEFAULT_LOG_SWEEP		1000

/* A sweep that removed at least so many rows is logged; -1: none is. */
extern int	kvs_guc_log_sweep;

#define KVS_MIN_LEASES			16
#define KVS_DEFAULT_LEASES		65536
#define KVS_MAX_LEASES			(16 * 1024 * 1024)

/* Leases at once, all queues; and of one queue, -1: half of them, 0: all. */
extern int	kvs_guc_max_leases;
extern int	kvs_guc_max_leases_per_queue;

/* How many leases that allows one queue; all of them may be a few more, see leaseview.c. */
extern int	kvs_guc_leases_of_queue(void);

#define KVS_DEFAULT_QUEUES		1024
#define KVS_MAX_QUEUES			65536

/* Queues in use, all databases. */
extern int	kvs_guc_max_queues;

extern void kvs_guc_init(void);

#endif							/* KVS_GUC_H */
