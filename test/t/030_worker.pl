# The worker by itself: it starts, sweeps, survives what befalls it, runs with nobody's rights but the owner's, and is not there without preload.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use KvsTest;

my $node = kvs_node('worker', conf => "kvstore.log_sweep = 10\nlog_min_messages = debug1\n");

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

# Until a query gives "t"; returns the seconds that took, undef after 45, which is before the first full pass.
sub wait_for
{
	my ($query, $db) = @_;
	my $start = time;

	while (time - $start < 45)
	{
		return time - $start if sql($query, $db) eq 't';
		usleep(20_000);
	}
	return undef;
}

sub gone_within
{
	my ($name, $seconds, $table, $db) = @_;
	my $took = wait_for("SELECT NOT EXISTS (SELECT FROM kvstore.$table WHERE expires_at IS NOT NULL)", $db);

	cmp_ok($took // 999, '<', $seconds, $name);
}

sub log_position { return -s $node->logfile; }
sub log_since { return substr(slurp_file($node->logfile), $_[0]); }
my $worker_pid = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'kvstore worker' AND datname = current_database()";

# ---- It comes with CREATE EXTENSION, without a restart, and goes ----

ok(defined wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'kvstore launcher'"), 'the launcher runs');
is(sql("SELECT datname FROM pg_stat_activity WHERE backend_type = 'kvstore launcher'"), '', 'it is connected to no database');
sql("CREATE EXTENSION kvstore; SELECT kv_create_store(); SELECT kv_set('a', '1', ttl => '0.3 s')");
gone_within('an entry is gone soon after its time', 30, 's_default');
ok(defined wait_for("SELECT worker_running AND oldest_expired_age_s IS NULL FROM kv_health()"), 'kv_health() says so');
ok(defined wait_for("SELECT expired = 1 FROM pg_stat_kvstore"), 'the sweep is counted');
ok(defined wait_for("SELECT n_tup_del = 1 FROM pg_stat_user_tables WHERE relname = 's_default'"), 'also in the statistics that autovacuum goes by');
ok($node->wait_for_log(qr/DEBUG:  kvstore: removed 1 expired entries of table/), 'a batch is logged at DEBUG1');
unlike(slurp_file($node->logfile), qr/LOG:  kvstore: removed/, 'a small sweep is not logged');
sql("SELECT kv_set_many(array_agg(g::text), array_agg(to_jsonb(g)), ttl => '0.1 s') FROM generate_series(1, 20) g");
ok(defined wait_for("SELECT count(*) = 0 FROM kvstore.s_default"), 'entries written together are gone');
ok(defined wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'kvstore worker'"), 'the worker leaves when nothing is due');
ok($node->wait_for_log(qr/LOG:  kvstore: removed 20 expired entries of database "postgres"/), 'a larger sweep is logged');

# ---- What a ttl does not cost: an overwrite stays HOT ----

is(sql(q{
	BEGIN;
	SELECT FROM kv_create_store('hot');
	SELECT FROM generate_series(1, 10) g, LATERAL (SELECT kv_set('a', to_jsonb(g), ttl => g * interval '1 hour', store => 'hot')) s;
	SELECT pg_stat_get_xact_tuples_updated('kvstore.s_hot'::regclass), pg_stat_get_xact_tuples_hot_updated('kvstore.s_hot'::regclass);
	ROLLBACK}) =~ /(\d+\|\d+)\s*$/ && $1, '9|9', 'entries are overwritten with other ttls in place');

# ---- Settings ----

is(sql("SELECT string_agg(name || ' ' || setting || ' ' || context, ', ' ORDER BY name) FROM pg_settings WHERE name ~ '^kvstore.*(sweep|expiry|step)'"),
	'kvstore.expiry_slots 65536 postmaster, kvstore.expiry_tables 16384 postmaster, kvstore.log_sweep 10 sighup, kvstore.step_timeout 5000 sighup, kvstore.sweep_batch 1000 sighup', 'settings');
is(sql("SELECT count(*) FROM pg_settings WHERE name LIKE 'kvstore.test%'"), '0', 'the hooks for tests are not shown');

# ---- Killed, and an ERROR ----

# Keep a worker busy, so that there is one: this many entries, one every 50 ms.
sub keep_busy { return sql("SELECT count(kv_set('k' || g, '1', ttl => g * interval '50 ms')) FROM generate_series(1, $_[0]) g"); }

# Busy for longer than all of this takes; what has not expired when it is done is deleted.
keep_busy(1000);
ok(defined wait_for("SELECT EXISTS ($worker_pid AND query ~ '^(sweeping|looking for)')"), 'its activity is reported');
my $pid = sql($worker_pid);
sql("SELECT pg_terminate_backend($pid)");
ok(defined wait_for("SELECT EXISTS ($worker_pid AND pid <> $pid)"), 'a worker that was terminated comes again');
sql("SELECT kv_delete_many(array_agg('k' || g)) FROM generate_series(101, 1000) g");
gone_within('and goes on', 30, 's_default');

my $launcher = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'kvstore launcher'");
sql("SELECT pg_terminate_backend($launcher)");
ok(defined wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'kvstore launcher' AND pid <> $launcher)"),
	'so does the launcher');
sql("SELECT kv_set('a', '1', ttl => '0.1 s')");
gone_within('and goes on', 30, 's_default');

sql(q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
	SELECT kv_create_store('bad');
	CREATE TRIGGER refuse BEFORE DELETE ON kvstore.s_bad FOR EACH ROW EXECUTE FUNCTION refuse()});
my $from = log_position();
sql("SELECT kv_set('a', '1', ttl => '0.1 s', store => 'bad')");
sql("SELECT kv_set('a', '1', ttl => '0.2 s')");
gone_within('a store whose trigger fails does not stop the others', 30, 's_default');
$node->wait_for_log(qr/LOG:  kvstore: table "s_bad" is set aside: refused/, $from);
ok(defined wait_for("SELECT failures > 2 FROM kvstore.troubles() WHERE relid = 'kvstore.s_bad'::regclass"), 'it is tried again');
my @errors = log_since($from) =~ /refused/g;
is(scalar @errors, 1, 'its error is logged once');
like(log_since($from), qr/CONTEXT:.*kvstore worker, table \d+/s, 'with the table');
# The worker may be at it just then; again, until it is not.
my ($result, $out, $err);
for (1 .. 100)
{
	($result, $out, $err) = $node->psql('postgres', 'SELECT kv_maintain()');
	last if $err ne '' || $out ne '0';
}
is($out, '0', 'by hand it is passed over');
like($err, qr/WARNING:  could not sweep table "s_bad": refused/, 'with a warning');
sql("DROP TRIGGER refuse ON kvstore.s_bad");
gone_within('when it is mended the worker comes back to it', 30, 's_bad');

# ---- A trigger runs as the table's owner, in a security-restricted operation ----

sql(q{
	CREATE ROLE evil LOGIN;
	CREATE TABLE seen (who text, session text);
	GRANT INSERT ON seen TO PUBLIC;
	GRANT CREATE ON SCHEMA kvstore TO evil;
	GRANT CREATE ON SCHEMA public TO evil});
$node->safe_psql('postgres', q{
	SELECT kv_create_store('evil');
	CREATE FUNCTION grab() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.seen VALUES (current_user, session_user);
		BEGIN
			ALTER ROLE evil SUPERUSER;
			INSERT INTO public.seen VALUES ('superuser', '');
		EXCEPTION WHEN insufficient_privilege THEN NULL;
		END;
		BEGIN
			SET ROLE postgres;
			INSERT INTO public.seen VALUES ('role', '');
		EXCEPTION WHEN insufficient_privilege THEN NULL;
		END;
		RETURN OLD; END $$;
	CREATE CONSTRAINT TRIGGER grab_late AFTER DELETE ON kvstore.s_evil DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION grab();
	CREATE TRIGGER grab BEFORE DELETE ON kvstore.s_evil FOR EACH ROW EXECUTE FUNCTION grab();
	SELECT kv_set('a', '1', ttl => '0.1 s', store => 'evil')}, extra_params => [ '-U', 'evil' ]);
gone_within('a store with triggers is swept', 30, 's_evil');
is(sql("SELECT string_agg(DISTINCT who, ',') FROM seen"), 'evil', 'its triggers run as its owner');
is(sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'evil'"), 'f', 'who gains nothing');
is(sql("SELECT count(*) FROM seen"), '2', 'both have run, the deferred one too');

sql("TRUNCATE seen; ALTER TABLE kvstore.s_evil DISABLE TRIGGER grab_late");
is(sql("BEGIN; SELECT kv_set('b', '1', ttl => '0', store => 'evil') > 0; SELECT kv_maintain(); COMMIT"), "t\n1", 'a superuser sweeps it by hand');
is(sql("SELECT string_agg(DISTINCT who, ',') FROM seen"), 'evil', 'and runs its triggers as the owner');
sql("ALTER TABLE kvstore.s_evil ENABLE TRIGGER grab_late");
($result, $out, $err) = $node->psql('postgres', "BEGIN; SELECT kv_set('c', '1', ttl => '0', store => 'evil') > 0; SELECT kv_maintain(); COMMIT");
is($out, "t\n0", 'what is deferred would run as the superuser at commit: by hand such a store is passed over');
like($err, qr/WARNING:  could not sweep table "s_evil": cannot fire deferred trigger/, 'with a warning');
gone_within('and left to the worker', 30, 's_evil');
is(sql("SELECT string_agg(DISTINCT who, ',') FROM seen"), 'evil', 'who runs it as the owner');

# A foreign key is a trigger, too.
sql(q{
	CREATE TABLE detail (key kvkey REFERENCES kvstore.s_default ON DELETE CASCADE);
	BEGIN;
	SELECT kv_set('a', '1', ttl => '0.5 s');
	INSERT INTO detail SELECT key FROM kvstore.s_default WHERE kv_key('a') = key;
	COMMIT});
gone_within('a store that is referenced is swept', 30, 's_default');
is(sql("SELECT count(*) FROM detail"), '0', 'and the reference is honoured');
sql("DROP TABLE detail");

# ---- DROP EXTENSION and CREATE again ----

keep_busy(100);
sql("SET client_min_messages = error; DROP EXTENSION kvstore CASCADE");
sleep 1;
sql("CREATE EXTENSION kvstore; DROP TABLE kvstore.s_default; SELECT kv_create_store(); SELECT kv_set('a', '1', ttl => '0.1 s')")
	if sql("SELECT to_regclass('kvstore.s_default') IS NOT NULL") eq 't';
sql("CREATE EXTENSION kvstore; SELECT kv_create_store(); SELECT kv_set('a', '1', ttl => '0.1 s')")
	if sql("SELECT count(*) FROM pg_extension WHERE extname = 'kvstore'") eq '0';
gone_within('after DROP and CREATE EXTENSION entries go', 30, 's_default');
ok(defined wait_for("SELECT NOT EXISTS (SELECT FROM kvstore.expiry_map() m WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = m.relid))"),
	'the map forgets what is gone');

# ---- COPY, VACUUM FULL, an UPDATE by hand; rights ----

sql("COPY kvstore.s_default (key, value, kind, versionstamp, expires_at) FROM PROGRAM 'printf ''[\"c\"]\\t1\\tj\\t999999\\t2001-01-01\\n'''");
gone_within('what was copied in is gone', 30, 's_default');
sql("SELECT kv_set_many(array_agg('v' || g), array_agg('1'::jsonb)) FROM generate_series(1, 2000) g");
is(sql("SELECT kv_set('last', '1', ttl => '10 s') > 0; DELETE FROM kvstore.s_default WHERE key <> kv_key('last'); VACUUM FULL kvstore.s_default; SELECT count(*) FROM kvstore.s_default"),
	"t\n1", 'a table is rewritten');
gone_within('and swept', 30, 's_default');
sql("SELECT kv_set('u', '1'); UPDATE kvstore.s_default SET expires_at = now()");
gone_within('an expiry set by hand counts', 30, 's_default');
sql("CREATE ROLE nobody LOGIN; CREATE ROLE janitor LOGIN; GRANT DELETE ON kvstore.s_default TO janitor");
for my $role ('nobody', 'janitor')
{
	# in one transaction, so that the worker does not see the entry
	my $removed = $node->safe_psql('postgres', "BEGIN; SELECT kv_set('r', '1', ttl => '0') > 0; SET ROLE $role; SELECT kv_maintain(); COMMIT");

	is($removed, $role eq 'janitor' ? "t\n1" : "t\n0", "kv_maintain() by $role");
}

# ---- An idle server, SIGHUP, shutdown ----

gone_within('quiet', 30, 's_default');
$from = log_position();
sleep 12;
my @starts = log_since($from) =~ /starting background worker process/g;
cmp_ok(scalar @starts, '<=', 1, 'with nothing due nothing starts');
$node->append_conf('postgresql.conf', 'kvstore.log_sweep = 0');
$node->reload;
# a session that knows it says that the postmaster does, and has told the worker
wait_for("SELECT current_setting('kvstore.log_sweep') = '0'");
$from = log_position();
sql("SELECT kv_set('a', '1', ttl => '0.1 s')");
ok($node->wait_for_log(qr/LOG:  kvstore: removed \d+ expired entries/, $from), 'a setting changes by SIGHUP');
for my $mode ('fast', 'smart')
{
	keep_busy(100);
	wait_for("SELECT EXISTS ($worker_pid)");
	my $start = time;
	$node->stop($mode);
	cmp_ok(time - $start, '<', 10, "shutdown, $mode");
	$node->start;
}

# ---- Crash restart ----

sql("SELECT kv_set('crash', '1', ttl => '3 s')");
$node->stop('immediate');
$node->start;
sleep 3;
gone_within('after a crash what was written before it goes', 30, 's_default');
$node->stop;

# ---- Without preload ----

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'kvstore%'"), '0', 'without preload nothing runs');
is(sql("SELECT worker_running, status FROM kv_health()"), 'f|degraded', 'kv_health() says so');
sql("SELECT kv_set('n' || g, '1', ttl => '0') FROM generate_series(1, 100) g");
is(sql("SELECT kv_sweep(30)"), '30', 'kv_sweep() works');
is(sql("SELECT kv_sweep(30)"), '30', 'and goes on');
is(sql("SELECT kv_maintain()"), '40', 'kv_maintain() does the rest');
is(sql("SELECT count(*) FROM kvstore.expiry_map()"), '0', 'there is no map');
$node->stop;

done_testing();
