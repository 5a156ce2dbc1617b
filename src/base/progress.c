/*
 * progress.c
 *		How far a long operation has come, for the view kv_stat_progress.
 *
 * PostgreSQL's own progress reporting carries it.  Every backend has a slot with a command, a
 * relation and numbers, which all can read.  The transaction's end clears it, whatever happens.
 * PostgreSQL does not use our command number, so its views do not show ours.  It needs no preload.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/progress.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/backend_progress.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/progress.h"

/* "kvst", where PostgreSQL counts from 0 */
#define KVS_PROGRESS_COMMAND	((ProgressCommandType) 0x6b767374)

enum
{
	PARAM_COMMAND,
	PARAM_DONE,
	PARAM_TOTAL,
	PARAM_STARTED_AT
};

/* Publish every so many items: often enough to be watched, rarely enough to cost nothing. */
#define ADVANCE_STEP	64

static const char *const command_names[] = {
	[KVS_COMMAND_SET_MANY] = "set many",
	[KVS_COMMAND_DELETE_MANY] = "delete many",
	[KVS_COMMAND_DELETE_PREFIX] = "delete prefix",
	[KVS_COMMAND_CLEAR] = "clear",
	[KVS_COMMAND_IMPORT] = "import",
	[KVS_COMMAND_PURGE_QUEUE] = "purge queue",
	[KVS_COMMAND_REQUEUE_ALL] = "requeue all",
};

/*
 * The operation that this backend reports, or would if no other command did.  A trigger of the
 * tables that it writes may begin another operation inside it.  That one is not reported.
 */
static KvsCommand current_command;
static Oid	current_relid;
static int64 current_total;
static int64 started_at;
static int64 done = 0;
static int	inner = 0;		/* operations inside the one that is reported */

/*
 * Is the command that this backend reports ours?  Another one, such as COPY, that called us goes on
 * reporting.
 */
static bool
is_reporting(ProgressCommandType command)
{
	return MyBEEntry != NULL && MyBEEntry->st_progress_command == command;
}

static void
report(void)
{
	const int	params[4] = {PARAM_COMMAND, PARAM_DONE, PARAM_TOTAL, PARAM_STARTED_AT};
	const int64 values[4] = {current_command, done, current_total, started_at};

	if (!is_reporting(PROGRESS_COMMAND_INVALID))
		return;
	pgstat_progress_start_command(KVS_PROGRESS_COMMAND, current_relid);
	pgstat_progress_update_multi_param(4, params, values);
}

void
kvs_progress_begin(KvsCommand command, Oid relid, int64 total)
{
	/* an ERROR ends the report and all that is inside */
	inner = is_reporting(KVS_PROGRESS_COMMAND) ? inner + 1 : 0;
	if (inner > 0)
		return;
	current_command = command;
	current_relid = relid;
	current_total = total;
	started_at = GetCurrentTimestamp();
	done = 0;
	report();
}

void
kvs_progress_resume(int64 items_done)
{
	if (inner > 0)
		return;
	done = items_done;
	report();
}

void
kvs_progress_advance(void)
{
	if (inner == 0 && ++done % ADVANCE_STEP == 0 && is_reporting(KVS_PROGRESS_COMMAND))
		pgstat_progress_update_param(PARAM_DONE, done);
}

void
kvs_progress_end(void)
{
	if (inner > 0)
		inner--;
	else if (is_reporting(KVS_PROGRESS_COMMAND))
		pgstat_progress_end_command();
}

/* ---- SQL ---- */

/*
 * kvstore.stat_progress(): the long operations that run now in this database and that the caller
 * may see
 */
PG_FUNCTION_INFO_V1(kvstore_stat_progress);
Datum
kvstore_stat_progress(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			count = pgstat_fetch_stat_numbackends();

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 1; i <= count; i++)
	{
		LocalPgBackendStatus *local = kvs_compat_local_backend_entry(i);
		PgBackendStatus *status = local ? &local->backendStatus : NULL;
		int64		command;
		Datum		values[6];
		bool		nulls[6] = {false};

		if (status == NULL || status->st_progress_command != KVS_PROGRESS_COMMAND ||
			status->st_databaseid != MyDatabaseId ||
			!(has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
			  has_privs_of_role(GetUserId(), status->st_userid)))
			continue;
		command = status->st_progress_param[PARAM_COMMAND];
		if (command < 0 || command >= (int64) lengthof(command_names))
			continue;
		values[0] = Int32GetDatum(status->st_procpid);
		values[1] = CStringGetTextDatum(command_names[command]);
		values[2] = ObjectIdGetDatum(status->st_progress_command_target);
		values[3] = Int64GetDatum(status->st_progress_param[PARAM_DONE]);
		values[4] = Int64GetDatum(status->st_progress_param[PARAM_TOTAL]);
		nulls[4] = status->st_progress_param[PARAM_TOTAL] < 0;
		values[5] = TimestampTzGetDatum(status->st_progress_param[PARAM_STARTED_AT]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
