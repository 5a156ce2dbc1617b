-- Keys: the type kvkey, kv_key(), and what indexes and sorts keys.  The code is in src/key*.c.

-- The type.  Its bytes are the order, so they are never compressed, and comparing and hashing are bytea's own functions.

CREATE TYPE kvkey;

CREATE FUNCTION kvkey_in(cstring) RETURNS kvkey
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_in';
COMMENT ON FUNCTION kvkey_in(cstring) IS 'input of kvkey: a JSON array of parts';

CREATE FUNCTION kvkey_out(kvkey) RETURNS cstring
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_out';
COMMENT ON FUNCTION kvkey_out(kvkey) IS 'output of kvkey: a JSON array of parts';

CREATE FUNCTION kvkey_recv(internal) RETURNS kvkey
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_recv';
COMMENT ON FUNCTION kvkey_recv(internal) IS 'binary input of kvkey: the encoded bytes, validated';

CREATE FUNCTION kvkey_send(kvkey) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_send';
COMMENT ON FUNCTION kvkey_send(kvkey) IS 'binary output of kvkey: the encoded bytes';

CREATE TYPE kvkey (
    INPUT = kvkey_in,
    OUTPUT = kvkey_out,
    RECEIVE = kvkey_recv,
    SEND = kvkey_send,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = int4,
    STORAGE = external,
    CATEGORY = 'U'      -- and not preferred: an untyped literal has to go on choosing text
);
COMMENT ON TYPE kvkey IS
    'key of an entry: a path of parts, each a string, number, boolean, bytes or bigint, such as ["users", 42]; ordered as Deno KV orders keys';

-- Building a key.  STABLE, because renaming an enum's label changes the key made from it (enum_out() is STABLE for the same
-- reason), and the volatility cannot depend on the argument.  Index expressions and generated columns, which need IMMUTABLE,
-- can use kv_key_from_json().

CREATE FUNCTION kv_key(VARIADIC parts "any") RETURNS kvkey
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_key';
COMMENT ON FUNCTION kv_key("any") IS
    'the key with these parts: text, name, enum and uuid are strings, any SQL number a number, boolean, bytea, and jsonb is one part in JSON form';

CREATE FUNCTION kv_key() RETURNS kvkey
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_key';
COMMENT ON FUNCTION kv_key() IS 'the key without parts: as a prefix, every key begins with it';

-- Conversions

CREATE FUNCTION kv_key_from_json(parts jsonb) RETURNS kvkey
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_key_from_json';
COMMENT ON FUNCTION kv_key_from_json(jsonb) IS
    'the key of a JSON array of parts; {"bytes": base64}, {"bigint": decimal}, {"number": "NaN"} and {"utf8": base64} say what JSON cannot';

CREATE FUNCTION kv_key_to_json(key kvkey) RETURNS jsonb
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_key_to_json';
COMMENT ON FUNCTION kv_key_to_json(kvkey) IS 'the JSON form of a key, an array of parts; kv_key_from_json reads it back exactly';

CREATE FUNCTION kvkey_from_bytea(bytea) RETURNS kvkey
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_from_bytea';
COMMENT ON FUNCTION kvkey_from_bytea(bytea) IS 'the key with these encoded bytes, validated: the cast from bytea to kvkey';

CREATE CAST (jsonb AS kvkey) WITH FUNCTION kv_key_from_json(jsonb) AS IMPLICIT;
COMMENT ON CAST (jsonb AS kvkey) IS 'the key of a JSON array of parts';

CREATE CAST (kvkey AS jsonb) WITH FUNCTION kv_key_to_json(kvkey);
COMMENT ON CAST (kvkey AS jsonb) IS 'the JSON form of a key';

CREATE CAST (bytea AS kvkey) WITH FUNCTION kvkey_from_bytea(bytea);
COMMENT ON CAST (bytea AS kvkey) IS 'the key with these encoded bytes, validated';

CREATE CAST (kvkey AS bytea) WITHOUT FUNCTION;
COMMENT ON CAST (kvkey AS bytea) IS 'the encoded bytes of a key';

-- Comparison: unsigned bytes, a prefix before what is longer

CREATE FUNCTION kvkey_lt(kvkey, kvkey) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_lt';
COMMENT ON FUNCTION kvkey_lt(kvkey, kvkey) IS 'implementation of < operator';

CREATE FUNCTION kvkey_le(kvkey, kvkey) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_le';
COMMENT ON FUNCTION kvkey_le(kvkey, kvkey) IS 'implementation of <= operator';

