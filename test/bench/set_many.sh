# shellcheck shell=bash
# kv_set_many of 1,000 random existing keys, against INSERT ... SELECT unnest ... ON CONFLICT; synchronous_commit off

sql "CREATE TABLE batches AS
	SELECT n % 200 AS batch, array_agg(key ORDER BY key) AS keys, array_agg(bench_value(n + $ROWS) ORDER BY key) AS new_values
	FROM (SELECT DISTINCT ON (n % 200, key) n, key FROM (
		SELECT n, ($FIRST_KEY + trunc(random() * $ROWS)::bigint)::text AS key FROM generate_series(1, 200000) n) r) d
	GROUP BY n % 200"
sql "VACUUM ANALYZE batches"

side kv_set_many "SELECT kv_set_many(keys, new_values, ttl => :ttl * interval '1 ms') FROM batches WHERE batch = :id::bigint % 200"
side unnest "INSERT INTO hand AS h (key, value, expires_at)
	SELECT u.key, u.value, now() + :ttl * interval '1 ms' FROM batches, unnest(keys, new_values) AS u (key, value) WHERE batch = :id::bigint % 200
	ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at"
sed -i "s/^\\\\set id .*/&\n\\\\set ttl 3600000/" "$KVS_TMP"/work/side-{kv_set_many,unnest}/*.sql

before_run()
{
	case $1 in
		kv_set_many) sql "VACUUM kvstore.s_default" ;;
		unnest) sql "VACUUM hand" ;;
	esac
}

sql "ALTER DATABASE postgres SET synchronous_commit = off"
sql CHECKPOINT
compare 1 kv_set_many unnest floor
ratio "set_many, 1,000 keys" kv_set_many unnest 1.2
sql "ALTER DATABASE postgres RESET synchronous_commit"
