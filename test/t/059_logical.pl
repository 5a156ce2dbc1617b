# Logical replication between two servers with kvstore: what arrives is kept as it is, nobody else removes anything, a queue is used on one side only; and
# a switch-over in both directions, after which no versionstamp and no id was there before.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $conf = "wal_level = logical\nmax_logical_replication_workers = 12\nmax_sync_workers_per_subscription = 4\nmax_worker_processes = 24\nwal_receiver_status_interval = 1s\n";
my $a = kvs_node('a', conf => $conf, init => { allows_streaming => 'logical' });
my $b = kvs_node('b', conf => $conf, init => { allows_streaming => 'logical' });
my @tables = qw(s_default s_sessions q_mail d_mail p_default);

for my $node ($a, $b)
{
	$node->safe_psql('postgres', q{
		CREATE EXTENSION kvstore;
		SELECT kv_create_store(), kv_create_store('sessions'), kv_create_store('own'), kv_create_queue('mail'), kv_create_snapshot_store();
	});
}

# All that is replicated, as text.
my $contents = join(' ', map { "SELECT '$_', t FROM kvstore.$_ t ORDER BY t::text;" } @tables);

# FROM publishes to TO from now on, what there is included.
sub replicate
{
	my ($from, $to) = @_;

	$from->safe_psql('postgres', 'CREATE PUBLICATION p FOR TABLE ' . join(', ', map { "kvstore.$_" } @tables));
	$to->safe_psql('postgres', "CREATE SUBSCRIPTION s CONNECTION '" . $from->connstr . " dbname=postgres' PUBLICATION p");
	$to->poll_query_until('postgres', q{SELECT count(*) = 5 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel}) or die 'the tables are not copied';
}

sub is_the_same
{
	my ($from, $to, $what) = @_;

	$from->wait_for_catchup('s');
	is($to->safe_psql('postgres', $contents), $from->safe_psql('postgres', $contents), $what);
}

sub end_replication
{
	my ($from, $to) = @_;

	$to->safe_psql('postgres', $_) for 'ALTER SUBSCRIPTION s DISABLE', 'ALTER SUBSCRIPTION s SET (slot_name = NONE)', 'DROP SUBSCRIPTION s';
	$from->safe_psql('postgres', q{DROP PUBLICATION p});
	$from->poll_query_until('postgres', q{SELECT NOT bool_or(active) FROM pg_replication_slots}) or die 'the slot stays active';
	$from->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots});
}

# No row of a store of the node's own that has expired is left: the worker has been there.
sub wait_for_worker
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{SELECT kv_set('soon', '1', ttl => '1 ms', store => 'own')});
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM kvstore.s_own WHERE expires_at < now()}) or die 'the worker does not come';
}

# ---- What arrives ----

$a->safe_psql('postgres', q{
	SELECT count(kv_set('k' || i, to_jsonb(i))) FROM generate_series(1, 200) i;
	SELECT kv_set('lease', '1', ttl => '1 hour'), kv_set_bytes('b', '\x00ff'), kv_incr('n'), kv_set(kv_key('users', 42), '"path"');
	SELECT count(kv_enqueue('mail', to_jsonb(i), priority => i % 3)) FROM generate_series(1, 30) i;
	SELECT kv_nack(receipt, error => 'no', dead => true) FROM kv_dequeue('mail', 3);
	SELECT count(kv_snapshot_append('c', to_jsonb(i))) FROM generate_series(1, 20) i});
replicate($a, $b);
is_the_same($a, $b, 'what there was is copied');
$a->safe_psql('postgres', q{
	SELECT kv_set('k1', '"new"'), kv_delete('k2'), kv_incr('n', 5), kv_set_many('{k3,m}', ARRAY[jsonb '3', '4']), kv_delete_prefix('k9'), kv_expire('b', ttl => '2 hours');
	SELECT ok FROM kv_atomic('[{"sum": {"key": "n", "value": 1}}, {"delete": {"key": "k4"}}]');
	SELECT kv_ack(receipt) FROM kv_dequeue('mail', 2); SELECT kv_nack(receipt) FROM kv_dequeue('mail', 2);
	SELECT kv_enqueue('mail', '"later"', delay => '1 hour', ttl => '1 day'); SELECT kv_snapshot_append('c', '"newest"', ttl => '1 hour')});
is_the_same($a, $b, 'changes arrive as they were made');

my $stamp = $b->safe_psql('postgres', q{SELECT versionstamp FROM kv_entry('lease')});
my $position = $b->safe_psql('postgres', q{SELECT kv_feed_position()});
$a->safe_psql('postgres', q{SELECT kv_expire('lease', ttl => '2 hours')});
is_the_same($a, $b, 'a renewal leaves the versionstamp alone');
is($b->safe_psql('postgres', qq{SELECT operation, key, versionstamp FROM kv_changes('$position', '')  WHERE key IS NOT NULL}), "touch|lease|$stamp", 'and followers on the subscriber learn that it is one');
is($b->safe_psql('postgres', qq{SELECT kv_set('lease', '"mine"', if_version => $stamp) IS NULL FROM kv_watch('{lease}', ARRAY[$stamp]::bigint[], wait => '0')}), '', 'no watcher is told of a change');

