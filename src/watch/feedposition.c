/*
 * feedposition.c
 *		Positions in the feed, as text that clients keep.
 *
 * A position is valid only in the run of the server that gave it, in its database.  A checksum
 * tells damage from age.  Whoever forges one can only read from another position what they may read
 * anyway.  The feed notices an invalid position.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/errors.h"
#include "feed/feed.h"
#include "watch/feedposition.h"

#define FORMAT		"1%016llx%08x%016llx%08x"
#define BODY_SIZE	(1 + 16 + 8 + 16 + 8)
#define SIZE		(BODY_SIZE + 8)

static uint32
checksum(const char *body)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, body, BODY_SIZE);
	FIN_CRC32C(crc);
	return crc;
}

text *
kvs_feedposition_to_text(uint64 position, Oid relid)
{
	char		result[SIZE + 1];

	snprintf(result, sizeof(result), FORMAT, (unsigned long long) kvs_feed_epoch(), MyDatabaseId,
			 (unsigned long long) position, relid);
	snprintf(result + BODY_SIZE, 9, "%08x", checksum(result));
	return cstring_to_text_with_len(result, SIZE);
}

void
kvs_feedposition_invalid(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid feed position"),
			 errhint("Give what kv_feed_position() or the last row of kv_changes() gave.")));
}

void
kvs_feedposition_lost(const char *why)
{
	ereport(ERROR,
			(errcode(KVS_ERRCODE_POSITION_LOST),
			 errmsg("feed position is lost"),
			 errdetail_internal("%s", why),
			 errhint("Take a new position with kv_feed_position(), list again what you follow, and go on from there.")));
}

uint64
kvs_feedposition_from_text(const text *position, Oid *relid)
{
	const char *str = VARDATA_ANY(position);
	char		body[SIZE + 1];
	unsigned long long epoch;
	unsigned long long place;
	unsigned int database;
	unsigned int followed;
	char		canonical[9];

	if (VARSIZE_ANY_EXHDR(position) != SIZE)
		kvs_feedposition_invalid();
	memcpy(body, str, SIZE);
	body[SIZE] = '\0';
	snprintf(canonical, sizeof(canonical), "%08x", checksum(body));
	if (memcmp(canonical, body + BODY_SIZE, 8) != 0 || strspn(body, "0123456789abcdef") != SIZE ||
		/* no number is too large: each has its width.  NOLINTNEXTLINE(cert-err34-c) */
		sscanf(body, "1%16llx%8x%16llx%8x", &epoch, &database, &place, &followed) != 4)
		kvs_feedposition_invalid();
	if (database != MyDatabaseId)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("feed position is of another database"),
				 errhint("Give what kv_feed_position() or the last row of kv_changes() gave in this database.")));
	if (epoch != kvs_feed_epoch())
		kvs_feedposition_lost("The server has started since, or it is another server.");
	*relid = followed;
	return place;
}
