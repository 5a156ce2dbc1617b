/*
 * number.c
 *		Entries that count: JSON numbers of any size, and kind u64.
 *
 * A JSON number is a numeric: exact, of any size, never wrapping.  Kind u64 is the unsigned 64-bit
 * number of the Deno protocol, whose sum wraps at 2^64 (a client subtracts n by adding 2^64 - n).
 * It is stored as a JSON number too, so that views, indexes and kv_get() see a number.  numeric
 * holds all of them exactly.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "base/errors.h"
#include "store/number.h"

/* ---- Conversions ---- */

static Numeric
numeric_from_text(const char *digits)
{
	return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(digits),
											   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

static char *
numeric_text(Numeric number)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));
}

bool
kvs_u64_parse(const char *str, int len, uint64 *number)
{
	uint64		result = 0;

	if (len < 1 || len > 20)
		return false;
	for (int i = 0; i < len; i++)
	{
		uint64		digit = (uint64) (str[i] - '0');

		if (str[i] < '0' || str[i] > '9' || result > (PG_UINT64_MAX - digit) / 10)
			return false;
		result = result * 10 + digit;
	}
	*number = result;
	return true;
}

static KvsContent
content_of(char kind, Numeric number)
{
	KvsContent	content;
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = number;
	content.kind = kind;
	content.datum = JsonbPGetDatum(JsonbValueToJsonb(&value));
	return content;
}

KvsContent
kvs_u64_content(uint64 number)
{
	char		digits[24];

	snprintf(digits, sizeof(digits), UINT64_FORMAT, number);
	return content_of(KVS_KIND_U64, numeric_from_text(digits));
}

KvsContent
kvs_number_content(Numeric number)
{
	if (numeric_is_nan(number) || numeric_is_inf(number))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a JSON number cannot be %s", numeric_text(number))));
	return content_of(KVS_KIND_JSON, number);
}

/* The numeric in a jsonb scalar, NULL if it is something else. */
static Numeric
number_in(Jsonb *json)
{
	JsonbValue	value;

	if (JB_ROOT_IS_SCALAR(json) && JsonbExtractScalar(&json->root, &value) && value.type == jbvNumeric)
		return value.val.numeric;
	return NULL;
}

Numeric
kvs_number_of(const KvsContent *content)
{
	Numeric		number = NULL;

	if (content->kind == KVS_KIND_JSON || (content->kind == KVS_KIND_U64 && kvs_u64_is(content->datum)))
		number = number_in(DatumGetJsonbP(content->datum));

	if (number == NULL)
		ereport(ERROR,
				(errcode(KVS_ERRCODE_WRONG_KIND),
				 errmsg("entry does not hold a number"),
				 errhint("Counters are entries whose value is a JSON number, or of kind u64.")));
	return number;
}

char *
kvs_u64_text(Datum jsonb)
{
	return numeric_text(number_in(DatumGetJsonbP(jsonb)));
}

bool
kvs_u64_is(Datum jsonb)
{
	Jsonb	   *json = DatumGetJsonbP(jsonb);
	Numeric		number = number_in(json);
	char	   *digits = number ? numeric_text(number) : NULL;
	uint64		ignored;
	bool		result = digits != NULL && kvs_u64_parse(digits, strlen(digits), &ignored);

	/* it is asked of each row of a list */
	if (digits != NULL)
		pfree(digits);
	if ((Pointer) json != DatumGetPointer(jsonb))
		pfree(json);
	return result;
}

/* ---- Arithmetic ---- */

static Numeric
call_numeric(PGFunction function, Numeric a, Numeric b)
{
	return DatumGetNumeric(DirectFunctionCall2(function, NumericGetDatum(a), NumericGetDatum(b)));
}

static bool
numeric_less(Numeric a, Numeric b)
{
	return DatumGetBool(DirectFunctionCall2(numeric_lt, NumericGetDatum(a), NumericGetDatum(b)));
}

static void
check_u64_operand(KvsArithmetic arithmetic, Numeric operand)
{
	Numeric		limit = numeric_from_text("18446744073709551616");
	Numeric		zero = int64_to_numeric(0);
	bool		integer = !numeric_is_nan(operand) && !numeric_is_inf(operand) &&
		!numeric_less(zero, call_numeric(numeric_mod,
										 DatumGetNumeric(DirectFunctionCall1(numeric_abs, NumericGetDatum(operand))),
										 int64_to_numeric(1)));

	if (!integer || (arithmetic != KVS_SUM && (numeric_less(operand, zero) || !numeric_less(operand, limit))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("operand %s does not fit an entry of kind u64", numeric_text(operand)),
				 errhint("It must be an integer, for min and max from 0 to 18446744073709551615.")));
}

/* sum modulo 2^64, from 0 up also when the operand is negative */
static Numeric
wrap_u64(Numeric number)
{
	Numeric		limit = numeric_from_text("18446744073709551616");
	Numeric		rest = call_numeric(numeric_mod, number, limit);

	return numeric_less(rest, int64_to_numeric(0)) ? call_numeric(numeric_add, rest, limit) : rest;
}

KvsContent
kvs_number_apply(KvsArithmetic arithmetic, const KvsContent *content, Numeric operand)
{
	Numeric		number = kvs_number_of(content);
	bool		u64 = content->kind == KVS_KIND_U64;

	if (u64)
	{
		check_u64_operand(arithmetic, operand);
		/* 1.0 is an integer too, but must not leave its decimals behind */
		operand = DatumGetNumeric(DirectFunctionCall2(numeric_trunc, NumericGetDatum(operand), Int32GetDatum(0)));
	}
	if (arithmetic == KVS_SUM)
	{
		number = call_numeric(numeric_add, number, operand);
		if (u64)
			number = wrap_u64(number);
	}
	else if (numeric_less(operand, number) == (arithmetic == KVS_MIN))
		number = operand;
	return u64 ? content_of(KVS_KIND_U64, number) : kvs_number_content(number);
}
