/* identity.h: acting as the owner of a table. */
#ifndef KVS_IDENTITY_H
#define KVS_IDENTITY_H

#include "postgres.h"

typedef struct KvsIdentity
{
	Oid			user;
	int			context;
	int			guc_level;
} KvsIdentity;

/*
 * Act as "owner", in a restricted operation and with a safe search_path, until
 * kvs_identity_restore().  So code that an owner put on a table, such as a trigger, never runs with
 * more rights than the owner's.  An ERROR restores the identity together with the transaction's
 * state.
 */
extern void kvs_identity_become(Oid owner, KvsIdentity *saved);
extern void kvs_identity_restore(const KvsIdentity *saved);

#endif							/* KVS_IDENTITY_H */
