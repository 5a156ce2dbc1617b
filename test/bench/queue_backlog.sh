# shellcheck shell=bash
# dequeue and ack with 1,000,000 messages waiting against the same with 1,000; 4 clients, synchronous_commit off

# Each transaction sends a message first, so that as many wait all the time; what counts is the time of the other two statements.

. "$BENCH_DIR/lib/queue.sh"

BACKLOG=${KVS_BENCH_BACKLOG:-1000000}
shared_memory() { sql "SELECT sum(allocated_size) FROM pg_shmem_allocations WHERE name LIKE 'kvstore%'"; }
leases() { sql "SELECT count(*) FROM kv_leases"; }

# A queue of its own for each.
sql "SELECT kv_create_queue('bench_few', if_not_exists => true), kv_create_queue('bench_many', if_not_exists => true)" > /dev/null
before=$(shared_memory)
for queue in bench_few:1000 "bench_many:$BACKLOG"; do
	sql "TRUNCATE kvstore.q_${queue%:*}"
	sql "SELECT count(*) FROM generate_series(1, ${queue#*:} / 1000) g, kv_enqueue_many('${queue%:*}', array_fill('$QUEUE_PAYLOAD'::jsonb, ARRAY[1000]))" > /dev/null
	sql "VACUUM ANALYZE kvstore.q_${queue%:*}"
	queue_side kv
	mv "$KVS_TMP/work/side-kv" "$KVS_TMP/work/side-${queue%:*}"
	sed -i "s/'bench'/'${queue%:*}'/" "$KVS_TMP/work/side-${queue%:*}/0.sql"
	sed -i "s/side-kv/side-${queue%:*}/" "$KVS_TMP/work/side-${queue%:*}/arguments"
	say -r >> "$KVS_TMP/work/side-${queue%:*}/arguments"
done
sql CHECKPOINT

sql "ALTER DATABASE postgres SET synchronous_commit = off"
rm -f "$KVS_TMP"/work/backlog.*
for ((i = 0; i < RUNS; i++)); do
	for queue in bench_few bench_many; do
		sql "VACUUM kvstore.q_$queue"
		pgbench_run "$queue" 4
		awk '/kv_dequeue|kv_ack/ { ms += $1 } END { printf "%.0f\n", 4000 / ms }' "$KVS_TMP/work/pgbench.out" >> "$KVS_TMP/work/backlog.$queue"
	done
done
sql "ALTER DATABASE postgres RESET synchronous_commit"
few=$(median < "$KVS_TMP/work/backlog.bench_few")
many=$(median < "$KVS_TMP/work/backlog.bench_many")
info "dequeue and ack, 1,000 waiting" "$few/s"
info "dequeue and ack, $BACKLOG waiting" "$many/s"
figure "dequeue and ack: $BACKLOG waiting by 1,000" "$(divide "$many" "$few")" at-least 0.9
info "the pairs of runs lie between" "$(paste "$KVS_TMP/work/backlog.bench_many" "$KVS_TMP/work/backlog.bench_few" |
	awk '{ r = $1 / $2; if (NR == 1 || r < l) l = r; if (r > h) h = r } END { printf "%.2f and %.2f", l, h }')"
figure "shared memory that $BACKLOG messages take, bytes" "$(($(shared_memory) - before))" at-most 0
figure "entries of the lease table while they wait" "$(leases)" at-most 0
sql "SELECT kv_drop_queue('bench_few'), kv_drop_queue('bench_many')" > /dev/null
