# shellcheck shell=bash
# one message at a time through the queues of others: PgQ, graphile-worker, pg-boss, Redis lists with LMOVE, a SKIP LOCKED queue by hand; 4 loops of a Node program; of kv_many and pgq one consumer takes many at once

. "$BENCH_DIR/lib/queue.sh"

# What cannot be had on this machine is left out.
PEERS=(kv hand)

peer_pgq()
{
	local dir=$KVS_TMP/pgq
	mkdir -p "$dir"
	kvs_package_exists "postgresql-$PG_MAJOR-pgq3" || kvs_apt_update
	kvs_unpack "$dir" "postgresql-$PG_MAJOR-pgq3" || return 1
	cp -R "$dir$PG_PKGLIBDIR/." "$KVS_TREE$PG_PKGLIBDIR/"
	cp -R "$dir$PG_SHAREDIR/." "$KVS_TREE$PG_SHAREDIR/"
	sql "CREATE EXTENSION pgq"
}

# The program of the package is both server and tools, by the name that it is called.
peer_redis()
{
	local dir=$KVS_TMP/work/redis kept=$KVS_TMP/tools/redis-check-rdb
	kvs_program redis-check-rdb redis-tools
	[ -n "$KVS_PROGRAM" ] || return 1
	mkdir -p "$dir"
	[ ! -d "$kept" ] || cp "$kept"/*.so* "$dir/" 2> /dev/null || true
	cp -L "$([ -d "$kept" ] && say "$kept/redis-check-rdb" || say "$KVS_PROGRAM")" "$dir/redis-server"
	[ -z "$KVS_USER" ] || chown -R "$KVS_USER:" "$dir"
	export REDIS_SOCKET=$KVS_TMP/sock/redis
}

redis_start()	# always|everysec
{
	local dir=$KVS_TMP/work/redis i
	kvs_as_user sh -c "rm -rf '$dir/data' && mkdir '$dir/data'"
	kvs_as_user env LD_LIBRARY_PATH="$dir" "$dir/redis-server" --port 0 --unixsocket "$REDIS_SOCKET" --dir "$dir/data" --save '' --appendonly yes \
		--appendfsync "$1" > "$KVS_TMP/redis.log" 2>&1 &
	REDIS_PID=$!
	for ((i = 0; i < 100; i++)); do
		[ ! -S "$REDIS_SOCKET" ] || return 0
		sleep 0.1
	done
	cat "$KVS_TMP/redis.log" >&2
	return 1
}

redis_stop()
{
	kill "$REDIS_PID" && wait "$REDIS_PID" || true
	rm -f "$REDIS_SOCKET"
}

# Queues begin empty, as that of a library of others is when it is up to date.
peer_run()	# PEER
{
	case $1 in
		kv*) sql "TRUNCATE kvstore.q_peers" ;;
		hand) sql "TRUNCATE hand_queue" ;;
	esac
	kvs_as_user env HOME="$KVS_TMP/home" node "$KVS_TMP/work/peers/peers.js" "$1" "$SECONDS_EACH"
}

if ! command -v node > /dev/null; then
	note "no node: the queues of others are left out"
else
	sql "SELECT kv_create_queue('peers', if_not_exists => true)" > /dev/null
	kvs_node_modules test/bench/peers
	mkdir -p "$KVS_TMP/work/peers"
	cp "$BENCH_DIR/peers/"* "$KVS_TMP/work/peers/"
	[ -z "$KVS_NODE_MODULES" ] || cp -R "$KVS_NODE_MODULES" "$KVS_TMP/work/peers/"
	chmod -R a+rX "$KVS_TMP/work/peers"
	[ -n "$KVS_NODE_MODULES" ] || die "the client for PostgreSQL cannot be had from npm"
	if peer_pgq; then PEERS+=(kv_many pgq); fi
	PEERS+=(graphile boss)
	if peer_redis; then PEERS+=(redis); fi
	for mode in on off; do
		sql "ALTER DATABASE postgres SET synchronous_commit = $mode"
		case $mode in on) fsync=always ;; off) fsync=everysec ;; esac
		rm -f "$KVS_TMP"/work/peer.*
		for ((i = 0; i < RUNS; i++)); do
			for peer in "${PEERS[@]}"; do
				[ "$peer" != redis ] || redis_start $fsync
				peer_run "$peer" >> "$KVS_TMP/work/peer.$peer"
				[ "$peer" != redis ] || redis_stop
			done
		done
		for peer in "${PEERS[@]}"; do
			rate=$(median < "$KVS_TMP/work/peer.$peer")
			case $peer in redis) setting="appendfsync $fsync" ;; *) setting="synchronous_commit $mode" ;; esac
			info "$peer, $setting: messages a second" "$rate"
			info "$peer, $setting: kv by it" "$(divide "$(median < "$KVS_TMP/work/peer.kv")" "$rate" %.2f)"
		done
	done
	sql "ALTER DATABASE postgres RESET synchronous_commit"
fi
