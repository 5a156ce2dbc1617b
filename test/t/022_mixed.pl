# Every function that writes, over the same dozen keys in random order, each as its transaction's only statement: never a deadlock.  And versionstamps of a key
# only ever grow while others write and delete it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

# Keys in random order, half of them: plain strings k1 to k6 and the paths ["k1", 1] to ["k6", 1] between them.
my $texts = q{(SELECT COALESCE(array_agg('k' || n ORDER BY random()), '{}') FROM generate_series(1, 6) n WHERE random() < 0.5)};
my $paths = q{(SELECT COALESCE(jsonb_agg(k ORDER BY random()), '[]') FROM (SELECT to_jsonb('k' || n) k FROM generate_series(1, 6) n
	UNION ALL SELECT jsonb_build_array('k' || n, 1) FROM generate_series(1, 6) n) s WHERE random() < 0.5)};
# Operations of random kinds on random keys, up to two of a key.
my $operations = q{(SELECT COALESCE(jsonb_agg(jsonb_build_object(o, jsonb_strip_nulls(jsonb_build_object('key', k,
		'value', CASE WHEN o IN ('set', 'sum', 'min', 'max') THEN 5 END, 'versionstamp', CASE WHEN o = 'check' THEN 0 END,
		'ttl_ms', CASE WHEN o = 'set' AND random() < 0.2 THEN 0 END))) ORDER BY random()), '[]')
	FROM (SELECT k, (ARRAY['set', 'set', 'sum', 'min', 'max', 'delete', 'delete', 'check'])[1 + floor(random() * 8)::int] AS o
		FROM (SELECT to_jsonb('k' || n) k FROM generate_series(1, 6) n UNION ALL SELECT jsonb_build_array('k' || n, 1) FROM generate_series(1, 6) n, generate_series(1, 2)) s
		WHERE random() < 0.3) t)};
# Checks that certain keys are absent, and writes of others: what holds an absence meets who inserts it.
my $crosswise = q{(SELECT jsonb_agg(jsonb_build_object(o, jsonb_strip_nulls(jsonb_build_object('key', 'k' || n, 'value', CASE WHEN o = 'set' THEN 1 END,
		'versionstamp', CASE WHEN o = 'check' THEN 0 END))) ORDER BY random())
	FROM (SELECT n, CASE WHEN random() < 0.5 THEN 'check' ELSE 'set' END AS o FROM generate_series(1, 3) n) s)};
my $one = q{'k' || :n};
my %scripts = (
	set_many => "SELECT kv_set_many(k, array_fill('1'::jsonb, ARRAY[cardinality(k)])) FROM (SELECT $texts AS k) s;\n",
	set_many_paths => "SELECT kv_set_many_paths(k, (SELECT COALESCE(jsonb_agg(1), '[]') FROM jsonb_array_elements(k)), ttl => '1 hour') FROM (SELECT $paths AS k) s;\n",
	atomic => "SELECT kv_atomic($operations);\n",
	crosswise => "SELECT kv_atomic($crosswise);\n",
	import => "SELECT kv_import((SELECT COALESCE(jsonb_agg(jsonb_build_object('key', CASE jsonb_typeof(k) WHEN 'string' THEN jsonb_build_array(k) ELSE k END, 'value', 2)), '[]')
		FROM jsonb_array_elements($paths) k));\n",
	delete_many => "SELECT kv_delete_many($texts);\n",
	delete_many_paths => "SELECT kv_delete_many_paths($paths);\n",
	delete_prefix => "\\set n random(1, 6)\nSELECT kv_delete_prefix($one);\n",
	delete_path_prefix => "\\set n random(1, 6)\nSELECT kv_delete_prefix(kv_key($one));\n",
	delete_all_prefix => "SELECT kv_delete_prefix('k');\n",
	clear => "SELECT kv_clear();\n",
	set => "\\set n random(1, 6)\nSELECT kv_set($one, '3');\n",
	set_if_absent => "\\set n random(1, 6)\nSELECT kv_set($one, '3', if_version => 0);\n",
	incr => "\\set n random(1, 6)\nSELECT kv_incr($one);\n",
	take => "\\set n random(1, 6)\nSELECT kv_take($one);\n",
	expire => "\\set n random(1, 6)\nSELECT kv_expire($one, ttl => '0');\n");

# The row of the key is locked from the write to the commit, so what is compared here is in the order of the commits.
my $note = "SELECT note(:k, :stamp) AS noted \\gset\nCOMMIT;\n";
my $begin = "\\set k random(1, 3)\nBEGIN;\n";
my %stamps = (
	set => "${begin}SELECT kv_set('s' || :k, '1') AS stamp \\gset\n$note",
	set_many => "${begin}SELECT kv_set_many(ARRAY['s' || :k], ARRAY['1'::jsonb]) AS stamp \\gset\n$note",
	atomic => "${begin}SELECT versionstamp AS stamp FROM kv_atomic(jsonb_build_array(jsonb_build_object('sum', jsonb_build_object('key', 's' || :k, 'value', 1)))) \\gset\n$note",
	incr => "${begin}SELECT kv_incr('s' || :k) AS n \\gset\nSELECT versionstamp AS stamp FROM kv_entry('s' || :k) \\gset\n$note",
	delete => "${begin}SELECT kv_delete('s' || :k);\nCOMMIT;\n",
	delete_many => "${begin}SELECT kv_delete_many(ARRAY['s' || :k]);\nCOMMIT;\n",
	set_and_delete => "${begin}SELECT kv_set('s' || :k, '1') AS stamp \\gset\nSELECT note(:k, :stamp) AS noted \\gset\nSELECT kv_delete('s' || :k);\nCOMMIT;\n",
	set_and_roll_back => "${begin}SELECT kv_set('s' || :k, '1') AS stamp \\gset\nROLLBACK;\n",
	delete_prefix => "${begin}SELECT kv_delete_prefix('s' || :k);\nCOMMIT;\n");

# With an index of the owner's everything goes by the executor, and nothing the short way.
for my $round ([ 'with preload', 1, '', 5 ], [ 'with an index', 1, 'CREATE INDEX ON kvstore.s_default (kind);', 3 ], [ 'without preload', 0, '', 3 ])
{
	my ($how, $preload, $index, $seconds) = @$round;
	my $node = kvs_node('mixed_' . ($how =~ s/ /_/gr), preload => $preload, conf => $kvs_storm_conf);

	$node->safe_psql('postgres', q{
		CREATE EXTENSION kvstore;
		SELECT kv_create_store();
		CREATE TABLE last_stamp (k int PRIMARY KEY, stamp bigint, times bigint, wrong bigint);
		INSERT INTO last_stamp SELECT n, 0, 0, 0 FROM generate_series(1, 3) n;
		CREATE FUNCTION note(what int, new bigint) RETURNS int LANGUAGE sql AS $$
			UPDATE last_stamp SET stamp = greatest(stamp, new), times = times + 1, wrong = wrong + (new <= stamp)::int WHERE k = what RETURNING 1 $$;} . $index);
	subtest "$how: every function that writes, in random key order" => sub { kvs_storm($node, \%scripts, $seconds) };
	is($node->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT key) FROM kvstore.s_default'), '0', "$how: a row for each key");
	subtest "$how: versionstamps of three keys" => sub { kvs_storm($node, \%stamps, $seconds - 1) };
	is($node->safe_psql('postgres', 'SELECT sum(wrong) FROM last_stamp'), '0',
		"$how: only grew, " . $node->safe_psql('postgres', 'SELECT sum(times) FROM last_stamp') . ' times');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), '0', "$how: no lock is left");
	$node->stop;
}

done_testing();
