/*
 * kvstore.c
 *		_PG_init: the table of contents of the library.
 */
#include "postgres.h"

#include "fmgr.h"

#include "catalog.h"
#include "change.h"
#include "check.h"
#include "expiry.h"
#include "guard.h"
#include "guc.h"
#include "launcher.h"
#include "list.h"
#include "parallel.h"
#include "queuecatalog.h"
#include "queuexact.h"
#include "shmem.h"
#include "stats.h"
#include "waiter.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	kvs_guc_init();
	kvs_shmem_init();
	kvs_catalog_init();
	kvs_storecatalog_init();
	kvs_queuecatalog_init();
	kvs_guard_init();
	kvs_check_init();
	kvs_stats_init();
	kvs_expiry_init();
	kvs_change_init();
	kvs_launcher_init();
	kvs_list_node_init();
	kvs_parallel_init();
	kvs_queuexact_init();
	kvs_waiter_init();
}
