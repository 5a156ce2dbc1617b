# shellcheck shell=bash
# send, dequeue and ack of one message each in a transaction of its own, against a SKIP LOCKED queue by hand; 4, 16 and 64 clients, synchronous_commit on and off

. "$BENCH_DIR/lib/queue.sh"

# 1,000 messages wait all the time, so nobody ever meets an empty queue.
before_run() { [ "$1" = floor ] || queue_fill 1000 "$1"; }

queue_side kv hand
for mode in on off; do
	sql "ALTER DATABASE postgres SET synchronous_commit = $mode"
	for clients in 4 16 64; do
		compare "$clients" kv hand
		case $clients in 4) target=1.3 ;; 16) target=1.5 ;; 64) target=2.0 ;; esac
		ratio "queue, $clients clients, synchronous_commit $mode" kv hand "$target"
		info "WAL bytes for each message: kv; hand" "${PER_CALL[kv]}; ${PER_CALL[hand]}"
	done
done
sql "ALTER DATABASE postgres RESET synchronous_commit"
