/*
 * atomicqueue.c
 *		The operation of kv_atomic() that sends a message: {"enqueue": {"queue": q, "payload": v,
 *		...}}.
 *
 * Its options are those of kv_enqueue(), with times in milliseconds, and JSON null is "not given".
 * Messages are sent when the entries are written, so nothing that waits for an entry comes after
 * something that waits for a dedupe_key.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "kv/atomicqueue.h"
#include "message/send.h"

typedef enum Field
{
	FIELD_QUEUE,
	FIELD_PAYLOAD,
	FIELD_DELAY_MS,
	FIELD_PRIORITY,
	FIELD_HEADERS,
	FIELD_MAX_ATTEMPTS,
	FIELD_BACKOFF_MS,
	FIELD_TTL_MS,
	FIELD_DEDUPE_KEY,
	FIELD_KEYS_IF_UNDELIVERED,
	FIELD_UNDELIVERED_STORE,
	FIELDS
} Field;

static const char *const names[FIELDS] = {
	"queue", "payload", "delay_ms", "priority", "headers", "max_attempts", "backoff_ms", "ttl_ms", "dedupe_key", "keys_if_undelivered",
	"undelivered_store"
};

struct KvsEnqueue
{
	text	   *queue;
	Datum		payload;
	Jsonb	   *keys;
	text	   *store;
	KvsMessage	message;
};

/* ---- Values ---- */

static text *
read_text(const JsonbValue *value, Field field, int position)
{
	if (value->type != jbvString)
		kvs_operation_bad(position, "\"%s\" must be a string.", names[field]);
	return cstring_to_text_with_len(value->val.string.val, value->val.string.len);
}

/* An integer; too large ones become the largest, for others to refuse. */
static int64
read_integer(const JsonbValue *value, Field field, int position)
{
	Datum		number;

	if (value->type != jbvNumeric)
		kvs_operation_bad(position, "\"%s\" must be an integer.", names[field]);
	number = NumericGetDatum(value->val.numeric);
	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, number, DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0)))))
		kvs_operation_bad(position, "\"%s\" must be an integer.", names[field]);
	if (DatumGetBool(DirectFunctionCall2(numeric_gt, number, NumericGetDatum(int64_to_numeric(PG_INT32_MAX)))))
		return PG_INT64_MAX;
	if (DatumGetBool(DirectFunctionCall2(numeric_lt, number, NumericGetDatum(int64_to_numeric(PG_INT32_MIN)))))
		return PG_INT64_MIN;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
}

static ArrayType *
read_backoff(JsonbValue *value, TimestampTz now, int position)
{
	Datum		delays[KVS_BACKOFF_MAX + 1];
	int			count = 0;
	JsonbIterator *iterator;
	JsonbValue	element;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		kvs_operation_bad(position, "\"backoff_ms\" must be an array of numbers.");
	iterator = JsonbIteratorInit(value->val.binary.data);
	JsonbIteratorNext(&iterator, &element, true);	/* WJB_BEGIN_ARRAY */
	while (JsonbIteratorNext(&iterator, &element, true) == WJB_ELEM && count <= KVS_BACKOFF_MAX)
	{
		Interval   *delay = palloc0(sizeof(Interval));

		if (element.type == jbvNull)
			kvs_operation_bad(position, "\"backoff_ms\" must be an array of numbers.");
		delay->time = kvs_atomicoperation_read_ms(&element, "backoff_ms", now, position) - now;
		delays[count++] = IntervalPGetDatum(delay);
	}
	return construct_array(delays, count, INTERVALOID, sizeof(Interval), false, TYPALIGN_DOUBLE);
}

/* ---- The operation ---- */

/* A value that is not null. */
static void
read_field(KvsOperation *operation, Field field, JsonbValue *value, TimestampTz now)
{
	KvsEnqueue *enqueue = operation->enqueue;
	KvsMessage *message = &enqueue->message;
	int			position = operation->position;

	switch (field)
	{
		case FIELD_QUEUE:
			enqueue->queue = read_text(value, field, position);
			break;
		case FIELD_DELAY_MS:
			kvs_send_set_ready_at(message, kvs_atomicoperation_read_ms(value, names[field], now, position), names[field]);
			break;
		case FIELD_PRIORITY:
			kvs_send_set_priority(message, read_integer(value, field, position));
			break;
		case FIELD_HEADERS:
			kvs_send_set_headers(message, JsonbPGetDatum(JsonbValueToJsonb(value)));
			break;
		case FIELD_MAX_ATTEMPTS:
			kvs_message_set(message, KVS_QUEUE_COLUMN_MAX_ATTEMPTS,
							Int32GetDatum(kvs_queue_check_max_attempts(read_integer(value, field, position))));
			break;
		case FIELD_BACKOFF_MS:
			kvs_send_set_backoff(message, read_backoff(value, now, position));
			break;
		case FIELD_TTL_MS:
			kvs_send_set_expiry(message, kvs_atomicoperation_read_ms(value, names[field], now, position), names[field]);
			break;
		case FIELD_DEDUPE_KEY:
			kvs_send_set_dedupe_key(message, read_text(value, field, position));
			break;
		case FIELD_KEYS_IF_UNDELIVERED:
			enqueue->keys = JsonbValueToJsonb(value);
			break;
		case FIELD_UNDELIVERED_STORE:
			enqueue->store = read_text(value, field, position);
			break;
		default:
			break;
	}
}

