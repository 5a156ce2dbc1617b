/*
 * keynumber.c
 *		Number and bigint parts: from SQL's and JSON's numbers, and to and from decimal text.
 *
 * Every number, whatever its SQL type, is one kind of part, the IEEE double.  So 42 from an integer
 * column, from JSON and from JavaScript is one key.  Two different integers must not become one
 * key, so an integer beyond 2^53 is refused: it has to be a bigint part.  A double beyond 2^53
 * (from a float column or a Deno client) is therefore no JSON number but {"number": "1e+300"}.
 */
#include "postgres.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/float.h"

#include "base/compat.h"
#include "key/key.h"

/* Up to here every integer is a double of its own. */
#define MAX_SAFE_INTEGER		INT64CONST(9007199254740992)
#define MAX_SAFE_INTEGER_TEXT	"9007199254740992"

#define DIGITS					"0123456789"

/*
 * Decimal digits of 256^255 - 1, and what the magnitude of any number of so many digits fits into.
 */
#define BIGINT_MAX_DIGITS		615
#define BIGINT_BUFFER_SIZE		(KVS_BIGINT_MAX_SIZE + 1)

/* Decimal text is made nine digits at a time, the most that fit 32 bits. */
#define LIMB_DIGITS				9
#define LIMB_BASE				1000000000
#define MAX_LIMBS				((BIGINT_MAX_DIGITS + LIMB_DIGITS - 1) / LIMB_DIGITS)

static void
report_unsafe_integer(int position)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("key part %d is an integer beyond 2^53", position),
			 errdetail("A number in a key is an IEEE double, which cannot tell such integers apart."),
			 errhint("Use {\"bigint\": \"...\"}, in kv_key() as a jsonb argument.")));
}

static void
report_bad_number(int position)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid \"number\" in key part %d", position),
			 errdetail("It has to be a decimal number, NaN, -NaN, Infinity or -Infinity.")));
}

static void
report_bad_bigint(int position)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid \"bigint\" in key part %d", position),
			 errdetail("It has to be decimal digits, with or without a minus sign in front.")));
}

static void
report_out_of_range(int position)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("key part %d is out of range for a number", position)));
}

/* ---- numbers ---- */

void
kvs_keynumber_add_integer(KvsKey *key, int64 value, int position)
{
	if (value > MAX_SAFE_INTEGER || value < -MAX_SAFE_INTEGER)
		report_unsafe_integer(position);
	kvs_key_add_number(key, (double) value);
}

/*
 * Is this output of numeric_out() an integer of more than 2^53?  (It has no exponent and no leading
 * zeros.)
 */
static bool
is_unsafe_integer(const char *str)
{
	const char *digits = str + (*str == '-' ? 1 : 0);
	size_t		len = strspn(digits, DIGITS);
	const char *fraction = digits + len;

	if (*fraction == '.')
		fraction += 1 + strspn(fraction + 1, "0");
	if (*fraction != '\0')
		return false;
	if (len != strlen(MAX_SAFE_INTEGER_TEXT))
		return len > strlen(MAX_SAFE_INTEGER_TEXT);
	return strncmp(digits, MAX_SAFE_INTEGER_TEXT, len) > 0;
}

void
kvs_keynumber_add_numeric(KvsKey *key, Numeric value, int position)
{
	double		number;

	if (numeric_is_nan(value))
		number = get_float8_nan();
	else
	{
		char	   *str = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value)));

		if (is_unsafe_integer(str))
			report_unsafe_integer(position);
		number = strtod(str, NULL);
		if (isinf(number) && !numeric_is_inf(value))
			report_out_of_range(position);
		pfree(str);
	}

	/*
	 * SQL and JSON have one zero; a negative value that underflows must not become the other one.
	 */
	kvs_key_add_number(key, number == 0 ? 0.0 : number);
}

/* strtod() of a decimal; not the hexadecimal, blanks and names that it would also take. */
static bool
parse_decimal(const char *str, double *number)
{
	const char *digits = str + (*str == '-' ? 1 : 0);
	char	   *end;

	if (strchr(DIGITS, *digits) == NULL || *digits == '\0' || str[strspn(str, DIGITS "+-.eE")] != '\0')
		return false;
	*number = strtod(str, &end);
	return *end == '\0';
}

