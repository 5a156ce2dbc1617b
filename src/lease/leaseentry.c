/*
 * leaseentry.c
 *		The entries of the lease table: where they are found, in which heaps they are, how they come
 *		back.
 *
 * Locks: everything in an entry is under the lock of its queue's slot.  The partition locks, taken
 * after it, are for the chains of the hash table alone.  There is no allocation, no ereport and no
 * table access under any of them.  Shared memory keeps the addresses of comparison functions: they
 * are the same in all backends, as these are forked.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "base/fault.h"
#include "base/guc.h"
#include "base/shmem.h"
#include "lease/leaseentry.h"
#include "lease/queueslot.h"

#define PARTITIONS	16

/* A backoff up to this stays in memory; and a second failure waits so long for the worker. */
#define SOON		(1 * USECS_PER_SEC)

/* The first failure of a message may be in memory only for so long. */
#define AGE			(2 * USECS_PER_SEC)

/*
 * Doomed messages of one queue that are kept here, but no more than its share; rows of others are
 * found again by the worker.
 */
#define MOST_DOOMED	1000

/* Leases ended at once, under one lock. */
#define EXPIRE_BATCH 1000

static HTAB *leases = NULL;
static LWLockPadded *partition_locks = NULL;

/* ---- Heaps ---- */

/* The smallest is to be on top, so these compare the other way round. */
static int
compare_due(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	TimestampTz x = pairingheap_const_container(KvsLease, node, a)->due;
	TimestampTz y = pairingheap_const_container(KvsLease, node, b)->due;

	return x < y ? 1 : x > y ? -1 : 0;
}

static int
compare_position(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const KvsMessageRef *x = &pairingheap_const_container(KvsLease, node, a)->message;
	const KvsMessageRef *y = &pairingheap_const_container(KvsLease, node, b)->message;

	if (x->priority != y->priority)
		return x->priority < y->priority ? -1 : 1;
	return -kvs_position_compare((KvsPosition) {x->ready_at, x->id}, (KvsPosition) {y->ready_at, y->id});
}

static int
compare_work(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	TimestampTz x = pairingheap_const_container(KvsLease, work_node, a)->work_at;
	TimestampTz y = pairingheap_const_container(KvsLease, work_node, b)->work_at;

	return x < y ? 1 : x > y ? -1 : 0;
}

KvsLease *
kvs_leaseentry_top(pairingheap *heap)
{
	return pairingheap_is_empty(heap) ? NULL : pairingheap_container(KvsLease, node, pairingheap_first(heap));
}

KvsLease *
kvs_leaseentry_top_of_work(KvsQueueSlot *slot)
{
	return pairingheap_is_empty(&slot->work) ? NULL :
		pairingheap_container(KvsLease, work_node, pairingheap_first(&slot->work));
}

/* Out of the heap it is in, into another one or, NULL, none. */
void
kvs_leaseentry_move_to(KvsQueueSlot *slot, KvsLease *lease, pairingheap *heap)
{
	slot->nlater += (heap == &slot->later) - (lease->heap == &slot->later);
	if (lease->heap != NULL)
		pairingheap_remove(lease->heap, &lease->node);
	lease->heap = heap;
	if (heap != NULL)
		pairingheap_add(heap, &lease->node);
}

void
kvs_leaseentry_leave_work(KvsQueueSlot *slot, KvsLease *lease)
{
	if (lease->working)
		pairingheap_remove(&slot->work, &lease->work_node);
	lease->working = false;
}

/* It is work for the worker then. */
void
kvs_leaseentry_have_work_at(KvsQueueSlot *slot, KvsLease *lease, TimestampTz when)
{
	kvs_leaseentry_leave_work(slot, lease);
	lease->working = true;
	lease->work_at = when;
	pairingheap_add(&slot->work, &lease->work_node);
}

static void
init_slot(KvsQueueSlot *slot)
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

