# What the TAP tests share.
#
# kvs_node(NAME, preload => 1, conf => TEXT): a started server of its own (PostgreSQL::Test::Cluster), with kvstore
# preloaded unless preload => 0.
#
# kvs_storm(NODE, { name => script, ... }, SECONDS): run several scripts of pgbench at random, by 16 clients (KVS_STORM_FACTOR times as long);
# fails if one of them ends with an error, or if the server's log has a deadlock.  Gives how many transactions of each there were; none of a name
# fails too.
#
# kvs_outcome(NODE, SQL, DATABASE): what a statement gives, or "ERROR" with its SQLSTATE and message in one line.
package KvsTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

our @EXPORT = qw(kvs_node kvs_greatest_age kvs_outcome kvs_storm $kvs_fastest $kvs_storm_conf);

# fastest(query): milliseconds that a query took, of 50 runs.
our $kvs_fastest = q{
	CREATE FUNCTION fastest(query text) RETURNS numeric LANGUAGE plpgsql AS $$
	DECLARE start timestamptz; best interval := '1 hour';
	BEGIN
		FOR i IN 1..50 LOOP
			start := clock_timestamp();
			EXECUTE query;
			best := LEAST(best, clock_timestamp() - start);
		END LOOP;
		RETURN round(extract(epoch FROM best) * 1000, 2);
	END $$};

# Deadlocks are found soon, and the statements themselves are not logged.
our $kvs_storm_conf = "fsync = off\nlog_statement = none\ndeadlock_timeout = 100ms\n";

sub kvs_node
{
	my ($name, %args) = @_;
	my $preload = $args{preload} // 1;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%{ $args{init} // {} }, extra => [ '-E', 'UTF8', '--no-locale', @{ $args{initdb} // [] } ]);
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'kvstore'") if $preload;
	$node->append_conf('postgresql.conf', $args{conf}) if defined $args{conf};
	$node->start;
	return $node;
}

# The greatest age of an expired entry of a store, while its owner writes some now and then.
sub kvs_greatest_age
{
	my ($node, $owner, $store, $seconds) = @_;
	my $end = time + $seconds;
	my $age = 0;

	while (time < $end)
	{
		my $now = $node->safe_psql('postgres', "SELECT FROM kv_set('v' || random(), '1', ttl => '50 ms', store => '$store');
			SELECT COALESCE(EXTRACT(epoch FROM max(clock_timestamp() - expires_at)), 0) FROM kvstore.s_$store", extra_params => [ '-U', $owner ]);
		$age = $now if $now > $age;
		usleep(20_000);
	}
	return $age;
}

sub kvs_outcome
{
	my ($node, $sql, $database) = @_;
	my ($status, $out, $err) = $node->psql($database // 'postgres', "\\set VERBOSITY verbose\n$sql");

	return $out if $status == 0;
	return $err =~ /^.*?ERROR:  (\w{5}): (.*)$/m ? "ERROR $1: $2" : $err;
}

sub kvs_storm
{
	my ($node, $scripts, $seconds) = @_;
	my @names = sort keys %$scripts;
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $start = -s $node->logfile;
	my (%count, $out, $err);

	append_to_file("$dir/$_", $scripts->{$_}) for @names;
	# one thread, because pgbench loses counts with several
	my @command = ('pgbench', '--no-vacuum', '--client=16', '--jobs=1', '--time=' . $seconds * ($ENV{KVS_STORM_FACTOR} // 1),
		(map { "--file=$dir/$_" } @names), '--port', $node->port, '--host', $node->host, 'postgres');
	my $ok = IPC::Run::run(\@command, '>', \$out, '2>', \$err);
	ok($ok && $err !~ /abort|ERROR/, 'no client ended with an error') or diag("$out\n$err");
	my ($deadlock) = slurp_file($node->logfile, $start) =~ /(deadlock detected\n(?:.*\n){1,20})/;
	is($deadlock, undef, 'no deadlock in the log');
	%count = $out =~ /^SQL script \d+: \Q$dir\E\/(\w+)\n(?:.*\n)*? - (\d+) transactions/mg;
	for my $name (@names)
	{
		cmp_ok($count{$name} // 0, '>', 0, "$name: " . ($count{$name} // 0) . ' times');
	}
	return \%count;
}

1;
