/*
 * rowmap.h
 *		Where the rows of keys were found last.
 */
#ifndef KVS_ROWMAP_H
#define KVS_ROWMAP_H

#include "postgres.h"

#include "storage/itemptr.h"
#include "utils/rel.h"

/* Identifies a key of a table of this database, nearly always. */
extern uint64 kvs_rowmap_hash(Oid relid, const char *key, int size);

/*
 * Where the row of this key may be, the root of its HOT chain: a hint, to be verified.  The block
 * is within the table, whose lock the caller holds.  False if nothing is known.
 */
extern bool kvs_rowmap_get(Relation rel, uint64 hash, ItemPointer tid);

/* Remember where an index says that the row is. */
extern void kvs_rowmap_put(uint64 hash, const ItemPointerData *tid);

/*
 * Is the block within the table, whose lock the caller holds?  A row of one that was cut off would
 * be an error to read.
 */
extern bool kvs_rowmap_block_exists(Relation rel, BlockNumber block);

extern void kvs_rowmap_init(void);

#endif							/* KVS_ROWMAP_H */
