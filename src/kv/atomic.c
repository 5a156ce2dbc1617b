/*
 * atomic.c
 *		SQL functions that read and write in one step: kv_atomic, kv_check, kv_incr.
 *
 * kv_atomic() takes every key once, in encoded key order, so that no two calls wait for each other
 * in a circle:
 *
 * - A key that is checked, or whose new content depends on the old, is locked and its state read.
 *   If a row has to be there for it to be locked, the new row is inserted at once ("claimed").  A
 *   checked absence is held (check.c).
 * - A key that is only set, before the last such key, is claimed: its row is inserted, or locked if
 *   there is one.
 * - Keys after it wait for nobody that could wait for us: they are simply written.
 *
 * Then the checks are known.  If one has failed, what was claimed is undone, and the transaction
 * goes on as if nothing had been written.  Otherwise everything else is written by one statement,
 * and deleted by another.  What an entry becomes depends on that entry alone, so the operations of
 * a key are folded, in their order, once its state is known.
 *
 * Messages are sent last of all (atomicqueue.c).
 *
 * All rows get one number.  If it turns out too low for one of them (stamp.c), all are stamped
 * again.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/args.h"
#include "base/errors.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "base/subxact.h"
#include "key/keyargs.h"
#include "kv/atomicqueue.h"
#include "kv/atomicread.h"
#include "kv/entry.h"
#include "store/change.h"
#include "store/check.h"
#include "store/fate.h"
#include "store/number.h"
#include "store/policy.h"
#include "store/store.h"

/* All operations on one key. */
typedef struct AtomicKey
{
	KvsKey		key;
	Datum		datum;
	int			first;			/* its operations, in the sorted array */
	int			count;
	bool		checked;
	bool		written;		/* set, deleted or counted */
	bool		needs_state;	/* checked, or its new content depends on the old */
	bool		exists;			/* there is a row, perhaps expired, which we have locked */
	bool		claimed;		/* we have inserted the row, with its final content */
	KvsState	state;
} AtomicKey;

typedef struct Atomic
{
	KvsStore   *store;
	TimestampTz now;
	KvsOperation *operations;	/* sorted by key, then by position */
	AtomicKey  *keys;
	int			key_count;
	int			last_locked;	/* index of the last key that needs its state; -1 if none */
	bool		stamp_taken;
	KvsStamp	stamp;
	int			failed_count;
	Datum	   *failed;			/* positions of the checks that failed */
} Atomic;

/* ---- Preparing ---- */

static int
compare_operations(const void *a, const void *b)
{
	const KvsOperation *x = (const KvsOperation *) a;
	const KvsOperation *y = (const KvsOperation *) b;
	int			result = kvs_key_compare(x->key, y->key);

	return result != 0 ? result : x->position - y->position;
}

/* Put those that send a message behind the others, and return how many of those there are. */
static int
split_operations(KvsOperation *operations, int count)
{
	int			with_key = 0;

	for (int i = 0; i < count; i++)
		if (operations[i].type != KVS_OPERATION_ENQUEUE)
		{
			KvsOperation swapped = operations[with_key];

			operations[with_key++] = operations[i];
			operations[i] = swapped;
		}
	return with_key;
}

/* Sort the operations by key, and note what each key needs. */
static void
collect_keys(Atomic *atomic, int count)
{
	KvsOperationContext context;

	kvs_atomicoperation_push_context(&context);
	qsort(atomic->operations, count, sizeof(KvsOperation), compare_operations);
	atomic->keys = palloc0(sizeof(AtomicKey) * Max(count, 1));
	atomic->last_locked = -1;
	for (int i = 0; i < count; i++)
	{
		KvsOperation *operation = &atomic->operations[i];
		AtomicKey  *key = &atomic->keys[atomic->key_count - 1];

		if (i == 0 || kvs_key_compare(key->datum, operation->key) != 0)
		{
			key = &atomic->keys[atomic->key_count++];
			key->datum = operation->key;
			key->first = i;
			kvs_key_from_datum(&key->key, operation->key);
		}
		key->count++;
		key->checked |= operation->type == KVS_OPERATION_CHECK;
		key->written |= operation->type != KVS_OPERATION_CHECK;
		key->needs_state |= operation->type == KVS_OPERATION_CHECK || operation->type == KVS_OPERATION_ARITHMETIC ||
			operation->type == KVS_OPERATION_DELETE;
		if (key->needs_state)
			atomic->last_locked = atomic->key_count - 1;
		context.position = operation->position;
		if (operation->type == KVS_OPERATION_SET)
			kvs_store_check_size(atomic->store, operation->content.datum);
	}
	kvs_atomicoperation_pop_context(&context);
}

