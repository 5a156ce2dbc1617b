-- Keys: the type kvkey and kv_key().  The extension exists already (00_setup).

-- The value of an expression as text, or the error it raises: SQLSTATE, message, detail, hint.
CREATE FUNCTION pg_temp.outcome(expression text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
    state text;
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE 'SELECT (' || expression || ')::text' INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', state, message, nullif(detail, ''), nullif(hint, ''));
END $$;

CREATE FUNCTION pg_temp.pow2(n int) RETURNS numeric LANGUAGE sql AS $$ SELECT trunc(2::numeric ^ n) $$;
CREATE FUNCTION pg_temp.hex(key kvkey) RETURNS text LANGUAGE sql AS $$ SELECT upper(encode(key::bytea, 'hex')) $$;

\pset format unaligned
\pset fieldsep ' | '

--
-- The encoding: vectors taken from Deno's own runtime, and what decodes to each
--

CREATE TEMP TABLE vector (id int GENERATED ALWAYS AS IDENTITY, json jsonb, hex text);
INSERT INTO vector (json, hex) VALUES
    ('[]', ''),
    ('[""]', '0200'),
    ('[{"utf8": "YQBi"}]', '026100FF6200'),
    ('[{"bytes": "AAH/"}]', '0100FF01FF00'),
    ('[{"bytes": ""}]', '0100'),
    ('[{"bigint": "0"}]', '14'),
    ('[{"bigint": "1"}]', '1501'),
    ('[{"bigint": "256"}]', '160100'),
    ('[{"bigint": "-1"}]', '13FE'),
    ('[{"bigint": "-256"}]', '12FEFF'),
    ('[{"bigint": "9223372036854775808"}]', '1C8000000000000000'),
    ('[{"bigint": "18446744073709551616"}]', '1D09010000000000000000'),
    ('[{"bigint": "-18446744073709551615"}]', '0C0000000000000000'),
    ('[{"bigint": "-18446744073709551616"}]', '0BF6FEFFFFFFFFFFFFFFFF'),
    ('[0]', '218000000000000000'),
    ('[{"number": "-0"}]', '217FFFFFFFFFFFFFFF'),
    ('[1]', '21BFF0000000000000'),
    ('[-1]', '21400FFFFFFFFFFFFF'),
    ('[{"number": "NaN"}]', '21FFF8000000000000'),
    ('[{"number": "-NaN"}]', '210007FFFFFFFFFFFF'),
    ('[{"number": "Infinity"}]', '21FFF0000000000000'),
    ('[{"number": "-Infinity"}]', '21000FFFFFFFFFFFFF'),
    ('[false, true]', '2627'),
    ('["a", {"bigint": "1"}, true]', '026100150127'),
    ('["ключ", 42, 0.1, -2.5e-7]', '02D0BAD0BBD18ED18700' || '21C045000000000000' || '21BFB999999999999A' || '21416F39085F4A1272'),
    ('["a", "b"]', '02610002' || '6200'),
    ('[{"bytes": "AA=="}, {"bytes": "/w=="}, {"utf8": "AAAA"}]', '0100FF0001FF000200FF00FF00FF00');

-- None is expected in any of these.
SELECT json, hex, pg_temp.hex(json) FROM vector WHERE pg_temp.hex(json) <> hex;
SELECT json, decode(hex, 'hex')::kvkey FROM vector WHERE decode(hex, 'hex')::kvkey::jsonb <> json;
SELECT json FROM vector WHERE json::text::kvkey <> kv_key_from_json(json) OR kv_key_to_json(json)::text <> json::kvkey::text;
SELECT count(*), count(DISTINCT json::kvkey) FROM vector;
SELECT json::kvkey FROM vector ORDER BY id;

-- Input in other spellings: one path has one encoding and one text.
SELECT spelling, spelling::kvkey AS key FROM unnest(ARRAY[
    '[1.0, 1.00e0, 10e-1]', '[-0, -0.0, -1e-400]', '[1e-400, 4e-324]', '["\u0061", "\ud83d\ude00"]', '[{"utf8": "YWJj"}, {"utf8": ""}]',
    '[{"bigint": "-0"}, {"bigint": "000"}, {"bigint": "-007"}]', '[{"bigint": "1", "bigint": "2"}]',
    '[{"number": "1"}, {"number": "-1.50"}, {"number": "1E3"}, {"number": "-1e-400"}]', ' [ true ,false ] ',
    '[9007199254740992, -9007199254740992, {"number": "9007199254740994"}, {"number": "-1e300"}]',
    '[9007199254740993.5, 0.1234567890123456789, 1.7976931348623157e-308]']) spelling;

-- The largest bigint, and one more, of both signs.
SELECT pg_temp.hex(('[{"bigint": "' || (pg_temp.pow2(2040) - 1) || '"}]')::kvkey) = '1DFF' || repeat('FF', 255) AS largest,
       pg_temp.hex(('[{"bigint": "' || (1 - pg_temp.pow2(2040)) || '"}]')::kvkey) = '0B00' || repeat('00', 255) AS smallest,
       decode('1DFF' || repeat('FF', 255), 'hex')::kvkey::jsonb #>> '{0,bigint}' = (pg_temp.pow2(2040) - 1)::text AS largest_text,
       decode('0B00' || repeat('00', 255), 'hex')::kvkey::jsonb #>> '{0,bigint}' = (1 - pg_temp.pow2(2040))::text AS smallest_text,
       pg_temp.hex(('[{"bigint": "' || repeat('0', 1000) || '7"}]')::kvkey) AS leading_zeros;
SELECT pg_temp.outcome($q$ ('[{"bigint": "' || pg_temp.pow2(2040) || '"}]')::kvkey $q$)
UNION ALL SELECT pg_temp.outcome($q$ ('[{"bigint": "-' || pg_temp.pow2(2040) || '"}]')::kvkey $q$)
UNION ALL SELECT pg_temp.outcome($q$ ('[{"bigint": "' || repeat('9', 616) || '"}]')::kvkey $q$)
UNION ALL SELECT pg_temp.outcome($q$ ('[{"bigint": "-' || repeat('9', 100000) || '"}]')::kvkey $q$);

-- Malformed JSON forms: each class, with the position of the part.
SELECT input, pg_temp.outcome(format('%L::kvkey', input)) AS outcome FROM unnest(ARRAY[
    '', 'abc', '["a"', '"a"', '42', 'null', '{"bytes": ""}', '["a\u0000b"]',
    '[null]', '["a", null]', '["a", []]', '["a", 1, ["b"]]', '[{}]', '["a", {"x": "y"}]', '[{"bytes": "", "utf8": ""}]', '[{"bytes": 1}]',
    '[{"bigint": 5}]', '[{"number": 5}]', '[{"bytes": null}]', '[{"bytes": {"bytes": ""}}]', '[{"Bytes": ""}]', '[{"byte": ""}]',
    '[{"bytes": "!"}]', '[{"bytes": "QQ"}]', '[{"bytes": "QQ="}]', '[{"bytes": "QR=="}]', '[{"bytes": "QQ==QQ=="}]', '[{"bytes": "Q Q=="}]',
    '[{"bytes": "QQ==\n"}]', '[{"bytes": "_-8="}]', '[{"bytes": "é"}]', '[1, {"utf8": "gA=="}]', '[{"utf8": "YQDi"}]', '[{"utf8": "7aCA"}]', '[{"utf8": "!"}]',
    '[{"bigint": ""}]', '[{"bigint": "-"}]', '[{"bigint": "+1"}]', '[{"bigint": "1.5"}]', '[{"bigint": " 1"}]', '[{"bigint": "1n"}]', '[{"bigint": "--1"}]',
    '[{"number": ""}]', '[{"number": "-"}]', '[{"number": "nan"}]', '[{"number": "inf"}]', '[{"number": "+1"}]', '[{"number": ".5"}]',
    '[{"number": "0x1p3"}]', '[{"number": "1e"}]', '[{"number": "1 "}]', '[{"number": " 1"}]', '[{"number": "1-1"}]', '[{"number": "1e400"}]',
    '[1, 9007199254740993]', '[-9007199254740993]', '[9007199254740993.000]', '[1e300]', '["a", 1e400]', '[-1234567890123456789012345678901234567890]']) input;

-- Malformed bytes: each class.  Nothing but the one canonical encoding of a path is a key.
SELECT hex, pg_temp.outcome(format('decode(%L, ''hex'')::kvkey', hex)) AS outcome FROM unnest(ARRAY[
    '00', '03', '0A', '1E', '20', '22', '25', '28', 'FF', '27FF', '020000', '0200FF',           -- no tag; an escape without its end
    '01', '0161', '0100FF', '0161270100FF', '02', '0261', '15', '1601', '13', '12FE', '1D', '0B', '1D090100000000000000001D0901',
    '0BF6FEFFFFFFFFFFFFFF', '21', '21BFF00000000000',                                            -- cut off
    '028000', '02C0AF00', '02EDA08000', '02F490808000', '02E282', '02E28200', '02E200FF82AC00',   -- not UTF-8
    '1500', '160001', '13FF', '12FFFE', '1C00FFFFFFFFFFFFFF', '0CFF00000000000000',               -- a leading zero
    '1D00', '1D0101', '1D08FFFFFFFFFFFFFFFF', '0BFF', '0BFEFE', '0BF70000000000000000',           -- a length byte without need
    '1D09000000000000000001', '0BF6FFFFFFFFFFFFFFFFFE',                                           -- a leading zero behind a length byte
    '21FFF8000000000001', '21FFFFFFFFFFFFFFFF', '21FFF0000000000001', '210000000000000000', '210007FFFFFFFFFFFE', '21000FFFFFFFFFFFFE' -- NaNs
    ]) hex;

--
-- kv_key()
--

CREATE TYPE pg_temp.color AS ENUM ('red', 'green');
CREATE DOMAIN pg_temp.word AS varchar(10) CHECK (VALUE <> '');
CREATE DOMAIN pg_temp.shade AS pg_temp.color;
CREATE DOMAIN pg_temp.words AS text[];

SELECT expression, pg_temp.outcome(expression) AS outcome FROM unnest(ARRAY[
    $$kv_key()$$, $$kv_key('')$$, $$kv_key('users', 42)$$, $$kv_key('["a"]')$$, $$kv_key('a'::text, 'b'::varchar, 'c'::name)$$,
    $$kv_key('red'::pg_temp.color, 'd'::pg_temp.word, 'green'::pg_temp.shade)$$, $$kv_key('A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid)$$,
    $$kv_key(1::int2, 2::int4, 3::int8, 4::float4, 5::float8, 6::numeric, 7.50)$$,
    $$kv_key((-32768)::int2, (-2147483648)::int4, (2^53)::int8, -(2^53)::int8, 9007199254740992, -9007199254740992.0)$$,
    $$kv_key(0.1::float4, 0.1::float8, 0.1::numeric, 1e-400::numeric, -1e-400::numeric)$$,
    $$kv_key('-0'::float8, '-0'::float4, 'NaN'::float4, 'NaN'::float8, 'NaN'::numeric, '-Infinity'::float8, 'Infinity'::numeric, 1e300::float8)$$,
    $$kv_key('Infinity'::float8 - 'Infinity'::float8)$$,
    $$kv_key(true, false)$$, $$kv_key('\x'::bytea, '\x00ff'::bytea)$$,
    $$kv_key('"a"'::jsonb, '1.5'::jsonb, 'true'::jsonb, '{"bigint": "-5"}'::jsonb, '{"bytes": "AA=="}'::jsonb, '{"number": "-0"}'::jsonb)$$,
    $$kv_key(VARIADIC ARRAY['a', 'b'])$$, $$kv_key(VARIADIC ARRAY[1, 2.5])$$, $$kv_key(VARIADIC '{}'::text[])$$, $$kv_key(VARIADIC ARRAY[[1, 2], [3, 4]])$$,
    $$kv_key(VARIADIC ARRAY['"a"', '1', '{"bigint": "1"}']::jsonb[])$$, $$kv_key(VARIADIC '{red,green}'::pg_temp.color[])$$,
    $$kv_key(VARIADIC '{a,b}'::pg_temp.words)$$, $$kv_key(VARIADIC '{a,b}'::pg_temp.word[])$$, $$kv_key((SELECT 'untyped'))$$,
    -- and the errors
    $$kv_key(NULL)$$, $$kv_key('a', NULL::int)$$, $$kv_key(VARIADIC ARRAY['a', NULL, 'c'])$$, $$kv_key(VARIADIC NULL::text[])$$,
    $$kv_key(2::numeric ^ 53 + 1)$$, $$kv_key('a', 9007199254740993)$$, $$kv_key(-9007199254740993)$$, $$kv_key('-9223372036854775808'::int8)$$,
    $$kv_key('a', 9007199254740993::numeric)$$, $$kv_key(1e400::numeric)$$, $$kv_key(1e400::numeric + 0.5)$$, $$kv_key(9007199254740993.5)$$,
    $$kv_key('null'::jsonb)$$, $$kv_key('a', '[]'::jsonb)$$, $$kv_key('["a"]'::jsonb)$$, $$kv_key('{"a": "b"}'::jsonb)$$, $$kv_key('{"bytes": "?"}'::jsonb)$$,
    $$kv_key('9007199254740993'::jsonb)$$, $$kv_key('a', now())$$, $$kv_key('2026-01-01'::date)$$, $$kv_key('"a"'::json)$$, $$kv_key('a'::char(3))$$,
    $$kv_key(ARRAY[1])$$, $$kv_key(ROW(1))$$, $$kv_key(kv_key('a'))$$, $$kv_key('12.5'::money)$$, $$kv_key('pg_class'::regclass)$$, $$kv_key(VARIADIC ARRAY['2026-01-01'::date])$$
    ]) expression;

-- A number is one key whatever its type, and the same as from JSON.
SELECT count(DISTINCT key) FROM unnest(ARRAY[kv_key(42), kv_key(42::int2), kv_key(42::int8), kv_key(42::float4), kv_key(42::float8),
    kv_key(42.0), kv_key('42'::jsonb), '[42]'::kvkey, '[42.0]'::jsonb, kv_key(VARIADIC ARRAY[42])]) key;

-- An argument that is toasted (compressed, or out of line).
CREATE TEMP TABLE toasted (compressed text, external text, bytes bytea, json jsonb);
ALTER TABLE toasted ALTER external SET STORAGE external, ALTER bytes SET STORAGE external;
INSERT INTO toasted VALUES (repeat('x', 4000), repeat('y', 4000), decode(repeat('01', 4000), 'hex'), to_jsonb(repeat('z', 4000)));
SELECT pg_temp.outcome('(SELECT kv_key(' || col || ') FROM pg_temp.toasted)') FROM unnest('{compressed,external,bytes,json}'::text[]) col;
SELECT length(kv_key(left(compressed, 100), substr(external, 1, 100), substr(bytes, 1, 100))::bytea) FROM toasted;

-- Overloads: an untyped literal chooses text, a path chooses kvkey.
CREATE FUNCTION pg_temp.which(text) RETURNS text LANGUAGE sql AS $$ SELECT 'text' $$;
CREATE FUNCTION pg_temp.which(kvkey) RETURNS text LANGUAGE sql AS $$ SELECT 'kvkey' $$;
SELECT pg_temp.which('a') AS literal, pg_temp.which('a'::varchar) AS "varchar", pg_temp.which('a'::name) AS name, pg_temp.which(kv_key('a')) AS kv_key,
       pg_temp.which('["a"]'::jsonb) AS jsonb, pg_temp.which(jsonb_build_array('a', 1)) AS built;
SELECT typcategory, typispreferred, typstorage, typalign, typlen FROM pg_type WHERE oid = 'kvkey'::regtype;
SELECT castsource::regtype, casttarget::regtype, castcontext, castmethod FROM pg_cast
    WHERE 'kvkey'::regtype IN (castsource, casttarget) ORDER BY castsource::regtype::text, casttarget::regtype::text;

--
-- The limit is exact: 2048 bytes are a key, 2049 are not
--

SELECT expression, pg_temp.outcome('length((' || expression || ')::bytea)') AS outcome FROM unnest(ARRAY[
    $$kv_key(repeat('x', 2046))$$, $$kv_key(repeat('x', 2047))$$, $$kv_key(repeat('é', 1023))$$, $$kv_key(repeat('é', 1024))$$, $$kv_key(repeat('x', 1000000))$$,
    $$kv_key(decode(repeat('00', 1023), 'hex'))$$, $$kv_key(decode(repeat('00', 1024), 'hex'))$$, $$kv_key(decode(repeat('01', 2047), 'hex'))$$,
    $$kv_key(repeat('x', 2045), true)$$, $$kv_key(repeat('x', 2046), true)$$, $$kv_key(repeat('x', 2037), 1)$$, $$kv_key(repeat('x', 2038), 1)$$,
    $$kv_key(repeat('x', 2045), '{"bigint": "0"}'::jsonb)$$, $$kv_key(repeat('x', 2046), '{"bigint": "0"}'::jsonb)$$,
    $$kv_key(repeat('x', 2044), '{"bigint": "255"}'::jsonb)$$, $$kv_key(repeat('x', 2045), '{"bigint": "255"}'::jsonb)$$,
    $$kv_key(repeat('x', 2035), '{"bigint": "-18446744073709551616"}'::jsonb)$$, $$kv_key(repeat('x', 2036), '{"bigint": "-18446744073709551616"}'::jsonb)$$,
    $$kv_key(VARIADIC array_fill(false, ARRAY[2048]))$$, $$kv_key(VARIADIC array_fill(false, ARRAY[2049]))$$,
    $$kv_key(VARIADIC array_fill(''::text, ARRAY[1024]))$$, $$kv_key(VARIADIC array_fill(''::text, ARRAY[1025]))$$,
    $$to_jsonb(array_fill(true, ARRAY[2048]))$$, $$('["' || repeat('x', 2046) || '"]')::kvkey$$, $$('["' || repeat('x', 2047) || '"]')::kvkey$$,
    $$decode(repeat('26', 2048), 'hex')::kvkey$$, $$decode(repeat('26', 2049), 'hex')::kvkey$$, $$decode(repeat('FF', 2049), 'hex')::kvkey$$
    ]) expression;

--
-- Order
--

-- Every kind of part, in the order intended.
CREATE TEMP TABLE ordered (id int GENERATED ALWAYS AS IDENTITY, key kvkey);
INSERT INTO ordered (key) SELECT ('[' || part || ']')::kvkey FROM unnest(ARRAY[
    '', '{"bytes": ""}', '{"bytes": ""}, {"bytes": ""}', '{"bytes": ""}, true', '{"bytes": "AA=="}', '{"bytes": "AAA="}', '{"bytes": "AAE="}', '{"bytes": "AP8="}', '{"bytes": "AQ=="}',
    '{"bytes": "/w=="}', '{"bytes": "//8="}',
    '""', '"", ""', '"", "a"', '"", 0', '{"utf8": "AA=="}', '{"utf8": "AAA="}', '{"utf8": "AGE="}', '"A"', '"a"', '"a", {"bytes": ""}', '"a", ""', '"a", "a"', '"a", {"bigint": "0"}', '"a", 0',
    '"a", false', '"a", true', '{"utf8": "YQA="}', '{"utf8": "YQBi"}', '"a b"', '"aa"', '"ab"', '"b"', '"z"', '"é"', '"ÿ"', '"ж"', '"€"', '"\uffff"', '"😀"',
    '{"bigint": "-' || (pg_temp.pow2(2040) - 1) || '"}', '{"bigint": "-' || pg_temp.pow2(2032) || '"}', '{"bigint": "-' || (pg_temp.pow2(2032) - 1) || '"}',
    '{"bigint": "-36893488147419103232"}', '{"bigint": "-18446744073709551617"}', '{"bigint": "-18446744073709551616"}', '{"bigint": "-18446744073709551615"}',
    '{"bigint": "-72057594037927936"}', '{"bigint": "-72057594037927935"}', '{"bigint": "-65536"}', '{"bigint": "-65535"}', '{"bigint": "-257"}', '{"bigint": "-256"}', '{"bigint": "-255"}',
    '{"bigint": "-2"}', '{"bigint": "-1"}', '{"bigint": "0"}', '{"bigint": "0"}, "a"', '{"bigint": "1"}', '{"bigint": "2"}', '{"bigint": "255"}', '{"bigint": "256"}', '{"bigint": "257"}',
    '{"bigint": "65535"}', '{"bigint": "65536"}', '{"bigint": "72057594037927935"}', '{"bigint": "72057594037927936"}', '{"bigint": "18446744073709551615"}',
    '{"bigint": "18446744073709551616"}', '{"bigint": "18446744073709551617"}', '{"bigint": "' || (pg_temp.pow2(2032) - 1) || '"}', '{"bigint": "' || pg_temp.pow2(2032) || '"}',
    '{"bigint": "' || (pg_temp.pow2(2040) - 1) || '"}',
    '{"number": "-NaN"}', '{"number": "-Infinity"}', '{"number": "-1.7976931348623157e308"}', '{"number": "-1e300"}', '-9007199254740992', '-2', '-1.5', '-1', '-0.1', '-2.2250738585072014e-308',
    '-5e-324', '{"number": "-0"}', '0', '0, "a"', '5e-324', '2.2250738585072014e-308', '0.1', '1', '1.5', '2', '10', '9007199254740992', '{"number": "1e300"}', '{"number": "1.7976931348623157e308"}',
    '{"number": "Infinity"}', '{"number": "NaN"}',
    'false', 'false, true', 'true', 'true, {"bytes": ""}', 'true, true']) WITH ORDINALITY u(part, n) ORDER BY n;
SELECT count(*), count(DISTINCT key) FROM ordered;
SELECT a.key, b.key FROM ordered a JOIN ordered b ON b.id = a.id + 1
    WHERE NOT (a.key < b.key AND a.key <= b.key AND b.key > a.key AND b.key >= a.key AND a.key <> b.key AND NOT a.key = b.key AND kvkey_cmp(a.key, b.key) < 0);
SELECT count(*) AS misplaced FROM (SELECT id, row_number() OVER (ORDER BY key) AS place FROM ordered) s WHERE id <> place;
SELECT count(*) AS misplaced FROM (SELECT id, row_number() OVER (ORDER BY key DESC) AS place FROM ordered) s WHERE (SELECT count(*) FROM ordered) + 1 - id <> place;
SELECT count(*) AS changed FROM ordered WHERE key <> key::text::kvkey OR key <> key::jsonb::kvkey OR key <> key::bytea::kvkey;

-- Many keys of each kind are in the order of their SQL values.  md5() makes the same ones everywhere.
CREATE FUNCTION pg_temp.bits(seed text, n int) RETURNS bigint LANGUAGE sql AS $$ SELECT ('x' || left(md5(seed), n / 4))::bit(64)::bigint >> (64 - n) & ((1::bigint << n) - 1) $$;
CREATE TEMP TABLE drawn AS
    SELECT i, (pg_temp.bits('f' || i, 48) - (1::bigint << 47)) * 10::float8 ^ (pg_temp.bits('e' || i, 8) * 2 - 256) AS number,
           (pg_temp.bits('s' || i, 1) * 2 - 1) * (pg_temp.bits('b' || i, 60)::numeric * (2::numeric ^ pg_temp.bits('c' || i, 8))) AS bigint,
           translate(substr(md5('t' || i), 1, pg_temp.bits('l' || i, 4)::int), '0123', chr(1) || 'é€😀') AS string,
           decode(replace(substr(md5('y' || i), 1, 2 * pg_temp.bits('m' || i, 4)::int), 'ff', '00'), 'hex') AS bytes
    FROM generate_series(1, 3000) i;
UPDATE drawn SET bigint = round(bigint);
SELECT count(DISTINCT kv_key(number)), count(DISTINCT kv_key(jsonb_build_object('bigint', bigint::text))), count(DISTINCT kv_key(string)), count(DISTINCT kv_key(bytes)) FROM drawn;
SELECT count(*) FILTER (WHERE n <> rank_n) AS numbers, count(*) FILTER (WHERE b <> rank_b) AS bigints, count(*) FILTER (WHERE s <> rank_s) AS strings,
       count(*) FILTER (WHERE y <> rank_y) AS bytes
FROM (SELECT rank() OVER (ORDER BY number) AS n, rank() OVER (ORDER BY kv_key(number)) AS rank_n,
             rank() OVER (ORDER BY bigint) AS b, rank() OVER (ORDER BY kv_key(jsonb_build_object('bigint', bigint::text))) AS rank_b,
             rank() OVER (ORDER BY string COLLATE "C") AS s, rank() OVER (ORDER BY kv_key(string)) AS rank_s,
             rank() OVER (ORDER BY bytes) AS y, rank() OVER (ORDER BY kv_key(bytes)) AS rank_y FROM drawn) r;

-- What comes out as a number is exactly what went in.
SELECT count(*) AS changed FROM drawn WHERE abs(number) <= 2^53 AND (kv_key(number)::jsonb ->> 0)::float8 <> number
    OR abs(number) > 2^53 AND (kv_key(number)::jsonb #>> '{0,number}')::float8 <> number
    OR (kv_key(jsonb_build_object('bigint', bigint::text))::jsonb #>> '{0,bigint}')::numeric <> bigint;

-- Paths of mixed parts: they sort as their bytes, and come back the same from every form.
CREATE TEMP TABLE mixed AS
    SELECT i, (SELECT kv_key(VARIADIC array_agg(CASE pg_temp.bits('k' || i || p, 3)
                    WHEN 0 THEN to_jsonb(string)
                    WHEN 1 THEN jsonb_build_object('bytes', encode(bytes, 'base64'))
                    WHEN 2 THEN jsonb_build_object('bigint', bigint::text)
                    WHEN 3 THEN to_jsonb(pg_temp.bits('n' || i || p, 8) - 128)
                    WHEN 4 THEN jsonb_build_object('number', number::text)
                    WHEN 5 THEN to_jsonb(i % 2 = 0)
                    WHEN 6 THEN jsonb_build_object('utf8', encode(convert_to(string, 'UTF8') || '\x00' || convert_to(string, 'UTF8'), 'base64'))
                    ELSE to_jsonb(pg_temp.bits('w' || i || p, 4)::text) END ORDER BY p))
               FROM generate_series(1, 1 + i % 4) p) AS key
    FROM drawn;
SELECT count(*), count(DISTINCT key), count(DISTINCT key::text), count(DISTINCT key::bytea), min(length(key::bytea)), max(length(key::bytea)) FROM mixed;
SELECT count(*) AS misplaced FROM (SELECT rank() OVER (ORDER BY key) AS k, rank() OVER (ORDER BY key::bytea) AS b FROM mixed) r WHERE k <> b;
SELECT count(*) AS changed FROM mixed WHERE key <> key::text::kvkey OR key <> key::jsonb::kvkey OR key <> key::bytea::kvkey OR key::jsonb::text <> key::text;

-- Damaged encodings: one byte changed, or the end missing.  Whatever is accepted is a key that comes back the same.
DO $$
DECLARE
    damaged bytea;
    accepted int := 0;
    rejected int := 0;
BEGIN
    FOR damaged IN
        SELECT set_byte(key::bytea, (pg_temp.bits('p' || i || d, 12) % length(key::bytea))::int, pg_temp.bits('v' || i || d, 8)::int) FROM mixed, generate_series(1, 5) d
        UNION ALL SELECT substr(key::bytea, 1, l) FROM mixed, generate_series(0, 40) l WHERE i <= 300 AND l < length(key::bytea)
    LOOP
        BEGIN
            ASSERT damaged::kvkey::bytea = damaged AND damaged::kvkey::text::kvkey::bytea = damaged, damaged;
            accepted := accepted + 1;
        EXCEPTION WHEN invalid_binary_representation THEN
            rejected := rejected + 1;
        END;
    END LOOP;
    RAISE NOTICE 'many accepted: %, many rejected: %', accepted > 1000, rejected > 1000;
END $$;

--
-- Binary COPY: out and in again, and what may not come in
--

\getenv abs_builddir PG_ABS_BUILDDIR
\cd :abs_builddir
CREATE TEMP TABLE copied (i int, key kvkey);
\copy mixed TO 'results/05_key.copy' (FORMAT binary)
\copy copied FROM 'results/05_key.copy' (FORMAT binary)
SELECT count(*), count(*) FILTER (WHERE m.key <> c.key) AS changed FROM mixed m JOIN copied c USING (i);
CREATE TEMP TABLE raw AS SELECT 1 AS i, '\x02ff00'::bytea AS key;
\copy raw TO 'results/05_key.copy' (FORMAT binary)
\set VERBOSITY sqlstate
\copy copied FROM 'results/05_key.copy' (FORMAT binary)
UPDATE raw SET key = decode(repeat('26', 2049), 'hex');
\copy raw TO 'results/05_key.copy' (FORMAT binary)
\copy copied FROM 'results/05_key.copy' (FORMAT binary)
UPDATE raw SET key = '';
\copy raw TO 'results/05_key.copy' (FORMAT binary)
\copy copied FROM 'results/05_key.copy' (FORMAT binary)
\set VERBOSITY default
SELECT key FROM copied WHERE i = 1 AND key = kv_key();

--
-- Indexes, joins and sorts
--

SELECT amname, amvalidate(c.oid), opcdefault FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod WHERE opcintype = 'kvkey'::regtype ORDER BY 1;

CREATE TEMP TABLE entry AS SELECT i, kv_key(CASE i % 3 WHEN 0 THEN 'users' ELSE 'a long and common beginning' END, md5(i::text), i) AS key FROM generate_series(1, 20000) i;
CREATE UNIQUE INDEX entry_key ON entry (key);
ANALYZE entry;
EXPLAIN (COSTS off) SELECT i FROM entry WHERE key = kv_key('users', md5('300'), 300);
SELECT i FROM entry WHERE key = kv_key('users', md5('300'), 300);
SELECT i FROM entry WHERE key = jsonb_build_array('users', md5('300'), 300);
EXPLAIN (COSTS off) SELECT key FROM entry ORDER BY key LIMIT 1;
SET enable_seqscan = off; SET enable_bitmapscan = off;
EXPLAIN (COSTS off) SELECT count(*) FROM entry WHERE key >= '["users"]' AND key < '["userz"]';
SELECT count(*) FROM entry WHERE key >= '["users"]' AND key < '["userz"]';
RESET ALL;
INSERT INTO entry VALUES (0, kv_key('users', md5('300'), 300.0));

-- The index, and a sort that uses abbreviated keys, agree with the bytes.
SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;
SELECT count(*), count(*) FILTER (WHERE key::bytea < previous) AS misplaced FROM (SELECT key, lag(key::bytea) OVER (ORDER BY key) AS previous FROM entry) s;
SET enable_seqscan = off; SET enable_sort = off; RESET enable_indexonlyscan;
SELECT count(*), count(*) FILTER (WHERE key::bytea < previous) AS misplaced FROM (SELECT key, lag(key::bytea) OVER (ORDER BY key) AS previous FROM entry) s;
RESET ALL;

DROP INDEX pg_temp.entry_key;
CREATE INDEX entry_hash ON entry USING hash (key);
EXPLAIN (COSTS off) SELECT i FROM entry WHERE key = kv_key('users', md5('300'), 300);
SELECT i FROM entry WHERE key = kv_key('users', md5('300'), 300);
DROP INDEX pg_temp.entry_hash;

SET enable_mergejoin = off; SET enable_nestloop = off;
EXPLAIN (COSTS off) SELECT count(*) FROM entry a JOIN entry b USING (key);
SELECT count(*) FROM entry a JOIN entry b USING (key);
SET enable_hashjoin = off; RESET enable_mergejoin;
EXPLAIN (COSTS off) SELECT count(*) FROM entry a JOIN entry b USING (key);
SELECT count(*) FROM entry a JOIN entry b USING (key);
RESET ALL;
SET enable_sort = off;
SELECT count(*) FROM (SELECT key FROM entry UNION SELECT key FROM entry) u;
RESET ALL;
CREATE TEMP TABLE parted (key kvkey) PARTITION BY HASH (key);
CREATE TEMP TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TEMP TABLE parted_1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parted SELECT key FROM entry;
SELECT count(*), count(*) FILTER (WHERE tableoid = 'pg_temp.parted_0'::regclass) > 9000 AS in_0, count(*) FILTER (WHERE tableoid = 'pg_temp.parted_1'::regclass) > 9000 AS in_1 FROM parted;

-- Keys that lie out of line in the TOAST table are compared, sorted and hashed by what they are.
CREATE TEMP TABLE far (n int, key kvkey);
INSERT INTO far SELECT n, kv_key(repeat('x', 2035) || lpad(n::text, 3, '0')) FROM generate_series(1, 50) i, LATERAL (SELECT i * 37 % 50 + 1) s (n);
ALTER TABLE far ALTER key SET STORAGE external, ADD pad text DEFAULT repeat('-', 500);
ALTER TABLE far ALTER pad SET STORAGE plain;
UPDATE far SET key = kv_key_from_json(key::jsonb);
SELECT pg_relation_size(reltoastrelid) > 0 AS some_are_out_of_line FROM pg_class WHERE oid = 'far'::regclass;
SELECT count(*) FILTER (WHERE a.key = b.key) AS equal, count(*) FILTER (WHERE (a.key < b.key) = (a.n < b.n)) AS ordered,
       count(*) FILTER (WHERE (a.key = b.key) = (a.n = b.n)) AS told_apart FROM far a, far b;
SELECT count(*) FROM (SELECT n, row_number() OVER (ORDER BY key) AS place FROM far) s WHERE n = place;
SELECT count(DISTINCT key) AS distinct_keys, count(DISTINCT h) AS hashes FROM (SELECT key, hashtextextended(key::text, 0) AS h FROM far) s;
SELECT count(*) FROM far a JOIN far b USING (key);
