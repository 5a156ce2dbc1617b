/*
 * sequence.h
 *		Where a sequence is, and how to move it forward, whoever owns it.
 */
#ifndef KVS_SEQUENCE_H
#define KVS_SEQUENCE_H

#include "postgres.h"

/* The number given last.  No right is needed. */
extern int64 kvs_sequence_last(Oid sequence);

/* Move it forward by so many numbers, as its owner. */
extern void kvs_sequence_jump(Oid sequence, int64 jump);

/*
 * Make sure that the next number is above "number".  If it is not, it becomes more than "jump"
 * above.
 */
extern void kvs_sequence_raise(Oid sequence, int64 number, int64 jump);

#endif							/* KVS_SEQUENCE_H */
