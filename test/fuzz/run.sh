#!/bin/bash
# Run one fuzz target in a throw-away server in single-user mode: TARGET; called by scripts/check-fuzz.sh, as the user who runs servers.
#
# Environment, all set by the caller: KVS_FUZZ_POSTGRES the program, KVS_FUZZ_TEMPLATE a database cluster to copy, KVS_FUZZ_PRELOAD libraries,
# KVS_FUZZ_WORK where this file's folder and the output lie, KVS_FUZZ_RUNS, KVS_FUZZ_INPUT, KVS_FUZZ_SEED.
#
# What it leaves: TARGET.log, TARGET.seconds, and TARGET.passed if there was no finding.
set -euo pipefail

target=$1
cd "$KVS_FUZZ_WORK"
data=$target.data
log=$target.log
fuzz=test/fuzz
cp -R --preserve=mode "$KVS_FUZZ_TEMPLATE" "$data"

max_len() { case $1 in receipt) echo 128 ;; position) echo 256 ;; key_binary) echo 2100 ;; *) echo 4096 ;; esac; }

# The server's working folder is its data folder: all paths are full.  libFuzzer's own limit of memory would take a thread, which a backend must not
# have.
arguments=("-artifact_prefix=$KVS_FUZZ_WORK/findings/$target-" -timeout=30 -rss_limit_mb=0 -detect_leaks=0 -print_final_stats=1
	-entropic_scale_per_exec_time=1)
if [ -n "$KVS_FUZZ_INPUT" ]; then
	arguments+=("$KVS_FUZZ_INPUT")
else
	arguments+=("-runs=$KVS_FUZZ_RUNS" "-seed=$KVS_FUZZ_SEED" "-max_len=$(max_len "$target")")
	[ ! -e "$fuzz/dictionaries/$target" ] || arguments+=("-dict=$KVS_FUZZ_WORK/$fuzz/dictionaries/$target")
	# In a list and not a folder: to a folder libFuzzer writes what it finds worth keeping, for which most of the time would go.
	find "$KVS_FUZZ_WORK/$fuzz/seeds/$target" -type f | paste -s -d , > "$target.seeds"
	arguments+=("-seed_inputs=@$KVS_FUZZ_WORK/$target.seeds")
fi

start=$SECONDS
status=0
{
	cat "$fuzz/setup.sql"
	printf "CALL kvs_fuzz('%s', '{%s}')\n" "$target" "$(IFS=,; printf '%s' "${arguments[*]}")"
} | LD_PRELOAD=$KVS_FUZZ_PRELOAD \
	ASAN_OPTIONS=halt_on_error=1:detect_leaks=0:detect_odr_violation=0:quarantine_size_mb=2:allocator_release_to_os_interval_ms=-1:allocator_may_return_null=1 \
	UBSAN_OPTIONS=print_stacktrace=1 \
	"$KVS_FUZZ_POSTGRES" --single -D "$data" -c shared_preload_libraries=kvstore -c fsync=off postgres > "$log" 2>&1 || status=$?
rm -rf "$data"

echo $((SECONDS - start)) > "$target.seconds"

# A server that ends for another reason than that libFuzzer is done has found something too.
if [ $status = 0 ] && grep -qE '^(stat::number_of_executed_units: [1-9]|Executed .* in )' "$log"; then
	touch "$target.passed"
fi
