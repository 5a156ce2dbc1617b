/*
 * queuecatalog.h
 *		From the name of a queue to a table that is safe to read: look-up, shape check, settings.
 *
 * Names: kvs_queue_
 */
#ifndef KVS_QUEUECATALOG_H
#define KVS_QUEUECATALOG_H

#include "postgres.h"

#include "access/transam.h"
#include "executor/spi.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "table/backoff.h"
#include "table/plan.h"

/* Columns of a queue, as they are numbered in its slots. */
typedef enum KvsQueueColumn
{
	KVS_QUEUE_COLUMN_ID,
	KVS_QUEUE_COLUMN_READY_AT,
	KVS_QUEUE_COLUMN_ENQUEUED_AT,
	KVS_QUEUE_COLUMN_PRIORITY,
	KVS_QUEUE_COLUMN_ATTEMPTS,
	KVS_QUEUE_COLUMN_PAYLOAD,
	KVS_QUEUE_COLUMN_HEADERS,
	KVS_QUEUE_COLUMN_MAX_ATTEMPTS,
	KVS_QUEUE_COLUMN_BACKOFF,
	KVS_QUEUE_COLUMN_EXPIRES_AT,
	KVS_QUEUE_COLUMN_DEDUPE_KEY,
	KVS_QUEUE_COLUMN_KEYS_IF_UNDELIVERED,
	KVS_QUEUE_COLUMN_UNDELIVERED_STORE,
	KVS_QUEUE_COLUMN_LAST_ERROR,
	KVS_QUEUE_COLUMN_SENDER,	/* name of the role that sent it; NULL: the row came otherwise */
	KVS_QUEUE_COLUMN_FAILED_AT	/* when it was given up; it is never delivered from then on */
} KvsQueueColumn;

#define KVS_QUEUE_COLUMNS	(KVS_QUEUE_COLUMN_FAILED_AT + 1)

/* Columns of the dead letters of a queue. */
typedef enum KvsDeadColumn
{
	KVS_DEAD_COLUMN_ID,
	KVS_DEAD_COLUMN_ORIGINAL_ID,
	KVS_DEAD_COLUMN_PAYLOAD,
	KVS_DEAD_COLUMN_HEADERS,
	KVS_DEAD_COLUMN_ERROR,
	KVS_DEAD_COLUMN_ATTEMPTS,
	KVS_DEAD_COLUMN_ENQUEUED_AT,
	KVS_DEAD_COLUMN_FAILED_AT,
	KVS_DEAD_COLUMN_PRIORITY,
	KVS_DEAD_COLUMN_MAX_ATTEMPTS,
	KVS_DEAD_COLUMN_BACKOFF,
	KVS_DEAD_COLUMN_TTL,		/* what was left to live when it was sent; NULL: for ever */
	KVS_DEAD_COLUMN_DEDUPE_KEY,
	KVS_DEAD_COLUMN_KEYS_IF_UNDELIVERED,
	KVS_DEAD_COLUMN_UNDELIVERED_STORE,
	KVS_DEAD_COLUMN_SENDER
} KvsDeadColumn;

#define KVS_DEAD_COLUMNS	(KVS_DEAD_COLUMN_SENDER + 1)

/* Priorities are 0 to this; a higher one comes first. */
#define KVS_MAX_PRIORITY	9

/* Longest lease, in microseconds. */
#define KVS_MAX_LEASE		(12 * USECS_PER_HOUR)

/* What messages call the table of the dead letters. */
#define KVS_DEAD_PART		"dead letters"

/* Settings of a queue without a row in the registry; kv_create_queue() has the same defaults. */
#define KVS_DEFAULT_LEASE			(30 * USECS_PER_SEC)
#define KVS_DEFAULT_MAX_ATTEMPTS	10

/* Kept plans of one queue. */
typedef enum KvsQueuePlan
{
	KVS_QUEUE_PLAN_INSERT,
	KVS_QUEUE_PLAN_INSERT_UNLESS_PRESENT,
	KVS_QUEUE_PLAN_DELETE,
	KVS_QUEUE_PLAN_CHANGE,
	KVS_QUEUE_PLAN_GIVE_UP,
	KVS_QUEUE_PLAN_FREE_KEY,
	KVS_QUEUE_PLAN_BURY,
	KVS_QUEUE_PLAN_PURGE,
	KVS_QUEUE_PLAN_CANCEL,
	KVS_QUEUE_PLAN_PEEK,
	KVS_QUEUE_PLAN_DEAD_LIST,
	KVS_QUEUE_PLAN_DEAD_TAKE,
	KVS_QUEUE_PLAN_DEAD_TAKE_ALL,
	KVS_QUEUE_PLAN_DEAD_CONDITIONS,
	KVS_QUEUE_PLAN_DEAD_DELETE,
	KVS_QUEUE_PLAN_DEAD_PURGE,
	KVS_QUEUE_PLAN_END
} KvsQueuePlan;

