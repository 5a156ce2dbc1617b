# 1,000,000 new keys in one transaction with max_locks_per_transaction at its default; long sessions that do not grow; lists that stay within
# work_mem however long they are.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('load', conf => "fsync = off\nautovacuum = off\nmax_wal_size = 4GB\nshared_buffers = 128MB\nwork_mem = 4MB\n");

$node->safe_psql('postgres', q{CREATE EXTENSION kvstore; SELECT kv_create_store(); SELECT kv_create_store('new')});
is($node->safe_psql('postgres', q{SHOW max_locks_per_transaction}), '64', 'max_locks_per_transaction is the default');

# ---- 1,000,000 new keys ----

my $session = $node->background_psql('postgres');
is($session->query_safe(q{BEGIN; SELECT count(kv_set('key:' || i, 'true', store => 'new')) FROM generate_series(1, 1000000) i}), '1000000', '1,000,000 new keys in one transaction');
cmp_ok($session->query_safe(q{SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()}), '<', 20, 'which holds a handful of locks');
is($session->query_safe(q{SELECT kv_count('', 'new')}), '1000000', 'and sees them');
$session->query_safe('COMMIT');
is($node->safe_psql('postgres', q{SELECT kv_count('key:', 'new'), kv_get('key:1000000', 'new')}), '1000000|true', 'committed');

# ---- Memory ----

SKIP:
{
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	skip 'what the sanitizers keep says nothing', 1 if $ENV{KVS_SERVER_PRELOAD};
	skip 'no /proc here', 1 unless -r "/proc/$pid/smaps_rollup" || -r "/proc/$pid/status";

	# Private memory: the shared part of RSS grows with the buffers that a session has touched.
	my $private = sub {
		my ($kb) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
		return $kb;
	};
	my $stays = sub {
		my ($what, $warm_up, $run) = @_;
		$session->query_safe($warm_up);
		my $before = $private->();
		$session->query_safe($run);
		my $grown = $private->() - $before;
		cmp_ok($grown, '<=', 1024, "$what: private memory within 1 MB (grew by $grown kB)");
	};
	my $loop = sub {
		my ($count, $statement) = @_;
		return "DO \$\$ BEGIN FOR i IN 1 .. $count LOOP $statement; IF i % 100 = 0 THEN COMMIT; END IF; END LOOP; END \$\$";
	};

	# Each call a statement of its own, and every so often a commit: what PostgreSQL keeps for rows written twice in one transaction is not ours.
	$stays->('1,000,000 kv_get', $loop->(10000, q{PERFORM kv_get('key:' || i)}), $loop->(1000000, q{PERFORM kv_get('key:' || i % 1000)}));
	my $set = q{PERFORM kv_set('key:' || i % 1000, '{"some": "value of a usual length, neither long nor short"}', ttl => '1 hour')};
	$stays->('200,000 kv_set', $loop->(10000, $set), $loop->(200000, $set));
	# In one statement.
	$stays->('200,000 kv_get in one statement', q{SELECT count(kv_get('key:' || i % 1000)) FROM generate_series(1, 10000) i}, q{SELECT count(kv_get('key:' || i % 1000)) FROM generate_series(1, 200000) i});
	# Everything else, and errors that are caught.
	my $mixed = q{
		PERFORM kv_set(kv_key('users', i % 100), '1', if_version => 0);
		PERFORM kv_get_bytes(kv_key('none', i)), kv_exists(kv_key('users', i % 100)), kv_expire('key:1', '1 hour'), kv_count('key:99');
		PERFORM * FROM kv_entry(kv_key('users', i % 100)); PERFORM * FROM kv_list('key:99', page_size => 5); PERFORM * FROM kv_get_many(ARRAY['key:1', 'key:2', 'none']);
		PERFORM kv_import('{"imported": {"value": 1}}'), kv_export('imported');
		IF i % 7 = 0 THEN PERFORM kv_take(kv_key('users', i % 100)); ELSE PERFORM kv_delete(kv_key('users', i % 100)); END IF;
		BEGIN PERFORM kv_set('key', '1', ttl => '-1 s'); EXCEPTION WHEN OTHERS THEN END;
		BEGIN PERFORM kv_get('key', 'nowhere'); EXCEPTION WHEN OTHERS THEN END};
	$stays->('20,000 of everything', $loop->(1000, $mixed), $loop->(20000, $mixed));
	# Each in a transaction of its own, through the protocol.
	my $singles = sub { join("\n", map { "SELECT kv_set('key:$_', '1') > 0; SELECT kv_get('key:$_');" } 1 .. $_[0]) };
	$stays->('2,000 single statements', $singles->(200), $singles->(2000));

	# Lists and counts of 1,000,000 entries: at most work_mem and 10 MB, at their highest.
	SKIP:
	{
		my $peak = sub {
			my ($statement) = @_;
			append_to_file("/proc/$pid/clear_refs", '5');
			my ($start) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
			is($session->query_safe($statement), '1000000', $statement);
			my ($high) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;
			my ($shared) = slurp_file("/proc/$pid/status") =~ /^RssShmem:\s+(\d+) kB/m;
			my ($file) = slurp_file("/proc/$pid/status") =~ /^RssFile:\s+(\d+) kB/m;
			return $high - $shared - $file - $start;
		};
		skip 'no clear_refs here', 1 unless -w "/proc/$pid/clear_refs";
		for my $statement (q{SELECT count(*) FROM kv_list('', store => 'new')}, q{SELECT count(*) FROM kv_list(kv_key(), reverse => true, store => 'new')}, q{SELECT kv_count('', 'new')})
		{
			my $grown = $peak->($statement);
			cmp_ok($grown, '<=', (4 + 10) * 1024, "within work_mem and 10 MB (grew by $grown kB)");
		}
	}
}
$session->quit;
$node->stop;

done_testing();
