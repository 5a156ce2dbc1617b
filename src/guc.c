/*
 * guc.c
 *		The settings, all named kvstore.<noun>.
 */
#include "postgres.h"

#include "utils/guc.h"

#include "guc.h"

int			kvs_guc_max_value_size = KVS_DEFAULT_VALUE_SIZE;

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

	MarkGUCPrefixReserved("kvstore");
}
