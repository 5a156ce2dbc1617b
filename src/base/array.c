/*
 * array.c
 *		Array arguments: lists, which have one dimension.
 *
 * Drivers turn a list of lists into an array of two dimensions.  PostgreSQL's own functions read
 * that as one long list: two messages would become four, without an error.  So each function that
 * takes an array reads it here.
 */
#include "postgres.h"

#include "utils/lsyscache.h"

#include "base/array.h"

void
kvs_array_check_dimensions(const ArrayType *array, const char *name)
{
	if (unlikely(ARR_NDIM(array) > 1))
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be an array of one dimension", name),
				 errdetail("It has %d; a driver makes that of a list of lists.", ARR_NDIM(array)),
				 errhint("Give each element as text, a list in it as JSON.")));
}

int
kvs_array_read(ArrayType *array, const char *name, Datum **values, bool **nulls)
{
	int16		length;
	bool		by_value;
	char		alignment;
	int			count;

	kvs_array_check_dimensions(array, name);
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &length, &by_value, &alignment);
	deconstruct_array(array, ARR_ELEMTYPE(array), length, by_value, alignment, values, nulls, &count);
	return count;
}
