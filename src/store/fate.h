/*
 * fate.h
 *		What became of the rows that a statement of ours was to write.
 */
#ifndef KVS_FATE_H
#define KVS_FATE_H

#include "postgres.h"

#include "nodes/execnodes.h"

#include "base/compat.h"
#include "key/key.h"

typedef struct KvsFate
{
	uint64		written;		/* written, deleted or locked */
	uint64		skipped;		/* a trigger of the owner's kept them out, or kept them */
	/* a trigger changed what an entry holds, and the statement left the number */
	bool		altered;
} KvsFate;

/* One execution of a statement.  It must stay where it is until the statement has ended. */
typedef struct KvsFateWatch
{
	KvsFate		fate;
	/* a row has come to the triggers of the owner, and not yet left them */
	bool		pending;
	bool		broken;			/* what that row holds, as our statement made it or found it */
	char		kind;
	int64		versionstamp;
	KvsKey		key;
} KvsFateWatch;

extern void kvs_fate_begin(KvsFateWatch *watch);

/* Watch the table that a statement writes, whose guard has been left out, with a KvsFateWatch. */
extern void kvs_fate_observe(EState *estate, ResultRelInfo *info, void *watch);

/* The statement has ended, and says that it wrote so many rows. */
extern KvsFate kvs_fate_end(KvsFateWatch *watch, uint64 written);

/* Raise 27000: a trigger of this table has skipped an entry. */
pg_noreturn extern void kvs_fate_report_skipped(Oid relid);

#endif							/* KVS_FATE_H */
