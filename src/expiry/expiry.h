/*
 * expiry.h
 *		Where expired entries may be: the expiry map.
 *
 * Without preload there is no map: notes are ignored, and a sweep has to read whole tables.
 */
#ifndef KVS_EXPIRY_H
#define KVS_EXPIRY_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "storage/block.h"
#include "utils/timestamp.h"

#include "expiry/turns.h"

/*
 * Heap blocks of a group.  An entry that expires alone costs the sweeper so many block reads, so it
 * is small.
 */
#define KVS_EXPIRY_GROUP	8

/*
 * A due row or table that another session has locked is looked at again after so many milliseconds.
 */
#define KVS_EXPIRY_RETRY	500

/* The smallest expiry of some rows, as a TimestampTz; DT_NOEND: none expires. */
typedef pg_atomic_uint64 KvsExpirySlot;

/* A table in the map. */
typedef struct KvsExpiryTable KvsExpiryTable;

/* Is there a map? */
extern bool kvs_expiry_is_there(void);

/* ---- Writers ---- */

/* Notes are wanted, because the library was preloaded. */
extern bool kvs_expirymap_active;

extern void kvs_expiry_note_row(Oid relid, BlockNumber block, TimestampTz when);

/*
 * Remember that this transaction put a row expiring at "when" into "block" of "relid"
 * (InvalidBlockNumber: nobody knows where); published at commit.  The table must be locked until
 * the transaction ends.
 */
static inline void
kvs_expiry_note(Oid relid, BlockNumber block, TimestampTz when)
{
	if (when != DT_NOEND && kvs_expirymap_active)
		kvs_expiry_note_row(relid, block, when);
}

/* ---- Sweepers ---- */

/* Some blocks that are due. */
typedef struct KvsExpiryGroup
{
	KvsExpirySlot *slot;
	BlockNumber block;			/* the first */
} KvsExpiryGroup;

/* Groups given at once. */
#define KVS_EXPIRY_WORK_GROUPS	64

/* What is to be done with one table. */
typedef struct KvsExpiryWork
{
	Oid			relid;
	KvsExpiryTable *table;
	KvsTurn		turn;			/* if any table was asked for */
	bool		whole;			/* all of it is due, or a pass over it is under way */
	int			ngroups;
	KvsExpiryGroup groups[KVS_EXPIRY_WORK_GROUPS];
} KvsExpiryWork;

/*
 * Find what a table of this database has due.  InvalidOid: the table whose turn it is (turns.h), of
 * those that have something due and are not set aside.  With "passes" false, tables that are due in
 * full are left out.
 */
extern bool kvs_expirydue_find_work(Oid relid, TimestampTz now, bool passes, KvsExpiryWork *work);

/*
 * Set a slot to "never", before the snapshot is taken with which its blocks are scanned.  Should
 * the transaction or a subtransaction of it abort, what was there is put back.  Returns it.
 */
extern TimestampTz kvs_expiry_reset(KvsExpirySlot *slot);

/* Lower a slot, and what the launcher knows: something that is there expires at "when". */
extern void kvs_expiry_lower(KvsExpirySlot *slot, TimestampTz when);

/*
 * The slot of a block, made if need be, or that of the whole table if there is no other.  NULL: the
 * map has no room for the table.
 */
extern KvsExpirySlot *kvs_expirymap_get_slot(Oid relid, BlockNumber block);

/* A table's entry, made if need be (then the table is due in full); NULL if the map is full. */
extern KvsExpiryTable *kvs_expirymap_get_table(Oid relid);

/* The slot for all blocks of a table. */
extern KvsExpirySlot *kvs_expirymap_whole(KvsExpiryTable *table);

/*
 * Does the map know this file of the table?  If not, from now on it does, and the table is due in
 * full.
 */
extern void kvs_expirydue_check_file(KvsExpiryTable *table, Oid filenumber);

/*
 * A pass over a whole table takes many transactions; where it is, is kept in the map, so that the
 * next worker goes on.  Only the worker of the database calls these.  InvalidBlockNumber: no pass
 * is under way.
 */
extern BlockNumber kvs_expirydue_pass_block(KvsExpiryTable *table);
extern void kvs_expirydue_begin_pass(KvsExpiryTable *table);

/* Once this transaction has committed, the pass is at "block". */
extern void kvs_expiry_advance_pass(KvsExpiryTable *table, BlockNumber block);

