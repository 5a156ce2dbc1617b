# kv_maintain() goes past the code of an owner that raises, raises a cancel or sleeps, and past rows that cannot be deleted; a cancel of the user's ends it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use KvsTest;

# without preload there is no worker: all is done by hand
my $node = kvs_node('hand', preload => 0, conf => "kvstore.step_timeout = '1 s'\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub sql_as { return $node->safe_psql('postgres', $_[1], extra_params => [ '-U', $_[0] ]); }

sub make_store
{
	my ($store, $body) = @_;

	sql_as('mallory', qq{
		SELECT kv_create_store('$store');
		CREATE FUNCTION public.$store() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN $body RETURN old; END \$\$;
		CREATE TRIGGER zzz BEFORE DELETE ON kvstore.s_$store FOR EACH ROW EXECUTE FUNCTION public.$store();
		SELECT kv_set(g::text, '1', ttl => '0', store => '$store') FROM generate_series(1, 3) g});
	return;
}

# What kv_maintain() gives and warns of, and how long it takes; settings come with it.
sub maintain
{
	my ($settings) = @_;
	my $start = time;
	my ($status, $out, $err) = $node->psql('postgres', ($settings // '') . "\\set VERBOSITY verbose\nSELECT kv_maintain()");

	return ($out, $err, time - $start);
}

sql(q{
	CREATE EXTENSION kvstore;
	CREATE ROLE mallory LOGIN;
	GRANT CREATE ON SCHEMA kvstore, public TO mallory;
	SELECT kv_create_store('honest'), kv_create_store('referenced')});
sql("SELECT kv_set(g::text, '1', ttl => '0', store => 'honest') FROM generate_series(1, 10) g");

# ---- Raising ----

make_store('cancelling', q{RAISE EXCEPTION 'not really' USING ERRCODE = 'query_canceled';});
my ($out, $err) = maintain();
is($out, '10', 'beside a trigger that raises the SQLSTATE of a cancel the others are swept');
like($err, qr/WARNING:  57014: could not sweep table "s_cancelling": not really \(3 of its rows\)\nHINT:/, '... and a warning names the table');
is(sql('SELECT count(*) FROM kvstore.s_honest'), '0', '... and that stays');

# ---- Sleeping ----

sql("DROP TABLE kvstore.s_cancelling CASCADE; SELECT kv_set(g::text, '1', ttl => '0', store => 'honest') FROM generate_series(1, 10) g");
make_store('sleeping', 'PERFORM pg_sleep(3600);');
make_store('swallowing', 'BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END;');
my $took;
($out, $err, $took) = maintain();
is($out, '11', 'beside triggers that sleep the others are swept');
like($err, qr/WARNING:  57014: could not sweep table "s_sleeping": it took longer than kvstore.step_timeout\nHINT:/, '... and a warning names the table');
like($err, qr/could not sweep table "s_swallowing": it took longer/, '... also if the trigger catches the cancel');
cmp_ok($took, '<', 20, '... in time');

# ---- A real cancel ----

($out, $err, $took) = maintain("SET statement_timeout = '300 ms';\n");
like($err, qr/ERROR:  57014: canceling statement due to statement timeout/, 'statement_timeout ends it in a trigger');
sql('DROP TABLE kvstore.s_sleeping CASCADE');
($out, $err, $took) = maintain("SET statement_timeout = '300 ms';\n");
like($err, qr/ERROR:  57014: canceling statement/, '... also in one that catches it');
sql('DROP TABLE kvstore.s_swallowing CASCADE');

# ---- A trigger that catches every cancel: nothing stops it but the end of the session ----

make_store('endless', 'LOOP BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;');
($out, $err, $took) = maintain();
like($err, qr/FATAL:  57P01: terminating connection due to administrator command/, 'such a session ends');
cmp_ok($took, '<', 20, '... in time');
is(sql('SELECT count(*) FROM kvstore.s_endless'), '3', '... and the next one finds all as it was');
sql('DROP TABLE kvstore.s_endless CASCADE');

# ---- Rows that cannot be deleted ----

sql(q{
	CREATE TABLE detail (key kvkey REFERENCES kvstore.s_referenced);
	SELECT kv_set(g::text, '1', ttl => '0', store => 'referenced') FROM generate_series(1, 10) g;
	INSERT INTO detail SELECT key FROM kvstore.s_referenced WHERE key IN (kv_key('1'), kv_key('5'))});
($out, $err) = maintain();
is($out, '8', 'by hand rows that cannot be deleted do not keep the others');
like($err, qr/WARNING:  23503: could not sweep table "s_referenced": .*\(2 of its rows\)/, '... and a warning says so');
$node->stop;

# ---- The worker ----

$node = kvs_node('worker');
sql(q{
	CREATE EXTENSION kvstore;
	SELECT kv_create_store('referenced');
	SELECT kv_set(g::text, '1', store => 'referenced') FROM generate_series(1, 100) g;
	CREATE TABLE detail (key kvkey REFERENCES kvstore.s_referenced);
	INSERT INTO detail SELECT key FROM kvstore.s_referenced WHERE key IN (kv_key('1'), kv_key('50'));
	SELECT kv_expire(g::text, '0', store => 'referenced') FROM generate_series(1, 100) g});
ok($node->poll_query_until('postgres', 'SELECT count(*) = 2 FROM kvstore.s_referenced'), 'the worker goes past them, too');
like(sql('SELECT reason FROM kv_health()'), qr/store "referenced" \(SQLSTATE 23503\)/, '... and kv_health() names the store');
sql("SELECT kv_set(g::text, '1', ttl => '10 ms', store => 'referenced') FROM generate_series(200, 210) g");
ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM kvstore.s_referenced"), '... what comes later goes, too');
sql('DELETE FROM detail');
# the worker comes to them at intervals that have grown by now
$node->poll_query_until('postgres', 'SELECT kv_maintain() >= 0');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM kvstore.s_referenced'), 'when nothing references them they go');
$node->stop;

done_testing();
