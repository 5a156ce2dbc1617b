# The worker finds a message that no dequeue would find.  There is none unless a rule is broken; here a row is written past the guard, below the head.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('verify');
sub sql { return $node->safe_psql('postgres', $_[0]) }

# Send a message and take it, so that the head moves over it.  "verify-soon": have the worker look below the head now, and not in a minute; it comes when the
# lease is over, and ends it should the acknowledgement be later.
sub move_head
{
	my ($point, $lease) = @_;
	return sql(qq{SET kvstore.test_point = '$point'; SELECT kv_enqueue('q', '1');
		SELECT kv_ack(receipt) FROM kv_dequeue('q', lease => '$lease')});
}

sql(q{CREATE EXTENSION kvstore; SELECT kv_create_queue('q')});
move_head('', '1 hour');
sql(q{ALTER TABLE kvstore.q_q DISABLE TRIGGER kvstore_guard;
	INSERT INTO kvstore.q_q (ready_at, enqueued_at, payload) VALUES (now() - interval '1 hour', now(), '"stranded"');
	ALTER TABLE kvstore.q_q ENABLE ALWAYS TRIGGER kvstore_guard});
is(sql(q{SELECT count(*) FROM kv_dequeue('q')}), '0', 'a dequeue does not find it');

my $offset = -s $node->logfile;
move_head('verify-soon', '10 ms');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM kv_dequeue('q', lease => '1 hour') WHERE payload = '"stranded"'}), 'the worker does');
ok($node->wait_for_log(qr/would not have been delivered/, $offset), 'and says so');

# What has expired is not missed by anybody.
$offset = -s $node->logfile;
sql(q{SELECT kv_enqueue('q', '"short-lived"', ttl => '1 ms')});
sql(q{SELECT pg_sleep(0.01)});

# What is found by a dequeue is no reason to say anything.
sql(q{SELECT kv_enqueue('q', to_jsonb(i), priority => i % 10) FROM generate_series(1, 100) i; SELECT id FROM kv_dequeue('q', 50);
	BEGIN; SELECT id FROM kv_dequeue('q', 25); ROLLBACK});
move_head('verify-soon', '10 ms');
sql(q{SELECT kv_nack(receipt, '0') FROM kv_dequeue('q', 3)});
move_head('verify-soon', '10 ms');
$node->stop;
unlike(slurp_file($node->logfile, $offset), qr/would not have been delivered/, 'nothing else is reported');
done_testing();
