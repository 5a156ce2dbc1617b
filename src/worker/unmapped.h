/* unmapped.h: the stores that the expiry map has no room for, as the worker knows them. */
#ifndef KVS_UNMAPPED_H
#define KVS_UNMAPPED_H

#include "postgres.h"

#include "storage/block.h"
#include "utils/timestamp.h"

#include "expiry/turns.h"

/* Such a store. */
typedef struct KvsUnmapped
{
	Oid			relid;			/* the key */
	bool		due;			/* to be read in full; its slot is "never" */
	Oid			owner;			/* InvalidOid: it was not looked at yet */
	bool		foreign;		/* a sweep runs code of its owner's */
	bool		troubled;		/* the last step failed */
	uint64		served;			/* when it was taken up last (turns.h) */
	BlockNumber next;			/* where to go on reading */
	bool		listed;			/* it was there when the list was made */
} KvsUnmapped;

/* The store whose turn it is of those that are due, and its turn; NULL: none is. */
extern KvsUnmapped *kvs_unmapped_find(TimestampTz now, KvsTurn *turn);

/* Is any due but this one? */
extern bool kvs_unmapped_is_due(Oid except);

/* Something of it is due at "when". */
extern void kvs_unmapped_lower(const KvsUnmapped *item, TimestampTz when);

/* The list is not as it was. */
extern void kvs_unmapped_invalidate(void);

/* The worker ends: what is due is left to the next. */
extern void kvs_unmapped_leave(void);

#endif							/* KVS_UNMAPPED_H */
