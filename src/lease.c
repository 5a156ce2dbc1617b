/*
 * lease.c
 *		The lease table: who holds which message, and how often its delivery has failed.
 *
 * To deliver a message nothing is written: no transaction id, no WAL, no dead row.  That it is somebody's is known here only, in shared memory, where every
 * other backend sees it at once.  A lease is named by (database, queue, id) and has a token, a random number that only its holder's receipt
 * knows: whoever comes later with an old one is told so.
 *
 *		HELD		a consumer has it until its deadline
 *		ENDING		a transaction is about to acknowledge, fail or remove it, and only that transaction decides
 *		RETURNED	nobody has it, but its delivery has failed, and the row does not know that yet
 *
 * A delivery whose lease expires, or whose transaction rolls back, has failed.  That is counted here, by whoever notices first, and decides: the message
 * waits for its backoff, or is doomed.  The first failure of a message may stay in memory.  Before it is delivered again after the next, and when it has to
 * wait for more than SOON, the worker writes the count and the time into the row, and the entry goes.  If the worker does not come, the message is
 * delivered all the same.  Only the worker moves what is doomed to the dead letters.  A crash forgets what was not written.
 *
 * A message that is returned without a failure has no entry: it is an arrival below the head.  So an entry that nobody holds is always one
 * that the worker has to see to, soon or, when its first failure is AGE old.
 *
 * A lease leaves the table with the commit that deletes its message, with one that changes it (then the new row is an arrival, published right after
 * that, queuexact.c), or when the row turns out to be gone.
 *
 * After a crash all is gone, and every message is delivered again.
 *
 * Locks: everything in an entry is under the lock of its queue's slot.  The partition locks are for the chains of the hash table alone, taken after
 * it.  No allocation, no ereport and no table access under any.  Comparison functions are kept in shared memory by their address,
 * which is the same in all backends, as they are forked.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "errors.h"
#include "expiry.h"
#include "guc.h"
#include "lease.h"
#include "shmem.h"
#include "testing.h"
#include "waiter.h"

#define PARTITIONS	16

/* A backoff up to this is waited for in memory; and so long a second failure waits for the worker. */
#define SOON		(1 * USECS_PER_SEC)

/* So long the first failure of a message may be known to memory only. */
#define AGE			(2 * USECS_PER_SEC)

/* What could not be settled because somebody was in the way is tried again after so many milliseconds. */
#define RETRY		500

/* What could not be settled because of an error: after so many, twice as many each time, up to a limit. */
#define FIRST_PAUSE	1000
#define MOST_DOUBLINGS 8

/* Leases ended at once, under one lock. */
#define EXPIRE_BATCH 1000

/* Doomed messages of one queue that are kept here; rows of others are found again by the worker. */
#define MOST_DOOMED	1000

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
	KvsLeaseEnd end;			/* RETURNED: how it failed */
	bool		doomed;			/* is counted as such */
	bool		working;		/* is in the heap of what the worker has to see to */
	uint16		tries;			/* of the worker, in vain */
	int			pid;			/* who took it */
	pairingheap *heap;			/* due, later or ready; NULL: in none of them */
	pairingheap_node node;
	pairingheap_node work_node;
	dlist_node	link;			/* among all of the queue */
	KvsMessageRef message;
	uint64		token;
	TimestampTz due;			/* HELD: deadline; RETURNED: not before; DT_NOBEGIN: at once */
	TimestampTz ready_at;		/* RETURNED: when its backoff is over; DT_NOBEGIN: it has none */
	TimestampTz work_at;		/* RETURNED: when the worker is to see to it */
	TimestampTz since;			/* when it was taken, or returned */
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

static int
compare_work(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	TimestampTz x = pairingheap_const_container(Lease, work_node, a)->work_at;
	TimestampTz y = pairingheap_const_container(Lease, work_node, b)->work_at;

	return x < y ? 1 : x > y ? -1 : 0;
}

static Lease *
top_of(pairingheap *heap)
{
	return pairingheap_is_empty(heap) ? NULL : pairingheap_container(Lease, node, pairingheap_first(heap));
}

static Lease *
top_of_work(KvsQueueSlot *slot)
{
	return pairingheap_is_empty(&slot->work) ? NULL :
		pairingheap_container(Lease, work_node, pairingheap_first(&slot->work));
}

