/* guc.h: the settings of kvstore; README.md has the table of them. */
#ifndef KVS_GUC_H
#define KVS_GUC_H

#include "postgres.h"

#define KVS_MIN_VALUE_SIZE		1
#define KVS_DEFAULT_VALUE_SIZE	(16 * 1024 * 1024)
#define KVS_MAX_VALUE_SIZE		(64 * 1024 * 1024)

/* Largest value, in bytes as stored uncompressed. */
extern int	kvs_guc_max_value_size;

/* Memory of the row map, in kilobytes. */
extern int	kvs_guc_row_map_size;

extern void kvs_guc_init(void);

#endif							/* KVS_GUC_H */
