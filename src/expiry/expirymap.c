/*
 * expirymap.c
 *		The expiry map's directory: which table, and which extent of it, has which slots.  The
 *		design is in expiry.c.
 *
 * The map's lock protects everything here but the slots themselves.  Entries are made while rows
 * are written, never in a transaction callback.  They are forgotten when a table or database is
 * gone and nobody can have a note for it that is yet to be published.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "expiry/expiry.h"
#include "expiry/expirymap.h"

/* The directory: table (part 0) and extent (part number + 1) to their entries. */
typedef struct DirectoryKey
{
	Oid			database;
	Oid			relid;
	uint32		part;
} DirectoryKey;

typedef struct DirectoryEntry
{
	DirectoryKey key;			/* must be first */
	void	   *entry;
} DirectoryEntry;

bool		kvs_expirymap_active = false;
KvsExpiryMap *kvs_expirymap_map = NULL;
KvsExpiryDatabase *kvs_expirymap_my_database = NULL;
KvsExpirySlot *kvs_expirymap_made_slot = NULL;

static HTAB *directory = NULL;

/* ---- The directory ---- */

/* Find an entry; the map's lock is held. */
static void *
find_entry(Oid database, Oid relid, uint32 part)
{
	DirectoryKey key = {database, relid, part};
	DirectoryEntry *entry = hash_search(directory, &key, HASH_FIND, NULL);

	return entry ? entry->entry : NULL;
}

/*
 * Add an entry that is not there yet; the map's lock is held exclusively.  The hash has room for as
 * many as there are tables and extents.
 */
static bool
add_entry(Oid database, Oid relid, uint32 part, void *value)
{
	DirectoryKey key = {database, relid, part};
	DirectoryEntry *entry = hash_search(directory, &key, HASH_ENTER_NULL, NULL);

	if (entry == NULL)
		return false;
	entry->entry = value;
	return true;
}

static void
remove_entry(Oid database, Oid relid, uint32 part)
{
	DirectoryKey key = {database, relid, part};

	hash_search(directory, &key, HASH_REMOVE, NULL);
}

/*
 * This database's entry; "make": if need be.  NULL if there is none, or no room.  It stays as long
 * as anybody is connected.
 */
static KvsExpiryDatabase *
find_database(bool make)
{
	KvsExpiryDatabase *free_entry = NULL;

	LWLockAcquire(kvs_expirymap_map->lock, LW_EXCLUSIVE);
	for (int i = 0; i < KVS_EXPIRY_DATABASES && kvs_expirymap_my_database == NULL; i++)
	{
		KvsExpiryDatabase *entry = &kvs_expirymap_map->databases[i];

		if (entry->database == MyDatabaseId)
			kvs_expirymap_my_database = entry;
		else if (!OidIsValid(entry->database) && free_entry == NULL)
			free_entry = entry;
	}
	if (kvs_expirymap_my_database == NULL && free_entry != NULL && make)
	{
		pg_atomic_write_u64(&free_entry->next_due, (uint64) DT_NOEND);
		pg_atomic_write_u64(&free_entry->full, (uint64) DT_NOBEGIN);
		pg_atomic_write_u64(&free_entry->unmapped, (uint64) DT_NOEND);
		pg_atomic_write_u64(&free_entry->wake_at, (uint64) DT_NOEND);
		pg_atomic_write_u64(&free_entry->logged_at, (uint64) DT_NOBEGIN);
		pg_atomic_write_u32(&free_entry->full_delay, 0);
		free_entry->latch = NULL;
		free_entry->overflow = NULL;
		free_entry->database = MyDatabaseId;
		kvs_expirymap_my_database = free_entry;
		kvs_expirymap_made_slot = &kvs_expirymap_my_database->full;
	}
	LWLockRelease(kvs_expirymap_map->lock);
	return kvs_expirymap_my_database;
}

KvsExpiryDatabase *
kvs_expirymap_get_database(void)
{
	if (likely(kvs_expirymap_my_database != NULL))
		return kvs_expirymap_my_database;
	return kvs_expirymap_map != NULL && OidIsValid(MyDatabaseId) ? find_database(true) : NULL;
}

KvsExpirySlot *
kvs_expirymap_database(void)
{
	return kvs_expirymap_get_database() ? &kvs_expirymap_my_database->full : NULL;
}