$position = $b->safe_psql('postgres', q{SELECT kv_feed_position()});
$a->safe_psql('postgres', q{SELECT kv_delete('k5'), kv_set('k5', '1'), kv_set('k6', '2')});
$a->safe_psql('postgres', q{TRUNCATE kvstore.s_default});
$a->safe_psql('postgres', q{SELECT kv_set('k6', '3'), kv_set('k7', '3')});
is_the_same($a, $b, 'a TRUNCATE arrives');
is($b->safe_psql('postgres', qq{SELECT string_agg(concat_ws(' ', operation, key), ', ') FROM kv_changes('$position', '') WHERE operation <> 'progress'}),
	'delete k5, set k5, set k6, clear, set k6, set k7', 'the feed of the subscriber has it all in order, and each once');

# A number that nobody may bring is replaced, and the subscription goes on.
my $log = -s $b->logfile;
$a->safe_psql('postgres', q{ALTER TABLE kvstore.s_sessions DISABLE TRIGGER ALL; INSERT INTO kvstore.s_sessions VALUES (kv_key('planted'), '1', NULL, 'j', 4611686018427387904);
	INSERT INTO kvstore.s_sessions VALUES (kv_key('high'), '1', NULL, 'j', 2251799813685248), (kv_key('broken'), NULL, NULL, 'u', 5);
	ALTER TABLE kvstore.s_sessions ENABLE ALWAYS TRIGGER kvstore_guard; ALTER TABLE kvstore.s_sessions ENABLE ALWAYS TRIGGER kvstore_guard_after});
$a->wait_for_catchup('s');
is($b->safe_psql('postgres', q{SELECT key, versionstamp = 2251799813685248, versionstamp < 2252000000000000 FROM kv_get_many('{high,planted}', 'sessions')}), "high|t|t\nplanted|f|t", 'a superuser brings any number below 2^52');
like(slurp_file($b->logfile, $log), qr/WARNING:  rows for table "kvstore.s_sessions" brought versionstamps/, 'and the log tells of others');
is(kvs_outcome($b, q{SELECT kv_get('broken', 'sessions')}), kvs_outcome($a, q{SELECT kv_get('broken', 'sessions')}), 'a row that holds nothing is what it is on both sides');
$a->safe_psql('postgres', q{SELECT kv_clear('sessions')});

# ---- Nobody else removes anything ----

$a->safe_psql('postgres', q{SELECT kv_set('session', '1', ttl => '3 s', store => 'sessions'), kv_set('gone', '1', ttl => '2 s', store => 'sessions')});
$a->wait_for_catchup('s');
$b->safe_psql('postgres', 'ALTER SUBSCRIPTION s DISABLE');
$a->safe_psql('postgres', q{SELECT kv_expire('session', ttl => '1 hour', store => 'sessions')});
$b->poll_query_until('postgres', q{SELECT bool_and(expires_at < now()) FROM kvstore.s_sessions}) or die;
wait_for_worker($b);
is($b->safe_psql('postgres', q{SELECT kv_sweep() + kv_maintain()}), '0', 'by hand nothing is removed either');
is($b->safe_psql('postgres', q{SELECT count(*), kv_count('', 'sessions') FROM kvstore.s_sessions}), '2|0', 'entries that have expired stay, and are not seen');
is($b->safe_psql('postgres', q{SELECT status, oldest_expired_age_s FROM kv_health()}), 'ok|', 'nothing waits for its removal');
$a->poll_query_until('postgres', q{SELECT count(*) = 1 FROM kvstore.s_sessions}) or die 'the worker does not come';
$b->safe_psql('postgres', 'ALTER SUBSCRIPTION s ENABLE');
is_the_same($a, $b, 'what was renewed in time, and what was removed, arrives late');
is($b->safe_psql('postgres', q{SELECT kv_get('session', 'sessions')}), '1', 'the session is there');

# ---- A queue is used on one side ----

for my $call (q{kv_enqueue('mail', '1')}, q{(SELECT id FROM kv_enqueue_many('mail', ARRAY[jsonb '1']))}, q{(SELECT id FROM kv_dequeue('mail'))}, q{(SELECT ok FROM kv_atomic('[{"enqueue": {"queue": "mail", "payload": 1}}]'))},
	q{kv_dead_requeue_all('mail')}, q{kv_cancel('mail', 10)}, q{kv_purge_queue('mail')})
{
	is(kvs_outcome($b, "SELECT $call"), 'ERROR 55000: queue "mail" is a copy that a subscription brings', "$call on the subscriber");
}
is(kvs_outcome($b, "SELECT $_"), 'ERROR 55000: snapshot store "default" is a copy that a subscription brings', "$_ on the subscriber")
  for q{kv_snapshot_append('c', '"mine"')}, q{kv_snapshot_delete('c')};
