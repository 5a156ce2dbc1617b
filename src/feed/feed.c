/*
 * feed.c
 *		The recent changes of all stores, in shared memory.
 *
 * Records lie in pages of PAGE_BYTES bytes, kvstore.feed_size in all.  Each database has a chain of
 * pages of its own.  So its records, and the positions that its sessions know, form one sequence.
 * A position is the number of a page, counted from the database's first, times PAGE_BYTES, plus an
 * offset.  A page that is full is followed by a free one.  If there is none, it is followed by the
 * oldest page of the database that has most.  So a database that loads much overwrites its own
 * records before those of another that has less than its share.
 *
 * Records are appended by the commit callback, when the transaction is visible.  Two transactions
 * may arrive here in another order than that in which they committed: the row is free before the
 * callback runs.  But for one key the feed never goes back.  The newest record of each key is in a
 * chain by its hash.  An append that finds one with a higher versionstamp is superseded, and
 * dropped.  (A reader of the higher one learns nothing from the lower one.)  For this a deletion
 * takes a number of its own, above that of what it deletes.  Only a table's owner can write a row
 * that brings a lower number along.  It makes the store lost to its followers: they have to list it
 * again.
 *
 * A removal of a prefix may arrive before the record of a key that it has removed.  Nothing says
 * whether it has removed it: a key with a lower number may also have come while the prefix was
 * removed.  So the latest removals of a database are remembered.  When a key arrives that lies
 * under one of them and has a lower number, that removal is appended again behind the key.  The
 * followers then list once more.
 *
 * Readers find their page from the newest backwards.  They walk it from its start, so that an
 * invalid position is noticed, and copy what they want.
 *
 * One lock protects everything: exclusive to append, in share mode to read.  It is held for
 * BATCH_APPEND records or BATCH_READ at most.  Nothing under it allocates, raises or looks at a
 * table.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "feed/feed.h"
#include "key/key.h"

#define PAGE_BYTES		16384
#define NO_PAGE			PG_UINT32_MAX

/* Databases with changes in the feed; those of others are not in it. */
#define DATABASES		1024

/* Records for which the lock is held at once. */
#define BATCH_APPEND	256
#define BATCH_READ		2000

/* Removals of prefixes, or of all keys, that a database remembers. */
#define REMOVALS		64		/* as many as a uint64 has bits */

/* A database fills this part of its pages before its sleeping followers are told to read on. */
#define TELL_PART		4

/* In the chain of its hash: no newer record of its key has come. */
#define FLAG_CHAINED	0x80

/* Names a record: its offset in the data, in units of 8 bytes, plus 1; 0 is none. */
typedef uint32 RecordRef;

typedef struct Record
{
	uint64		hash;
	int64		versionstamp;
	Oid			relid;
	RecordRef	newer;			/* neighbours in the chain, if FLAG_CHAINED */
	RecordRef	older;
	uint16		key_size;
	uint8		operation;
	uint8		flags;
	char		key[FLEXIBLE_ARRAY_MEMBER];
} Record;

#define RecordSize(key_size)	MAXALIGN(offsetof(Record, key) + (key_size))

StaticAssertDecl(KVS_KEY_MAX_SIZE + 1 <= PG_UINT16_MAX, "a key does not fit a record");
StaticAssertDecl(RecordSize(KVS_KEY_MAX_SIZE + 1) <= PAGE_BYTES, "a record does not fit a page");
StaticAssertDecl(KVS_FEED_BUFFER >= 4 * RecordSize(KVS_KEY_MAX_SIZE + 1), "the buffer of a reader is too small");

typedef struct Page
{
	uint32		older;			/* of the same database */
	uint32		newer;			/* or the next free one */
	uint32		used;			/* bytes */
	uint64		number;			/* in its database */
} Page;

/* A removal, while its page is there. */
typedef struct Removal
{
	uint32		page;
	uint32		offset;
	uint64		number;			/* of the page; 0: none */
} Removal;

typedef struct FeedDatabase
{
	Oid			database;		/* InvalidOid: free */
	uint32		oldest;
	uint32		newest;
	uint32		npages;
	uint32		since_told;		/* pages begun since followers were told */
	uint64		next_number;	/* of the next page */
	int64		removed_by;		/* highest versionstamp of a removal */
	uint32		next_removal;
	Removal		removals[REMOVALS];
} FeedDatabase;

