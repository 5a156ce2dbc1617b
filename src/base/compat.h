/*
 * compat.h
 *		What differs between PostgreSQL 15 and 18, and nothing else.
 *
 * No other file mentions PG_VERSION_NUM.
 */
#ifndef KVS_COMPAT_H
#define KVS_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "kvstore needs PostgreSQL 15 or newer"
#endif

/* 18 writes it before the declaration, and has no longer what was written after it */
#ifndef pg_noreturn
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 18 made the binary side of common/base64.h unsigned */
#if PG_VERSION_NUM >= 180000
typedef uint8 KvsCompatBase64Byte;
#else
typedef char KvsCompatBase64Byte;
#endif

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16 replaced the ownership check of each kind of object by one function */
#if PG_VERSION_NUM >= 160000
#define kvs_compat_owns_table(relid, role)	object_ownercheck(RelationRelationId, (relid), (role))
#define kvs_compat_owns_database(oid, role)	object_ownercheck(DatabaseRelationId, (oid), (role))
#define kvs_compat_owns_schema(oid, role)	object_ownercheck(NamespaceRelationId, (oid), (role))
#define kvs_compat_owns_extension(oid, role)	object_ownercheck(ExtensionRelationId, (oid), (role))
#else
#define kvs_compat_owns_table(relid, role)	pg_class_ownercheck((relid), (role))
#define kvs_compat_owns_database(oid, role)	pg_database_ownercheck((oid), (role))
#define kvs_compat_owns_schema(oid, role)	pg_namespace_ownercheck((oid), (role))
#define kvs_compat_owns_extension(oid, role)	pg_extension_ownercheck((oid), (role))
#endif

/* 16 replaced the privilege check of a schema likewise */
#if PG_VERSION_NUM >= 160000
#define kvs_compat_schema_aclcheck(schema, role, mode) \
	object_aclcheck(NamespaceRelationId, (schema), (role), (mode))
#else
#define kvs_compat_schema_aclcheck(schema, role, mode) \
	pg_namespace_aclcheck((schema), (role), (mode))
#endif

/* 17 looks an identity column's sequence up in the open table */
#if PG_VERSION_NUM >= 170000
#define kvs_compat_identity_sequence(rel, column) getIdentitySequence((rel), (column), true)
#else
#define kvs_compat_identity_sequence(rel, column) getIdentitySequence(RelationGetRelid(rel), (column), true)
#endif

/* 18 added the instrumentation argument */
#if PG_VERSION_NUM >= 180000
#define kvs_compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#else
#define kvs_compat_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#endif

/*
 * 16 made three cases of "do the indexes need entries for the new version?"; with one index that is
 * none or all
 */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes KvsCompatUpdateIndexes;
#define kvs_compat_needs_index_entries(update)	((update) != TU_None)
#else
typedef bool KvsCompatUpdateIndexes;
#define kvs_compat_needs_index_entries(update)	(update)
#endif

/*
 * 18 has NOT NULL constraints that rows from before need not keep; attnotnull is true of them, too
 */
#if PG_VERSION_NUM >= 180000
#define kvs_compat_is_not_null(desc, i) \
	(TupleDescCompactAttr((desc), (i))->attnullability == ATTNULLABLE_VALID)
#else
#define kvs_compat_is_not_null(desc, i) (TupleDescAttr((desc), (i))->attnotnull)
#endif

/* 17 made interval infinite; before, only a timestamp could be */
#if PG_VERSION_NUM >= 170000
#define kvs_compat_interval_is_infinite(interval)	INTERVAL_NOT_FINITE(interval)
#define kvs_compat_interval_is_minus_infinity(interval) INTERVAL_IS_NOBEGIN(interval)
#else
#define kvs_compat_interval_is_infinite(interval)	(false)
#define kvs_compat_interval_is_minus_infinity(interval) (false)
#endif

/* 16 renamed the function that gives a backend's status by its index */
#if PG_VERSION_NUM >= 160000
#define kvs_compat_local_backend_entry(i)	pgstat_get_local_beentry_by_index(i)
#else
#define kvs_compat_local_backend_entry(i)	pgstat_fetch_stat_local_beentry(i)
#endif

/*
 * 17 runs maintenance with a safe search_path, and has a function for that; it ends with the GUC
 * nest level
 */
#if PG_VERSION_NUM >= 170000
#define kvs_compat_restrict_search_path() RestrictSearchPath()
#else
#define kvs_compat_restrict_search_path() \
	((void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, \
							  GUC_ACTION_SAVE, true, 0, false))
#endif

/* 15.4 and later mark a database whose DROP was interrupted; nobody can connect to it */
#ifdef DATCONNLIMIT_INVALID_DB
#define kvs_compat_database_is_invalid(form) ((form)->datconnlimit == DATCONNLIMIT_INVALID_DB)
#else
#define kvs_compat_database_is_invalid(form) (false)
#endif

/* 17 gave extensions wait events with names */
#if PG_VERSION_NUM >= 170000
#define kvs_compat_wait_event(name) WaitEventExtensionNew(name)
#else
#define kvs_compat_wait_event(name) (PG_WAIT_EXTENSION)
#endif

/*
 * Its header, libpq/libpq.h, wants those of GSSAPI, which the server's development package does not
 * bring along.
 */
extern bool pq_check_connection(void);

#endif							/* KVS_COMPAT_H */
