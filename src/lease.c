/*
 * lease.c
 *		The lease table: who holds which message, and until when.
 *
 * To deliver a message nothing is written: no transaction id, no WAL, no dead row.  That it is somebody's is known here only, in shared memory, where every
 * other backend sees it at once.  A lease is named by (database, queue, id) and has a token, a random number that only its holder's receipt
 * knows: who comes later with an old one is told so.
 *
 *		HELD		a consumer has it until its deadline; in the queue's heap of what comes due
 *		ENDING		a transaction is about to acknowledge or fail it, and only that transaction decides; in no heap
 *		RETURNED	it was given back; nobody has it.  It is below the head, so it waits here: in the heap of what is ready, or of what comes due
 *
 * A lease leaves the table with the commit that deletes its message, with one that changes it (then the new row is an arrival, published right after
 * that, leasexact.c), or when the row turns out to be gone.  That last look may have been too early, as the row's own transaction may have been
 * about to commit; so the position is published as an arrival then: who scanned meanwhile passed over it because of us.
 *
 * After a crash all is gone, and every message is delivered again.
 *
 * Locks: everything in an entry is under the lock of its queue's place.  The partition locks are for the chains of the hash table alone, taken after
 * it.  No allocation, no ereport and no table access under any.  Comparison functions are kept in shared memory by their address,
 * which is the same in all backends, as they are forked.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "errors.h"
#include "guc.h"
#include "lease.h"
#include "queuecount.h"
#include "testing.h"
#include "waiter.h"

#define PARTITIONS	16

/* What could not be ended is tried again after so many milliseconds. */
#define RETRY		500

typedef struct LeaseKey
{
	Oid			database;
	Oid			relid;
	int64		id;
} LeaseKey;

typedef struct Lease
{
	LeaseKey	key;			/* must be first */
	KvsLeaseState state;
	KvsLeaseState before;		/* of an ENDING one */
	bool		doomed;			/* RETURNED too often */
	pairingheap *heap;			/* that it is in, or NULL */
	pairingheap_node node;
	KvsMessageRef	message;
	uint64		token;
	TimestampTz due;			/* HELD: deadline; RETURNED: not before */
	TimestampTz since;
	int			pid;			/* who took it */
} Lease;

static HTAB *leases = NULL;
static LWLockPadded *partition_locks = NULL;

/* ---- Heaps ---- */

/* The smallest is to be on top, so these compare the other way round. */
static int
compare_due(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	TimestampTz x = pairingheap_const_container(Lease, node, a)->due;
	TimestampTz y = pairingheap_const_container(Lease, node, b)->due;

	return x < y ? 1 : x > y ? -1 : 0;
}

static int
compare_position(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const KvsMessageRef *x = &pairingheap_const_container(Lease, node, a)->message;
	const KvsMessageRef *y = &pairingheap_const_container(Lease, node, b)->message;

	if (x->priority != y->priority)
		return x->priority < y->priority ? -1 : 1;
	return -kvs_position_compare((KvsPosition) {x->ready_at, x->id}, (KvsPosition) {y->ready_at, y->id});
}

static Lease *
top_of(pairingheap *heap)
{
	return pairingheap_is_empty(heap) ? NULL : pairingheap_container(Lease, node, pairingheap_first(heap));
}

/* Out of the heap it is in, into another one or, NULL, none. */
static void
move_to(Lease *lease, pairingheap *heap)
{
	if (lease->heap != NULL)
		pairingheap_remove(lease->heap, &lease->node);
	lease->heap = heap;
	if (heap != NULL)
		pairingheap_add(heap, &lease->node);
}

void
kvs_lease_init_slot(KvsQueueSlot *slot)
{
	slot->nleases = slot->nreturned = 0;
	slot->due = slot->later = (pairingheap) {compare_due, NULL, NULL};
	slot->ready = (pairingheap) {compare_position, NULL, NULL};
}

/* ---- The table ---- */

static void
set_state(KvsQueueSlot *slot, Lease *lease, KvsLeaseState state)
{
	if (lease->state == KVS_LEASE_RETURNED)
		slot->nreturned--;
	lease->state = state;
	if (lease->state == KVS_LEASE_RETURNED)
		slot->nreturned++;
}

