/*
 * rights.c
 *		What a role may be shown of a table that others use.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"

#include "base/rights.h"

bool
kvs_rights_has(Oid relid, AclMode right)
{
	bool		is_missing = false;

	return pg_class_aclcheck_ext(relid, GetUserId(), right, &is_missing) == ACLCHECK_OK && !is_missing;
}

bool
kvs_rights_may_see(Oid relid)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) || kvs_rights_has(relid, ACL_SELECT);
}

/* kvstore.may_see(relid) returns boolean */
PG_FUNCTION_INFO_V1(kvstore_may_see);
Datum
kvstore_may_see(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!PG_ARGISNULL(0) && kvs_rights_may_see(PG_GETARG_OID(0)));
}
