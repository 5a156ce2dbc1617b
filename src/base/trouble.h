/*
 * trouble.h
 *		Tables that the worker could not work on: what is known of each, in shared memory.
 */
#ifndef KVS_TROUBLE_H
#define KVS_TROUBLE_H

#include "postgres.h"

#include "utils/timestamp.h"

/*
 * A worker of this database is in a step that runs code of the table's owner, and has come to so
 * many rows.  Until kvs_trouble_end_work() that is known to all.
 */
extern void kvs_trouble_begin_work(Oid relid, int64 rows);

/* That is over; if all went well, so is the table's trouble. */
extern void kvs_trouble_end_work(Oid relid, bool well);

/*
 * A step has failed after so many rows (0: none of the owner's code ran).  Returns until when the
 * table is backed off; *tell says whether that is news.  The next step takes half as many rows.
 * "slow": it took too long.
 */
extern TimestampTz kvs_trouble_fail(Oid relid, int sqlstate, bool slow, int64 rows, bool *tell);

/* A row has failed in a step that goes on.  Returns until when that row is backed off. */
extern TimestampTz kvs_trouble_fail_row(Oid relid, int sqlstate, bool *tell);

/*
 * A worker starts: the step that its predecessor was at when it ended has failed.  Returns such a
 * table, InvalidOid if there is no further one.
 */
extern Oid	kvs_trouble_take_unfinished(bool *tell);

/* Has a step over the table, or a row of it, failed of late? */
extern bool kvs_trouble_is_known(Oid relid);

/* Is the table backed off because a step took too long?  Without preload: no. */
extern bool kvs_trouble_is_slow(Oid relid);

/*
 * Until when the table is backed off, DT_NOBEGIN: it is not.  How many rows a step may take, of
 * "max".
 */
extern TimestampTz kvs_trouble_until(Oid relid);
extern int64 kvs_trouble_rows(Oid relid, int64 max);

/* Forget what is gone: tables of this database, in a transaction; a database. */
extern void kvs_trouble_forget_missing(void);
extern void kvs_trouble_forget_database(Oid database);

extern void kvs_trouble_init(void);

#endif							/* KVS_TROUBLE_H */
