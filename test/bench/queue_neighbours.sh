# shellcheck shell=bash
# a well-behaved application beside hostile neighbours: its rate by its rate alone, errors, and what is left in memory; KVS_BENCH_HOSTILE=3600 seconds

HOSTILE_SECONDS=${KVS_BENCH_HOSTILE:-120}
PART=${KVS_BENCH_PART:-10}	# seconds alone, then as long beside an open transaction, then with the neighbours
dir=$KVS_TMP/work/neighbours
mkdir -p "$dir"
chmod 777 "$dir"

kvs_psql -q -f "$BENCH_DIR/lib/neighbours.sql" > /dev/null
printf 'SELECT app_work(:client_id);\n' > "$dir/app.sql"
printf 'SELECT app_inbox();\n' > "$dir/inbox.sql"
printf 'SELECT sender_step();\n' > "$dir/sender.sql"
printf 'SELECT hostile_step();\n' > "$dir/hostile.sql"

# One part of the time: the application's transactions per second, on standard output.  Each of its errors ends pgbench.
application()
{
	kvs_run "$KVS_BIN/pgbench" -n -U app -c 4 -j 2 -T "$PART" -f "$dir/app.sql" > "$dir/app.out" 2>&1 || { cat "$dir/app.out" >&2; APP_ERRORS=$((APP_ERRORS + 1)); }
	sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$dir/app.out"
}

# Neighbours send at a low rate, so that what they cost is not the processor.  Whatever of theirs fails is tried again.
neighbour()	# ROLE SCRIPT RATE CLIENTS
{
	while [ -e "$dir/go" ]; do
		PGUSER=$1 "$KVS_BIN/pgbench" -n -c "$4" -R "$3" -T "$PART" -f "$dir/$2.sql" > /dev/null 2>&1 || sleep 0.2
	done
}

# An idle transaction that holds locks: of its own tables, and of an entry that is to be written when a message is given up.
holder()
{
	while [ -e "$dir/go" ]; do
		PGUSER=hostile "$KVS_BIN/psql" -qX -c "BEGIN; LOCK TABLE kvstore.d_nasty IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(7); ROLLBACK" > /dev/null 2>&1
		PGUSER=sender "$KVS_BIN/psql" -qX -c "BEGIN; ALTER TABLE kvstore.s_trap DISABLE TRIGGER trick; INSERT INTO kvstore.s_trap (key, value, kind, versionstamp) VALUES (kv_key('k'), '1', 'j', 1) ON CONFLICT DO NOTHING; SELECT pg_sleep(5); ROLLBACK" > /dev/null 2>&1
	done
}

# What any open transaction costs whoever updates few rows often: their old versions stay.  It touches nothing of ours.
open_transaction()
{
	while [ -e "$dir/go" ]; do
		PGUSER=hostile "$KVS_BIN/psql" -qX -c "SELECT pg_sleep(7)" > /dev/null 2>&1
	done
}

neighbours_begin()
{
	touch "$dir/go"
	neighbour sender sender 20 1 & NEIGHBOURS=($!)
	neighbour hostile hostile 10 2 & NEIGHBOURS+=($!)
	neighbour app inbox 10 1 & NEIGHBOURS+=($!)
	holder & NEIGHBOURS+=($!)
}

neighbours_end()
{
	rm -f "$dir/go"
	wait "${NEIGHBOURS[@]}" || true
}

APP_ERRORS=0
: > "$dir/alone"
: > "$dir/beside"
: > "$dir/open"
end=$((SECONDS + HOSTILE_SECONDS))
while [ $SECONDS -lt $end ]; do
	application >> "$dir/alone"
	touch "$dir/go"
	open_transaction & NEIGHBOURS=($!)
	application >> "$dir/open"
	neighbours_end
	neighbours_begin
	application >> "$dir/beside"
	neighbours_end
done

info "application alone, units of work per second" "$(median < "$dir/alone" | xargs printf '%.0f')"
figure "beside hostile neighbours, by alone" "$(divide "$(median < "$dir/beside")" "$(median < "$dir/alone")")" at-least 0.8
info "beside an open transaction that does nothing, by alone" "$(divide "$(median < "$dir/open")" "$(median < "$dir/alone")")"
figure "beside hostile neighbours, by beside that transaction" "$(divide "$(median < "$dir/beside")" "$(median < "$dir/open")")" at-least 0.8
figure "errors of the application" "$APP_ERRORS" at-most 0
figure "superusers more than there were" "$(sql "SELECT count(*) - 1 FROM pg_roles WHERE rolsuper")" at-most 0
figure "highest versionstamp given, in 2^40 above what time allows" "$(sql "SELECT greatest(0, round(max(versionstamp) / 2.0 ^ 40 - extract(epoch FROM now() - timestamptz '2026-01-01') / 2.0 ^ 20 - 1, 3)) FROM kvstore.s_cart")" at-most 0
info "kv_health() at the end" "$(sql "SELECT status || coalesce(': ' || reason, '') FROM kv_health()")"

# All shared memory comes back: what is left of the application's is received, the neighbours' tables go.
sql "SELECT count(*) FROM (SELECT kv_drop_queue('nasty'), kv_drop_store('nasty')) d" > /dev/null
sql "ALTER TABLE kvstore.s_trap DISABLE TRIGGER ALL" > /dev/null
until [ "$(sql "SELECT count(*) FROM kvstore.q_shop")" = 0 ]; do
	sql "SELECT kv_ack_many(array_agg(receipt)) FROM kv_dequeue('shop', 1000)" > /dev/null
done
sql "SELECT kv_purge_queue('inbox')" > /dev/null
for ((try = 0; try < 100; try++)); do
	[ "$(sql "SELECT sum(used) FROM kvstore.memory_in_use()")" != 0 ] || break
	sleep 0.2
done
figure "entries of shared memory in use, when all queues are empty" "$(sql "SELECT sum(used) FROM kvstore.memory_in_use()")" at-most 0
figure "messages of the shop that were not acknowledged once" "$(sql "SELECT enqueued - acked FROM kv_queue_stats('shop')")" at-most 0
