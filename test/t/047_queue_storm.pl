# Storm of messages: 16 producers and 16 consumers, with rollbacks, savepoints, clients that are killed, nacks, releases, leases that expire, extends, cancels; then
# a checker over a log of every call.
#
# Every call says in the server's log what it is about to do, and what came of it, with the time, the session and the transaction; so the log is complete whatever
# becomes of client and transaction, and which transactions committed is asked at the end.  The checker demands:
#   every committed message is acknowledged, cancelled, dead, or still there; and nothing else is anywhere
#   no aborted message is ever seen by another transaction, and none after its ack has committed
#   no two deliveries of one message overlap, unless the lease of the first had ended; no ack by a receipt while somebody else holds the message
#   no delivery is early, by its delay or by a backoff
#   attempts are right
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
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use KvsTest;

my $limit = 120;
my $max_attempts = 4;
my @backoff = (0.02, 0.06, 0.1);
my $dir = PostgreSQL::Test::Utils::tempdir;

# ---- What clients do ----

my $functions = <<'SQL';
CREATE EXTENSION kvstore;
SELECT kv_create_queue('storm', lease => '1 s', max_attempts => 4, backoff => '{20ms,60ms,100ms}');

CREATE FUNCTION say(VARIADIC what text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE LOG 'kvs % % % %', extract(epoch FROM clock_timestamp()), pg_backend_pid(), coalesce(pg_current_xact_id_if_assigned()::text, '-'), array_to_string(what, ' ');
END $$;
-- A number for the transaction, so that what is said in it can be told from the rest.
CREATE FUNCTION tx() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_current_xact_id(); END $$;
-- Send; "sub" names the savepoint that it is under.
CREATE FUNCTION send(number int, sub text DEFAULT '-') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wait float := CASE WHEN random() < 0.15 THEN random() * 0.3 ELSE 0 END;
    urgency int := greatest(0, floor(random() * 16) - 6);
    start float;
    id bigint;
BEGIN
    IF random() < 0.1 THEN
        start := extract(epoch FROM clock_timestamp());
        FOR id IN SELECT m.id FROM kv_enqueue_many('storm', array_fill('1'::jsonb, ARRAY[number + 1]), delay => wait * interval '1 s', priority => urgency) m LOOP
            PERFORM say('sent', id::text, (start + wait)::text, sub);
        END LOOP;
    ELSE
        FOR i IN 1 .. number LOOP
            start := extract(epoch FROM clock_timestamp());
            id := kv_enqueue('storm', '1', delay => wait * interval '1 s', priority => urgency);
            PERFORM say('sent', id::text, (start + wait)::text, sub);
        END LOOP;
    END IF;
END $$;
CREATE FUNCTION cancel() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    this bigint := coalesce((SELECT max(id) - floor(random() * 20) FROM kvstore.q_storm), 0);
    done boolean;
BEGIN
    done := kv_cancel('storm', this);
    PERFORM say('cancel', this::text, done::text);
END $$;
CREATE FUNCTION take(number int, lease interval, sub text DEFAULT '-') RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    m record;
    receipts text[] := '{}';
    start float := extract(epoch FROM clock_timestamp());
BEGIN
    PERFORM say('try');
    FOR m IN SELECT * FROM kv_dequeue('storm', number, lease) LOOP
        receipts := receipts || m.receipt;
        PERFORM say('got', m.id::text, m.attempts::text, m.receipt, start::text, extract(epoch FROM m.leased_until)::text, sub);
    END LOOP;
    PERFORM say('tried');
    RETURN receipts;
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
	parts => [ 2, "BEGIN;\nSELECT tx();\nSAVEPOINT s;\nSELECT send(2, 's');\nSELECT say('rollback', 's');\nROLLBACK TO s;\nSELECT send(1);\nSAVEPOINT t;\nSELECT send(1);\nRELEASE t;\nCOMMIT;\n\\sleep 10 ms\n" ],
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
	# without a transaction id, until it settles
	held => [ 1, "BEGIN;\nSELECT take(3, '5 s', 'held') AS r \\gset\n\\sleep 100 ms\nSELECT finish(':r');\nCOMMIT;\nSELECT say('committed');\n" ],
	snapshot => [ 2, "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT tx();\nSELECT take(2, $lease) AS r \\gset\nSELECT settle('ack', receipt) FROM unnest(':r'::text[]) receipt;\nCOMMIT;\n" ]);

