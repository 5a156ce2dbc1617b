#!/usr/bin/env perl
# Storm of expiring entries: clients set, renew and delete with random TTLs, with rollbacks and savepoints, while the worker sweeps.
#
# Usage: expiry.pl [seconds]    with PGHOST, PGPORT, PGUSER of a server that has kvstore preloaded, and pgbench and psql in the PATH.
#
# 8 clients write keys of their own and know what must live; a few dozen others, nearly always asleep, set an entry and then another one in the
# same group of blocks just when the first expires, which is when the sweeper looks there.  Then:
#   nothing that lives is gone          every client's last word on each of its keys is what the table says
#   nothing that is dead stays          never more than 2 s after its time, looked at all the while, and nothing at the end
# How often each thing happened is printed; a zero fails.  Exit status 0: all well.
use strict;
use warnings;

use File::Temp qw(tempdir);
use Time::HiRes qw(time usleep);

my $seconds = shift // 60;
my $dir = tempdir(CLEANUP => 1);
my $database = 'storm_expiry';
my $failed = 0;

sub sql
{
	my ($sql, $db) = @_;

	open my $psql, '-|', 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $db // $database, '-c', $sql or die "psql: $!\n";
	local $/;
	my $out = <$psql> // '';
	close $psql or die "psql failed: $sql\n";
	$out =~ s{\s+\z}{};
	return $out;
}

sub check
{
	my ($name, $ok, $detail) = @_;

	print $ok ? 'ok' : 'NOT OK', " - $name", defined $detail ? ": $detail" : '', "\n";
	$failed = 1 unless $ok;
	return;
}

# Must never be zero.
sub happened
{
	my ($name, $count) = @_;

	check($name, $count > 0, $count);
	return;
}

# What is a point of the sweeper sleeps so many microseconds: that widens every window.
my $delay = $ENV{STORM_DELAY} // 500;

sql("DROP DATABASE IF EXISTS $database", 'postgres');
sql("CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8'", 'postgres');
sql("ALTER SYSTEM SET kvstore.test_delay = $delay", 'postgres');
sql('SELECT pg_reload_conf()', 'postgres');

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
        -- an entry that expires meanwhile is no longer renewed or deleted: ask before
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
            PERFORM done(what || ', absent', client);
        ELSIF what = 'delete' THEN
            DELETE FROM truth WHERE key = this;
        ELSIF what = 'renew' THEN
            UPDATE truth SET expires_at = until WHERE key = this;
        ELSE
            INSERT INTO truth VALUES (this, number, CASE WHEN what <> 'set for ever' THEN until END)
                ON CONFLICT (key) DO UPDATE SET value = number, expires_at = EXCLUDED.expires_at;
        END IF;
        IF hit THEN
            PERFORM done(what, client);
        END IF;
    EXCEPTION WHEN SQLSTATE 'P0S01' THEN
        PERFORM done('savepoint rolled back', client);
    END;
    IF random() < 0.2 THEN
        PERFORM pg_sleep(random() * 0.3);
    END IF;
    IF how > 0.85 THEN
        ROLLBACK;
        PERFORM done('rolled back', client);
    END IF;
    COMMIT;
END $$;

-- Keys that lie side by side and live for ever, for the pairs: a row in each is what expires.
SELECT count(kv_set('pair' || g, to_jsonb(repeat('x', 700)), store => 'storm')) FROM generate_series(1, 60000) g;
SQL

sub write_file
{
	my ($name, $text) = @_;

	open my $file, '>', "$dir/$name" or die "$name: $!\n";
	print $file $text;
	close $file or die "$name: $!\n";
	return "$dir/$name";
}

my $act = write_file('act.sql', "CALL act(:client_id);\n");

# The second entry comes when the sweeper visits the group for the first one; the group is then left alone.
my $pair = write_file('pair.sql', <<'SQL');
\set a random(1, 29999)
\set wait random(150, 460)
SELECT kv_set('pair' || (:a * 2), '1', ttl => '150 ms', store => 'storm');
\sleep :wait ms
SELECT kv_set('pair' || (:a * 2 + 1), '1', ttl => '300 ms', store => 'storm');
SQL

