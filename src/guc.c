/*
 * guc.c
 *		The settings, all named kvstore.<noun>.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"

#include "guc.h"

int			kvs_guc_max_value_size = KVS_DEFAULT_VALUE_SIZE;
int			kvs_guc_row_map_size = 16 * 1024;

void
kvs_guc_init(void)
{
	DefineCustomIntVariable("kvstore.max_value_size",
							"Largest value that an entry may have.",
							"A store may have a smaller limit of its own.",
							&kvs_guc_max_value_size,
							KVS_DEFAULT_VALUE_SIZE, KVS_MIN_VALUE_SIZE, KVS_MAX_VALUE_SIZE,
							PGC_SUSET, GUC_UNIT_BYTE,
							NULL, NULL, NULL);

	/* What sizes shared memory exists only where there is some. */
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("kvstore.row_map_size",
								"Memory in which the places of rows are remembered, 8 bytes for each.",
								"Zero turns it off.",
								&kvs_guc_row_map_size,
								16 * 1024, 0, 1024 * 1024,
								PGC_POSTMASTER, GUC_UNIT_KB,
								NULL, NULL, NULL);

	MarkGUCPrefixReserved("kvstore");
}
