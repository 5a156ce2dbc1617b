# Queues when servers die: kill -9 of a backend and of the postmaster under load, VACUUM FULL and UPDATEs by hand meanwhile, promotion of a standby.
#
# Under load every message is sent in a transaction that notes its id, and received, noted and acknowledged in one, too; so after whatever happened each id that was noted as sent must
# be noted as received once, when all is received.  Leases are gone after a crash: their messages are delivered again, and an old receipt acknowledges what nobody else holds.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use KvsTest;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $node = kvs_node('queue_crash', init => { allows_streaming => 1 }, conf => "restart_after_crash = on\nfsync = off\nlog_statement = none\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{
	CREATE EXTENSION kvstore;
	SELECT kv_create_queue('load', lease => '20 s', backoff => '{10ms}', max_attempts => 1000);
	SELECT kv_create_queue('held', lease => '10 min');
	SELECT kv_create_queue('fast', unlogged => true);
	CREATE TABLE sent (id bigint);
	CREATE TABLE received (id bigint, at timestamptz DEFAULT clock_timestamp());
	CREATE FUNCTION send() RETURNS void LANGUAGE sql AS $$
		INSERT INTO sent SELECT m.id FROM kv_enqueue_many('load', array_fill('1'::jsonb, ARRAY[1 + floor(random() * 3)::int]), priority => floor(random() * 3)::int) m $$;
	CREATE FUNCTION receive(maximum int) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE
		m record;
		n bigint := 0;
	BEGIN
		FOR m IN SELECT * FROM kv_dequeue('load', maximum) LOOP
			INSERT INTO received VALUES (m.id);
			IF kv_ack(m.receipt) IS DISTINCT FROM true THEN
				RAISE EXCEPTION 'message % was acknowledged by somebody else', m.id;
			END IF;
			n := n + 1;
		END LOOP;
		RETURN n;
	END $$;
	-- It may be rolled back.
	CREATE FUNCTION try_receive(maximum int) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE
		n bigint;
	BEGIN
		n := receive(maximum);
		IF random() < 0.05 THEN
			RAISE EXCEPTION 'rolled back' USING ERRCODE = 'ZZ000';
		END IF;
		RETURN n;
	EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
		RETURN 0;
	END $$});
append_to_file("$dir/send", "SELECT send();\n\\sleep 1 ms\n");
append_to_file("$dir/receive", "SELECT try_receive(5);\n");
append_to_file("$dir/owner", "VACUUM FULL kvstore.q_load;\n\\sleep 50 ms\nUPDATE kvstore.q_load SET headers = '1' WHERE id IN (SELECT id FROM kvstore.q_load ORDER BY random() LIMIT 20);\n\\sleep 20 ms\n");

# A load of so many clients; they end when the server does.
sub load
{
	my (%clients) = @_;
	my @running;
	local $ENV{PGAPPNAME} = 'load';

	for my $script (sort keys %clients)
	{
		my $out = '';
		my $handle = IPC::Run::start([ 'pgbench', '-n', '-c', $clients{$script}, '-T', 600, '-f', "$dir/$script", '-h', $node->host, '-p', $node->port, 'postgres' ],
			'<', \undef, '>', \$out, '2>&1');
		push @running, { handle => $handle, out => \$out, name => $script };
	}
	return \@running;
}

sub end_load
{
	my ($running) = @_;

	for my $run (@$running)
	{
		$run->{handle}->kill_kill(grace => 5);
		unlike(${ $run->{out} }, qr/acknowledged by somebody else/, "$run->{name}: nobody else acknowledged");
	}
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'load'") or die 'clients stay';
	return;
}

sub wait_for_traffic
{
	my ($before) = @_;

	return $node->poll_query_until('postgres', "SELECT count(*) > $before + 300 FROM received");
}

# Receive what is left, from its leases as they lapse too.
sub check_all
{
	my ($what) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	while (time < $end && sql('SELECT count(*) FROM kvstore.q_load') > 0)
	{
		usleep(20_000) if sql('SELECT try_receive(1000)') == 0;
	}
	is(sql('SELECT count(*) FROM kvstore.q_load'), '0', "$what: all is received");
	is(sql('SELECT count(*), count(DISTINCT id) FROM sent'), sql('SELECT count(*), count(DISTINCT id) FROM received'), "$what: each message once");
	is(sql('SELECT count(*) FROM sent FULL JOIN received USING (id) WHERE sent.ctid IS NULL OR received.ctid IS NULL'), '0', "$what: those that were sent");
	is(sql('SELECT count(*) FROM kvstore.d_load'), '0', "$what: none is dead");
	return;
}

# Two messages that somebody holds, and one that he has in a transaction.
my %receipt;

sub hold
{
	my ($which) = @_;

	sql("SELECT kv_purge_queue('held'); SELECT count(*) FROM kv_enqueue_many('held', '{1,2,3}')");
	$receipt{$which} = [ split /\n/, sql("SELECT receipt FROM kv_dequeue('held', 2) ORDER BY payload") ];
	is(sql("SELECT count(*) FROM kv_dequeue('held', 3)"), '1', "$which: two are held");
	return;
}

