/*
 * page.h
 *		Listing rows by id, page by page: what kv_peek and kv_dead_letters have in common.
 */
#ifndef KVS_PAGE_H
#define KVS_PAGE_H

#include "postgres.h"

#include "fmgr.h"
#include "nodes/params.h"

/* The end of such a statement; $1 and $2 are the first and the last id, $3 how many, all int8. */
#define KVS_PAGE \
	"WHERE id OPERATOR(pg_catalog.>=) $1 AND id OPERATOR(pg_catalog.<=) $2 ORDER BY id LIMIT $3"

/*
 * Set these three from the arguments max_count, after and id, from "first" on; 22023 for a negative
 * max_count.
 */
extern void kvs_page_set_params(ParamListInfo params, FunctionCallInfo fcinfo, int first);

#endif							/* KVS_PAGE_H */
