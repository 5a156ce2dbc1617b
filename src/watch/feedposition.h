/* feedposition.h: positions in the feed, as text that clients keep. */
#ifndef KVS_FEEDPOSITION_H
#define KVS_FEEDPOSITION_H

#include "postgres.h"

#include "base/compat.h"

/* "relid": the store that was followed to there; InvalidOid: none yet. */
extern text *kvs_feedposition_to_text(uint64 position, Oid relid);

/*
 * Read it.  22023: it is no position, or of another database; KV003: of another run of the server.
 */
extern uint64 kvs_feedposition_from_text(const text *position, Oid *relid);

/* Raise 22023. */
pg_noreturn extern void kvs_feedposition_invalid(void);

/* Raise KV003, and why. */
pg_noreturn extern void kvs_feedposition_lost(const char *why);

#endif							/* KVS_FEEDPOSITION_H */
