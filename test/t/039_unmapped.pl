# Of the stores that the expiry map has no room for each has its turn: one whose trigger is slow does not stop the others.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use KvsTest;

my $node = kvs_node('unmapped', conf => "kvstore.expiry_tables = 64\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub sql_as { return $node->safe_psql('postgres', $_[1], extra_params => [ '-U', $_[0] ]); }

sql(q{
	CREATE EXTENSION kvstore;
	CREATE ROLE mallory LOGIN;
	CREATE ROLE honest LOGIN;
	GRANT CREATE ON SCHEMA kvstore, public TO mallory, honest;
	DO $$ BEGIN FOR n IN 1 .. 64 LOOP PERFORM kv_create_store('filler' || n); PERFORM kv_set('later', '1', ttl => '1 hour', store => 'filler' || n); END LOOP; END $$});
sql_as('honest', q{SELECT kv_create_store('beside')});
sql_as('mallory', q{
	SELECT kv_create_store('slow');
	CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.9); RETURN old; END';
	CREATE TRIGGER zzz BEFORE DELETE ON kvstore.s_slow FOR EACH ROW EXECUTE FUNCTION public.slow()});
sql_as('mallory', q{SELECT kv_set_many(array_agg(g::text), array_agg('1'::jsonb), ttl => '10 ms', store => 'slow') FROM generate_series(1, 100) g});
is(sql("SELECT count(*) FROM kvstore.expiry_map() WHERE relid IN ('kvstore.s_slow'::regclass, 'kvstore.s_beside'::regclass)"), '0', 'two stores have no place in the map');
ok($node->poll_query_until('postgres', 'SELECT count(*) < 100 FROM kvstore.s_slow'), 'one is being swept');
my $age = kvs_greatest_age($node, 'honest', 'beside', 8);
cmp_ok($age, '<', 5, "beside it the other is swept in time: $age s");
sql('GRANT ALL ON kvstore.s_filler1 TO honest');
$age = kvs_greatest_age($node, 'honest', 'filler1', 3);
cmp_ok($age, '<', 5, "... and one that is in the map: $age s");
$node->stop;

done_testing();
