# shellcheck shell=bash disable=SC2016
# from commit to the watcher's row, beside LISTEN/NOTIFY; what watchers cost writers; a thousand watchers of one key

. "$BENCH_DIR/lib/watch.sh"

if ! "$watch_python" -c 'import psycopg2' 2> /dev/null; then
	note "no python3-psycopg2: watch is not measured"
else
	# ---- What watchers of other keys cost a writer; synchronous_commit off, so that the disk does not hide it ----
	sql "ALTER DATABASE postgres SET synchronous_commit = off"
	side alone "SELECT kv_set(:id::text, :value::jsonb)" value
	side watched "SELECT kv_set(:id::text, :value::jsonb)" value
	before_run()
	{
		watch_stop
		[ "$1" != watched ] || { watch_start idle 100; waiters_are 100; }
		sql "VACUUM kvstore.s_default"
	}
	compare 1 watched alone
	watch_stop
	ratio "set, 100 watchers of other keys" watched alone 0.9
	sql "ALTER DATABASE postgres RESET synchronous_commit"

	# ---- 16 writers whose changes somebody follows, and 16 who notify somebody ----
	side follow "SELECT kv_set(:id::text, :value::jsonb)" value
	side notify "SELECT kv_set(:id::text, :value::jsonb), pg_notify('changes', :id::text)" value
	before_run()
	{
		watch_stop
		if [ "$1" = follow ]; then watch_start follow; else watch_start listen; fi
		sql "VACUUM kvstore.s_default"
	}
	compare 16 follow notify
	watch_stop
	ratio "16 writers, every change told" follow notify 1.5
	before_run() { :; }

	# ---- From commit to row ----
	while read -r name value; do
		case $name in
			watch_p50) figure "commit to the watcher's row, p50, ms" "$value" at-most 0.3 ;;
			watch_p99) figure "commit to the watcher's row, p99, ms" "$value" at-most 3 ;;
			notify_p*) info "commit to the listener's notification, ${name#notify_}, ms" "$value" ;;
		esac
	done < <(watch_client latency 2000)

	# ---- A thousand watchers: more connections than the server of the benches has ----
	saved_port=$PGPORT
	kvs_server_start watchers "shared_preload_libraries = 'kvstore'" "max_connections = 1100" "kvstore.max_waiters = 1100"
	sql "CREATE EXTENSION kvstore; SELECT kv_create_store()" > /dev/null
	ulimit -n 4096 2> /dev/null || true
	for i in 1 2 3 4 5; do watch_client many 1000; done > "$KVS_TMP/work/many"
	figure "1,000 watchers of one key: all told after, ms" "$(sed -n 's/^many_last //p' "$KVS_TMP/work/many" | median)" at-most 100
	info "the writer's call meanwhile, ms" "$(sed -n 's/^many_writer //p' "$KVS_TMP/work/many" | median)"
	kvs_server_stop watchers
	PGPORT=$saved_port
fi
