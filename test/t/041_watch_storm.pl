# A storm: 8 writers and 8 followers, 100,000 changes with rollbacks, savepoints and bulk sets, expiries and deleted prefixes.  Each follower's copy equals the table at the end, and no key ever
# went back.
#
# A follower does what README.md says: position, list, follow; it reads again what has changed, and lists again what a deleted prefix says.  Two of them begin anew in the middle.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use KvsTest;

my $changes = 100_000;
my $node = kvs_node('feedstorm', conf => "fsync = off\nlog_statement = none\nmax_connections = 50\ndeadlock_timeout = 50ms\n");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{
	CREATE EXTENSION kvstore;
	SELECT kv_create_store();
	CREATE TABLE result (follower int, changes bigint, went_back bigint, differences bigint);

	-- Random writes until so many changes are made; 200 keys, so that writers meet.
	CREATE PROCEDURE write(wanted bigint, writer int) LANGUAGE plpgsql AS $$
	DECLARE
		made bigint := 0;
		k text;
		n int;
	BEGIN
		PERFORM setseed(writer / 100.0);
		WHILE made < wanted LOOP
			k := 'k' || (random() * 200)::int;
			n := (random() * 100)::int;
			BEGIN
				CASE
					WHEN n < 40 THEN PERFORM kv_set(k, to_jsonb(n)); made := made + 1;
					WHEN n < 55 THEN PERFORM kv_delete(k); made := made + 1;
					WHEN n < 65 THEN PERFORM kv_set_many(array_agg('k' || i), array_agg(to_jsonb(i))) FROM generate_series(n * 2, n * 2 + 19) i; made := made + 20;
					WHEN n < 70 THEN PERFORM kv_delete_many(array_agg('k' || i)) FROM generate_series(n, n + 9) i; made := made + 10;
					WHEN n < 75 THEN PERFORM kv_atomic(jsonb_build_array(jsonb_build_object('set', jsonb_build_object('key', k, 'value', n)), jsonb_build_object('delete', jsonb_build_object('key', 'k' || n)))); made := made + 2;
					WHEN n < 80 THEN PERFORM kv_set(k, '0', ttl => random() * interval '0.2 s'); made := made + 1;
					WHEN n < 82 THEN PERFORM kv_expire(k, ttl => random() * interval '1 s'); made := made + 1;
					WHEN n = 82 THEN PERFORM kv_delete_prefix('k1' || writer); made := made + 1;
					WHEN n = 83 AND random() < 0.1 THEN PERFORM kv_clear(); made := made + 1;
					WHEN n < 90 THEN PERFORM kv_set(k, '1'); RAISE 'rolled back' USING ERRCODE = 'KV999';
					ELSE
						PERFORM kv_set('k' || n, '1');
						BEGIN
							PERFORM kv_set(k, '2'), kv_delete('k' || n);
							RAISE 'savepoint' USING ERRCODE = 'KV999';
						EXCEPTION WHEN SQLSTATE 'KV999' THEN NULL;
						END;
						made := made + 1;
				END CASE;
			-- what takes two keys in any order may meet another that does
			EXCEPTION WHEN SQLSTATE 'KV999' OR deadlock_detected THEN NULL;
			END;
			IF random() < 0.05 THEN ROLLBACK; ELSE COMMIT; END IF;
		END LOOP;
	END $$;

	-- List again; what is known of keys that are gone stays, so that going back is noticed.
	CREATE PROCEDURE list_all() LANGUAGE plpgsql AS $$
	BEGIN
		UPDATE copy SET present = false;
		INSERT INTO copy AS c SELECT key, versionstamp, true, 0 FROM kv_list('')
			ON CONFLICT (key) DO UPDATE SET known = greatest(c.known, EXCLUDED.known), present = true;
	END $$;

	-- Follow until the writers have ended; "anew" times begin from a new position.
	CREATE PROCEDURE follow(follower int, anew int) LANGUAGE plpgsql AS $$
	DECLARE
		place text;
		c record;
		last text := '';
		changed text[];
		lists boolean;
		total bigint := 0;
		back bigint := 0;
	BEGIN
		CREATE TEMP TABLE copy (key text PRIMARY KEY, known bigint, present boolean, told bigint);
		COMMIT;
		place := kv_feed_position();
		CALL list_all();
		COMMIT;
		LOOP
			changed := '{}';
			lists := false;
			FOR c IN SELECT * FROM kv_changes(place, '', '1 s', 500) LOOP
				place := c.feed_position;
				last := c.operation;
				CONTINUE WHEN c.operation = 'progress';
				total := total + 1;
				IF c.operation IN ('delete_prefix', 'clear') THEN
					lists := true;
					CONTINUE;
				END IF;
				changed := changed || c.key;
				-- in the feed itself, no key ever goes back
				INSERT INTO copy AS o VALUES (c.key, 0, false, c.versionstamp)
					ON CONFLICT (key) DO UPDATE SET told = EXCLUDED.told WHERE o.told <= EXCLUDED.told;
				IF NOT FOUND THEN back := back + 1; END IF;
			END LOOP;
			-- and what is read of a key after it was told is at least as new as what was told, or the key is gone
			IF EXISTS (SELECT FROM kv_get_many(changed) e JOIN copy o USING (key) WHERE e.versionstamp > 0 AND e.versionstamp < greatest(o.known, o.told)) THEN back := back + 1; END IF;
			UPDATE copy o SET known = greatest(o.known, e.versionstamp), present = e.versionstamp > 0 FROM kv_get_many(changed) e WHERE e.key = o.key;
			IF lists THEN CALL list_all(); END IF;
			COMMIT;
			EXIT WHEN last = 'progress' AND NOT lists AND EXISTS (SELECT FROM copy WHERE copy.key = 'the end' AND present);
			IF anew > 0 AND total > 3000 * anew THEN
				anew := anew - 1;
				place := kv_feed_position();
				CALL list_all();
			END IF;
		END LOOP;
		INSERT INTO result SELECT follower, total, back, count(*) FROM (SELECT key, known FROM copy WHERE present) o FULL JOIN kv_list('') l USING (key) WHERE o.known IS DISTINCT FROM l.versionstamp;
	END $$;
});

