# Storms: many sessions write the same few keys, and what they were told must add up.  No compare-and-set is lost or won twice; for each key the
# versionstamps grow in the order of the commits, across deletion and re-creation; what is stored at the end is what the last one was told.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $clients = 8;
my $transactions = 500;

sub storm
{
	my ($how, %args) = @_;
	# No worker, for what has expired is to stay in the table.
	my $node = kvs_node($args{name}, preload => $args{preload}, conf => "max_worker_processes = 0\nsynchronous_commit = off\nautovacuum_naptime = 1s\nautovacuum_vacuum_threshold = 10\nautovacuum_vacuum_scale_factor = 0\n");

	$node->safe_psql('postgres', q{
		CREATE EXTENSION kvstore;
		SELECT kv_create_store();
		CREATE TABLE history (key text, n bigint, what text, stamp bigint, PRIMARY KEY (key, n));
		CREATE TABLE clock (key text PRIMARY KEY, n bigint);
		CREATE TABLE wins (client int, n bigint);

		-- Whoever has written a key holds its lock until he commits, so the next number of its clock tells the order of the commits.
		CREATE FUNCTION note(key text, what text, stamp bigint) RETURNS void LANGUAGE sql AS $$
			WITH tick AS (INSERT INTO clock AS c VALUES (key, 1) ON CONFLICT (key) DO UPDATE SET n = c.n + 1 RETURNING c.n)
			INSERT INTO history SELECT key, n, what, stamp FROM tick
		$$;
		CREATE FUNCTION write_something() RETURNS void LANGUAGE plpgsql AS $$
		DECLARE
			k text := 'k' || floor(random() * 4)::int;
			seen bigint := (SELECT versionstamp FROM kv_entry(k));
			stamp bigint;
		BEGIN
			CASE floor(random() * 8)::int
			WHEN 0, 1 THEN stamp := kv_set(k, to_jsonb(random()), ttl => (ARRAY[NULL, '1 hour', '0'])[1 + floor(random() * 3)::int]::interval);
			WHEN 2 THEN stamp := kv_set(k, '2', if_version => seen);
			WHEN 3 THEN stamp := kv_set_bytes(k, '\x00', if_version => 0);
			WHEN 4 THEN IF kv_delete(k) THEN PERFORM note(k, 'delete', NULL); END IF;
			WHEN 5 THEN
				PERFORM kv_set(k, '"twice"');
				PERFORM kv_delete(k);
				stamp := kv_set(k, '"twice"', keep_ttl => true);
			WHEN 6 THEN IF kv_delete(k, seen) THEN PERFORM note(k, 'delete', NULL); END IF;
			ELSE stamp := kv_set(k, to_jsonb(repeat('long', 500)));
			END CASE;
			IF stamp IS NOT NULL THEN
				PERFORM note(k, 'set', stamp);
			END IF;
			IF random() < 0.1 THEN
				RAISE EXCEPTION 'rolled back' USING ERRCODE = 'ZZ000';
			END IF;
		END $$;
		-- A rolled back attempt is tried as such: the subtransaction's locks go with it.
		CREATE FUNCTION attempt() RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM write_something();
		EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
		END $$;
		CREATE FUNCTION count_up(client int) RETURNS void LANGUAGE plpgsql AS $$
		DECLARE
			e record;
		BEGIN
			LOOP
				SELECT * INTO e FROM kv_entry('counter');
				EXIT WHEN kv_set('counter', to_jsonb(coalesce(e.value::bigint, 0) + 1), if_version => e.versionstamp) IS NOT NULL;
			END LOOP;
			INSERT INTO wins SELECT client, value::bigint FROM kv_entry('counter');
		END $$;
	});

	for my $level ('read committed', 'repeatable read')
	{
		$node->append_conf('postgresql.conf', "default_transaction_isolation = '$level'");
		$node->reload;
		$node->pgbench("-n -c $clients -t $transactions --max-tries=1000", 0, [qr/number of failed transactions: 0/], [qr/^$/],
			"$how, $level: history", { "016_history_$args{name}" . ($level =~ tr/a-z//cdr) => 'SELECT attempt();' });
		# Compare-and-set needs new snapshots to see who won, which only READ COMMITTED has.
		$node->pgbench("-n -c $clients -t $transactions", 0, [qr/processed: @{[ $clients * $transactions ]}/], [qr/^$/],
			"$how, $level: compare and set", { "016_cas_$args{name}" => 'SELECT count_up(:client_id);' })
		  if $level eq 'read committed';
	}
	$node->append_conf('postgresql.conf', "default_transaction_isolation = 'read committed'");
	$node->reload;

	is($node->safe_psql('postgres', q{SELECT kv_get('counter')}), $clients * $transactions, "$how: every compare-and-set that was won has counted");
	is($node->safe_psql('postgres', q{SELECT count(*) - count(DISTINCT n) FROM wins}), '0', "$how: none was won twice");
	cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM history}), '>', $clients * $transactions / 2, "$how: much was written");
	is($node->safe_psql('postgres', q{SELECT * FROM (SELECT key, n, what, stamp, max(stamp) OVER (PARTITION BY key ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM history) h WHERE stamp <= before LIMIT 5}), '',
		"$how: for each key the numbers grow in the order of the commits");
	is($node->safe_psql('postgres', q{SELECT count(*) - count(DISTINCT stamp) FROM history WHERE stamp IS NOT NULL}), '0', "$how: no number was given twice");
	is($node->safe_psql('postgres', q{SELECT l.key, l.what, l.stamp, s.versionstamp FROM (SELECT DISTINCT ON (key) * FROM history ORDER BY key, n DESC) l LEFT JOIN kvstore.s_default s ON s.key = kv_key(l.key) WHERE l.stamp IS DISTINCT FROM s.versionstamp}), '',
		"$how: the last that was told is what is stored");
	is($node->safe_psql('postgres', q{SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*) - count(DISTINCT key) FROM kvstore.s_default}), '0', "$how: one row for each key");
	$node->stop;
}

storm('with preload', name => 'preload', preload => 1);
storm('without preload', name => 'noload', preload => 0);

done_testing();