# A client is a process of its own, so that it can be killed.
sub start_client
{
	my ($node, $kind, $scripts) = @_;
	my @files = map { "--file=$dir/${kind}_$_\@$scripts->{$_}[0]" } sort keys %$scripts;
	my $pid = fork // die "fork: $!";

	return { pid => $pid, kind => $kind } if $pid != 0;
	open STDOUT, '>>', "$dir/clients.log";
	open STDERR, '>>', "$dir/clients.log";
	$ENV{PGAPPNAME} = $kind;
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
	my (%message, %delivery, %last, %last_of_tx, %undone, %happened, %trying, %committed_at, @dangling);

	# when transactions and sessions were last heard of, and which savepoints were undone, at which line
	for my $line (0 .. $#$said)
	{
		my ($at, $pid, $xid, $what, @rest) = @{ $said->[$line] };

		$last{$pid} = $at;
		$last_of_tx{$xid} = $at if $xid ne '-';
		$undone{"$xid $rest[0]"} = $at if $what eq 'rollback' && @rest;
		$committed_at{$pid} = $at if $what eq 'committed';
		if ($what eq 'try') { $trying{$pid} = $at }
		elsif ($what eq 'tried') { delete $trying{$pid} }
	}
	# sessions that ended within a dequeue may have had messages that nobody heard of
	@dangling = sort { $a <=> $b } values %trying;

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
			my ($id, $ready, $sub) = @rest;
			my ($true) = $fate->($at, $pid, $xid, $sub);

			$message{$id} = { sent => $true, ready => $ready, xid => $xid, deliveries => [], events => [] };
			$happened{ $true ? 'sent' : $sub eq '-' ? 'sent, rolled back' : 'sent, savepoint rolled back' }++;
			$happened{'sent, committed late'}++ if $true && $last_of_tx{$xid} - $at > 0.05;
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
	}
	return (\%message, \%happened, \@dangling);
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

# Between these two it was surely held by this receipt: an ack that was good, in a transaction that committed, shows that nobody else had it.
sub check_message
{
	my ($id, $m, $dead, $left, $dangling, $wrong, $happened) = @_;
	my @deliveries = sort { $a->{at} <=> $b->{at} } @{ $m->{deliveries} };
	my @acks = grep { $_->{action} eq 'ack' && $_->{good} && $_->{true} } map { @{ $_->{settled} } } @deliveries;
	my @ends = (@acks ? 'acknowledged' : (), defined $m->{cancelled} ? 'cancelled' : (), $dead ? 'dead' : (), $left ? 'left' : ());

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
		check_pair($id, $before, $d, [ map { grep { $_->{good} } @{ $_->{settled} } } grep { $_ != $before && $_ != $d } @deliveries ], $dangling, $wrong, $happened)
		  if $before;
		push @$wrong, "message $id: first delivery is attempt $d->{attempts}" if !$before && $d->{attempts} > 1 + dangling_between($dangling, 0, $d->{at});

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
		push @$wrong, "message $id: dead after $dead attempts" if $dead != $max_attempts;
	}
	return;
}

# What was said of a message.
sub history
{
	my ($said, $id) = @_;
	my %receipt = map { $_->[6] => 1 } grep { $_->[3] eq 'got' && $_->[4] == $id } @$said;

	return join "\n", "message $id:", map { join ' ', @$_ }
	  grep { $_->[3] =~ /^(sent|cancel|got)$/ && $_->[4] == $id || $_->[3] =~ /^do/ && $receipt{ $_->[5] } } @$said;
}

sub dangling_between
{
	my ($dangling, $from, $to) = @_;

	return scalar grep { $_ > $from - 0.5 && $_ < $to } @$dangling;
}

