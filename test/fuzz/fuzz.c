/*
 * fuzz.c
 *		Runs libFuzzer inside a backend.
 *
 * kvstore, instrumented, this driver and libFuzzer are one library, which a throw-away server in single-user mode loads instead of kvstore.so.
 * CALL kvs_fuzz(target, arguments) hands over to libFuzzer, which calls one_input() for each input and never returns: it ends the process.
 *
 * A finding is whatever AddressSanitizer or UndefinedBehaviorSanitizer reports, a crash, an ERROR that the target does not name, memory
 * that grows, and an unmet kvs_fuzz_require().  All of them end the process too, after the input has been written to a file.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"

#include "fuzz.h"
#include "base/subxact.h"

/*
 * A context with blocks so small that each chunk of more than a few bytes has one of its own, from malloc(): AddressSanitizer knows where it
 * ends, and when it is freed.
 */
#define BLOCK_SIZE			136

/* What one transaction does of a target that writes. */
#define TRANSACTION_INPUTS	5000

/* How often memory is looked at, and by how much it may grow after the first time. */
#define MEMORY_INPUTS		100000
#define MEMORY_GROWTH		(8 * 1024 * 1024)

extern int	LLVMFuzzerRunDriver(int *argc, char ***argv, int (*one_input) (const uint8 *bytes, size_t size));

static const KvsFuzzTarget *const targets[] = {
	&kvs_fuzz_key_text, &kvs_fuzz_key_binary, &kvs_fuzz_key_json, &kvs_fuzz_atomic, &kvs_fuzz_receipt, &kvs_fuzz_position
};

static const KvsFuzzTarget *target;
static MemoryContext context;
static bool accepted;
static int64 inputs;
static int64 accepted_inputs;

/* ---- Findings ---- */

void
kvs_fuzz_accepted(void)
{
	accepted = true;
}

void
kvs_fuzz_fail(const char *file, int line, const char *what)
{
	fprintf(stderr, "FINDING: %s:%d: does not hold: %s\n", file, line, what);
	abort();
}

/* An ERROR was caught: is it one of these? */
static bool
is_expected(const int *errors)
{
	int			code = geterrcode();

	while (*errors != 0 && *errors != code)
		errors++;
	return *errors == code;
}

static void
check_error(void)
{
	ErrorData  *error;

	if (!accepted && is_expected(target->errors))
	{
		FlushErrorState();
		return;
	}
	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	fprintf(stderr, "FINDING: %s: %s: %s (%s, %s:%d)\n", accepted ? "ERROR after the input was accepted" : "unexpected ERROR",
			unpack_sql_state(error->sqlerrcode), error->message, error->funcname, error->filename, error->lineno);
	abort();
}

static void
check_memory(void)
{
	static Size limit = 0;
	/* the server itself remembers of each OID that was looked up that there is no such table */
	Size		now = MemoryContextMemAllocated(TopMemoryContext, true) - MemoryContextMemAllocated(CacheMemoryContext, true);

	if (limit == 0)
		limit = now + MEMORY_GROWTH;
	if (now > limit)
	{
		MemoryContextStats(TopMemoryContext);
		kvs_fuzz_require(now <= limit);
	}
}

/* ---- One input ---- */

static int
one_input(const uint8 *bytes, size_t size)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	CHECK_FOR_INTERRUPTS();
	accepted = false;
	PG_TRY();
	{
		target->run((const char *) bytes, (int) size);
	}
	PG_CATCH();
	{
		check_error();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
	inputs++;
	accepted_inputs += accepted ? 1 : 0;
	if (target->tidy != NULL && inputs % TRANSACTION_INPUTS == 0)
	{
		target->tidy();
		SPI_commit();
	}
	if (inputs % MEMORY_INPUTS == 0)
		check_memory();
	return 0;
}

/* A target that refuses nearly all tests nearly nothing. */
static void
report(void)
{
	fprintf(stderr, "accepted: %lld of %lld\n", (long long) accepted_inputs, (long long) inputs);
}

/* ---- What targets use ---- */

char *
kvs_fuzz_cstring(const char *bytes, int size)
{
	return pnstrdup(bytes, pg_encoding_verifymbstr(PG_UTF8, bytes, size));
}

text *
kvs_fuzz_text(const char *bytes, int size)
{
	return cstring_to_text_with_len(bytes, pg_encoding_verifymbstr(PG_UTF8, bytes, size));
}

bool
kvs_fuzz_try(void (*work) (void *arg), void *arg, const int *errors)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool result = true;

	PG_TRY();
	{
		work(arg);
	}
	PG_CATCH();
	{
		if (!is_expected(errors))
			PG_RE_THROW();
		MemoryContextSwitchTo(old);
		FlushErrorState();
		result = false;
	}
	PG_END_TRY();
	return result;
}

