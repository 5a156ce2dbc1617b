/*
 * workerprocess.c
 *		The process of a worker: its settings, signals, waits and short transactions.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "expiry/expiry.h"
#include "table/catalog.h"
#include "worker/workerprocess.h"

static MemoryContext step_context;

/* ---- Coming ---- */

/* What the configuration says for users does not hold for us. */
static void
set_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", ""},
		{"synchronous_commit", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

void
kvs_workerprocess_begin_work(Oid database)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	set_settings();
	step_context = AllocSetContextCreate(TopMemoryContext, "kvstore worker step", ALLOCSET_DEFAULT_SIZES);
}

/* ---- Leaving ---- */

/* Does DROP DATABASE, CREATE DATABASE ... TEMPLATE or the like wait for us to go? */
bool
kvs_workerprocess_database_is_wanted(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, RowExclusiveLock, true);
	return false;
}

void
kvs_workerprocess_handle_signals(void)
{
	/* Outside a transaction there is nothing to say: the postmaster logs that we have gone. */
	if (ProcDiePending)
		proc_exit(1);
	/* ... and nothing to cancel */
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

bool
kvs_workerprocess_is_in_the_way(void)
{
	kvs_workerprocess_handle_signals();
	return kvs_workerprocess_database_is_wanted() || kvs_catalog_extension_is_wanted();
}

void
kvs_workerprocess_wait(long timeout)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
					 kvs_compat_wait_event("KvstoreWorker"));
	ResetLatch(MyLatch);
	kvs_workerprocess_handle_signals();
}

/* ---- Transactions ---- */

void
kvs_workerprocess_begin(const char *activity)
{
	MemoryContextReset(step_context);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, activity);
	MemoryContextSwitchTo(step_context);
}

void
kvs_workerprocess_commit(void)
{
	CommitTransactionCommand();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

ErrorData *
kvs_workerprocess_abort(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(step_context);
	error = CopyErrorData();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(step_context);
	pgstat_report_activity(STATE_IDLE, NULL);
	return error;
}

void
kvs_workerprocess_recover(void)
{
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(step_context);
	if (kvs_expirydue_may_log(GetCurrentTimestamp()))
		EmitErrorReport();
	(void) kvs_workerprocess_abort();
	RESUME_INTERRUPTS();
}
