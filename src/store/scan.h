/*
 * scan.h
 *		Rows out: reading a store by key and by range.
 */
#ifndef KVS_SCAN_H
#define KVS_SCAN_H

#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "utils/portal.h"

#include "key/key.h"
#include "store/content.h"
#include "store/find.h"
#include "table/catalog.h"

/*
 * One entry.  Everything points into the scan and holds until its next call; the content may be
 * toasted, or BROKEN.
 */
typedef struct KvsRow
{
	const char *key;
	int			key_size;
	KvsContent	content;
	int64		versionstamp;
	TimestampTz expires_at;		/* DT_NOEND: never */
} KvsRow;

typedef struct KvsScan
{
	KvsStore   *store;
	Relation	rel;
	TimestampTz now;			/* what has expired by then is hidden */
	MemoryContext context;		/* the caller's */
	struct varlena *key_copy;	/* the last row's key, if it had to be detoasted */

	KvsFinder	finder;			/* by key; a scan of a range uses its index and slot */

	/* A range, by the index */
	IndexScanDesc desc;
	ScanKeyData keys[2];
	ScanDirection direction;

	/* What needs a planner: the executor reads, "desc" is NULL */
	bool		by_executor;
	Portal		portal;
	SPITupleTable *batch;		/* rows fetched from it */
	uint64		batch_size;
	uint64		batch_next;		/* the row to give next */
} KvsScan;

/*
 * Open the store for reading with the active snapshot and the caller's rights.  Raises what
 * kvs_storecatalog_open_store() does, and 42501 for a caller without SELECT.  "scan" may live on
 * the stack; an ERROR cleans up what it holds.
 */
extern void kvs_scan_begin(KvsScan *scan, const text *store_name, TimestampTz now);

/* The same with a given snapshot, which the caller keeps. */
extern void kvs_scan_begin_with(KvsScan *scan, const text *store_name, TimestampTz now, Snapshot snapshot);

/* Is a range read without SPI?  Only then may other things run between two rows. */
extern bool kvs_scan_is_direct(KvsScan *scan);

/* The live entry of a key; false if there is none. */
extern bool kvs_scan_find(KvsScan *scan, const KvsKey *key, KvsRow *row);

/*
 * (Re)start at the range [low, high) of encoded keys, or at its end when "reverse".  Both must stay
 * where they are while it is read.
 */
extern void kvs_scan_range(KvsScan *scan, const KvsKey *low, const KvsKey *high, bool reverse);

/* The next live entry of the range; false at its end. */
extern bool kvs_scan_next(KvsScan *scan, KvsRow *row);

extern void kvs_scan_end(KvsScan *scan);

#endif							/* KVS_SCAN_H */