/* Out of the heap it is in, into another one or, NULL, none. */
static void
move_to(KvsQueueSlot *slot, Lease *lease, pairingheap *heap)
{
	slot->nlater += (heap == &slot->later) - (lease->heap == &slot->later);
	if (lease->heap != NULL)
		pairingheap_remove(lease->heap, &lease->node);
	lease->heap = heap;
	if (heap != NULL)
		pairingheap_add(heap, &lease->node);
}

static void
leave_work(KvsQueueSlot *slot, Lease *lease)
{
	if (lease->working)
		pairingheap_remove(&slot->work, &lease->work_node);
	lease->working = false;
}

/* Have the worker see to it then. */
static void
work_at(KvsQueueSlot *slot, Lease *lease, TimestampTz when)
{
	leave_work(slot, lease);
	lease->working = true;
	lease->work_at = when;
	pairingheap_add(&slot->work, &lease->work_node);
}

void
kvs_lease_init_slot(KvsQueueSlot *slot)
{
	dlist_init(&slot->leases);
	slot->nleases = slot->nheld = slot->nlater = slot->ndoomed = slot->nstuck = 0;
	slot->more_doomed = false;
	slot->due = slot->later = (pairingheap) {compare_due, NULL, NULL};
	slot->ready = (pairingheap) {compare_position, NULL, NULL};
	slot->work = (pairingheap) {compare_work, NULL, NULL};
	slot->nerrors = 0;
	memset(slot->errors, 0, sizeof(slot->errors));
}

/* ---- The table ---- */

static bool
is_held(KvsLeaseState state)
{
	return state == KVS_LEASE_HELD || state == KVS_LEASE_ENDING;
}

static void
set_state(KvsQueueSlot *slot, Lease *lease, KvsLeaseState state)
{
	slot->nheld += is_held(state) - is_held(lease->state);
	lease->state = state;
}

static void
set_doomed(KvsQueueSlot *slot, Lease *lease, bool doomed)
{
	slot->ndoomed += doomed - lease->doomed;
	lease->doomed = doomed;
}

static void
set_tries(KvsQueueSlot *slot, Lease *lease, int tries)
{
	slot->nstuck += (tries > 0) - (lease->tries > 0);
	lease->tries = tries;
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
		dlist_push_tail(&slot->leases, &lease->link);
		slot->nleases++;
	}
	return lease;
}

static void
remove_lease(KvsQueueSlot *slot, Lease *lease)
{
	bool		was_doomed = lease->doomed;

	move_to(slot, lease, NULL);
	leave_work(slot, lease);
	set_state(slot, lease, KVS_LEASE_NONE);
	set_doomed(slot, lease, false);
	set_tries(slot, lease, 0);
	dlist_delete(&lease->link);
	slot->nleases--;
	search(slot, lease->key.id, HASH_REMOVE);
	/* there is room for those that had none */
	if (was_doomed && slot->ndoomed == 0 && slot->more_doomed)
		slot->verify_at = DT_NOBEGIN;
}

void
kvs_lease_forget_all(KvsQueueSlot *slot)
{
	while (!dlist_is_empty(&slot->leases))
		remove_lease(slot, dlist_head_element(Lease, link, &slot->leases));
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
	set_state(slot, lease, KVS_LEASE_HELD);
	set_doomed(slot, lease, false);
	set_tries(slot, lease, 0);
	leave_work(slot, lease);
	lease->end = KVS_END_NONE;
	lease->token = token;
	lease->due = deadline;
	lease->since = now;
	lease->pid = MyProcPid;
	move_to(slot, lease, &slot->due);
}

static void
begin_ending(KvsQueueSlot *slot, Lease *lease, uint64 token)
{
	move_to(slot, lease, NULL);
	leave_work(slot, lease);
	lease->before = lease->state;
	set_state(slot, lease, KVS_LEASE_ENDING);
	lease->token = token;
}

/* ---- Returning ---- */

/* Nobody has it, and there is nothing to remember: it is an arrival, as others may have passed over it. */
static void
let_go(KvsQueueSlot *slot, Lease *lease)
{
	KvsMessageRef message = lease->message;
	KvsPosition position = {message.ready_at, message.id};

	remove_lease(slot, lease);
	/* for tests of the tests: what happens when it is not */
	if (!kvs_testing_is("forget-returned"))
		kvs_queueslot_arrive(slot, message.priority, position, position);
}

