# Storm of messages: producers, consumers and those who wait for messages, with rollbacks, savepoints, clients that are killed, nacks, releases, leases that expire,
# extends, cancels, dedupe_keys that many use at once, ttls of which some are over before a delivery, waits that are cancelled; then a checker over a log of every call.
#
# Every call says in the server's log what it is about to do, and what came of it, with the time, the session and the transaction; so the log is complete whatever
# becomes of client and transaction, and which transactions committed is asked at the end.  The checker demands:
#   every committed message is acknowledged, cancelled, dead, expired, or still there; and nothing else is anywhere; the server has counted what expired
#   no aborted message is ever seen by another transaction, and none after its ack has committed
#   no two deliveries of one message overlap, unless the lease of the first had ended; no ack by a receipt while somebody else holds the message
#   no delivery is early, by its delay or by a backoff
#   attempts are right
#   of the messages with one dedupe_key never two live at a time; who is told that there is one already is told of one that lives
#   no delivery of what has expired; the keys_if_undelivered of what is dead are there, and no others
#
# In the end all but those who wait are stopped.  Then what is ready has to be taken, and so has each message that is sent now, even if the first in line is cancelled: a
# waiter's own look is ten minutes away (kvstore.fallback_poll), so a wake-up that is lost shows.  At the end nobody is left in line.
#
# In the end what is left is received by one consumer: a message that nobody can find is lost, though it is in the table.
#
# Three times: a plain queue, one with an index and a trigger of the owner's (other code writes its rows), and a server without worker processes, where the dequeues
# themselves end what has lapsed.  KVS_STORM_SECONDS is how long each takes.  KVS_STORM_BREAK names rules that are broken on purpose (points of kvstore.test_point): then
# this test has to fail.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use List::Util qw(max min sum0);
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use KvsTest;

my $limit = 120;
# Seconds that a message may be ready while somebody waits for one: far less than kvstore.fallback_poll, and than the minute after which the worker finds what is behind a head.
my $patience = 15;
my $max_attempts = 4;
my @backoff = (0.02, 0.06, 0.1);
my $dir = PostgreSQL::Test::Utils::tempdir;
my $clients_started = 0;

# ---- What clients do ----

my $functions = <<'SQL';
CREATE EXTENSION kvstore;
SELECT kv_create_queue('storm', lease => '1 s', max_attempts => 4, backoff => '{20ms,60ms,100ms}');
SELECT kv_create_store();

