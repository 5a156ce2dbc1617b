/* identity.c: acting as the owner of a table. */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"

#include "base/compat.h"
#include "base/identity.h"

void
kvs_identity_become(Oid owner, KvsIdentity *saved)
{
	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(owner, saved->context | SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
	saved->guc_level = NewGUCNestLevel();
	kvs_compat_restrict_search_path();
}

void
kvs_identity_restore(const KvsIdentity *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->user, saved->context);
}
