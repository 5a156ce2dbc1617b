# shellcheck shell=bash
# kv_delete_prefix of 1,000,000 entries, against the hand-written DELETE; seconds, alternately

seconds_of() { kvs_psql -qAt -c '\timing on' -c "$1" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | awk '{ printf "%.3f\n", $1 / 1000 }'; }

sql "SELECT kv_create_store('doomed')" > /dev/null
sql "CREATE TABLE doomed (key text COLLATE \"C\" PRIMARY KEY, value jsonb NOT NULL, expires_at timestamptz) WITH (fillfactor = 90)"
sql "CREATE INDEX ON doomed (expires_at)"
for ((i = 0; i < (RUNS < 5 ? RUNS : 5); i++)); do
	sql "TRUNCATE doomed; TRUNCATE kvstore.s_doomed"
	sql "INSERT INTO doomed SELECT 'p:' || key, value, expires_at FROM source"
	sql "INSERT INTO kvstore.s_doomed (key, value, expires_at) SELECT kv_key('p:' || key), value, expires_at FROM source"
	sql "VACUUM (FREEZE, ANALYZE) doomed"
	sql "VACUUM (FREEZE, ANALYZE) kvstore.s_doomed"
	sql CHECKPOINT
	seconds_of "SELECT kv_delete_prefix('p:', 'doomed')" >> "$KVS_TMP/work/delete.kvstore"
	sql CHECKPOINT
	seconds_of "DELETE FROM doomed WHERE key >= 'p:' AND key < 'p;' AND (expires_at IS NULL OR expires_at > now())" >> "$KVS_TMP/work/delete.hand"
done
info "delete_prefix: seconds for $ROWS entries" "$(median < "$KVS_TMP/work/delete.kvstore")"
info "delete_prefix: the hand-written DELETE" "$(median < "$KVS_TMP/work/delete.hand")"
figure "delete_prefix: the hand-written one's time by kv_delete_prefix's" \
	"$(divide "$(median < "$KVS_TMP/work/delete.hand")" "$(median < "$KVS_TMP/work/delete.kvstore")")" at-least 1.0