CREATE FUNCTION say(VARIADIC what text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE LOG 'kvs % % % %', extract(epoch FROM clock_timestamp()), pg_backend_pid(), coalesce(pg_current_xact_id_if_assigned()::text, '-'), array_to_string(what, ' ');
END $$;
-- A number for the transaction, so that what is said in it can be told from the rest.
CREATE FUNCTION tx() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_current_xact_id(); END $$;
-- Send; "sub" names the savepoint that it is under.  "may_dedupe" once in a transaction: who holds one key and waits for another may meet another one who does.
CREATE FUNCTION send(number int, sub text DEFAULT '-', may_dedupe boolean DEFAULT true) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wait float := CASE WHEN random() < 0.15 THEN random() * 0.3 ELSE 0 END;
    urgency int := greatest(0, floor(random() * 16) - 6);
    ttl float := CASE WHEN random() < 0.2 THEN 0.005 + random() * 0.4 END;
    key text := CASE WHEN may_dedupe AND random() < 0.5 THEN 'key' || floor(random() * 8) END;
    undelivered text;
    how float := random();
    start float;
    id bigint;
BEGIN
    IF how < 0.1 THEN
        start := extract(epoch FROM clock_timestamp());
        FOR id IN SELECT m.id FROM kv_enqueue_many('storm', array_fill('1'::jsonb, ARRAY[number + 1]), delay => wait * interval '1 s', priority => urgency,
                ttl => ttl * interval '1 s') m LOOP
            PERFORM said('sent', id, start, wait, ttl, sub, NULL);
        END LOOP;
        RETURN;
    END IF;
    FOR i IN 1 .. number LOOP
        start := extract(epoch FROM clock_timestamp());
        IF how < 0.2 THEN
            -- of a key that no other transaction checks, as that would have to wait
            IF (kv_atomic(jsonb_build_array(jsonb_build_object('check', jsonb_build_object('key', gen_random_uuid(), 'versionstamp', 1)),
                    '{"enqueue": {"queue": "storm", "payload": 2}}'::jsonb))).ok THEN
                RAISE 'a check of what is not there succeeded';
            END IF;
            PERFORM FROM kv_atomic(jsonb_build_array(jsonb_build_object('enqueue', jsonb_strip_nulls(jsonb_build_object('queue', 'storm', 'payload', 1,
                'delay_ms', (wait * 1000)::int, 'ttl_ms', (ttl * 1000)::int, 'priority', urgency)))));
            PERFORM said('sent', currval('kvstore.q_storm_id_seq'), start, (wait * 1000)::int / 1000.0, (ttl * 1000)::int / 1000.0, sub, NULL);
            PERFORM say('atomic');
        ELSE
            undelivered := CASE WHEN how < 0.3 THEN gen_random_uuid()::text END;
            id := kv_enqueue('storm', coalesce(to_jsonb(undelivered), '1'), delay => wait * interval '1 s', priority => urgency, ttl => ttl * interval '1 s', dedupe_key => key,
                keys_if_undelivered => '[]'::jsonb || to_jsonb(undelivered));
            PERFORM said(CASE WHEN id = currval('kvstore.q_storm_id_seq') THEN 'sent' ELSE 'present' END, id, start, wait, ttl, sub, key);
            key := NULL;
        END IF;
    END LOOP;
END $$;
CREATE FUNCTION said(what text, id bigint, start float, wait float, ttl float, sub text, key text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM say(what, id::text, (start + wait)::text, sub, coalesce(key, '-'), start::text, coalesce((start + ttl)::text, '-'),
        coalesce((extract(epoch FROM clock_timestamp()) + ttl)::text, '-'));
END $$;
CREATE FUNCTION cancel() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    this bigint := coalesce((SELECT max(id) - floor(random() * 20) FROM kvstore.q_storm), 0);
    done boolean;
BEGIN
    done := kv_cancel('storm', this);
    PERFORM say('cancel', this::text, done::text);
END $$;
-- The clock of the look that found a message is that of the lease.
CREATE FUNCTION take(number int, lease interval, sub text DEFAULT '-', wait interval DEFAULT '0') RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    m record;
    receipts text[] := '{}';
BEGIN
    PERFORM say('try');
    FOR m IN SELECT * FROM kv_dequeue('storm', number, lease, wait) LOOP
        receipts := receipts || m.receipt;
        PERFORM say('got', m.id::text, m.attempts::text, m.receipt, extract(epoch FROM m.leased_until - lease)::text, extract(epoch FROM m.leased_until)::text, sub);
    END LOOP;
    PERFORM say('tried');
    RETURN receipts;
END $$;
-- The same, which a statement_timeout may end.
CREATE FUNCTION take_in_time(number int, lease interval) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tx();
    RETURN take(number, lease, 'in_time', '1 minute');
EXCEPTION WHEN query_canceled THEN
    PERFORM say('rollback', 'in_time', 'timeout');
    RETURN '{}';
END $$;
-- It may have messages just now that it has not told of; until its statement has ended.
CREATE FUNCTION break_off(pid int, how text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz := (SELECT query_start FROM pg_stat_activity a WHERE a.pid = break_off.pid);
BEGIN
    PERFORM say('break_off', pid::text);
    PERFORM CASE how WHEN 'cancel' THEN pg_cancel_backend(pid) ELSE pg_terminate_backend(pid) END;
    WHILE EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = break_off.pid AND state = 'active' AND query_start = since) LOOP
        PERFORM pg_sleep(0.001), pg_stat_clear_snapshot();
    END LOOP;
    PERFORM say('broken_off', pid::text);
END $$;
-- The one that was, and still is, the longest in line.
CREATE FUNCTION cancel_wait() RETURNS void LANGUAGE SQL AS $$
    SELECT break_off(pid, 'cancel') FROM kvstore.waiters() JOIN pg_stat_activity USING (pid) WHERE application_name ~ '^waiter' ORDER BY since LIMIT 1
$$;
-- Those who wait get all that nobody has leased and that may be delivered; what they do not get in that time.
CREATE FUNCTION left_over(patience interval) RETURNS TABLE (what text) LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + patience;
BEGIN
    WHILE EXISTS (SELECT FROM kv_peek('storm', 1000000) WHERE status NOT IN ('leased', 'dying')) LOOP
        IF clock_timestamp() > until THEN
            RETURN QUERY SELECT 'message ' || id || ': ' || status || ', and ' || asleep || ' sleep' FROM kv_peek('storm', 1000000),
                (SELECT count(*) AS asleep FROM kvstore.waiters() JOIN pg_stat_activity USING (pid) WHERE wait_event_type = 'Extension') w WHERE status NOT IN ('leased', 'dying');
            RETURN;
        END IF;
        PERFORM pg_sleep(0.002);
    END LOOP;
END $$;
-- Nothing happens any more that could bring a waiter on: they have all slept for so long, and none of the messages will be ready.
CREATE FUNCTION quiet(asleep interval) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + asleep + interval '5 s';
BEGIN
    WHILE clock_timestamp() < until AND (EXISTS (SELECT FROM kv_peek('storm', 1000000) WHERE status NOT IN ('leased', 'dying')) OR EXISTS (SELECT FROM kv_leases WHERE state <> 'ending') OR
            EXISTS (SELECT FROM pg_stat_activity WHERE application_name ~ '^waiter' AND wait_event_type IS DISTINCT FROM 'Extension') OR
            EXISTS (SELECT FROM kvstore.waiters() WHERE since > clock_timestamp() - asleep)) LOOP
        PERFORM pg_sleep(0.01);
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
END $$;
CREATE FUNCTION probe(wait float DEFAULT 0) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    start float := extract(epoch FROM clock_timestamp());
BEGIN
    PERFORM said('sent', kv_enqueue('storm', '1', delay => wait * interval '1 s'), start, wait, NULL, '-', NULL);
END $$;
CREATE FUNCTION settle(what text, receipt text, sub text DEFAULT '-') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wait float := CASE WHEN random() < 0.5 THEN random() * 0.1 END;
    start float;
    result text;
BEGIN
    PERFORM say('do', what, receipt);
    start := extract(epoch FROM clock_timestamp());
    CASE what
    WHEN 'ack' THEN result := kv_ack(receipt);
    WHEN 'nack' THEN result := kv_nack(receipt, delay => wait * interval '1 s');
    WHEN 'dead' THEN result := kv_nack(receipt, dead => true);
    WHEN 'release' THEN wait := 0; result := kv_release(receipt);
    WHEN 'later' THEN wait := coalesce(wait, 0.05); result := kv_release(receipt, wait * interval '1 s');
    ELSE result := extract(epoch FROM kv_extend(receipt, wait * interval '3 s' + interval '50 ms'));
    END CASE;
    PERFORM say('done', what, receipt, start::text, coalesce(result, 'none'), coalesce(wait::text, '-'), sub);
END $$;
-- What becomes of messages that were taken.
CREATE FUNCTION finish(receipts text[], sub text DEFAULT '-') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    receipt text;
    r float;
BEGIN
    FOREACH receipt IN ARRAY receipts LOOP
        r := random();
        IF r < 0.1 THEN
            PERFORM settle('extend', receipt, sub);
            r := random();
        END IF;
        CASE
        WHEN r < 0.66 THEN PERFORM settle('ack', receipt, sub);
        WHEN r < 0.80 THEN PERFORM settle('nack', receipt, sub);
        WHEN r < 0.81 THEN PERFORM settle('dead', receipt, sub);
        WHEN r < 0.88 THEN PERFORM settle('release', receipt, sub);
        WHEN r < 0.94 THEN PERFORM settle('later', receipt, sub);
        ELSE NULL;
        END CASE;
        -- with a receipt that has been used
        IF random() < 0.03 THEN
            PERFORM settle((ARRAY['ack', 'nack', 'extend', 'release'])[1 + floor(random() * 4)], receipt, sub);
        END IF;
    END LOOP;
END $$;
SQL

my $lease = q{(0.05 + random() * 0.4) * interval '1 s'};
my %producer = (
	send => [ 10, "\\set n random(1, 3)\nSELECT send(:n);\n\\sleep 10 ms\n" ],
	late => [ 3, "\\set n random(1, 3)\n\\set ms random(1, 150)\nBEGIN;\nSELECT send(:n);\n\\sleep :ms ms\nSELECT say('commits');\nCOMMIT;\n" ],
	undone => [ 2, "BEGIN;\nSELECT send(2);\n\\sleep 5 ms\nSELECT say('rollback');\nROLLBACK;\n" ],
	parts => [ 2, "BEGIN;\nSELECT tx();\nSAVEPOINT s;\nSELECT send(2, 's');\nSELECT say('rollback', 's');\nROLLBACK TO s;\nSELECT send(1, may_dedupe => false);\nSAVEPOINT t;\nSELECT send(1);\nRELEASE t;\nCOMMIT;\n\\sleep 10 ms\n" ],
	own => [ 1, "BEGIN;\nSELECT tx();\nSELECT send(2);\nSELECT take(2, $lease) AS r \\gset\nSELECT finish(':r');\nCOMMIT;\n" ],
	cancel => [ 1, "SELECT cancel();\n" ]);
my %consumer = (
	take => [ 8, "\\set n random(1, 5)\nSELECT take(:n, $lease) AS r \\gset\nSELECT finish(':r');\n\\sleep 1 ms\n" ],
	together => [ 8, "\\set n random(1, 5)\nBEGIN;\nSELECT tx();\nSELECT take(:n, $lease) AS r \\gset\n\\sleep 3 ms\nSELECT finish(':r');\nCOMMIT;\n" ],
	undone => [ 3, "\\set n random(1, 5)\nBEGIN;\nSELECT tx();\nSELECT take(:n, $lease) AS r \\gset\n\\sleep 3 ms\nSELECT finish(':r');\nSELECT say('rollback');\nROLLBACK;\n" ],
	parts => [ 3, "BEGIN;\nSELECT tx();\nSAVEPOINT s;\nSELECT take(2, $lease, 's') AS r \\gset\nSELECT finish(':r', 's');\nSELECT say('rollback', 's');\nROLLBACK TO s;\n"
		  . "SELECT take(2, $lease) AS r \\gset\nSAVEPOINT t;\nSELECT finish(':r');\nRELEASE t;\nCOMMIT;\n" ],
	slow => [ 2, "SELECT take(2, '80 ms') AS r \\gset\n\\sleep 200 ms\nSELECT finish(':r');\n" ],
	slow_commit => [ 2, "SELECT take(2, '80 ms') AS r \\gset\nBEGIN;\nSELECT tx();\nSELECT finish(':r');\n\\sleep 120 ms\nCOMMIT;\n" ],
	lost => [ 1, "SELECT take(1, '100 ms');\n" ],
	brief => [ 2, "SELECT tx(), take(2, $lease, wait => '60 ms') AS r \\gset\nSELECT finish(':r');\n" ],
	in_time => [ 3, "\\set ms random(1, 60)\nSET statement_timeout = :ms;\nSELECT take_in_time(2, $lease) AS r \\gset\nSET statement_timeout = 0;\nSELECT finish(':r');\n" ],
	# without a transaction id, until it settles
	held => [ 1, "BEGIN;\nSELECT take(3, '1 s', 'held') AS r \\gset\n\\sleep 100 ms\nSELECT finish(':r');\nCOMMIT;\nSELECT say('committed');\n" ],
	snapshot => [ 2, "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT tx();\nSELECT take(2, $lease) AS r \\gset\nSELECT settle('ack', receipt) FROM unnest(':r'::text[]) receipt;\nCOMMIT;\n" ]);

# They wait longer than this test does, unless there is a message.
my %waiter = (
	take => [ 3, "SELECT tx(), take(1, $lease, wait => '1 hour') AS r \\gset\nSELECT finish(':r');\n" ],
	together => [ 3, "\\set n random(1, 3)\nBEGIN;\nSELECT tx();\nSELECT take(:n, $lease, wait => '1 hour') AS r \\gset\n\\sleep 3 ms\nSELECT finish(':r');\nCOMMIT;\n" ],
	undone => [ 1, "BEGIN;\nSELECT tx();\nSELECT take(2, $lease, wait => '1 hour') AS r \\gset\nSELECT finish(':r');\nSELECT say('rollback');\nROLLBACK;\n" ],
	call => [ 4, "CALL kv_wait_queue('storm', '1 hour');\nSELECT say('called');\nSELECT tx(), take(2, $lease) AS r \\gset\nSELECT finish(':r');\n" ]);
my %scripts = (producer => \%producer, consumer => \%consumer, waiter => \%waiter);

# A client is a process of its own, so that it can be killed.
sub start_client
{
	my ($node, $kind) = @_;
	my @files = map { "--file=$dir/${kind}_$_\@$scripts{$kind}{$_}[0]" } sort keys %{ $scripts{$kind} };
	my $name = $kind . ' ' . ++$clients_started;
	my $pid = fork // die "fork: $!";

	return { pid => $pid, kind => $kind, name => $name } if $pid != 0;
	open STDOUT, '>>', "$dir/clients.log";
	open STDERR, '>>', "$dir/clients.log";
	$ENV{PGAPPNAME} = $name;
	# to look after the client wakes a waiter
	$ENV{PGOPTIONS} = '-c client_connection_check_interval=0' if $kind eq 'waiter';
	exec 'pgbench', '--no-vacuum', '--client=1', '--time=100000', @files, '--host', $node->host, '--port', $node->port, 'postgres';
	die "exec: $!";
}

# ---- The log ----

# All that was said since, in order.
sub read_log
{
	my ($node, $from) = @_;
	my @said;

	open my $fh, '<', $node->logfile or die;
	seek $fh, $from, 0;
	while (<$fh>)
	{
		push @said, [ split / / ] if s/^.*?LOG:  kvs //;
	}
	close $fh;
	chomp $_->[-1] for @said;
	return \@said;
}

# Messages with all that befell them, as "sends" and "deliveries"; and how often what happened.
sub understand
{
	my ($said, $committed) = @_;
	my (%message, %delivery, %last, %last_of_tx, %undone, %happened, %trying, %breaking, %committed_at, @dangling, @present);

	# when transactions and sessions were last heard of, and which savepoints were undone, at which line
	for my $line (0 .. $#$said)
	{
		my ($at, $pid, $xid, $what, @rest) = @{ $said->[$line] };

		# after a timeout it says so only when all is undone
		$undone{"$xid $rest[0]"} = $rest[1] ? $last{$pid} : $at if $what eq 'rollback' && @rest;
		$last{$pid} = $at;
		$last_of_tx{$xid} = $at if $xid ne '-';
		$committed_at{$pid} = $at if $what eq 'committed';
		# sessions that ended within a dequeue may have had messages that nobody heard of, between these two times
		if ($what eq 'try') { $trying{$pid} = $at }
		elsif ($what eq 'tried') { delete $trying{$pid} }
		elsif ($what eq 'break_off') { $breaking{ $rest[0] } = delete $trying{ $rest[0] } if $trying{ $rest[0] } }
		elsif ($what eq 'broken_off') { push @dangling, [ delete $breaking{ $rest[0] }, $at ] if $breaking{ $rest[0] } }
		elsif ($what eq 'rollback' && @rest > 1) { push @dangling, [ delete $trying{$pid}, $at ] if $trying{$pid} }
	}
	push @dangling, map { [ $_, 'inf' ] } values %trying, values %breaking;
	%trying = ();

	# what it says in this scope became true: 1; never: 0, and when at the earliest that was so
	my $fate = sub {
		my ($at, $pid, $xid, $sub) = @_;

		# a client that was killed before it could say so may have committed
		return ($committed_at{$pid} // 0) > $at ? (1) : (0, $last{$pid}) if defined $sub && $sub eq 'held';
		return (0, $undone{"$xid $sub"}) if defined $sub && $sub ne '-' && exists $undone{"$xid $sub"};
		return (1) if $xid eq '-' || $committed->{$xid};
		return (0, $last_of_tx{$xid});
	};

	for (@$said)
	{
		my ($at, $pid, $xid, $what, @rest) = @$_;

		if ($what eq 'sent')
		{
			my ($id, $ready, $sub, $key, $start, $soonest, $latest) = @rest;
			my ($true) = $fate->($at, $pid, $xid, $sub);

			$message{$id} = { sent => $true, at => $at, ready => $ready, xid => $xid, deliveries => [], key => $key };
			@{ $message{$id} }{ 'soonest', 'latest' } = ($soonest, $latest) if $soonest ne '-';
			$happened{ $true ? 'sent' : $sub eq '-' ? 'sent, rolled back' : 'sent, savepoint rolled back' }++;
			$happened{'sent, committed late'}++ if $true && $last_of_tx{$xid} - $at > 0.05;
		}
		elsif ($what eq 'present')
		{
			my ($id, $ready, $sub, $key, $start) = @rest;
			my ($true) = $fate->($at, $pid, $xid, $sub);

			push @present, { id => $id, key => $key, start => $start, xid => $xid } if $true;
		}
		elsif ($what =~ /^(?:atomic|called)$/)
		{
			$happened{ $what eq 'atomic' ? 'sent by kv_atomic' : 'woken in CALL' }++;
		}
		elsif ($what eq 'try')
		{
			$trying{$pid} = $at;
		}
		elsif ($what eq 'cancel')
		{
			my ($id, $result) = @rest;
			my ($true) = $fate->($at, $pid, $xid);

			$message{$id}{cancelled} = $at if $true && $result eq 'true';
			$happened{"cancel: $result"}++;
		}
		elsif ($what eq 'got')
		{
			my ($id, $attempts, $receipt, $start, $until, $sub) = @rest;
			my ($true, $ended) = $fate->($at, $pid, $xid, $sub);
			my $d = { id => $id, attempts => $attempts, receipt => $receipt, start => $start, at => $at, until => $until, pid => $pid, xid => $xid,
				true => $true, free => $true ? undef : $ended, settled => [] };

			$delivery{$receipt} = $d;
			push @{ $message{$id}{deliveries} }, $d;
			$happened{ $true ? 'delivered' : $sub eq '-' ? 'delivered, rolled back' : 'delivered, savepoint rolled back' }++;
			$happened{'delivered again'}++ if $attempts > 1;
			$happened{'delivered after a wait'}++ if $start > $trying{$pid} + 0.01;
		}
		elsif ($what eq 'do')
		{
			my ($action, $receipt) = @rest;

			# from here on it may be free, whether or not we hear what came of it
			push @{ $delivery{$receipt}{intents} }, [ $at, $action ];
		}
		elsif ($what eq 'done')
		{
			my ($action, $receipt, $start, $result, $wait, $sub) = @rest;
			my ($true, $ended) = $fate->($at, $pid, $xid, $sub);
			my $s = { action => $action, start => $start, at => $at, result => $result, wait => $wait, true => $true, ended => $ended, xid => $xid,
				good => $result !~ /^(none|false)$/ };

			push @{ $delivery{$receipt}{settled} }, $s;
			$happened{ $action . ($s->{good} ? '' : ': stale') . ($true ? '' : ', rolled back') }++;
			$happened{'nack: dead'}++ if $action eq 'nack' && $result eq 'dead';
		}
		elsif ($what eq 'rollback' && @rest > 1)
		{
			$happened{'wait timed out'}++;
		}
	}
	return (\%message, \%happened, \@dangling, \@present);
}

# ---- The checker ----

# When, at the earliest, the message may have been somebody else's again.
sub free_at
{
	my ($d) = @_;
	my $held = $d->{until};
	my @free = defined $d->{free} ? $d->{free} : ();

	for my $s (@{ $d->{settled} })
	{
		# an extension holds, whatever becomes of the transaction
		$held = $s->{action} eq 'extend' && $s->{good} ? $s->{result} : $held;
	}
	push @free, map { $_->[0] } grep { $_->[1] ne 'extend' } @{ $d->{intents} // [] };
	# an extension may be shorter, too, and may have been the last that we heard of
	push @free, map { $_->[0] + 0.05 } grep { $_->[1] eq 'extend' } @{ $d->{intents} // [] };
	return min($held, $d->{until}, @free) if grep { $_->[1] eq 'extend' } @{ $d->{intents} // [] };
	return min($held, @free);
}

# The message was taken between "start", when the clock was read for the lease, and "at", when that was told.  On a loud machine much may happen in between:
# of each delivery, is it known that it came after the one before it, and that neither changes places with another one?
sub in_order
{
	my @deliveries = @_;
	my ($told, @after) = (0);

	for (@deliveries)
	{
		push @after, $told < $_->{start};
		$told = max($told, $_->{at});
	}
	return map { $after[$_] && ($_ == 0 || $after[ $_ - 1 ]) && ($_ == $#after || $after[ $_ + 1 ]) } 0 .. $#after;
}

# Between these two it was surely held by this receipt: an ack that was good, in a transaction that committed, shows that nobody else had it.
sub check_message
{
	my ($id, $m, $dead, $left, $dangling, $wrong, $happened) = @_;
	my @deliveries = sort { $a->{start} <=> $b->{start} } @{ $m->{deliveries} };
	my @in_order = in_order(@deliveries);
	my @acks = grep { $_->{action} eq 'ack' && $_->{good} && $_->{true} } map { @{ $_->{settled} } } @deliveries;
	my @ends = (@acks ? 'acknowledged' : (), defined $m->{cancelled} ? 'cancelled' : (), $dead ? 'dead' : (), $left ? 'left' : ());

	# the worker tells nobody
	push @ends, 'expired' if $m->{sent} && !@ends && defined $m->{latest} && $m->{latest} < time;
	# not before, as nobody else could have the key
	$m->{over} = @acks ? $acks[0]{at} : $m->{cancelled} // ($dead ? $dead->{at} : $left ? 'inf' : $m->{soonest});
	# what has expired holds no key, even while it is leased
	$m->{over} = $m->{soonest} if defined $m->{soonest} && $m->{soonest} < ($m->{over} // 'inf');
	$m->{end} = $ends[0];

	# somewhere, and once
	push @$wrong, "message $id: " . (@ends ? join(' and ', @ends) : 'lost') if $m->{sent} && @ends != 1;
	push @$wrong, "message $id: rolled back, but @ends" if !$m->{sent} && @ends > 0;
	push @$wrong, "message $id: acknowledged " . @acks . ' times' if @acks > 1;
	$happened->{"in the end: $_"}++ for @ends;

	for my $i (0 .. $#deliveries)
	{
		my $d = $deliveries[$i];
		my $before = $i > 0 ? $deliveries[ $i - 1 ] : undef;

		push @$wrong, "message $id: rolled back, but delivered" if !$m->{sent} && $d->{xid} ne $m->{xid};
		push @$wrong, "message $id: early, by " . ($m->{ready} - $d->{at}) if $d->{at} < $m->{ready};
		push @$wrong, "message $id: attempt $d->{attempts}" if $d->{attempts} > $max_attempts;
		push @$wrong, "message $id: delivered after it was acknowledged" if grep { $d->{start} > $_->{at} } @acks;
		push @$wrong, "message $id: delivered after it was cancelled" if defined $m->{cancelled} && $d->{start} > $m->{cancelled};
		push @$wrong, "message $id: delivered after it had expired" if defined $m->{latest} && $d->{start} > $m->{latest};
		my $expiring = defined $m->{soonest} && $d->{at} > $m->{soonest};
		check_pair($id, $before, $d, [ map { grep { $_->{good} } @{ $_->{settled} } } grep { $_ != $before && $_ != $d } @deliveries ], $expiring, $dangling, $wrong, $happened)
		  if $before && $in_order[$i];
		push @$wrong, "message $id: held twice, at $before->{at} and $d->{at}"
		  if $before && !$in_order[$i] && max($before->{at}, $d->{at}) < min(free_at($before), free_at($d));
		push @$wrong, "message $id: first delivery is attempt $d->{attempts}"
		  if !$before && $in_order[$i] && $d->{attempts} > 1 + dangling_between($dangling, 0, $d->{at});

		# by this receipt, while another one was good
		for my $s (grep { $_->{good} } @{ $d->{settled} })
		{
			push @$wrong, "message $id: $s->{action} by the receipt of attempt $d->{attempts} while another one is good"
			  if grep { $_ != $d && $_->{at} < $s->{start} && free_at($_) > $s->{at} } @deliveries;
		}
	}
	# dead letters count what failed
	if ($dead && @deliveries && !grep { $_->{action} eq 'dead' } map { @{ $_->{settled} } } @deliveries)
	{
		push @$wrong, "message $id: dead after $dead->{attempts} attempts" if $dead->{attempts} != $max_attempts;
	}
	return;
}

# Of the messages with one key one lives at a time; who is told that there is one is told of that.
sub check_keys
{
	my ($message, $present, $wrong, $happened) = @_;
	my %before;

	for my $id (sort { $message->{$a}{at} <=> $message->{$b}{at} } grep { $message->{$_}{sent} && $message->{$_}{key} ne '-' } keys %$message)
	{
		my $m = $message->{$id};
		my $other = $before{ $m->{key} };

		push @$wrong, "message $id: sent with $m->{key}, which message $other->{id} has" if $other && $m->{at} < $other->{over};
		$happened->{"key of a message that was $other->{end}"}++ if $other;
		$before{ $m->{key} } = { %$m, id => $id };
	}
	for my $p (@$present)
	{
		my $m = $message->{ $p->{id} };

		$happened->{'key in use'}++;
		push @$wrong, "message $p->{id}: taken for one with $p->{key}" if !$m || $m->{key} ne $p->{key};
		push @$wrong, "message $p->{id}: rolled back, but it keeps $p->{key}" if $m && !$m->{sent} && $m->{xid} ne $p->{xid};
		push @$wrong, "message $p->{id}: expired, but it keeps $p->{key}" if $m && ($m->{end} // '') eq 'expired' && $m->{latest} < $p->{start} && !@{ $m->{deliveries} };
	}
	return;
}

# What was said of a message.
sub history
{
	my ($said, $id) = @_;
	my %receipt = map { $_->[6] => 1 } grep { $_->[3] eq 'got' && $_->[4] == $id } @$said;

	return join "\n", "message $id:", map { join ' ', @$_ }
	  grep { $_->[3] =~ /^(sent|present|cancel|got)$/ && $_->[4] == $id || $_->[3] =~ /^do/ && $receipt{ $_->[5] } } @$said;
}

sub dangling_between
{
	my ($dangling, $from, $to) = @_;

	return scalar grep { $_->[0] < $to && $_->[1] > $from } @$dangling;
}

# Two deliveries that follow each other.
sub check_pair
{
	my ($id, $a, $b, $others, $expiring, $dangling, $wrong, $happened) = @_;
	my @settled = grep { $_->{start} < $b->{at} } @{ $a->{settled} };
	my @released = grep { $_->{good} && ($_->{action} eq 'release' || $_->{action} eq 'later' && $_->{true}) } @settled;
	my @failed = grep { $_->{good} && $_->{true} && $_->{action} eq 'nack' } @settled;
	my $extended = grep { $_->{good} && $_->{action} eq 'extend' } @settled;
	my $intents = grep { $_->[0] < $b->{at} } @{ $a->{intents} // [] };
	my $known = sum0(map { $_->{action} ne 'extend' } @settled);

	# While nobody had the message, who had it earlier may have changed something.
	my $between = grep { $_->{at} > $a->{at} && $_->{start} < $b->{at} } @$others;

	push @$wrong, "message $id: delivered at $b->{at}, though held until " . free_at($a) if $b->{at} < free_at($a);

	# not before the delay that was asked for; the clock of a nack is read after "start"
	if ($between) { }
	elsif (@failed == 1 && !@released && $known == 1 && $failed[0]{wait} ne '-' && $b->{at} < $failed[0]{start} + $failed[0]{wait})
	{
		push @$wrong, "message $id: early after a nack";
	}
	elsif (@failed == 1 && !@released && $known == 1 && $failed[0]{wait} eq '-' && $b->{at} < $failed[0]{start} + $backoff[ min($a->{attempts}, @backoff + 0) - 1 ])
	{
		push @$wrong, "message $id: early after a nack, by its backoff";
	}
	push @$wrong, "message $id: early after a release"
	  if !$between && @released == 1 && !@failed && $known == 1 && $b->{at} < $released[0]{start} + $released[0]{wait};

	# Each delivery counts once, however it ends, unless it was released; then it may still have expired before that.
	my $least = (@released || $intents > @settled ? 0 : 1) - $between;
	my $most = $least + (@released ? 1 : 0) + $extended + 3 * $between + ($intents > @settled ? 2 : 0) + max(0, $known - 1) + dangling_between($dangling, $a->{start}, $b->{at});
	# Whoever finds that a message has expired forgets how often it was rolled back; somebody with a clock of a moment ago may still get it.
	$least = -$max_attempts if $expiring;
	my $counted = $b->{attempts} - $a->{attempts};
	push @$wrong, "message $id: attempt $a->{attempts}, then $b->{attempts}: not within $least and $most" if $counted < $least || $counted > $most;
	$happened->{'attempts known exactly'}++ if $least == $most;

	$happened->{'expired, delivered again'}++ if $a->{true} && !@settled;
	return;
}

# ---- A storm ----

my @things = (
	'sent', 'sent, rolled back', 'sent, savepoint rolled back', 'sent, committed late', 'sent by kv_atomic', 'cancel: true', 'cancel: false', 'delivered', 'delivered again',
	'delivered, rolled back', 'delivered, savepoint rolled back', 'delivered after a wait', 'woken in CALL', 'wait timed out', 'ack', 'ack: stale', 'ack, rolled back', 'nack',
	'nack: stale', 'nack: dead', 'nack, rolled back', 'dead', 'release', 'release: stale', 'later', 'later, rolled back', 'extend', 'extend: stale', 'extend, rolled back',
	'expired, delivered again', 'in the end: acknowledged', 'in the end: dead', 'in the end: cancelled', 'in the end: expired', 'key in use', 'key of a message that was acknowledged',
	'key of a message that was expired', 'attempts known exactly', 'clients killed with leases');
my @done = ('clients killed', 'waits cancelled');

# A client whose wait was cancelled has ended; what is left of one that was killed goes on waiting.
sub restart_clients
{
	my ($node, $clients) = @_;

	for (@$clients)
	{
		$_ = start_client($node, $_->{kind}) if waitpid($_->{pid}, WNOHANG) != 0;
	}
	my $names = join ',', map { $_->{name} } @$clients;
	$node->safe_psql('postgres', "SELECT break_off(pid, 'terminate') FROM pg_stat_activity WHERE application_name ~ '^waiter' AND application_name <> ALL ('{$names}')");
	return;
}

# What is ready, and what is sent now, is taken.
sub silence
{
	my ($node, $clients) = @_;
	my @others = map { $_->{pid} } grep { $_->{kind} ne 'waiter' } @$clients;
	my $left = "SELECT left_over('$patience s');\n";
	my @probes = ('SELECT probe();', 'SELECT probe(0.03);', 'SELECT probe(); SELECT cancel_wait();', 'SELECT probe(0.005); SELECT cancel_wait();');

	kill 'STOP', @others;
	# the server itself wakes a session once, up to 10 s after it was idle, for its statistics
	my $lost = $node->safe_psql('postgres', join '', $left, "SELECT quiet('10.5 s');\n", map { "$_\n${left}SELECT quiet('1 s');\n" } @probes);
	kill 'CONT', @others;
	return grep { $_ ne '' } split /\n/, $lost;
}

sub storm
{
	my ($node, $seconds, $waited) = @_;
	my @clients = map { start_client($node, $_) } map { ($_) x 11 } sort keys %scripts;
	my $end = time + $seconds;
	my %happened = map { $_ => 0 } @done;

	while (time < $end)
	{
		usleep(200_000);
		kill 'KILL', $clients[ rand @clients ]{pid};
		$node->safe_psql('postgres', 'SELECT cancel_wait()');
		restart_clients($node, \@clients);
		$happened{'clients killed'}++;
		$happened{'waits cancelled'}++;
	}
	push @$waited, silence($node, \@clients);
	# they end within their transactions, too
	kill 'KILL', map { $_->{pid} } @clients;
	waitpid $_->{pid}, 0 for @clients;
	$node->safe_psql('postgres', q{SELECT break_off(pid, 'terminate') FROM pg_stat_activity WHERE application_name ~ '^waiter'});
	ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name ~ '^(producer|consumer|waiter) '"), 'all clients have ended');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM kvstore.waiters()'), 0, 'nobody is left in line');
	return \%happened;
}

# Receive all that is left; give up when nothing has come for so long.  "maintain": nobody else removes what has expired, and buries what has been given up.
sub drain
{
	my ($node, $maintain) = @_;
	my $last = time;

	while (time - $last < $patience)
	{
		$node->safe_psql('postgres', 'SELECT kv_maintain()') if $maintain;
		my ($taken, $left) = split /\|/, $node->safe_psql('postgres', <<'SQL');
SELECT cardinality(t), (SELECT count(*) FROM kvstore.q_storm)
FROM (SELECT take(500, '10 s') t) t, LATERAL (SELECT count(settle('ack', r)) FROM unnest(t) r) s
SQL
		return if $taken == 0 && $left == 0;
		$last = time if $taken > 0;
		usleep($taken > 0 ? 1_000 : 50_000);
	}
	return;
}

# Returns what happened, and what is wrong.
sub judge
{
	my ($node, $from, $happened) = @_;
	my $said = read_log($node, $from);
	my %xids = map { $_->[2] => 1 } @$said;
	my @wrong;

	delete $xids{'-'};
	append_to_file("$dir/xids", join("\n", keys %xids) . "\n");
	$node->safe_psql('postgres', "CREATE TEMP TABLE x (x xid8); COPY x FROM '$dir/xids'; COPY (SELECT x FROM x WHERE pg_xact_status(x) = 'committed') TO '$dir/committed'");
	my %committed = map { $_ => 1 } split /\n/, slurp_file("$dir/committed");
	unlink "$dir/xids", "$dir/committed";
	my ($message, $seen, $dangling, $present) = understand($said, \%committed);
	my %dead = map { my ($id, $attempts, $at) = split /\|/; ($id => { attempts => $attempts, at => $at }) } split /\n/,
	  $node->safe_psql('postgres', 'SELECT original_id, attempts, extract(epoch FROM failed_at) FROM kvstore.d_storm');
	my %left = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT id FROM kvstore.q_storm');

	for my $id (sort { $a <=> $b } keys %$message)
	{
		check_message($id, $message->{$id}, $dead{$id}, $left{$id}, $dangling, \@wrong, $seen);
	}
	check_keys($message, $present, \@wrong, $seen);
	my $expired = $seen->{'in the end: expired'} // 0;
	my $counted = 0;
	for (my $end = time + $patience; time < $end && $counted < $expired; usleep(50_000))
	{
		# also what was rolled back
		$counted = $node->safe_psql('postgres', q{SELECT expired FROM kv_queue_stats('storm')});
	}
	push @wrong, "$expired messages have expired, $counted were counted" if $expired > $counted;
	push @wrong, map { "undelivered $_: not the key of a dead letter, or missing" } split /\n/, $node->safe_psql('postgres', <<'SQL');
SELECT coalesce(l.value, d.payload) FROM kvstore.s_default l FULL JOIN (SELECT payload FROM kvstore.d_storm WHERE payload <> '1') d ON l.value = d.payload
WHERE l.value IS NULL OR d.payload IS NULL OR l.key <> kv_key_from_json(jsonb_build_array(d.payload))
SQL
	push @wrong, map { "message $_: nobody has sent it" } grep { !exists $message->{$_} } keys %dead, keys %left;
	push @wrong, map { "message $_: left, and not found" } sort { $a <=> $b } keys %left;
	$seen->{'clients killed with leases'} = scalar grep { $_ > 0 } map { defined $_->{free} && !grep { $_->{action} ne 'extend' } @{ $_->{settled} } } map { @{ $_->{deliveries} } } values %$message;
	%$happened = (%$happened, %$seen);
	diag(history($said, $_)) for map { /^message (\d+)/ ? $1 : () } @wrong[ 0 .. min($ENV{KVS_STORM_SHOW} // 2, $#wrong) ];
	return \@wrong;
}

sub run_storm
{
	my ($name, $seconds, $conf, $sql) = @_;
	my $break = $ENV{KVS_STORM_BREAK} // '';
	my $node = kvs_node("queue_storm_$name", conf => "fsync = off\nlog_statement = none\nlog_error_verbosity = terse\nclient_connection_check_interval = 50ms\nmax_connections = 80\n"
		. "deadlock_timeout = 100ms\nkvstore.test_delay = 300\nkvstore.fallback_poll = 10min\nkvstore.max_waiters = 60\nkvstore.test_point = '$break'\n$conf");
	my (%happened, $wrong);
	my @waited;                    # messages in vain for somebody
	my $start = time;

	$node->safe_psql('postgres', $functions . $sql);
	my $from = -s $node->logfile;
	for (1 .. 100)
	{
		my $more = storm($node, $seconds, \@waited);
		my %done = map { $_ => ($happened{$_} // 0) + $more->{$_} } @done;
		$node->safe_psql('postgres', 'ALTER SYSTEM SET kvstore.test_delay = 0; SELECT pg_reload_conf()');
		drain($node, $name eq 'alone');
		$wrong = judge($node, $from, \%happened);
		%happened = (%happened, %done);
		last if time - $start > $limit || @$wrong || @waited || !grep { !$happened{$_} } @things;
		note('not everything has happened yet: ' . join ', ', grep { !$happened{$_} } @things);
		$node->safe_psql('postgres', 'ALTER SYSTEM RESET kvstore.test_delay; SELECT pg_reload_conf()');
		$seconds = 5;
	}
	is(scalar @$wrong, 0, 'the checker finds nothing wrong') or diag(join "\n", scalar @$wrong, @$wrong[ 0 .. min(20, $#$wrong) ]);
	is(scalar @waited, 0, 'no wake-up is lost') or diag(join "\n", @waited);
	cmp_ok($happened{$_} // 0, '>', 0, "$_: " . ($happened{$_} // 0) . ' times') for @things, @done;
	my $log = slurp_file($node->logfile, $from);
	unlike($log, qr/PANIC:|terminated by signal|TRAP:|deadlock detected/, 'no crash, no deadlock');
	unlike($log, qr/would not have been delivered/, 'no message behind a head');
	my %errors;
	$errors{$1}++ while $log =~ /(?:ERROR|FATAL):  (.*)/g;
	delete @errors{ 'connection to client lost', 'could not serialize access due to concurrent update', 'terminating connection due to administrator command',
		'canceling statement due to user request', 'canceling statement due to statement timeout' };
	is_deeply(\%errors, {}, 'no other error');
	ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM kv_leases'), 'no lease is left')
	  or diag($node->safe_psql('postgres', 'SELECT state, count(*), min(id), max(leased_until) FROM kv_leases GROUP BY state'));
	ok($node->poll_query_until('postgres', 'SELECT sum(used) = 0 FROM kvstore.memory_in_use()'), 'nothing is left in shared memory')
	  or diag($node->safe_psql('postgres', 'SELECT * FROM kvstore.memory_in_use()'));
	$node->stop;
	return;
}

for my $kind (keys %scripts)
{
	append_to_file("$dir/${kind}_$_", $scripts{$kind}{$_}[1]) for keys %{ $scripts{$kind} };
}
my $seconds = $ENV{KVS_STORM_SECONDS} // 8;
subtest 'plain queue' => sub { run_storm('plain', $seconds, '', '') };
subtest 'a trigger and an index of the owner\'s' => sub {
	run_storm('owner', $seconds, '', <<'SQL');
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(NEW, OLD); END $$;
CREATE TRIGGER look BEFORE INSERT OR UPDATE OR DELETE ON kvstore.q_storm FOR EACH ROW EXECUTE FUNCTION look();
CREATE INDEX ON kvstore.q_storm (enqueued_at);
SQL
};
subtest 'without workers' => sub { run_storm('alone', $seconds, "max_worker_processes = 0\n", '') };

done_testing();
