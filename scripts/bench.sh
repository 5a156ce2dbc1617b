#!/usr/bin/env bash
# make bench: how fast, how small.  Prints figures, each beside its target; it never fails for a figure that is not reached.
#
#	make bench				all of them
#	make bench BENCH="get set"		some, by name
#	scripts/bench.sh list			the names
#
# Each is a file test/bench/NAME.sh, sourced by this one, which gives them a private server, the data and the ways to measure.
#
# What makes a ratio worth printing on a machine that others use too: the sides run alternately in short runs, so that a slow
# moment meets all of them; medians; no checkpoint, no autovacuum and no background writer inside a run; a VACUUM and, where
# pages are to be clean, a CHECKPOINT before it.  The floor, SELECT 1 by the same protocol, runs along: what is
# between it and a rate is ours to save, what is below it is not.
#
# Environment:
#	KVS_BENCH_RUNS=7	runs of each side
#	KVS_BENCH_SECONDS=5	length of a run
#	KVS_BENCH_ROWS=1000000	entries of a store
#	BENCH			names, when none are given as arguments

# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

RUNS=${KVS_BENCH_RUNS:-7}
SECONDS_EACH=${KVS_BENCH_SECONDS:-5}
ROWS=${KVS_BENCH_ROWS:-1000000}
BENCH_DIR=$KVS_ROOT/test/bench

# What every bench file opens with is its description.
describe() { sed -n '2s/^# *//p' "$BENCH_DIR/$1.sh"; }

all_benches()
{
	local file
	for file in "$BENCH_DIR"/*.sh; do
		case ${file##*/} in instructions.sh) ;; *) basename "$file" .sh ;; esac
	done
}

# ---- Printing ----

heading() { printf '\n== %s\n' "$*"; }

# figure TEXT VALUE at-least|at-most TARGET: a figure and whether it is good enough.
REPORT=()
figure()
{
	local line
	line=$(awk -v text="$1" -v value="$2" -v kind="$3" -v target="$4" 'BEGIN {
		ok = kind == "at-least" ? value >= target : value <= target
		sub("-", " ", kind)
		printf "%-58s %9s   target %s %s: %s", text, value, kind, target, ok ? "ok" : "NOT REACHED" }')
	REPORT+=("$line")
	say "  $line"
}

# info TEXT VALUE: a figure without a target.
info() { printf '  %-58s %9s\n' "$1" "$2"; }

median() { sort -g | awk '{ a[NR] = $1 } END { print NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2 }'; }
divide() { awk -v a="$1" -v b="$2" -v format="${3:-%.3f}" 'BEGIN { printf format, b ? a / b : 0 }'; }

machine()
{
	heading "Machine"
	say "  $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, $(awk '/MemTotal/ { printf "%.0f GB", $2 / 1048576 }' /proc/meminfo), $(uname -sr)"
	say "  $(sql 'SELECT version()')"
	say "  $ROWS entries, $RUNS runs of ${SECONDS_EACH} s for each side, alternately; medians"
	say "  shared_buffers $(sql 'SHOW shared_buffers'), fsync $(sql 'SHOW fsync'), synchronous_commit $(sql 'SHOW synchronous_commit') unless said otherwise"
}

# ---- Statements ----

sql() { kvs_psql -qAt -c "$1"; }
sql_script() { kvs_psql -qAt -f - <<< "$1"; }

# side NAME SQL [VARIABLE [DIRECTORY]]: a side of a comparison, what one pgbench transaction does.
#
# In it :id is a random key.  pgbench variables that are not numbers cannot be drawn at random: with VARIABLE, each value of
# that name (one for each line of the file work/VARIABLE) makes a script of its own, and pgbench draws among the scripts.
side()
{
	local name=$1 statement=$2 variable=${3:-} dir=$KVS_TMP/work/side-$1 value n=0
	rm -rf "$dir"
	mkdir -p "$dir"
	if [ -z "$variable" ]; then
		printf '\\set id random(%s, %s)\n%s;\n' "$FIRST_KEY" $((FIRST_KEY + ROWS - 1)) "$statement" > "$dir/0.sql"
		printf '%s\n' -f "$dir/0.sql" > "$dir/arguments"
		return
	fi
	while IFS= read -r value; do
		printf '\\set id random(%s, %s)\n%s;\n' "$FIRST_KEY" $((FIRST_KEY + ROWS - 1)) "${statement//":$variable"/":$variable$n"}" > "$dir/$n.sql"
		printf '%s\n' -f "$dir/$n.sql" -D "$variable$n=$value"
		n=$((n + 1))
	done < "$KVS_TMP/work/$variable" > "$dir/arguments"
}