#define KVS_QUEUE_PLANS		32	/* some room for later ones */

/*
 * A queue as this session knows it; "valid" until something about the table changes.  Whoever uses
 * it has the table open: else it may go.
 */
typedef struct KvsQueue
{
	Oid			relid;			/* hash key; must be first */
	char		name[NAMEDATALEN];
	bool		valid;
	Oid			order_index;	/* over (priority DESC, ready_at, id) */
	Oid			id_index;		/* unique, over id */
	Oid			dedupe_index;	/* unique, over dedupe_key where that is not null */
	Oid			sequence;		/* gives the ids */
	/*
	 * nothing about the table but its columns and these three indexes: rows may be written by the
	 * table access method
	 */
	bool		plain;
	Oid			owner;
	Interval	lease;
	int			max_attempts;
	int			nbackoff;		/* 0: failed messages are ready at once */
	bool		jitter;			/* it is the default one, whose delays vary */
	Interval	backoff[KVS_BACKOFF_MAX];
	bool		keep_dead;
	bool		paused;
	bool		replicated;		/* a subscription that is enabled brings its rows */
	SPIPlanPtr	plans[KVS_QUEUE_PLANS];
	KvsPlanOwner planned;		/* queueplan.c's */
	/* where the queue was in shared memory when last looked for; -1: nowhere */
	int			slot;
	FullTransactionId removed_by;	/* see kvs_queue_note_removal() */
	struct KvsStat *stat;		/* pending counts, see stats.h */
} KvsQueue;

/*
 * Open a queue's table with the given lock, kept until the transaction ends.  Close it with
 * table_close(rel, NoLock).  42P01: no such queue; 42809: the table has not the shape of a queue;
 * 22023: no possible name; 22004: name is NULL; 0A000: row-level security, or an unlogged queue
 * during recovery; 55000: to write, with RowExclusiveLock, what a subscription brings.
 */
extern KvsQueue *kvs_queue_open(const text *name, LOCKMODE lockmode, Relation *rel);

/*
 * The same by OID, for receipts and the worker.  NULL, without an ERROR: there is no such table, or
 * it is no queue that could be opened by name.
 */
extern KvsQueue *kvs_queue_open_relid(Oid relid, LOCKMODE lockmode, Relation *rel);

/*
 * The entry of an open table; 42809 if it has not the shape of a queue.  Row-level security does
 * not matter here.
 */
extern KvsQueue *kvs_queue_of(Relation rel);

/* The same, but NULL if it has not. */
extern KvsQueue *kvs_queue_find(Relation rel);

/* Raise 42809 unless the open table has the shape of a queue, or of its dead letters. */
extern void kvs_queue_check_shape(Relation rel);
extern void kvs_queue_check_dead_shape(Relation rel);

/* Is the table called as a queue is, in our schema?  Its shape is not looked at. */
extern bool kvs_queue_is_named(Relation rel);

/* Is it called as the dead letters of one are? */
extern bool kvs_queue_is_named_dead(Relation rel);

/*
 * This transaction changes or removes rows of the queue without leases.  It no longer sees them,
 * but if it rolls back they are there again.  So a caller of kvs_queue_has_removed() must not
 * conclude that they are gone.
 */
extern void kvs_queue_note_removal(Oid relid);
extern bool kvs_queue_has_removed(const KvsQueue *queue);

/*
 * Is the open queue paused?  If it was, the registry is asked again: the invalidation that it goes
 * on comes later than the wake-up.
 */
extern bool kvs_queue_is_paused(KvsQueue *queue);

/* The OIDs of tables that may be queues. */
extern List *kvs_queue_list(void);

/*
 * Open the table of a queue's dead letters likewise.  42P01: there is none; 42809: it has another
 * shape; 42501: it does not belong to the queue's owner.
 */
extern Relation kvs_queue_open_dead(const KvsQueue *queue, LOCKMODE lockmode);

/*
 * Lock the table of the dead letters for writing until the transaction ends, if nobody is in the
 * way.  "plain": only if nothing but our own code runs when a row is inserted.
 */
extern bool kvs_queue_try_lock_dead(const KvsQueue *queue, bool plain);

/* A max_attempts as given; 22023 unless it is 1 or more. */
extern int32 kvs_queue_check_max_attempts(int64 max_attempts);

extern void kvs_queuecatalog_init(void);

#endif							/* KVS_QUEUECATALOG_H */
