# shellcheck shell=bash
# Clients that wait, for the benches of watch and of queues: watch.py, with psycopg2.

watch_python=/usr/bin/python3
watch_client() { kvs_as_user "$watch_python" "$BENCH_DIR_COPY/watch.py" "$@"; }
BENCH_DIR_COPY=$KVS_TMP/work/watch
mkdir -p "$BENCH_DIR_COPY"
cp "$BENCH_DIR/lib/watch.py" "$BENCH_DIR_COPY/"
chmod -R a+rX "$BENCH_DIR_COPY"

# A client in the background; watch_stop ends it.
WATCH_PID=
watch_start()
{
	# not a function in the background: the shell that it runs in would be ended, and not the client
	if [ -n "$KVS_USER" ]; then
		setpriv --reuid="$KVS_USER" --regid="$(id -g "$KVS_USER")" --init-groups "$watch_python" "$BENCH_DIR_COPY/watch.py" "$@" &
	else
		"$watch_python" "$BENCH_DIR_COPY/watch.py" "$@" &
	fi
	WATCH_PID=$!
}
watch_stop()
{
	[ -z "$WATCH_PID" ] || kill "$WATCH_PID" 2> /dev/null || true
	[ -z "$WATCH_PID" ] || wait "$WATCH_PID" 2> /dev/null || true
	WATCH_PID=
	until [ "$(sql 'SELECT count(*) FROM kvstore.waiters()')" = 0 ]; do sleep 0.1; done
}
waiters_are() { until [ "$(sql 'SELECT count(*) FROM kvstore.waiters()')" = "$1" ]; do sleep 0.1; done; }