void
kvs_leaseentry_set_state(KvsQueueSlot *slot, KvsLease *lease, KvsLeaseState state)
{
	slot->nheld += kvs_lease_is_held(state) - kvs_lease_is_held(lease->state);
	lease->state = state;
}

void
kvs_leaseentry_set_doomed(KvsQueueSlot *slot, KvsLease *lease, bool doomed)
{
	slot->ndoomed += doomed - lease->doomed;
	lease->doomed = doomed;
}

void
kvs_leaseentry_set_tries(KvsQueueSlot *slot, KvsLease *lease, int tries)
{
	slot->nstuck += (tries > 0) - (lease->tries > 0);
	lease->tries = tries;
}

KvsLease *
kvs_leaseentry_search(KvsQueueSlot *slot, int64 id, HASHACTION action)
{
	KvsLeaseKey	key;
	uint32		hash;
	LWLock	   *lock;
	KvsLease   *lease;
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
		memset((char *) lease + sizeof(KvsLeaseKey), 0, sizeof(KvsLease) - sizeof(KvsLeaseKey));
		dlist_push_tail(&slot->leases, &lease->link);
		slot->nleases++;
	}
	return lease;
}

void
kvs_leaseentry_remove(KvsQueueSlot *slot, KvsLease *lease)
{
	bool		was_doomed = lease->doomed;

	kvs_leaseentry_move_to(slot, lease, NULL);
	kvs_leaseentry_leave_work(slot, lease);
	kvs_leaseentry_set_state(slot, lease, KVS_LEASE_NONE);
	kvs_leaseentry_set_doomed(slot, lease, false);
	kvs_leaseentry_set_tries(slot, lease, 0);
	dlist_delete(&lease->link);
	slot->nleases--;
	kvs_leaseentry_search(slot, lease->key.id, HASH_REMOVE);
	/* now there is room for messages without an entry */
	if (was_doomed && slot->ndoomed == 0 && slot->more_doomed)
		slot->verify_at = DT_NOBEGIN;
}

static void
forget_all(KvsQueueSlot *slot)
{
	while (!dlist_is_empty(&slot->leases))
		kvs_leaseentry_remove(slot, dlist_head_element(KvsLease, link, &slot->leases));
}

static int
most_doomed(void)
{
	return Min(MOST_DOOMED, Max(kvs_guc_leases_of_queue() / 2, 1));
}

/* Doomed ones take no room from consumers, up to a limit. */
bool
kvs_leaseentry_is_full(const KvsQueueSlot *slot)
{
	return kvs_guc_max_leases_per_queue != 0 &&
		slot->nleases - Min(slot->ndoomed, most_doomed()) >= kvs_guc_leases_of_queue();
}

void
kvs_leaseentry_leave_to_rows(KvsQueueSlot *slot, TimestampTz now)
{
	slot->more_doomed = true;
	if (slot->verify_at == DT_NOEND)
		slot->verify_at = now + KVS_LEASE_KEEP;
}

/*
 * A stuck one makes room, if its row says that it is given up: stuck ones must not keep others from
 * their turn.
 */
bool
kvs_leaseentry_room_for_doomed(KvsQueueSlot *slot, TimestampTz now)
{
	dlist_iter	iter;

	if (slot->ndoomed < most_doomed())
		return true;
	if (slot->nstuck == 0)
		return false;
	dlist_foreach(iter, &slot->leases)
	{
		KvsLease   *lease = dlist_container(KvsLease, link, iter.cur);

		if (lease->tries == 0 || lease->state != KVS_LEASE_RETURNED || !lease->message.dying)
			continue;
		kvs_leaseentry_leave_to_rows(slot, now);
		kvs_leaseentry_remove(slot, lease);
		return true;
	}
	return false;
}

/* A new entry, not yet in any state; NULL: no room. */
KvsLease *
kvs_leaseentry_make(KvsQueueSlot *slot, const KvsMessageRef *message)
{
	KvsLease   *lease = NULL;

	if (!kvs_leaseentry_is_full(slot))
		lease = kvs_leaseentry_search(slot, message->id, HASH_ENTER_NULL);
	if (lease != NULL)
		lease->message = *message;
	return lease;
}

