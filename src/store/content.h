/*
 * content.h
 *		What an entry holds: the columns of its row, and the one way into and out of them.
 */
#ifndef KVS_CONTENT_H
#define KVS_CONTENT_H

#include "postgres.h"

/* Columns of a store, as they are numbered in its slots; attribute numbers are one higher. */
enum
{
	KVS_COLUMN_KEY,
	KVS_COLUMN_VALUE,
	KVS_COLUMN_BYTES,
	KVS_COLUMN_KIND,
	KVS_COLUMN_VERSIONSTAMP,
	KVS_COLUMN_EXPIRES_AT,
	KVS_COLUMNS
};

/* Values of the column kind. */
#define KVS_KIND_JSON	'j'
#define KVS_KIND_BYTES	'b'
#define KVS_KIND_U64	'u'

/* No value of the column: a row that does not hold what its kind promises. */
#define KVS_KIND_BROKEN '\0'

/* What an entry holds, or is to hold. */
typedef struct KvsContent
{
	char		kind;			/* KVS_KIND_... */
	/* jsonb for JSON and U64, bytea for BYTES; 0: not wanted, or BROKEN */
	Datum		datum;
} KvsContent;

/*
 * What a row holds, from its columns in the order of the table, at least up to kind.  It points
 * into the row.  BROKEN unless the kind is known and the column that it names, and no other, is
 * set.
 */
static inline void
kvs_content_read(const Datum *values, const bool *nulls, KvsContent *content)
{
	char		kind = nulls[KVS_COLUMN_KIND] ? KVS_KIND_BROKEN : DatumGetChar(values[KVS_COLUMN_KIND]);
	int			set = kind == KVS_KIND_BYTES ? KVS_COLUMN_BYTES : KVS_COLUMN_VALUE;
	int			unset = kind == KVS_KIND_BYTES ? KVS_COLUMN_VALUE : KVS_COLUMN_BYTES;
	bool		known = kind == KVS_KIND_JSON || kind == KVS_KIND_BYTES || kind == KVS_KIND_U64;

	if (likely(known && !nulls[set] && nulls[unset]))
		*content = (KvsContent) {kind, values[set]};
	else
		*content = (KvsContent) {KVS_KIND_BROKEN, (Datum) 0};
}

/* Lay content out in the columns value, bytes and kind. */
extern void kvs_content_write(const KvsContent *content, Datum *values, bool *nulls);

/* Is it what its kind promises?  That of a row need not be: what is in a table is not trusted. */
extern bool kvs_content_is_whole(const KvsContent *content);

/* Raise KV005, with the key of the entry, unless it is. */
extern void kvs_content_check(const KvsContent *content, const char *key, int key_size);

/* Copy it out of its row, into the current memory context. */
extern void kvs_content_copy(KvsContent *content);

#endif							/* KVS_CONTENT_H */
