/*
 * send.c
 *		Sending a message: its options, checked, and the row.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#include "base/duration.h"
#include "base/errors.h"
#include "base/guc.h"
#include "key/keyargs.h"
#include "message/send.h"
#include "message/undelivered.h"
#include "table/backoff.h"
#include "table/catalog.h"

#define DEDUPE_KEY_MAX_SIZE	2048

void
kvs_send_check_moment(TimestampTz moment, const char *name)
{
	if (moment > KVS_LAST_MOMENT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not go beyond the year 9999", name)));
}

void
kvs_send_set_ready_at(KvsMessage *message, TimestampTz ready_at, const char *name)
{
	if (TIMESTAMP_NOT_FINITE(ready_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delay and ready_at must not be infinite"),
				 errhint("Give a delay or ready_at that is not infinite.")));
	kvs_send_check_moment(ready_at, name);
	kvs_message_set(message, KVS_QUEUE_COLUMN_READY_AT, TimestampTzGetDatum(ready_at));
}

void
kvs_send_set_expiry(KvsMessage *message, TimestampTz expires_at, const char *name)
{
	if (expires_at == DT_NOEND)
		return;
	kvs_send_check_moment(expires_at, name);
	kvs_message_set(message, KVS_QUEUE_COLUMN_EXPIRES_AT, TimestampTzGetDatum(expires_at));
}

void
kvs_send_set_priority(KvsMessage *message, int64 priority)
{
	if (priority < 0 || priority > KVS_MAX_PRIORITY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("priority must be between 0 and %d", KVS_MAX_PRIORITY)));
	kvs_message_set(message, KVS_QUEUE_COLUMN_PRIORITY, Int16GetDatum((int16) priority));
}

static void
check_size(Datum value, const char *name)
{
	Size		size = toast_raw_datum_size(value) - VARHDRSZ;

	if (unlikely((int64) size > kvs_guc_max_value_size))
		ereport(ERROR,
				(errcode(KVS_ERRCODE_TOO_LARGE),
				 errmsg("%s is too large", name),
				 errdetail("It has %zu bytes; the limit is %d.", size, kvs_guc_max_value_size),
				 errhint("The limit is the setting kvstore.max_value_size.")));
}

void
kvs_send_check_payload(Datum payload)
{
	check_size(payload, "payload");
}

void
kvs_send_set_headers(KvsMessage *message, Datum headers)
{
	check_size(headers, "headers");
	kvs_message_set(message, KVS_QUEUE_COLUMN_HEADERS, headers);
}

void
kvs_send_set_backoff(KvsMessage *message, ArrayType *backoff)
{
	Interval	delays[KVS_BACKOFF_MAX];

	kvs_backoff_check(backoff, delays);
	kvs_message_set(message, KVS_QUEUE_COLUMN_BACKOFF, PointerGetDatum(backoff));
}

/* It must fit into an index entry. */
void
kvs_send_set_dedupe_key(KvsMessage *message, const text *key)
{
	if (VARSIZE_ANY_EXHDR(key) > DEDUPE_KEY_MAX_SIZE)
		ereport(ERROR,
				(errcode(KVS_ERRCODE_TOO_LARGE),
				 errmsg("dedupe_key is too large"),
				 errdetail("It has %d bytes; the limit is %d.", (int) VARSIZE_ANY_EXHDR(key), DEDUPE_KEY_MAX_SIZE)));
	kvs_message_set(message, KVS_QUEUE_COLUMN_DEDUPE_KEY, PointerGetDatum(key));
}

/*
 * The keys are written when the message is given up; whether the sender may write them is asked
 * now.
 */
void
kvs_send_set_undelivered(KvsMessage *message, Jsonb *keys, const text *store_name)
{
	const AclMode rights = ACL_SELECT | ACL_INSERT | ACL_UPDATE;
	KvsKeyIterator iterator;
	KvsKey		key;
	KvsStore   *store;
	Relation	rel;

	kvs_keyargs_iterate(&iterator, keys, "keys_if_undelivered");
	while (kvs_keyargs_next(&iterator, &key))
		 /* checked, no more */ ;
	check_size(JsonbPGetDatum(keys), "keys_if_undelivered");
	store = kvs_storecatalog_open_store(store_name, AccessShareLock, &rel);
	kvs_undelivered_check_store(store, rel);
	if (pg_class_aclmask(store->relid, GetUserId(), rights, ACLMASK_ALL) != rights)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, RelationGetRelationName(rel));
	table_close(rel, NoLock);
	kvs_message_set(message, KVS_QUEUE_COLUMN_KEYS_IF_UNDELIVERED, JsonbPGetDatum(keys));
	kvs_message_set(message, KVS_QUEUE_COLUMN_UNDELIVERED_STORE, PointerGetDatum(store_name));
}

int64
kvs_send(KvsQueue *queue, Relation rel, const KvsMessage *message, Datum payload, TimestampTz now)
{
	KvsMessageWriter writer;
	int64		id;

	kvs_message_begin(&writer, queue, rel);
	if (message->nulls[KVS_QUEUE_COLUMN_DEDUPE_KEY])
		kvs_message_insert(&writer, message, &payload, 1, &id);
	else
		id = kvs_message_insert_unless_present(&writer, message, payload, now);
	kvs_message_end(&writer);
	return id;
}
