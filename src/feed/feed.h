/*
 * feed.h
 *		The recent changes of all stores, in shared memory.
 */
#ifndef KVS_FEED_H
#define KVS_FEED_H

#include "postgres.h"

/* What happened. */
typedef enum KvsFeedOperation
{
	KVS_FEED_SET,
	KVS_FEED_DELETE,
	KVS_FEED_EXPIRE,			/* the sweeper removed it */
	KVS_FEED_TOUCH,				/* only the expiry has changed */
	KVS_FEED_DELETE_PREFIX,		/* everything below a prefix */
	KVS_FEED_CLEAR,				/* everything */
	/*
	 * more than the feed takes: followers of the store (InvalidOid: any store) have to list it
	 * again
	 */
	KVS_FEED_LOST
} KvsFeedOperation;

/* Is it about one key? */
#define KvsFeedIsOfKey(operation)	((operation) <= KVS_FEED_TOUCH)

/* Flags of a record. */
/* DELETE_PREFIX: of plain strings; the key is a string without its end */
#define KVS_FEED_TEXT		0x01
/* SET: the number was brought along, and may be lower than one that the key had before */
#define KVS_FEED_BROUGHT	0x02

/* A change, before it is in the feed. */
typedef struct KvsFeedNote
{
	uint64		hash;			/* of store and key; kvs_feed_hash() */
	int64		versionstamp;
	Oid			relid;
	SubTransactionId subid;		/* that made it; for change.c */
	uint32		key;			/* where its bytes begin in what goes with the notes */
	uint16		key_size;
	uint8		operation;
	uint8		flags;
} KvsFeedNote;

/* Is there a feed?  Else nothing below may be called. */
extern bool kvs_feed_active;

extern uint64 kvs_feed_hash(Oid relid, const char *key, int size);

/*
 * Make an entry for this database, before anything is appended; false: there is no room for another
 * database.
 */
extern bool kvs_feed_join(void);

/*
 * Append changes, which must be visible by now.  Allocates nothing, raises nothing.  Returns true
 * when followers that have not read for long should do so, because the unread changes will be
 * overwritten.
 */
extern bool kvs_feed_append(const KvsFeedNote *notes, int count, const char *keys);

/* ---- Reading ---- */

/* What distinguishes this run of the server from all others. */
extern uint64 kvs_feed_epoch(void);

/* The position behind the last change of this database. */
extern uint64 kvs_feed_end(void);

/* A change that was read; the next one follows at KvsFeedNext(). */
typedef struct KvsFeedChange
{
	uint64		position;		/* behind it */
	int64		versionstamp;
	uint16		key_size;
	uint8		operation;
	uint8		flags;
	char		key[FLEXIBLE_ARRAY_MEMBER];
} KvsFeedChange;

#define KvsFeedNext(change) \
	((KvsFeedChange *) ((char *) (change) + MAXALIGN(offsetof(KvsFeedChange, key) + (change)->key_size)))

/* Room for at least a few of the largest. */
#define KVS_FEED_BUFFER		32768

typedef struct KvsFeedReader
{
	Oid			relid;
	const char *prefix;			/* keys that begin so, and removals of prefixes above or below it */
	int			prefix_size;
	uint64		position;		/* read on from here; moved by each step */
	int			max_count;		/* give at most so many */
	int			count;			/* given by this step, in the buffer */
	uint64		buffer[KVS_FEED_BUFFER / sizeof(uint64)];
} KvsFeedReader;

typedef enum KvsFeedStep
{
	KVS_FEED_MORE,				/* there may be more */
	KVS_FEED_END,				/* that was all */
	KVS_FEED_OVERRUN,			/* what was there is overwritten */
	KVS_FEED_TOO_LARGE,			/* a transaction changed more than the feed takes */
	KVS_FEED_NO_POSITION		/* there is no such position */
} KvsFeedStep;

/* Read a bit of the feed. */
extern KvsFeedStep kvs_feed_read(KvsFeedReader *reader);

/* Forget a database that is gone. */
extern void kvs_feed_forget_database(Oid database);

extern void kvs_feed_init(void);

#endif							/* KVS_FEED_H */
