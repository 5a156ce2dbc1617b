/*
 * tableddl.c
 *		What creating, altering and dropping have in common for stores, queues and snapshot stores.
 *
 * Pods that migrate at once must all succeed, so creating takes a lock on the name first: the
 * second finds what the first has made.  Plain SQL does not take that lock.  So if CREATE fails
 * because a table has come in between, that table is looked at.
 *
 * Whoever may create tables in the schema can make one before the application does, and read what
 * the application then writes there.  So what exists is accepted from few roles only.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/identity.h"
#include "base/subxact.h"
#include "table/catalog.h"
#include "table/registry.h"
#include "table/shape.h"
#include "table/tableddl.h"

int
kvs_tableddl_interval_sign(Interval *interval)
{
	Interval	zero = {0};

	return DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(interval), IntervalPGetDatum(&zero)));
}

void
kvs_tableddl_run_utility(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
}

static void
check_own(Oid relid, const char *prefix, const char *name)
{
	if (!kvs_compat_owns_table(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, psprintf("%s%s", prefix, name));
}

Oid
kvs_tableddl_find_own_table(const char *prefix, const char *name)
{
	Oid			relid = kvs_catalog_find_table(prefix, name);

	if (OidIsValid(relid))
		check_own(relid, prefix, name);
	return relid;
}

Oid
kvs_tableddl_lock_own_table(const char *prefix, const char *name, LOCKMODE lockmode)
{
	Relation	rel;
	Oid			relid;

	/* Look before the lock too: a role that does not own it must not hold it up. */
	if (!OidIsValid(kvs_tableddl_find_own_table(prefix, name)))
		return InvalidOid;
	rel = kvs_catalog_lock_table(prefix, name, lockmode);
	if (rel == NULL)
		return InvalidOid;
	relid = RelationGetRelid(rel);
	relation_close(rel, NoLock);
	check_own(relid, prefix, name);
	return relid;
}

void
kvs_tableddl_lock_name(const char *name)
{
	/* a part of the schema, by the name's hash; 0 is the schema itself */
	uint16		part = hash_bytes((const unsigned char *) name, strlen(name)) | 1;

	LockDatabaseObject(NamespaceRelationId, kvs_catalog_get()->data_schema, part, ShareUpdateExclusiveLock);
}

void
kvs_tableddl_create_guard(const char *prefix, const char *name)
{
	char	   *table = psprintf("kvstore.%s%s", prefix, name);

	kvs_tableddl_run_utility(psprintf("CREATE TRIGGER " KVS_GUARD_TRIGGER " BEFORE INSERT OR UPDATE OR DELETE ON %s "
								 "FOR EACH ROW EXECUTE FUNCTION kvstore.guard()", table));
	kvs_tableddl_run_utility(psprintf("CREATE TRIGGER " KVS_GUARD_TRUNCATE " BEFORE TRUNCATE ON %s "
								 "FOR EACH STATEMENT EXECUTE FUNCTION kvstore.guard()", table));
	kvs_tableddl_run_utility(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER " KVS_GUARD_TRIGGER ", "
								 "ENABLE ALWAYS TRIGGER " KVS_GUARD_TRUNCATE, table));
}

/* ---- What exists ---- */

/* May the caller rely on what this role owns? */
static bool
is_trusted(Oid owner)
{
	return is_member_of_role_nosuper(GetUserId(), owner) ||
		kvs_compat_owns_database(MyDatabaseId, owner) ||
		kvs_compat_owns_schema(kvs_catalog_get()->data_schema, owner) ||
		kvs_compat_owns_extension(kvs_catalog_get()->extension, owner);
}

/*
 * Raise 42P07 if it belongs to somebody else; the message calls it "what".  A superuser is a member
 * of every role, and is told later.
 */
