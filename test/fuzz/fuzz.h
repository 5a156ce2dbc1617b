/*
 * fuzz.h
 *		What the fuzz targets share.
 *
 * A target gets bytes that libFuzzer makes up, gives them to kvstore's own functions, and demands of the outcome what must always hold.
 */
#ifndef KVS_FUZZ_H
#define KVS_FUZZ_H

#include "postgres.h"

#include "fmgr.h"
#include "nodes/execnodes.h"
#include "utils/jsonb.h"

typedef struct KvsFuzzTarget
{
	const char *name;
	const int  *errors;			/* SQLSTATEs that input may raise, up to a 0; any other is a finding */
	void		(*setup) (void);	/* once; may be NULL */
	void		(*run) (const char *bytes, int size);
	void		(*tidy) (void);	/* between two transactions; NULL: the target writes nothing, and one transaction will do */
} KvsFuzzTarget;

extern const KvsFuzzTarget kvs_fuzz_key_text;
extern const KvsFuzzTarget kvs_fuzz_key_binary;
extern const KvsFuzzTarget kvs_fuzz_key_json;
extern const KvsFuzzTarget kvs_fuzz_atomic;
extern const KvsFuzzTarget kvs_fuzz_receipt;
extern const KvsFuzzTarget kvs_fuzz_position;

/* Run a statement of setup() or tidy(). */
extern void kvs_fuzz_execute(const char *sql);

/* From here on the input counts as accepted: any error is a finding. */
extern void kvs_fuzz_accepted(void);

/* Try something that touches no table; false if it raises one of these errors, up to a 0.  Any other is thrown on. */
extern bool kvs_fuzz_try(void (*work) (void *arg), void *arg, const int *errors);

/* End the run with a finding. */
extern void kvs_fuzz_fail(const char *file, int line, const char *what) pg_attribute_noreturn();

#define kvs_fuzz_require(condition) \
	((condition) ? (void) 0 : kvs_fuzz_fail(__FILE__, __LINE__, #condition))

/* What of the bytes a client could send as text: valid UTF-8 up to the first zero.  Sizes are exact, to the byte. */
extern char *kvs_fuzz_cstring(const char *bytes, int size);
extern text *kvs_fuzz_text(const char *bytes, int size);

extern bool kvs_fuzz_same_bytes(Datum a, Datum b);
extern bool kvs_fuzz_same_text(const text *a, const text *b);

/* Everything that must hold of a kvkey. */
extern void kvs_fuzz_check_key(Datum key);

/* Fill a field from what is left of the input; what there is no input for stays. */
extern void kvs_fuzz_take(const char **bytes, int *size, void *field, int field_size);

/* Do something in a subtransaction, with a snapshot, and roll it back; an ERROR is thrown on. */
extern void kvs_fuzz_rolled_back(void (*work) (void *arg), void *arg);

/* What was written before is seen from here on. */
extern void kvs_fuzz_new_snapshot(void);

/* A function as SQL would call it. */
typedef struct KvsFuzzCall
{
	FmgrInfo	flinfo;
	ReturnSetInfo result;
	ExprContext context;
	union
	{
		FunctionCallInfoBaseData info;
		char		space[SizeForFunctionCallInfo(8)];
	}			call;
} KvsFuzzCall;

/* The function with this signature, all arguments NULL. */
extern void kvs_fuzz_prepare(KvsFuzzCall *call, const char *signature);

extern Datum kvs_fuzz_call(KvsFuzzCall *call, bool *isnull);

/* Set an argument. */
#define KvsFuzzArg(call_, number_, datum_) \
	((call_)->call.info.args[number_].value = (datum_), (call_)->call.info.args[number_].isnull = false)

/* The rows that the last call has returned: a slot for them, and the next one; false: there is none. */
extern TupleTableSlot *kvs_fuzz_rows(KvsFuzzCall *call);
extern bool kvs_fuzz_next_row(KvsFuzzCall *call, TupleTableSlot *slot);

#endif							/* KVS_FUZZ_H */
