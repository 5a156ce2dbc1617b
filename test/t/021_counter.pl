# Counters: 16 clients count the same keys by kv_incr and by kv_atomic; no increment is lost, and every kv_incr gives another number.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my %scripts = (
	# one hot key, one of ten, and what it gave
	incr => q{
		\set n random(1, 10)
		\set by random(1, 5)
		SELECT kv_incr('hot') AS hot \gset
		SELECT kv_incr('cold:' || :n, :by) \gset
		INSERT INTO counted VALUES (1, :hot, :by);
	},
	# three at once, in any order, as JSON and u64 numbers
	sum => q{
		\set n random(1, 10)
		\set m 1 + (:n - 1 + random(1, 9)) % 10
		SELECT kv_atomic(jsonb_build_array(
			jsonb_build_object('sum', jsonb_build_object('key', 'cold:' || :n, 'value', 1)),
			jsonb_build_object('sum', jsonb_build_object('key', 'hot64', 'u64', '1')),
			jsonb_build_object('sum', jsonb_build_object('key', 'cold:' || :m, 'value', 1)))) AS done \gset
		INSERT INTO counted VALUES (2, NULL, 2);
	},
	# keys that come and go: what is taken away is counted
	comes_and_goes => q{
		\set n random(1, 3)
		\set what random(1, 4)
		\if :what = 1
			SELECT COALESCE(kv_take('gone:' || :n)::int, 0) AS taken \gset
			INSERT INTO counted VALUES (3, NULL, :taken);
		\elif :what = 2
			SELECT kv_atomic(jsonb_build_array(jsonb_build_object('sum', jsonb_build_object('key', 'gone:' || :n, 'value', 1)))) AS done \gset
			INSERT INTO counted VALUES (4, NULL, 1);
		\else
			SELECT kv_incr('gone:' || :n) AS done \gset
			INSERT INTO counted VALUES (4, NULL, 1);
		\endif
	});

for my $preload (1, 0)
{
	my $how = $preload ? 'with preload' : 'without preload';
	my $node = kvs_node($preload ? 'counter' : 'counter_noload', preload => $preload, conf => $kvs_storm_conf);
	my $count;

	$node->safe_psql('postgres', q{
		CREATE EXTENSION kvstore;
		SELECT kv_create_store();
		CREATE TABLE counted (what int, hot int, amount int)});
	subtest "$how: storm" => sub { $count = kvs_storm($node, \%scripts, $preload ? 3 : 2) };
	is($node->safe_psql('postgres', q{SELECT kv_get('hot')}), $count->{incr}, "$how: no increment of the hot key is lost");
	is($node->safe_psql('postgres', q{SELECT count(DISTINCT hot), min(hot), max(hot) FROM counted WHERE what = 1}), "$count->{incr}|1|$count->{incr}",
		"$how: each increment gave a number of its own");
	is($node->safe_psql('postgres', q{SELECT kv_get('hot64')}), $count->{sum}, "$how: no sum of the u64 key is lost");
	is($node->safe_psql('postgres', q{SELECT sum(value::int) FROM kv_list('cold:')}),
		$node->safe_psql('postgres', q{SELECT sum(amount) FROM counted WHERE what IN (1, 2)}), "$how: nor any of the others");
	is($node->safe_psql('postgres', q{SELECT (SELECT COALESCE(sum(value::int), 0) FROM kv_list('gone:')) + sum(amount) FROM counted WHERE what = 3}),
		$node->safe_psql('postgres', q{SELECT sum(amount) FROM counted WHERE what = 4}), "$how: what came is there or was taken");
	cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM counted WHERE what = 3 AND amount > 0}), '>', 0, "$how: something was taken");
	$node->stop;
}

done_testing();