/* All under "lock" but for the epoch, which is constant. */
typedef struct Feed
{
	LWLock	   *lock;
	uint64		epoch;
	uint32		npages;
	uint32		free;			/* first free page */
	uint32		chain_mask;
	int			ndatabases;		/* entries in use are below */
	FeedDatabase databases[DATABASES];
} Feed;

bool		kvs_feed_active = false;

static Feed *feed = NULL;
static Page *pages = NULL;
static RecordRef *chains = NULL;
static char *data = NULL;
/* this database's entry; it stays as long as anybody is connected */
static FeedDatabase *mine = NULL;

uint64
kvs_feed_hash(Oid relid, const char *key, int size)
{
	return hash_bytes_extended((const unsigned char *) key, size, ((uint64) MyDatabaseId << 32) | relid);
}

/* ---- Chains: the newest record of each key ---- */

static inline Record *
record_at(RecordRef ref)
{
	return (Record *) (data + (Size) (ref - 1) * 8);
}

static inline RecordRef
ref_of(const Record *record)
{
	return (RecordRef) (((const char *) record - data) / 8) + 1;
}

static inline RecordRef *
chain_of(uint64 hash)
{
	return &chains[(uint32) hash & feed->chain_mask];
}

static Record *
find_in_chain(const KvsFeedNote *note, const char *key)
{
	for (RecordRef ref = *chain_of(note->hash); ref != 0; ref = record_at(ref)->older)
	{
		Record	   *record = record_at(ref);

		if (record->hash == note->hash && record->relid == note->relid && record->key_size == note->key_size &&
			memcmp(record->key, key, note->key_size) == 0)
			return record;
	}
	return NULL;
}

static void
put_in_chain(Record *record)
{
	RecordRef  *chain = chain_of(record->hash);

	record->flags |= FLAG_CHAINED;
	record->newer = 0;
	record->older = *chain;
	if (*chain != 0)
		record_at(*chain)->newer = ref_of(record);
	*chain = ref_of(record);
}

static void
take_from_chain(Record *record)
{
	if (record->newer != 0)
		record_at(record->newer)->older = record->older;
	else
		*chain_of(record->hash) = record->older;
	if (record->older != 0)
		record_at(record->older)->newer = record->newer;
	record->flags &= ~FLAG_CHAINED;
}

/* ---- Pages ---- */

static inline Record *
record_in(uint32 page, uint32 offset)
{
	return (Record *) (data + (Size) page * PAGE_BYTES + offset);
}

/* Take a database's oldest page from it. */
static uint32
take_oldest(FeedDatabase *database)
{
	uint32		page = database->oldest;

	for (uint32 offset = 0; offset < pages[page].used;)
	{
		Record	   *record = record_in(page, offset);

		if (record->flags & FLAG_CHAINED)
			take_from_chain(record);
		offset += RecordSize(record->key_size);
	}
	database->oldest = pages[page].newer;
	if (database->oldest == NO_PAGE)
		database->newest = NO_PAGE;
	else
		pages[database->oldest].older = NO_PAGE;
	database->npages--;
	return page;
}

/* A free page, or one that we take from whoever has most; from ourselves, if nobody has more. */
static uint32
get_page(void)
{
	uint32		page = feed->free;
	FeedDatabase *largest = mine;

	if (page != NO_PAGE)
	{
		feed->free = pages[page].newer;
		return page;
	}
	for (int i = 0; i < feed->ndatabases; i++)
		if (feed->databases[i].npages > largest->npages)
			largest = &feed->databases[i];
	return take_oldest(largest);
}

static void
begin_page(void)
{
	uint32		page = get_page();

	pages[page].number = mine->next_number++;
	pages[page].used = 0;
	pages[page].newer = NO_PAGE;
	pages[page].older = mine->newest;
	if (mine->newest == NO_PAGE)
		mine->oldest = page;
	else
		pages[mine->newest].newer = page;
	mine->newest = page;
	mine->npages++;
	mine->since_told++;
}