static Field
find_field(const JsonbValue *name, int position)
{
	for (int i = 0; i < FIELDS; i++)
		if ((int) strlen(names[i]) == name->val.string.len && memcmp(names[i], name->val.string.val, name->val.string.len) == 0)
			return i;
	kvs_operation_bad(position, "\"enqueue\" has no field \"%.*s\".", KVS_OPERATION_SHOWN(*name));
	return FIELDS;
}

void
kvs_atomicqueue_read(KvsOperation *operation, JsonbValue *object, TimestampTz now)
{
	KvsEnqueue *enqueue = palloc0(sizeof(KvsEnqueue));
	int			position = operation->position;
	bool		has_payload = false;
	Field		field = FIELDS;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	operation->enqueue = enqueue;
	kvs_message_init(&enqueue->message, now);
	iterator = JsonbIteratorInit(object->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			field = find_field(&value, position);
		if (token != WJB_VALUE)
			continue;
		if (field == FIELD_PAYLOAD)
		{
			has_payload = true;
			enqueue->payload = JsonbPGetDatum(JsonbValueToJsonb(&value));
			kvs_send_check_payload(enqueue->payload);
		}
		else if (value.type != jbvNull)
			read_field(operation, field, &value, now);
	}
	if (enqueue->queue == NULL || !has_payload)
		kvs_operation_bad(position, "\"enqueue\" needs the fields \"queue\" and \"payload\".");
}

/* ---- Sending ---- */

static int
compare_texts(const text *a, const text *b)
{
	int			a_size = VARSIZE_ANY_EXHDR(a);
	int			b_size = VARSIZE_ANY_EXHDR(b);
	int			result = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(a_size, b_size));

	return result != 0 ? result : a_size - b_size;
}

static const text *
dedupe_key(const KvsOperation *operation)
{
	const KvsMessage *message = &operation->enqueue->message;

	return message->nulls[KVS_QUEUE_COLUMN_DEDUPE_KEY] ? NULL :
		(const text *) DatumGetPointer(message->values[KVS_QUEUE_COLUMN_DEDUPE_KEY]);
}

/* Those without a dedupe_key wait for nobody: they come last, in their own order. */
static int
compare_enqueues(const void *a, const void *b)
{
	const KvsOperation *x = a;
	const KvsOperation *y = b;
	const text *x_key = dedupe_key(x);
	const text *y_key = dedupe_key(y);
	int			result = 0;

	if (x_key == NULL || y_key == NULL)
		result = (x_key == NULL) - (y_key == NULL);
	else
	{
		result = compare_texts(x->enqueue->queue, y->enqueue->queue);
		if (result == 0)
			result = compare_texts(x_key, y_key);
	}
	return result != 0 ? result : x->position - y->position;
}

void
kvs_atomicqueue_send(KvsOperation *operations, int count, TimestampTz now)
{
	KvsOperationContext context;

	qsort(operations, count, sizeof(KvsOperation), compare_enqueues);
	kvs_atomicoperation_push_context(&context);
	for (int i = 0; i < count; i++)
	{
		KvsEnqueue *enqueue = operations[i].enqueue;
		Relation	rel;
		KvsQueue   *queue;

		CHECK_FOR_INTERRUPTS();
		context.position = operations[i].position;
		queue = kvs_queue_open(enqueue->queue, RowExclusiveLock, &rel);
		if (enqueue->keys != NULL)
			kvs_send_set_undelivered(&enqueue->message, enqueue->keys,
										enqueue->store ? enqueue->store : cstring_to_text("default"));
		kvs_send(queue, rel, &enqueue->message, enqueue->payload, now);
		table_close(rel, NoLock);
	}
	kvs_atomicoperation_pop_context(&context);
}
