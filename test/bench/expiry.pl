#!/usr/bin/env perl
# What expiry costs, and how soon expired entries are gone.
#
# Usage: expiry.pl [instructions] [alone] [together] [idle] [large]    (default: all of them)
# With PGHOST, PGPORT, PGUSER of a server that has kvstore preloaded and nothing else to do, on this machine, and pgbench and psql in the PATH;
# "instructions" makes a server of its own, so it needs valgrind and must not be root (KVS_BIN: the folder of postgres), "large" 2 GB and some minutes.  Each figure is a line with its limit; exit status 1: one is not met.
use strict;
use warnings;

use File::Temp qw(tempdir);
use IPC::Open2;
use Time::HiRes qw(time usleep);

my %wanted = map { $_ => 1 } @ARGV ? @ARGV : qw(instructions alone together idle large);
my $dir = tempdir(CLEANUP => 1);
my $database = 'bench_expiry';
my $failed = 0;

# Several statements, in an array, are one session.
sub sql
{
	my ($sql, $db) = @_;
	my @statements = map { ('-c', $_) } ref $sql ? @$sql : $sql;

	open my $psql, '-|', 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $db // $database, @statements or die "psql: $!\n";
	local $/;
	my $out = <$psql> // '';
	close $psql or die "psql failed: $sql\n";
	$out =~ s{\s+\z}{};
	return $out;
}

sub figure
{
	my ($name, $value, $unit, $limit) = @_;
	my $met = $value <= $limit;

	printf "%-70s %10.2f %-12s at most %s%s\n", $name, $value, $unit, $limit, $met ? '' : '   NOT MET';
	$failed = 1 unless $met;
	return;
}

sub info { printf "%-70s %s\n", @_; return; }

sub write_file
{
	my ($name, $text) = @_;

	open my $file, '>', "$dir/$name" or die "$name: $!\n";
	print $file $text;
	close $file or die "$name: $!\n";
	return "$dir/$name";
}

# Entries "key1" to "keyN" of a store, written in transactions of 100,000.
sub load_entries
{
	my ($store, $count, $expires_at) = @_;

	sql("SELECT kv_create_store('$store')");
	sql("ALTER TABLE kvstore.s_$store SET (autovacuum_enabled = off)");
	for (my $from = 1; $from <= $count; $from += 100_000)
	{
		sql("SELECT count(kv_set('key' || g, to_jsonb(g), expires_at => $expires_at, store => '$store')) FROM generate_series($from, $from + 99999) g");
	}
	return;
}

# ---- Instructions of kv_set() with a TTL and without ----

# Instructions of a server in single-user mode for a number of calls, by valgrind: it counts where perf cannot, and always the same.
sub count_instructions
{
	my ($length, $options, $calls) = @_;

	# a transaction for each call, of a prepared statement; existing keys, so that each call overwrites
	my $input = write_file('calls', join '', "PREPARE s (text) AS SELECT kv_set(\$1, '\"" . 'x' x $length . "\"'$options, store => 'instructions')\n",
		map { "EXECUTE s('k" . $_ % 100 . "')\n" } 1 .. $calls);
	my $postgres = `pg_config --bindir`;
	chomp $postgres;
	$postgres = "$ENV{KVS_BIN}" if defined $ENV{KVS_BIN};
	my $out = `valgrind --tool=none --log-file=/dev/null true && valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null $postgres/postgres --single -D $dir/data -c shared_preload_libraries=kvstore -c fsync=off bench < $input 2>&1`;
	my ($count) = $out =~ /I\s+refs:\s+([\d,]+)/;
	die "valgrind did not count:\n$out" unless defined $count;
	$count =~ tr/,//d;
	return $count;
}

sub instructions_of_call
{
	my ($length, $options) = @_;

	return (count_instructions($length, $options, 6000) - count_instructions($length, $options, 1000)) / 5000;
}

if ($wanted{instructions} || $wanted{alone} || $wanted{together} || $wanted{idle} || $wanted{large})
{
	sql("DROP DATABASE IF EXISTS $database", 'postgres');
	sql("CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8'", 'postgres');
	sql('CREATE EXTENSION kvstore');
}

if ($wanted{instructions})
{
	my $bin = $ENV{KVS_BIN} // `pg_config --bindir`;
	chomp $bin;
	system("$bin/initdb -D $dir/data -E UTF8 --locale=C -A trust > $dir/initdb.log 2>&1") == 0 or die "initdb failed (as root it must)\n";
	my $setup = write_file('setup', "CREATE EXTENSION kvstore;\nSELECT kv_create_store('instructions');\n");
	my $single = "$bin/postgres --single -D $dir/data -c shared_preload_libraries=kvstore -c fsync=off";
	write_file('create', "CREATE DATABASE bench;\n");
	system("$single postgres < $dir/create > $dir/create.log 2>&1") == 0 or die;
	system("$single bench < $setup > $dir/setup.log 2>&1") == 0 or die;
	# An entry that expires is 8 bytes longer.  The other one gets a value that makes up for them: else what is compared is how often a page is pruned.
	my $without = instructions_of_call(108, '');
	my $with = instructions_of_call(100, ", ttl => '1 hour'");
	my $never = instructions_of_call(108, ", expires_at => 'infinity'");
	my $once = instructions_of_call(100, ", expires_at => '2100-01-01'");

	info('kv_set() without a ttl', sprintf '%.0f instructions', $without);
	info('kv_set() with a ttl', sprintf '%.0f instructions', $with);
	info('kv_set() that expires, against one given infinity', sprintf '%.0f and %.0f instructions', $once, $never);
	figure('kv_set() with a ttl: more instructions than without', 100 * ($with / $without - 1), '%', 5);
}

