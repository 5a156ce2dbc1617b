/*
 * sequence.c
 *		Where a sequence is, and how to move it forward, whoever owns it.
 *
 * To raise a sequence is to read it, then to set it, without a lock against nextval().  So whoever
 * raises one goes further than needed: no number that is given meanwhile can be given again.  A
 * heavyweight lock on the sequence keeps two sessions from raising it at once.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "base/identity.h"
#include "table/sequence.h"
#include "table/shape.h"

/* Straight from the sequence's page. */
int64
kvs_sequence_last(Oid sequence)
{
	Relation	rel = relation_open(sequence, AccessShareLock);
	Buffer		buffer = ReadBuffer(rel, 0);
	HeapTupleData tuple;
	Form_pg_sequence_data data;
	Page		page;
	ItemId		item;
	int64		result;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	item = PageGetItemId(page, FirstOffsetNumber);
	tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
	data = (Form_pg_sequence_data) GETSTRUCT(&tuple);
	result = data->is_called ? data->last_value : data->last_value - 1;
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return result;
}

/* Further than the type allows is as far as it allows. */
static void
set_sequence(Oid sequence, int64 number, int64 jump)
{
	KvsIdentity saved;

	kvs_identity_become(kvs_shape_owner(sequence), &saved);
	DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence),
						Int64GetDatum(Min(number, PG_INT64_MAX - jump) + jump));
	kvs_identity_restore(&saved);
}

void
kvs_sequence_jump(Oid sequence, int64 jump)
{
	set_sequence(sequence, kvs_sequence_last(sequence), jump);
}

void
kvs_sequence_raise(Oid sequence, int64 number, int64 jump)
{
	/* Numbers only grow, so a look without the lock may settle it. */
	if (kvs_sequence_last(sequence) >= number)
		return;
	LockRelationOid(sequence, ShareUpdateExclusiveLock);
	if (kvs_sequence_last(sequence) < number)
		set_sequence(sequence, number, jump);
	UnlockRelationOid(sequence, ShareUpdateExclusiveLock);
}