# pgbench_run SIDE CLIENTS: one run; sets RATE, and what it did to the server's counters: CALLS, WAL_BYTES.
pgbench_run()
{
	local out=$KVS_TMP/work/pgbench.out arguments before after
	mapfile -t arguments < "$KVS_TMP/work/side-$1/arguments"
	before=$(counters)
	kvs_run "$KVS_BIN/pgbench" -n -M prepared -c "$2" -j "$(($2 < $(nproc) ? $2 : $(nproc)))" -T "$SECONDS_EACH" "${arguments[@]}" \
		> "$out" 2>&1 || { cat "$out" >&2; die "pgbench failed"; }
	after=$(counters)
	! grep -q 'number of failed transactions: [1-9]' "$out" || { cat "$out" >&2; die "pgbench: failed transactions"; }
	RATE=$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$out")
	CALLS=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$out")
	read -r -a before <<< "$before"
	read -r -a after <<< "$after"
	WAL_BYTES=$((after[0] - before[0]))
	[ "${after[1]}" = "${before[1]}" ] || note "a checkpoint fell into a run"
}

counters() { sql "SELECT pg_current_wal_insert_lsn() - '0/0', checkpoints_timed + checkpoints_req FROM pg_stat_bgwriter" | tr '|' ' '; }

# compare CLIENTS SIDE...: run the sides alternately, RUNS times; sets MEDIAN[side], PER_CALL[side] (bytes of WAL).
#
# before_run SIDE is called before each run; a bench may define it anew.
before_run() { :; }
declare -A MEDIAN PER_CALL
RATES=
compare()
{
	local clients=$1 name i
	shift
	RATES=$KVS_TMP/work/rates
	rm -rf "$RATES"
	mkdir "$RATES"
	for ((i = 0; i < RUNS; i++)); do
		for name in "$@"; do
			before_run "$name"
			pgbench_run "$name" "$clients"
			say "$RATE" >> "$RATES/$name"
			say "$CALLS $WAL_BYTES" >> "$RATES/$name.wal"
		done
	done
	for name in "$@"; do
		MEDIAN[$name]=$(median < "$RATES/$name")
		PER_CALL[$name]=$(awk '{ c += $1; b += $2 } END { printf "%.0f", b / c }' "$RATES/$name.wal")
	done
}

# ratio TEXT A B TARGET: after compare, print A's rate by B's, and how far apart the pairs of runs were.
ratio()
{
	local text=$1 a=$2 b=$3 target=$4
	info "$text: $a" "$(divide "${MEDIAN[$a]}" 1 %.0f)/s"
	info "$text: $b" "$(divide "${MEDIAN[$b]}" 1 %.0f)/s"
	figure "$text: $a by $b" "$(divide "${MEDIAN[$a]}" "${MEDIAN[$b]}")" at-least "$target"
	info "$text: the pairs of runs lie between" "$(paste "$RATES/$a" "$RATES/$b" |
		awk '{ r = $1 / $2; if (NR == 1 || r < l) l = r; if (r > h) h = r } END { printf "%.2f and %.2f", l, h }')"
	if [ -n "${MEDIAN[floor]:-}" ] && [ -f "$RATES/floor" ]; then
		info "$text: floor, SELECT 1" "$(divide "${MEDIAN[floor]}" 1 %.0f)/s"
		info "$text: $a by floor; $b by floor" "$(divide "${MEDIAN[$a]}" "${MEDIAN[floor]}"); $(divide "${MEDIAN[$b]}" "${MEDIAN[floor]}")"
	fi
}

# ---- Data ----

# Keys are numbers of 16 digits, as text: the only thing that pgbench can draw at random.
FIRST_KEY=4821000000000000

