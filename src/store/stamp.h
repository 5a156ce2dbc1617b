/*
 * stamp.h
 *		Versionstamps: bigint numbers from one sequence for each database.
 */
#ifndef KVS_STAMP_H
#define KVS_STAMP_H

#include "postgres.h"

#include "utils/rel.h"

/* How far the numbers jump where clients may have seen some that are not on the disk. */
#define KVS_STAMP_JUMP	INT64CONST(16777216)

/* Nobody may bring this number or a higher one. */
#define KVS_STAMP_LIMIT	(INT64CONST(1) << 52)

/* The next number. */
extern int64 kvs_stamp_next(void);

/* The next number, or that which follows "met" if it is not above it; 22003 if none does. */
extern int64 kvs_stamp_above(int64 met);

/* ---- Numbers that were not taken here: a row brings them along, or is found to have them ---- */

/*
 * Does this number count?  Then all that are given from now on are above it, by "margin" at least.
 * "trusted": the role that brings it may bring any.
 */
extern bool kvs_stamp_bring(int64 stamp, bool trusted, int64 margin);

/* The numbers of many rows, none of them trusted. */
typedef struct KvsStampSurvey
{
	int64		limit;			/* what is above it does not count */
	int64		highest;		/* of those that count */
	bool		beyond;			/* there was one that does not */
} KvsStampSurvey;

extern void kvs_stamp_begin_survey(KvsStampSurvey *survey);

/* False: it does not count. */
static inline bool
kvs_stamp_survey(KvsStampSurvey *survey, int64 stamp)
{
	if (unlikely(stamp > survey->limit))
	{
		survey->beyond = true;
		return false;
	}
	survey->highest = Max(survey->highest, stamp);
	return true;
}

/* All numbers that are given from now on are above those that count. */
extern void kvs_stamp_end_survey(const KvsStampSurvey *survey);

/* Say that a table has numbers that do not count; "kept" if they stay. */
extern void kvs_stamp_warn(Relation rel, bool kept);

/* ---- A write ---- */

/* The number of a write, what was known when it was taken, and what the write has met. */
typedef struct KvsStamp
{
	int64		number;
	uint64		clock;			/* of deletions, see stamp.c */
	bool		outdated;		/* too low for a key: all are to be stamped again */
	int64		met;			/* the highest number that was in the way */
} KvsStamp;

extern KvsStamp kvs_stamp_take(void);

/* A row that is overwritten has this number. */
static inline void
kvs_stamp_meet(KvsStamp *stamp, int64 met)
{
	if (unlikely(met >= stamp->number))
	{
		stamp->outdated = true;
		stamp->met = Max(stamp->met, met);
	}
}

/*
 * This key was written; "inserted": there was no row before.  It may have had a higher number
 * meanwhile, and have been deleted.
 */
extern void kvs_stamp_check(KvsStamp *stamp, Oid relid, const char *key, int size, bool inserted);

/* ---- A deletion ---- */

/*
 * A row is deleted that we have locked and that has "versionstamp".  Returns the number of the
 * deletion: *number, or a new one, left there, if that is not above it.  0: none yet.
 */
extern int64 kvs_stamp_delete(Oid relid, const char *key, int size, int64 versionstamp, int64 *number);

/* The same of any number of keys.  The number of the deletion was taken before. */
extern void kvs_stamp_note_deletion_of_all(void);

/* Remember the number of a row that is deleted, if it does not count. */
extern void kvs_stamp_remember(Oid relid, const char *key, int size, int64 versionstamp);

extern void kvs_stamp_init(void);

#endif							/* KVS_STAMP_H */
