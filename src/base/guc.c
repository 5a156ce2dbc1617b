/*
 * guc.c
 *		The settings, all named kvstore.<noun>.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "base/fault.h"
#include "base/guc.h"

int			kvs_guc_max_value_size = KVS_DEFAULT_VALUE_SIZE;
int			kvs_guc_row_map_size = 16 * 1024;
int			kvs_guc_feed_size = KVS_DEFAULT_FEED_SIZE;
int			kvs_guc_max_waiters = KVS_DEFAULT_MAX_WAITERS;
int			kvs_guc_fallback_poll = KVS_DEFAULT_FALLBACK_POLL;
int			kvs_guc_expiry_slots = KVS_DEFAULT_EXPIRY_SLOTS;
int			kvs_guc_expiry_tables = KVS_DEFAULT_EXPIRY_TABLES;
int			kvs_guc_sweep_batch = KVS_DEFAULT_SWEEP_BATCH;
int			kvs_guc_step_timeout = KVS_DEFAULT_STEP_TIMEOUT;
int			kvs_guc_log_sweep = KVS_DEFAULT_LOG_SWEEP;
int			kvs_guc_max_leases = KVS_DEFAULT_LEASES;
int			kvs_guc_max_leases_per_queue = -1;
int			kvs_guc_max_queues = KVS_DEFAULT_QUEUES;

int
kvs_guc_leases_of_queue(void)
{
	switch (kvs_guc_max_leases_per_queue)
	{
		case -1:
			return kvs_guc_max_leases / 2;
		case 0:
			return kvs_guc_max_leases;
		default:
			return kvs_guc_max_leases_per_queue;
	}
}

/* The settings that size shared memory exist only where there is some. */
static void
define_sizes(void)
{
	DefineCustomIntVariable("kvstore.row_map_size",
							"Memory in which the places of rows are remembered, 8 bytes for each.",
							"Zero turns it off.",
							&kvs_guc_row_map_size,
							16 * 1024, 0, 1024 * 1024,
							PGC_POSTMASTER, GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("kvstore.expiry_slots",
							"Slots of the map of where expired entries may be.",
							"One for each 64 kB of tables whose entries expire.",
							&kvs_guc_expiry_slots,
							KVS_DEFAULT_EXPIRY_SLOTS, KVS_MIN_EXPIRY_SLOTS, KVS_MAX_EXPIRY_SLOTS,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("kvstore.expiry_tables",
							"Stores, snapshot stores and queues in that map, all databases.",
							"What comes later is read in full when something is due there.",
							&kvs_guc_expiry_tables,
							KVS_DEFAULT_EXPIRY_TABLES, KVS_MIN_EXPIRY_TABLES, KVS_MAX_EXPIRY_TABLES,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("kvstore.max_leases",
							"Leases held at once, all queues.",
							"A dequeue beyond that fails, and nothing is lost.",
							&kvs_guc_max_leases,
							KVS_DEFAULT_LEASES, KVS_MIN_LEASES, KVS_MAX_LEASES,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("kvstore.max_queues",
							"Queues in use at once, all databases.",
							NULL,
							&kvs_guc_max_queues,
							KVS_DEFAULT_QUEUES, 1, KVS_MAX_QUEUES,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("kvstore.feed_size",
							"Memory in which recent changes are kept for those who follow them, all databases together.",
							NULL,
							&kvs_guc_feed_size,
							KVS_DEFAULT_FEED_SIZE, KVS_MIN_FEED_SIZE, KVS_MAX_FEED_SIZE,
							PGC_POSTMASTER, GUC_UNIT_KB,
							NULL, NULL, NULL);

	DefineCustomIntVariable("kvstore.max_waiters",
							"Sessions that can wait for changes or messages at once.",
							NULL,
							&kvs_guc_max_waiters,
							KVS_DEFAULT_MAX_WAITERS, KVS_MIN_MAX_WAITERS, KVS_MAX_MAX_WAITERS,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
}

static void
define_for_sessions(void)
{
	DefineCustomIntVariable("kvstore.max_value_size",
							"Largest value that an entry may have.",
							"A store may have a smaller limit of its own.",
							&kvs_guc_max_value_size,
							KVS_DEFAULT_VALUE_SIZE, KVS_MIN_VALUE_SIZE, KVS_MAX_VALUE_SIZE,
							PGC_SUSET, GUC_UNIT_BYTE,
							NULL, NULL, NULL);

	DefineCustomIntVariable("kvstore.fallback_poll",
							"How often a session that waits looks again, should it not be woken.",
							"So soon it also notices that the store was dropped, or its right to read it revoked.",
							&kvs_guc_fallback_poll,
							KVS_DEFAULT_FALLBACK_POLL, 10, 60000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("kvstore.max_leases_per_queue",
							"Leases held at once of one queue.",
							"-1: half of kvstore.max_leases.  Zero: as many as that allows.",
							&kvs_guc_max_leases_per_queue,
							-1, -1, KVS_MAX_LEASES,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
}

static void
define_for_worker(void)
{
	DefineCustomIntVariable("kvstore.sweep_batch",
							"Expired entries that are removed in one transaction.",
							NULL,
							&kvs_guc_sweep_batch,
							KVS_DEFAULT_SWEEP_BATCH, KVS_MIN_SWEEP_BATCH, KVS_MAX_SWEEP_BATCH,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);

	DefineCustomIntVariable("kvstore.step_timeout",
							"A step of the worker that runs code of a table's owner is cancelled after this.",
							"The table is left alone for a while then, and tried again with fewer rows.",
							&kvs_guc_step_timeout,
							KVS_DEFAULT_STEP_TIMEOUT, KVS_MIN_STEP_TIMEOUT, KVS_MAX_STEP_TIMEOUT,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("kvstore.log_sweep",
							"Logs a sweep that removed at least so many expired entries.",
							"-1 logs none.",
							&kvs_guc_log_sweep,
							KVS_DEFAULT_LOG_SWEEP, -1, INT_MAX,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
}

void
kvs_guc_init(void)
{
	if (process_shared_preload_libraries_in_progress)
		define_sizes();
	define_for_sessions();
	define_for_worker();
	kvs_fault_init();
	MarkGUCPrefixReserved("kvstore");
}
