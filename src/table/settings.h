/*
 * settings.h
 *		Settings as kv_create_*() and kv_alter_*() get them, and the registry's row of them.
 */
#ifndef KVS_SETTINGS_H
#define KVS_SETTINGS_H

#include "postgres.h"

#include "table/registry.h"

typedef struct KvsSetting
{
	const char *column;			/* of the registry */
	Oid			type;
	/* it replaces what is there; what is not given is written into a new row only */
	bool		given;
	bool		wished;			/* given, and not what the function's argument is by default */
	bool		isnull;			/* the setting's default */
	Datum		value;
} KvsSetting;

/* Give it a value; "isnull": that is the default. */
extern void kvs_settings_give(KvsSetting *setting, Datum value, bool isnull);

/* Write the row of a name, new or there. */
extern void kvs_settings_write(const KvsRegistry *registry, const char *name, const KvsSetting *settings, int count);

/*
 * The settings that differ from the wished ones, as in "lease is 00:01:00, keep_dead is the
 * default"; NULL: none.
 */
extern char *kvs_settings_differing(const KvsRegistry *registry, const char *name, const KvsSetting *settings, int count);

#endif							/* KVS_SETTINGS_H */