/* Into the heaps in which a returned lease is. */
static void
put_returned(KvsQueueSlot *slot, Lease *lease)
{
	set_state(slot, lease, KVS_LEASE_RETURNED);
	set_doomed(slot, lease, kvs_message_is_doomed(&lease->message));
	lease->token = 0;
	if (!lease->doomed && lease->message.failures == 0)
	{
		let_go(slot, lease);
		return;
	}
	move_to(slot, lease, lease->doomed ? NULL : lease->due == DT_NOBEGIN ? &slot->ready : &slot->later);
	work_at(slot, lease, lease->work_at);
}

/* Nobody has it any more.  "ready_at": when its backoff is over, DT_NOBEGIN for at once. */
static void
give_back(KvsQueueSlot *slot, Lease *lease, TimestampTz now, TimestampTz ready_at)
{
	bool		waits = ready_at > now + SOON;

	lease->since = now;
	lease->ready_at = lease->due = ready_at;
	lease->work_at = now;
	if (!kvs_message_is_doomed(&lease->message) && !waits && Abs(lease->message.failures) <= 1)
		lease->work_at = now + AGE;
	else if (!waits)
		lease->due = now + SOON;
	put_returned(slot, lease);
}

/* A delivery has failed.  At once after the first time that is a rollback: it may be just a deadlock. */
static void
fail(KvsQueueSlot *slot, Lease *lease, TimestampTz now, KvsLeaseEnd end)
{
	KvsMessageRef *message = &lease->message;
	bool		at_once;

	message->failures++;
	at_once = message->delay == 0 || (end == KVS_END_ROLLED_BACK && kvs_message_failed(message) == 1);
	lease->end = end;
	give_back(slot, lease, now, at_once ? DT_NOBEGIN : now + message->delay);
}

int
kvs_lease_expire(KvsQueueSlot *slot, TimestampTz now)
{
	int			count = 0;
	Lease	   *lease;

	while (count < EXPIRE_BATCH && (lease = top_of(&slot->due)) != NULL && lease->due <= now)
	{
		fail(slot, lease, now, KVS_END_EXPIRED);
		count++;
	}
	return count;
}

/* Returned messages that have waited long enough are ready. */
static void
wake_returned(KvsQueueSlot *slot, TimestampTz now)
{
	Lease	   *lease;

	while ((lease = top_of(&slot->later)) != NULL && lease->due <= now)
	{
		move_to(slot, lease, &slot->ready);
		lease->due = DT_NOBEGIN;
	}
}

/* ---- Taking ---- */

KvsTake
kvs_lease_take(KvsQueue *queue, KvsMessageRef *row, uint64 token, TimestampTz now, TimestampTz deadline)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	Lease	   *lease = find_lease_of_row(slot, row);
	KvsTake		result = KVS_TAKE_DONE;

	if (lease == NULL)
	{
		lease = make_lease(slot, row);
		if (lease == NULL)
			result = KVS_TAKE_FULL;
	}
	else if (lease->heap != &slot->ready)
		result = KVS_TAKE_BUSY;
	if (result == KVS_TAKE_DONE)
	{
		row->failures = lease->message.failures;
		lease->message = *row;
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

static int
compare_refs(const void *a, const void *b)
{
	const KvsMessageRef *x = a;
	const KvsMessageRef *y = b;

	if (x->priority != y->priority)
		return x->priority > y->priority ? -1 : 1;
	return kvs_position_compare((KvsPosition) {x->ready_at, x->id}, (KvsPosition) {y->ready_at, y->id});
}

int
kvs_lease_list_ready(KvsQueue *queue, int priority, TimestampTz now, KvsMessageRef **messages)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	int			room = slot->nleases - slot->nheld;
	int			count = 0;
	dlist_iter	iter;

	LWLockRelease(slot->lock);
	*messages = room == 0 ? NULL : palloc_extended(room * sizeof(KvsMessageRef), MCXT_ALLOC_HUGE);
	if (room == 0)
		return 0;
	slot = kvs_queueslot_lock(queue);
	wake_returned(slot, now);
	dlist_foreach(iter, &slot->leases)
	{
		Lease	   *lease = dlist_container(Lease, link, iter.cur);

		/* what has come since is for the next call */
		if (lease->heap == &slot->ready && lease->message.priority >= priority && count < room)
			(*messages)[count++] = lease->message;
	}
	LWLockRelease(slot->lock);
	qsort(*messages, count, sizeof(KvsMessageRef), compare_refs);
	return count;
}

