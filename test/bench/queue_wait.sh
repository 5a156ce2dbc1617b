# shellcheck shell=bash
# from commit to the waiting consumer's row, beside LISTEN/NOTIFY; what 200 waiting consumers cost; 16 senders and 16 consumers that wait or are notified

. "$BENCH_DIR/lib/queue.sh"
. "$BENCH_DIR/lib/watch.sh"

# What the server with this pid and its processes have used so far: "SECONDS of processor time, SLEEPS", the sleeps of the backends that wait only.
queue_wait_usage()
{
	local pid
	for pid in $(pgrep -P "$1") "$1"; do
		cat "/proc/$pid/schedstat" 2> /dev/null
	done | awk '{ t += $1 } END { printf "%.3f ", t / 1e9 }'
	for pid in $(sql "SELECT pid FROM kvstore.waiters()"); do
		cat "/proc/$pid/status"
	done | awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n + 0 }'
}

queue_wait_idle()	# WAITERS SECONDS
{
	local pid before after
	pid=$(kvs_as_user head -n 1 "$KVS_TMP/server/waiters/data/postmaster.pid")
	watch_start queue_idle "$1"
	waiters_are "$1"
	sleep 2
	read -r -a before <<< "$(queue_wait_usage "$pid")"
	sleep "$2"
	read -r -a after <<< "$(queue_wait_usage "$pid")"
	figure "$1 waiting consumers: share of one processor" "$(awk -v b="${before[0]}" -v a="${after[0]}" -v s="$2" 'BEGIN { printf "%.3f", (a - b) / s }')" at-most 0.05
	figure "looks of each waiter in a fallback_poll of $(sql 'SHOW kvstore.fallback_poll')" "$(divide $((after[1] - before[1])) $(($1 * $2)) %.2f)" at-most 1.05
	watch_stop
}

if ! "$watch_python" -c 'import psycopg2' 2> /dev/null; then
	note "no python3-psycopg2: waiting is not measured"
else
	# ---- From commit to row ----
	while read -r name value; do
		case $name in
			queue_p50) figure "commit to the waiting consumer's row, p50, ms" "$value" at-most 0.3 ;;
			queue_p99) figure "commit to the waiting consumer's row, p99, ms" "$value" at-most 3 ;;
			notify_p*) info "the same, notified, then kv_dequeue: ${name#notify_}, ms" "$value" ;;
		esac
	done < <(watch_client queue_latency 2000)

	# ---- Senders and consumers ----
	side wait "SELECT kv_enqueue('bench', '$QUEUE_PAYLOAD')"
	side notify "SELECT kv_enqueue('bench', '$QUEUE_PAYLOAD'), pg_notify('bench', '')"
	before_run()
	{
		watch_stop
		queue_fill 0 kv
		if [ "$1" = wait ]; then watch_start queue_consume 16; waiters_are 16; else watch_start queue_consume_notified 16; sleep 1; fi
	}
	compare 16 wait notify
	info "messages left behind by the last run" "$(sql "SELECT count(*) FROM kvstore.q_bench")"
	watch_stop
	ratio "16 senders, 16 consumers" wait notify 1.5
	before_run() { :; }

	# ---- Consumers that wait for long ----
	saved_port=$PGPORT
	kvs_server_start waiters "shared_preload_libraries = 'kvstore'" "max_connections = 300" "autovacuum = off"
	sql "CREATE EXTENSION kvstore; SELECT kv_create_queue('bench')" > /dev/null
	queue_wait_idle 200 10
	kvs_server_stop waiters
	PGPORT=$saved_port
fi
