/*
 * kvstore.c
 *		_PG_init: the table of contents of the library.
 */
#include "postgres.h"

#include "fmgr.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "base/trouble.h"
#include "base/xact.h"
#include "expiry/expiry.h"
#include "feed/feed.h"
#include "feed/waiter.h"
#include "kv/list.h"
#include "lease/leaseentry.h"
#include "lease/leasefile.h"
#include "lease/queueslot.h"
#include "lease/queuexact.h"
#include "message/queueguard.h"
#include "store/absence.h"
#include "store/change.h"
#include "store/parallel.h"
#include "store/rowmap.h"
#include "store/stamp.h"
#include "store/storecount.h"
#include "store/storeguard.h"
#include "table/catalog.h"
#include "table/plan.h"
#include "table/queuecatalog.h"
#include "worker/launcher.h"

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
	kvs_listnode_init();
	kvs_parallel_init();
	kvs_queueslot_init();
	kvs_leaseentry_init();
	kvs_leasefile_init();
	kvs_queuexact_init();
	kvs_queueguard_init();
	kvs_storeguard_init();
}
