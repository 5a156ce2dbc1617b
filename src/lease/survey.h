/*
 * survey.h
 *		Scans for what can be delivered: where they begin, and how far heads move by them.
 */
#ifndef KVS_SURVEY_H
#define KVS_SURVEY_H

#include "postgres.h"

#include "lease/queueslot.h"

/* From the head of one priority on. */
typedef struct KvsHeadScan
{
	bool		filled;			/* else there is nothing to scan */
	int			priority;
	KvsPosition start;			/* the first position to look at */
	uint64		number;			/* arrivals that the head knows of */
	KvsPosition limit;			/* the head must not be moved beyond */
} KvsHeadScan;

/* What to look at, read before any row is. */
typedef struct KvsSurvey
{
	/* the highest priority of returned messages that are ready; -1: none */
	int			returned;
	/* when another returned message is ready, or the first lease expires; DT_NOEND: never */
	TimestampTz next_due;
	int			expired;		/* expired leases: they were ended */
	/* when the worker looks for what nobody finds; DT_NOEND: it need not */
	TimestampTz verify_at;
	KvsHeadScan heads[KVS_PRIORITIES];
	int			nlate;
	KvsLateRange late[KVS_LATE_RANGES];
} KvsSurvey;

/*
 * Expired leases are ended.  "make": the caller receives, and the queue gets a slot.  Else, without
 * a slot, all scans begin at the bottom.
 */
extern void kvs_survey_begin(KvsQueue *queue, TimestampTz now, bool make, KvsSurvey *survey);

/*
 * All below "reached" is dead or leased: move the head.  "at_end": there is nothing from there on
 * either.
 */
extern void kvs_survey_advance(KvsQueue *queue, KvsHeadScan *scan, KvsPosition reached, bool at_end);

/* All of a late range below "reached" is dead or leased.  The range goes when it is empty. */
extern void kvs_survey_advance_late(KvsQueue *queue, const KvsLateRange *range, KvsPosition reached);

#endif							/* KVS_SURVEY_H */
