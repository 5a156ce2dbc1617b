/* base64.h: base64 with padding, strictly. */
#ifndef KVS_BASE64_H
#define KVS_BASE64_H

#include "postgres.h"

/* The bytes, palloc'd; NULL if this is not base64 with padding. */
extern bytea *kvs_base64_decode(const char *str, int len);

/* One line, palloc'd. */
extern char *kvs_base64_encode(const char *bytes, int len);

#endif							/* KVS_BASE64_H */
