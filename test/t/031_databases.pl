# Workers and databases: nobody who wants a database for himself waits for us, many databases share few workers, a copy of a database is found.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use KvsTest;

# Of the four, one is the launcher's and one that of logical replication.
my $node = kvs_node('databases', conf => "max_worker_processes = 4\nfsync = off\n");

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

# Until a query gives "t"; returns the seconds that took, 999 after 90.
sub wait_for
{
	my ($query, $db) = @_;
	my $start = time;

	while (time - $start < 90)
	{
		return time - $start if sql($query, $db) eq 't';
		usleep(20_000);
	}
	return 999;
}

# A statement for which the server waits 5 s until nobody is connected to a database: how long the slowest took, and how many were refused.
my ($slowest, $refused) = (0, 0);
sub alone
{
	my ($sql) = @_;
	my $start = time;
	my ($status, undef, $err) = $node->psql('postgres', $sql);

	$slowest = time - $start if time - $start > $slowest;
	return if $status == 0;
	diag("$sql: $err");
	$refused++;
	sql($sql);
	return;
}

sub worker_is_in { return "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'kvstore worker' AND datname = '$_[0]')"; }

my $busy = "SELECT count(kv_set('k' || g, '1', ttl => g * interval '20 ms')) FROM generate_series(1, 1000) g";
my $no_ttl = "SELECT NOT EXISTS (SELECT FROM kvstore.s_default WHERE expires_at IS NOT NULL)";

sql("CREATE DATABASE origin");
sql("CREATE EXTENSION kvstore; SELECT kv_create_store()", 'origin');

# A copy with an entry, in which nobody writes: found when the launcher looks for new databases, which is seen at the end.
sql("SELECT kv_set('asleep', '1', ttl => '20 s')", 'origin');
sql("CREATE DATABASE silent TEMPLATE origin");
is(sql("SELECT count(*) FROM kvstore.s_default", 'silent'), '1', 'a copy with an entry');

# ---- DROP DATABASE and CREATE DATABASE ... TEMPLATE while a worker is connected ----

# So often each: a worker was there just before.
my ($copies, $drops) = (0, 0);
for my $round (1 .. 300)
{
	last if $copies >= 50 && $drops >= 50;
	sql($busy, 'origin') if sql(worker_is_in('origin')) ne 't';
	wait_for(worker_is_in('origin'));
	$copies += sql(worker_is_in('origin')) eq 't';
	alone("CREATE DATABASE copy TEMPLATE origin");

	# A worker comes to the copy, too, as soon as something is written there.
	sql("SELECT kv_set('here', '1', ttl => '5 s')", 'copy');
	wait_for(worker_is_in('copy'));
	$drops += sql(worker_is_in('copy')) eq 't';
	alone("DROP DATABASE copy");
}
note("slowest of all: $slowest s; a worker was connected to the origin $copies times, to the copy $drops times");
is($refused, 0, 'CREATE DATABASE ... TEMPLATE and DROP DATABASE are not refused, as they are when somebody has not gone after 5 s');
cmp_ok($copies, '>=', 50, 'a worker is connected to the template, 50 times');
cmp_ok($drops, '>=', 50, 'or to the database that is dropped, 50 times');
cmp_ok(wait_for($no_ttl, 'origin'), '<', 90, 'the origin is swept all the same');

# ---- 20 databases, max_worker_processes = 4 ----

sql("CREATE DATABASE many$_ TEMPLATE origin") for 1 .. 20;
my $worst = 0;
for my $round (1 .. 2)
{
	sql("SELECT kv_set('a', '1', ttl => '1 s'), kv_set('b', '1', ttl => '2 s')", "many$_") for 1 .. 20;
	sleep 2;
	for my $n (1 .. 20)
	{
		my $late = wait_for($no_ttl, "many$n");
		$worst = $late if $late > $worst;
	}
}
note("20 databases: waited $worst s for the last entry");
cmp_ok($worst, '<', 60, 'twenty databases share two workers');

# Databases that always have work do not keep the others waiting.
sql("SELECT count(kv_set('long' || g, '1', ttl => g * interval '30 ms')) FROM generate_series(1, 2000) g", "many$_") for 1 .. 4;
wait_for(worker_is_in('many4'));
sql("SELECT kv_set('alone', '1', ttl => '0.1 s')", 'many20');
my $took = wait_for($no_ttl, 'many20');
note("beside four busy databases: $took s");
is(sql($no_ttl, 'many4'), 'f', 'while four databases have work');
cmp_ok($took, '<', 15, 'a quiet database gets its turn');

# ---- Two databases: the same OIDs of tables in both ----

my $oid = "SELECT 'kvstore.s_default'::regclass::oid";
is(sql($oid, 'many5'), sql($oid, 'many6'), 'copies have tables of one OID');
# the worker reads a new table once; have that done with
wait_for("SELECT NOT EXISTS (SELECT FROM kvstore.expiry_map() WHERE first_block IS NULL)", $_) for 'many5', 'many6';
sql("SELECT kv_set('one', '1', ttl => '1 s')", 'many5');
sql("SELECT kv_set('two', '1', ttl => '1 hour')", 'many6');
cmp_ok(wait_for($no_ttl, 'many5'), '<', 30, 'what is due in one database goes');
is(sql("SELECT count(*) FROM kvstore.s_default", 'many6'), '1', 'what is not due in the other stays');
is(sql("SELECT count(*) FROM kvstore.expiry_map() WHERE first_block IS NOT NULL", 'many6'), '1', 'and so does its slot');

# ---- The extension in template1 ----

sql("CREATE EXTENSION kvstore; SELECT kv_create_store()", 'template1');
sql("CREATE DATABASE child");
sql("SELECT kv_set('a', '1', ttl => '0.2 s')", 'child');
cmp_ok(wait_for($no_ttl, 'child'), '<', 30, 'a database made from template1 has its worker');
for my $n (1 .. 5)
{
	sql($busy, 'template1');
	wait_for(worker_is_in('template1'));
	alone("CREATE DATABASE child$n");
}
is($refused, 0, 'CREATE DATABASE does not wait for the worker of template1');

cmp_ok(wait_for("SELECT count(*) = 0 FROM kvstore.s_default", 'silent'), '<', 90, 'the silent copy is found within a minute');
unlike(slurp_file($node->logfile), qr/PANIC:|terminated by signal/, 'nothing crashed');
$node->stop;

done_testing();
