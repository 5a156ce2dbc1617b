# One owner does not stop the others: triggers that sleep, raise, wait for locks and catch their cancel, beside a store that expires in time.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use KvsTest;

my $node = kvs_node('owners');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub sql_as { return $node->safe_psql('postgres', $_[1], extra_params => [ '-U', $_[0] ]); }
sub count_log { my @found = slurp_file($node->logfile, $_[1] // 0) =~ /$_[0]/g; return scalar @found; }

# A store of mallory's with a trigger whose body is given, and an entry that has expired.
sub make_store
{
	my ($store, $body) = @_;

	sql_as('mallory', qq{
		SELECT kv_create_store('$store');
		CREATE FUNCTION public.$store() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN $body RETURN old; END \$\$;
		CREATE TRIGGER zzz BEFORE DELETE ON kvstore.s_$store FOR EACH ROW EXECUTE FUNCTION public.$store()});
}

sub expire { return sql_as('mallory', "SELECT kv_set('a', '1', ttl => '10 ms', store => '$_[0]')"); }

sql("CREATE EXTENSION kvstore; SELECT kv_create_store(); CREATE ROLE mallory LOGIN;
	GRANT CREATE ON SCHEMA kvstore TO mallory; GRANT CREATE ON SCHEMA public TO mallory; CREATE TABLE victim (n int)");

# ---- Each of them alone, and all of them together ----

my %bodies = (
	sleeping => 'PERFORM pg_sleep(3600);',
	raising => q{RAISE EXCEPTION 'no';},
	locking => 'LOCK TABLE public.held IN ACCESS EXCLUSIVE MODE;',
	catching => 'LOOP BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;');

sql_as('mallory', 'CREATE TABLE public.held (n int)');
my $holder = $node->background_psql('postgres', on_error_die => 1);
$holder->query_safe('BEGIN; LOCK TABLE public.held IN ACCESS SHARE MODE');

# Write an entry of the victim now and then while a store is in trouble; the greatest age of one that has expired.
sub watch_victim
{
	my ($seconds) = @_;
	my $end = time + $seconds;
	my ($age, $told) = (0, 0);

	while (time < $end)
	{
		my ($now, $health) = split /\|/, sql(q{SELECT FROM kv_set('v' || random(), '1', ttl => '50 ms');
			SELECT COALESCE(EXTRACT(epoch FROM max(clock_timestamp() - expires_at)), 0), COALESCE(oldest_expired_age_s, 0)
			FROM kv_health() LEFT JOIN kvstore.s_default ON true GROUP BY oldest_expired_age_s});
		$age = $now if $now > $age;
		$told = $health if $health > $told;
		usleep(20_000);
	}
	return ($age, $told);
}

my $from = -s $node->logfile;
for my $kind (qw(raising locking sleeping catching))
{
	make_store($kind, $bodies{$kind});
	expire($kind);
	my ($age, $told) = watch_victim(7);
	cmp_ok($age, '<', 5, "beside one that is $kind the victim's entries go in time");
	cmp_ok($told, '<', 5, '... and kv_health() says so');
	is(sql("SELECT status FROM kv_health() WHERE reason ~ 'store \"$kind\" \\('"), 'degraded', '... which names that store');
	is(count_log(qr/table "s_$kind" is set aside/, $from), 1, '... and the log has one line of it');
}
my ($age, $told) = watch_victim(10);
cmp_ok($age, '<', 5, 'beside all of them together, too');
cmp_ok($told, '<', 5, '... and kv_health() says so');
is(sql("SELECT (kv_metrics()->>'tables_set_aside')::int"), 4, 'kv_metrics() counts them');
like(sql('SELECT kv_metrics_prometheus()'), qr/^kvstore_tables_set_aside 4$/m, 'kv_metrics_prometheus() too');
is(sql("SELECT count(*) FROM kv_health(), unnest('{raising,locking,sleeping,catching}'::text[]) k WHERE reason ~ ('store \"' || k || '\" \\(')"), '4',
	'kv_health() names them');
is(sql("SELECT string_agg(c.relname || ' ' || t.sqlstate, ' ' ORDER BY c.relname) FROM kvstore.troubles() t JOIN pg_class c ON c.oid = t.relid"),
	's_catching 57014 s_locking 55P03 s_raising P0001 s_sleeping 57014', 'why is told');
is(count_log(qr/is set aside/, $from), 4, 'the log has nothing new');

# ---- An owner who mends it is let through, and then all is well ----

for my $kind (qw(sleeping catching))
{
	my $start = time;

	sql_as('mallory', "DROP TRIGGER zzz ON kvstore.s_$kind");
	cmp_ok(time - $start, '<', 12, "DROP TRIGGER gets through: $kind");
}
sql_as('mallory', 'DROP TRIGGER zzz ON kvstore.s_raising');
$holder->query_safe('COMMIT');
$holder->quit;
ok($node->poll_query_until('postgres', "SELECT status = 'ok' FROM kv_health()"), 'when all are mended, all is well');
# ---- A step that was too long is tried with fewer rows ----

$node->append_conf('postgresql.conf', "kvstore.step_timeout = '500 ms'");
$node->reload;
make_store('third', q{
	PERFORM set_config('third.n', (COALESCE(NULLIF(current_setting('third.n', true), ''), '0')::int + 1)::text, true);
	IF current_setting('third.n')::int > 2 THEN PERFORM pg_sleep(3600); END IF;});
sql_as('mallory', "SELECT kv_set_many(array_agg(g::text), array_agg('1'::jsonb), ttl => '10 ms', store => 'third') FROM generate_series(1, 8) g");
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM kvstore.s_third'), 'half as many rows succeed');
$node->stop;

done_testing();
