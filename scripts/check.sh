#!/usr/bin/env bash
# make check: every test, on private throw-away servers, beside whatever else this machine runs.
#
# Suites: static (exported symbols, headers, names, floors, fault points), regress (pg_regress, once with kvstore preloaded and once without, since the
# key-value part promises to work without), isolation, tap, pgtap.  The last line is "N passed, N failed" alone; the exit
# status is 0 only when something ran and nothing failed.
#
# A regress test with a line "-- kvs: needs preload" runs with preload only; an isolation spec with a line
# "# kvs: also without preload" runs without it too.  Output goes to results/ (without preload: results/noload/), for
# comparing with expected/.
#
# Environment: KVS_ONLY="regress tap" chooses suites, KVS_TESTS="kv 001_install" tests by name, KVS_SKIP="013_load" leaves tests out,
# KVS_JOBS how many TAP tests run at once (2); see common.sh for more.

# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PASSED=0
FAILED=0
SHORT=""
SUITES=${KVS_ONLY:-static regress isolation tap pgtap}
for suite in $SUITES; do
	case $suite in
		static | regress | isolation | tap | pgtap) ;;
		*) die "KVS_ONLY: there is no suite \"$suite\" (static regress isolation tap pgtap)" ;;
	esac
done

wanted_suite() { [[ " $SUITES " == *" $1 "* ]]; }
wanted_test() { [[ (-z ${KVS_TESTS:-} || " $KVS_TESTS " == *" $1 "*) && " ${KVS_SKIP:-} " != *" $1 "* ]]; }

# The wanted tests of a folder: FOLDER EXTENSION; names without extension, one a line.
tests_in()
{
	local file name
	for file in "$KVS_ROOT/$1"/*."$2"; do
		name=$(basename "$file" ".$2")
		if [ -e "$file" ] && wanted_test "$name"; then
			say "$name"
		fi
	done
}

# Add to the totals and tell: SUITE PASSED FAILED START [END]
tally()
{
	PASSED=$((PASSED + $2))
	FAILED=$((FAILED + $3))
	printf '%-28s %4d passed %4d failed   %s\n' "$1" "$2" "$3" "$(seconds_since "${@:4}")"
}

# A few lines of what failed, told again before the last line: a log may be looked at from its end.  NAME; lines on stdin
shortly() { SHORT+=$'\n'"-- $1"$'\n'$(head -n 8 | cut -c 1-300); }

# ---- static: what needs no server ----

# 15 loads libraries with all their symbols visible to one another: one without our prefix may meet another extension's.
check_symbols()
{
	local others
	others=$(nm -D --defined-only "$KVS_BUILD/kvstore.so" | awk '{ print $NF }' |
		grep -Ev '^(kvs_|kvstore_|pg_finfo_kvstore_|Pg_magic_func$|_PG_init$)') || return 0
	say "symbols without prefix in kvstore.so:" "$others"
	return 1
}

check_headers() { "${KVS_MAKE[@]}" headerscheck; }

# pg_regress takes ./sql/NAME.sql for test/sql/NAME.sql: "make installcheck" would run a part of the install script as a
# test.  And output of a spec and a test of one name is one file.
check_names()
{
	local name twice=0
	for name in "$KVS_ROOT"/test/sql/*.sql; do
		name=$(basename "$name" .sql)
		if [ -e "$KVS_ROOT/sql/$name.sql" ] || [ -e "$KVS_ROOT/test/specs/$name.spec" ]; then
			say "test/sql/$name.sql: the name is also that of sql/$name.sql or test/specs/$name.spec"
			twice=1
		fi
	done
	return $twice
}

check_layers() { "$KVS_ROOT/scripts/layers.sh" "$KVS_BUILD"; }

# The fault points of the code are those of the document.
check_faults()
{
	diff <(sed -nE 's/^\tPOINT\([A-Z_]+, "(.*)"\).*/\1/p' "$KVS_ROOT/src/base/fault.h" | sort) \
		<(sed -n '/^## Fault points/,/^## Write a test/s/^| `\([a-z-]*\)` |.*/\1/p' "$KVS_ROOT/doc/testing.md" | sort)
}