static Lease *
search(KvsQueueSlot *slot, int64 id, HASHACTION action)
{
	LeaseKey	key;
	uint32		hash;
	LWLock	   *lock;
	Lease	   *lease;
	bool		found;

	key.database = slot->database;
	key.relid = slot->relid;
	key.id = id;
	hash = get_hash_value(leases, &key);
	lock = &partition_locks[hash % PARTITIONS].lock;
	LWLockAcquire(lock, action == HASH_FIND ? LW_SHARED : LW_EXCLUSIVE);
	lease = hash_search_with_hash_value(leases, &key, hash, action, &found);
	LWLockRelease(lock);
	if (action == HASH_ENTER_NULL && lease != NULL && !found)
	{
		memset((char *) lease + sizeof(LeaseKey), 0, sizeof(Lease) - sizeof(LeaseKey));
		slot->nleases++;
	}
	return lease;
}

static void
remove_lease(KvsQueueSlot *slot, Lease *lease)
{
	move_to(lease, NULL);
	set_state(slot, lease, KVS_LEASE_NONE);
	slot->nleases--;
	search(slot, lease->key.id, HASH_REMOVE);
}

void
kvs_lease_forget_all(KvsQueueSlot *slot)
{
	Lease	   *lease;

	while ((lease = top_of(&slot->due)) != NULL || (lease = top_of(&slot->later)) != NULL || (lease = top_of(&slot->ready)) != NULL)
		remove_lease(slot, lease);
}

/* A new entry, not yet in any state; NULL: no room. */
static Lease *
make_lease(KvsQueueSlot *slot, const KvsMessageRef *message)
{
	Lease	   *lease = NULL;

	if (kvs_guc_max_leases_per_queue == 0 || slot->nleases < kvs_guc_leases_of_queue())
		lease = search(slot, message->id, HASH_ENTER_NULL);
	if (lease != NULL)
		lease->message = *message;
	return lease;
}

/*
 * The entry of a message whose row the caller has seen.  One of another message, which had the id before TRUNCATE ... RESTART IDENTITY, is
 * forgotten, unless a transaction is about to end it.
 */
static Lease *
find_lease_of_row(KvsQueueSlot *slot, const KvsMessageRef *message)
{
	Lease	   *lease = search(slot, message->id, HASH_FIND);

	if (lease == NULL || lease->message.enqueued_at == message->enqueued_at || lease->state == KVS_LEASE_ENDING)
		return lease;
	remove_lease(slot, lease);
	return NULL;
}

/* The entry of this token, unless nobody holds it any more. */
static Lease *
find_token(KvsQueueSlot *slot, int64 id, uint64 token)
{
	Lease	   *lease = search(slot, id, HASH_FIND);

	return lease != NULL && lease->token == token && lease->state != KVS_LEASE_RETURNED ? lease : NULL;
}

static void
hold(KvsQueueSlot *slot, Lease *lease, uint64 token, TimestampTz now, TimestampTz deadline)
{
	move_to(lease, NULL);
	set_state(slot, lease, KVS_LEASE_HELD);
	lease->token = token;
	lease->due = deadline;
	lease->since = now;
	lease->pid = MyProcPid;
	move_to(lease, &slot->due);
}

static void
give_back(KvsQueueSlot *slot, Lease *lease, TimestampTz not_before)
{
	move_to(lease, NULL);
	/* for tests of the tests: what happens without the list of those that were given back */
	if (kvs_testing_is("forget-returned"))
	{
		remove_lease(slot, lease);
		return;
	}
	set_state(slot, lease, KVS_LEASE_RETURNED);
	lease->token = 0;
	lease->due = not_before;
	move_to(lease, not_before == DT_NOBEGIN ? &slot->ready : lease->doomed ? &slot->due : &slot->later);
}

static void
begin_ending(KvsQueueSlot *slot, Lease *lease, uint64 token)
{
	move_to(lease, NULL);
	lease->before = lease->state;
	set_state(slot, lease, KVS_LEASE_ENDING);
	lease->token = token;
}

/* Returned messages that have waited long enough are ready. */
static void
wake_returned(KvsQueueSlot *slot, TimestampTz now)
{
	Lease	   *lease;

	while ((lease = top_of(&slot->later)) != NULL && lease->due <= now)
		move_to(lease, &slot->ready);
}

/* ---- Taking ---- */

KvsTake
kvs_lease_take(KvsQueue *queue, KvsMessageRef *message, uint64 token, TimestampTz now, TimestampTz deadline)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	Lease	   *lease = find_lease_of_row(slot, message);
	KvsTake		result = KVS_TAKE_DONE;

	if (lease == NULL)
	{
		lease = make_lease(slot, message);
		if (lease == NULL)
			result = KVS_TAKE_FULL;
	}
	else if (lease->heap != &slot->ready)
		result = KVS_TAKE_BUSY;
	if (result == KVS_TAKE_DONE)
	{
		message->rollbacks = lease->message.rollbacks;
		lease->message = *message;
		hold(slot, lease, token, now, deadline);
	}
	LWLockRelease(slot->lock);
	return result;
}

