/*
 * store.h
 *		Rows in: writing a store.
 *
 * All of these act with the caller's rights, by kept plans.  They raise 42501 without INSERT,
 * UPDATE and SELECT (to write) or DELETE and SELECT (to delete).  At REPEATABLE READ and above they
 * raise 40001 when somebody else changed the row meanwhile.
 */
#ifndef KVS_STORE_H
#define KVS_STORE_H

#include "postgres.h"

#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "key/key.h"
#include "store/content.h"
#include "store/stamp.h"
#include "table/catalog.h"

/* How one write goes. */
typedef struct KvsWrite
{
	TimestampTz now;			/* what has expired by then is absent */
	TimestampTz expires_at;		/* DT_NOEND: never */
	bool		keep_ttl;		/* an entry that is there keeps its expiry */
	bool		if_version_given;
	int64		if_version;		/* 0: must be absent */
} KvsWrite;

/*
 * Write one entry.  Returns its new versionstamp, or 0 if if_version did not match, or a trigger
 * skipped the entry; without if_version that is 27000.
 */
extern int64 kvs_store_put(KvsStore *store, const KvsKey *key, const KvsContent *content, const KvsWrite *write);

/*
 * Add "by" to an entry that holds a number, or write one that does.  Returns the sum.  KV005 if it
 * holds something else, 27000 if a trigger skips it.
 */
extern Numeric kvs_store_increment(KvsStore *store, const KvsKey *key, Numeric by, const KvsWrite *write);

/* An entry of a bulk write. */
typedef struct KvsEntry
{
	Datum		key;			/* kvkey, not toasted */
	int			position;		/* in which it was given; kvs_storemany_sort_entries() sets it */
	KvsContent	content;
	TimestampTz expires_at;
	bool		written;		/* set by what writes it: no trigger has kept it out */
} KvsEntry;

/* Sort entries by key; of several with the same key the last stays.  Returns how many are left. */
extern int	kvs_storemany_sort_entries(KvsEntry *entries, int count);

/*
 * Write many entries, sorted and without duplicates, with the number of "stamp": rows are locked in
 * key order, so that two such calls never deadlock.  If it turns out too low for one of them it is
 * outdated, and all must be stamped again.  Returns how many were written.
 */
extern int	kvs_storemany_put_sorted(KvsStore *store, KvsEntry *entries, int count, KvsStamp *stamp);

/*
 * Give rows that this transaction has written with "stamp" a number above all that were in its way;
 * it is returned.
 */
extern int64 kvs_storemany_restamp(KvsStore *store, const Datum *keys, int count, const KvsStamp *stamp);

/*
 * The two together, with a number of their own, which is returned.  *written: how many were
 * written.  NULL: all must be, 27000 if a trigger skips one.
 */
extern int64 kvs_storemany_put_many(KvsStore *store, KvsEntry *entries, int count, int *written);

/*
 * Insert an entry if there is no row for its key, not even an expired one; true if so.  Otherwise
 * the row is locked against changes.  "stamp" as above.  27000 if a trigger skips it.
 */
extern bool kvs_storemany_claim(KvsStore *store, const KvsEntry *entry, KvsStamp *stamp);

/* A row as it stands while we hold its lock. */
typedef struct KvsState
{
	bool		present;		/* and not expired */
	KvsContent	content;		/* in the caller's memory, perhaps BROKEN; only if present */
	int64		versionstamp;	/* 0 if absent or expired */
	TimestampTz expires_at;
} KvsState;

/* Is that what a check for this versionstamp asks for?  0: absence. */
static inline bool
kvs_store_matches(const KvsState *state, int64 versionstamp)
{
	return versionstamp == 0 ? !state->present : state->present && state->versionstamp == versionstamp;
}

/*
 * Lock the row of a key until the transaction ends, against changes (FOR SHARE), or against
 * everybody ("exclusive", FOR NO KEY UPDATE).  False if there is no row.
 */
extern bool kvs_store_lock(KvsStore *store, const KvsKey *key, bool exclusive, TimestampTz now, KvsState *state);

/* Insert a row that means nothing, if there is none for its key; true if so. */
extern bool kvs_store_place(KvsStore *store, const KvsKey *key);

/* Delete a row that this transaction has inserted; 27000 if a trigger keeps it. */
extern void kvs_store_remove(KvsStore *store, const KvsKey *key);

/*
 * Delete a live entry.  False if there is none, or not with if_version, or a trigger or policy kept
 * it. "taken", if not NULL, gets what it held: then an entry that was kept is 27000 or 42501.
 */
extern bool kvs_store_delete(KvsStore *store, const KvsKey *key, const KvsWrite *write, KvsContent *taken);

/* Sort keys as they are locked. */
extern void kvs_storemany_sort_keys(Datum *keys, int count);

/* Delete the live entries of these keys, sorted, in that order; returns how many. */
extern int64 kvs_storemany_delete_sorted(KvsStore *store, const Datum *keys, int count, TimestampTz now);

/*
 * The same of entries that we have locked, with this versionstamp: 27000 or 42501 if one is kept.
 */
extern void kvs_storemany_delete_locked(KvsStore *store, const Datum *keys, int count, TimestampTz now, int64 number);

/*
 * Delete the live entries of [low, high) in key order, "texts_only" plain-string keys only; returns
 * how many.  The range must be that of a prefix, or of all keys.
 */
extern int64 kvs_storemany_delete_range(KvsStore *store, const KvsKey *low, const KvsKey *high, bool texts_only,
									TimestampTz now);

/*
 * Set the expiry of a live entry to write->expires_at; its versionstamp stays, unless a trigger
 * changes what it holds.  False if there is none, or not with if_version, or a trigger skipped it.
 */
extern bool kvs_store_expire(KvsStore *store, const KvsKey *key, const KvsWrite *write);

/* Raise KV002 if a value of so many bytes is too large for this store. */
extern void kvs_store_check_size(const KvsStore *store, Datum value);

/* When an entry expires that is written now to this store with no expiry given. */
extern TimestampTz kvs_store_default_expiry(const KvsStore *store, TimestampTz now);

#endif							/* KVS_STORE_H */
