# shellcheck shell=bash
# COMMIT after many subtransactions, each of which sent, received and acknowledged a message: it grows as they do, and not as their square

SAVEPOINTS=${KVS_BENCH_SAVEPOINTS:-100000}

# Milliseconds of COMMIT: SAVEPOINTS.
commit_after()
{
	kvs_psql -qAt <<- SQL | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
		BEGIN;
		DO \$\$ BEGIN
			FOR i IN 1 .. $1 LOOP
				BEGIN
					PERFORM kv_enqueue('bench_savepoints', to_jsonb(i));
					PERFORM kv_ack(receipt) FROM kv_dequeue('bench_savepoints');
				EXCEPTION WHEN division_by_zero THEN NULL;
				END;
			END LOOP;
		END \$\$;
		\\timing on
		COMMIT;
	SQL
}

sql "CREATE EXTENSION IF NOT EXISTS kvstore" 2> /dev/null
sql "SELECT kv_create_queue('bench_savepoints')" > /dev/null
for ((run = 0; run < 3; run++)); do commit_after $((SAVEPOINTS / 10)); done | median > "$KVS_TMP/tenth"
for ((run = 0; run < 3; run++)); do commit_after "$SAVEPOINTS"; done | median > "$KVS_TMP/all"
info "COMMIT after $((SAVEPOINTS / 10)) savepoints, ms" "$(cat "$KVS_TMP/tenth")"
figure "COMMIT after $SAVEPOINTS savepoints, ms" "$(cat "$KVS_TMP/all")" at-most 50
sql "SELECT kv_drop_queue('bench_savepoints')" > /dev/null
