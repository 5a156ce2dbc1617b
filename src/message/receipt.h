/*
 * receipt.h
 *		Receipts: what a consumer shows to acknowledge a message.
 */
#ifndef KVS_RECEIPT_H
#define KVS_RECEIPT_H

#include "postgres.h"

#include "utils/timestamp.h"

typedef struct KvsReceipt
{
	Oid			database;
	Oid			queue;
	int64		id;
	TimestampTz enqueued_at;
	uint64		token;
	int32		number;			/* of the delivery, 1 for the first */
} KvsReceipt;

extern text *kvs_receipt_to_text(const KvsReceipt *receipt);

/* 22004: NULL; 22023: not a receipt, damaged, or of another database. */
extern void kvs_receipt_from_text(const text *str, KvsReceipt *receipt);

/*
 * The same for one of many, which must not keep the others from being settled: false, where that
 * raises an ERROR.
 */
extern bool kvs_receipt_try_text(const text *str, KvsReceipt *receipt);

#endif							/* KVS_RECEIPT_H */
