# Storm of expiring entries: for a minute clients set, renew and delete with TTLs of 0.1 to 3 s, with rollbacks and savepoints, while the worker sweeps.
#
# 8 clients write keys of their own and know what must live; some others, nearly always asleep, set an entry and then another one in the
# same group of blocks just when the first expires, which is when the sweeper looks there, or commit it only after that; then the group is left alone for
# a while.  At each of its points the sweeper sleeps a little, which widens every window.  Afterwards:
#   nothing that lives is gone          every client's last word on each of its keys is what the table says
#   nothing that is dead stays          at no time was there anything dead for which no visit was planned
# How often each thing happened is printed, and a zero fails; so the storm goes on until all of it has happened.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use KvsTest;

my $seconds = 60 * ($ENV{KVS_STORM_FACTOR} // 1);
my $node = kvs_node('storm', conf => $kvs_storm_conf . "kvstore.test_delay = 1000\n");
my $dir = PostgreSQL::Test::Utils::tempdir;

sub sql { return $node->safe_psql('postgres', $_[0]); }

# "truth" has what each client last committed for a key; done(what) counts.
sql(<<'SQL');
CREATE EXTENSION kvstore;
SELECT kv_create_store('storm');
CREATE TABLE truth (key text PRIMARY KEY, value int, expires_at timestamptz) WITH (fillfactor = 50);
CREATE TABLE happened (what text, client int, n bigint DEFAULT 0, PRIMARY KEY (what, client)) WITH (fillfactor = 20);
CREATE FUNCTION done(what text, client int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO happened VALUES (what, client, 1) ON CONFLICT (what, client) DO UPDATE SET n = happened.n + 1 $$;

-- One thing that a client does to one of its keys, in a transaction that may roll back.
CREATE PROCEDURE act(client int) LANGUAGE plpgsql AS $$
DECLARE
    this text := client || '-' || floor(random() * 400);
    ttl interval := (0.1 + random() * 2.9) * interval '1 s';
    what text := (ARRAY['set', 'set', 'set', 'renew', 'renew', 'delete', 'set for ever', 'import'])[1 + floor(random() * 8)];
    how float := random();
    until timestamptz := clock_timestamp() + ttl;
    number int := floor(random() * 1e9);
    hit boolean := true;
BEGIN
    BEGIN
        IF what = 'set' THEN
            PERFORM kv_set(this, to_jsonb(number), expires_at => until, store => 'storm');
        ELSIF what = 'renew' THEN
            hit := kv_expire(this, expires_at => until, store => 'storm');
        ELSIF what = 'delete' THEN
            hit := kv_delete(this, store => 'storm');
        ELSIF what = 'set for ever' THEN
            PERFORM kv_set(this, to_jsonb(number), store => 'storm');
        ELSE
            PERFORM kv_import(jsonb_build_object(this, jsonb_build_object('value', number, 'expiresAt', floor(extract(epoch FROM until) * 1000))), 'storm');
            SELECT e.expires_at INTO until FROM kv_entry(this, 'storm') e;
        END IF;
        IF how < 0.15 THEN
            RAISE EXCEPTION 'rollback to savepoint' USING ERRCODE = 'P0S01';
        END IF;
        IF NOT hit THEN
            -- it had expired or was deleted
            what := what || ', absent';
        ELSIF what = 'delete' THEN
            DELETE FROM truth WHERE key = this;
        ELSIF what = 'renew' THEN
            UPDATE truth SET expires_at = until WHERE key = this;
        ELSE
            INSERT INTO truth VALUES (this, number, CASE WHEN what <> 'set for ever' THEN until END)
                ON CONFLICT (key) DO UPDATE SET value = number, expires_at = EXCLUDED.expires_at;
        END IF;
    EXCEPTION WHEN SQLSTATE 'P0S01' THEN
        what := 'savepoint rolled back';
    END;
    IF random() < 0.2 THEN
        PERFORM pg_sleep(random() * 0.3);
        what := what || ', slowly';
    END IF;
    IF how > 0.85 THEN
        ROLLBACK;
        what := what || ', rolled back';
    END IF;
    PERFORM done(what, client);
    COMMIT;
END $$;

-- Keys that lie side by side and live for ever, for the pairs.
SELECT count(kv_set('pair' || g, to_jsonb(repeat('x', 700)), store => 'storm')) FROM generate_series(1, 60000) g;
SQL

append_to_file("$dir/act", "CALL act(:client_id);\n");
append_to_file("$dir/pair", <<'SQL');
\set a random(1, 29999)
\set wait random(150, 460)
SELECT kv_set('pair' || (:a * 2), '1', ttl => '150 ms', store => 'storm');
\sleep :wait ms
SELECT kv_set('pair' || (:a * 2 + 1), '1', ttl => '300 ms', store => 'storm');
SQL
append_to_file("$dir/late", <<'SQL');
\set a random(1, 29999)
SELECT kv_set('pair' || (:a * 2), '1', ttl => '150 ms', store => 'storm');
BEGIN;
SELECT kv_set('pair' || (:a * 2 + 1), '1', ttl => '300 ms', store => 'storm');
\sleep 600 ms
COMMIT;
SQL

my ($looks, $worst) = (0, 0);
my (%forgotten, $longest);

# What is dead and will not be visited soon, for the map does not say so.  A group that the sweeper is at just then is not in the map, and a row that somebody has
# locked is visited again in half a second.
my $unplanned = q{SELECT s.ctid || ' ' || s.expires_at FROM kvstore.s_storm s WHERE s.expires_at < clock_timestamp() - interval '2 s' AND NOT EXISTS (
	SELECT FROM kvstore.expiry_map() m WHERE m.relid = 'kvstore.s_storm'::regclass AND m.due < clock_timestamp() + interval '1 s'
		AND (m.first_block IS NULL OR m.first_block = (s.ctid::text::point)[0]::bigint / 8 * 8))};

sub look
{
	my $age = sql("SELECT extract(epoch FROM clock_timestamp() - min(expires_at)) FROM kvstore.s_storm") || 0;
	my %before = %forgotten;

	$looks++;
	$worst = $age if $age > $worst;
	%forgotten = map { $_ => $before{$_} // time } split /\n/, sql($unplanned);
	for my $since (values %forgotten)
	{
		$longest = time - $since if time - $since > ($longest // 0);
	}
	return;
}

# All kinds of clients for so long; all the while, see how long what is dead has been so.
sub storm
{
	my ($time) = @_;
	my @running;

	for my $run ([ 'act', 8 ], [ 'pair', 12 ], [ 'late', 4 ])
	{
		my ($script, $clients) = @$run;
		my $out = '';
		my $handle = IPC::Run::start([ 'pgbench', '-n', '-c', $clients, '-T', $time, '-f', "$dir/$script", '-h', $node->host, '-p', $node->port, 'postgres' ],
			'<', \undef, '>', \$out, '2>&1');
		push @running, [ $handle, \$out, $script ];
	}
	my $end = time + $time;
	while (time < $end)
	{
		look();
		usleep(300_000);
	}
	for my $run (@running)
	{
		my ($handle, $out, $script) = @$run;
		ok($handle->finish && $$out !~ /abort|ERROR/, "$script: no client ended with an error") or diag($$out);
	}
	return;
}

my @things = ('set', 'set for ever', 'renew', 'renew, absent', 'delete', 'delete, absent', 'import', 'savepoint rolled back', 'set, slowly', 'set, rolled back', 'renew, rolled back',
	'delete, rolled back', 'set for ever, rolled back', 'import, rolled back', 'set, slowly, rolled back');
my $missing = "SELECT count(*) FROM unnest('{" . join(',', map { "\"$_\"" } @things) . "}'::text[]) t WHERE t NOT IN (SELECT what FROM happened)";

storm($seconds);
for (1 .. 10)
{
	last if sql($missing) == 0;
	storm(10);
}

# Nothing comes any more; all goes that there is, as long as a visit is planned.
my $left = "SELECT count(*) FROM kvstore.s_storm WHERE expires_at IS NOT NULL";
my $end = time + 180;
while (time < $end && sql($left) ne '0' && ($longest // 0) < 5)
{
	look();
	usleep(200_000);
}
is(sql($left), '0', 'nothing is left');
# On a machine that has other things to do the sweeper may be late; what it has forgotten waits for the next visit of its group.
cmp_ok($longest // 0, '<', 5, 'nothing that was dead was forgotten at any time') or diag("$longest s");
is(sql(<<'SQL'), '0', 'nothing that lives is gone or has another value');
SELECT count(*) FROM truth t WHERE (t.expires_at IS NULL OR t.expires_at > clock_timestamp()) AND
    kv_get(t.key, 'storm') IS DISTINCT FROM to_jsonb(t.value)
SQL
is(sql(<<'SQL'), '0', 'nothing that was deleted is back');
SELECT count(*) FROM kvstore.s_storm s WHERE kv_key_to_json(s.key) ->> 0 !~ '^pair' AND NOT EXISTS (SELECT FROM truth t WHERE t.key = kv_key_to_json(s.key) ->> 0)
SQL

my %happened = map { split /\|/ } split /\n/, sql("SELECT what, sum(n) FROM happened GROUP BY what");
cmp_ok($happened{$_} // 0, '>', 0, "$_: " . ($happened{$_} // 0) . ' times') for @things;
my $living = sql("SELECT count(*) FROM truth WHERE expires_at IS NULL");
cmp_ok($living, '>', 0, "$living entries live at the end");
my $pairs = sql("SELECT count(*) FROM kv_list('pair', store => 'storm', keys_only => true)");
cmp_ok(60000 - $pairs, '>', 0, 60000 - $pairs . ' entries of pairs expired');
my $swept = sql("SELECT expired FROM pg_stat_kvstore WHERE store = 'storm'");
cmp_ok($swept, '>', 0, "$swept entries were swept");
note("$looks looks; the longest that anything was dead: $worst s");
unlike(slurp_file($node->logfile), qr/PANIC:|terminated by signal/, 'nothing crashed');
$node->stop;

done_testing();
