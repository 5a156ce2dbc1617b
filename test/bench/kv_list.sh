# shellcheck shell=bash
# kv_list of 100 entries by prefix, against a hand-written range scan, at several sizes, also with path keys between; 1 client

# Keys are of groups of 100: the prefix is a group.  The rows of a group lie together, as they do when they were written together; where each was written at
# another time, each is on a page of its own, and what a list costs, by hand too, is what it takes to get at 100 pages, which is more the larger the table.
list_data()	# ENTRIES together|apart
{
	local loops="generate_series(0, $1 / 100 - 1) g, generate_series(0, 99 + 0 * g) n"
	[ "$2" = together ] || loops="generate_series(0, 99) n, generate_series(0, $1 / 100 - 1 + 0 * n) g"
	sql_script "
		DROP TABLE IF EXISTS groups;
		CREATE UNLOGGED TABLE groups (key text COLLATE \"C\" PRIMARY KEY, value jsonb NOT NULL, expires_at timestamptz) WITH (fillfactor = 90);
		SELECT kv_drop_store('groups');
		SELECT kv_create_store('groups', unlogged => true);
		INSERT INTO groups SELECT (g + 1000000)::text || ':' || lpad(n::text, 2, '0'), bench_value(n)
			FROM $loops;
		INSERT INTO kvstore.s_groups (key, value) SELECT kv_key(key), value FROM groups;" > /dev/null
	sql "VACUUM (FREEZE, ANALYZE) groups"
	sql "VACUUM (FREEZE, ANALYZE) kvstore.s_groups"
	sql CHECKPOINT
}

list_sides()	# ENTRIES
{
	side kv_list "SELECT key, value FROM kv_list((1000000 + :id::bigint % ($1 / 100))::text || ':', page_size => 100, store => 'groups')"
	side range "SELECT key, value FROM groups WHERE key >= (1000000 + :id::bigint % ($1 / 100))::text || ':'
		AND key < (1000000 + :id::bigint % ($1 / 100))::text || ';' AND (expires_at IS NULL OR expires_at > now()) ORDER BY key LIMIT 100"
}

declare -A LIST_RATE
for entries in 10000 1000000 ${KVS_BENCH_LARGE:-10000000}; do
	list_data "$entries" together
	list_sides "$entries"
	compare 1 kv_list range floor
	ratio "list, $entries entries" kv_list range 1.0
	LIST_RATE[$entries]=${MEDIAN[kv_list]}
	largest=$entries
done
figure "list: rate at $largest entries by that at 10,000" "$(divide "${LIST_RATE[$largest]}" "${LIST_RATE[10000]}")" at-least 0.8

# Memory: what a backend holds while it lists everything, entry by entry and into a temporary file (as it is for WITH ORDINALITY).
memory=$(sql "SET work_mem = '4MB'; SELECT sum(length(key)) FROM kv_list('', store => 'groups'); SELECT sum(ordinality) FROM kv_list('', store => 'groups') WITH ORDINALITY; SELECT pg_read_file('/proc/self/status')" |
	sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p; s/^RssShmem:[^0-9]*\([0-9]*\).*/\1/p' | paste -sd' ' | awk '{ printf "%.0f", ($1 - $2) / 1024 }')
start=$(sql "SELECT kv_get('none'); SELECT pg_read_file('/proc/self/status')" |
	sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p; s/^RssShmem:[^0-9]*\([0-9]*\).*/\1/p' | paste -sd' ' | awk '{ printf "%.0f", ($1 - $2) / 1024 }')
figure "list of $(sql "SELECT kv_count('', 'groups')") entries: MB above a session's start, work_mem 4 MB" "$((memory - start))" at-most 14

list_data 1000000 apart
list_sides 1000000
compare 1 kv_list range floor
ratio "list, 1,000,000 entries, each row on another page" kv_list range 1.0

# Twenty paths below every tenth string of a store of 1,000,000: the text form steps over them.
list_data 1000000 together
list_sides 1000000
compare 1 kv_list floor
without=${MEDIAN[kv_list]}
sql "INSERT INTO kvstore.s_groups (key, value)
	SELECT kv_key(key, n), '1' FROM groups, generate_series(1, 20) n WHERE right(key, 1) = '0' AND hashtext(key) % 10 = 0"
sql "VACUUM (FREEZE, ANALYZE) kvstore.s_groups"
compare 1 kv_list range floor
ratio "list, families of path keys between" kv_list range 1.0
figure "list: rate with families of path keys between by that without" "$(divide "${MEDIAN[kv_list]}" "$without")" at-least 0.8
