/*
 * kvstore.c
 *		_PG_init: the table of contents of the library.
 */
#include "postgres.h"

#include "fmgr.h"

#include "absence.h"
#include "catalog.h"
#include "change.h"
#include "expiry.h"
#include "feed.h"
#include "guc.h"
#include "launcher.h"
#include "leaseentry.h"
#include "leasefile.h"
#include "list.h"
#include "parallel.h"
#include "plan.h"
#include "queuecatalog.h"
#include "queueguard.h"
#include "queueslot.h"
#include "queuexact.h"
#include "rowmap.h"
#include "shmem.h"
#include "stamp.h"
#include "stats.h"
#include "storecount.h"
#include "storeguard.h"
#include "trouble.h"
#include "waiter.h"
#include "xact.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	kvs_guc_init();
	kvs_shmem_init();
	kvs_xact_init();
	kvs_stats_init();
	kvs_trouble_init();
	kvs_catalog_init();
	kvs_storecatalog_init();
	kvs_queuecatalog_init();
	kvs_plan_init();
	kvs_stamp_init();
	kvs_absence_init();
	kvs_rowmap_init();
	kvs_expirymap_init();
	kvs_expiry_init();
	kvs_storecount_init();
	kvs_feed_init();
	kvs_waiter_init();
	kvs_change_init();
	kvs_launcher_init();
	kvs_list_node_init();
	kvs_parallel_init();
	kvs_queueslot_init();
	kvs_leaseentry_init();
	kvs_leasefile_init();
	kvs_queuexact_init();
	kvs_queueguard_init();
	kvs_storeguard_init();
}