/* The overflow of this database, taken if there is a free one. */
static KvsExpiryOverflow *
get_overflow(void)
{
	KvsExpiryDatabase *mine = kvs_expirymap_my_database;

	if (mine->overflow != NULL)
		return mine->overflow;
	LWLockAcquire(kvs_expirymap_map->lock, LW_EXCLUSIVE);
	for (int i = 0; i < KVS_OVERFLOWS && mine->overflow == NULL; i++)
	{
		KvsExpiryOverflow *overflow = &kvs_expirymap_map->overflows[i];

		if (OidIsValid(overflow->database))
			continue;
		overflow->database = MyDatabaseId;
		mine->overflow = overflow;
	}
	LWLockRelease(kvs_expirymap_map->lock);
	return mine->overflow;
}

KvsExpirySlot *
kvs_expirymap_unmapped(Oid relid)
{
	KvsExpiryOverflow *overflow;

	if (kvs_expirymap_get_database() == NULL)
		return NULL;
	overflow = get_overflow();
	if (overflow == NULL)
		return &kvs_expirymap_my_database->unmapped;
	return &overflow->slots[hash_uint32(relid) % KVS_OVERFLOW_SLOTS];
}

bool
kvs_expirymap_is_unmapped_in(Oid relid, const KvsExpirySlot *slot)
{
	return slot == &kvs_expirymap_my_database->unmapped || slot == kvs_expirymap_unmapped(relid);
}

KvsExpirySlot *
kvs_expirymap_find_database(void)
{
	return kvs_expirymap_my_database != NULL || find_database(false) != NULL ? &kvs_expirymap_my_database->full : NULL;
}

KvsExpiryTable *
kvs_expirymap_find_table(Oid relid)
{
	return find_entry(MyDatabaseId, relid, 0);
}

/* Find or make the entry of a table; the map's lock is held exclusively. */
static KvsExpiryTable *
make_table(Oid relid)
{
	KvsExpiryTable *table = find_entry(MyDatabaseId, relid, 0);

	if (table != NULL)
		return table;
	for (; kvs_expirymap_map->first_free < kvs_expirymap_map->ntables; kvs_expirymap_map->first_free++)
	{
		table = &kvs_expirymap_map->tables[kvs_expirymap_map->first_free];
		if (OidIsValid(table->database))
			continue;
		if (!add_entry(MyDatabaseId, relid, 0, table))
			return NULL;
		pg_atomic_write_u64(&table->whole, (uint64) DT_NOBEGIN);
		pg_atomic_write_u64(&table->aside_until, (uint64) DT_NOBEGIN);
		pg_atomic_write_u32(&table->filenumber, InvalidOid);
		pg_atomic_write_u32(&table->pass_block, InvalidBlockNumber);
		pg_atomic_write_u32(&table->foreign, 0);
		pg_atomic_write_u32(&table->owner, InvalidOid);
		pg_atomic_write_u32(&table->troubled, 0);
		table->relid = relid;
		table->database = MyDatabaseId;
		kvs_expirymap_made_slot = &table->whole;
		return table;
	}
	return NULL;
}

KvsExpiryTable *
kvs_expirymap_get_table(Oid relid)
{
	KvsExpiryTable *table;

	if (kvs_expirymap_get_database() == NULL)
		return NULL;
	LWLockAcquire(kvs_expirymap_map->lock, LW_SHARED);
	table = find_entry(MyDatabaseId, relid, 0);
	LWLockRelease(kvs_expirymap_map->lock);
	if (table == NULL)
	{
		LWLockAcquire(kvs_expirymap_map->lock, LW_EXCLUSIVE);
		table = make_table(relid);
		LWLockRelease(kvs_expirymap_map->lock);
	}
	return table;
}

/* Find or make an extent; the map's lock is held exclusively.  NULL: the pool is full. */
static KvsExpiryExtent *
make_extent(Oid relid, uint32 number)
{
	KvsExpiryExtent *extent = find_entry(MyDatabaseId, relid, number + 1);
	KvsExpiryTable *table = make_table(relid);

	if (extent != NULL || table == NULL)
		return extent;
	for (int i = 0; i < kvs_expirymap_map->nextents; i++)
	{
		extent = &kvs_expirymap_map->extents[i];
		if (extent->table != NULL)
			continue;
		if (!add_entry(MyDatabaseId, relid, number + 1, extent))
			return NULL;
		extent->table = table;
		extent->number = number;
		return extent;
	}
	return NULL;
}

