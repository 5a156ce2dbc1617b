/*
 * watchchanges.c
 *		SQL functions over the feed: kv_feed_position, kv_changes, kv_wait_changes.
 *
 * A follower takes a position, lists, and then asks for changes after the position, again and
 * again.  Nothing is missed.  A change that commits before the list's snapshot is in the list.  One
 * that commits after it is published after the position was read.
 *
 * The feed has keys, not values, and is the same for all.  A role must not see there what it may
 * not read.  So a store is opened, with its rights checked, before each look.  With row-level
 * security on, it cannot be followed.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "base/args.h"
#include "base/compat.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "feed/feed.h"
#include "feed/wait.h"
#include "key/keyargs.h"
#include "kv/list.h"
#include "table/catalog.h"
#include "watch/feedposition.h"

/* One call. */
typedef struct Follow
{
	KvsWait		wait;			/* must be first */
	const char *function;
	text	   *store_name;
	KvsForm		form;
	KvsRange	range;
	Oid			relid;			/* the store that was followed so far; InvalidOid: none */
	int64		left;			/* changes that may still be given */
	bool		found;
	ReturnSetInfo *rsinfo;		/* NULL: it is enough to know that there is one */
	MemoryContext scratch;		/* reset after each row */
	KvsFeedReader *reader;
} Follow;

/* ---- Where there is a feed, and for which roles ---- */

static void
check_feed(const char *function)
{
	kvs_shmem_require(function);
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s during recovery", function),
				 errhint("A standby has no feed: follow changes on the primary, or use kv_watch() here.")));
	if (!kvs_feed_join())
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the feed has no room for another database")));
}

/* A list with the transaction's one snapshot would be older than the position. */
static void
check_isolation(const char *function)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s must be called at READ COMMITTED", function),
				 errhint("This transaction cannot see what is committed after its snapshot was taken.")));
}

/* Open the store as a reader would. */
static void
open_store(Follow *follow)
{
	Relation	rel;
	KvsStore   *store = kvs_storecatalog_open_store(follow->store_name, AccessShareLock, &rel);
	AclResult	result = pg_class_aclcheck(store->relid, GetUserId(), ACL_SELECT);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_TABLE, RelationGetRelationName(rel));
	if (rel->rd_rel->relrowsecurity && check_enable_rls(store->relid, InvalidOid, false) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot follow store \"%s\", which has row-level security", store->name),
				 errhint("The feed does not know which rows you may see: use kv_watch().")));
	if (OidIsValid(follow->relid) && follow->relid != store->relid)
		kvs_feedposition_lost("It is that of another store, or the store was created anew.");
	follow->relid = follow->wait.relid = store->relid;
	table_close(rel, NoLock);
}

/* ---- What a change means to this follower ---- */

/* Is what lies below one of these paths also below the other, or the other itself? */
static bool
paths_overlap(const char *a, int a_size, const char *b, int b_size)
{
	int			size = Min(a_size, b_size);
	const char *longer = a_size > b_size ? a : b;

	/* 00 FF is not the end of a string, but U+0000 in it */
	return memcmp(a, b, size) == 0 && (a_size == b_size || (uint8) longer[size] != 0xFF);
}

static int
prefix_size(const Follow *follow)
{
	return follow->range.low.size - 1;
}

/* The feed has compared the bytes; is the change one of this follower's keys? */
static bool
concerns(const Follow *follow, const KvsFeedChange *change)
{
	bool		of_texts = (change->flags & KVS_FEED_TEXT) != 0;

	if (change->operation == KVS_FEED_CLEAR)
		return true;
	if (follow->form == KVS_FORM_TEXT)
		return change->operation == KVS_FEED_DELETE_PREFIX ? of_texts : kvs_key_is_text(change->key, change->key_size);
	/* a plain string is below no path but the empty one */
	if (of_texts)
		return prefix_size(follow) == 0;
	if (change->operation != KVS_FEED_DELETE_PREFIX && change->key_size == prefix_size(follow))
		return false;
	return paths_overlap(change->key, change->key_size, KvsKeyBytes(&follow->range.low), prefix_size(follow));
}

/* The key, or the prefix below which all is gone. */
static Datum
key_for_user(const Follow *follow, const KvsFeedChange *change)
{
	if (follow->form == KVS_FORM_TEXT && change->operation == KVS_FEED_DELETE_PREFIX)
		return PointerGetDatum(cstring_to_text_with_len(change->key + 1, change->key_size - 1));
	if (follow->form == KVS_FORM_TEXT)
		return PointerGetDatum(kvs_key_to_text(change->key, change->key_size));
	/* no path says "strings that begin so": for a follower of all, all is to be listed again */
	if (change->flags & KVS_FEED_TEXT)
		return JsonbPGetDatum(kvs_keyjson_to_jsonb(change->key, 0));
	return JsonbPGetDatum(kvs_keyjson_to_jsonb(change->key, change->key_size));
}

/* ---- Results ---- */

