/*
 * find.h
 *		Finding the row of a key, with a given snapshot, without the executor.
 */
#ifndef KVS_FIND_H
#define KVS_FIND_H

#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "key/key.h"

typedef struct KvsFinder
{
	Relation	rel;
	Oid			indexid;
	LOCKMODE	index_lock;
	Snapshot	snapshot;
	bool		use_map;
	TupleTableSlot *slot;		/* the row found last; made at first use */
	IndexFetchTableData *fetch; /* for hints of the row map; NULL until used */
	Relation	index;			/* NULL until used */
	IndexScanDesc desc;			/* NULL until used */
	ScanKeyData scan_key;
} KvsFinder;

typedef enum KvsFound
{
	KVS_FOUND,					/* it is in "slot" until the next call */
	KVS_ABSENT,					/* there is none that the snapshot sees */
	/* the index must not be used with this snapshot: leave it to the executor */
	KVS_INDEX_TOO_YOUNG
} KvsFound;

/* Begin; the caller holds a lock on the open table, and keeps the snapshot.  An ERROR cleans up. */
extern void kvs_find_begin(KvsFinder *finder, Relation rel, Oid indexid, LOCKMODE index_lock, Snapshot snapshot);

/* The row of a key, expired or not. */
extern KvsFound kvs_find(KvsFinder *finder, const KvsKey *key);

/* The row of a key, by the index alone, with whatever snapshot, a dirty one, too. */
extern bool kvs_find_row(Relation rel, Relation index, Datum key, Snapshot snapshot, TupleTableSlot *slot);

/* Open the index if it is not; false if it is too young. */
extern bool kvs_find_open_index(KvsFinder *finder);

extern void kvs_find_end(KvsFinder *finder);

#endif							/* KVS_FIND_H */
