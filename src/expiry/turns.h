/*
 * turns.h
 *		Whose turn it is in the worker of a database.
 */
#ifndef KVS_TURNS_H
#define KVS_TURNS_H

#include "postgres.h"

#include "utils/timestamp.h"

/* The least comes first: by rank, then by the time that the owner has had, then by "served". */
typedef struct KvsTurn
{
	int			rank;
	double		used;
	uint64		served;
} KvsTurn;

extern bool kvs_turns_precedes(const KvsTurn *a, const KvsTurn *b);

/* Ranks: tables that run no code of their owner's, those that do, and those in trouble. */
#define KVS_RANK_PLAIN		0
#define KVS_RANK_FOREIGN	1
#define KVS_RANK_TROUBLED	2

/* The turn of a table; an owner that is not known yet, InvalidOid, has had no time. */
extern KvsTurn kvs_turns_get(Oid owner, int rank, uint64 served, TimestampTz now);

/* A step over a table of this owner has taken from "start" until now. */
extern void kvs_turns_charge(Oid owner, TimestampTz start);

/* A number that is higher each time, from 1: for "served". */
extern uint64 kvs_turns_next(void);

#endif							/* KVS_TURNS_H */
