# shellcheck shell=bash
# the first kv_queue_stats in a new session, with 1,000,000 messages waiting; numbers known, delayed ones counted, estimated, and after a restart

BACKLOG=${KVS_BENCH_BACKLOG:-1000000}
SESSIONS=20

# Milliseconds of the first statement of each of so many new sessions: SQL [BEFORE, run before each].
first_calls()
{
	local i
	for ((i = 0; i < SESSIONS; i++)); do
		[ -z "${2:-}" ] || "$2"
		kvs_psql -qAt -c '\timing on' -c "$1" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
	done | median
}

# Nobody has counted the messages then; the worker begins with the first call.
restart_server()
{
	kvs_run "$KVS_BIN/pg_ctl" -D "$KVS_TMP/server/bench/data" -l "$KVS_TMP/server/bench/log" -m fast -w -s -o "-p $PGPORT" restart > "$KVS_TMP/pg_ctl.log" 2>&1 ||
		die "the server does not start again"
}

# Only a queue that somebody receives from has a place where the number is kept.
wait_until_counted()
{
	sql "SELECT kv_release(receipt) FROM kv_dequeue('bench_stats')" > /dev/null
	sql "SELECT exact FROM kv_queue_stats('bench_stats')" > /dev/null
	until [ "$(sql "SELECT messages IS NOT NULL FROM kvstore.queue_counts() WHERE relid = 'kvstore.q_bench_stats'::regclass")" = t ]; do sleep 0.1; done
}

send() { sql "SELECT count(*) FROM generate_series(1, $1 / 1000) g, kv_enqueue_many('bench_stats', array_fill('{\"n\": 1}'::jsonb, ARRAY[1000]) $2)" > /dev/null; }

stats="SELECT * FROM kv_queue_stats('bench_stats')"
sql "CREATE EXTENSION IF NOT EXISTS kvstore" 2> /dev/null
sql "SELECT kv_create_queue('bench_stats')" > /dev/null
send "$BACKLOG" ""
sql "VACUUM ANALYZE kvstore.q_bench_stats"
wait_until_counted
info "first SELECT of a row of the table in a session, ms" "$(first_calls "SELECT * FROM kvstore.q_bench_stats LIMIT 1")"
info "first kv_peek in a session, ms" "$(first_calls "SELECT * FROM kv_peek('bench_stats', 1)")"
figure "first kv_queue_stats in a session, exact, ms" "$(first_calls "$stats")" at-most 10
send 9000 ", delay => '1 day'"
figure "the same, 9,000 messages delayed and counted, ms" "$(first_calls "$stats")" at-most 10
send 20000 ", delay => '1 day'"
figure "the same, 29,000 messages delayed, estimated, ms" "$(first_calls "$stats")" at-most 10
figure "the first after a restart, estimated, ms" "$(first_calls "$stats" restart_server)" at-most 10
wait_until_counted
info "the second in a session, estimated, ms" "$(kvs_psql -qAt -c '\timing on' -c "$stats" -c "$stats" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | tail -n 1)"
sql "SELECT kv_drop_queue('bench_stats')" > /dev/null
