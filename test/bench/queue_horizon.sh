# shellcheck shell=bash
# the rate while a transaction stays open: last tenth of the time by the first, with rollbacks, expiries, a late commit and a crash; KVS_BENCH_HORIZON=600 seconds

# 4 clients send, dequeue and ack one at a time as fast as they can, with 1,000 messages waiting.  Of the messages that they take 1 % are acknowledged in a
# transaction that rolls back, 1 % are left until their lease is over, and come again.  Another session's REPEATABLE READ transaction is open all the time, so
# nothing dead can be removed, with autovacuum as it is by default; a prepared transaction holds the horizon where it was across the crash, which happens at
# 0.45 of the time.  After it one transaction sends a message, and commits it much later, when the head of the queue is far beyond.

. "$BENCH_DIR/lib/queue.sh"

HORIZON=${KVS_BENCH_HORIZON:-600}
HORIZON_CLIENTS=4

queue_script_abort()	# NAME
{
	say "BEGIN;"
	queue_script "$1_receive"
	say "ROLLBACK;"
}

# Taken, for 2 s, and never acknowledged.
queue_script_leave()	# NAME
{
	queue_script "$1_receive" | head -n 1 | sed "s/kv_dequeue('bench')/kv_dequeue('bench', lease => '2 s')/; s/'30 s'/'2 s'/; s/\\\\gset/;/"
}

# Run pgbench for so many seconds, a line with the rate of each second; stops when the server does.
horizon_run()	# SIDE SECONDS OUT
{
	local dir=$KVS_TMP/work/side-$1
	queue_script_abort "$1" > "$dir/abort.sql"
	queue_script_leave "$1" > "$dir/leave.sql"
	kvs_as_user "$KVS_BIN/pgbench" -n -M prepared -c $HORIZON_CLIENTS -j 2 -T "$2" -P 1 -D "payload=$QUEUE_PAYLOAD" \
		-f "$dir/0.sql@98" -f "$dir/abort.sql@1" -f "$dir/leave.sql@1" > "$3" 2>&1
}

mean_rate() { awk '/^progress:/ { sum += $4; n++ } END { printf "%.0f", n ? sum / n : 0 }'; }

hold_horizon()
{
	kvs_as_user "$KVS_BIN/psql" -XqAt -c "BEGIN ISOLATION LEVEL REPEATABLE READ" -c "SELECT count(*) FROM pg_class" -c "SELECT pg_sleep($HORIZON * 3)" > "$KVS_TMP/work/hold.out" 2>&1 &
	HOLDER=$!
	until [ "$(sql "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%' AND backend_xmin IS NOT NULL")" -gt 0 ]; do sleep 0.1; done
}

horizon_crash()
{
	local started
	kvs_as_user "$KVS_BIN/pg_ctl" -D "$KVS_TMP/server/bench/data" -m immediate -s stop
	started=$EPOCHREALTIME
	kvs_as_user "$KVS_BIN/pg_ctl" -D "$KVS_TMP/server/bench/data" -l "$KVS_TMP/server/bench/log" -o "-p $PGPORT" -w -t 600 -s start
	info "$1: seconds of recovery after the crash" "$(awk -v a="$started" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')"
}

# A message that is sent early and committed late: prints how long after its commit it was gone.
late_commit()	# SIDE SECONDS
{
	local send="SELECT kv_enqueue('bench', '{\"late\": true}')" table=kvstore.q_bench i
	[ "$1" = kv ] || { send="INSERT INTO hand_queue (payload) VALUES ('{\"late\": true}')"; table=hand_queue; }
	sql_script "BEGIN; $send; SELECT pg_sleep($2); COMMIT" > /dev/null
	for ((i = 0; i < 600; i++)); do
		if [ "$(sql "SELECT count(*) FROM $table WHERE payload = '{\"late\": true}'")" = 0 ]; then
			break
		fi
		sleep 0.1
	done
	awk -v n="$i" 'BEGIN { print n / 10 }' > "$KVS_TMP/work/late"
}

horizon_side()	# SIDE
{
	local side=$1 first=$KVS_TMP/work/horizon.first second=$KVS_TMP/work/horizon.second part crash rest pgbench late start last
	part=$((HORIZON / 10))
	crash=$((HORIZON * 45 / 100))
	rest=$((HORIZON - crash))
	queue_side "$side"
	queue_fill 1000 "$side"
	sql CHECKPOINT
	sql_script "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'bench_horizon'" > /dev/null
	hold_horizon
	horizon_run "$side" "$HORIZON" "$first" &
	pgbench=$!
	sleep "$crash"
	horizon_crash "$side"
	wait "$pgbench" "$HOLDER" || true
	hold_horizon
	late_commit "$side" $((rest * 7 / 10)) &
	late=$!
	horizon_run "$side" "$rest" "$second" || { cat "$second"; die "pgbench failed"; }
	wait "$late"
	sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%'" > /dev/null
	wait "$HOLDER" || true
	start=$(grep '^progress:' "$first" | head -n "$part" | mean_rate)
	last=$(grep '^progress:' "$second" | tail -n "$part" | mean_rate)
	info "$side: first $part s, a second" "$start"
	info "$side: last $part s before the crash, a second" "$(grep '^progress:' "$first" | tail -n $((part + 1)) | head -n "$part" | mean_rate)"
	info "$side: last $part s, a second" "$last"
	if [ "$side" = kv ]; then
		figure "horizon held for $HORIZON s: last $part s by the first" "$(divide "$last" "$start")" at-least 0.9
	else
		info "horizon held for $HORIZON s, by hand: last $part s by the first" "$(divide "$last" "$start")"
	fi
	info "$side: the late message was gone after its commit within, s" "$(cat "$KVS_TMP/work/late")"
	sql "ROLLBACK PREPARED 'bench_horizon'"
}

sql "ALTER SYSTEM SET autovacuum = on" && sql "SELECT pg_reload_conf()" > /dev/null
for side in kv hand; do
	horizon_side $side
done
info "messages of kv that are still there" "$(sql "SELECT count(*) FROM kvstore.q_bench")"
info "dead letters of kv" "$(sql "SELECT count(*) FROM kvstore.d_bench")"
sql "ALTER SYSTEM RESET autovacuum" && sql "SELECT pg_reload_conf()" > /dev/null
