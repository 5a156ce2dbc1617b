/*
 * number.h
 *		Entries that count: JSON numbers of any size, and kind u64.
 *
 * Names: kvs_number_, kvs_u64_
 */
#ifndef KVS_NUMBER_H
#define KVS_NUMBER_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "store/content.h"

/* Read decimal digits; false unless they are a number from 0 to 2^64 - 1. */
extern bool kvs_u64_parse(const char *str, int len, uint64 *number);

/*
 * What an entry of kind u64 holds, and the decimal digits of one that has been checked, palloc'd.
 */
extern KvsContent kvs_u64_content(uint64 number);
extern char *kvs_u64_text(Datum jsonb);

/* Is this a JSON number that an entry of kind u64 may hold? */
extern bool kvs_u64_is(Datum jsonb);

/*
 * What an entry that holds this JSON number holds; 22023 for NaN and infinity, which JSON does not
 * have.
 */
extern KvsContent kvs_number_content(Numeric number);

/* The number that an entry holds; KV005 if it holds something else. */
extern Numeric kvs_number_of(const KvsContent *content);

typedef enum KvsArithmetic
{
	KVS_SUM,
	KVS_MIN,
	KVS_MAX
} KvsArithmetic;

/*
 * What an entry holds after sum, min or max.  The kind stays that of "content".  On u64 the operand
 * must be an integer (for min and max from 0 to 2^64 - 1), 22023 otherwise, and a sum wraps at
 * 2^64.  KV005 if the entry holds no number.
 */
extern KvsContent kvs_number_apply(KvsArithmetic arithmetic, const KvsContent *content, Numeric operand);

#endif							/* KVS_NUMBER_H */