static KvsStamp *
atomic_stamp(Atomic *atomic)
{
	if (!atomic->stamp_taken)
		atomic->stamp = kvs_stamp_take();
	atomic->stamp_taken = true;
	return &atomic->stamp;
}

/* ---- Folding the operations of one key ---- */

static void
fold_operation(Atomic *atomic, const KvsOperation *operation, KvsState *state)
{
	switch (operation->type)
	{
		case KVS_OPERATION_SET:
			state->present = true;
			state->content = operation->content;
			state->expires_at = operation->ttl_given ? operation->expires_at :
				kvs_store_default_expiry(atomic->store, atomic->now);
			break;
		case KVS_OPERATION_DELETE:
			state->present = false;
			break;
		case KVS_OPERATION_ARITHMETIC:
			if (state->present && state->expires_at > atomic->now)
				state->content = kvs_number_apply(operation->arithmetic, &state->content, operation->operand);
			else
			{
				state->content = operation->content;
				state->expires_at = kvs_store_default_expiry(atomic->store, atomic->now);
			}
			state->present = true;
			break;
		case KVS_OPERATION_CHECK:
		case KVS_OPERATION_ENQUEUE:
			break;
	}
}

/* What the key becomes; false if it is absent then. */
static bool
fold_key(Atomic *atomic, const AtomicKey *key, KvsEntry *entry)
{
	KvsState	state = key->state;
	KvsOperationContext context;

	kvs_atomicoperation_push_context(&context);
	for (int i = 0; i < key->count; i++)
	{
		context.position = atomic->operations[key->first + i].position;
		fold_operation(atomic, &atomic->operations[key->first + i], &state);
	}
	kvs_atomicoperation_pop_context(&context);
	entry->key = key->datum;
	entry->content = state.content;
	entry->expires_at = state.expires_at;
	return state.present;
}

/* Does an entry come out of these operations, if they succeed? */
static bool
becomes_present(const Atomic *atomic, const AtomicKey *key)
{
	bool		present = false;

	for (int i = 0; i < key->count; i++)
		if (atomic->operations[key->first + i].type != KVS_OPERATION_CHECK)
			present = atomic->operations[key->first + i].type != KVS_OPERATION_DELETE;
	return present;
}

/* Arithmetic can fail, and on an entry it fails otherwise than on none. */
static bool
has_arithmetic(const Atomic *atomic, const AtomicKey *key)
{
	for (int i = 0; i < key->count; i++)
		if (atomic->operations[key->first + i].type == KVS_OPERATION_ARITHMETIC)
			return true;
	return false;
}

/* ---- Locking ---- */

/*
 * Insert the row that the key becomes, there being none.  False if there is a row after all, which
 * we have locked then.
 */
static bool
claim(Atomic *atomic, AtomicKey *key)
{
	KvsEntry	entry = {0};

	memset(&key->state, 0, sizeof(key->state));
	fold_key(atomic, key, &entry);
	key->claimed = kvs_storemany_claim(atomic->store, &entry, atomic_stamp(atomic));
	return key->claimed;
}

/* Is the absence of the key all that its checks ask for? */
static bool
expects_absence(const Atomic *atomic, const AtomicKey *key)
{
	for (int i = 0; i < key->count; i++)
	{
		const KvsOperation *operation = &atomic->operations[key->first + i];

		if (operation->type == KVS_OPERATION_CHECK && operation->versionstamp != 0)
			return false;
	}
	return true;
}

/* Lock a key that is written and whose state is needed, and read it. */
static void
lock_written_key(Atomic *atomic, AtomicKey *key)
{
	bool		creates = expects_absence(atomic, key) && becomes_present(atomic, key);
	bool		in_vain = false;
	KvsPassedOver row = {0};

	/* "Set if absent": most likely it is absent, and then an insert is all. */
	if (key->checked && creates && !has_arithmetic(atomic, key))
	{
		if (claim(atomic, key))
			return;
		in_vain = true;
	}
	while (!(key->exists = kvs_store_lock(atomic->store, &key->key, true, atomic->now, &key->state)))
	{
		CHECK_FOR_INTERRUPTS();
		if (creates)
		{
			/* the claim has met a row and locked it: only a policy can hide it */
			if (in_vain)
				kvs_policy_report(atomic->store);
			if (claim(atomic, key))
				return;
			in_vain = true;
		}
		else if (key->checked && expects_absence(atomic, key))
		{
			kvs_check_hold(atomic->store, &key->key, atomic->now, &key->state);
			return;
		}
		else if (!kvs_policy_passed_over(atomic->store, &key->key, key->checked, atomic->now, &row))
			return;				/* nothing to delete, or a check that fails */
	}
}

