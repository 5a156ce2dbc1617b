/*
 * direct.h
 *		Rows in, the short way: changing and locking a row that is there, without the executor.
 */
#ifndef KVS_DIRECT_H
#define KVS_DIRECT_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/parsenodes.h"
#include "utils/timestamp.h"

#include "key/key.h"
#include "store/content.h"
#include "store/stamp.h"
#include "table/catalog.h"

typedef enum KvsDirect
{
	KVS_DIRECT_DONE,
	KVS_DIRECT_REFUSED,			/* there is a row, and the callback does not want to change it */
	KVS_DIRECT_NO_ROW,			/* none that a new snapshot sees */
	KVS_DIRECT_IMPOSSIBLE		/* nothing is done: use a statement */
} KvsDirect;

/*
 * Gets the row that was found, all columns deformed, and "values" and "nulls" set to the same.
 * Changes what is to be changed, but not the key.  False: refused.  May be called again, with
 * another version of the row, or after waiting for its lock.
 */
typedef bool (*KvsChangeRow) (TupleTableSlot *old, Datum *values, bool *nulls, void *arg);

/* What it takes to overwrite an entry, or write one anew. */
#define KVS_PUT_RIGHTS	(ACL_SELECT | ACL_INSERT | ACL_UPDATE)

/*
 * Replace the row of a key, if the caller has these rights.  The store's table must be locked for
 * writing.
 */
extern KvsDirect kvs_direct_change(KvsStore *store, const KvsKey *key, AclMode rights, KvsChangeRow change, void *arg);

/*
 * Is the short way open?  Then the caller has these rights on the whole table, and nothing else
 * needs the executor.
 */
extern bool kvs_direct_is_possible(const KvsStore *store, AclMode rights);

/* Has a row, all columns deformed, not expired by then, nor by now? */
extern bool kvs_direct_is_live(TupleTableSlot *row, TimestampTz now);

/* Gets the row that was locked. */
typedef void (*KvsLockedRow) (TupleTableSlot *row, void *arg);

/*
 * Lock the row of a key until the transaction ends: FOR NO KEY UPDATE if "exclusive", else FOR
 * SHARE.
 */
extern KvsDirect kvs_direct_lock(KvsStore *store, const KvsKey *key, bool exclusive, KvsLockedRow locked, void *arg);

/*
 * Delete the row of a key that this transaction has inserted, as if it never had: no right is asked
 * for.
 */
extern KvsDirect kvs_direct_undo(KvsStore *store, const KvsKey *key);

/* ---- directrange.c ---- */

/* What was deleted of a range. */
typedef struct KvsRangeDeletion
{
	Oid			relid;
	int64		count;
	KvsStampSurvey numbers;		/* of the rows; begun by the caller */
} KvsRangeDeletion;

/*
 * Delete the live entries of [low, high), "texts_only" plain-string keys only.  The deletion is
 * also right when the rest is left to a statement (IMPOSSIBLE).
 */
extern KvsDirect kvs_directrange_delete_range(KvsStore *store, const KvsKey *low, const KvsKey *high, bool texts_only,
										 TimestampTz now, KvsRangeDeletion *deletion);

/* A row of the range was deleted, which need not be counted. */
extern void kvs_directrange_note_deleted(KvsRangeDeletion *deletion, Datum key, int64 versionstamp);

#endif							/* KVS_DIRECT_H */
