/*
 * statefile.c
 *		A file with what shared memory held, from a clean stop to the next start.
 *
 * The postmaster writes it at the end of a clean stop.  No other process is left then, so nothing
 * is locked.  It writes under a temporary name, and renames with fsync.  At the start it reads and
 * removes the file before anything else starts.  So there is a file only while the server is down,
 * and no crash can bring an old one back.
 *
 * The file belongs to one stop of one cluster.  It has the system identifier and the position of
 * the shutdown checkpoint, and counts only if pg_control says the same at the next start.  A data
 * folder that was copied cold and has run in the meantime, or was restored, has another checkpoint.
 * Whatever is wrong with a file becomes a LOG line, and the server starts without it.
 *
 * Format: a header, then for each section its name, its size and its bytes, then a CRC over all of
 * that.  Sections are independent: one whose name is no longer known is skipped.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "base/statefile.h"

#define STATE_FILE		"pg_stat/kvstore.state"
#define STATE_FILE_TEMP	STATE_FILE ".tmp"
#define STATE_MAGIC		0x4b565331	/* KVS1 */
#define STATE_MAX_SIZE	((off_t) 512 * 1024 * 1024)

typedef struct Section
{
	const char *name;
	void		(*write) (StringInfo out);
	void		(*read) (StringInfo in);
} Section;

static Section sections[KVS_STATEFILE_SECTIONS];
static int	section_count = 0;

void
kvs_statefile_add(const char *name, void (*write) (StringInfo out), void (*read) (StringInfo in))
{
	/* The postmaster starts shared memory anew after a crash. */
	for (int i = 0; i < section_count; i++)
		if (strcmp(sections[i].name, name) == 0)
			return;
	if (section_count == KVS_STATEFILE_SECTIONS)
		elog(ERROR, "too many sections in the state file");
	sections[section_count++] = (Section) {name, write, read};
}

/* ---- Which stop it is ---- */

/* Write what identifies the last stop; false: it was not a clean one. */
static bool
put_identity(StringInfo out)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		clean = crc_ok && (control->state == DB_SHUTDOWNED || control->state == DB_SHUTDOWNED_IN_RECOVERY);

	pq_sendint32(out, STATE_MAGIC);
	pq_sendint64(out, control->system_identifier);
	pq_sendint64(out, control->checkPoint);
	pq_sendint64(out, control->minRecoveryPoint);
	pfree(control);
	return clean;
}

static uint32
get_crc(const char *data, Size size)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, data, size);
	FIN_CRC32C(crc);
	return crc;
}

/* ---- Write ---- */

static void
collect(StringInfo out)
{
	for (int i = 0; i < section_count; i++)
	{
		StringInfoData body;

		initStringInfo(&body);
		sections[i].write(&body);
		pq_sendstring(out, sections[i].name);
		pq_sendint32(out, body.len);
		appendBinaryStringInfo(out, body.data, body.len);
		pfree(body.data);
	}
	pq_sendint32(out, get_crc(out->data, out->len));
}

/* False: errno says why. */
static bool
write_file(const char *data, Size size)
{
	FILE	   *file = AllocateFile(STATE_FILE_TEMP, PG_BINARY_W);

	if (file == NULL)
		return false;
	if (fwrite(data, 1, size, file) != size)
	{
		int			saved = errno;

		FreeFile(file);
		errno = saved;
		return false;
	}
	return FreeFile(file) == 0;
}