bool
kvs_lease_take_returned(KvsQueue *queue, int priority, uint64 token, TimestampTz now, TimestampTz deadline,
						KvsMessageRef *message)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	Lease	   *lease;
	bool		taken;

	wake_returned(slot, now);
	lease = top_of(&slot->ready);
	taken = lease != NULL && lease->message.priority >= priority;
	if (taken)
	{
		*message = lease->message;
		hold(slot, lease, token, now, deadline);
	}
	LWLockRelease(slot->lock);
	return taken;
}

void
kvs_lease_drop(KvsQueue *queue, const KvsMessageRef *message, uint64 token)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	Lease	   *lease = find_token(slot, message->id, token);

	if (lease != NULL)
	{
		KvsPosition position = {message->ready_at, message->id};

		remove_lease(slot, lease);
		if (!kvs_testing_is("drop-silently"))
			kvs_queueslot_arrive(slot, message->priority, position, position);
	}
	LWLockRelease(slot->lock);
}

void
kvs_lease_defer(KvsQueue *queue, const KvsMessageRef *message, uint64 token)
{
	KvsQueueSlot *slot;
	Lease	   *lease;

	if (message->rollbacks == 0)
	{
		kvs_lease_drop(queue, message, token);
		return;
	}
	slot = kvs_queueslot_lock(queue);
	lease = find_token(slot, message->id, token);
	if (lease != NULL && lease->state == KVS_LEASE_HELD)
	{
		lease->message = *message;
		give_back(slot, lease, message->ready_at);
	}
	LWLockRelease(slot->lock);
}

void
kvs_lease_refresh(KvsQueue *queue, const KvsMessageRef *message, uint64 token)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	Lease	   *lease = find_token(slot, message->id, token);

	/* a held lease is in the heap of what comes due, which knows nothing of positions */
	if (lease != NULL && lease->state == KVS_LEASE_HELD)
	{
		int			rollbacks = lease->message.rollbacks;

		lease->message = *message;
		lease->message.rollbacks = rollbacks;
	}
	LWLockRelease(slot->lock);
}

void
kvs_lease_raise_full(const KvsQueue *queue)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_if_room(unconstify(KvsQueue *, queue));
	bool		has_its_share = slot != NULL && slot->nleases >= kvs_guc_leases_of_queue();

	if (slot != NULL)
		LWLockRelease(slot->lock);
	if (has_its_share && kvs_guc_max_leases_per_queue != 0)
		ereport(ERROR,
				(errcode(KVS_ERRCODE_TOO_MANY_LEASES),
				 errmsg("queue \"%s\" has too many leases", queue->name),
				 errhint("Acknowledge messages, or increase \"kvstore.max_leases_per_queue\" or \"kvstore.max_leases\".")));
	ereport(ERROR,
			(errcode(KVS_ERRCODE_TOO_MANY_LEASES),
			 errmsg("too many leases"),
			 errhint("Acknowledge messages, or increase \"kvstore.max_leases\", which is %d, and restart the server.",
					 kvs_guc_max_leases)));
}

/* ---- What a receipt can do ---- */

static KvsClaim
claim_locked(KvsQueueSlot *slot, uint64 token, KvsLeaseState state, TimestampTz deadline, bool row, KvsMessageRef *message)
{
	TimestampTz now = GetCurrentTimestamp();
	Lease	   *lease = row ? find_lease_of_row(slot, message) : search(slot, message->id, HASH_FIND);

	if (lease == NULL && !row)
		return KVS_CLAIM_UNKNOWN;
	if (lease == NULL)
	{
		lease = make_lease(slot, message);
		if (lease == NULL)
			return KVS_CLAIM_FULL;
		/* should the transaction abort, it is as if it had been returned */
		set_state(slot, lease, KVS_LEASE_RETURNED);
	}
	else if (lease->message.enqueued_at != message->enqueued_at || lease->state == KVS_LEASE_ENDING || lease->doomed ||
			 (lease->state == KVS_LEASE_HELD && lease->token != token && !kvs_testing_is("no-fence")))
		return KVS_CLAIM_STALE;

	*message = lease->message;
	if (state == KVS_LEASE_ENDING)
		begin_ending(slot, lease, token);
	else
		hold(slot, lease, token, now, deadline);
	return KVS_CLAIM_DONE;
}