bool
kvs_lease_peek_ready(KvsQueue *queue, TimestampTz now, KvsMessageRef *message)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	Lease	   *lease;

	if (slot == NULL)
		return false;
	wake_returned(slot, now);
	lease = top_of(&slot->ready);
	if (lease != NULL)
		*message = lease->message;
	LWLockRelease(slot->lock);
	return lease != NULL;
}

/*
 * The last look may have been too early, as the row's own transaction may have been about to commit; so the position is published as an arrival:
 * others have passed over it because of us.  Of a row that somebody is just deleting he publishes it himself, should that abort.
 */
void
kvs_lease_drop(KvsQueue *queue, const KvsMessageRef *message, uint64 token, bool announce)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	Lease	   *lease = find_token(slot, message->id, token);

	if (lease != NULL)
	{
		KvsPosition position = {message->ready_at, message->id};

		remove_lease(slot, lease);
		if (announce && !kvs_testing_is("drop-silently"))
			kvs_queueslot_arrive(slot, message->priority, position, position);
	}
	LWLockRelease(slot->lock);
}

void
kvs_lease_defer(KvsQueue *queue, const KvsMessageRef *message, uint64 token)
{
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	Lease	   *lease = find_token(slot, message->id, token);

	if (lease != NULL && lease->state == KVS_LEASE_HELD)
	{
		lease->message = *message;
		lease->due = lease->ready_at = message->ready_at;
		lease->work_at = GetCurrentTimestamp();
		put_returned(slot, lease);
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
		int			failures = lease->message.failures;

		lease->message = *message;
		lease->message.failures = failures;
	}
	LWLockRelease(slot->lock);
}

void
kvs_lease_doom(KvsQueue *queue, const KvsMessageRef *row)
{
	TimestampTz now = GetCurrentTimestamp();
	KvsQueueSlot *slot = kvs_queueslot_lock(queue);
	Lease	   *lease = find_lease_of_row(slot, row);
	bool		known = lease != NULL;

	if (!known && slot->ndoomed < MOST_DOOMED)
		lease = make_lease(slot, row);
	if (lease == NULL)
	{
		slot->more_doomed = true;
		if (slot->verify_at == DT_NOEND)
			slot->verify_at = now + KVS_LEASE_KEEP;
	}
	else if (!known || (lease->state == KVS_LEASE_RETURNED && !lease->doomed))
	{
		lease->message = *row;
		give_back(slot, lease, now, DT_NOBEGIN);
	}
	LWLockRelease(slot->lock);
	if (kvs_expiry_database() != NULL)
		kvs_expiry_lower_next_due(now);
}

void
kvs_lease_raise_full(const KvsQueue *queue)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(unconstify(KvsQueue *, queue));
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

/* ---- What could not be written down ---- */

static bool
is_overdue(const Lease *lease, TimestampTz now)
{
	return lease->state == KVS_LEASE_RETURNED && !lease->doomed && now - lease->since > KVS_LEASE_KEEP;
}

bool
kvs_lease_are_overdue(KvsQueueSlot *slot, TimestampTz now)
{
	dlist_iter	iter;

	dlist_foreach(iter, &slot->leases)
		if (!is_overdue(dlist_container(Lease, link, iter.cur), now))
			return false;
	return true;
}

int
kvs_lease_make_room(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int			forgotten = 0;

	for (int i = 0; i < kvs_guc_max_queues; i++)
	{
		KvsQueueSlot *slot = kvs_queueslot_lock_any(i);
		dlist_mutable_iter iter;

		if (slot == NULL)
			continue;
		if (slot->nheld + slot->ndoomed < slot->nleases)
			dlist_foreach_modify(iter, &slot->leases)
			{
				Lease	   *lease = dlist_container(Lease, link, iter.cur);

				if (!is_overdue(lease, now))
					continue;
				let_go(slot, lease);
				forgotten++;
			}
		LWLockRelease(slot->lock);
	}
	return forgotten;
}

/* ---- What a receipt can do ---- */

/* The delivery has not failed after all, if it is the last that has. */
static void
take_back_failure(KvsMessageRef *message, int number)
{
	if (kvs_message_failed(message) == number)
		message->failures--;
}

