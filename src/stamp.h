/*
 * stamp.h
 *		Versionstamps: bigint numbers from one sequence for each database.
 */
#ifndef KVS_STAMP_H
#define KVS_STAMP_H

#include "postgres.h"

/* How far the numbers jump where some may have been seen that the disk does not know of. */
#define KVS_STAMP_JUMP	INT64CONST(16777216)

/* Highest number that a row may bring along. */
#define KVS_STAMP_BROUGHT_MAX	(PG_INT64_MAX / 2)

/* The next number. */
extern int64 kvs_stamp_next(void);

/* See to it that the next number is above "stamp". */
extern void kvs_stamp_raise(int64 stamp);

/* The same before this transaction takes a number or commits: for rows that brought a number of their own. */
extern void kvs_stamp_raise_at_commit(int64 stamp);

/* A number, and what was known when it was taken. */
typedef struct KvsStamp
{
	int64		number;
	uint64		clock;			/* of deletions, see stamp.c */
} KvsStamp;

extern KvsStamp kvs_stamp_take(void);

/* A deletion of this key says so, once the row is locked and before it commits. */
extern void kvs_stamp_note_deletion(Oid relid, const char *key, int size);

/* The same for all keys of all tables at once (TRUNCATE). */
extern void kvs_stamp_note_deletion_of_all(void);

/*
 * After a key was written with "stamp": may the key have had a higher number meanwhile, and have been deleted?  Then take a new number and
 * stamp the row again.  "inserted": there was no row before.
 */
extern bool kvs_stamp_is_outdated(Oid relid, const char *key, int size, KvsStamp stamp, bool inserted);

extern void kvs_stamp_init(void);

#endif							/* KVS_STAMP_H */