sub check_held
{
	my ($which, $server) = @_;
	my ($first, $second) = @{ $receipt{$which} };

	is($server->safe_psql('postgres', "SELECT count(*) FROM kv_leases"), '0', "$which: no leases");
	is($server->safe_psql('postgres', "SELECT kv_ack('$first'), kv_ack('$first')"), 't|f', "$which: an old receipt acknowledges what nobody else holds");
	is($server->safe_psql('postgres', "SELECT payload, attempts FROM kv_dequeue('held', 5) ORDER BY payload"), "2|1\n3|1", "$which: the others are delivered again");
	is($server->safe_psql('postgres', "SELECT kv_ack('$second'), kv_nack('$second') IS NULL, kv_extend('$second') IS NULL"), 'f|t|t', "$which: and are not what it acknowledges");
	is($server->safe_psql('postgres', "SELECT count(*) FROM kvstore.q_held"), '2', "$which: they are still there");
	return;
}

# ---- A load that the owner disturbs ----

my $running = load(send => 3, receive => 4, owner => 1);
ok(wait_for_traffic(0), 'messages pass');
usleep(1_500_000);
end_load($running);
check_all('VACUUM FULL, UPDATE by hand');

# ---- kill -9 of a backend ----

for my $round (1 .. 2)
{
	my $which = "backend killed, $round";

	hold($which);
	sql("SELECT kv_enqueue('fast', '1')");
	my $before = sql('SELECT count(*) FROM received');
	$running = load(send => 3, receive => 4);
	ok(wait_for_traffic($before), "$which: messages pass");
	my $started = sql('SELECT pg_postmaster_start_time()');
	my $pid = sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'load' ORDER BY random() LIMIT 1");
	kill 'KILL', $pid;
	$_->{handle}->finish for @$running;
	ok($node->poll_query_until('postgres', "SELECT count(*) >= 0 FROM pg_stat_activity"), "$which: the server restarts by itself");
	is(sql('SELECT pg_postmaster_start_time()'), $started, "$which: with the same postmaster");
	check_held($which, $node);
	is(sql("SELECT count(*) FROM kvstore.q_fast"), '0', "$which: an unlogged queue is empty");
	is(sql("SELECT count(*) FROM (SELECT kv_enqueue('fast', '2')) s"), '1', "$which: and takes messages");
	is(sql("SELECT kv_ack(receipt) FROM kv_dequeue('fast')"), 't', "$which: and gives them");
	check_all($which);
}

# ---- kill -9 of the postmaster ----

{
	my $which = 'postmaster killed';

	hold($which);
	my $before = sql('SELECT count(*) FROM received');
	$running = load(send => 3, receive => 4);
	ok(wait_for_traffic($before), "$which: messages pass");
	$node->kill9;
	$_->{handle}->finish for @$running;
	# its children have to notice
	my $started = 0;
	for (1 .. 100)
	{
		last if $started = $node->start(fail_ok => 1);
		# where nobody buries the dead its pid still exists
		$node->{_pid} = undef;
		usleep(200_000);
	}
	ok($started, "$which: started again");
	check_held($which, $node);
	check_all($which);
}

# ---- Promotion ----

{
	my $which = 'promoted';

	$node->backup('base');
	my $standby = PostgreSQL::Test::Cluster->new('queue_standby');
	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->start;
	hold($which);
	my $dead = sql("SELECT count(*) FROM (SELECT kv_enqueue('load', '1')) s");
	$node->wait_for_catchup($standby);
	for my $call (q{(SELECT count(*) FROM kv_dequeue('held'))}, "kv_ack('$receipt{$which}[0]')", "kv_nack('$receipt{$which}[0]')", "kv_release('$receipt{$which}[0]')",
		"kv_extend('$receipt{$which}[0]')", "kv_ack_many('{}')", q{kv_enqueue('held', '1')}, q{kv_cancel('held', 1)}, q{kv_purge_queue('held')}, q{kv_release_id('held', 1)})
	{
		like(kvs_outcome($standby, "SELECT $call"), qr/^ERROR 25006: cannot execute kv_\w+\(\) in a read-only transaction/, "standby refuses " . substr($call, 0, 40));
	}
	like(kvs_outcome($standby, q{CALL kv_wait_queue('held', '1 ms')}), qr/^ERROR 25006/, 'standby refuses CALL kv_wait_queue()');
	is(kvs_outcome($standby, q{SELECT count(*) FROM kv_peek('held')}), '3', 'standby: kv_peek() works');
	like(kvs_outcome($standby, q{SELECT count(*) FROM kv_peek('fast')}), qr/^ERROR 0A000/, 'standby: not for an unlogged queue');
	is(kvs_outcome($standby, q{SELECT count(*) FROM kv_leases}), '0', 'standby: no leases');
	$node->stop('immediate');
	$standby->promote;
	check_held($which, $standby);
	is($standby->safe_psql('postgres', "SELECT receive(10)"), '1', 'and the other queue works');
	$standby->stop;
}

done_testing();
