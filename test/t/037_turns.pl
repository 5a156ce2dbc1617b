# Turns go by owner: many stores of one owner, with triggers that sleep, raise a cancel or take nearly too long, beside stores of another.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use KvsTest;

my $node = kvs_node('turns');
my $stores = 20;

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub sql_as { return $node->safe_psql('postgres', $_[1], extra_params => [ '-U', $_[0] ]); }

# For each of mallory's stores of a kind.
sub each_store
{
	my ($kind, $body) = @_;

	sql_as('mallory', "DO \$do\$ BEGIN FOR n IN 1 .. $stores LOOP EXECUTE replace(\$x\$ $body \$x\$, '%s', '$kind' || n); END LOOP; END \$do\$");
	return;
}

my $trigger = 'CREATE TRIGGER zzz BEFORE DELETE ON kvstore.s_%s FOR EACH ROW EXECUTE FUNCTION public.';
my $entries = q{SELECT kv_set_many(array_agg(g::text), array_agg('1'::jsonb), ttl => '10 ms', store => '%s') FROM generate_series(1, 100) g};

# Dropping the triggers would wait for each of them.
sub mend
{
	sql_as('mallory', "CREATE OR REPLACE FUNCTION public.$_[0]() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN old; END'");
	return;
}

sql(q{
	CREATE EXTENSION kvstore;
	CREATE ROLE mallory LOGIN;
	CREATE ROLE honest LOGIN;
	GRANT CREATE ON SCHEMA kvstore, public TO mallory, honest});
sql_as('honest', q{
	SELECT kv_create_store('plain'), kv_create_store('audited');
	CREATE TABLE public.audit (n int);
	CREATE FUNCTION public.audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.audit VALUES (1); RETURN old; END';
	CREATE TRIGGER audit BEFORE DELETE ON kvstore.s_audited FOR EACH ROW EXECUTE FUNCTION public.audit()});
sql_as('mallory', q{
	CREATE FUNCTION public.sleeping() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); RETURN old; END';
	CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.9); RETURN old; END';
	CREATE FUNCTION public.cancelling() RETURNS trigger LANGUAGE plpgsql
		AS $$ BEGIN RAISE EXCEPTION 'not really' USING ERRCODE = 'query_canceled'; END $$});

# ---- A store that was plain and then gets a trigger is ranked before the trigger runs ----

each_store('late', q{SELECT kv_create_store('%s')});
each_store('late', q{SELECT kv_set('a', '1', ttl => '10 ms', store => '%s')});
for my $n (1 .. $stores)
{
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM kvstore.s_late$n") or die;
}
each_store('late', "${trigger}sleeping()");
each_store('late', q{SELECT kv_set('a', '1', ttl => '10 ms', store => '%s')});
my $age = kvs_greatest_age($node, 'honest', 'plain', 8);
cmp_ok($age, '<', 5, "beside $stores stores that get a trigger which sleeps, a plain one is swept in time: $age s");
mend('sleeping');

# ---- A trigger that takes nearly too long: its owner has one turn, however many stores he has ----

each_store('slow', q{SELECT kv_create_store('%s')});
each_store('slow', "${trigger}slow()");
each_store('slow', $entries);
$age = kvs_greatest_age($node, 'honest', 'audited', 8);
cmp_ok($age, '<', 5, "beside $stores stores whose trigger is slow and succeeds, one with a trigger is swept in time: $age s");
$age = kvs_greatest_age($node, 'honest', 'plain', 3);
cmp_ok($age, '<', 5, "... and a plain one: $age s");
mend('slow');

# ---- A trigger that raises the SQLSTATE of a cancel is no cancel ----

sql_as('mallory', qq{SELECT kv_create_store('cancelling'); } . ($trigger =~ s/%s/cancelling/r) . q{cancelling();
	SELECT kv_set('a', '1', ttl => '10 ms', store => 'cancelling')});
ok($node->poll_query_until('postgres', "SELECT failures > 2 FROM kvstore.troubles() WHERE relid = 'kvstore.s_cancelling'::regclass"),
	'it is a failure');
like(sql('SELECT reason FROM kv_health()'), qr/store "cancelling" \(SQLSTATE 57014\)/, '... which kv_health() names');
like(slurp_file($node->logfile), qr/table "s_cancelling" is set aside: not really/, '... and the log');
$node->stop;

done_testing();
