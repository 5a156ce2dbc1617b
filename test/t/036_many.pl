# Many stores: what an expiry reads, what kv_health() costs, and what a session remembers of stores, and of names that are none.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $stores = 1000;
my $node = kvs_node('many', conf => "fsync = off\nlog_statement = none\nautovacuum = off\nmax_locks_per_transaction = 500\nkvstore.expiry_tables = 100\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(qq{
	CREATE EXTENSION kvstore;
	CREATE PROCEDURE make_stores(n int) LANGUAGE plpgsql AS \$\$ BEGIN
		FOR i IN 1 .. n LOOP
			PERFORM kv_create_store('m' || i);
			PERFORM kv_set('k', '1', ttl => '1 day', store => 'm' || i);
			COMMIT;
		END LOOP; END \$\$;
	CALL make_stores($stores)});

# ---- Names that are none leave nothing ----

my $memory = 'SELECT sum(total_bytes) FROM pg_backend_memory_contexts';
my ($before, $after) = split /\n/, sql(qq{
	CREATE FUNCTION probe(n int) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN
		FOR i IN 1 .. n LOOP
			BEGIN
				PERFORM kv_get('k', store => 'none' || i);
			EXCEPTION WHEN undefined_table THEN NULL;
			END;
		END LOOP; END \$\$;
	DO \$\$ BEGIN PERFORM probe(100); END \$\$;
	$memory;
	DO \$\$ BEGIN PERFORM probe(20000); END \$\$;
	$memory});
cmp_ok($after - $before, '<', 1_000_000, 'asking for 20,000 stores that do not exist costs ' . ($after - $before) . ' bytes');

# ---- A session that uses all stores ----

my $use = q{
	SELECT count(kv_get('k', store => 'm' || i)), count(kv_set('n' || i, '1', store => 'm' || i)), count(kv_incr('i', store => 'm' || i)),
		count(kv_expire('n' || i, ttl => '1 day', store => 'm' || i)), count(kv_delete('n' || i, store => 'm' || i)), sum(kv_count('', 'm' || i))
	FROM generate_series(1, 1000) i};
# with the sanitizers no piece of memory is smaller than 8 kB
my $most = $ENV{KVS_SERVER_PRELOAD} ? 48 : 12;
my ($once, $kept, $twice, $kept_twice) = split /\n/, sql("$use; $memory; $use; $memory");
is($once, '1000|1000|1000|1000|1000|1000', 'a session uses 1,000 stores');
cmp_ok($kept, '<', $most * 1048576, 'and has ' . int($kept / 1048576) . ' MB');
is($twice, '1000|1000|1000|1000|1000|2000', 'again');
cmp_ok($kept_twice, '<', $most * 1048576, 'and has ' . int($kept_twice / 1048576) . ' MB');
is(sql(q{SELECT count(*) < 64 * 8 FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource'}), 't', 'it keeps the statements of some');

# Not those that are running: a trigger uses more stores than keep their plans, and are kept in the caches.
is(sql(q{
	CREATE FUNCTION use_many() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM kv_delete('none', store => 'm' || i), kv_set('t', '1', store => 'm' || i), kv_get('t', 'm' || i) FROM generate_series(1, 200) i;
		RETURN NEW;
	END $$;
	SELECT kv_create_store();
	CREATE TRIGGER use_many BEFORE INSERT OR UPDATE ON kvstore.s_default FOR EACH ROW EXECUTE FUNCTION use_many();
	SELECT kv_set_many('{a,b,c}', '{1,2,3}') > 0, kv_set('a', '4') > 0, kv_incr('n');
	SELECT kv_get('a'), kv_get('b')}), "kvstore.s_default\nt|t|1\n4|2", 'inside a statement');

# ---- kv_health() ----

sql($kvs_fastest);
my ($ms, $most) = split /\|/, sql(q{SELECT fastest('SELECT * FROM kv_health()'), GREATEST(5, fastest('SELECT count(*) FROM generate_series(1, 50000)'))});
cmp_ok($ms, '<', $most, "with 1,001 stores kv_health() takes $ms ms");
is(sql('SELECT stores FROM kv_health()'), $stores + 1, 'and knows how many they are');

# ---- More stores than the map has room for: an expiry reads its own ----

is(sql("SELECT count(DISTINCT relid) FROM kvstore.expiry_map()"), 100, 'the map is full');
ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM kvstore.expiry_map() WHERE due <= now())'), 'nothing is due');
# The large one, and one that does not share its slot; both have no room in the map.
sql(q{SELECT kv_set_many(array_agg('b' || i), array_agg(to_jsonb(repeat('x', 500))), ttl => '1 day', store => 'm999') FROM generate_series(1, 10000) i});
my $read = q{SELECT pg_stat_get_blocks_fetched('kvstore.s_m999'::regclass)};
sql('SELECT pg_stat_force_next_flush()');
my $start = sql($read);
for my $i (1 .. 5)
{
	sql(qq{SELECT kv_set('x$i', '1', ttl => '50 ms', store => 'm998')});
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM kvstore.s_m998 WHERE expires_at < now()}), "an entry expires where the map has no room: $i");
}
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'kvstore worker'}), 'the worker has left');
is(sql($read), $start, 'the worker has not read another such store');
$node->stop;

done_testing();