static KvsClaim
claim_locked(KvsQueueSlot *slot, uint64 token, int number, KvsLeaseState state, TimestampTz deadline, bool row, KvsMessageRef *message)
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
		lease->due = lease->ready_at = DT_NOBEGIN;
		lease->work_at = lease->since = now;
	}
	else if (lease->message.enqueued_at != message->enqueued_at || lease->state == KVS_LEASE_ENDING ||
			 (lease->state == KVS_LEASE_HELD && lease->token != token && !kvs_testing_is("no-fence")))
		return KVS_CLAIM_STALE;

	if (state == KVS_LEASE_ENDING)
	{
		*message = lease->message;
		begin_ending(slot, lease, token);
		return KVS_CLAIM_DONE;
	}
	if (lease->state == KVS_LEASE_RETURNED)
	{
		take_back_failure(&lease->message, number);
		if (kvs_message_is_doomed(&lease->message))
		{
			put_returned(slot, lease);
			return KVS_CLAIM_STALE;
		}
	}
	*message = lease->message;
	hold(slot, lease, token, now, deadline);
	return KVS_CLAIM_DONE;
}

KvsClaim
kvs_lease_claim(KvsQueue *queue, uint64 token, int number, KvsLeaseState state, TimestampTz deadline, bool row, KvsMessageRef *message)
{
	KvsQueueSlot *slot = row ? kvs_queueslot_lock(queue) : kvs_queueslot_lock_existing(queue);
	KvsClaim	result = slot == NULL ? KVS_CLAIM_UNKNOWN : claim_locked(slot, token, number, state, deadline, row, message);

	if (slot != NULL)
		LWLockRelease(slot->lock);
	return result;
}

/* Does this token hold it, or has its delivery failed only because the time was over?  Then it has not. */
static bool
may_release(Lease *lease, const uint64 *token, int number)
{
	if (lease->state == KVS_LEASE_HELD)
		return token == NULL || lease->token == *token;
	if (lease->state != KVS_LEASE_RETURNED || token == NULL || kvs_message_failed(&lease->message) != number)
		return false;
	take_back_failure(&lease->message, number);
	return !lease->message.dying;
}

KvsClaim
kvs_lease_release(KvsQueue *queue, int64 id, const uint64 *token, int number)
{
	KvsQueueSlot *slot;
	Lease	   *lease;
	KvsClaim	result = KVS_CLAIM_UNKNOWN;

	kvs_waiter_prepare();
	slot = kvs_queueslot_lock_existing(queue);
	if (slot == NULL)
		return result;
	lease = search(slot, id, HASH_FIND);
	if (lease != NULL)
		result = may_release(lease, token, number) ? KVS_CLAIM_DONE : KVS_CLAIM_STALE;
	if (result == KVS_CLAIM_DONE)
		give_back(slot, lease, GetCurrentTimestamp(), DT_NOBEGIN);
	LWLockRelease(slot->lock);
	/* whoever looked while it was held has passed over it */
	if (result == KVS_CLAIM_DONE)
		kvs_waiter_wake_one_now(queue->relid);
	return result;
}

KvsMark
kvs_lease_mark(KvsQueue *queue, const KvsMessageRef *row, uint64 token)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	KvsMark		result = KVS_MARK_DONE;
	Lease	   *lease;

	if (slot == NULL)
		return KVS_MARK_NONE;
	lease = find_lease_of_row(slot, row);
	if (lease == NULL)
	{
		lease = make_lease(slot, row);
		if (lease == NULL)
			result = KVS_MARK_NONE;
		else
		{
			set_state(slot, lease, KVS_LEASE_RETURNED);
			lease->due = lease->ready_at = DT_NOBEGIN;
			lease->work_at = lease->since = GetCurrentTimestamp();
		}
	}
	else if (is_held(lease->state))
		result = KVS_MARK_HELD;
	if (result == KVS_MARK_DONE)
		begin_ending(slot, lease, token);
	LWLockRelease(slot->lock);
	return result;
}

/* ---- For the worker ---- */

bool
kvs_lease_next_work(KvsQueue *queue, TimestampTz now, bool put_off, uint64 token, KvsMessageRef *message, KvsLeaseEnd *end,
					TimestampTz *ready_at)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	Lease	   *lease;
	bool		found;

	if (slot == NULL)
		return false;
	lease = top_of_work(slot);
	found = lease != NULL && lease->work_at <= now;
	if (found)
	{
		*message = lease->message;
		*end = lease->end;
		*ready_at = lease->ready_at;
		begin_ending(slot, lease, token);
		if (put_off)
			lease->work_at = TimestampTzPlusMilliseconds(now, FIRST_PAUSE << Min(lease->tries, MOST_DOUBLINGS));
	}
	LWLockRelease(slot->lock);
	return found;
}

