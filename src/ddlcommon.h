/*
 * ddlcommon.h
 *		What creating, altering and dropping have in common for stores, queues and snapshot stores.
 */
#ifndef KVS_DDLCOMMON_H
#define KVS_DDLCOMMON_H

#include "postgres.h"

#include "utils/rel.h"
#include "utils/timestamp.h"

/* Less than, equal to or greater than zero, as PostgreSQL compares intervals. */
extern int	kvs_ddl_interval_sign(Interval *interval);

/* Run a statement as the caller, inside SPI_connect(). */
extern void kvs_ddl_run_utility(const char *sql);

/*
 * Is there a table of this name?  42P07 unless if_not_exists; "check" raises 42809 if it is something else.  "noun" is for messages, see kvs_shape_report().
 */
extern bool kvs_ddl_find_existing(const char *prefix, const char *name, const char *noun, bool if_not_exists,
								  void (*check) (Relation rel));

/* The caller's own table of this name, InvalidOid if there is none; 42501 if it is somebody else's. */
extern Oid	kvs_ddl_find_own_table(const char *prefix, const char *name);

/* Keep everybody else from creating and dropping until the transaction ends; the second form raises 42501 without CREATE on the schema. */
extern void kvs_ddl_lock_schema(void);
extern void kvs_ddl_lock_schema_for_create(void);

/* Put the guard's triggers on a table of ours, inside SPI_connect(). */
extern void kvs_ddl_create_guard(const char *prefix, const char *name);

#endif							/* KVS_DDLCOMMON_H */
