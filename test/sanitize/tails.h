/*
 * Included before everything else in the build of make check-sanitize: behind what our code allocates lies a tail that it must not
 * touch.
 *
 * A memory context takes small chunks out of blocks that it keeps, of which the address sanitizer knows nothing.  A chunk above a
 * limit has a block of its own, from malloc(), which goes back with free(): by pfree(), and by reset and deletion of the context.
 * So each of our chunks is made that large, and what goes beyond the size that was asked for is poisoned: an overrun is reported,
 * and so is a use after any of the three.  free() takes the poison away, so the server may do with such a chunk what it does with
 * others.
 *
 * Values of variable length are copied in the same way when they are taken out of arguments and rows, so that reading past their
 * end is reported too.
 */

#ifndef KVS_TAILS_H
#define KVS_TAILS_H

/* With it, libc's own checking variants would be called, which the sanitizer does not know. */
#undef _FORTIFY_SOURCE

#include "postgres.h"

#include "fmgr.h"
#include "sanitizer/asan_interface.h"
#include "utils/memutils.h"

/* Above the limit of every kind of context (aset.c: ALLOC_CHUNK_LIMIT). */
#define KVS_TAIL_LARGE ((Size) 8 * 1024 + 1)
/* The least, behind chunks that are larger anyway. */
#define KVS_TAIL_SIZE ((Size) 64)

static inline Size
kvs_tail_room(Size size)
{
	return Max(size, KVS_TAIL_LARGE) + KVS_TAIL_SIZE;
}

static inline void *
kvs_tail_poison(void *chunk, Size size)
{
	if (chunk != NULL)
		ASAN_POISON_MEMORY_REGION((char *) chunk + size, kvs_tail_room(size) - size);
	return chunk;
}

static inline void *
kvs_tail_alloc(MemoryContext context, Size size, int flags)
{
	return kvs_tail_poison(MemoryContextAllocExtended(context, kvs_tail_room(size), flags), size);
}

static inline void *
kvs_tail_realloc(void *chunk, Size size)
{
	return kvs_tail_poison(repalloc(chunk, kvs_tail_room(size)), size);
}

static inline char *
kvs_tail_copy_text(const char *text, Size len)
{
	char	   *copy = kvs_tail_alloc(CurrentMemoryContext, len + 1, 0);

	memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

static inline struct varlena *
kvs_tail_copy_value(struct varlena *value)
{
	Size		size = VARSIZE_ANY(value);

	return memcpy(kvs_tail_alloc(CurrentMemoryContext, size, 0), value, size);
}

#define palloc(size) kvs_tail_alloc(CurrentMemoryContext, size, 0)
#define palloc0(size) kvs_tail_alloc(CurrentMemoryContext, size, MCXT_ALLOC_ZERO)
#define palloc_extended(size, flags) kvs_tail_alloc(CurrentMemoryContext, size, flags)
#define MemoryContextAlloc(context, size) kvs_tail_alloc(context, size, 0)
#define MemoryContextAllocZero(context, size) kvs_tail_alloc(context, size, MCXT_ALLOC_ZERO)
#define MemoryContextAllocHuge(context, size) kvs_tail_alloc(context, size, MCXT_ALLOC_HUGE)
#define repalloc(chunk, size) kvs_tail_realloc(chunk, size)
#define pstrdup(text) kvs_tail_copy_text(text, strlen(text))
#define pnstrdup(text, len) kvs_tail_copy_text(text, strnlen(text, len))
#define pg_detoast_datum(value) kvs_tail_copy_value(pg_detoast_datum(value))
#define pg_detoast_datum_copy(value) kvs_tail_copy_value(pg_detoast_datum(value))
#define pg_detoast_datum_packed(value) kvs_tail_copy_value(pg_detoast_datum_packed(value))

#endif