static void
note_error(KvsQueueSlot *slot, int64 id, const char *text)
{
	KvsStuckError *error = NULL;

	for (int i = 0; i < KVS_STUCK_ERRORS && error == NULL; i++)
		if (slot->errors[i].id == id)
			error = &slot->errors[i];
	if (error == NULL)
		error = &slot->errors[slot->nerrors++ % KVS_STUCK_ERRORS];
	error->id = id;
	/* the caller has cut it where a character ends */
	strlcpy(error->text, text, KVS_STUCK_ERROR_SIZE);
}

int
kvs_lease_stick(KvsQueue *queue, const KvsMessageRef *message, TimestampTz now, const char *error)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	Lease	   *lease = slot == NULL ? NULL : search(slot, message->id, HASH_FIND);
	int			tries = 0;

	if (slot == NULL)
		return tries;
	if (lease != NULL && lease->message.enqueued_at == message->enqueued_at && lease->state == KVS_LEASE_RETURNED)
	{
		int64		pause = error == NULL ? RETRY : FIRST_PAUSE << Min(lease->tries, MOST_DOUBLINGS);

		if (error != NULL)
		{
			set_tries(slot, lease, Min(lease->tries + 1, PG_UINT16_MAX));
			note_error(slot, message->id, error);
		}
		tries = lease->tries;
		work_at(slot, lease, TimestampTzPlusMilliseconds(now, pause));
	}
	LWLockRelease(slot->lock);
	return tries;
}

/* ---- Looking ---- */

static KvsLeaseInfo
describe(const KvsQueueSlot *slot, const Lease *lease)
{
	return (KvsLeaseInfo) {
		.relid = slot->relid,
		.state = lease->state,
		.message = lease->message,
		.due = lease->due,
		.since = lease->since,
		.pid = lease->pid,
		.delivered = lease->state == KVS_LEASE_HELD || (lease->state == KVS_LEASE_ENDING && lease->before == KVS_LEASE_HELD),
		.stuck = lease->tries > 0
	};
}

bool
kvs_lease_find(KvsQueue *queue, int64 id, TimestampTz enqueued_at, KvsLeaseInfo *info)
{
	KvsQueueSlot *slot = kvs_queueslot_lock_existing(queue);
	Lease	   *lease;
	bool		found;

	if (slot == NULL)
		return false;
	lease = search(slot, id, HASH_FIND);
	found = lease != NULL && lease->message.enqueued_at == enqueued_at;
	if (found)
		*info = describe(slot, lease);
	LWLockRelease(slot->lock);
	return found;
}

bool
kvs_lease_is_known(KvsQueue *queue, const KvsMessageRef *message)
{
	KvsLeaseInfo info;

	return kvs_lease_find(queue, message->id, message->enqueued_at, &info);
}

bool
kvs_lease_is_ending(KvsQueue *queue, const KvsMessageRef *message)
{
	KvsLeaseInfo info;

	return kvs_lease_find(queue, message->id, message->enqueued_at, &info) && info.state == KVS_LEASE_ENDING;
}

int
kvs_lease_first_ready(KvsQueueSlot *slot, TimestampTz now)
{
	Lease	   *lease;

	wake_returned(slot, now);
	lease = top_of(&slot->ready);
	return lease == NULL ? -1 : lease->message.priority;
}

TimestampTz
kvs_lease_next_deadline(KvsQueueSlot *slot)
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
kvs_lease_next_work_at(KvsQueueSlot *slot)
{
	Lease	   *lease = top_of_work(slot);

	return lease == NULL ? DT_NOEND : lease->work_at;
}

TimestampTz
kvs_lease_oldest_ready(KvsQueueSlot *slot)
{
	Lease	   *lease = top_of(&slot->ready);

	return lease == NULL ? DT_NOEND : lease->message.ready_at;
}

