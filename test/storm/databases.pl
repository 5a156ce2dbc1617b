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

my $node = kvs_node('databases', conf => "max_worker_processes = 4\n");

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

# Until a query gives "t"; returns the seconds that took, 999 after 60.
sub wait_for
{
	my ($query, $db) = @_;
	my $start = time;

	while (time - $start < 60)
	{
		return time - $start if sql($query, $db) eq 't';
		usleep(20_000);
	}
	return 999;
}

my $busy = "SELECT count(kv_set('k' || g, '1', ttl => g * interval '20 ms')) FROM generate_series(1, 1000) g";
my $no_ttl = "SELECT NOT EXISTS (SELECT FROM kvstore.s_default WHERE expires_at IS NOT NULL)";

# ---- DROP DATABASE and CREATE DATABASE ... TEMPLATE while a worker is connected ----

sql("CREATE DATABASE origin");
sql("CREATE EXTENSION kvstore; SELECT kv_create_store()", 'origin');

# One round in an array: seconds for the copy and for the drop, and how often a worker was there.
my ($slowest, $connected, $copied) = (0, 0, 0);
sql($busy, 'origin');
for my $round (1 .. 50)
{
	sql($busy, 'origin') if $round % 8 == 0;
	wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'kvstore worker' AND datname = 'origin')");
	$connected += sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'kvstore worker' AND datname = 'origin'");
	my $start = time;
	sql("CREATE DATABASE copy TEMPLATE origin");
	my $took = time - $start;
	$slowest = $took if $took > $slowest;

	# A worker comes to the copy, too, as soon as something is written there.
	sql("SELECT kv_set('here', '1', ttl => '5 s')", 'copy');
	$copied += wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'kvstore worker' AND datname = 'copy')") < 5;
	$start = time;
	sql("DROP DATABASE copy");
	$took = time - $start;
	$slowest = $took if $took > $slowest;
}
note("slowest of 100: $slowest s; a worker was connected to the origin $connected times, to the copy $copied times");
cmp_ok($slowest, '<', 5, 'CREATE DATABASE ... TEMPLATE and DROP DATABASE, 100 times');
cmp_ok($connected, '>', 20, 'with a worker connected to the template');
cmp_ok($copied, '>', 40, 'and to the copy');
cmp_ok(wait_for($no_ttl, 'origin'), '<', 30, 'the origin is swept all the same');

# ---- 20 databases, max_worker_processes = 4 ----

for my $n (1 .. 20)
{
	sql("CREATE DATABASE many$n TEMPLATE origin");
}
my $worst = 0;
for my $round (1 .. 3)
{
	for my $n (1 .. 20)
	{
		sql("SELECT kv_set('a', '1', ttl => '1 s'), kv_set('b', '1', ttl => '2 s')", "many$n");
	}
	sleep 2;
	for my $n (1 .. 20)
	{
		my $late = wait_for($no_ttl, "many$n");
		$worst = $late if $late > $worst;
	}
}
note("20 databases: the last entry was gone $worst s after its time");
cmp_ok($worst, '<', 20, 'twenty databases share the workers');

# One database that always has work does not keep the others waiting.
sql("SELECT count(kv_set('long' || g, '1', ttl => g * interval '10 ms')) FROM generate_series(1, 2000) g", "many$_") for 1 .. 4;
sleep 1;
sql("SELECT kv_set('alone', '1', ttl => '0.1 s')", 'many20');
my $took = wait_for("SELECT NOT EXISTS (SELECT FROM kvstore.s_default WHERE expires_at IS NOT NULL)", 'many20');
note("beside four busy databases: $took s");
cmp_ok($took, '<', 8, 'a quiet database gets its turn beside busy ones');

# ---- Two databases: the same OIDs of tables in both ----

is(sql("SELECT 's_default'::name || ' ' || count(DISTINCT o) FROM (VALUES ('" . sql("SELECT 'kvstore.s_default'::regclass::oid", 'many1') . "'), ('"
	. sql("SELECT 'kvstore.s_default'::regclass::oid", 'many2') . "')) t (o)"), 's_default 1', 'copies have tables of one OID');
wait_for($no_ttl, 'many1');
wait_for($no_ttl, 'many2');
sql("SELECT kv_set('one', '1', ttl => '1 s')", 'many1');
sql("SELECT kv_set('two', '1', ttl => '1 hour')", 'many2');
sleep 1;
cmp_ok(wait_for($no_ttl, 'many1'), '<', 10, 'what is due in one database goes');
is(sql("SELECT count(*) FROM kvstore.s_default", 'many2'), '1', 'what is not due in the other stays');
is(sql("SELECT count(*) FROM kvstore.expiry_map() WHERE first_block IS NOT NULL", 'many2'), '1', 'and so does its slot');

# ---- The extension in template1 ----

sql("CREATE EXTENSION kvstore; SELECT kv_create_store()", 'template1');
sql("CREATE DATABASE child");
sql("SELECT kv_set('a', '1', ttl => '0.2 s')", 'child');
cmp_ok(wait_for($no_ttl, 'child'), '<', 10, 'a database made from template1 has its worker');

# A copy with entries, in which nobody writes: found when the launcher looks for new databases.
sql("SELECT kv_set('asleep', '1', ttl => '1 s')", 'many3');
wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'kvstore worker' AND datname = 'origin')");
sql("SELECT kv_set('asleep', '1', ttl => '1 s')", 'origin');
sql("CREATE DATABASE silent TEMPLATE origin");
is(sql("SELECT count(*) FROM kvstore.s_default", 'silent'), '1', 'a copy with an entry');
cmp_ok(wait_for("SELECT count(*) = 0 FROM kvstore.s_default", 'silent') + 0, '<', 999, 'is found within a minute');

unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
$node->stop;

done_testing();
