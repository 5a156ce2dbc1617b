#!/usr/bin/env bash
# make check-fuzz: libFuzzer makes up input for what reads input from outside, 5,000,000 times for each target.
#
# Targets (test/fuzz): key_text and key_binary (kvkey's two forms of input), key_json (keys jsonb), atomic (the operations of kv_atomic, read and
# carried out), receipt (of a message), position (in the feed).  Each looks not only for crashes but at what must always hold, such as that a
# key that is written and read again is the same.  AddressSanitizer and UndefinedBehaviorSanitizer look on.
#
# kvstore, the targets and libFuzzer become one library, made by clang.  It is put in the place of kvstore.so in the private copy of the
# installation, and each target runs in a throw-away server in single-user mode (test/fuzz/run.sh), as many at once as there are processors.
#
# Inputs begin with test/fuzz/seeds/TARGET/, where those that once were findings lie too.  A finding's input is kept in results/fuzz/; give it
# again with
#	KVS_FUZZ_INPUT=results/fuzz/... KVS_FUZZ_TARGETS=NAME make check-fuzz
#
# The last line is "N passed, N failed" alone, one for each target.
#
# Environment:
#	KVS_FUZZ_RUNS=5000000	executions of each target; 500000 take two or three minutes on two processors
#	KVS_FUZZ_TARGETS	targets, by name; all
#	KVS_FUZZ_INPUT		a file: that one input and no other
#	KVS_FUZZ_SEED		what libFuzzer's random numbers begin with, to run again what another run has done
# See common.sh for more.

# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ALL_TARGETS="key_text key_binary key_json atomic receipt position"
TARGETS=${KVS_FUZZ_TARGETS:-$ALL_TARGETS}
RUNS=${KVS_FUZZ_RUNS:-5000000}
INPUT=${KVS_FUZZ_INPUT:-}
for target in $TARGETS; do
	[[ " $ALL_TARGETS " == *" $target "* ]] || die "KVS_FUZZ_TARGETS: there is no target \"$target\" ($ALL_TARGETS)"
done
[ -z "$INPUT" ] || INPUT=$(realpath -e "$INPUT")

# In the order of how long they take, so that what takes longest does not begin last.
in_order()
{
	local target
	for target in atomic position receipt key_json key_text key_binary; do
		[[ " $TARGETS " != *" $target "* ]] || say "$target"
	done
}

# ---- The library ----

compile()
{
	kvs_copy_in fuzz src test/fuzz test/sanitize kvstore.control
	mkdir "$WORK/test" "$WORK/findings"
	mv "$WORK/fuzz" "$WORK/test/fuzz"
	[ -z "$KVS_USER" ] || chown -R "$KVS_USER:" "$WORK"
	kvs_run clang -shared -fPIC -o "$WORK/preload.so" "$WORK/sanitize/preload.c" || die "the build failed"
	kvs_run env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -s -C "$WORK/test/fuzz" -j"$(nproc)" PG_CONFIG="$PG_CONFIG" > "$WORK/make.log" 2>&1 ||
		{ cat "$WORK/make.log" >&2; die "the build failed"; }
	cp "$WORK/test/fuzz/kvstore.so" "$KVS_TREE$PG_PKGLIBDIR/kvstore.so"
}

# ---- Running ----

# A line for each target; a log that is not even there is a failure too.
tell()
{
	local target seconds runs accepted
	for target in "$@"; do
		if [ -e "$WORK/$target.passed" ]; then
			PASSED=$((PASSED + 1))
			seconds=$(cat "$WORK/$target.seconds")
			runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$WORK/$target.log")
			accepted=$(sed -n 's/^accepted: \([0-9]*\) of .*/\1/p' "$WORK/$target.log")
			printf '%-12s %9s executions %9s accepted %5s s   %s\n' "$target" "${runs:-1}" "$accepted" "$seconds" \
				"$(grep -oE 'cov: .* corp: [0-9]+' "$WORK/$target.log" | tail -n 1)"
		else
			FAILED=$((FAILED + 1))
			say "$target: FINDING; the last lines of its log:"
			grep -vE '^#[0-9]+\s+(NEW|REDUCE|pulse|RELOAD)|^\s+NEW_FUNC|Recommended dictionary|# Uses:' "$WORK/$target.log" | tail -n 60 || true
		fi
	done
}

keep_findings()
{
	local file
	for file in "$WORK"/findings/*; do
		[ -e "$file" ] || continue
		kvs_as_owner mkdir -p "$KVS_ROOT/results/fuzz"
		kvs_as_owner tee "$KVS_ROOT/results/fuzz/${file##*/}" < "$file" > /dev/null
		say "kept: results/fuzz/${file##*/}"
	done
}

# ---- main ----

PASSED=0
FAILED=0
kvs_install_missing fuzz
kvs_build
kvs_make_tmp
kvs_make_tree
kvs_initdb
WORK=$KVS_TMP/work/fuzz
start=$SECONDS
compile
if [ -n "$INPUT" ]; then
	cp "$INPUT" "$WORK/input"
	chmod a+r "$WORK/input"
	INPUT=$WORK/input
fi
say "kvstore with targets and libFuzzer, for $("$KVS_BIN/postgres" --version): $((SECONDS - start)) s"

export KVS_FUZZ_POSTGRES=$KVS_BIN/postgres KVS_FUZZ_TEMPLATE=$KVS_TMP/server/template KVS_FUZZ_WORK=$WORK
export KVS_FUZZ_RUNS=$RUNS KVS_FUZZ_INPUT=$INPUT KVS_FUZZ_SEED=${KVS_FUZZ_SEED:-$((RANDOM * 32768 + RANDOM + 1))}
KVS_FUZZ_PRELOAD="$(clang -print-file-name="libclang_rt.asan-$(uname -m).so") $WORK/preload.so"
export KVS_FUZZ_PRELOAD
say "seed: $KVS_FUZZ_SEED"
in_order > "$WORK/targets"
kvs_run xargs -P "$(nproc)" -n 1 -a "$WORK/targets" "$WORK/test/fuzz/run.sh" || true
# shellcheck disable=SC2046 # names
tell $(in_order)
keep_findings
say "$PASSED passed, $FAILED failed"
[ "$FAILED" = 0 ] && [ "$PASSED" -gt 0 ]
