/*
 * tableddl.h
 *		What creating, altering and dropping have in common for stores, queues and snapshot stores.
 */
#ifndef KVS_TABLEDDL_H
#define KVS_TABLEDDL_H

#include "postgres.h"

#include "storage/lock.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "table/registry.h"
#include "table/settings.h"

/* Less than, equal to or greater than zero, as PostgreSQL compares intervals. */
extern int	kvs_tableddl_interval_sign(Interval *interval);

/* Run a statement as the caller, inside SPI_connect(). */
extern void kvs_tableddl_run_utility(const char *sql);

/* What belongs to a store or queue beside its table: a view, or a table of dead letters. */
typedef struct KvsCompanion
{
	const char *prefix;
	const char *noun;			/* table or view */
	const char *purpose;		/* for a message: what would go there */
	void		(*check) (Relation rel);	/* raises 42809 if it is something else */
	void		(*create) (const char *name, bool unlogged);
} KvsCompanion;

/* What kv_create_*() was asked for, and how it is made. */
typedef struct KvsCreation
{
	const KvsRegistry *registry;
	const KvsCompanion *companion;	/* NULL: none */
	void		(*check) (Relation rel);	/* raises 42809 if the table is something else */
	void		(*create) (const char *name, bool unlogged);	/* inside SPI_connect() */
	const char *name;
	bool		unlogged;
	bool		if_not_exists;
	const KvsSetting *settings; /* in the order of the registry's columns */
	int			nsettings;
} KvsCreation;

/*
 * Create it, unless it exists and if_not_exists was given.  Then what it lacks is made good, for
 * its owner: the companion, and the settings.  Settings that are other than wished stay as they
 * are, and a NOTICE says so.  Returns whether it is new.  42P07: it exists, or belongs to a role
 * that the caller has no reason to trust.
 */
extern bool kvs_tableddl_create(const KvsCreation *creation);

/* The qualified name of its table, for GRANT; no possible name needs quotes. */
extern text *kvs_tableddl_table_name(const KvsRegistry *registry, const char *name);

/*
 * The caller's own table of this name, InvalidOid if there is none; 42501 if it is somebody else's.
 */
extern Oid	kvs_tableddl_find_own_table(const char *prefix, const char *name);

/* The same, locked until the transaction ends: the name is its own for so long. */
extern Oid	kvs_tableddl_lock_own_table(const char *prefix, const char *name, LOCKMODE lockmode);

/* Until the transaction ends, keep all others from creating and dropping a table of this name. */
extern void kvs_tableddl_lock_name(const char *name);

/* Put the guard's triggers on a table of ours, inside SPI_connect(). */
extern void kvs_tableddl_create_guard(const char *prefix, const char *name);

#endif							/* KVS_TABLEDDL_H */
