/*
 * leasefile.c
 *		Leases in the file that outlives a clean restart.
 *
 * A consumer that works on a message while the server is restarted acknowledges it afterwards.
 * Nobody else gets the message meanwhile.  Heads are not kept: each costs one scan.  After a crash
 * there is no file, so every message is delivered again.
 */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "utils/timestamp.h"

#include "base/shmem.h"
#include "base/statefile.h"
#include "lease/lease.h"
#include "lease/leasefile.h"

static void
write_lease(const KvsLeaseImage *lease, void *arg)
{
	StringInfo	out = arg;
	const KvsMessageRef *message = &lease->message;

	pq_sendint32(out, lease->database);
	pq_sendint32(out, lease->relid);
	pq_sendbyte(out, lease->returned);
	pq_sendbyte(out, lease->end);
	pq_sendint64(out, lease->token);
	pq_sendint64(out, lease->due);
	pq_sendint64(out, lease->since);
	pq_sendint64(out, message->id);
	pq_sendint64(out, message->enqueued_at);
	pq_sendint64(out, message->ready_at);
	pq_sendint64(out, message->delay);
	pq_sendint32(out, message->priority);
	pq_sendint32(out, message->attempts);
	pq_sendint32(out, message->max_attempts);
	pq_sendint32(out, message->failures);
	pq_sendbyte(out, message->dying);
	pq_sendint32(out, ItemPointerGetBlockNumberNoCheck(&message->tid));
	pq_sendint16(out, ItemPointerGetOffsetNumberNoCheck(&message->tid));
}

static void
write_leases(StringInfo out)
{
	kvs_leaselook_save(write_lease, out);
}

static void
read_lease(StringInfo in, KvsLeaseImage *lease)
{
	KvsMessageRef *message = &lease->message;
	BlockNumber block;

	lease->database = pq_getmsgint(in, 4);
	lease->relid = pq_getmsgint(in, 4);
	lease->returned = pq_getmsgbyte(in);
	lease->end = pq_getmsgbyte(in);
	lease->token = pq_getmsgint64(in);
	lease->due = pq_getmsgint64(in);
	lease->since = pq_getmsgint64(in);
	message->id = pq_getmsgint64(in);
	message->enqueued_at = pq_getmsgint64(in);
	message->ready_at = pq_getmsgint64(in);
	message->delay = pq_getmsgint64(in);
	message->priority = pq_getmsgint(in, 4);
	message->attempts = pq_getmsgint(in, 4);
	message->max_attempts = pq_getmsgint(in, 4);
	message->failures = pq_getmsgint(in, 4);
	message->dying = pq_getmsgbyte(in) != 0;
	block = pq_getmsgint(in, 4);
	ItemPointerSet(&message->tid, block, pq_getmsgint(in, 2));
}

static void
read_leases(StringInfo in)
{
	KvsLeaseImage lease;

	while (in->cursor < in->len)
	{
		read_lease(in, &lease);
		if (lease.message.priority < 0 || lease.message.priority > KVS_MAX_PRIORITY || !kvs_leaselook_restore(&lease))
		{
			ereport(LOG,
					(errmsg("kvstore: not all leases could be restored, their messages are delivered again"),
					 errhint("Do not lower \"kvstore.max_leases\" or \"kvstore.max_queues\" while messages are leased.")));
			return;
		}
	}
}

static void
startup_shmem(void)
{
	kvs_statefile_add("leases", write_leases, read_leases);
}

void
kvs_leasefile_init(void)
{
	kvs_shmem_add(NULL, startup_shmem);
}
