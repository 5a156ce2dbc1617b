# shellcheck shell=bash
# kv_atomic with one check and one set, and with ten sets, against kv_set; 1 client

# The check is of the entry that is then set, as after a read; its versionstamp is read by the same statement on both sides, which is why the
# single set is a compare-and-set too.
side kv_set "SELECT kv_set(:id::text, :value::jsonb, if_version => versionstamp) FROM kv_entry(:id::text)" value
side check_set "SELECT ok FROM kv_entry(:id::text) e, kv_atomic(jsonb_build_array(
	jsonb_build_object('check', jsonb_build_object('key', e.key, 'versionstamp', e.versionstamp)),
	jsonb_build_object('set', jsonb_build_object('key', e.key, 'value', :value::jsonb))))" value
side single "SELECT kv_set(:id::text, :value::jsonb)" value

# Ten random keys with one value each.
sql "SELECT jsonb_agg(jsonb_build_object('set', jsonb_build_object('key', ($FIRST_KEY + trunc(random() * $ROWS)::bigint)::text, 'value', bench_value(n))))
	FROM generate_series(1, 1000) n GROUP BY n % 100" > "$KVS_TMP/work/sets"
side ten_sets "SELECT ok FROM kv_atomic(:sets::jsonb)" sets

for mode in on off; do
	sql "ALTER DATABASE postgres SET synchronous_commit = $mode"
	sql CHECKPOINT
	compare 1 check_set kv_set floor
	ratio "atomic, check and set, synchronous_commit $mode" check_set kv_set 0.75
	compare 1 ten_sets single floor
	ratio "atomic, calls with ten sets, synchronous_commit $mode" ten_sets single 0.4
done
sql "ALTER DATABASE postgres RESET synchronous_commit"