# Two deliveries that follow each other.
sub check_pair
{
	my ($id, $a, $b, $others, $dangling, $wrong, $happened) = @_;
	my @settled = grep { $_->{start} < $b->{at} } @{ $a->{settled} };
	my @released = grep { $_->{good} && ($_->{action} eq 'release' || $_->{action} eq 'later' && $_->{true}) } @settled;
	my @failed = grep { $_->{good} && $_->{true} && $_->{action} eq 'nack' } @settled;
	my $extended = grep { $_->{good} && $_->{action} eq 'extend' } @settled;
	my $intents = grep { $_->[0] < $b->{at} } @{ $a->{intents} // [] };
	my $known = sum0(map { $_->{action} ne 'extend' } @settled);

	# While nobody had the message, who had it earlier may have changed something.
	my $between = grep { $_->{at} > $a->{at} && $_->{start} < $b->{at} } @$others;
	# Who fails a message whose lease has expired, and was ended, fails it twice.
	my $twice = grep { $_->{start} >= $a->{until} } @failed;

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

	# Each delivery counts, unless it was released; then it may still have expired before that.  Who uses a receipt twice may count twice.
	my $least = @released || $intents > @settled ? 0 : 1;
	my $most = $least + (@released ? 1 : 0) + $extended + max(0, @failed - 1) + $twice + 2 * $between + ($intents > @settled ? 2 : 0) + max(0, $known - 1) + dangling_between($dangling, $a->{at}, $b->{at});
	my $counted = $b->{attempts} - $a->{attempts};
	push @$wrong, "message $id: attempt $a->{attempts}, then $b->{attempts}: not within $least and $most" if $counted < $least || $counted > $most;
	$happened->{'attempts known exactly'}++ if $least == $most;

	$happened->{'expired, delivered again'}++ if $a->{true} && !@settled;
	return;
}

# ---- A storm ----

my @things = (
	'sent', 'sent, rolled back', 'sent, savepoint rolled back', 'sent, committed late', 'cancel: true', 'cancel: false', 'delivered', 'delivered again', 'delivered, rolled back',
	'delivered, savepoint rolled back', 'ack', 'ack: stale', 'ack, rolled back', 'nack', 'nack: stale', 'nack: dead', 'nack, rolled back', 'dead', 'release', 'release: stale',
	'later', 'later, rolled back', 'extend', 'extend: stale', 'extend, rolled back', 'expired, delivered again', 'in the end: acknowledged', 'in the end: dead', 'in the end: cancelled',
	'attempts known exactly', 'clients killed with leases');

sub kill_one
{
	my ($node, $clients, $happened) = @_;
	my $victim = $clients->[ rand @$clients ];

	kill 'KILL', $victim->{pid};
	waitpid $victim->{pid}, 0;
	$happened->{'clients killed'}++;
	$victim->{pid} = start_client($node, $victim->{kind}, $victim->{kind} eq 'producer' ? \%producer : \%consumer)->{pid};
	return;
}

sub storm
{
	my ($node, $seconds) = @_;
	my @clients = map { (start_client($node, 'producer', \%producer), start_client($node, 'consumer', \%consumer)) } 1 .. 16;
	my $end = time + $seconds;
	my %happened;

	while (time < $end)
	{
		usleep(200_000);
		kill_one($node, \@clients, \%happened);
	}
	# they end within their transactions, too
	kill 'KILL', map { $_->{pid} } @clients;
	waitpid $_->{pid}, 0 for @clients;
	ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name IN ('producer', 'consumer')"), 'all clients have ended');
	return \%happened;
}

# Receive all that is left; give up when nothing has come for so long.
sub drain
{
	my ($node) = @_;
	my $patience = 20;
	my $last = time;

	while (time - $last < $patience)
	{
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
	my ($message, $seen, $dangling) = understand($said, \%committed);
	my %dead = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT original_id, attempts FROM kvstore.d_storm');
	my %left = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT id FROM kvstore.q_storm');

	for my $id (sort { $a <=> $b } keys %$message)
	{
		check_message($id, $message->{$id}, $dead{$id}, $left{$id}, $dangling, \@wrong, $seen);
	}
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
		. "deadlock_timeout = 100ms\nkvstore.test_delay = 300\nkvstore.test_point = '$break'\n$conf");
	my (%happened, $wrong);
	my $start = time;

	$node->safe_psql('postgres', $functions . $sql);
	my $from = -s $node->logfile;
	for (1 .. 100)
	{
		my $more = storm($node, $seconds);
		$happened{$_} = ($happened{$_} // 0) + $more->{$_} for keys %$more;
		$node->safe_psql('postgres', 'ALTER SYSTEM SET kvstore.test_delay = 0; SELECT pg_reload_conf()');
		drain($node);
		my %kills = ('clients killed' => $happened{'clients killed'});
		$wrong = judge($node, $from, \%happened);
		%happened = (%happened, %kills);
		last if time - $start > $limit || @$wrong || !grep { !$happened{$_} } @things;
		note('not everything has happened yet: ' . join ', ', grep { !$happened{$_} } @things);
		$node->safe_psql('postgres', 'ALTER SYSTEM RESET kvstore.test_delay; SELECT pg_reload_conf()');
		$seconds = 5;
	}
	is(scalar @$wrong, 0, 'the checker finds nothing wrong') or diag(join "\n", scalar @$wrong, @$wrong[ 0 .. min(20, $#$wrong) ]);
	cmp_ok($happened{$_} // 0, '>', 0, "$_: " . ($happened{$_} // 0) . ' times') for @things, 'clients killed';
	my $log = slurp_file($node->logfile, $from);
	unlike($log, qr/PANIC|terminated by signal|TRAP|deadlock detected/, 'no crash, no deadlock');
	unlike($log, qr/would not have been delivered/, 'no message behind a head');
	my %errors;
	$errors{$1}++ while $log =~ /(?:ERROR|FATAL):  (.*)/g;
	delete @errors{ 'connection to client lost', 'could not serialize access due to concurrent update', 'terminating connection due to administrator command' };
	is_deeply(\%errors, {}, 'no other error');
	is($node->safe_psql("postgres", "SELECT state, count(*), min(id), max(leased_until) FROM kv_leases GROUP BY state"), "", "no lease is left");
	$node->stop;
	return;
}

for my $kind ([ 'producer', \%producer ], [ 'consumer', \%consumer ])
{
	append_to_file("$dir/$kind->[0]_$_", $kind->[1]{$_}[1]) for keys %{ $kind->[1] };
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