my @running;
for my $run ([ 8, $act, 4 ], [ 24, $pair, 1 ])
{
	my ($clients, $script) = @$run;
	my $pid = fork // die "fork: $!\n";

	if ($pid == 0)
	{
		open STDOUT, '>', "$dir/out$clients" or die;
		open STDERR, '>&', \*STDOUT or die;
		exec 'pgbench', '-n', '-c', $clients, '-j', 2, '-T', $seconds, '-f', $script, $database or die "pgbench: $!\n";
	}
	push @running, [ $pid, "$dir/out$clients" ];
}

# All the while: nothing is dead for more than 2 s.
my ($looks, $late) = (0, 0);
my $count_late = "SELECT count(*) FROM kvstore.s_storm WHERE expires_at < clock_timestamp() - interval '2 s'";
my $end = time + $seconds;
while (time < $end - 1)
{
	my $now_late = sql($count_late);

	$looks++;
	$late += $now_late;
	usleep(500_000);
}
for my $run (@running)
{
	waitpid $run->[0], 0;
	check('clients ended well', $? == 0);
	open my $out, '<', $run->[1] or die;
	my @lines = <$out>;
	print grep { /number of clients|actually processed|failed|ERROR|error/ } @lines;
}
my $still_there = sql("SELECT count(*) FROM kvstore.s_storm WHERE expires_at > clock_timestamp()");

check('nothing was dead for more than 2 s', $late == 0, "$late rows in $looks looks");
my $deadline = time + 12;
usleep(100_000) while time < $deadline && sql("SELECT count(*) FROM kvstore.s_storm WHERE expires_at IS NOT NULL") != 0
	&& sql($count_late) == 0;
my $left = sql("SELECT count(*) FROM kvstore.s_storm WHERE expires_at IS NOT NULL");
check('nothing that is dead stays at the end', $left == 0, "$left left");

# kv_expire() may have met an entry that the clock of "until" puts elsewhere: compare with what is there.
my $lost = sql(<<'SQL');
SELECT count(*) FROM truth t WHERE (t.expires_at IS NULL OR t.expires_at > clock_timestamp()) AND
    kv_get(t.key, 'storm') IS DISTINCT FROM to_jsonb(t.value)
SQL
check('nothing that lives is gone or has another value', $lost == 0, "$lost lost");
my $ghosts = sql(<<'SQL');
SELECT count(*) FROM kvstore.s_storm s WHERE kv_key_to_json(s.key) ->> 0 !~ '^pair' AND NOT EXISTS (SELECT FROM truth t WHERE t.key = kv_key_to_json(s.key) ->> 0)
SQL
check('nothing that was deleted is back', $ghosts == 0, "$ghosts back");
my $pairs = sql("SELECT count(*) FROM kv_list('pair', store => 'storm', keys_only => true)");

sleep 1;
happened($_->[0], $_->[1]) for map { [ split /\|/ ] } split /\n/, sql("SELECT what, sum(n) FROM happened GROUP BY what ORDER BY what");
for my $what ('set', 'set for ever', 'renew', 'renew, absent', 'delete', 'delete, absent', 'import', 'rolled back', 'savepoint rolled back')
{
	happened($what, 0) if sql("SELECT count(*) FROM happened WHERE what = '$what'") == 0;
}
happened('entries living at the end', sql("SELECT count(*) FROM truth t WHERE t.expires_at IS NULL"));
happened('entries that were on their way at the end', $still_there);
happened('pairs still alive', $pairs);
happened('swept', sql("SELECT expired FROM pg_stat_kvstore WHERE store = 'storm'"));
happened('looks', $looks);

sql('ALTER SYSTEM RESET kvstore.test_delay', 'postgres');
sql('SELECT pg_reload_conf()', 'postgres');
sql("DROP DATABASE $database", 'postgres') unless $failed;
print $failed ? "the storm FAILED\n" : "the storm is over: all well\n";
exit $failed;
