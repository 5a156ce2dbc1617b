# shellcheck shell=bash disable=SC2016
# what a ttl costs, how soon expired entries are gone and what that takes; a part with KVS_BENCH_EXPIRY="instructions alone together idle large"

# Entries "key1" to "keyN" of a new store.
expiry_load()	# STORE COUNT EXPIRES_AT
{
	sql "SELECT kv_create_store('$1')" > /dev/null
	sql "INSERT INTO kvstore.s_$1 (key, value, expires_at) SELECT kv_key('key' || g), to_jsonb(g), $3 FROM generate_series(1, $2) g"
}

seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", b - a }'; }
clock() { sql "SELECT extract(epoch FROM clock_timestamp())"; }

# ---- Instructions of kv_set() with a ttl and without, of a server in single-user mode under valgrind: it counts where perf cannot, and always the same ----

# Overwrites of 100 keys, a transaction each.
expiry_calls()	# LENGTH OPTIONS CALLS
{
	awk -v length_="$1" -v options="$2" -v calls="$3" 'BEGIN {
		for (value = ""; length(value) < length_; value = value "x");
		printf "PREPARE s (text) AS SELECT kv_set($1, '\''\"%s\"'\''%s)\n", value, options
		for (i = 0; i < calls; i++) printf "EXECUTE s('\''k%d'\'')\n", i % 100 }' > "$KVS_TMP/work/calls"
	kvs_as_user valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null "$KVS_BIN/postgres" --single \
		-D "$KVS_TMP/server/single" -c shared_preload_libraries=kvstore -c fsync=off postgres < "$KVS_TMP/work/calls" 2>&1 |
		sed -n 's/,//g; s/.*I *refs: *\([0-9]*\)$/\1/p'
}

# What one call takes: the difference of many and few.
expiry_count()	# LENGTH OPTIONS
{
	local many few
	few=$(expiry_calls "$1" "$2" 1000)
	many=$(expiry_calls "$1" "$2" 6000)
	divide $((many - few)) 5000 %.0f
}

expiry_instructions()
{
	local with without same never
	if ! command -v valgrind > /dev/null; then
		note "no valgrind: instructions are not counted"
		return
	fi
	kvs_as_user cp -R --preserve=mode "$KVS_TMP/server/template" "$KVS_TMP/server/single"
	kvs_as_user "$KVS_BIN/postgres" --single -D "$KVS_TMP/server/single" -c shared_preload_libraries=kvstore postgres \
		> "$KVS_TMP/work/single.log" 2>&1 <<< $'CREATE EXTENSION kvstore\nSELECT kv_create_store()'
	without=$(expiry_count 108 "")
	with=$(expiry_count 100 ", ttl => '1 hour'")
	same=$(expiry_count 100 "")
	never=$(expiry_count 108 ", expires_at => 'infinity'")
	info "kv_set without a ttl" "$without instructions"
	info "kv_set with a ttl, a row as wide" "$with instructions"
	info "kv_set without a ttl, the same value: a row 8 bytes shorter" "$same instructions"
	info "kv_set given infinity" "$never instructions"
	# The row's width decides how often a page is pruned: that is compared apart.
	figure "kv_set: instructions with a ttl by those without" "$(divide "$with" "$without")" at-most 1.05
	info "the same for equal values" "$(divide "$with" "$same")"
}

# ---- An entry that expires alone ----

expiry_alone()
{
	local n late=$KVS_TMP/work/late
	sql "SELECT kv_create_store('alone')" > /dev/null
	: > "$late"
	for n in $(seq 20); do
		kvs_psql -qAt -c "SELECT FROM kv_set('a', '1', ttl => interval '0.3 s' + random() * interval '1 s', store => 'alone')" \
			-c "SELECT set_config('bench.due', expires_at::text, false) FROM kvstore.s_alone" \
			-c 'DO $$ BEGIN WHILE EXISTS (SELECT FROM kvstore.s_alone) LOOP COMMIT; PERFORM pg_sleep(0.002); COMMIT; END LOOP; END $$' \
			-c "SELECT 'late ' || extract(epoch FROM clock_timestamp() - current_setting('bench.due')::timestamptz)" | sed -n 's/^late //p' >> "$late"
		# Sometimes the worker is still there, sometimes it is not.
		[ $((n % 5)) != 0 ] || sleep 6
	done
	info "an entry that expires alone: gone after, s, median of 20" "$(median < "$late" | cut -c 1-5)"
	figure "an entry that expires alone: gone after, s, worst of 20" "$(sort -g "$late" | tail -n 1 | cut -c 1-5)" at-most 1
}

# ---- 1,000,000 entries that expire together ----