CREATE FUNCTION kvkey_eq(kvkey, kvkey) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_eq';
COMMENT ON FUNCTION kvkey_eq(kvkey, kvkey) IS 'implementation of = operator';

CREATE FUNCTION kvkey_ne(kvkey, kvkey) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_ne';
COMMENT ON FUNCTION kvkey_ne(kvkey, kvkey) IS 'implementation of <> operator';

CREATE FUNCTION kvkey_ge(kvkey, kvkey) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_ge';
COMMENT ON FUNCTION kvkey_ge(kvkey, kvkey) IS 'implementation of >= operator';

CREATE FUNCTION kvkey_gt(kvkey, kvkey) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_gt';
COMMENT ON FUNCTION kvkey_gt(kvkey, kvkey) IS 'implementation of > operator';

CREATE FUNCTION kvkey_cmp(kvkey, kvkey) RETURNS integer
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_cmp';
COMMENT ON FUNCTION kvkey_cmp(kvkey, kvkey) IS 'less-equal-greater comparison of keys, for btree';

CREATE FUNCTION kvkey_hash(kvkey) RETURNS integer
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_hash';
COMMENT ON FUNCTION kvkey_hash(kvkey) IS 'hash of a key';

CREATE FUNCTION kvkey_hash_extended(kvkey, bigint) RETURNS bigint
    LANGUAGE c IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'kvstore_kvkey_hash_extended';
COMMENT ON FUNCTION kvkey_hash_extended(kvkey, bigint) IS 'seeded 64-bit hash of a key';

CREATE OPERATOR < (
    FUNCTION = kvkey_lt, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = >, NEGATOR = >=, RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR < (kvkey, kvkey) IS 'less than';

CREATE OPERATOR <= (
    FUNCTION = kvkey_le, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = >=, NEGATOR = >, RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
COMMENT ON OPERATOR <= (kvkey, kvkey) IS 'less than or equal';

CREATE OPERATOR = (
    FUNCTION = kvkey_eq, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES
);
COMMENT ON OPERATOR = (kvkey, kvkey) IS 'equal';

CREATE OPERATOR <> (
    FUNCTION = kvkey_ne, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR <> (kvkey, kvkey) IS 'not equal';

CREATE OPERATOR >= (
    FUNCTION = kvkey_ge, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = <=, NEGATOR = <, RESTRICT = scalargesel, JOIN = scalargejoinsel
);
COMMENT ON OPERATOR >= (kvkey, kvkey) IS 'greater than or equal';

CREATE OPERATOR > (
    FUNCTION = kvkey_gt, LEFTARG = kvkey, RIGHTARG = kvkey,
    COMMUTATOR = <, NEGATOR = <=, RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
COMMENT ON OPERATOR > (kvkey, kvkey) IS 'greater than';

-- bytea_sortsupport() sorts by bytes (with abbreviated keys) whatever the type; btequalimage() allows deduplication: equal keys
-- have equal bytes.

CREATE OPERATOR FAMILY kvkey_ops USING btree;
COMMENT ON OPERATOR FAMILY kvkey_ops USING btree IS 'order of keys: that of their encoded bytes';

CREATE OPERATOR CLASS kvkey_ops DEFAULT FOR TYPE kvkey USING btree FAMILY kvkey_ops AS
    OPERATOR 1 <,
    OPERATOR 2 <=,
    OPERATOR 3 =,
    OPERATOR 4 >=,
    OPERATOR 5 >,
    FUNCTION 1 kvkey_cmp(kvkey, kvkey),
    FUNCTION 2 (kvkey, kvkey) pg_catalog.bytea_sortsupport(internal),
    FUNCTION 4 (kvkey, kvkey) pg_catalog.btequalimage(oid);
COMMENT ON OPERATOR CLASS kvkey_ops USING btree IS 'order of keys: that of their encoded bytes';

CREATE OPERATOR FAMILY kvkey_ops USING hash;
COMMENT ON OPERATOR FAMILY kvkey_ops USING hash IS 'equality of keys';

CREATE OPERATOR CLASS kvkey_ops DEFAULT FOR TYPE kvkey USING hash FAMILY kvkey_ops AS
    OPERATOR 1 =,
    FUNCTION 1 kvkey_hash(kvkey),
    FUNCTION 2 kvkey_hash_extended(kvkey, bigint);
COMMENT ON OPERATOR CLASS kvkey_ops USING hash IS 'equality of keys';