/*
 * The entry of a message whose row the caller has seen.  One of another message, which had the id
 * before TRUNCATE ... RESTART IDENTITY, is forgotten, unless a transaction is about to end it.
 */
KvsLease *
kvs_leaseentry_find_of_row(KvsQueueSlot *slot, const KvsMessageRef *message)
{
	KvsLease   *lease = kvs_leaseentry_search(slot, message->id, HASH_FIND);

	if (lease == NULL || lease->message.enqueued_at == message->enqueued_at || lease->state == KVS_LEASE_ENDING)
		return lease;
	kvs_leaseentry_remove(slot, lease);
	return NULL;
}

/* The entry of this token, unless nobody holds it any more. */
KvsLease *
kvs_leaseentry_find_token(KvsQueueSlot *slot, int64 id, uint64 token)
{
	KvsLease   *lease = kvs_leaseentry_search(slot, id, HASH_FIND);

	return lease != NULL && lease->token == token && lease->state != KVS_LEASE_RETURNED ? lease : NULL;
}

void
kvs_leaseentry_hold(KvsQueueSlot *slot, KvsLease *lease, uint64 token, TimestampTz now, TimestampTz deadline)
{
	kvs_leaseentry_set_state(slot, lease, KVS_LEASE_HELD);
	kvs_leaseentry_set_doomed(slot, lease, false);
	kvs_leaseentry_set_tries(slot, lease, 0);
	kvs_leaseentry_leave_work(slot, lease);
	lease->end = KVS_END_NONE;
	lease->token = token;
	lease->due = deadline;
	lease->since = now;
	lease->pid = MyProcPid;
	kvs_leaseentry_move_to(slot, lease, &slot->due);
}

void
kvs_leaseentry_begin_ending(KvsQueueSlot *slot, KvsLease *lease, uint64 token)
{
	kvs_leaseentry_move_to(slot, lease, NULL);
	kvs_leaseentry_leave_work(slot, lease);
	lease->before = lease->state;
	lease->rolled_back = false;
	kvs_leaseentry_set_state(slot, lease, KVS_LEASE_ENDING);
	lease->token = token;
}

/* ---- Returning ---- */

/*
 * Nobody has it, and there is nothing to remember: it is an arrival, as others may have passed over
 * it.
 */
void
kvs_leaseentry_let_go(KvsQueueSlot *slot, KvsLease *lease)
{
	KvsMessageRef message = lease->message;
	KvsPosition position = {message.ready_at, message.id};

	kvs_leaseentry_remove(slot, lease);
	/* for tests of the tests: what happens when it is not */
	if (!kvs_fault_is(KVS_FAULT_FORGET_RETURNED))
		kvs_queueslot_arrive(slot, message.priority, position, position);
}

/* Into the heaps in which a returned lease is. */
void
kvs_leaseentry_put_returned(KvsQueueSlot *slot, KvsLease *lease)
{
	kvs_leaseentry_set_state(slot, lease, KVS_LEASE_RETURNED);
	kvs_leaseentry_set_doomed(slot, lease, kvs_message_is_doomed(&lease->message));
	lease->token = 0;
	if (!lease->doomed && lease->message.failures == 0)
	{
		kvs_leaseentry_let_go(slot, lease);
		return;
	}
	kvs_leaseentry_move_to(slot, lease, lease->doomed ? NULL : lease->due == DT_NOBEGIN ? &slot->ready : &slot->later);
	kvs_leaseentry_have_work_at(slot, lease, lease->work_at);
}

