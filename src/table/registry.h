/*
 * registry.h
 *		Settings of stores, queues and snapshot stores: rows in tables of the extension.
 */
#ifndef KVS_REGISTRY_H
#define KVS_REGISTRY_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"

/* A kind of table that has settings, and where they are. */
typedef struct KvsRegistry
{
	const char *noun;			/* for messages; kv_create_<noun> makes one, with _ for spaces */
	const char *prefix;			/* of its tables */
	const char *table;			/* the registry, in the schema kvstore */
	const char *column;			/* its key: the name without the prefix */
} KvsRegistry;

extern const KvsRegistry kvs_registry_stores;
extern const KvsRegistry kvs_registry_queues;
extern const KvsRegistry kvs_registry_snapshots;

/* Takes what a row says. */
typedef void (*KvsRegistryTake) (HeapTuple tuple, TupleDesc desc, void *arg);

/* Read the row of a name as it is now, whatever the snapshot ("take" may be NULL); false: none. */
extern bool kvs_registry_read(const KvsRegistry *registry, const char *name, KvsRegistryTake take, void *arg);

/* Tell the user, once in a session, that a table has no row; and have them spared of it. */
extern void kvs_registry_warn(const KvsRegistry *registry, const char *name, Oid relid);
extern void kvs_registry_spare_warning(Oid relid);

/* Run a statement on a registry as its owner, after the caller's own right was checked. */
extern void kvs_registry_run(const KvsRegistry *registry, const char *sql, int nargs, Oid *types, Datum *values,
							 const char *nulls);

/* Remove the row of a name. */
extern void kvs_registry_delete(const KvsRegistry *registry, const char *name);

/* The row of this table is another now. */
extern void kvs_registry_changed(Oid relid);

#endif							/* KVS_REGISTRY_H */
