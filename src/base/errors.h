/*
 * errors.h
 *		SQLSTATEs of our own, so that no client has to match the text of a message.
 *
 * Everything else uses PostgreSQL's standard codes.  doc/reference.md lists those on which a client
 * retries.
 */
#ifndef KVS_ERRORS_H
#define KVS_ERRORS_H

#include "postgres.h"

#define KVS_ERRCODE_CHECK_FAILED	MAKE_SQLSTATE('K', 'V', '0', '0', '1')
#define KVS_ERRCODE_TOO_LARGE		MAKE_SQLSTATE('K', 'V', '0', '0', '2')
#define KVS_ERRCODE_POSITION_LOST	MAKE_SQLSTATE('K', 'V', '0', '0', '3')
#define KVS_ERRCODE_TOO_MANY_LEASES MAKE_SQLSTATE('K', 'V', '0', '0', '4')
#define KVS_ERRCODE_WRONG_KIND		MAKE_SQLSTATE('K', 'V', '0', '0', '5')

#endif							/* KVS_ERRORS_H */