/* Find or make the extent of a block. */
static KvsExpiryExtent *
get_extent(Oid relid, uint32 number)
{
	/*
	 * The last one found; good while no table was forgotten, since ours could not be: we have it
	 * locked.
	 */
	static Oid	last_relid = InvalidOid;
	static uint32 last_number;
	static uint64 last_generation;
	static KvsExpiryExtent *last_extent;

	KvsExpiryExtent *extent;
	uint64		generation = pg_atomic_read_u64(&kvs_expirymap_map->generation);

	if (relid == last_relid && number == last_number && generation == last_generation)
		return last_extent;
	LWLockAcquire(kvs_expirymap_map->lock, LW_SHARED);
	extent = find_entry(MyDatabaseId, relid, number + 1);
	LWLockRelease(kvs_expirymap_map->lock);
	if (extent == NULL)
	{
		LWLockAcquire(kvs_expirymap_map->lock, LW_EXCLUSIVE);
		extent = make_extent(relid, number);
		LWLockRelease(kvs_expirymap_map->lock);
	}
	if (extent != NULL)
	{
		last_relid = relid;
		last_number = number;
		last_generation = generation;
		last_extent = extent;
	}
	return extent;
}

KvsExpirySlot *
kvs_expirymap_get_slot(Oid relid, BlockNumber block)
{
	KvsExpiryExtent *extent = NULL;
	KvsExpiryTable *table;

	if (kvs_expirymap_get_database() == NULL)
		return NULL;
	if (BlockNumberIsValid(block))
		extent = get_extent(relid, block / KVS_EXTENT_BLOCKS);
	if (extent != NULL)
		return &extent->slots[block % KVS_EXTENT_BLOCKS / KVS_EXPIRY_GROUP];
	table = kvs_expirymap_get_table(relid);
	return table ? &table->whole : NULL;
}

KvsExpirySlot *
kvs_expirymap_whole(KvsExpiryTable *table)
{
	return &table->whole;
}

int
kvs_expirymap_list_tables(Oid *relids, int max)
{
	int			count = 0;

	LWLockAcquire(kvs_expirymap_map->lock, LW_SHARED);
	for (int i = 0; i < kvs_expirymap_map->ntables && count < max; i++)
		if (kvs_expirymap_map->tables[i].database == MyDatabaseId)
			relids[count++] = kvs_expirymap_map->tables[i].relid;
	LWLockRelease(kvs_expirymap_map->lock);
	return count;
}

/* the map's lock is held exclusively. */
static void
forget_table(KvsExpiryTable *table)
{
	for (int i = 0; i < kvs_expirymap_map->nextents; i++)
	{
		KvsExpiryExtent *extent = &kvs_expirymap_map->extents[i];

		if (extent->table != table)
			continue;
		remove_entry(table->database, table->relid, extent->number + 1);
		extent->table = NULL;
		for (int n = 0; n < KVS_EXTENT_GROUPS; n++)
			pg_atomic_write_u64(&extent->slots[n], (uint64) DT_NOEND);
	}
	remove_entry(table->database, table->relid, 0);
	table->database = InvalidOid;
	kvs_expirymap_map->first_free = Min(kvs_expirymap_map->first_free, table - kvs_expirymap_map->tables);
	pg_atomic_fetch_add_u64(&kvs_expirymap_map->generation, 1);
}

void
kvs_expirymap_forget_table(Oid database, Oid relid)
{
	KvsExpiryTable *table;

	LWLockAcquire(kvs_expirymap_map->lock, LW_EXCLUSIVE);
	table = find_entry(database, relid, 0);
	if (table != NULL)
		forget_table(table);
	LWLockRelease(kvs_expirymap_map->lock);
}

static void
forget_overflow(KvsExpiryOverflow *overflow)
{
	overflow->database = InvalidOid;
	for (int i = 0; i < KVS_OVERFLOW_SLOTS; i++)
		pg_atomic_write_u64(&overflow->slots[i], (uint64) DT_NOEND);
}

