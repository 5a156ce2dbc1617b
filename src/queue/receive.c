/*
 * receive.c
 *		SQL functions that wait for messages: kv_dequeue, kv_wait_queue.
 *
 * Each attempt to get messages is one look of wait.c, in a subtransaction.  If it gives something,
 * the subtransaction stays, and the leases with it.  If not, it is rolled back, and a sleeper holds
 * no lock.
 *
 * One message wakes one waiter.  Only the waiter that is first in line wakes by itself when a
 * delayed message becomes ready.  A session wakes the next one if it was woken and ends without a
 * message, if it was first in line, or if it has seen more than it took.  So does a session that
 * ends after kv_wait_queue() has told it of a message, and before it has received any.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/fault.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "feed/wait.h"
#include "message/dequeue.h"
#include "queue/queueargs.h"

typedef struct Receive
{
	KvsWait		wait;			/* must be first */
	FunctionCallInfo fcinfo;
	KvsDequeue	request;
} Receive;

/* Try once.  The clock, and the lease, are those of this attempt. */
static void
attempt(Receive *receive, AclMode rights, int lease_arg)
{
	Relation	rel;
	KvsQueue   *queue = kvs_queue_open(kvs_args_text(receive->fcinfo, 0), RowExclusiveLock, &rel);

	kvs_queueargs_check_rights(queue, rights);
	receive->wait.relid = queue->relid;
	receive->request.now = kvs_fault_now();
	if (lease_arg >= 0)
		receive->request.deadline = kvs_queueargs_deadline(receive->fcinfo, lease_arg, queue, receive->request.now);
	kvs_dequeue(&receive->request, queue, rel);
	table_close(rel, NoLock);
}

/* A waiter that is not first in line leaves it to the first. */
static void
set_timer(Receive *receive)
{
	if (kvs_waiter_hold_timer(&receive->wait.waiter, receive->request.next))
		receive->wait.until = receive->request.next;
}

static bool
look_and_take(KvsWait *wait)
{
	Receive    *receive = (Receive *) wait;

	attempt(receive, ACL_SELECT | ACL_UPDATE | ACL_DELETE, 2);
	wait->keep = receive->request.given > 0;
	set_timer(receive);
	return receive->request.given > 0;
}

static bool
look_only(KvsWait *wait)
{
	Receive    *receive = (Receive *) wait;

	attempt(receive, ACL_SELECT, -1);
	set_timer(receive);
	return receive->request.given > 0;
}

static int
aim(KvsWait *wait, KvsWaitTarget *targets)
{
	targets[0].kind = KVS_WAIT_QUEUE;
	targets[0].relid = wait->relid;
	return 1;
}

static void
count_wait(const Receive *receive)
{
	KvsStat    *stat = kvs_stats_local(receive->wait.relid);

	kvs_stats_add(stat, KVS_COUNT_QUEUE_WAITS, receive->wait.slept ? 1 : 0);
	kvs_stats_add(stat, KVS_COUNT_QUEUE_WAKEUPS, receive->wait.wakeups);
}

static void
wake_next(const Receive *receive)
{
	if (receive->request.more)
		kvs_waiter_wake_one_now(receive->wait.relid);
}

/* ---- What a session was told of ---- */

/*
 * The queue of which kv_wait_queue() has told this session that there is a message, until it
 * receives from it.
 */
static Oid	told_of = InvalidOid;

static void
tell_another(int code, Datum arg)
{
	if (OidIsValid(told_of))
		kvs_waiter_wake_one_now(told_of);
}

static void
note_told(Oid relid)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(tell_another, (Datum) 0);
	registered = true;
	/*
	 * there is room for one: a message of which it was told before, and that it has not received,
	 * is for another session
	 */
	if (told_of != relid)
		tell_another(0, (Datum) 0);
	told_of = relid;
}

/* ---- SQL ---- */

/* kv_dequeue(queue, max_count, lease, wait) returns table */
PG_FUNCTION_INFO_V1(kvstore_dequeue);
Datum
kvstore_dequeue(PG_FUNCTION_ARGS)
{
	Receive		receive = {.fcinfo = fcinfo};
	bool		waits;

	kvs_queueargs_begin("kv_dequeue()");
	receive.request.wanted = kvs_queueargs_count(fcinfo, 1, 1);
	receive.wait.deadline = kvs_wait_deadline(fcinfo, 3, 0);
	waits = receive.request.wanted > 0 && receive.wait.deadline > GetCurrentTimestamp();
	if (waits && IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("kv_dequeue() can only wait at READ COMMITTED"),
				 errhint("This transaction cannot see what is committed after its snapshot was taken.")));
	/* what the caller expects is what the function is declared to return, and takes no look-up */
	InitMaterializedSRF(fcinfo, ((ReturnSetInfo *) fcinfo->resultinfo)->expectedDesc ? MAT_SRF_USE_EXPECTED_DESC : 0);
	receive.request.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	if (waits)
	{
		receive.wait.look = look_and_take;
		receive.wait.aim = aim;
		kvs_wait_for(&receive.wait);
		count_wait(&receive);
	}
	else
		attempt(&receive, ACL_SELECT | ACL_UPDATE | ACL_DELETE, 2);
	wake_next(&receive);
	if (told_of == receive.wait.relid)
		told_of = InvalidOid;
	return (Datum) 0;
}

/*
 * kv_wait_queue(queue, wait), a procedure: until there is something to receive, or the time is over
 */
PG_FUNCTION_INFO_V1(kvstore_wait_queue);
Datum
kvstore_wait_queue(PG_FUNCTION_ARGS)
{
	Receive		receive = {.fcinfo = fcinfo, .request.wanted = 1};

	kvs_shmem_require("kv_wait_queue()");
	/* nobody would wake us there, and kv_dequeue() gives nothing */
	PreventCommandDuringRecovery("kv_wait_queue()");
	kvs_wait_check_context(fcinfo, "kv_wait_queue()", "kv_dequeue()");
	receive.wait.deadline = kvs_wait_deadline(fcinfo, 1, 30);
	receive.wait.look = look_only;
	receive.wait.aim = aim;
	kvs_wait_in_procedure(&receive.wait);
	if (receive.wait.found)
		note_told(receive.wait.relid);
	count_wait(&receive);
	wake_next(&receive);
	PG_RETURN_NULL();
}
