# The worker where its means end: a map without free slots, more stores than it has room for, a worker that is killed, a server in binary upgrade; and
# row-level security.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use KvsTest;

my $node = kvs_node('limits', conf => "kvstore.expiry_slots = 256\nkvstore.expiry_tables = 512\nrestart_after_crash = on\nfsync = off\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Until a query gives "t", also over a restart of the server; within a minute, or so many seconds.
sub comes
{
	my ($name, $query, $seconds) = @_;
	my $start = time;
	my $out = '';

	while (time - $start < ($seconds // 50) && $out ne 't')
	{
		(undef, $out) = $node->psql('postgres', $query);
		usleep(20_000);
	}
	is($out, 't', $name);
	return;
}

sub is_gone
{
	my ($name, $store) = @_;

	comes($name, "SELECT NOT EXISTS (SELECT FROM kvstore.s_$store WHERE expires_at < clock_timestamp() + interval '1 minute')");
	return;
}

my $worker = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'kvstore worker' AND datname = 'postgres'";
# When what has just been written, or all of it a minute after the worker has come, is read, the map has more for a moment.
sub map_is
{
	my ($name, $map) = @_;

	comes($name, "SELECT string_agg(relid::regclass || ' ' || coalesce(first_block::text, 'whole'), ', ' ORDER BY relid) = '$map' FROM kvstore.expiry_map()");
	return;
}

# ---- The pool of slots is exhausted: one extent there is, for the first 16 MB of the first store ----

sql("CREATE EXTENSION kvstore");
sql("SELECT kv_create_store('s$_')") for 1 .. 3;
comes('new stores are read once', "SELECT NOT EXISTS (SELECT FROM kvstore.expiry_map())");
sql("SELECT kv_set('later', '1', ttl => '1 hour', store => 's$_')") for 1 .. 3;
map_is('a store for which no slots are left has one for all its blocks', 'kvstore.s_s1 0, kvstore.s_s2 whole, kvstore.s_s3 whole');
for my $round (1 .. 2)
{
	sql("SELECT kv_set('soon', '1', ttl => '0.2 s', store => 's$_')") for 1 .. 3;
	is_gone("what is due goes all the same, s$_, $round", "s$_") for 1 .. 3;
	is(sql("SELECT string_agg(kv_count('', store)::text, ' ') FROM kv_stores"), '1 1 1', 'and nothing else');
}
comes('the slots of all blocks are what is left there', "SELECT min(due) > now() + interval '30 minutes' FROM kvstore.expiry_map()");
# 3,000 blocks, of which 2,048 have slots
sql("SELECT count(kv_set(g::text, to_jsonb(repeat('x', 3000)), store => 's1')) FROM generate_series(1, 6000) g");
sql("ALTER TABLE kvstore.s_s1 ALTER value SET STORAGE PLAIN; SELECT count(kv_set(g::text, to_jsonb(repeat(md5(g::text), 100)), store => 's1')) FROM generate_series(1, 6000) g");
cmp_ok(sql("SELECT pg_relation_size('kvstore.s_s1') / 8192"), '>', 2100, 'a store has more blocks than slots');
sql("SELECT kv_expire(g::text, ttl => '0.5 s', store => 's1') FROM generate_series(1, 6000, 100) g");
comes('what is due in either part goes', "SELECT count(*) = 60 AND NOT EXISTS (SELECT FROM kvstore.s_s1 WHERE expires_at < now() + interval '1 minute') FROM generate_series(1, 6000, 100) g WHERE NOT kv_exists(g::text, 's1')");
is(sql("SELECT kv_count('', 's1')"), '5941', 'and nothing else');
# a store that is dropped gives its slots back, but not before that is for sure
is(sql("BEGIN; SELECT kv_drop_store('s1'); SELECT kv_maintain(); ROLLBACK"), "t\n0", 'a store is dropped, and is there again');
map_is('and in the map', 'kvstore.s_s1 0, kvstore.s_s2 whole, kvstore.s_s3 whole');
sql("SELECT kv_drop_store('s1')");
comes('a store that is dropped is forgotten', "SELECT NOT EXISTS (SELECT FROM kvstore.expiry_map() m WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = m.relid))");
sql("SELECT kv_create_store('s4')");
comes('a new store is read once', "SELECT min(due) > now() FROM kvstore.expiry_map()");
sql("SELECT kv_set('later', '1', ttl => '1 hour', store => 's4')");
map_is('and has its slots', 'kvstore.s_s2 whole, kvstore.s_s3 whole, kvstore.s_s4 0');

# ---- A worker is killed ----

# It may have gone before it is killed; again, until it has not.
my $killed = 0;
for (1 .. 20)
{
	sql("SELECT count(kv_set('k' || g, '1', ttl => g * interval '50 ms', store => 's2')) FROM generate_series(1, 60) g");
	$node->poll_query_until('postgres', "SELECT EXISTS ($worker)") or last;
	my $pid = sql($worker);
	last if $pid && ($killed = kill 'KILL', $pid);
}
ok($killed, 'a worker runs, and is killed');
ok($node->wait_for_log(qr/all server processes terminated; reinitializing/), 'a worker that is killed takes the server with it');
comes('which is there again', 'SELECT true');
is_gone('and what was due goes', 's2');
comes('the launcher runs', "SELECT worker_running FROM kv_health()");
sql("SELECT kv_set('after', '1', ttl => '0.2 s', store => 's3')");
is_gone('and goes on', 's3');

# ---- Row-level security: sweeping is its owner's, whatever he and others may see ----

sql(q{
	CREATE ROLE owner LOGIN;
	CREATE ROLE other LOGIN;
	ALTER TABLE kvstore.s_s3 OWNER TO owner;
	ALTER TABLE kvstore.s_s3 ENABLE ROW LEVEL SECURITY;
	ALTER TABLE kvstore.s_s3 FORCE ROW LEVEL SECURITY;
	CREATE POLICY mine ON kvstore.s_s3 USING (kv_key_to_json(key) ->> 0 LIKE 'mine%');
	GRANT SELECT, INSERT, UPDATE, DELETE ON kvstore.s_s3 TO other});
sql("SELECT kv_set('mine', '1', ttl => '0.2 s', store => 's3'), kv_set('theirs', '1', ttl => '0.2 s', store => 's3')");
is_gone('a store with row-level security is swept', 's3');
sql("CREATE FUNCTION old() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'; CREATE TRIGGER old BEFORE DELETE ON kvstore.s_s3 FOR EACH ROW EXECUTE FUNCTION old()");
sql("SELECT kv_set('mine', '1', ttl => '0.2 s', store => 's3'), kv_set('theirs', '1', ttl => '0.2 s', store => 's3')");
is_gone('also if it has triggers', 's3');
is(sql("BEGIN; SELECT kv_set('theirs', '1', ttl => '0', store => 's3') > 0; SET ROLE other; SELECT kv_maintain(); COMMIT"), "t\n1", 'and by hand');

# ---- More stores than the map has room for ----

my $many = 620;
sql("DO \$\$ BEGIN FOR n IN 1 .. $many LOOP PERFORM kv_create_store('many' || n); IF n % 100 = 0 THEN COMMIT; END IF; END LOOP; END \$\$");
is(sql("SELECT count(kv_set('later', '1', ttl => '1 hour', store => 'many' || g)) FROM generate_series(1, $many) g"), $many, 'each has an entry with a ttl');
comes('and were read once', "SELECT min(due) > now() FROM kvstore.expiry_map()", 300);
my $unmapped = sql("SELECT string_agg(g::text, ',') FROM generate_series(1, $many) g WHERE NOT EXISTS (SELECT FROM kvstore.expiry_map() WHERE relid = ('kvstore.s_many' || g)::regclass)");
my @unmapped = split /,/, $unmapped;
cmp_ok(scalar @unmapped, '>=', $many - 512, scalar(@unmapped) . ' have no place in the map');
sql("SELECT kv_set('soon', '1', ttl => '0.3 s', store => 'many' || g) FROM unnest('{$unmapped}'::int[]) g");
is_gone("what is due in one of those goes, many$_", "many$_") for @unmapped[0, -1];
comes('and in each', "SELECT count(*) = 0 FROM unnest('{$unmapped}'::int[]) g, kv_entry('soon', 'many' || g) e, LATERAL (SELECT 1) l WHERE e.versionstamp <> 0");
is(sql("SELECT count(*) FROM unnest('{$unmapped}'::int[]) g WHERE kv_exists('later', 'many' || g)"), scalar @unmapped, 'and nothing else');

# Deferred triggers of such a store run as its owner, at once.
sql(qq{
	CREATE TABLE seen (who text);
	GRANT INSERT ON seen TO PUBLIC;
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (current_user); RETURN NULL; END';
	CREATE CONSTRAINT TRIGGER late AFTER DELETE ON kvstore.s_many$unmapped[0] DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
	ALTER TABLE kvstore.s_many$unmapped[0] OWNER TO owner});
sql("SELECT kv_set('soon', '1', ttl => '0.3 s', store => 'many$unmapped[0]')");
is_gone('a store with a deferred trigger is swept', "many$unmapped[0]");
is(sql("SELECT who FROM seen"), 'owner', 'as its owner');

# A store that somebody has locked is looked at again.
sql("SELECT kv_set('soon', '1', ttl => '0.3 s', store => 'many$unmapped[1]'); BEGIN; LOCK TABLE kvstore.s_many$unmapped[1]; SELECT pg_sleep(1.5); COMMIT");
is_gone('a store that was locked when it was due is swept', "many$unmapped[1]");
$node->stop;

# ---- Binary upgrade ----

ok(system_log('pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-o', '-b', '-w', 'start') == 0, 'a server in binary upgrade starts');
is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'kvstore%'"), '0', 'no launcher runs there');
is(sql("SELECT worker_running FROM kv_health()"), 'f', 'kv_health() says so');
ok(system_log('pg_ctl', '-D', $node->data_dir, '-w', 'stop') == 0, 'it stops');

done_testing();
