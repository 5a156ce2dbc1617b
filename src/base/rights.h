/*
 * rights.h
 *		What a role may be shown of a table that others use.
 */
#ifndef KVS_RIGHTS_H
#define KVS_RIGHTS_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* Has the caller this right on a table?  False also if it is gone. */
extern bool kvs_rights_has(Oid relid, AclMode right);

/*
 * May the caller know how much a table has, how often it is used and which sessions wait for it?
 * That takes SELECT on it, or the right to read all statistics.  No lock may be held.
 */
extern bool kvs_rights_may_see(Oid relid);

#endif							/* KVS_RIGHTS_H */