static void
write_state(int code, Datum arg)
{
	MemoryContext context;
	MemoryContext old;
	StringInfoData out;

	/* A crash, or a server that never came up. */
	if (code != 0)
		return;
	context = AllocSetContextCreate(TopMemoryContext, "kvstore state file", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	initStringInfo(&out);
	if (put_identity(&out))
	{
		collect(&out);
		if (!write_file(out.data, out.len))
		{
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("kvstore: could not write file \"%s\": %m", STATE_FILE_TEMP)));
			unlink(STATE_FILE_TEMP);
		}
		else
			(void) durable_rename(STATE_FILE_TEMP, STATE_FILE, LOG);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* ---- Read ---- */

/* NULL: *problem says why, or is NULL when there is no file. */
static char *
read_file(int *size, const char **problem)
{
	FILE	   *file = AllocateFile(STATE_FILE, PG_BINARY_R);
	struct stat st;
	char	   *data;

	*problem = NULL;
	if (file == NULL)
	{
		if (errno != ENOENT)
			*problem = "it cannot be opened";
		return NULL;
	}
	if (fstat(fileno(file), &st) != 0 || st.st_size > STATE_MAX_SIZE)
	{
		*problem = "its size is wrong";
		FreeFile(file);
		return NULL;
	}
	*size = st.st_size;
	data = palloc(*size + 1);
	if (fread(data, 1, *size, file) != (size_t) *size)
		*problem = "it cannot be read";
	FreeFile(file);
	return *problem ? NULL : data;
}

/* What is wrong with the file as a whole; NULL: nothing. */
static const char *
find_problem(const char *data, int size)
{
	StringInfoData identity;
	StringInfoData crc;

	initStringInfo(&identity);
	initStringInfo(&crc);
	if (size < (int) sizeof(uint32))
		return "it is too short";
	pq_sendint32(&crc, get_crc(data, size - sizeof(uint32)));
	if (memcmp(data + size - sizeof(uint32), crc.data, sizeof(uint32)) != 0)
		return "its checksum is wrong";
	if (!put_identity(&identity))
		return "the server was not shut down cleanly after it was written";
	if (size < identity.len || memcmp(data, identity.data, sizeof(uint32)) != 0)
		return "it has another format";
	if (memcmp(data, identity.data, identity.len) != 0)
		return "it is not from the last shutdown of this cluster";
	return NULL;
}

static void
read_section(const char *name, char *data, int size)
{
	MemoryContext context = CurrentMemoryContext;
	uint32		holdoff = InterruptHoldoffCount;
	StringInfoData in = {data, size, size, 0};

	PG_TRY();
	{
		for (int i = 0; i < section_count; i++)
			if (strcmp(sections[i].name, name) == 0)
				sections[i].read(&in);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		/*
		 * An ERROR sets it to 0, but a lock is held here, whose release counts down; all processes
		 * of the server inherit this.
		 */
		InterruptHoldoffCount = holdoff;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		ereport(LOG,
				(errmsg("kvstore: \"%s\" in file \"%s\" is ignored: %s", name, STATE_FILE, error->message)));
	}
	PG_END_TRY();
}

static void
read_state(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "kvstore state file", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	const char *problem;
	int			size = 0;
	char	   *data = read_file(&size, &problem);
	StringInfoData in = {data, size, size, 0};

	if (data != NULL)
		problem = find_problem(data, size);
	if (data != NULL || problem != NULL)
		(void) durable_unlink(STATE_FILE, LOG);
	if (problem != NULL)
		ereport(LOG,
				(errmsg("kvstore: file \"%s\" is ignored: %s", STATE_FILE, problem)));
	else if (data != NULL)
	{
		/* The checksum is right, so these are the bytes that were written. */
		in.len -= sizeof(uint32);
		in.cursor = sizeof(uint32) + 3 * sizeof(uint64);
		while (in.cursor < in.len)
		{
			const char *name = pq_getmsgrawstring(&in);
			int			section_size = pq_getmsgint(&in, 4);

			read_section(name, unconstify(char *, pq_getmsgbytes(&in, section_size)), section_size);
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

void
kvs_statefile_startup(void)
{
	/* Other processes of an EXEC_BACKEND build come here, too. */
	if (IsUnderPostmaster || IsBinaryUpgrade)
		return;
	read_state();
	on_shmem_exit(write_state, (Datum) 0);
}