# The same rows in a store and in the table that one would write by hand, in the same random order; every second one has an
# expiry.  Key and value have about 230 bytes together.
load_data()
{
	heading "Data"
	sql_script "
		CREATE EXTENSION kvstore;
		SELECT kv_create_store();
		CREATE TABLE hand (key text COLLATE \"C\" PRIMARY KEY, value jsonb NOT NULL, expires_at timestamptz) WITH (fillfactor = 90);
		CREATE INDEX hand_expires_at ON hand (expires_at);
		CREATE FUNCTION bench_value(n bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS \$\$
			SELECT jsonb_build_object('id', n, 'user', md5(n::text), 'token', md5('t' || n) || md5('u' || n), 'scopes',
				jsonb_build_array('chat:write', 'users:read'), 'active', n % 2 = 0) \$\$;
		CREATE UNLOGGED TABLE source AS
			SELECT ($FIRST_KEY + n)::text COLLATE \"C\" AS key, bench_value(n) AS value,
				CASE WHEN n % 2 = 0 THEN now() + interval '1 day' + n * interval '1 s' END AS expires_at
			FROM generate_series(0, $ROWS - 1) n ORDER BY md5(n::text);
		ANALYZE source;
		SELECT count(*) FROM (SELECT kv_set(key, value, expires_at => expires_at) FROM source) s;
		INSERT INTO hand SELECT * FROM source;
		CHECKPOINT;
		SELECT pg_stat_reset();" > /dev/null
	vacuum
	sql "VACUUM (FREEZE, ANALYZE)"
	# Overwrites bring values that are not there yet, lists of keys are all different.
	sql "SELECT bench_value(n) FROM generate_series($ROWS + 1, $ROWS + 100) n" > "$KVS_TMP/work/value"
	sql "SELECT array_agg(($FIRST_KEY + trunc(random() * $ROWS)::bigint)::text)::text FROM generate_series(1, 10000) n GROUP BY n % 100" > "$KVS_TMP/work/keys"
	table_sizes
}

table_sizes()
{
	kvs_psql -q -P footer=off -P border=0 -c "
		SELECT relname AS \"  table\", pg_size_pretty(pg_relation_size(oid)) AS heap, pg_size_pretty(pg_indexes_size(oid)) AS indexes,
			pg_size_pretty(pg_total_relation_size(oid)) AS total
		FROM pg_class WHERE oid IN ('kvstore.s_default'::regclass, 'hand'::regclass)" | sed 's/^/  /'
	info "bytes of a value" "$(sql 'SELECT round(avg(pg_column_size(value))) FROM (SELECT value FROM hand LIMIT 10000) h')"
}

vacuum() { sql "VACUUM kvstore.s_default" && sql "VACUUM hand"; }

# ---- Main ----

if [ "${1:-}" = list ]; then
	for name in $(all_benches); do
		printf '%-14s %s\n' "$name" "$(describe "$name")"
	done
	exit 0
fi

wanted=("$@")
[ $# -gt 0 ] || read -r -a wanted <<< "${BENCH:-}"
[ ${#wanted[@]} -gt 0 ] || mapfile -t wanted < <(all_benches)
for name in "${wanted[@]}"; do
	[ -f "$BENCH_DIR/$name.sh" ] || die "there is no bench \"$name\"; scripts/bench.sh "list" lists them"
done

kvs_install_missing bench
kvs_build
kvs_make_tmp
kvs_make_tree
kvs_server_start bench "shared_preload_libraries = 'kvstore'" "shared_buffers = '2GB'" "max_wal_size = '200GB'" "checkpoint_timeout = '1d'" \
	"max_connections = 200" "wal_buffers = '64MB'" "autovacuum = off" "bgwriter_lru_maxpages = 0" "max_parallel_workers_per_gather = 0" "jit = off"
machine
# The benches of queues need no entries.
case " ${wanted[*]/#queue*/} " in *[!\ ]*) load_data ;; esac
side floor "SELECT 1"
for name in "${wanted[@]}"; do
	heading "$name: $(describe "$name")"
	before_run() { :; }
	# shellcheck source=/dev/null
	. "$BENCH_DIR/$name.sh"
done

if [ ${#REPORT[@]} -gt 0 ]; then
	heading "Targets"
	printf '  %s\n' "${REPORT[@]}"
fi