/* Nobody has it any more.  "ready_at": when its backoff is over, DT_NOBEGIN for at once. */
void
kvs_leaseentry_give_back(KvsQueueSlot *slot, KvsLease *lease, TimestampTz now, TimestampTz ready_at)
{
	bool		waits = ready_at > now + SOON;

	lease->since = now;
	lease->ready_at = lease->due = ready_at;
	lease->work_at = now;
	if (!kvs_message_is_doomed(&lease->message) && !waits && abs(lease->message.failures) <= 1)
		lease->work_at = now + AGE;
	else if (!waits)
		lease->due = now + SOON;
	kvs_leaseentry_put_returned(slot, lease);
}

/*
 * A delivery has failed.  The next delivery is at once after a first failure that is a rollback: it
 * may be just a deadlock.  It is at once, too, if the failure was counted before, and its receipt
 * was used to extend it since.
 */
void
kvs_leaseentry_fail(KvsQueueSlot *slot, KvsLease *lease, TimestampTz now, KvsLeaseEnd end)
{
	KvsMessageRef *message = &lease->message;
	bool		counted = lease->end != KVS_END_NONE;
	bool		at_once;

	if (!counted)
		message->failures++;
	at_once = counted || message->delay == 0 ||
		(end == KVS_END_ROLLED_BACK && kvs_message_failed(message) == 1);
	lease->end = end;
	kvs_leaseentry_give_back(slot, lease, now, at_once ? DT_NOBEGIN : now + message->delay);
}

int
kvs_leaseentry_expire(KvsQueueSlot *slot, TimestampTz now)
{
	int			count = 0;
	KvsLease   *lease;

	while (count < EXPIRE_BATCH && (lease = kvs_leaseentry_top(&slot->due)) != NULL && lease->due <= now)
	{
		kvs_leaseentry_fail(slot, lease, now, KVS_END_EXPIRED);
		count++;
	}
	return count;
}

/* Returned messages that have waited long enough are ready. */
void
kvs_leaseentry_wake_returned(KvsQueueSlot *slot, TimestampTz now)
{
	KvsLease   *lease;

	while ((lease = kvs_leaseentry_top(&slot->later)) != NULL && lease->due <= now)
	{
		kvs_leaseentry_move_to(slot, lease, &slot->ready);
		lease->due = DT_NOBEGIN;
	}
}

bool
kvs_leaseentry_is_overdue(const KvsLease *lease, TimestampTz now)
{
	return lease->state == KVS_LEASE_RETURNED && !lease->doomed && now - lease->since > KVS_LEASE_KEEP;
}

static bool
are_overdue(KvsQueueSlot *slot, TimestampTz now)
{
	dlist_iter	iter;

	dlist_foreach(iter, &slot->leases)
		if (!kvs_leaseentry_is_overdue(dlist_container(KvsLease, link, iter.cur), now))
			return false;
	return true;
}

int64
kvs_leaseentry_count(void)
{
	return hash_get_num_entries(leases);
}

void
kvs_leaseentry_walk(void (*give) (const KvsLease *lease, void *arg), void *arg)
{
	HASH_SEQ_STATUS status;
	KvsLease   *lease;

	hash_seq_init(&status, leases);
	while ((lease = hash_seq_search(&status)) != NULL)
		give(lease, arg);
}

/* ---- Initialisation ---- */

static void
request_shmem(void)
{
	RequestAddinShmemSpace(hash_estimate_size(kvs_guc_max_leases, sizeof(KvsLease)));
	RequestNamedLWLockTranche("kvstore_lease", PARTITIONS);
}

static void
startup_shmem(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(KvsLeaseKey);
	ctl.entrysize = sizeof(KvsLease);
	ctl.num_partitions = PARTITIONS;
	leases = ShmemInitHash("kvstore leases", kvs_guc_max_leases, kvs_guc_max_leases, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_PARTITION | HASH_FIXED_SIZE);
	partition_locks = GetNamedLWLockTranche("kvstore_lease");
}

void
kvs_leaseentry_init(void)
{
	static const KvsSlotLeases rules = {init_slot, forget_all, are_overdue};

	kvs_queueslot_set_leases(&rules);
	kvs_shmem_add(request_shmem, startup_shmem);
}
