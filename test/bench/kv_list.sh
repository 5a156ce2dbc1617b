# shellcheck shell=bash
# kv_list of 100 entries by prefix, against a hand-written range scan, at several sizes, also with path keys between; 1 client

# Keys are of groups of 100: the prefix is a group.
list_data()	# ENTRIES
{
	sql_script "
		DROP TABLE IF EXISTS groups;
		CREATE UNLOGGED TABLE groups (key text COLLATE \"C\" PRIMARY KEY, value jsonb NOT NULL, expires_at timestamptz) WITH (fillfactor = 90);
		SELECT kv_drop_store('groups');
		SELECT kv_create_store('groups', unlogged => true);
		INSERT INTO groups SELECT (g + 1000000)::text || ':' || lpad(n::text, 2, '0'), bench_value(n)
			FROM generate_series(0, $1 / 100 - 1) g, generate_series(0, 99) n;
		INSERT INTO kvstore.s_groups (key, value) SELECT kv_key(key), value FROM groups;" > /dev/null
	sql "VACUUM (FREEZE, ANALYZE) groups"
	sql "VACUUM (FREEZE, ANALYZE) kvstore.s_groups"
	sql CHECKPOINT
}

declare -A LIST_RATE
for entries in 10000 1000000 ${KVS_BENCH_LARGE:-10000000}; do
	list_data "$entries"
	side kv_list "SELECT key, value FROM kv_list((1000000 + :id::bigint % ($entries / 100))::text || ':', page_size => 100, store => 'groups')"
	side range "SELECT key, value FROM groups WHERE key >= (1000000 + :id::bigint % ($entries / 100))::text || ':'
		AND key < (1000000 + :id::bigint % ($entries / 100))::text || ';' AND (expires_at IS NULL OR expires_at > now()) ORDER BY key LIMIT 100"
	compare 1 kv_list range floor
	ratio "list, $entries entries" kv_list range 1.0
	LIST_RATE[$entries]=${MEDIAN[kv_list]}
	largest=$entries
done
figure "list: rate at $largest entries by that at 10,000" "$(divide "${LIST_RATE[$largest]}" "${LIST_RATE[10000]}")" at-least 0.8

# Memory: what a backend holds while it lists everything, against the result that stays in a temporary file.
memory=$(sql "SET work_mem = '4MB'; SELECT sum(length(key)) FROM kv_list('', store => 'groups'); SELECT pg_read_file('/proc/self/status')" |
	sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p; s/^RssShmem:[^0-9]*\([0-9]*\).*/\1/p' | paste -sd' ' | awk '{ printf "%.0f", ($1 - $2) / 1024 }')
start=$(sql "SELECT kv_get('none'); SELECT pg_read_file('/proc/self/status')" |
	sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p; s/^RssShmem:[^0-9]*\([0-9]*\).*/\1/p' | paste -sd' ' | awk '{ printf "%.0f", ($1 - $2) / 1024 }')
figure "list of $(sql "SELECT kv_count('', 'groups')") entries: MB above a session's start, work_mem 4 MB" "$((memory - start))" at-most 14

# Twenty paths below every tenth string of a store of 1,000,000: the text form steps over them.
list_data 1000000
compare 1 kv_list floor
without=${MEDIAN[kv_list]}
sql "INSERT INTO kvstore.s_groups (key, value)
	SELECT kv_key(key, n), '1' FROM groups, generate_series(1, 20) n WHERE right(key, 1) = '0' AND hashtext(key) % 10 = 0"
sql "VACUUM (FREEZE, ANALYZE) kvstore.s_groups"
side kv_list "SELECT key, value FROM kv_list((1000000 + :id::bigint % 10000)::text || ':', page_size => 100, store => 'groups')"
compare 1 kv_list floor
figure "list: rate with families of path keys between by that without" "$(divide "${MEDIAN[kv_list]}" "$without")" at-least 0.8