bool
kvs_fuzz_same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) && memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

bool
kvs_fuzz_same_bytes(Datum a, Datum b)
{
	return kvs_fuzz_same_text((const text *) DatumGetPointer(a), (const text *) DatumGetPointer(b));
}

void
kvs_fuzz_take(const char **bytes, int *size, void *field, int field_size)
{
	int			count = Min(*size, field_size);

	memcpy(field, *bytes, count);
	*bytes += count;
	*size -= count;
}

void
kvs_fuzz_execute(const char *sql)
{
	SPI_freetuptable(SPI_tuptable);	/* of the last one: the procedure itself never ends */
	if (SPI_execute(sql, false, 0) < 0)
		elog(FATAL, "could not execute \"%s\"", sql);
}

typedef struct Work
{
	void		(*work) (void *arg);
	void	   *arg;
} Work;

void
kvs_fuzz_new_snapshot(void)
{
	CommandCounterIncrement();
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static bool
work_with_snapshot(void *arg)
{
	Work	   *work = arg;

	PushActiveSnapshot(GetTransactionSnapshot());
	work->work(work->arg);
	PopActiveSnapshot();
	return false;
}

void
kvs_fuzz_rolled_back(void (*work) (void *arg), void *arg)
{
	Work		it = {work, arg};

	kvs_subxact_run(work_with_snapshot, &it);
}

/* ---- Calling SQL functions ---- */

void
kvs_fuzz_prepare(KvsFuzzCall *call, const char *signature)
{
	Datum		oid = DirectFunctionCall1(regprocedurein, CStringGetDatum(signature));

	memset(call, 0, sizeof(*call));
	fmgr_info_cxt(DatumGetObjectId(oid), &call->flinfo, TopMemoryContext);
	call->context.type = T_ExprContext;
	call->context.ecxt_per_query_memory = context;
	call->result.type = T_ReturnSetInfo;
	call->result.econtext = &call->context;
	InitFunctionCallInfoData(call->call.info, &call->flinfo, call->flinfo.fn_nargs, InvalidOid, NULL,
							 call->flinfo.fn_retset ? (Node *) &call->result : NULL);
	for (int i = 0; i < call->flinfo.fn_nargs; i++)
		call->call.info.args[i].isnull = true;
}

Datum
kvs_fuzz_call(KvsFuzzCall *call, bool *isnull)
{
	Datum		result;

	call->call.info.isnull = false;
	call->result.allowedModes = SFRM_Materialize;
	call->result.returnMode = SFRM_ValuePerCall;
	call->result.setResult = NULL;
	call->result.setDesc = NULL;
	result = FunctionCallInvoke(&call->call.info);
	if (isnull != NULL)
		*isnull = call->call.info.isnull;
	return result;
}

TupleTableSlot *
kvs_fuzz_rows(KvsFuzzCall *call)
{
	return MakeSingleTupleTableSlot(call->result.setDesc, &TTSOpsMinimalTuple);
}

bool
kvs_fuzz_next_row(KvsFuzzCall *call, TupleTableSlot *slot)
{
	if (!tuplestore_gettupleslot(call->result.setResult, true, false, slot))
		return false;
	slot_getallattrs(slot);
	return true;
}

/* ---- SQL ---- */

static const KvsFuzzTarget *
find_target(const char *name)
{
	for (int i = 0; i < (int) lengthof(targets); i++)
		if (strcmp(targets[i]->name, name) == 0)
			return targets[i];
	ereport(FATAL,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no target \"%s\"", name)));
}

/* kvs_fuzz(target text, arguments text[]): a procedure, which can begin a new transaction now and then */
PG_FUNCTION_INFO_V1(kvs_fuzz);
Datum
kvs_fuzz(PG_FUNCTION_ARGS)
{
	Datum	   *arguments;
	int			argc;
	char	  **argv;

	target = find_target(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &arguments, NULL, &argc);
	argv = MemoryContextAlloc(TopMemoryContext, sizeof(char *) * (argc + 2));
	argv[0] = unconstify(char *, target->name);
	for (int i = 0; i < argc; i++)
		argv[i + 1] = MemoryContextStrdup(TopMemoryContext, TextDatumGetCString(arguments[i]));
	argv[++argc] = NULL;

	context = AllocSetContextCreate(TopMemoryContext, "fuzz input", 0, BLOCK_SIZE, BLOCK_SIZE);
	/* libFuzzer leaves alone what is handled already: it tells of what hangs by this signal, and of what divides by zero by the other */
	signal(SIGALRM, SIG_DFL);
	signal(SIGFPE, SIG_DFL);
	atexit(report);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	if (target->setup)
		target->setup();
	exit(LLVMFuzzerRunDriver(&argc, &argv, one_input));
}
