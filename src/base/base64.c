/*
 * base64.c
 *		base64 with padding, strictly, over PostgreSQL's own codec.
 *
 * pg_b64_decode() stops at blanks and foreign characters, but lets text after the padding and stray
 * bits pass.  So what was decoded is encoded again and compared: two texts never stand for the same
 * bytes.  Without padding no check is needed, as each character stands for six bits of the result.
 */
#include "postgres.h"

#include "common/base64.h"

#include "base/base64.h"
#include "base/compat.h"

char *
kvs_base64_encode(const char *bytes, int len)
{
	int			size = pg_b64_enc_len(len);
	char	   *result = palloc(size + 1);
	int			encoded = pg_b64_encode((const KvsCompatBase64Byte *) bytes, len, result, size);

	if (encoded < 0)
		elog(ERROR, "could not encode base64");
	result[encoded] = '\0';
	return result;
}

bytea *
kvs_base64_decode(const char *str, int len)
{
	int			size = pg_b64_dec_len(len);
	bytea	   *result = palloc(VARHDRSZ + size + 1);
	int			decoded = pg_b64_decode(str, len, (KvsCompatBase64Byte *) VARDATA(result), size);
	char	   *again;

	if (decoded < 0)
		return NULL;
	SET_VARSIZE(result, VARHDRSZ + decoded);
	if (memchr(str, '=', len) == NULL)
		return result;
	again = kvs_base64_encode(VARDATA(result), decoded);
	if ((int) strlen(again) != len || memcmp(again, str, len) != 0)
		return NULL;
	pfree(again);
	return result;
}
