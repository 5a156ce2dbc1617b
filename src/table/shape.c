/*
 * shape.c
 *		What a table must look like before anything of it is read.
 *
 * Stores, queues and snapshot stores are found by name, and anybody with CREATE on the schema can
 * put another table there.  Here is what their checks have in common.  storecatalog.c,
 * queuecatalog.c and snapshot.c know the columns and indexes.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "table/shape.h"

char *
kvs_shape_function(const char *verb, const char *noun)
{
	char	   *result = psprintf("%s%s", verb, noun);

	for (char *c = result; *c != '\0'; c++)
		if (*c == ' ')
			*c = '_';
	return result;
}

Oid
kvs_shape_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

void
kvs_shape_report(Relation rel, const char *noun, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("table \"%s\" does not have the shape of a %s",
					quote_qualified_identifier("kvstore", RelationGetRelationName(rel)), noun),
			 errdetail_internal("%s", detail),
			 errhint("Undo the change to the table, or move it out of the schema kvstore and call %s().",
					 kvs_shape_function("kv_create_", noun))));
}

void
kvs_shape_check_owner(Oid relid, const char *part, const char *noun, const char *name, Oid owner)
{
	Oid			other = kvs_shape_owner(relid);
	char	   *owner_name;

	if (likely(other == owner) || !OidIsValid(other))
		return;
	owner_name = GetUserNameFromId(owner, false);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("%s \"%s\" belongs to role \"%s\", its %s to role \"%s\"", noun, name, owner_name, part,
					GetUserNameFromId(other, false)),
			 errhint("Run ALTER TABLE kvstore.%s OWNER TO %s, or move that out of the schema kvstore.",
					 get_rel_name(relid), quote_identifier(owner_name))));
}

const char *
kvs_shape_find_wrong_table(Relation rel)
{
	Form_pg_class form = rel->rd_rel;

	if (form->relkind != RELKIND_RELATION || form->relispartition)
		return "It must be an ordinary table.";
	if (form->relam != HEAP_TABLE_AM_OID)
		return "Its access method must be heap.";
	/*
	 * relhassubclass and relhasrules stay when the last one is dropped, until the next ANALYZE or
	 * VACUUM
	 */
	if ((form->relhassubclass && find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL) ||
		rel->rd_rules != NULL)
		return "It must have no child tables and no rules.";
	return NULL;
}

const char *
kvs_shape_find_wrong_column(Relation rel, const KvsColumn *columns, int ncolumns, Oid kvkey_type)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < ncolumns; i++)
	{
		Oid			type = OidIsValid(columns[i].type) ? columns[i].type : kvkey_type;
		Form_pg_attribute att = i < desc->natts ? TupleDescAttr(desc, i) : NULL;

		if (att == NULL || att->attisdropped || strcmp(NameStr(att->attname), columns[i].name) != 0 ||
			att->atttypid != type || (columns[i].not_null && !kvs_compat_is_not_null(desc, i)) || att->attgenerated != '\0')
			return psprintf("Column %d must be \"%s\" of type %s%s.", i + 1, columns[i].name,
							format_type_be(type), columns[i].not_null ? ", NOT NULL" : "");
	}
	return NULL;
}

bool
kvs_shape_is_usable_index(Relation index)
{
	Form_pg_index form = index->rd_index;

	return index->rd_rel->relam == BTREE_AM_OID && form->indisvalid && form->indislive && form->indisready &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL);
}

bool
kvs_shape_is_unique_index(Relation index)
{
	return index->rd_index->indisunique && index->rd_index->indimmediate && kvs_shape_is_usable_index(index);
}

Oid
kvs_shape_find_index(Relation rel, KvsIsIndex is_it, const void *arg)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	Oid			result = InvalidOid;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (is_it(index, arg))
			result = lfirst_oid(lc);
		index_close(index, AccessShareLock);
		if (OidIsValid(result))
			break;
	}
	list_free(indexes);
	return result;
}

bool
kvs_shape_has_trigger(Relation rel, int16 events)
{
	TriggerDesc *desc = rel->trigdesc;

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
		if ((desc->triggers[i].tgtype & events) != 0 && !kvs_shape_is_guard(desc->triggers[i].tgname))
			return true;
	return false;
}

bool
kvs_shape_has_row_security(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		result = HeapTupleIsValid(tuple) && ((Form_pg_class) GETSTRUCT(tuple))->relrowsecurity;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

int
kvs_shape_index_columns(Oid indexid)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
	int			result;

	if (!HeapTupleIsValid(tuple))
		return 0;
	result = ((Form_pg_index) GETSTRUCT(tuple))->indnatts;
	ReleaseSysCache(tuple);
	return result;
}

bool
kvs_shape_is_plain(Relation rel, const KvsColumn *columns, int ncolumns, int nindexes)
{
	TupleDesc	desc = RelationGetDescr(rel);
	List	   *indexes = RelationGetIndexList(rel);
	bool		plain = list_length(indexes) == nindexes && desc->natts == ncolumns && !rel->rd_rel->relrowsecurity;

	list_free(indexes);
	for (int i = 0; plain && i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		plain = att->attnotnull == columns[i].not_null && att->atttypmod == -1 && att->attidentity != ATTRIBUTE_IDENTITY_ALWAYS;
	}
	if (desc->constr != NULL && (desc->constr->num_check > 0 || desc->constr->has_generated_stored))
		plain = false;
	return plain && !kvs_shape_has_trigger(rel, TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE);
}