/* Take one key, in its turn. */
static void
take_key(Atomic *atomic, AtomicKey *key, bool later_locks)
{
	if (!key->written)
		kvs_check_hold(atomic->store, &key->key, atomic->now, &key->state);
	else if (key->needs_state)
		lock_written_key(atomic, key);
	else if (later_locks)
		claim(atomic, key);		/* only set */
}

/* The entry may have expired while we waited for another key. */
static void
check_key(Atomic *atomic, AtomicKey *key, TimestampTz now)
{
	if (key->state.present && key->state.expires_at <= now)
	{
		key->state.present = false;
		key->state.versionstamp = 0;
	}
	for (int i = 0; i < key->count; i++)
	{
		const KvsOperation *operation = &atomic->operations[key->first + i];

		if (operation->type == KVS_OPERATION_CHECK && !kvs_store_matches(&key->state, operation->versionstamp))
			atomic->failed[atomic->failed_count++] = Int64GetDatum(operation->position);
	}
}

/* Returns whether all checks have passed. */
static bool
take_keys(void *arg)
{
	Atomic	   *atomic = arg;
	TimestampTz now;

	for (int i = 0; i < atomic->key_count; i++)
		take_key(atomic, &atomic->keys[i], i < atomic->last_locked);
	now = Max(atomic->now, GetCurrentTimestamp());
	for (int i = 0; i < atomic->key_count; i++)
		check_key(atomic, &atomic->keys[i], now);
	return atomic->failed_count == 0;
}

static void
undo_claims(Atomic *atomic)
{
	for (int i = 0; i < atomic->key_count; i++)
		if (atomic->keys[i].claimed)
			kvs_store_remove(atomic->store, &atomic->keys[i].key);
}

/*
 * Take all keys; if a check fails, undo all of it.  In a plain table it is enough to delete the
 * claimed rows.  In another one triggers of the owner's have seen them come, and may keep them.  So
 * there a subtransaction is rolled back.  One key alone is claimed only if its checks pass.
 */
static void
take_keys_or_none(Atomic *atomic)
{
	bool		checked = false;

	for (int i = 0; i < atomic->key_count; i++)
		checked |= atomic->keys[i].checked;
	if (checked && atomic->key_count > 1 && !atomic->store->plain)
		kvs_subxact_run(take_keys, atomic);
	else if (!take_keys(atomic))
		undo_claims(atomic);
}

/* ---- Writing ---- */

/* Write and delete what was only locked so far; returns the number of all. */
static int64
write_keys(Atomic *atomic)
{
	KvsEntry   *entries = palloc(sizeof(KvsEntry) * Max(atomic->key_count, 1));
	Datum	   *written = palloc(sizeof(Datum) * Max(atomic->key_count, 1));
	Datum	   *deleted = palloc(sizeof(Datum) * Max(atomic->key_count, 1));
	int			entry_count = 0;
	int			written_count = 0;
	int			deleted_count = 0;
	KvsStamp   *stamp = atomic_stamp(atomic);
	int64		number = stamp->number;

	for (int i = 0; i < atomic->key_count; i++)
	{
		AtomicKey  *key = &atomic->keys[i];

		if (!key->written)
			continue;
		if (key->claimed || fold_key(atomic, key, &entries[entry_count]))
		{
			written[written_count++] = key->datum;
			entry_count += key->claimed ? 0 : 1;
		}
		else if (key->state.present)
			deleted[deleted_count++] = key->datum;
	}
	if (entry_count > 0 && kvs_storemany_put_sorted(atomic->store, entries, entry_count, stamp) < entry_count)
		kvs_fate_report_skipped(atomic->store->relid);
	if (deleted_count > 0)
		kvs_storemany_delete_locked(atomic->store, deleted, deleted_count, atomic->now, stamp->number);
	kvs_stats_add(atomic->store->stat, KVS_COUNT_SETS, written_count);
	kvs_stats_add(atomic->store->stat, KVS_COUNT_DELETES, deleted_count);
	if (unlikely(stamp->outdated))
		number = kvs_storemany_restamp(atomic->store, written, written_count, stamp);
	for (int i = 0; i < written_count; i++)
		kvs_change_note_datum(atomic->store->relid, KVS_FEED_SET, number, written[i]);
	return number;
}

