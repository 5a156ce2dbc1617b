/*
 * array.h
 *		Array arguments: lists, which have one dimension.
 */
#ifndef KVS_ARRAY_H
#define KVS_ARRAY_H

#include "postgres.h"

#include "utils/array.h"

/* 2202E, with the name of the argument, if an array has more than one dimension. */
extern void kvs_array_check_dimensions(const ArrayType *array, const char *name);

/* The elements of an array that has one dimension, or none; else 2202E.  Returns how many. */
extern int	kvs_array_read(ArrayType *array, const char *name, Datum **values, bool **nulls);

#endif							/* KVS_ARRAY_H */
