/*
 * shape.h
 *		What a table must look like before anything of it is read.
 */
#ifndef KVS_SHAPE_H
#define KVS_SHAPE_H

#include "postgres.h"

#include "utils/rel.h"

#include "base/compat.h"

/* The triggers on every store: before and after each row, and before TRUNCATE (guard.c). */
#define KVS_GUARD_TRIGGER	"kvstore_guard"
#define KVS_GUARD_AFTER		"kvstore_guard_after"
#define KVS_GUARD_TRUNCATE	"kvstore_guard_truncate"
#define KVS_GUARD_TRIGGERS	3

/* Is a trigger of this name the guard? */
static inline bool
kvs_shape_is_guard(const char *name)
{
	return strcmp(name, KVS_GUARD_TRIGGER) == 0 || strcmp(name, KVS_GUARD_AFTER) == 0 ||
		strcmp(name, KVS_GUARD_TRUNCATE) == 0;
}

/* A column that a table must have at this number. */
typedef struct KvsColumn
{
	const char *name;
	Oid			type;			/* InvalidOid: kvkey */
	bool		not_null;
} KvsColumn;

/* What is wrong with the kind of table; NULL: nothing. */
extern const char *kvs_shape_find_wrong_table(Relation rel);

/* What is wrong with its first columns; NULL: nothing. */
extern const char *kvs_shape_find_wrong_column(Relation rel, const KvsColumn *columns, int ncolumns, Oid kvkey_type);

/* The first index for which "is_it" is true, or InvalidOid. */
typedef bool (*KvsIsIndex) (Relation index, const void *arg);

extern Oid	kvs_shape_find_index(Relation rel, KvsIsIndex is_it, const void *arg);

/* A btree over plain columns that can be used now; the second: and is unique at once. */
extern bool kvs_shape_is_usable_index(Relation index);
extern bool kvs_shape_is_unique_index(Relation index);

/* Has it row-level security?  False also if it is gone. */
extern bool kvs_shape_has_row_security(Oid relid);

/* How many columns an index has, INCLUDE too; 0: it is gone. */
extern int	kvs_shape_index_columns(Oid indexid);

/*
 * Has the owner put a trigger on it that fires for one of these events (TRIGGER_TYPE_...)?  The
 * guard does not count.
 */
extern bool kvs_shape_has_trigger(Relation rel, int16 events);

/* Does a write of a row touch only these columns and so many indexes?  The guard does not count. */
extern bool kvs_shape_is_plain(Relation rel, const KvsColumn *columns, int ncolumns, int nindexes);

/* A function for this kind of table: kv_create_<noun>, kv_alter_<noun>, with _ for spaces. */
extern char *kvs_shape_function(const char *verb, const char *noun);

/* The owner of a table; InvalidOid: it is gone. */
extern Oid	kvs_shape_owner(Oid relid);

/*
 * A table was found by the name of another one.  Raise 42501 unless both belong to the same owner:
 * anybody with CREATE on the schema can put a table where none is.  "part" says which part of the
 * other it is, for the message.  Call this before waiting for its lock, and again when it is held.
 * No ERROR if the table is gone.
 */
extern void kvs_shape_check_owner(Oid relid, const char *part, const char *noun, const char *name, Oid owner);

/* Raise 42809; "noun" is store, queue or snapshot store. */
pg_noreturn extern void kvs_shape_report(Relation rel, const char *noun, const char *detail);

#endif							/* KVS_SHAPE_H */
