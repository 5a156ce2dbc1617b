/* undelivered.h: the entries that are written when a message is given up. */
#ifndef KVS_UNDELIVERED_H
#define KVS_UNDELIVERED_H

#include "postgres.h"

#include "reader.h"

/*
 * Write what the row in the reader asks for: its payload under each of its keys_if_undelivered, as the owner of the queue.  NULL: it is written, or nothing was
 * asked for; else why not, palloc'd, and nothing of it is written.
 */
extern char *kvs_undelivered_write(KvsReader *reader, TimestampTz now);

#endif							/* KVS_UNDELIVERED_H */
