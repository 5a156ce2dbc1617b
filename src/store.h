/*
 * store.h
 *		Rows in: writing a store.
 *
 * All of these act with the caller's rights, by kept plans: 42501 without INSERT, UPDATE and SELECT (to write) or DELETE and SELECT (to
 * delete), 40001 at REPEATABLE READ and above when somebody else changed the row meanwhile.
 */
#ifndef KVS_STORE_H
#define KVS_STORE_H

#include "postgres.h"

#include "utils/timestamp.h"

#include "catalog.h"
#include "key.h"

/* What an entry is to hold. */
typedef struct KvsContent
{
	char		kind;			/* KVS_KIND_... */
	Datum		datum;			/* jsonb for JSON and U64, bytea for BYTES */
} KvsContent;

/* How one write goes. */
typedef struct KvsWrite
{
	TimestampTz now;			/* what has expired by then is absent */
	TimestampTz expires_at;		/* DT_NOEND: never */
	bool		keep_ttl;		/* an entry that is there keeps its expiry */
	bool		if_version_given;
	int64		if_version;		/* 0: must be absent */
} KvsWrite;

/* Write one entry.  Returns its new versionstamp, or 0 if if_version did not match. */
extern int64 kvs_store_put(KvsStore *store, const KvsKey *key, const KvsContent *content, const KvsWrite *write);

/* An entry of a bulk write. */
typedef struct KvsEntry
{
	Datum		key;			/* kvkey, not toasted */
	int			position;		/* in which it was given; kvs_store_sort_entries() sets it */
	KvsContent	content;
	TimestampTz expires_at;
} KvsEntry;

/* Sort entries by key; of several with the same key the last stays.  Returns how many are left. */
extern int	kvs_store_sort_entries(KvsEntry *entries, int count);

/*
 * Write many entries with one versionstamp, which is returned.  They must be sorted by key without duplicates: rows are locked in that order, so
 * that two such calls never deadlock.
 */
extern int64 kvs_store_put_sorted(KvsStore *store, const KvsEntry *entries, int count);

/* Delete a live entry; false if there is none, or not with if_version.  "taken", if not NULL, gets what it held. */
extern bool kvs_store_delete(KvsStore *store, const KvsKey *key, const KvsWrite *write, KvsContent *taken);

/* Set the expiry of a live entry to write->expires_at; its versionstamp stays.  False if there is none, or not with if_version. */
extern bool kvs_store_expire(KvsStore *store, const KvsKey *key, const KvsWrite *write);

/* Raise KV002 if a value of so many bytes is too large for this store. */
extern void kvs_store_check_size(const KvsStore *store, Datum value);

#endif							/* KVS_STORE_H */