static void
give_row(Follow *follow, uint64 position, const char *operation, const KvsFeedChange *change)
{
	MemoryContext old = MemoryContextSwitchTo(follow->scratch);
	Datum		values[4] = {
		PointerGetDatum(kvs_feedposition_to_text(position, follow->relid)), CStringGetTextDatum(operation)
	};
	bool		nulls[4] = {false, false, true, true};

	if (change != NULL)
	{
		nulls[2] = change->operation == KVS_FEED_CLEAR;
		values[2] = nulls[2] ? (Datum) 0 : key_for_user(follow, change);
		values[3] = Int64GetDatum(change->versionstamp);
		nulls[3] = false;
	}
	tuplestore_putvalues(follow->rsinfo->setResult, follow->rsinfo->setDesc, values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(follow->scratch);
}

static void
give_changes(Follow *follow)
{
	static const char *const names[] = {"set", "delete", "expire", "touch", "delete_prefix", "clear"};
	const KvsFeedChange *change = (const KvsFeedChange *) follow->reader->buffer;

	for (int i = 0; i < follow->reader->count; i++, change = KvsFeedNext(change))
	{
		if (!concerns(follow, change))
			continue;
		follow->found = true;
		follow->left--;
		if (follow->rsinfo != NULL)
			give_row(follow, change->position, names[change->operation], change);
	}
}

/* Read on to the end of the feed, or until there are enough. */
static void
read_feed(Follow *follow)
{
	KvsFeedReader *reader = follow->reader;
	KvsFeedStep step = KVS_FEED_MORE;

	reader->relid = follow->relid;
	reader->prefix = KvsKeyBytes(&follow->range.low);
	reader->prefix_size = prefix_size(follow);
	while (step == KVS_FEED_MORE && follow->left > 0)
	{
		CHECK_FOR_INTERRUPTS();
		reader->max_count = (int) Min(follow->left, INT_MAX);
		step = kvs_feed_read(reader);
		if (step == KVS_FEED_OVERRUN || step == KVS_FEED_TOO_LARGE)
			kvs_stats_add(kvs_stats_local(follow->relid), KVS_COUNT_OVERRUNS, 1);
		if (step == KVS_FEED_OVERRUN)
			kvs_feedposition_lost("The changes after it are no longer in the feed.");
		if (step == KVS_FEED_TOO_LARGE)
			kvs_feedposition_lost("A transaction changed more than the feed can hold, or the store is new, or rows of it were restored.");
		if (step == KVS_FEED_NO_POSITION)
			kvs_feedposition_invalid();
		give_changes(follow);
	}
}

/* ---- Waiting ---- */

static bool
look(KvsWait *wait)
{
	Follow	   *follow = (Follow *) wait;

	PushActiveSnapshot(GetTransactionSnapshot());
	open_store(follow);
	PopActiveSnapshot();
	read_feed(follow);
	return follow->found;
}

static int
aim(KvsWait *wait, KvsWaitTarget *targets)
{
	Follow	   *follow = (Follow *) wait;

	targets[0].kind = KVS_WAIT_PREFIX;
	targets[0].relid = wait->relid;
	targets[0].prefix_size = Min(prefix_size(follow), KVS_WAIT_PREFIX_SIZE);
	memcpy(targets[0].prefix, KvsKeyBytes(&follow->range.low), targets[0].prefix_size);
	return 1;
}

/* (after, prefix, wait, ..., store) */
static Follow *
begin_follow(FunctionCallInfo fcinfo, KvsForm form, const char *function, int store_arg)
{
	Follow	   *follow = palloc0(sizeof(Follow));

	check_feed(function);
	check_isolation(function);
	if (PG_ARGISNULL(0))
		kvs_args_report_null("after");
	follow->reader = palloc0(sizeof(KvsFeedReader));
	follow->reader->position = kvs_feedposition_from_text(PG_GETARG_TEXT_PP(0), &follow->relid);
	follow->function = function;
	follow->form = form;
	follow->store_name = kvs_args_text(fcinfo, store_arg);
	follow->left = PG_INT64_MAX;
	kvs_list_prefix_arg(fcinfo, 1, form, &follow->range);
	follow->wait.look = look;
	follow->wait.aim = aim;
	return follow;
}

/* ---- SQL ---- */

/* kv_feed_position() returns text: the position behind all changes that are committed by now */
PG_FUNCTION_INFO_V1(kvstore_feed_position);
Datum
kvstore_feed_position(PG_FUNCTION_ARGS)
{
	check_feed("kv_feed_position()");
	check_isolation("kv_feed_position()");
	PG_RETURN_TEXT_P(kvs_feedposition_to_text(kvs_feed_end(), InvalidOid));
}

/* (after, prefix, wait, max_count, store) */
static Datum
changes(FunctionCallInfo fcinfo, KvsForm form)
{
	Follow	   *follow = begin_follow(fcinfo, form, "kv_changes()", 4);

	follow->left = PG_ARGISNULL(3) ? 1000 : PG_GETARG_INT64(3);
	if (follow->left < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must be at least 1")));
	follow->wait.deadline = kvs_wait_deadline(fcinfo, 2, 0);
	InitMaterializedSRF(fcinfo, 0);
	follow->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	follow->scratch = AllocSetContextCreate(CurrentMemoryContext, "kvstore change", ALLOCSET_SMALL_SIZES);
	kvs_wait_for(&follow->wait);
	if (follow->left > 0)
		give_row(follow, follow->reader->position, "progress", NULL);
	return (Datum) 0;
}

/* (after, prefix, wait, store) */
static Datum
wait_changes(FunctionCallInfo fcinfo, KvsForm form)
{
	Follow	   *follow;

	kvs_wait_check_context(fcinfo, "kv_wait_changes()", "kv_changes()");
	follow = begin_follow(fcinfo, form, "kv_wait_changes()", 3);
	follow->left = 1;
	follow->wait.deadline = kvs_wait_deadline(fcinfo, 2, 30);
	kvs_wait_in_procedure(&follow->wait);
	PG_RETURN_NULL();
}

KVS_FUNCTION_OF_KEY(changes);
KVS_FUNCTION_OF_KEY(wait_changes);
