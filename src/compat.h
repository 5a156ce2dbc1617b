/*
 * compat.h
 *		What differs between PostgreSQL 15 and 18, and nothing else.
 *
 * No other file mentions PG_VERSION_NUM.
 */
#ifndef KVS_COMPAT_H
#define KVS_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "kvstore needs PostgreSQL 15 or newer"
#endif

/* 18 made the binary side of common/base64.h unsigned */
#if PG_VERSION_NUM >= 180000
typedef uint8 KvsCompatBase64Byte;
#else
typedef char KvsCompatBase64Byte;
#endif

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#endif							/* KVS_COMPAT_H */