/* ---- Appending ---- */

/* Returns where it is. */
static Removal
append_record(const KvsFeedNote *note, const char *key, uint8 operation)
{
	int			key_size = operation == KVS_FEED_LOST ? 0 : note->key_size;
	uint32		size = RecordSize(key_size);
	Record	   *record;

	if (mine->newest == NO_PAGE || pages[mine->newest].used + size > PAGE_BYTES)
		begin_page();
	record = record_in(mine->newest, pages[mine->newest].used);
	record->hash = note->hash;
	record->versionstamp = note->versionstamp;
	record->relid = note->relid;
	record->key_size = key_size;
	record->operation = operation;
	record->flags = note->flags & ~FLAG_CHAINED;
	memcpy(record->key, key, key_size);
	pages[mine->newest].used += size;
	if (KvsFeedIsOfKey(operation))
		put_in_chain(record);
	return (Removal) {mine->newest, pages[mine->newest].used - size, pages[mine->newest].number};
}

static void
append_removal(const KvsFeedNote *note, const char *key)
{
	mine->removals[mine->next_removal++ % REMOVALS] = append_record(note, key, note->operation);
	mine->removed_by = Max(mine->removed_by, note->versionstamp);
}

/* The record of a removal; NULL: its page is gone, or there was none. */
static const Record *
get_removal(const Removal *removal)
{
	if (removal->number == 0 || removal->number < pages[mine->oldest].number)
		return NULL;
	return record_in(removal->page, removal->offset);
}

/* May a removal that is in the feed have removed what this note is about? */
static bool
may_have_removed(const Record *removal, const KvsFeedNote *note, const char *key)
{
	if (removal->relid != note->relid || removal->versionstamp <= note->versionstamp || removal->key_size >= note->key_size ||
		memcmp(removal->key, key, removal->key_size) != 0)
		return false;
	return !(removal->flags & KVS_FEED_TEXT) || kvs_key_is_text(key, note->key_size);
}

/*
 * The removals, a bit for each, that may have removed this key before its record came; the latest
 * one is enough.
 */
static uint64
find_removal(const KvsFeedNote *note, const char *key)
{
	for (uint32 i = 1; i <= REMOVALS; i++)
	{
		uint32		n = (mine->next_removal - i) % REMOVALS;
		const Record *removal = get_removal(&mine->removals[n]);

		if (removal != NULL && may_have_removed(removal, note, key))
			return UINT64CONST(1) << n;
	}
	return 0;
}

/* Append it again, behind the keys. */
static void
repeat_removal(Removal *removal)
{
	const Record *record = get_removal(removal);
	KvsFeedNote note = {0};
	char		prefix[KVS_KEY_MAX_SIZE + 1];

	if (record == NULL)
		return;
	note.versionstamp = record->versionstamp;
	note.relid = record->relid;
	note.key_size = record->key_size;
	note.flags = record->flags;
	/* its page may be the one that is used anew */
	memcpy(prefix, record->key, record->key_size);
	*removal = append_record(&note, prefix, record->operation);
}

static void
repeat_removals(uint64 which)
{
	for (int n = 0; which != 0; n++, which >>= 1)
		if (which & 1)
			repeat_removal(&mine->removals[n]);
}

/* Returns the removals to be repeated. */
static uint64
append_one(const KvsFeedNote *note, const char *key)
{
	Record	   *known;

	if (note->operation == KVS_FEED_LOST)
		append_record(note, key, note->operation);
	else if (!KvsFeedIsOfKey(note->operation))
		append_removal(note, key);
	if (!KvsFeedIsOfKey(note->operation))
		return 0;
	known = find_in_chain(note, key);
	if (known != NULL && known->versionstamp > note->versionstamp)
	{
		if (note->flags & KVS_FEED_BROUGHT)
			append_record(note, key, KVS_FEED_LOST);
		return 0;
	}
	if (known != NULL)
		take_from_chain(known);
	append_record(note, key, note->operation);
	return unlikely(note->versionstamp < mine->removed_by) ? find_removal(note, key) : 0;
}

