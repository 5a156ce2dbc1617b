# A bank: 16 clients transfer between 100 accounts by kv_atomic, with checks and by sums, open and close accounts.  The total never changes, for nobody who looks
# at any time, and there is never a deadlock.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

# What happened is written to a table of its own by a statement of its own: what moves money is its transaction's only statement.
my $say = "INSERT INTO happened VALUES (:what);\n";
my %scripts = (
	# Read, then write if both are as they were; try again until they are.
	transfer_checked => q{
		\set a random(1, 100)
		\set b 1 + (:a - 1 + random(1, 99)) % 100
		\set amount random(1, 50)
		SELECT a.versionstamp AS av, COALESCE(a.value::int, 0) AS aa, b.versionstamp AS bv, COALESCE(b.value::int, 0) AS bb
		FROM kv_entry('account:' || :a) a, kv_entry('account:' || :b) b \gset
		\set an :aa - :amount
		\set bn :bb + :amount
		\if :an < 0
			\set what 1
		\else
			SELECT CASE WHEN ok THEN 2 ELSE 3 END AS what FROM kv_atomic(jsonb_build_array(
				jsonb_build_object('check', jsonb_build_object('key', 'account:' || :a, 'versionstamp', :av)),
				jsonb_build_object('check', jsonb_build_object('key', 'account:' || :b, 'versionstamp', :bv)),
				jsonb_build_object('set', jsonb_build_object('key', 'account:' || :b, 'value', :bn)),
				jsonb_build_object('set', jsonb_build_object('key', 'account:' || :a, 'value', :an)))) \gset
		\endif
	},
	transfer_summed => q{
		\set a random(1, 100)
		\set b 1 + (:a - 1 + random(1, 99)) % 100
		\set amount random(1, 50)
		SELECT CASE WHEN ok THEN 4 END AS what FROM kv_atomic(jsonb_build_array(
			jsonb_build_object('sum', jsonb_build_object('key', 'account:' || :a, 'value', -:amount)),
			jsonb_build_object('sum', jsonb_build_object('key', 'account:' || :b, 'value', :amount)))) \gset
	},
	# An account that is there is closed, its money goes to another one; one that is not is opened with money from another one.
	open_and_close => q{
		\set a random(1, 100)
		\set b 1 + (:a - 1 + random(1, 99)) % 100
		SELECT versionstamp AS av, COALESCE(value::int, 0) AS aa FROM kv_entry('account:' || :a) \gset
		\if :av = 0
			SELECT CASE WHEN ok THEN 5 ELSE 6 END AS what FROM kv_atomic(jsonb_build_array(
				jsonb_build_object('set', jsonb_build_object('key', 'account:' || :a, 'value', 10)),
				jsonb_build_object('sum', jsonb_build_object('key', 'account:' || :b, 'value', -10)),
				jsonb_build_object('check', jsonb_build_object('key', 'account:' || :a, 'versionstamp', 0)))) \gset
		\else
			SELECT CASE WHEN ok THEN 7 ELSE 8 END AS what FROM kv_atomic(jsonb_build_array(
				jsonb_build_object('check', jsonb_build_object('key', 'account:' || :a, 'versionstamp', :av)),
				jsonb_build_object('delete', jsonb_build_object('key', 'account:' || :a)),
				jsonb_build_object('sum', jsonb_build_object('key', 'account:' || :b, 'value', :aa)))) \gset
		\endif
	},
	# Only if another account is absent: a check of what is not written.
	transfer_if_closed => q{
		\set a random(1, 100)
		\set b 1 + (:a - 1 + random(1, 98)) % 100
		\set c 1 + :b % 100
		SELECT CASE WHEN ok THEN 9 ELSE 10 END AS what FROM kv_atomic(jsonb_build_array(
			jsonb_build_object('check', jsonb_build_object('key', 'account:' || :c, 'versionstamp', 0)),
			jsonb_build_object('sum', jsonb_build_object('key', 'account:' || :b, 'value', 1)),
			jsonb_build_object('sum', jsonb_build_object('key', 'account:' || :a, 'value', -1)))) \gset
	},
	audit => q{
		SELECT CASE WHEN sum(value::int) = 100000 THEN 11 ELSE 12 END AS what FROM kv_list('account:') \gset
	});
my @happened = (undef, 'not enough money', 'transferred', 'transfer: check failed', 'transferred by sums', 'opened', 'opening: check failed', 'closed', 'closing: check failed',
	'transferred, another closed', 'another is open: check failed', 'audited', 'AUDITED WRONG');
my @must = (2, 3, 4, 5, 7, 8, 9, 10, 11);

for my $preload (1, 0)
{
	my $how = $preload ? 'with preload' : 'without preload';
	my $node = kvs_node($preload ? 'bank' : 'bank_noload', preload => $preload, conf => $kvs_storm_conf);

	$node->safe_psql('postgres', q{
		CREATE EXTENSION kvstore;
		SELECT kv_create_store();
		SELECT kv_set_many(array_agg('account:' || n), array_agg('1000'::jsonb)) FROM generate_series(1, 100) n;
		CREATE TABLE happened (what int NOT NULL)});

	# Again where a machine is so slow that something has not happened.
	my %count;
	for my $round (1 .. 10)
	{
		subtest "$how: storm" => sub {
			kvs_storm($node, { map { $_ => $scripts{$_} . $say } keys %scripts }, $preload ? 8 : 5);
		};
		%count = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT what, count(*) FROM happened GROUP BY what ORDER BY what');
		last unless grep { !$count{$_} } @must;
	}
	is($node->safe_psql('postgres', q{SELECT sum(value::int) FROM kv_list('account:')}), '100000', "$how: the total is what it was");
	note("$how: $happened[$_]: " . ($count{$_} // 0)) for 1 .. $#happened;
	for my $what (@must)
	{
		cmp_ok($count{$what} // 0, '>', 0, "$how: $happened[$what]: " . ($count{$what} // 0));
	}
	is($count{12} // 0, 0, "$how: nobody ever saw another total");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), '0', "$how: no lock is left");
	$node->stop;
}

done_testing();
