/*
 * policy.h
 *		Row-level security: rows that a statement of ours has passed over.
 */
#ifndef KVS_POLICY_H
#define KVS_POLICY_H

#include "postgres.h"

#include "utils/timestamp.h"

#include "base/compat.h"
#include "key/key.h"
#include "table/catalog.h"

/* A row that a statement did not find; zeroed before the first look. */
typedef struct KvsPassedOver
{
	bool		seen;
	int64		versionstamp;
	int			rounds;			/* so often */
} KvsPassedOver;

/*
 * A statement found no row of this key.  Is there one that policies made it pass over?  With
 * "hidden" that may be one that they hide from the caller, else only one that they show.  False:
 * no, or the caller is not subject to policies.  True: run the statement again.  42501 if it was
 * run again, and the row is still the same.
 */
extern bool kvs_policy_passed_over(KvsStore *store, const KvsKey *key, bool hidden, TimestampTz now,
								   KvsPassedOver *row);

/* Raise 42501: policies keep the caller from locking or deleting an entry that is there. */
pg_noreturn extern void kvs_policy_report(const KvsStore *store);

#endif							/* KVS_POLICY_H */
