/*
 * overwrite.h
 *		Rows in, the short way: overwriting a row that is there, without the executor.
 */
#ifndef KVS_OVERWRITE_H
#define KVS_OVERWRITE_H

#include "postgres.h"

#include "catalog.h"
#include "store.h"

typedef enum KvsOverwritten
{
	KVS_OVERWRITE_DONE,
	KVS_OVERWRITE_NO_MATCH,		/* there is a row, but not with if_version */
	KVS_OVERWRITE_NOT_DONE		/* nothing is written: use a statement */
} KvsOverwritten;

/*
 * Overwrite the row of a key.  The table must be locked for writing.  "values" are the six columns; on DONE the versionstamp and the expiry among them
 * are those that were written.
 */
extern KvsOverwritten kvs_overwrite(KvsStore *store, const KvsKey *key, const KvsWrite *write, Datum *values, bool *nulls);

#endif							/* KVS_OVERWRITE_H */
