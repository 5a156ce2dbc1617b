/*
 * xact.c
 *		The end of transactions and subtransactions: one callback, which calls in the order of the
 *		ranks.
 */
#include "postgres.h"

#include "base/xact.h"

static KvsAtXact xact_parts[KVS_XACT_RANKS];
static KvsAtSubXact subxact_parts[KVS_XACT_RANKS];

static void
xact_callback(XactEvent event, void *arg)
{
	for (int rank = 0; rank < KVS_XACT_RANKS; rank++)
		if (xact_parts[rank] != NULL)
			xact_parts[rank] (event);
}

static void
subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	for (int rank = 0; rank < KVS_XACT_RANKS; rank++)
		if (subxact_parts[rank] != NULL)
			subxact_parts[rank] (event, subid, parent);
}

void
kvs_xact_add(KvsXactRank rank, KvsAtXact at_xact, KvsAtSubXact at_subxact)
{
	Assert(xact_parts[rank] == NULL);
	xact_parts[rank] = at_xact;
	subxact_parts[rank] = at_subxact;
}

void
kvs_xact_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