expiry_together()
{
	local expires began gone end=$KVS_TMP/work/pgbench.out
	expires=$(sql "SELECT floor(extract(epoch FROM clock_timestamp())) + 60")
	expiry_load together 1000000 "to_timestamp($expires)"
	sql CHECKPOINT
	side get "SELECT kv_get(:id::text)"
	[ "$(sql "SELECT extract(epoch FROM clock_timestamp()) < $expires - 12")" = t ] || { note "the load took longer than the entries live"; return; }
	sql "SELECT pg_sleep($expires - 12 - extract(epoch FROM clock_timestamp()))" > /dev/null
	began=$(clock)
	kvs_as_user "$KVS_BIN/pgbench" -n -M prepared -c 4 -j 2 -T 40 -P 1 -f "$KVS_TMP/work/side-get/0.sql" > "$end" 2>&1 &
	gone=$(sql "SELECT pg_sleep($expires - extract(epoch FROM clock_timestamp()))" > /dev/null
		while [ "$(sql "SELECT count(*) > 0 FROM kvstore.expiry_map() WHERE relid = 'kvstore.s_together'::regclass AND first_block IS NOT NULL")" = t ] &&
			[ "$(sql "SELECT extract(epoch FROM clock_timestamp()) < $expires + 120")" = t ]; do sleep 0.1; done
		clock)
	wait $!
	figure "1,000,000 entries that expire together: gone after, s" "$(seconds "$expires" "$gone")" at-most 20
	figure "... left then" "$(sql 'SELECT count(*) FROM kvstore.s_together')" at-most 0
	info "... as the log says" "$(grep -o 'removed 1000000 .*' "$KVS_TMP/server/bench/log" | tail -n 1)"
	# Whole seconds of before and of the sweep.
	awk -v began="$began" -v expires="$expires" -v gone="$gone" '/^progress:/ {
		at = began + $2
		if ($2 > 2 && at < expires - 0.5) { b += $4; nb++ }
		if (at - 1 > expires && at < gone) { d += $4; nd++ }
	} END { printf "%.0f %.0f %d", nb ? b / nb : 0, nd ? d / nd : 0, nd }' "$end" > "$KVS_TMP/work/gets"
	read -r before during n < "$KVS_TMP/work/gets" || true
	info "gets of 4 clients before" "$before/s"
	info "gets of 4 clients during the sweep, $n seconds" "$during/s"
	figure "gets: rate during the sweep by that before" "$(divide "$during" "$before")" at-least 0.667
}

# ---- An idle server ----

expiry_idle()
{
	local launcher before after
	sleep 10
	launcher=$(sql "SELECT pid FROM pg_stat_activity WHERE backend_type = 'kvstore launcher'")
	switches() { sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "/proc/$launcher/status"; }
	before=$(switches)
	sleep 60
	after=$(switches)
	figure "an idle server: wake-ups in 10 s" "$(divide $((after - before)) 6 %.1f)" at-most 1
}

# ---- 10,000,000 entries, of which 100 expire each second ----

expiry_large()
{
	local start end blocks rows entries=${KVS_BENCH_LARGE:-10000000}
	local read="SELECT heap_blks_hit + heap_blks_read FROM pg_statio_all_tables WHERE relid = 'kvstore.s_large'::regclass"
	local swept="SELECT expired FROM pg_stat_kvstore WHERE store = 'large'"
	expiry_load large "$entries" "clock_timestamp() + interval '30 s' + random() * $entries / 100 * interval '1 s'"
	info "a store of $entries entries: blocks" "$(sql "SELECT pg_relation_size('kvstore.s_large') / 8192")"
	# It is new in the map, and read once.
	while [ "$(sql "SELECT count(*) > 0 FROM kvstore.expiry_map() WHERE relid = 'kvstore.s_large'::regclass AND first_block IS NULL")" = t ]; do
		sleep 1
	done
	sql CHECKPOINT
	sql "SELECT pg_sleep(greatest(0, extract(epoch FROM min(due) - now()) + 10)) FROM kvstore.expiry_map() WHERE relid = 'kvstore.s_large'::regclass" > /dev/null
	blocks=$(sql "$read") rows=$(sql "$swept") start=$(clock)
	sleep 60
	blocks=$(($(sql "$read") - blocks)) rows=$(($(sql "$swept") - rows)) end=$(clock)
	info "swept each second" "$(divide "$rows" "$(seconds "$start" "$end")" %.1f)"
	figure "blocks that the sweeper reads each second" "$(divide "$blocks" "$(seconds "$start" "$end")" %.0f)" at-most 2000
	figure "entries that are dead for more than 2 s" "$(sql "SELECT count(*) FROM kvstore.s_large WHERE expires_at < now() - interval '2 s'")" at-most 0
}

for part in ${KVS_BENCH_EXPIRY:-instructions alone together idle large}; do
	"expiry_$part"
done
