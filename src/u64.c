/*
 * u64.c
 *		Entries of kind u64, an unsigned 64-bit number, for clients of the Deno protocol.
 *
 * Stored as a JSON number in the column value, so that views, indexes and kv_get() see a number; jsonb's numbers are numeric, which holds
 * all of them exactly.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "u64.h"

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

Datum
kvs_u64_to_jsonb(uint64 number)
{
	JsonbValue	value;
	char		digits[24];

	snprintf(digits, sizeof(digits), UINT64_FORMAT, number);
	value.type = jbvNumeric;
	value.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(digits),
															ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	return JsonbPGetDatum(JsonbValueToJsonb(&value));
}

char *
kvs_u64_text(Datum jsonb)
{
	Jsonb	   *number = DatumGetJsonbP(jsonb);
	JsonbValue	value;

	if (!JB_ROOT_IS_SCALAR(number) || !JsonbExtractScalar(&number->root, &value) || value.type != jbvNumeric)
		elog(ERROR, "entry of kind u64 does not hold a number");
	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric)));
}
