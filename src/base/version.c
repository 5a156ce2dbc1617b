/*
 * version.c
 *		What an operator asks: which version runs, and how it was started.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/shmem.h"

/* kv_version() returns text: the version of the library that is loaded */
PG_FUNCTION_INFO_V1(kvstore_version);
Datum
kvstore_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(KVS_VERSION));
}

/*
 * kvstore.shared_since() returns timestamptz: since when shared memory exists, NULL without preload
 */
PG_FUNCTION_INFO_V1(kvstore_shared_since);
Datum
kvstore_shared_since(PG_FUNCTION_ARGS)
{
	if (kvs_shared == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(kvs_shared->started_at);
}