KvsClaim
kvs_lease_claim(KvsQueue *queue, uint64 token, KvsLeaseState state, TimestampTz deadline, bool row, KvsMessageRef *message)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	KvsClaim	result = claim_locked(slot, token, state, deadline, row, message);

	LWLockRelease(slot->lock);
	return result;
}

bool
kvs_lease_release(KvsQueue *queue, int64 id, const uint64 *token)
{
	KvsQueueSlot *slot;
	Lease	   *lease;
	bool		held;

	kvs_waiter_prepare();
	slot = kvs_queueslot_lock(queue);
	lease = search(slot, id, HASH_FIND);
	held = lease != NULL && lease->state == KVS_LEASE_HELD && (token == NULL || lease->token == *token);
	if (held)
		give_back(slot, lease, DT_NOBEGIN);
	LWLockRelease(slot->lock);
	/* who looked while it was held has passed over it */
	if (held)
		kvs_waiter_wake_one_now(queue->relid);
	return held;
}

bool
kvs_lease_next_lapsed(KvsQueue *queue, TimestampTz now, KvsMessageRef *message, uint64 *token, bool *doomed)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	Lease	   *lease;
	bool		lapsed;

	lease = top_of(&slot->due);
	lapsed = lease != NULL && lease->due <= now;
	if (lapsed)
	{
		*message = lease->message;
		*token = lease->token;
		*doomed = lease->doomed;
		begin_ending(slot, lease, lease->token);
	}
	LWLockRelease(slot->lock);
	return lapsed;
}

/* ---- Looking ---- */

bool
kvs_lease_is_held(KvsQueue *queue, int64 id, TimestampTz enqueued_at, TimestampTz *until)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	Lease	   *lease = search(slot, id, HASH_FIND);
	bool		held = lease != NULL && lease->message.enqueued_at == enqueued_at && lease->state != KVS_LEASE_RETURNED;

	if (held)
		*until = lease->due;
	LWLockRelease(slot->lock);
	return held;
}

/* Returns whether the table knows the message; *ending: somebody is about to end its lease. */
static bool
look_up(KvsQueue *queue, const KvsMessageRef *message, bool *ending)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_if_room(queue);
	Lease	   *lease;
	bool		known;

	*ending = false;
	if (slot == NULL)
		return false;
	lease = search(slot, message->id, HASH_FIND);
	known = lease != NULL && lease->message.enqueued_at == message->enqueued_at;
	*ending = known && lease->state == KVS_LEASE_ENDING;
	LWLockRelease(slot->lock);
	return known;
}

bool
kvs_lease_is_known(KvsQueue *queue, const KvsMessageRef *message)
{
	bool		ending;

	return look_up(queue, message, &ending);
}

bool
kvs_lease_is_ending(KvsQueue *queue, const KvsMessageRef *message)
{
	bool		ending;

	(void) look_up(queue, message, &ending);
	return ending;
}

bool
kvs_lease_look(KvsQueueSlot *slot, TimestampTz now, int *returned)
{
	Lease	   *lease;

	wake_returned(slot, now);
	lease = top_of(&slot->ready);
	*returned = lease == NULL ? -1 : lease->message.priority;
	lease = top_of(&slot->due);
	return lease != NULL && lease->due <= now;
}

TimestampTz
kvs_lease_next_due(KvsQueueSlot *slot)
{
	Lease	   *lease = top_of(&slot->due);

	return lease == NULL ? DT_NOEND : lease->due;
}

TimestampTz
kvs_lease_next_return(KvsQueueSlot *slot)
{
	Lease	   *lease = top_of(&slot->later);

	return lease == NULL ? DT_NOEND : lease->due;
}

TimestampTz
kvs_lease_first_returned(KvsQueueSlot *slot)
{
	Lease	   *lease = top_of(&slot->ready);

	return lease == NULL ? DT_NOEND : lease->message.ready_at;
}

/* Entries are read without their queues' locks: each field is right, but they may be of two moments. */
int
kvs_lease_list(KvsLeaseInfo *list, int max)
{
	HASH_SEQ_STATUS status;
	Lease	   *lease;
	int			count = 0;

	for (int i = 0; i < PARTITIONS; i++)
		LWLockAcquire(&partition_locks[i].lock, LW_SHARED);
	hash_seq_init(&status, leases);
	while ((lease = hash_seq_search(&status)) != NULL)
		if (lease->key.database == MyDatabaseId && count < max)
			list[count++] = (KvsLeaseInfo) {lease->key.relid, lease->state, lease->message, lease->due, lease->since, lease->pid};
	for (int i = 0; i < PARTITIONS; i++)
		LWLockRelease(&partition_locks[i].lock);
	return count;
}