/* Set a table aside until "when".  "failed": it is in trouble, until a step over it succeeds. */
extern void kvs_expirydue_put_aside(Oid relid, TimestampTz when, bool failed);
extern void kvs_expirydue_done_well(KvsExpiryTable *table);

/*
 * The owner of the table, and whether a sweep runs code of theirs.  False: that was not known, so
 * the table may have been found out of turn.
 */
extern bool kvs_expirydue_check_code(KvsExpiryTable *table, Oid owner, bool foreign);

/* The step over a table whose turn it was began at "start", and is over. */
extern void kvs_expirydue_end_turn(KvsExpiryTable *table, TimestampTz start);

/*
 * Nothing is to be removed from a table for now: forget what is due, and let all of it be due at
 * "when".
 */
extern void kvs_expirydue_postpone(KvsExpiryTable *table, TimestampTz when);

/* The tables of this database that are in the map, up to "max". */
extern int	kvs_expirymap_list_tables(Oid *relids, int max);

/*
 * Forget a table that is gone.  The caller holds a lock that keeps everybody else out, or the
 * database is gone.
 */
extern void kvs_expirymap_forget_table(Oid database, Oid relid);

/* Forget a database that is gone. */
extern void kvs_expirymap_forget_database(Oid database);

/* ---- Schedule ---- */

/*
 * The slot of this database as a whole: when all its stores are due in full.  NULL if there is no
 * room.
 */
extern KvsExpirySlot *kvs_expirymap_database(void);

/* The same, but NULL if the map does not know the database yet. */
extern KvsExpirySlot *kvs_expirymap_find_database(void);

/*
 * The slot for a store that the map has no room for; it shares it with few others.  NULL if there
 * is no room for the database.
 */
extern KvsExpirySlot *kvs_expirymap_unmapped(Oid relid);

/*
 * Those of these slots that are due, a list; they are set to "never".  Is it the slot of this
 * store?
 */
extern List *kvs_expirydue_take_unmapped(TimestampTz now);
extern bool kvs_expirymap_is_unmapped_in(Oid relid, const KvsExpirySlot *slot);

/*
 * The worker takes up what a slot stands for: it is set to "never".  If the worker dies before it
 * says that it is done, the slot is due again.  One at a time.
 */
extern void kvs_expirydue_take(KvsExpirySlot *slot);
extern void kvs_expirydue_done(void);

/* The delay until the next full pass over this database, in milliseconds: longer each time. */
extern int	kvs_expirydue_next_delay(void);

/* May an ERROR of this database's worker be logged?  Once a minute. */
extern bool kvs_expirydue_may_log(TimestampTz now);

/*
 * Earliest time at which the map has something due in this database, but for a table; DT_NOEND if
 * never.
 */
extern TimestampTz kvs_expirydue_next(Oid except);

/*
 * Next due of this database, by which the launcher goes: a lower bound of all that a worker has to
 * do there, expiry or other.  The worker clears it, reads when something is due, and lowers it.
 * Whoever comes meanwhile lowers it, too.  Lowering wakes a process that would sleep too long.  A
 * transaction callback may do it.
 */
extern void kvs_expirydue_clear_next_due(void);
extern TimestampTz kvs_expirydue_next_due(void);
extern void kvs_expiry_lower_next_due(TimestampTz when);

/*
 * The databases that are in the map, with the earliest time at which each may have something due;
 * returns how many.
 */
typedef struct KvsExpiryDatabaseDue
{
	Oid			database;
	TimestampTz due;
} KvsExpiryDatabaseDue;

#define KVS_EXPIRY_DATABASES	1024

extern int	kvs_expirydue_list_databases(KvsExpiryDatabaseDue *list);

/*
 * Say until when the caller will sleep, so that a commit that is due before sets its latch.  The
 * worker says it for its database, the launcher for all that have no worker.  False: something
 * earlier than the caller knows has come meanwhile, look again.
 */
extern bool kvs_expirydue_worker_sleeps(TimestampTz wake_at, TimestampTz next);
extern bool kvs_expirydue_launcher_sleeps(TimestampTz wake_at, const KvsExpiryDatabaseDue *seen, int count);
extern void kvs_expirydue_worker_awake(void);

/* The process is about to end.  "again": have this database looked at. */
extern void kvs_expirydue_worker_leaves(bool again);

extern void kvs_expirydue_launcher_starts(void);

extern void kvs_expirymap_init(void);
extern void kvs_expiry_init(void);

#endif							/* KVS_EXPIRY_H */
