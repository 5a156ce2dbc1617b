# shellcheck shell=bash
# What the benches of queues have in common: the queue that one would write by hand, the payload, and runs over both.
#
# The queue by hand is the fastest that we could write with the guarantees that everybody wants: FOR UPDATE SKIP LOCKED in the order of arrival, a lease that ends by
# itself, an acknowledgement that fails when somebody else has the message by now.  The lease is no column of an index, so to take it is a HOT update; with the lease in
# ready_at, the other usual way, it was a tenth slower.  It has no priorities, headers or backoff.

QUEUE_PAYLOAD='{"to": "someone@example.org", "template": "welcome", "user": 4821, "locale": "en", "n": "0123456789"}'

# The statements of each, for pgbench.  kv: ours; hand: the one by hand.  "batch" moves 100 messages in each statement.
queue_script()	# NAME
{
	case $1 in
		kv) cat <<-'SQL' ;;
			SELECT kv_enqueue('bench', :payload::jsonb);
			SELECT id, payload AS body, receipt FROM kv_dequeue('bench') \gset
			SELECT kv_ack(:receipt);
		SQL
		hand) cat <<-'SQL' ;;
			INSERT INTO hand_queue (payload) VALUES (:payload::jsonb) RETURNING id;
			UPDATE hand_queue SET leased_until = now() + interval '30 s', attempts = attempts + 1 WHERE id = (SELECT id FROM hand_queue WHERE ready_at <= now() AND (leased_until IS NULL OR leased_until < now()) ORDER BY ready_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, payload AS body, attempts \gset
			DELETE FROM hand_queue WHERE id = :id AND attempts = :attempts RETURNING id;
		SQL
		kv_receive) cat <<-'SQL' ;;
			SELECT id, payload AS body, receipt FROM kv_dequeue('bench') \gset
			SELECT kv_ack(:receipt);
		SQL
		hand_receive) queue_script hand | tail -n +2 ;;
		kv_batch) cat <<-'SQL' ;;
			SELECT count(*) FROM kv_enqueue_many('bench', :payloads::jsonb[]);
			SELECT array_agg(receipt) AS receipts, array_agg(payload) FROM kv_dequeue('bench', 100) \gset
			SELECT kv_ack_many(:receipts);
		SQL
		hand_batch) cat <<-'SQL' ;;
			INSERT INTO hand_queue (payload) SELECT unnest(:payloads::jsonb[]);
			WITH taken AS (UPDATE hand_queue q SET leased_until = now() + interval '30 s', attempts = attempts + 1 FROM (SELECT id FROM hand_queue WHERE ready_at <= now() AND (leased_until IS NULL OR leased_until < now()) ORDER BY ready_at, id LIMIT 100 FOR UPDATE SKIP LOCKED) n WHERE q.id = n.id RETURNING q.id, q.payload, q.attempts) SELECT array_agg(id) AS ids, array_agg(attempts) AS attempts, array_agg(payload) FROM taken \gset
			DELETE FROM hand_queue USING unnest(:ids::bigint[], :attempts::int[]) AS t (id, attempts) WHERE hand_queue.id = t.id AND hand_queue.attempts = t.attempts;
		SQL
	esac
}

queue_side()	# NAME...
{
	local name dir
	for name in "$@"; do
		dir=$KVS_TMP/work/side-$name
		mkdir -p "$dir"
		queue_script "$name" > "$dir/0.sql"
		printf '%s\n' -f "$dir/0.sql" -D "payload=$QUEUE_PAYLOAD" -D "payloads=$QUEUE_PAYLOADS" > "$dir/arguments"
	done
}

# Both queues, anew, with messages waiting.
queue_fill()	# COUNT [SIDE]
{
	case ${2:-} in
		hand*) ;;
		*)
			sql "TRUNCATE kvstore.q_bench"
			sql "SELECT count(*) FROM generate_series(1, ($1) / 1000) g, kv_enqueue_many('bench', array_fill('$QUEUE_PAYLOAD'::jsonb, ARRAY[1000]))" > /dev/null
			sql "VACUUM ANALYZE kvstore.q_bench"
			;;
	esac
	case ${2:-} in
		kv*) ;;
		*)
			sql "TRUNCATE hand_queue"
			sql "INSERT INTO hand_queue (payload) SELECT '$QUEUE_PAYLOAD' FROM generate_series(1, $1)"
			sql "VACUUM ANALYZE hand_queue"
			;;
	esac
}

sql_script "SET client_min_messages = warning;
	CREATE EXTENSION IF NOT EXISTS kvstore;
	SELECT kv_create_queue('bench', if_not_exists => true);
	CREATE TABLE IF NOT EXISTS hand_queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ready_at timestamptz NOT NULL DEFAULT now(),
		leased_until timestamptz, attempts int NOT NULL DEFAULT 0, payload jsonb NOT NULL) WITH (fillfactor = 90);
	CREATE INDEX IF NOT EXISTS hand_queue_ready_at ON hand_queue (ready_at, id)" > /dev/null
QUEUE_PAYLOADS=$(sql "SELECT array_fill('$QUEUE_PAYLOAD'::jsonb, ARRAY[100])")