/* ---- Callbacks ---- */

void
kvs_lease_finish(const KvsQueueRef *ref, int64 id, uint64 token)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_ref(ref);
	Lease	   *lease;

	if (slot == NULL)
		return;
	lease = find_token(slot, id, token);
	if (lease != NULL && lease->state == KVS_LEASE_ENDING)
		remove_lease(slot, lease);
	kvs_queuecount_publish_to(slot);
	LWLockRelease(slot->lock);
}

void
kvs_lease_forget(const KvsQueueRef *ref, int64 id, TimestampTz enqueued_at)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_ref(ref);
	Lease	   *lease;

	if (slot == NULL)
		return;
	lease = search(slot, id, HASH_FIND);
	if (lease != NULL && lease->message.enqueued_at == enqueued_at && lease->state != KVS_LEASE_ENDING)
		remove_lease(slot, lease);
	LWLockRelease(slot->lock);
}

/* A lapsed one is not tried again at once: what made this transaction abort may do so again. */
TimestampTz
kvs_lease_undo_ending(const KvsQueueRef *ref, int64 id, uint64 token, TimestampTz now)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_ref(ref);
	TimestampTz due = DT_NOEND;
	Lease	   *lease;

	if (slot == NULL)
		return due;
	lease = find_token(slot, id, token);
	if (lease != NULL && lease->state == KVS_LEASE_ENDING)
	{
		if (lease->before == KVS_LEASE_RETURNED && !lease->doomed)
			give_back(slot, lease, DT_NOBEGIN);
		else
		{
			set_state(slot, lease, lease->before);
			lease->due = Max(lease->due, TimestampTzPlusMilliseconds(now, RETRY));
			move_to(lease, &slot->due);
		}
		due = lease->due;
	}
	LWLockRelease(slot->lock);
	return due;
}

bool
kvs_lease_undo_take(const KvsQueueRef *ref, int64 id, uint64 token, TimestampTz now, int64 delay)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_ref(ref);
	Lease	   *lease;
	bool		doomed = false;

	if (slot == NULL)
		return false;
	lease = find_token(slot, id, token);
	if (lease != NULL && lease->state == KVS_LEASE_HELD)
	{
		int			rollbacks = ++lease->message.rollbacks;

		doomed = lease->message.attempts + rollbacks >= lease->message.max_attempts;
		lease->doomed = doomed;
		give_back(slot, lease, doomed ? now : rollbacks == 1 ? DT_NOBEGIN : now + delay);
	}
	LWLockRelease(slot->lock);
	return doomed;
}

/* ---- For leasefile.c ---- */

void
kvs_lease_save(void (*give) (const KvsLeaseImage *lease, void *arg), void *arg)
{
	HASH_SEQ_STATUS status;
	Lease	   *lease;

	hash_seq_init(&status, leases);
	while ((lease = hash_seq_search(&status)) != NULL)
	{
		KvsLeaseImage image = {
			lease->key.database, lease->key.relid, lease->state == KVS_LEASE_RETURNED, lease->doomed,
			lease->token, lease->due, lease->since, lease->message
		};

		give(&image, arg);
	}
}

bool
kvs_lease_restore(const KvsLeaseImage *image)
{
	KvsQueueSlot *slot = kvs_queueslot_restore(image->database, image->relid);
	Lease	   *lease = slot == NULL ? NULL : make_lease(slot, &image->message);

	if (lease == NULL)
		return false;
	lease->doomed = image->doomed;
	lease->since = image->since;
	if (image->returned)
		give_back(slot, lease, image->due);
	else
	{
		hold(slot, lease, image->token, image->since, image->due);
		lease->pid = 0;
	}
	return true;
}

/* ---- Initialisation ---- */

void
kvs_lease_request_shmem(void)
{
	RequestAddinShmemSpace(hash_estimate_size(kvs_guc_max_leases, sizeof(Lease)));
	RequestNamedLWLockTranche("kvstore_lease", PARTITIONS);
}

void
kvs_lease_startup_shmem(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(LeaseKey);
	ctl.entrysize = sizeof(Lease);
	ctl.num_partitions = PARTITIONS;
	leases = ShmemInitHash("kvstore leases", kvs_guc_max_leases, kvs_guc_max_leases, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_PARTITION | HASH_FIXED_SIZE);
	partition_locks = GetNamedLWLockTranche("kvstore_lease");
}