/* ---- SQL ---- */

static int
compare_positions(const void *a, const void *b)
{
	int64		x = DatumGetInt64(*(const Datum *) a);
	int64		y = DatumGetInt64(*(const Datum *) b);

	return (x > y) - (x < y);
}

static void
give_result(FunctionCallInfo fcinfo, Atomic *atomic, int64 versionstamp)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		ok = atomic->failed_count == 0;
	Datum		values[3] = {BoolGetDatum(ok), Int64GetDatum(versionstamp), (Datum) 0};
	bool		nulls[3] = {false, !ok, false};

	qsort(atomic->failed, atomic->failed_count, sizeof(Datum), compare_positions);
	values[2] = PointerGetDatum(construct_array(atomic->failed, atomic->failed_count, INT8OID,
												sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	InitMaterializedSRF(fcinfo, 0);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* kv_atomic(operations jsonb, store) returns TABLE (ok, versionstamp, failed_checks) */
PG_FUNCTION_INFO_V1(kvstore_atomic);
Datum
kvstore_atomic(PG_FUNCTION_ARGS)
{
	Atomic		atomic = {0};
	int64		versionstamp = 0;
	int			count;
	int			with_key;

	if (PG_ARGISNULL(0))
		kvs_args_report_null("operations");
	atomic.store = kvs_entry_open_for_write(fcinfo, 1, "kv_atomic()");
	atomic.now = GetCurrentTimestamp();
	count = kvs_atomicread_read(PG_GETARG_JSONB_P(0), atomic.now, &atomic.operations);
	atomic.failed = palloc(sizeof(Datum) * Max(count, 1));
	with_key = split_operations(atomic.operations, count);
	if (with_key < count)
		kvs_shmem_require("kv_atomic() with \"enqueue\"");
	collect_keys(&atomic, with_key);

	take_keys_or_none(&atomic);
	if (atomic.failed_count == 0)
	{
		versionstamp = write_keys(&atomic);
		kvs_atomicqueue_send(atomic.operations + with_key, count - with_key, atomic.now);
	}
	else
		kvs_stats_add(atomic.store->stat, KVS_COUNT_CONFLICTS, 1);
	give_result(fcinfo, &atomic, versionstamp);
	return (Datum) 0;
}

/* (key, versionstamp, store) */
static Datum
check(FunctionCallInfo fcinfo, KvsForm form)
{
	int64		versionstamp = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	KvsKey		key;
	KvsStore   *store;
	KvsState	state;

	kvs_keyargs_key(fcinfo, 0, form, &key);
	if (versionstamp < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("versionstamp must not be negative")));
	store = kvs_entry_open_for_write(fcinfo, 2, "kv_check()");
	kvs_check_hold(store, &key, GetCurrentTimestamp(), &state);
	if (!kvs_store_matches(&state, versionstamp))
	{
		kvs_stats_add(store->stat, KVS_COUNT_CONFLICTS, 1);
		ereport(ERROR,
				(errcode(KVS_ERRCODE_CHECK_FAILED),
				 errmsg("check failed"),
				 !state.present ? errdetail("The entry is absent.") :
				 errdetail("The entry has versionstamp %lld.", (long long) state.versionstamp),
				 errhint("Read again, and retry the transaction.")));
	}
	PG_RETURN_BOOL(true);
}

/* (key, by, ttl, store) */
static Datum
incr(FunctionCallInfo fcinfo, KvsForm form)
{
	KvsKey		key;
	KvsStore   *store;
	KvsWrite	write = {0};
	Numeric		result;

	kvs_keyargs_key(fcinfo, 0, form, &key);
	if (PG_ARGISNULL(1))
		kvs_args_report_null("by");
	store = kvs_entry_open_for_write(fcinfo, 3, "kv_incr()");
	write.now = GetCurrentTimestamp();
	write.expires_at = PG_ARGISNULL(2) ? kvs_store_default_expiry(store, write.now) :
		kvs_args_ttl(fcinfo, 2, write.now);
	result = kvs_store_increment(store, &key, PG_GETARG_NUMERIC(1), &write);
	kvs_stats_add(store->stat, KVS_COUNT_SETS, 1);
	PG_RETURN_NUMERIC(result);
}

KVS_FUNCTION_OF_KEY(check);
KVS_FUNCTION_OF_KEY(incr);
