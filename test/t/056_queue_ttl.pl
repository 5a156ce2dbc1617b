# The ttl of messages: the worker removes what has expired, but not what is leased; it is counted; by hand, after a restart and without preload, too.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('ttl');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub left_are { my ($ids, $name) = @_; ok($node->poll_query_until('postgres', "SELECT string_agg(id::text, ' ' ORDER BY id) FROM kvstore.q_mail", $ids), $name) || diag(sql('TABLE kvstore.q_mail')); }

# So many more than before.
my $expired = 0;
sub expired_are { my ($more, $name) = @_; ok($node->poll_query_until('postgres', q{SELECT expired FROM kv_queue_stats('mail')}, $expired += $more), $name); }

# The receipt of a message that expires soon.  On a slow machine it may have expired before it could be leased; then one that lives longer is.
sub lease_one
{
	my ($lease) = @_;

	for (my $ttl = 300;; $ttl *= 2)
	{
		my $receipt = sql("SELECT kv_enqueue('mail', '1', ttl => '$ttl ms') > 0; SELECT receipt FROM kv_dequeue('mail', lease => '$lease')") =~ s/^t\n?//r;

		return $receipt if $receipt ne '';
		$expired++;
	}
}

sub lease_until_expired
{
	my $receipt = lease_one('1 hour');

	$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM kvstore.q_mail WHERE expires_at < clock_timestamp()') or die 'it has not stayed';
	return $receipt;
}

sql(q{CREATE EXTENSION kvstore; SELECT kv_create_queue('mail', backoff => '{}')});

# ---- The worker ----

sql(q{SELECT kv_enqueue('mail', '1'), kv_enqueue('mail', '2', ttl => '200 ms'), kv_enqueue('mail', '3', ttl => '200 ms', dedupe_key => 'k'), kv_enqueue('mail', '4', ttl => '1 hour'), kv_enqueue('mail', '5', ttl => '200 ms', delay => '1 hour')});
left_are('1 4', 'what has expired is removed, also what was delayed');
expired_are(3, 'and counted');
is(sql(q{SELECT ready, delayed, exact FROM kv_queue_stats('mail')}), '2|0|t', 'the number of messages is right');
isnt(sql(q{SELECT kv_enqueue('mail', '6', dedupe_key => 'k')}), '3', 'its dedupe_key is free');
sql(q{SELECT kv_purge_queue('mail')});

# A transaction that was rolled back, and one that took its time.
my $slow = $node->background_psql('postgres');
$slow->query_safe(q{BEGIN});
$slow->query_safe(q{SELECT kv_enqueue('mail', '1', ttl => '1 ms')});
sql(q{BEGIN; SELECT kv_enqueue('mail', '1', ttl => '1 ms'); ROLLBACK; SELECT kv_enqueue('mail', '1', ttl => '1 ms')});
expired_are(1, 'one of three');
$slow->query_safe(q{COMMIT});
expired_are(1, 'and another one when it is committed');

# A message that is leased is its consumer's.
my $receipt = lease_until_expired();
sql(q{SELECT kv_enqueue('mail', '1', ttl => '300 ms')});
expired_are(1, 'one beside it expires');
is(sql(q{SELECT count(*) FROM kvstore.q_mail WHERE expires_at < clock_timestamp()}), '1', 'one that is leased stays');
is(sql("SELECT kv_ack('$receipt')"), 't', 'and can be acknowledged');
$receipt = lease_until_expired();
is(sql("SELECT kv_nack('$receipt')"), 'retry', 'one that fails then');
expired_are(1, 'expires');
$receipt = lease_until_expired();
is(sql("SELECT kv_release('$receipt')"), 't', 'one that is released then');
expired_are(1, 'expires');
lease_one('400 ms');
expired_are(1, 'one whose lease lapses expires');
is(sql(q{SELECT count(*) FROM kvstore.leases()}), '0', 'no lease is left');
is(sql(q{SELECT count(*) FROM kv_dead_letters('mail')}), '0', 'none is a dead letter');

# Written by hand, with triggers of the owner's, and many.
sql(q{INSERT INTO kvstore.q_mail (ready_at, enqueued_at, payload, expires_at) VALUES (now(), now(), '1', now()), (now(), now(), '2', NULL)});
expired_are(1, 'one that the owner has written');
sql(q{CREATE TABLE log (id bigint); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES (OLD.id); RETURN OLD; END $$; CREATE TRIGGER note BEFORE DELETE ON kvstore.q_mail FOR EACH ROW EXECUTE FUNCTION note()});
sql(q{SELECT kv_enqueue('mail', '1', ttl => '0')});
expired_are(1, 'with a trigger');
is(sql('SELECT count(*) FROM log'), '1', 'which runs');
sql(q{DROP TRIGGER note ON kvstore.q_mail; SELECT count(*) FROM kv_enqueue_many('mail', array_fill('1'::jsonb, ARRAY[5000]), ttl => '0')});
expired_are(5000, 'many');
is(sql(q{SELECT ready, delayed, leased, exact FROM kv_queue_stats('mail')}), '1|0|0|t', 'the number of messages is right');

# ---- After a crash ----

sql(q{SELECT kv_purge_queue('mail'); SELECT kv_enqueue('mail', '1', ttl => '500 ms'), kv_enqueue('mail', '2')});
$node->stop('immediate');
$node->start;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM kvstore.q_mail}), 'after a crash, too');

# ---- By hand ----

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
sql(q{INSERT INTO kvstore.q_mail (ready_at, enqueued_at, payload, expires_at) VALUES (now(), now(), '1', now()), (now(), now(), '2', now())});
is(sql('SELECT kv_sweep(1), kv_maintain()'), '1|1', 'without preload, by hand');

$node->stop;
done_testing();