static void
check_owner(Oid relid, const char *what)
{
	Oid			owner = kvs_shape_owner(relid);

	if (OidIsValid(owner) && !is_trusted(owner) && !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("%s already exists and belongs to role \"%s\"", what, GetUserNameFromId(owner, true)),
				 errhint("Choose another name, or have it dropped or given to a role that you are a member of.")));
}

/* Lock what has this name, see whose it is and that it is what it should be; false: it is gone. */
static bool
check_existing(const char *prefix, const char *name, const char *what, void (*check) (Relation rel))
{
	Relation	rel = kvs_catalog_lock_table(prefix, name, AccessShareLock);

	if (rel == NULL)
		return false;
	/* while we waited for the lock it may have become another's */
	check_owner(RelationGetRelid(rel), what);
	check(rel);
	relation_close(rel, NoLock);
	return true;
}

static void
check_companion(const KvsCreation *creation, bool table_exists)
{
	const KvsCompanion *companion = creation->companion;
	Oid			relid = kvs_catalog_find_table(companion->prefix, creation->name);
	char	   *what;

	if (!OidIsValid(relid))
		return;
	what = psprintf("%s \"kvstore.%s%s\"", companion->noun, companion->prefix, creation->name);
	check_owner(relid, what);
	if (!table_exists)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("%s already exists", what),
				 errdetail("It is where the %s of the %s would go.", companion->purpose, creation->registry->noun),
				 errhint("Rename it or drop it.")));
	(void) check_existing(companion->prefix, creation->name, what, companion->check);
}

/* Is there one already?  Raises what kvs_tableddl_create() does. */
static bool
find_existing(const KvsCreation *creation)
{
	const KvsRegistry *registry = creation->registry;
	Oid			relid = kvs_catalog_find_table(registry->prefix, creation->name);
	char	   *what = psprintf("%s \"%s\"", registry->noun, creation->name);
	bool		exists = OidIsValid(relid);

	if (exists)
	{
		check_owner(relid, what);
		if (!creation->if_not_exists)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_TABLE),
					 errmsg("%s already exists", what),
					 errhint("Call %s() with if_not_exists => true to accept that.",
							 kvs_shape_function("kv_create_", registry->noun))));
		exists = check_existing(registry->prefix, creation->name, what, creation->check);
	}
	if (creation->companion != NULL)
		check_companion(creation, exists);
	return exists;
}

/* ---- Create ---- */

text *
kvs_tableddl_table_name(const KvsRegistry *registry, const char *name)
{
	return cstring_to_text(psprintf("kvstore.%s%s", registry->prefix, name));
}

static bool
lacks_companion(const KvsCreation *creation)
{
	return creation->companion != NULL &&
		!OidIsValid(kvs_catalog_find_table(creation->companion->prefix, creation->name));
}

static bool
lacks_settings(const KvsCreation *creation)
{
	return !kvs_registry_read(creation->registry, creation->name, NULL, NULL);
}

/* Errors that are no sign that another session has made something of the name meanwhile. */
static bool
is_no_race(int sqlerrcode)
{
	return sqlerrcode != ERRCODE_UNIQUE_VIOLATION && sqlerrcode != ERRCODE_DUPLICATE_TABLE &&
		sqlerrcode != ERRCODE_DUPLICATE_OBJECT;
}

/* The table's owner is to drop both, so the companion is theirs too, whoever brings it back. */
static void
create_companion(void *arg)
{
	const KvsCreation *creation = arg;
	Oid			relid = kvs_catalog_find_table(creation->registry->prefix, creation->name);
	KvsIdentity saved;

	SPI_connect();
	kvs_identity_become(kvs_shape_owner(relid), &saved);
	creation->companion->create(creation->name, get_rel_persistence(relid) == RELPERSISTENCE_UNLOGGED);
	kvs_identity_restore(&saved);
	SPI_finish();
}