sub start_of
{
	my ($statement) = @_;
	my $session = { out => '', err => '' };

	$session->{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', $statement ], '<', \'', '>', \$session->{out}, '2>', \$session->{err}, IPC::Run::timeout(300));
	return $session;
}

sub end_of
{
	my ($session) = @_;
	eval { $session->{run}->finish; 1 } or $session->{err} .= 'does not end';
	return $session->{err};
}

my $start = time;
my @followers = map { start_of("CALL follow($_, " . ($_ > 6 ? 3 : 0) . ')') } 1 .. 8;
my @writers = map { start_of('CALL write(' . $changes / 8 . ", $_)") } 1 .. 8;
is(end_of($writers[ $_ - 1 ]), '', "writer $_ ends well") for 1 .. 8;
# Entries whose time is yet to come are gone by then, and their removal is told.
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM kvstore.s_default WHERE expires_at IS NOT NULL'), 'what expires is swept');
sql(q{SELECT kv_set('the end', 'true')});
is(end_of($followers[ $_ - 1 ]), '', "follower $_ ends well") for 1 .. 8;
note(sprintf '%.1f s', time - $start);
is(sql('SELECT count(*) FROM result'), '8', 'all followers have come to the end');
is(sql('SELECT count(*) FROM result WHERE went_back > 0'), '0', 'no key went back');
is(sql('SELECT count(*) FROM result WHERE differences > 0'), '0', "each follower's copy equals the table") || diag(sql('TABLE result'));
cmp_ok(sql('SELECT min(changes) FROM result'), '>', $changes / 10, 'they were told of many changes: ' . sql("SELECT string_agg(changes::text, ' ') FROM result"));
is(sql('SELECT count(*) FROM kvstore.waiters()'), '0', 'no slot is left');
$node->stop;

done_testing();