bool
kvs_feed_append(const KvsFeedNote *notes, int count, const char *keys)
{
	bool		tell = false;

	for (int done = 0; done < count;)
	{
		int			end = Min(count, done + BATCH_APPEND);
		uint64		repeat = 0;

		LWLockAcquire(feed->lock, LW_EXCLUSIVE);
		for (; done < end; done++)
			repeat |= append_one(&notes[done], keys + notes[done].key);
		repeat_removals(repeat);
		if (mine->since_told * TELL_PART >= Max(mine->npages, TELL_PART))
		{
			mine->since_told = 0;
			tell = true;
		}
		LWLockRelease(feed->lock);
	}
	return tell;
}

/* ---- Databases ---- */

/* The entry of this database, or a free one. */
static FeedDatabase *
find_database(Oid database)
{
	FeedDatabase *free_entry = NULL;

	for (int i = 0; i < feed->ndatabases; i++)
	{
		if (feed->databases[i].database == database)
			return &feed->databases[i];
		if (!OidIsValid(feed->databases[i].database))
			free_entry = &feed->databases[i];
	}
	if (free_entry == NULL && feed->ndatabases < DATABASES)
		free_entry = &feed->databases[feed->ndatabases++];
	return free_entry;
}

bool
kvs_feed_join(void)
{
	FeedDatabase *entry;

	if (likely(mine != NULL))
		return true;
	LWLockAcquire(feed->lock, LW_EXCLUSIVE);
	entry = find_database(MyDatabaseId);
	if (entry != NULL && entry->database != MyDatabaseId)
	{
		memset(entry, 0, sizeof(*entry));
		entry->database = MyDatabaseId;
		entry->oldest = entry->newest = NO_PAGE;
		entry->next_number = 1;
	}
	LWLockRelease(feed->lock);
	mine = entry;
	return mine != NULL;
}

void
kvs_feed_forget_database(Oid database)
{
	if (feed == NULL)
		return;
	LWLockAcquire(feed->lock, LW_EXCLUSIVE);
	for (int i = 0; i < feed->ndatabases; i++)
	{
		FeedDatabase *entry = &feed->databases[i];

		if (entry->database != database)
			continue;
		while (entry->npages > 0)
		{
			uint32		page = take_oldest(entry);

			pages[page].newer = feed->free;
			feed->free = page;
		}
		entry->database = InvalidOid;
	}
	LWLockRelease(feed->lock);
}

/* ---- Reading ---- */

uint64
kvs_feed_epoch(void)
{
	return feed->epoch;
}

/* The lock is held. */
static uint64
end_position(void)
{
	if (mine->newest == NO_PAGE)
		return mine->next_number * PAGE_BYTES;
	return pages[mine->newest].number * PAGE_BYTES + pages[mine->newest].used;
}

uint64
kvs_feed_end(void)
{
	uint64		result;

	LWLockAcquire(feed->lock, LW_SHARED);
	result = end_position();
	LWLockRelease(feed->lock);
	return result;
}

/* Find a position, which is not the end: the page where it is, and its offset there. */
static KvsFeedStep
find_position(uint64 position, uint32 *page, uint32 *offset)
{
	uint64		number = position / PAGE_BYTES;
	uint32		walked = 0;

	if (position > end_position() || position < PAGE_BYTES)
		return KVS_FEED_NO_POSITION;
	for (*page = mine->newest; *page != NO_PAGE && pages[*page].number > number;)
		*page = pages[*page].older;
	if (*page == NO_PAGE)
		return KVS_FEED_OVERRUN;
	*offset = position % PAGE_BYTES;
	if (*offset > pages[*page].used)
		return KVS_FEED_NO_POSITION;
	while (walked < *offset)
		walked += RecordSize(record_in(*page, walked)->key_size);
	return walked == *offset ? KVS_FEED_MORE : KVS_FEED_NO_POSITION;
}

/* Does the reader want this record? */
static bool
is_wanted(const KvsFeedReader *reader, const Record *record)
{
	int			size = reader->prefix_size;

	if (record->relid != reader->relid)
		return false;
	if (record->operation == KVS_FEED_DELETE_PREFIX)
		size = Min(size, record->key_size);
	return record->operation == KVS_FEED_CLEAR ||
		(record->key_size >= size && memcmp(record->key, reader->prefix, size) == 0);
}