void
kvs_expirymap_forget_database(Oid database)
{
	LWLockAcquire(kvs_expirymap_map->lock, LW_EXCLUSIVE);
	for (int i = 0; i < KVS_OVERFLOWS; i++)
		if (kvs_expirymap_map->overflows[i].database == database)
			forget_overflow(&kvs_expirymap_map->overflows[i]);
	for (int i = 0; i < kvs_expirymap_map->ntables; i++)
		if (kvs_expirymap_map->tables[i].database == database)
			forget_table(&kvs_expirymap_map->tables[i]);
	for (int i = 0; i < KVS_EXPIRY_DATABASES; i++)
		if (kvs_expirymap_map->databases[i].database == database)
			kvs_expirymap_map->databases[i].database = InvalidOid;
	LWLockRelease(kvs_expirymap_map->lock);
}

/* ---- Initialisation ---- */

static int
count_extents(void)
{
	return Max(kvs_guc_expiry_slots / KVS_EXTENT_GROUPS, 1);
}

static Size
map_size(void)
{
	Size		size = add_size(offsetof(KvsExpiryMap, extents), mul_size(count_extents(), sizeof(KvsExpiryExtent)));

	return add_size(size, mul_size(kvs_guc_expiry_tables, sizeof(KvsExpiryTable)));
}

static void
request_shmem(void)
{
	RequestAddinShmemSpace(map_size());
	RequestAddinShmemSpace(hash_estimate_size(kvs_guc_expiry_tables + count_extents(), sizeof(DirectoryEntry)));
	RequestNamedLWLockTranche("kvstore_expiry", 1);
}

static void
init_map(void)
{
	memset(kvs_expirymap_map, 0, map_size());
	kvs_expirymap_map->lock = &GetNamedLWLockTranche("kvstore_expiry")->lock;
	kvs_expirymap_map->nextents = count_extents();
	kvs_expirymap_map->ntables = kvs_guc_expiry_tables;
	kvs_expirymap_map->tables = (KvsExpiryTable *) &kvs_expirymap_map->extents[kvs_expirymap_map->nextents];
	pg_atomic_init_u64(&kvs_expirymap_map->generation, 0);
	for (int i = 0; i < KVS_EXPIRY_DATABASES; i++)
	{
		pg_atomic_init_u64(&kvs_expirymap_map->databases[i].next_due, 0);
		pg_atomic_init_u64(&kvs_expirymap_map->databases[i].full, 0);
		pg_atomic_init_u64(&kvs_expirymap_map->databases[i].unmapped, 0);
		pg_atomic_init_u64(&kvs_expirymap_map->databases[i].wake_at, 0);
		pg_atomic_init_u64(&kvs_expirymap_map->databases[i].logged_at, 0);
		pg_atomic_init_u32(&kvs_expirymap_map->databases[i].full_delay, 0);
	}
	for (int i = 0; i < KVS_OVERFLOWS; i++)
		for (int n = 0; n < KVS_OVERFLOW_SLOTS; n++)
			pg_atomic_init_u64(&kvs_expirymap_map->overflows[i].slots[n], (uint64) DT_NOEND);
	for (int i = 0; i < kvs_expirymap_map->ntables; i++)
	{
		pg_atomic_init_u64(&kvs_expirymap_map->tables[i].whole, 0);
		pg_atomic_init_u64(&kvs_expirymap_map->tables[i].aside_until, 0);
		pg_atomic_init_u32(&kvs_expirymap_map->tables[i].filenumber, 0);
		pg_atomic_init_u32(&kvs_expirymap_map->tables[i].pass_block, 0);
		pg_atomic_init_u32(&kvs_expirymap_map->tables[i].foreign, 0);
		pg_atomic_init_u32(&kvs_expirymap_map->tables[i].owner, InvalidOid);
		pg_atomic_init_u32(&kvs_expirymap_map->tables[i].troubled, 0);
	}
	for (int i = 0; i < kvs_expirymap_map->nextents; i++)
		for (int n = 0; n < KVS_EXTENT_GROUPS; n++)
			pg_atomic_init_u64(&kvs_expirymap_map->extents[i].slots[n], (uint64) DT_NOEND);
}

static void
startup_shmem(void)
{
	HASHCTL		ctl;
	long		entries = kvs_guc_expiry_tables + count_extents();
	bool		found;

	kvs_expirymap_map = ShmemInitStruct("kvstore expiry map", map_size(), &found);
	if (!found)
		init_map();
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(DirectoryKey);
	ctl.entrysize = sizeof(DirectoryEntry);
	directory = ShmemInitHash("kvstore expiry directory", entries, entries, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	kvs_expirymap_active = true;
}

void
kvs_expirymap_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
}
