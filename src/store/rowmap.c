/*
 * rowmap.c
 *		Where the rows of keys were found last, in shared memory.
 *
 * The descent of the index is more than half of what a read costs, and nearly all reads find the
 * row where the last one did.  So the place is remembered for all sessions, in a hash of fixed
 * size, kvstore.row_map_size.
 *
 * It is a hint and nothing else.  A reader fetches the tuple with its snapshot, as from an index,
 * and compares the key.  If that fails, it asks the index.  A snapshot sees at most one version of
 * a key.  So a visible row with the right key is the right one, however it was found.  Hence
 * nothing has to be removed, whatever happens to the table, and entries are overwritten at will.
 *
 * A slot is one atomic of 64 bits: 16 of the hash, block, offset; 0 is empty.  Four neighbours,
 * half a cache line, make a bucket.  There is no lock: a reader sees one slot as a whole, and two
 * writers of one bucket may lose each other's hint.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "storage/smgr.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "store/rowmap.h"

#define BUCKET_SLOTS	4

static pg_atomic_uint64 *slots = NULL;
static uint64 bucket_mask;

/* The largest power of two of buckets that fits the setting; 0: no map. */
static uint64
bucket_count(void)
{
	uint64		fit = (uint64) kvs_guc_row_map_size * 1024 / (BUCKET_SLOTS * sizeof(pg_atomic_uint64));

	return fit == 0 ? 0 : UINT64CONST(1) << pg_leftmost_one_pos64(fit);
}

uint64
kvs_rowmap_hash(Oid relid, const char *key, int size)
{
	return hash_bytes_extended((const unsigned char *) key, size, ((uint64) MyDatabaseId << 32) | relid);
}

static inline pg_atomic_uint64 *
bucket_of(uint64 hash)
{
	return &slots[(hash & bucket_mask) * BUCKET_SLOTS];
}

bool
kvs_rowmap_block_exists(Relation rel, BlockNumber block)
{
	BlockNumber known = RelationGetSmgr(rel)->smgr_cached_nblocks[MAIN_FORKNUM];

	/*
	 * what we have seen holds while we have the lock: to cut a table off takes all its locks, and
	 * makes us forget
	 */
	if (likely(known != InvalidBlockNumber && block < known))
		return true;
	return block < RelationGetNumberOfBlocks(rel);
}

bool
kvs_rowmap_get(Relation rel, uint64 hash, ItemPointer tid)
{
	pg_atomic_uint64 *bucket;

	if (slots == NULL)
		return false;
	bucket = bucket_of(hash);
	for (int i = 0; i < BUCKET_SLOTS; i++)
	{
		uint64		slot = pg_atomic_read_u64(&bucket[i]);

		if (slot >> 48 != hash >> 48 || (uint16) slot == 0)
			continue;
		ItemPointerSet(tid, (BlockNumber) (slot >> 16), (OffsetNumber) slot);
		return kvs_rowmap_block_exists(rel, (BlockNumber) (slot >> 16));
	}
	return false;
}

void
kvs_rowmap_put(uint64 hash, const ItemPointerData *tid)
{
	static uint32 victim = 0;
	uint64		value = (hash >> 48) << 48 | (uint64) ItemPointerGetBlockNumber(tid) << 16 |
		ItemPointerGetOffsetNumber(tid);
	pg_atomic_uint64 *bucket;
	int			chosen = -1;

	if (slots == NULL)
		return;
	bucket = bucket_of(hash);
	for (int i = 0; i < BUCKET_SLOTS; i++)
	{
		uint64		slot = pg_atomic_read_u64(&bucket[i]);

		if (slot >> 48 == hash >> 48 && slot != 0)
		{
			chosen = i;
			break;
		}
		if (slot == 0)
			chosen = i;
	}
	if (chosen < 0)
		chosen = victim++ % BUCKET_SLOTS;
	pg_atomic_write_u64(&bucket[chosen], value);
}

static void
request_shmem(void)
{
	RequestAddinShmemSpace(bucket_count() * BUCKET_SLOTS * sizeof(pg_atomic_uint64) + PG_CACHE_LINE_SIZE);
}

static void
startup_shmem(void)
{
	uint64		count = bucket_count() * BUCKET_SLOTS;
	bool		found;

	if (count == 0)
		return;
	slots = ShmemInitStruct("kvstore row map", count * sizeof(pg_atomic_uint64), &found);
	bucket_mask = count / BUCKET_SLOTS - 1;
	if (!found)
		for (uint64 i = 0; i < count; i++)
			pg_atomic_init_u64(&slots[i], 0);
}

void
kvs_rowmap_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
}