int
kvs_lease_list(int slot_number, KvsLeaseInfo **list, KvsStuckError *errors)
{
	Oid			relid;
	KvsQueueSlot *slot = kvs_queueslot_lock_nth(slot_number, &relid);
	int			room;
	int			count = 0;
	dlist_iter	iter;

	if (slot == NULL)
		return 0;
	room = slot->nleases;
	LWLockRelease(slot->lock);
	if (room == 0)
		return 0;
	*list = palloc_extended(room * sizeof(KvsLeaseInfo), MCXT_ALLOC_HUGE);
	slot = kvs_queueslot_lock_nth(slot_number, &relid);
	if (slot == NULL)
		return 0;
	dlist_foreach(iter, &slot->leases)
		if (count < room)
			(*list)[count++] = describe(slot, dlist_container(Lease, link, iter.cur));
	memcpy(errors, slot->errors, sizeof(slot->errors));
	LWLockRelease(slot->lock);
	return count;
}

Oid
kvs_lease_find_stuck(int64 *count)
{
	Oid			first = InvalidOid;

	*count = 0;
	for (int i = 0; i < kvs_guc_max_queues; i++)
	{
		Oid			relid;
		KvsQueueSlot *slot = kvs_queueslot_lock_nth(i, &relid);

		if (slot == NULL)
			continue;
		*count += slot->nstuck;
		if (slot->nstuck > 0 && !OidIsValid(first))
			first = relid;
		LWLockRelease(slot->lock);
	}
	return first;
}

int64
kvs_lease_count(void)
{
	return hash_get_num_entries(leases);
}

/* ---- Ends of transactions ---- */

void
kvs_lease_finish(KvsQueueSlot *slot, int64 id, uint64 token, bool doomed, TimestampTz now)
{
	Lease	   *lease = find_token(slot, id, token);

	if (lease == NULL || lease->state != KVS_LEASE_ENDING)
		return;
	if (!doomed)
	{
		remove_lease(slot, lease);
		return;
	}
	/* the row counts all of its failures */
	lease->message.dying = true;
	lease->message.failures = 0;
	give_back(slot, lease, now, DT_NOBEGIN);
}

void
kvs_lease_forget(KvsQueueSlot *slot, int64 id, TimestampTz enqueued_at)
{
	Lease	   *lease = search(slot, id, HASH_FIND);

	if (lease != NULL && lease->message.enqueued_at == enqueued_at && lease->state != KVS_LEASE_ENDING)
		remove_lease(slot, lease);
}

void
kvs_lease_forget_before(KvsQueueSlot *slot, TimestampTz when)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &slot->leases)
	{
		Lease	   *lease = dlist_container(Lease, link, iter.cur);

		if (lease->since <= when && lease->state != KVS_LEASE_ENDING)
			remove_lease(slot, lease);
	}
}

void
kvs_lease_undo_ending(KvsQueueSlot *slot, int64 id, uint64 token, TimestampTz now)
{
	Lease	   *lease = find_token(slot, id, token);

	if (lease == NULL || lease->state != KVS_LEASE_ENDING)
		return;
	if (lease->before == KVS_LEASE_RETURNED)
	{
		put_returned(slot, lease);
		return;
	}
	set_state(slot, lease, lease->before);
	move_to(slot, lease, &slot->due);
}

void
kvs_lease_undo_take(KvsQueueSlot *slot, int64 id, uint64 token, bool own, TimestampTz now)
{
	Lease	   *lease = find_token(slot, id, token);

	if (lease == NULL || lease->state != KVS_LEASE_HELD)
		return;
	if (own)
		remove_lease(slot, lease);
	else
		fail(slot, lease, now, KVS_END_ROLLED_BACK);
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
			lease->key.database, lease->key.relid, lease->state == KVS_LEASE_RETURNED, lease->end,
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
	lease->end = image->end;
	if (image->returned)
		give_back(slot, lease, image->since, image->due);
	else
	{
		hold(slot, lease, image->token, image->since, image->due);
		lease->pid = 0;
	}
	return true;
}

/* ---- Initialisation ---- */

static void
request_shmem(void)
{
	RequestAddinShmemSpace(hash_estimate_size(kvs_guc_max_leases, sizeof(Lease)));
	RequestNamedLWLockTranche("kvstore_lease", PARTITIONS);
}

static void
startup_shmem(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(LeaseKey);
	ctl.entrysize = sizeof(Lease);
	ctl.num_partitions = PARTITIONS;
	leases = ShmemInitHash("kvstore leases", kvs_guc_max_leases, kvs_guc_max_leases, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_PARTITION | HASH_FIXED_SIZE);
	partition_locks = GetNamedLWLockTranche("kvstore_lease");
}

void
kvs_lease_init(void)
{
	kvs_shmem_add(request_shmem, startup_shmem);
}
