/*
 * change.h
 *		What this transaction changes, for sessions that watch.
 *
 * Without shared memory nobody can watch: then nothing is noted.
 */
#ifndef KVS_CHANGE_H
#define KVS_CHANGE_H

#include "postgres.h"

#include "feed/feed.h"

/* Are changes wanted? */
#define kvs_change_active	kvs_feed_active

/*
 * Remember a change of one key, or of a prefix; published at commit.  "versionstamp" is that of the
 * entry, or that which the deletion took, not before the rows were locked.
 */
extern void kvs_change_note_more(Oid relid, KvsFeedOperation operation, uint8 flags, int64 versionstamp,
								 const char *key, int size);

static inline void
kvs_change_note(Oid relid, KvsFeedOperation operation, int64 versionstamp, const char *key, int size)
{
	if (kvs_change_active)
		kvs_change_note_more(relid, operation, 0, versionstamp, key, size);
}

/* The same of a kvkey datum. */
extern void kvs_change_note_datum(Oid relid, KvsFeedOperation operation, int64 versionstamp, Datum key);

/* The store is not what it was: its followers have to list it again. */
extern void kvs_change_note_lost(Oid relid);

extern void kvs_change_init(void);

#endif							/* KVS_CHANGE_H */
