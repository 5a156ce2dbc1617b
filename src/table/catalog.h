/*
 * catalog.h
 *		From the name of a store to a table that is safe to read: look-up, shape check, settings.
 */
#ifndef KVS_CATALOG_H
#define KVS_CATALOG_H

#include "postgres.h"

#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "storage/lock.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "table/plan.h"

/*
 * Longest name of a store or queue, in bytes: with prefix and suffix it must fit a PostgreSQL name.
 */
#define KVS_NAME_MAX		48

/* Kept plans of one store: those that read (scan.c), then those that write (statement.c). */
#define KVS_READ_PLANS		3
#define KVS_STORE_PLANS		32

/* What we must know of the extension's own objects. */
typedef struct KvsCatalog
{
	Oid			extension;
	Oid			data_schema;	/* kvstore */
	Oid			function_schema;	/* where CREATE EXTENSION put the functions */
	Oid			kvkey_type;
	Oid			kvkey_family;	/* its default btree operator family */
	Oid			sequence;		/* kvstore.versionstamp */
	uint32		generation;		/* another one, never 0, whenever something of this has changed */
} KvsCatalog;

/* Raises 55000 when the extension is not installed in this database. */
extern const KvsCatalog *kvs_catalog_get(void);

/* Is it?  Raises nothing. */
extern bool kvs_catalog_is_installed(void);

/*
 * Lock the extension, for a session that works on many tables and must not make DROP EXTENSION
 * fail.  DROP EXTENSION locks the extension before all else.  A session holds this lock until its
 * transaction ends.  So it can then lock a table, our sequence and our registries, one after the
 * other, without a deadlock with it.  False: the extension is just being dropped.
 */
extern bool kvs_catalog_keep_extension(void);

/* Does a session drop it, or wait to do so?  Also outside transactions. */
extern bool kvs_catalog_extension_is_wanted(void);

/*
 * A store as this session knows it.  It is of one table, and lives until the transaction ends at
 * least; "valid" until something about the table changes.
 */
typedef struct KvsStore
{
	char		name[NAMEDATALEN];
	Oid			relid;
	bool		valid;
	Oid			indexid;		/* the unique btree index over key */
	/* nothing about the table but its six columns and this index, see direct.c */
	bool		plain;
	/* a DELETE may pass rows over: there are policies, or triggers of the owner's */
	bool		selective;
	bool		has_default_ttl;
	Interval	default_ttl;
	int64		max_value_size; /* bytes; 0: the setting kvstore.max_value_size alone */
	struct KvsStat *stat;		/* pending counts, see stats.h */

	/* storecatalog.c's */
	bool		recent;			/* in the list of those used last */
	dlist_node	recent_node;
	KvsPlanOwner planned;
	SPIPlanPtr	plans[KVS_STORE_PLANS];
	struct KvsStore *next_orphan;
	TimestampTz orphaned_at;
} KvsStore;

/*
 * Where a kept plan is, to be made if it is NULL.  It is good until the next call of this: run it
 * at once (plan.h).
 */
extern SPIPlanPtr *kvs_storecatalog_plan(KvsStore *store, int which);

/*
 * Open a store's table with the given lock, kept until the transaction ends.  Close it with
 * table_close(rel, NoLock).  42P01: no such store; 42809: the table has not the shape of a store;
 * 22023: no possible name; 22004: name is NULL; 0A000: an unlogged store during recovery.
 */
extern KvsStore *kvs_storecatalog_open_store(const text *name, LOCKMODE lockmode, Relation *rel);

/*
 * Raise 22023 unless this is a possible name; "noun" is for the message.  Returns it as a C string.
 */
extern char *kvs_catalog_check_name(const text *name, const char *noun);

/* Raise 42809 unless the open table has the shape of a store.  Returns the OID of its key index. */
extern Oid	kvs_storecatalog_check_store_shape(Relation rel);

/*
 * Is it a store, as seen by the sweeper: in the right schema, of the right name, of the right
 * shape?
 */
extern bool kvs_storecatalog_is_store(Relation rel);

/* The table of a name, InvalidOid if there is none. */
extern Oid	kvs_catalog_find_table(const char *prefix, const char *name);

/* Find and lock the table of a name; NULL if there is none.  Its shape is not checked. */
extern Relation kvs_catalog_lock_table(const char *prefix, const char *name, LOCKMODE lockmode);

/* Visit all tables of our schema whose names begin so; their shape is not checked. */
extern void kvs_catalog_visit_tables(const char *prefix, void (*visit) (Form_pg_class form, void *arg), void *arg);

/* The OIDs of them. */
extern List *kvs_catalog_list_tables(const char *prefix);

/* The schema of the functions, operators and types, quoted where necessary. */
extern const char *kvs_catalog_function_schema(void);


extern void kvs_catalog_init(void);
extern void kvs_storecatalog_init(void);

#endif							/* KVS_CATALOG_H */
