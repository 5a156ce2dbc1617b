# shellcheck shell=bash
# kv_incr of one hot key by 16 clients, against a hand-written UPDATE ... RETURNING

sql "CREATE TABLE counter (key text COLLATE \"C\" PRIMARY KEY, n numeric NOT NULL) WITH (fillfactor = 90)"
sql "INSERT INTO counter VALUES ('hot', 0)"
side kv_incr "SELECT kv_incr('hot')"
side update "UPDATE counter SET n = n + 1 WHERE key = 'hot' RETURNING n"

for mode in on off; do
	sql "ALTER DATABASE postgres SET synchronous_commit = $mode"
	compare 16 kv_incr update floor
	ratio "incr, 16 clients, synchronous_commit $mode" kv_incr update 0.9
done
sql "ALTER DATABASE postgres RESET synchronous_commit"
