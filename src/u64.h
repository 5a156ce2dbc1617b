/* u64.h: entries of kind u64, an unsigned 64-bit number, stored as a JSON number. */
#ifndef KVS_U64_H
#define KVS_U64_H

#include "postgres.h"

/* Read decimal digits; false unless they are a number from 0 to 2^64 - 1. */
extern bool kvs_u64_parse(const char *str, int len, uint64 *number);

/* The jsonb number. */
extern Datum kvs_u64_to_jsonb(uint64 number);

/* The decimal digits of a jsonb number, palloc'd. */
extern char *kvs_u64_text(Datum jsonb);

#endif							/* KVS_U64_H */