static void
give(KvsFeedReader *reader, const Record *record, char *where)
{
	KvsFeedChange *change = (KvsFeedChange *) where;

	change->position = reader->position;
	change->versionstamp = record->versionstamp;
	change->operation = record->operation;
	change->flags = record->flags & ~FLAG_CHAINED;
	change->key_size = record->key_size;
	memcpy(change->key, record->key, record->key_size);
	reader->count++;
}

/* Walk on from here; the lock is held. */
static KvsFeedStep
read_from(KvsFeedReader *reader, uint32 page, uint32 offset)
{
	char	   *where = (char *) reader->buffer;
	char	   *end = where + sizeof(reader->buffer) - RecordSize(KVS_KEY_MAX_SIZE + 1);

	for (int left = BATCH_READ; left > 0 && reader->count < reader->max_count && where < end; left--)
	{
		const Record *record;

		if (offset == pages[page].used)
		{
			if (pages[page].newer == NO_PAGE)
				return KVS_FEED_END;
			page = pages[page].newer;
			offset = 0;
			reader->position = pages[page].number * PAGE_BYTES;
			continue;
		}
		record = record_in(page, offset);
		offset += RecordSize(record->key_size);
		reader->position = pages[page].number * PAGE_BYTES + offset;
		if (record->operation == KVS_FEED_LOST && (record->relid == reader->relid || !OidIsValid(record->relid)))
			return KVS_FEED_TOO_LARGE;
		if (!is_wanted(reader, record))
			continue;
		give(reader, record, where);
		where += MAXALIGN(offsetof(KvsFeedChange, key) + record->key_size);
	}
	return KVS_FEED_MORE;
}

KvsFeedStep
kvs_feed_read(KvsFeedReader *reader)
{
	KvsFeedStep result = KVS_FEED_END;
	uint32		page;
	uint32		offset;

	reader->count = 0;
	LWLockAcquire(feed->lock, LW_SHARED);
	if (reader->position != end_position())
	{
		result = find_position(reader->position, &page, &offset);
		if (result == KVS_FEED_MORE)
			result = read_from(reader, page, offset);
	}
	LWLockRelease(feed->lock);
	return result;
}

/* ---- Initialisation ---- */

static uint32
page_count(void)
{
	return (uint32) ((Size) kvs_guc_feed_size * 1024 / PAGE_BYTES);
}

/* One chain for 256 bytes of data: a few records each. */
static uint32
chain_count(void)
{
	return pg_nextpower2_32(page_count() * (PAGE_BYTES / 256));
}

static void
request_shmem(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Feed)));
	RequestAddinShmemSpace(mul_size(sizeof(Page), page_count()));
	RequestAddinShmemSpace(mul_size(sizeof(RecordRef), chain_count()));
	RequestAddinShmemSpace(mul_size(PAGE_BYTES, page_count()) + PG_CACHE_LINE_SIZE);
	RequestNamedLWLockTranche("kvstore_feed", 1);
}

static void
startup_shmem(void)
{
	bool		found;

	pages = ShmemInitStruct("kvstore feed pages", mul_size(sizeof(Page), page_count()), &found);
	chains = ShmemInitStruct("kvstore feed chains", mul_size(sizeof(RecordRef), chain_count()), &found);
	data = ShmemInitStruct("kvstore feed data", mul_size(PAGE_BYTES, page_count()), &found);
	feed = ShmemInitStruct("kvstore feed", sizeof(Feed), &found);
	kvs_feed_active = true;
	if (found)
		return;
	memset(feed, 0, sizeof(Feed));
	memset(chains, 0, sizeof(RecordRef) * chain_count());
	feed->lock = &GetNamedLWLockTranche("kvstore_feed")->lock;
	if (!pg_strong_random(&feed->epoch, sizeof(feed->epoch)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not get a random number for the feed")));
	feed->npages = page_count();
	feed->chain_mask = chain_count() - 1;
	for (uint32 i = 0; i < feed->npages; i++)
		pages[i].newer = i + 1 < feed->npages ? i + 1 : NO_PAGE;
	feed->free = 0;
}

void
kvs_feed_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
}