# Numbers of TAP tests are used once.
check_numbers()
{
	local twice
	twice=$(cd "$KVS_ROOT/test/t" && printf '%s\n' [0-9]*.pl | sed 's/_.*//' | sort | uniq -d)
	[ -z "$twice" ] || { say "test/t has two tests with one number:" "$twice"; return 1; }
}

run_static()
{
	local name start=$EPOCHREALTIME passed=0 failed=0
	for name in symbols headers names layers faults numbers; do
		wanted_test $name || continue
		if "check_$name" < /dev/null; then
			passed=$((passed + 1))
		else
			say "FAILED: $name"
			shortly "static/$name" < /dev/null
			failed=$((failed + 1))
		fi
	done
	[ $((passed + failed)) = 0 ] || tally static $passed $failed "$start"
}

# ---- regress and isolation: compare output with what is expected ----

# RUN (a name for this run) SERVER PROGRAM DATABASE RESULTS TESTS...
run_pg_regress()
{
	local run=$1 server=$2 program=$3 database=$4 results=$5 start=$EPOCHREALTIME work log status=0 passed failed
	shift 5
	[ $# -gt 0 ] || return 0
	kvs_copy_in "$run" test expected
	work=$KVS_TMP/work/$run
	log=$KVS_TMP/$run.log
	kvs_server_use "$server"
	cd "$work"
	kvs_run "$PG_TESTDIR/$program" --inputdir=test --outputdir=. --bindir="$KVS_BIN" --dbname="$database" \
		--encoding=UTF8 --load-extension=kvstore \
		--host="$PGHOST" --port="$PGPORT" --user="$PGUSER" "$@" > "$log" 2>&1 || status=$?
	cd "$KVS_TMP"
	# "test x ... ok" in 15, "ok 1 - x" from 16 on
	passed=$(grep -cE '^(test .* \.\.\. ok|ok [0-9]+ )' "$log" || true)
	failed=$(grep -cE '^(test .* \.\.\. FAILED|not ok [0-9]+ )' "$log" || true)
	# Tests that never ran have failed too.
	[ $((passed + failed)) -ge $# ] || failed=$(($# - passed))
	[ $status = 0 ] || [ "$failed" -gt 0 ] || failed=1
	if [ "$failed" -gt 0 ]; then
		say "---- $run: output of $(basename "$program") ----"
		cat "$log"
		if [ -s "$work/regression.diffs" ]; then
			say "---- $run: differences from what was expected (the first 400 lines) ----"
			sed -n '1,400p' "$work/regression.diffs"
		fi
		shortly "$run" < <(grep -E 'FAILED|^not ok' "$log" | head -n 3; grep -E '^[-+]' "$work/regression.diffs" 2> /dev/null)
		kvs_log_tail "$server"
	fi
	if [ -d "$work/results" ]; then
		kvs_as_owner mkdir -p "$KVS_ROOT/$results"
		tar -C "$work/results" -cf - . | kvs_as_owner tar -C "$KVS_ROOT/$results" --no-same-owner -xf - --no-overwrite-dir
	fi
	tally "$run" "$passed" "$failed" "$start"
}

run_regress()
{
	local all noload
	mapfile -t all < <(tests_in test/sql sql)
	mapfile -t noload < <(for name in "${all[@]}"; do
		grep -q '^-- kvs: needs preload' "$KVS_ROOT/test/sql/$name.sql" || say "$name"
	done)
	run_pg_regress regress preload regress/pg_regress contrib_regression results "${all[@]}"
	run_pg_regress regress-noload noload regress/pg_regress contrib_regression results/noload "${noload[@]}"
}

run_isolation()
{
	local all noload
	mapfile -t all < <(tests_in test/specs spec)
	mapfile -t noload < <(for name in "${all[@]}"; do
		! grep -q '^# kvs: also without preload' "$KVS_ROOT/test/specs/$name.spec" || say "$name"
	done)
	run_pg_regress isolation preload isolation/pg_isolation_regress isolation_regression results "${all[@]}"
	run_pg_regress isolation-noload noload isolation/pg_isolation_regress isolation_regression results/noload "${noload[@]}"
}

# ---- tap and pgtap: programs that say "ok" and "not ok" themselves ----

# Count the assertions of one test program that "prove -v" has run, which has checked plan and exit status: RUN LOG STATUS START [END]
tally_prove()
{
	local run=$1 log=$2 status=$3 passed failed
	passed=$(grep -cE '^ok [0-9]+' "$log" || true)
	failed=$(grep -E '^not ok [0-9]+' "$log" | grep -cvE '# *TODO' || true)
	# A wrong plan or a crash is a failure even when no assertion is.
	[ "$status" = 0 ] || [ "$failed" -gt 0 ] || failed=1
	if [ "$failed" -gt 0 ]; then
		say "---- $run ----"
		grep -vE '^ok [0-9]+' "$log" || true
		shortly "$run" < <(grep -E '^not ok' "$log" || tail -n 8 "$log")
	fi
	tally "$run" "$passed" "$failed" "${@:4}"
	[ "$failed" = 0 ]
}

# What runs one TAP test: its name is $0, the rest are options of prove.  It says in NAME.done how that went.
# shellcheck disable=SC2016 # for another shell
RUN_ONE_TAP='start=$EPOCHREALTIME; prove -v "$@" "test/t/$0.pl" > "$0.log" 2>&1; echo "$? $start $EPOCHREALTIME" > "$0.new"; mv "$0.new" "$0.done"'

# They mostly wait, so several run at once; told in order.
run_tap()
{
	local names name work log promtool pgbouncer how
	mapfile -t names < <(tests_in test/t pl)
	[ ${#names[@]} -gt 0 ] || return 0
	kvs_node_modules examples/consumer
	kvs_copy_in tap test README.md doc CONTRIBUTING.md SECURITY.md CHANGELOG.md LICENSE extras examples
	# A test adds another version of the extension to the private copy.
	[ -z "$KVS_USER" ] || chown "$KVS_USER:" "$KVS_TREE$PG_SHAREDIR/extension"
	work=$KVS_TMP/work/tap
	[ -z "$KVS_NODE_MODULES" ] || cp -R "$KVS_NODE_MODULES" "$work/examples/consumer/"
	kvs_program promtool prometheus
	promtool=$KVS_PROGRAM
	kvs_program pgbouncer pgbouncer
	pgbouncer=$KVS_PROGRAM
	cd "$work"
	printf '%s\n' "${names[@]}" > names
	# Nodes are found by PostgreSQL::Test itself, not by what leads to our server.
	kvs_start env -u PGHOST -u PGPORT -u PGUSER -u PGDATABASE -u PGPASSFILE \
		KVS_PROMTOOL="$promtool" KVS_PGBOUNCER="$pgbouncer" TESTDIR="$work" TESTDATADIR="$work/tmp_check" TESTLOGDIR="$work/tmp_check/log" PG_REGRESS="$PG_TESTDIR/regress/pg_regress" \
		xargs -a names -P "${KVS_JOBS:-2}" -I NAME bash -c "$RUN_ONE_TAP" NAME -I "$PG_TESTDIR/perl" -I "$work/test/perl"
	for name in "${names[@]}"; do
		while [ ! -e "$name.done" ] && kill -0 "$KVS_CHILD" 2> /dev/null; do
			sleep 0.2
		done
		how=$(cat "$name.done" 2> /dev/null) || how="1 $EPOCHREALTIME"
		# shellcheck disable=SC2086 # status, start and end
		tally_prove "tap/$name" "$name.log" $how || {
			log=$work/tmp_check/log/regress_log_$name
			say "---- the last lines of its log ----"
			tail -n 60 "$log" 2> /dev/null || true
			shortly "$name, its log" < <(grep -A 4 'Failed test' "$log" 2> /dev/null)
		}
	done
	kvs_wait || true
	cd "$KVS_TMP"
}

# Each file gets a database with both extensions, so that a file holds tests only.
run_pgtap()
{
	local names name log status start
	mapfile -t names < <(tests_in test/pgtap sql)
	[ ${#names[@]} -gt 0 ] || return 0
	if [ ! -e "$KVS_TREE$PG_SHAREDIR/extension/pgtap.control" ]; then
		say "pgtap: skipped, this PostgreSQL has no pgTAP"
		return 0
	fi
	kvs_copy_in pgtap test
	kvs_server_use preload
	kvs_psql -q -c "CREATE DATABASE pgtap_template TEMPLATE template0 ENCODING 'UTF8'"
	if ! kvs_psql -q -d pgtap_template -c 'SET client_min_messages = warning' -c 'CREATE EXTENSION pgtap' -c 'CREATE EXTENSION kvstore'; then
		tally pgtap 0 1 "$EPOCHREALTIME"
		return 0
	fi
	cd "$KVS_TMP/work/pgtap"
	for name in "${names[@]}"; do
		kvs_psql -q -c "CREATE DATABASE \"pgtap_$name\" TEMPLATE pgtap_template"
		log=$KVS_TMP/pgtap-$name.log
		status=0
		start=$EPOCHREALTIME
		PGDATABASE=pgtap_$name kvs_run prove -v --exec "$KVS_BIN/psql -X -q -A -t -v ON_ERROR_STOP=1 -f" "test/pgtap/$name.sql" > "$log" 2>&1 || status=$?
		tally_prove "pgtap/$name" "$log" $status "$start" || kvs_log_tail preload
	done
	cd "$KVS_TMP"
}

# ---- What sanitizers have reported, in the servers' logs: make check-sanitize ----

run_reports()
{
	local start=$EPOCHREALTIME report='AddressSanitizer|: runtime error: ' log failed=0
	while IFS= read -r log; do
		say "---- $log: reports (the first 400 lines) ----"
		grep -E -A 20 "$report" "$log" | sed -n '1,400p'
		shortly "$log" < <(grep -oE 'SUMMARY: AddressSanitizer.*|AddressSanitizer: CHECK.*|[^ ]*: runtime error: .*' "$log" | sort | uniq -c)
		failed=$((failed + 1))
	done < <(find server work -type f '(' -name log -o -name '*.log' ')' -exec grep -lE "$report" '{}' +)
	tally reports 0 $failed "$start"
}

# ---- main ----

start=$EPOCHREALTIME
kvs_install_missing check
kvs_build
kvs_make_tmp
kvs_make_tree
say "kvstore on $("$KVS_BIN/postgres" --version), built and installed into a private copy: $(seconds_since "$start")"

if wanted_suite regress || wanted_suite isolation || wanted_suite pgtap; then
	start=$EPOCHREALTIME
	# Tests look at expired rows too: here no worker takes them away in the meantime.  It has TAP tests of its own.  Nobody frees the slots of
	# dropped stores either, so there are many.  Nor does autovacuum come: while it has a snapshot, dead rows stay that a test has VACUUM remove.
	kvs_server_start preload "shared_preload_libraries = 'kvstore'" "fsync = off" "autovacuum = off" "max_worker_processes = 0" \
		"kvstore.expiry_slots = 1000000"
	if wanted_suite regress || wanted_suite isolation; then
		kvs_server_start noload "fsync = off" "autovacuum = off"
	fi
	say "servers started: $(seconds_since "$start")"
fi

for suite in static regress isolation tap pgtap; do
	! wanted_suite "$suite" || "run_$suite"
done
[ -z "${KVS_SERVER_PRELOAD:-}" ] || run_reports

if [ $((PASSED + FAILED)) = 0 ]; then
	note "no test ran"
	FAILED=1
fi
[ "$FAILED" = 0 ] || say "---- what failed, shortly ----$SHORT"
say "$PASSED passed, $FAILED failed"
[ "$FAILED" = 0 ]
