# Queues where they cannot be written, or not be used: on a standby, in a read-only transaction, without preload.  What only looks works everywhere.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $setup = q{
	CREATE EXTENSION kvstore;
	SELECT kv_create_queue('mail');
	SELECT kv_create_queue('fast', unlogged => true);
	INSERT INTO kvstore.q_mail (ready_at, enqueued_at, payload) VALUES (now(), now(), '"one"'), (now() + '1 day', now(), '"two"');
	INSERT INTO kvstore.d_mail (original_id, payload, error, attempts, enqueued_at, failed_at) VALUES (1, '"dead"', 'x', 5, now(), now());
};
my %looks = (
	q{SELECT queue, ready, delayed, leased, dead, paused, exact, dead_exact FROM kv_queue_stats('mail')} => 'mail|1|1|0|1|f|t|t',
	q{SELECT id, payload, status FROM kv_peek('mail')} => qq{1|"one"|ready\n2|"two"|delayed},
	q{SELECT original_id, payload, error FROM kv_dead_letters('mail')} => '1|"dead"|x',
	q{SELECT queue, unlogged, max_attempts FROM kv_queues ORDER BY queue} => "fast|t|10\nmail|f|10");
my @writes = (
	q{kv_create_queue('new')}, q{kv_create_queue('mail', if_not_exists => true)}, q{kv_alter_queue('mail', lease => '1 s')}, q{kv_drop_queue('mail')}, q{kv_pause_queue('mail')}, q{kv_resume_queue('mail')},
	q{kv_purge_queue('mail')}, q{kv_enqueue('mail', '1')}, q{kv_enqueue_many('mail', '{1}')}, q{kv_cancel('mail', 1)}, q{kv_dead_requeue('mail', 1)}, q{kv_dead_requeue_all('mail')}, q{kv_dead_delete('mail', 1)},
	q{kv_dead_purge('mail')}, q{kv_dequeue('mail')});

# ---- On a standby ----

my $primary = kvs_node('primary', init => { allows_streaming => 1 });
$primary->safe_psql('postgres', $setup);
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

is(kvs_outcome($standby, $_), $looks{$_}, "standby: $_") for sort keys %looks;
like(kvs_outcome($standby, "SELECT $_"), qr/^ERROR 25006: cannot execute kv_\w+\(\) (in a read-only transaction|during recovery)/, "standby refuses $_") for @writes;
like(kvs_outcome($standby, q{SELECT * FROM kv_peek('fast')}), qr/^ERROR 0A000: queue "fast" is unlogged/, 'standby: unlogged queue');
like(kvs_outcome($standby, q{SELECT * FROM kv_dead_letters('fast')}), qr/^ERROR 0A000/, 'standby: its dead letters');
like(kvs_outcome($standby, q{SELECT * FROM kv_peek('none')}), qr/^ERROR 42P01/, 'standby: unknown queue');
# A session that has looked in recovery goes on after the promotion.
my $session = $standby->background_psql('postgres');
is($session->query_safe(q{SELECT count(*) FROM kv_peek('mail')}), '2', 'a session looks in recovery');
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no promotion';
is($session->query_safe(q{SELECT kv_enqueue('mail', '"three"') > 2}), 't', 'promoted: the session sends');
is($session->query_safe(q{SELECT payload FROM kv_dequeue('mail', 5) ORDER BY id}), qq{"one"\n"three"}, 'promoted: it receives');
is($session->query_safe(q{SELECT count(*) FROM kv_peek('fast')}), '0', 'promoted: the unlogged queue is empty and works');
$session->quit;

# ---- In a read-only transaction ----

is(kvs_outcome($primary, "BEGIN READ ONLY; $_"), $looks{$_}, "read only: $_") for sort keys %looks;
like(kvs_outcome($primary, "BEGIN READ ONLY; SELECT $_"), qr/^ERROR 25006: cannot execute kv_\w+\(\) in a read-only transaction/, "read only: refuses $_") for @writes;

# ---- Without preload: sending and receiving need shared memory, administration does not ----

my $plain = kvs_node('plain', preload => 0);
$plain->safe_psql('postgres', $setup);
is(kvs_outcome($plain, $_), $looks{$_}, "no preload: $_") for sort keys %looks;
like(kvs_outcome($plain, "SELECT $_"), qr/^ERROR 55000: kv_\w+\(\) needs kvstore in shared_preload_libraries/, "no preload: $_")
  for q{kv_enqueue('mail', '1')}, q{kv_enqueue_many('mail', '{1}')}, q{kv_dead_requeue('mail', 1)}, q{kv_dead_requeue_all('mail')}, q{kv_dequeue('mail')};
my ($status, $out, $err) = $plain->psql('postgres', q{SELECT kv_enqueue('mail', '1')});
like($err, qr/HINT:  Add kvstore to shared_preload_libraries in postgresql.conf, and restart the server\./, 'no preload: the hint has the line for postgresql.conf');
is(kvs_outcome($plain, q{SELECT kv_alter_queue('mail', lease => '1 min'), kv_pause_queue('mail'), kv_resume_queue('mail'), kv_cancel('mail', 2), kv_purge_queue('mail'), kv_dead_delete('mail', 1), kv_dead_purge('mail')}), 't|t|t|t|1|t|0', 'no preload: administration');
is(kvs_outcome($plain, q{UPDATE kvstore.q_mail SET priority = 1; DELETE FROM kvstore.q_mail; TRUNCATE kvstore.q_mail; SELECT kv_drop_queue('mail')}), 't', 'no preload: the owner\'s own SQL, and drop');

# ---- Limits of what can be sent ----

my $size = 60 * 1024 * 1024;
$primary->safe_psql('postgres', qq{SET kvstore.max_value_size = '64MB'; SELECT kv_enqueue('mail', to_jsonb(repeat('x', $size)), priority => 9)});
is($primary->safe_psql('postgres', q{SELECT length(payload #>> '{}') FROM kv_dequeue('mail')}), $size, 'a message of 60 MB is sent and delivered');
like(kvs_outcome($primary, q{SELECT kv_enqueue('mail', to_jsonb(repeat('x', 17 * 1024 * 1024)))}), qr/^ERROR KV002: payload is too large/, 'the default limit is less');
$_->stop for $standby, $primary, $plain;

done_testing();
