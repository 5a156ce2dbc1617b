# kv_health(): one row as long as the server answers, whoever asks and whatever is wrong, in less than 5 ms however much there is (on a slow machine: in less
# than counting to 50,000 takes there).
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('health', init => { allows_streaming => 1 });
my $health = 'SELECT status, reason, preloaded, worker_running, in_recovery, stores FROM kv_health()';

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub restart_with { $node->append_conf('postgresql.conf', $_[0]); $node->restart; }

sql('CREATE EXTENSION kvstore; CREATE ROLE nobody');
ok($node->poll_query_until('postgres', 'SELECT worker_running FROM kv_health()'), 'the launcher starts');
is(sql($health), 'ok||t|t|f|0', 'a new extension without a store');
is(sql("SELECT connected, version = kv_version(), started_at = pg_postmaster_start_time(), keys_estimate, queues, ready, leased, dead, oldest_expired_age_s IS NULL FROM kv_health()"),
	't|t|t|0|0|0|0|0|t', 'and the other columns');
is(sql("SET ROLE nobody; $health"), 'ok||t|t|f|0', 'a role without any right may ask');

# ---- Large, and locked ----

sql("SELECT count(kv_create_store('n' || i)) FROM generate_series(1, 300) i");
sql(q{SELECT kv_create_store(); INSERT INTO kvstore.s_default (key, value, versionstamp, expires_at) SELECT kv_key(i), '1', i, now() + interval '1 day' FROM generate_series(1, 200000) i});
ok($node->poll_query_until('postgres', 'SELECT keys_estimate BETWEEN 190000 AND 210000 FROM kv_health()'), 'keys are estimated before any ANALYZE');
sql($kvs_fastest);
my $limit = 'GREATEST(5, fastest($$SELECT count(*) FROM generate_series(1, 50000)$$))';
my ($ms, $most) = split /\|/, sql("SELECT fastest('SELECT * FROM kv_health()'), $limit");
cmp_ok($ms, '<', $most, "with 301 stores and 200,000 keys it takes $ms ms");
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE kvstore.s_default, kvstore.stores, kvstore.snapshot_stores IN ACCESS EXCLUSIVE MODE') if $locker->can('query_safe');
SKIP:
{
	skip 'no background session in this version of the test modules', 1 unless $locker->can('query_safe');
	is(sql("SET statement_timeout = '10 s'; SELECT status, stores FROM kv_health()"), 'ok|301', 'it waits for no lock of a table or registry');
	$locker->query_safe('ROLLBACK');
}
$locker->quit if $locker->can('quit');

# ---- What is wrong ----

is(sql("SET default_transaction_read_only = on; SELECT status, reason FROM kv_health()"), 'read-only|default_transaction_read_only is on', 'a read-only session');
is(sql("BEGIN READ ONLY; SELECT status FROM kv_health(); COMMIT"), 'ok', 'a read-only transaction is the caller\'s own affair');
sql("UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'kvstore'");
like(sql("SELECT status, reason FROM kv_health()"), qr/^degraded\|the library is .*, the extension 0\.0\.9: ALTER EXTENSION kvstore UPDATE/, 'the library of another version');
sql("UPDATE pg_extension SET extversion = kv_version() WHERE extname = 'kvstore'");
is(sql("SELECT status FROM kv_health()"), 'ok', 'and of the right one');

# What cannot be removed, because its trigger fails.
sql(q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
	CREATE TRIGGER refuse BEFORE DELETE ON kvstore.s_n1 FOR EACH ROW EXECUTE FUNCTION refuse();
	SELECT kv_set('old', '1', expires_at => now() - interval '10 minutes', store => 'n1')});
ok($node->poll_query_until('postgres', q{SELECT status = 'degraded' AND reason = 'the worker sets aside store "n1" (SQLSTATE P0001)' FROM kv_health()}), 'a trigger fails');
is(sql('SELECT oldest_expired_age_s IS NULL FROM kv_health()'), 't', '... and does not count among what is not removed yet');
sql('DROP TRIGGER refuse ON kvstore.s_n1; SELECT kv_sweep()');
ok($node->poll_query_until('postgres', q{SELECT status = 'ok' FROM kv_health()}), 'and does not any more');

# What cannot be removed, because somebody has locked its table.
$locker = $node->background_psql('postgres', on_error_stop => 1);
$locker->query_safe('BEGIN; LOCK TABLE kvstore.s_n1 IN SHARE ROW EXCLUSIVE MODE');
$locker->query_safe(q{SELECT kv_set('old', '1', expires_at => now() - interval '10 minutes', store => 'n1')});
my $next = $node->background_psql('postgres', on_error_stop => 1);
$next->query_until(qr/start/, "\\echo start\nBEGIN; LOCK TABLE kvstore.s_n1;\n");
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'kvstore.s_n1'::regclass AND NOT granted)");
$locker->query_safe('COMMIT');
$locker->quit;
ok($node->poll_query_until('postgres', q{SELECT status = 'degraded' AND reason ~ '^what expired 6\d\d seconds ago is not removed yet$' AND oldest_expired_age_s > 590 FROM kv_health()}), 'what expired long ago is not removed');
$next->query_safe('COMMIT');
$next->quit;
ok($node->poll_query_until('postgres', q{SELECT status = 'ok' FROM kv_health()}), 'and is');

restart_with('max_worker_processes = 0');
is(sql($health), 'degraded|the launcher of the workers does not run|t|f|f|301', 'no place for the launcher');
restart_with("max_worker_processes = 8\nshared_preload_libraries = ''");
is(sql($health), 'degraded|kvstore is not in shared_preload_libraries|f|f|f|301', 'without preload');
is(sql("SET ROLE nobody; SELECT status FROM kv_health()"), 'degraded', 'also for a role without any right');
($ms, $most) = split /\|/, sql("SELECT fastest('SELECT * FROM kv_health()'), $limit");
cmp_ok($ms, '<', $most, "without preload it takes $ms ms");
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'kvstore'");
$node->stop;
$node->set_standby_mode;
$node->start;
is(sql($health), 'read-only|the server is a standby|t|f|t|301', 'a standby');
$node->stop;

done_testing();
