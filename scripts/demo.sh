#!/usr/bin/env bash
# make demo: kvstore in a minute, on a machine that need not have PostgreSQL yet.
#
# Installs what is missing, builds, starts a throw-away server with kvstore preloaded, and shows in real statements what
# it does.  On a terminal a psql prompt is left at the end; then, as without a terminal, the server is stopped and removed.
# KVS_DEMO_PROMPT=no leaves no prompt on a terminal either.

# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DEMO_PSQL=(kvs_psql -d demo -P pager=off)

# A line of explanation, then a statement as one would type it, with its output.
show()
{
	printf '\n-- %s\n%s\n' "$1" "$2"
	"${DEMO_PSQL[@]}" <<< "$2"
}

# ---- Session A: one psql that stays connected, so that B can write behind its back ----

session_a_open() { coproc SESSION_A { kvs_psql -d demo -P pager=off 2>&1; }; }

# Start a statement in session A.
session_a_ask()
{
	printf '\n-- %s\n[A] %s\n' "$1" "$2"
	printf '%s\n\\echo end-of-output\n' "$2" >&"${SESSION_A[1]}"
}

# Until the statement that it has started waits; what B did before that would be no news to it.
session_a_waits()
{
	local i
	for ((i = 0; i < 600; i++)); do
		[ "$("${DEMO_PSQL[@]}" -Atc "SELECT count(*) FROM kvstore.waiters()")" = 0 ] || return 0
		sleep 0.1
	done
	die "session A does not wait"
}

# Print what it says, up to a mark that psql echoes after it.
session_a_answer()
{
	local line
	while IFS= read -r -t 60 line <&"${SESSION_A[0]}"; do
		[ "$line" != end-of-output ] || return 0
		printf '%s\n' "$line"
	done
	die "session A ended"
}

session_a()
{
	session_a_ask "$@"
	session_a_answer
}

session_a_close()
{
	# Bash forgets both variables when the psql has ended.
	local pid=$SESSION_A_PID input=${SESSION_A[1]}
	exec {input}>&-
	wait "$pid" || true
}

session_b()
{
	printf '\n-- %s\n[B] %s\n' "$1" "$2"
	"${DEMO_PSQL[@]}" -c "$2"
}

# ---- main ----

kvs_install_missing demo
say "Building kvstore"
kvs_build
kvs_make_tmp
kvs_make_tree
kvs_server_start demo "shared_preload_libraries = 'kvstore'" "log_min_messages = warning"
kvs_psql -q -c "CREATE DATABASE demo TEMPLATE template0 ENCODING 'UTF8'"
kvs_copy_in demo examples
cd "$KVS_TMP/work/demo"
say "A server of its own runs: $("$KVS_BIN/postgres" --version), kvstore preloaded"

show "Once in a database:" \
	"CREATE EXTENSION kvstore;
SELECT kv_create_store();"

# shellcheck disable=SC2016 # the backquotes are psql's
show "A bot's tokens, until now in a file that each pod had for itself:" \
	'\set data `cat examples/slack-kv.json`
SELECT kv_import(:'"'data'"');'

show "Read one. Everything that follows sees what has been committed; there is no cache that could be stale." \
	"SELECT kv_get('slack:connection:conn_2') ->> 'organizationId' AS organization;"

show "Write with a time to live. The answer is the entry's versionstamp." \
	"SELECT kv_set('slack:state:login', '{\"nonce\": \"abc\"}', ttl => interval '10 minutes');"

show "It will be gone by itself:" \
	"SELECT value, expires_at - now() < interval '11 minutes' AS soon FROM kv_entry('slack:state:login');"

show "Compare and set: two want to be leader, and 0 means \"only if absent\". The first wins..." \
	"SELECT kv_set('leader', '\"pod-1\"', if_version => 0) AS versionstamp;"

show "...the second gets NULL: nothing was written." \
	"SELECT kv_set('leader', '\"pod-2\"', if_version => 0) AS versionstamp, kv_get('leader') AS leader;"

show "List by prefix, in order, a page at a time:" \
	"SELECT key, kind, expires_at FROM kv_list('slack:', page_size => 10);"

session_a_open
session_a "Two pods, one truth. Pod A reads, and stays connected:" \
	"SELECT kv_get('slack:connection:conn_2') ->> 'botToken' AS token;"
session_b "Pod B changes the token, and commits:" \
	"SELECT kv_set('slack:connection:conn_2', kv_get('slack:connection:conn_2') || '{\"botToken\": \"not-a-real-bot-token-3\"}');"
session_a "Pod A sees it with its next statement:" \
	"SELECT kv_get('slack:connection:conn_2') ->> 'botToken' AS token;"
session_a_close

show "It is one transaction with your own tables: both, or, as here, neither." \
	"CREATE TABLE orders (id int PRIMARY KEY);
BEGIN;
INSERT INTO orders VALUES (1);
SELECT kv_set('orders:last', '1');
ROLLBACK;
SELECT kv_get('orders:last') AS last, (SELECT count(*) FROM orders) AS orders;"

show "A queue. A message is there when its transaction commits, and work and acknowledgement are one transaction:" \
	"SELECT kv_create_queue('mail');
SELECT kv_enqueue('mail', '{\"to\": \"ada\"}');
BEGIN;
SELECT id, payload, receipt FROM kv_dequeue('mail') \\gset
INSERT INTO orders VALUES (:id);
SELECT :'payload' AS payload, kv_ack(:'receipt') AS acknowledged;
COMMIT;"

session_a_open
session_a_ask "Who waits is woken by the commit. Pod A waits for a message..." \
	"SELECT payload, attempts FROM kv_dequeue('mail', wait => '30 s');"
session_a_waits
session_b "...pod B sends one..." \
	"SELECT kv_enqueue('mail', '{\"to\": \"bob\"}');"
printf '\n-- ...and pod A has it:\n'
session_a_answer
session_a_ask "The same for entries: pod A waits for the leader to change..." \
	"SELECT key, value FROM kv_watch(ARRAY['leader'], ARRAY[(SELECT versionstamp FROM kv_entry('leader'))]);"
session_a_waits
session_b "...pod B takes over." \
	"SELECT kv_set('leader', '\"pod-2\"');"
printf '\n-- Pod A:\n'
session_a_answer
session_a_close

if [ -t 0 ] && [ -t 1 ] && [ "${KVS_DEMO_PROMPT:-yes}" = yes ]; then
	printf '\n-- Your turn. \\df+ kv_* lists all functions; \\q ends and removes the server.\n\n'
	# Ctrl-C cancels a statement; psql sees to it, and the server stays.
	trap : INT
	kvs_psql -d demo -v ON_ERROR_STOP=0 -P pager_min_lines=50 || true
else
	cat <<-TEXT

		The demo's server is stopped and removed now. On a terminal "make demo" leaves a prompt. To use kvstore in your own
		server:
		    make && sudo make install
		    add to postgresql.conf: shared_preload_libraries = 'kvstore', and restart the server
		    psql -c 'CREATE EXTENSION kvstore' -c 'SELECT kv_create_store()' yourdatabase
	TEXT
fi