# ---- An entry that expires alone ----

if ($wanted{alone})
{
	sql("SELECT kv_create_store('alone')");
	sleep 2;
	my @late;
	for my $n (1 .. 20)
	{
		my $out = sql([
			"SELECT FROM kv_set('a', '1', ttl => interval '0.3 s' + random() * interval '1 s', store => 'alone')",
			"SELECT set_config('bench.due', expires_at::text, false) FROM kvstore.s_alone",
			'DO $$ BEGIN WHILE EXISTS (SELECT FROM kvstore.s_alone) LOOP COMMIT; PERFORM pg_sleep(0.002); COMMIT; END LOOP; END $$',
			"SELECT 'late', extract(epoch FROM clock_timestamp() - current_setting('bench.due')::timestamptz)" ]);
		push @late, $out =~ /^late\|([\d.]+)/m;
		# sometimes the worker is still there, sometimes it is not
		sleep 6 if $n % 5 == 0;
	}
	@late = sort { $a <=> $b } @late;
	info('an entry that expires alone: gone after its time, median of 20', sprintf '%.3f s', $late[10]);
	figure('an entry that expires alone: gone after its time, worst of 20', $late[-1], 's', 1);
}

# ---- 1,000,000 entries that expire together ----

if ($wanted{together})
{
	sql("SELECT kv_create_store('foreground')");
	sql("SELECT count(kv_set('key' || g, to_jsonb(g), store => 'foreground')) FROM generate_series(1, 100000) g");
	my $start = time;
	my $get = write_file('get.sql', "\\set id random(1, 100000)\nSELECT kv_get('key' || :id, 'foreground');\n");
	my $expires = int(time) + 60;
	load_entries('together', 1_000_000, "to_timestamp($expires)");
	info('1,000,000 entries: written in', sprintf '%.1f s', time - $start);
	sql('CHECKPOINT');
	die "the load took longer than the entries live\n" if time > $expires - 12;
	sleep 1 while time < $expires - 12;
	my $pgbench = open2(my $out, undef, "pgbench -n -M prepared -c 4 -j 2 -T 45 -P 1 -f $get $database 2>&1");
	my $began = time;
	my $gone;
	my $quiet = sql("SELECT count(*) FROM kvstore.s_together");
	sleep 1 while time < $expires;
	while (time < $expires + 60)
	{
		# everything is gone when no slot of the table is due any more
		if (sql("SELECT count(*) FROM kvstore.expiry_map() WHERE relid = 'kvstore.s_together'::regclass") == 0)
		{
			$gone = time;
			last;
		}
		usleep(100_000);
	}
	my (@before, @during);
	while (<$out>)
	{
		next unless /^progress: ([\d.]+) s, ([\d.]+) tps/;
		my $second = $began + $1;
		push @before, $2 if $1 > 2 && $second < $expires - 0.5;
		push @during, $2 if $second - 1 > $expires && $second < ($gone // 0);
	}
	waitpid $pgbench, 0;
	my $left = sql("SELECT count(*) FROM kvstore.s_together");
	my $mean = sub { my $sum = 0; $sum += $_ for @_; return @_ ? $sum / @_ : 0; };
	figure('1,000,000 entries that expire together: left after', $left, 'entries', 0);
	figure('1,000,000 entries that expire together: gone within', ($gone // 1e9) - $expires, 's', 20);
	info('gets of four clients before', sprintf '%.0f a second', $mean->(@before));
	info('gets of four clients during the sweep', sprintf '%.0f a second', $mean->(@during));
	figure('gets: what they lose', 100 * (1 - $mean->(@during) / ($mean->(@before) || 1)), '%', 33.3);
}

# ---- An idle server ----

if ($wanted{idle})
{
	# passes over new databases come at growing intervals: look in between
	sleep 6;
	my $launcher = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'kvstore launcher'");
	my $switches = sub { open my $f, '<', "/proc/$launcher/status" or die "$!\n"; local $/; return <$f> =~ /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : 0; };
	my ($before, $workers, $seconds) = ($switches->(), 0, 30);
	sleep $seconds;
	figure('an idle server: wake-ups of the launcher', ($switches->() - $before) / $seconds * 10, 'in 10 s', 1);
}

# ---- 10,000,000 entries, of which 100 expire each second ----

if ($wanted{large})
{
	my $start = time;
	load_entries('large', 10_000_000, "now() + interval '10 s' + random() * interval '100000 s'");
	info('10,000,000 entries: written in', sprintf '%.0f s', time - $start);
	info('10,000,000 entries: blocks', sql("SELECT pg_relation_size('kvstore.s_large') / 8192"));
	# what had expired during the load goes first
	sleep 10;
	my $read = "SELECT heap_blks_hit + heap_blks_read FROM pg_statio_all_tables WHERE relid = 'kvstore.s_large'::regclass";
	my $swept = "SELECT expired FROM pg_stat_kvstore WHERE store = 'large'";
	my ($blocks, $rows, $seconds) = (sql($read), sql($swept), 60);
	$start = time;
	sleep $seconds;
	$seconds = time - $start;
	$rows = sql($swept) - $rows;
	$blocks = sql($read) - $blocks;
	info('10,000,000 entries: swept each second', sprintf '%.1f', $rows / $seconds);
	figure('10,000,000 entries: blocks that the sweeper reads each second', $blocks / $seconds, 'blocks', 2000);
	figure('10,000,000 entries: dead for more than 2 s', sql("SELECT count(*) FROM kvstore.s_large WHERE expires_at < now() - interval '2 s'"), 'entries', 0);
}

sql("DROP DATABASE $database", 'postgres');
exit $failed;
