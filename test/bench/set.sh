# shellcheck shell=bash
# kv_set with a TTL over random existing keys, against the usual upsert whose expires_at has an index; synchronous_commit off

# The literal 1 day is a parameter too in real life; pgbench draws numbers only, so it is multiplied as the README does.
side kv_set "SELECT kv_set(:id::text, :value::jsonb, ttl => :ttl * interval '1 ms')" value
side upsert "INSERT INTO hand AS h (key, value, expires_at) VALUES (:id::text, :value::jsonb, now() + :ttl * interval '1 ms')
	ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at" value
sed -i "s/^\\\\set id .*/&\n\\\\set ttl 3600000/" "$KVS_TMP"/work/side-{kv_set,upsert}/*.sql

before_run()
{
	case $1 in
		kv_set) sql "VACUUM kvstore.s_default" ;;
		upsert) sql "VACUUM hand" ;;
	esac
}

sql "ALTER DATABASE postgres SET synchronous_commit = off"

# After a checkpoint the first change of each page logs the whole page.  That is paid once for each page and checkpoint whatever is written, so
# it is paid here, before the runs: the WAL that is then counted is that of the records.
sql CHECKPOINT
sql "SELECT kv_expire(key, expires_at => expires_at) FROM source" > /dev/null
sql "UPDATE hand SET expires_at = expires_at + interval '1 us'"
sql "VACUUM hand" && sql "VACUUM kvstore.s_default"
sql "SELECT pg_stat_reset()" > /dev/null

compare 1 kv_set upsert floor
ratio "set, 1 client" kv_set upsert 1.2
info "WAL bytes for each kv_set" "${PER_CALL[kv_set]}"
info "WAL bytes for each upsert" "${PER_CALL[upsert]}"
figure "set: WAL bytes, kv_set by upsert" "$(divide "${PER_CALL[kv_set]}" "${PER_CALL[upsert]}")" at-most 0.6
sleep 1.1	# until the statistics are there
percent() { sql "SELECT round(100.0 * n_tup_hot_upd / nullif(n_tup_upd, 0), 1) FROM pg_stat_user_tables WHERE relid = '$1'::regclass"; }
figure "set: HOT updates of kv_set, %" "$(percent kvstore.s_default)" at-least 95
info "set: HOT updates of upsert, %" "$(percent hand)"
sql "ALTER DATABASE postgres RESET synchronous_commit"
table_sizes