is(kvs_outcome($b, q{CALL kv_wait_queue('mail', '1 s')}), 'ERROR 55000: queue "mail" is a copy that a subscription brings', 'nor does anybody wait there');
is($b->safe_psql('postgres', q{SELECT count(*) FROM kv_peek('mail', 100) UNION ALL SELECT count(*) FROM kv_dead_letters('mail')}), $a->safe_psql('postgres', q{SELECT count(*) FROM kv_peek('mail', 100) UNION ALL SELECT count(*) FROM kv_dead_letters('mail')}), 'its messages can be looked at');
is($b->safe_psql('postgres', q{SELECT kv_create_queue('local') IS NULL, kv_enqueue('local', '1')}), 'f|1', 'other queues can be used');

# ---- Switch-over, and back ----

# An entry that has expired on the subscriber alone, which is left there as long as there is a subscription.
sub expire_there
{
	my ($to) = @_;

	$to->safe_psql('postgres', q{ALTER SUBSCRIPTION s DISABLE});
	$to->safe_psql('postgres', q{UPDATE kvstore.s_sessions SET expires_at = now() - interval '1 s' WHERE key = kv_key('expires')});
	wait_for_worker($to);
	is($to->safe_psql('postgres', q{SELECT count(*) FROM kvstore.s_sessions WHERE expires_at < now()}), '1', 'what has expired stays until the subscription ends');
}

# What the new primary does must be above all that the old one has done.
sub check_switched
{
	my ($node, $stamps, $how) = @_;

	cmp_ok($node->safe_psql('postgres', q{SELECT kv_set('after', '1')}), '>', $stamps, "$how: versionstamps are above all that there were");
	is($node->safe_psql('postgres', q{SELECT m.id > max(q.id), count(*) > 20 FROM kv_enqueue('mail', '"after"') m (id), kvstore.q_mail q WHERE q.id <> m.id GROUP BY m.id}), 't|t', "$how: ids of messages are, too");
	is($node->safe_psql('postgres', q{SELECT kv_snapshot_append('c', '"after"') IS NOT NULL; SELECT state FROM kv_snapshot_latest('c')}), "t\n\"after\"", "$how: a new snapshot is the latest");
	is($node->safe_psql('postgres', q{SELECT count(kv_nack(receipt, dead => true)) FROM kv_dequeue('mail', 2)}), '2', "$how: messages are delivered");
	$node->poll_query_until('postgres', q{SELECT count(*) = (SELECT dead FROM kv_queue_stats('mail')) FROM kvstore.d_mail}) or die "$how: the dead letters do not come";
	is($node->safe_psql('postgres', q{SELECT count(*) = count(DISTINCT id), count(*) >= 5 FROM kvstore.d_mail}), 't|t', "$how: and are given up");
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM kvstore.s_sessions WHERE expires_at < now()}) or die "$how: the worker does not sweep";
	pass("$how: the worker sweeps again");
}

$a->safe_psql('postgres', q{SELECT kv_set('expires', '1', ttl => '1 hour', store => 'sessions')});
is_the_same($a, $b, 'before the switch-over');
my $stamps = $a->safe_psql('postgres', q{SELECT kv_set('k8', '1')});
expire_there($b);
is($b->safe_psql('postgres', q{SELECT kv_cancel('mail', id) FROM kv_enqueue('mail', '1') id}), 't', 'the queue can be used once the subscription is disabled');
end_replication($a, $b);
check_switched($b, $stamps + 1_000_000, 'switch-over');

# Back: the old primary begins anew, with what the new one has.
$a->safe_psql('postgres', 'TRUNCATE ' . join(', ', map { "kvstore.$_" } @tables));
replicate($b, $a);
is_the_same($b, $a, 'the old primary copies the new one');
is(kvs_outcome($a, q{SELECT kv_enqueue('mail', '1')}), 'ERROR 55000: queue "mail" is a copy that a subscription brings', 'and its queue is the copy now');
$b->safe_psql('postgres', q{SELECT kv_set('k' || i, to_jsonb(i)) FROM generate_series(1, 50) i; SELECT kv_enqueue('mail', to_jsonb(i)) FROM generate_series(1, 50) i; SELECT kv_snapshot_append('c', to_jsonb(i)) FROM generate_series(100, 110) i;
	SELECT kv_set('expires', '1', ttl => '1 hour', store => 'sessions'), kv_set('stays', '1', ttl => '1 hour', store => 'sessions')});
is_the_same($b, $a, 'and follows it');
$stamps = $b->safe_psql('postgres', q{SELECT kv_set('k8', '1')});
expire_there($a);
end_replication($b, $a);
check_switched($a, $stamps, 'switch-over back');
is($a->safe_psql('postgres', q{SELECT count(*) = count(DISTINCT id) FROM kvstore.q_mail}), 't', 'no id twice');

done_testing();
