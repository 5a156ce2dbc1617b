# shellcheck shell=bash
# messages a second through send, dequeue and ack in batches of 100, against a SKIP LOCKED queue by hand; 2 and 4 clients, and what limits it

. "$BENCH_DIR/lib/queue.sh"

before_run() { queue_fill 1000 "$1"; }

queue_side kv_batch hand_batch
for mode in on off; do
	sql "ALTER DATABASE postgres SET synchronous_commit = $mode"
	for clients in 2 4; do
		compare "$clients" kv_batch hand_batch
		ratio "batches of 100, $clients clients, synchronous_commit $mode" kv_batch hand_batch 1
		figure "messages a second, $clients clients, synchronous_commit $mode" "$(divide "${MEDIAN[kv_batch]}" 0.01 %.0f)" at-least 100000
		info "messages a second by hand" "$(divide "${MEDIAN[hand_batch]}" 0.01 %.0f)"
		info "WAL bytes for each message: kv; hand" "$((PER_CALL[kv_batch] / 100)); $((PER_CALL[hand_batch] / 100))"
	done
done
sql "ALTER DATABASE postgres RESET synchronous_commit"

# Where the time goes, of the server and of pgbench, which shares the two cores; needs perf and the right to use it.
if command -v perf > /dev/null && perf record -q -o "$KVS_TMP/perf.data" -a -- sleep 0.1 2> /dev/null; then
	before_run kv_batch
	perf record -q -F 2000 -o "$KVS_TMP/perf.data" -a -- sleep $((SECONDS_EACH + 2)) 2> /dev/null &
	profile=$!
	pgbench_run kv_batch 2
	wait "$profile"
	say "  the profile of 2 clients, % of the samples of server and client:"
	for fields in comm dso sym; do
		perf report -i "$KVS_TMP/perf.data" --comm postgres,pgbench --percentage relative --percent-limit 1 -F "overhead,$fields" 2> /dev/null |
			sed -n 's/ *$//; s/^ *[0-9]/    &/p' | head -n 25
	done
else
	note "no perf: no profile"
fi