/* What was asked for and is otherwise stays: pods of the version before may be at work with it. */
static void
tell_differences(const KvsCreation *creation, Oid relid)
{
	const KvsRegistry *registry = creation->registry;
	char	   *settings = kvs_settings_differing(registry, creation->name, creation->settings, creation->nsettings);
	bool		logged = creation->unlogged && get_rel_persistence(relid) == RELPERSISTENCE_PERMANENT;

	if (settings != NULL)
		ereport(NOTICE,
				(errmsg("%s \"%s\" already exists and keeps its settings: %s", registry->noun, creation->name, settings),
				 errhint("Use %s() to change them.", kvs_shape_function("kv_alter_", registry->noun))));
	if (logged)
		ereport(NOTICE,
				(errmsg("%s \"%s\" already exists and is not unlogged", registry->noun, creation->name),
				 errhint("Its owner can use ALTER TABLE kvstore.%s%s SET UNLOGGED, which locks and rewrites it.",
						 registry->prefix, creation->name)));
}

/* Make good what the caller's table lacks: pg_dump -t brings the table alone. */
static void
complete(const KvsCreation *creation)
{
	Oid			relid = kvs_catalog_find_table(creation->registry->prefix, creation->name);
	Oid			owner = kvs_shape_owner(relid);

	if (!is_trusted(owner))
		ereport(NOTICE,
				(errmsg("%s \"%s\" belongs to role \"%s\"", creation->registry->noun, creation->name,
						GetUserNameFromId(owner, true))));
	tell_differences(creation, relid);
	if (!(lacks_companion(creation) || lacks_settings(creation)) || !kvs_compat_owns_table(relid, GetUserId()))
		return;
	/* others may be doing the same */
	kvs_tableddl_lock_name(creation->name);
	if (lacks_companion(creation) &&
		kvs_compat_schema_aclcheck(kvs_catalog_get()->data_schema, owner, ACL_CREATE) == ACLCHECK_OK &&
		kvs_subxact_try(create_companion, unconstify(KvsCreation *, creation), is_no_race) != NULL)
	{
		AcceptInvalidationMessages();
		check_companion(creation, true);
	}
	if (lacks_settings(creation))
	{
		kvs_settings_write(creation->registry, creation->name, creation->settings, creation->nsettings);
		kvs_registry_changed(relid);
	}
}

static void
create_relations(void *arg)
{
	const KvsCreation *creation = arg;

	SPI_connect();
	creation->create(creation->name, creation->unlogged);
	if (creation->companion != NULL)
		creation->companion->create(creation->name, creation->unlogged);
	SPI_finish();
}

/* Returns false if somebody has made it meanwhile, by plain SQL. */
static bool
create_new(const KvsCreation *creation)
{
	ErrorData  *error = kvs_subxact_try(create_relations, unconstify(KvsCreation *, creation), is_no_race);

	if (error != NULL)
	{
		AcceptInvalidationMessages();
		if (find_existing(creation))
			return false;
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("%s \"%s\" could not be created", creation->registry->noun, creation->name),
				 errdetail("Something else in the schema kvstore has the name of its table or of a part of it."),
				 errhint("Choose another name, or rename what is in its way.")));
	}
	/*
	 * A table of this name that was dropped by plain SQL leaves its settings behind: they are not
	 * the new one's.
	 */
	kvs_registry_delete(creation->registry, creation->name);
	kvs_settings_write(creation->registry, creation->name, creation->settings, creation->nsettings);
	return true;
}

bool
kvs_tableddl_create(const KvsCreation *creation)
{
	bool		created = false;

	/* Look before the lock too: roles that may not create must not hold up those that may. */
	if (!find_existing(creation))
	{
		AclResult	result = kvs_compat_schema_aclcheck(kvs_catalog_get()->data_schema, GetUserId(), ACL_CREATE);

		if (result != ACLCHECK_OK)
			aclcheck_error(result, OBJECT_SCHEMA, "kvstore");
		kvs_tableddl_lock_name(creation->name);
		created = !find_existing(creation) && create_new(creation);
	}
	if (!created)
		complete(creation);
	return created;
}