void
kvs_keynumber_add_number_text(KvsKey *key, const char *str, int len, int position)
{
	char	   *copy = pnstrdup(str, len);
	double		number;

	if (strcmp(copy, "NaN") == 0)
		number = get_float8_nan();
	else if (strcmp(copy, "-NaN") == 0)
		number = copysign(get_float8_nan(), -1.0);
	else if (strcmp(copy, "Infinity") == 0)
		number = get_float8_infinity();
	else if (strcmp(copy, "-Infinity") == 0)
		number = -get_float8_infinity();
	else
	{
		if (!parse_decimal(copy, &number))
			report_bad_number(position);
		if (isinf(number))
			report_out_of_range(position);
	}
	kvs_key_add_number(key, number);
	pfree(copy);
}

bool
kvs_keynumber_number_is_plain(double number)
{
	if (isnan(number) || isinf(number))
		return false;
	if (number == 0)
		return !signbit(number);
	return fabs(number) <= (double) MAX_SAFE_INTEGER || number != trunc(number);
}

char *
kvs_keynumber_number_text(double number)
{
	char	   *result = palloc(DOUBLE_SHORTEST_DECIMAL_LEN);

	if (isnan(number))
		strlcpy(result, signbit(number) ? "-NaN" : "NaN", DOUBLE_SHORTEST_DECIMAL_LEN);
	else
		double_to_shortest_decimal_buf(number, result);
	return result;
}

/* ---- bigints ---- */

/* magnitude = magnitude * 10^ndigits + the number these digits say; at most nine digits. */
static void
push_digits(uint8 *magnitude, const char *digits, int ndigits)
{
	uint64		factor = 1;
	uint64		carry = 0;

	for (int i = 0; i < ndigits; i++)
	{
		factor *= 10;
		carry = carry * 10 + (digits[i] - '0');
	}
	for (int i = BIGINT_BUFFER_SIZE - 1; i >= 0; i--)
	{
		carry += magnitude[i] * factor;
		magnitude[i] = (uint8) carry;
		carry >>= 8;
	}
	Assert(carry == 0);
}

void
kvs_keynumber_add_bigint_text(KvsKey *key, const char *str, int len, int position)
{
	uint8		magnitude[BIGINT_BUFFER_SIZE] = {0};
	const char *end = str + len;
	bool		negative = len > 0 && *str == '-';
	int			zeros = 0;

	if (negative)
		str++;
	if (str == end)
		report_bad_bigint(position);
	for (const char *p = str; p < end; p++)
		if (*p < '0' || *p > '9')
			report_bad_bigint(position);
	while (str < end && *str == '0')
		str++;

	/*
	 * Longer than the buffer could take: the error comes from kvs_key_add_bigint(), as for what is
	 * only just too large.
	 */
	if (end - str > BIGINT_MAX_DIGITS)
		kvs_key_add_bigint(key, negative, (const uint8 *) str, BIGINT_BUFFER_SIZE);
	while (str < end)
	{
		int			ndigits = Min(LIMB_DIGITS, (int) (end - str));

		push_digits(magnitude, str, ndigits);
		str += ndigits;
	}
	while (zeros < BIGINT_BUFFER_SIZE && magnitude[zeros] == 0)
		zeros++;
	kvs_key_add_bigint(key, negative, magnitude + zeros, BIGINT_BUFFER_SIZE - zeros);
}

char *
kvs_keynumber_bigint_text(const KvsPart *part)
{
	uint32		limbs[MAX_LIMBS] = {0}; /* least significant first */
	int			nlimbs = 1;
	char	   *result = palloc(1 + MAX_LIMBS * LIMB_DIGITS + 1);
	char	   *dest = result;

	for (int i = 0; i < part->len; i++)
	{
		uint64		carry = (uint8) part->str[i];

		for (int j = 0; j < nlimbs; j++)
		{
			carry += (uint64) limbs[j] << 8;
			limbs[j] = (uint32) (carry % LIMB_BASE);
			carry /= LIMB_BASE;
		}
		if (carry > 0)
		{
			Assert(nlimbs < MAX_LIMBS);
			limbs[nlimbs++] = (uint32) carry;
		}
	}
	if (part->negative)
		*dest++ = '-';
	dest += sprintf(dest, "%u", limbs[nlimbs - 1]);
	for (int j = nlimbs - 2; j >= 0; j--)
		dest += sprintf(dest, "%09u", limbs[j]);
	return result;
}
