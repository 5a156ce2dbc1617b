/* burial.h: moving a message to the dead letters of its queue. */
#ifndef KVS_BURIAL_H
#define KVS_BURIAL_H

#include "postgres.h"

#include "message/reader.h"

/*
 * Move the row in the reader, which this transaction has locked, as the owner of the queue.  The
 * letter's error is "error", or the last one that the row has if that is NULL.  False: a trigger of
 * the owner's keeps the row.  42501 if the table of the dead letters is somebody else's.
 */
extern bool kvs_burial_move(KvsReader *reader, int attempts, TimestampTz failed_at,
							const char *error);

#endif							/* KVS_BURIAL_H */
