# pg_upgrade takes everything along; ALTER EXTENSION UPDATE from an older version, made up here, with data and with sessions that go on.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $fill = q{
	CREATE EXTENSION kvstore;
	SELECT kv_create_store(default_ttl => '1 day'), kv_create_store('other', unlogged => true), kv_create_snapshot_store(default_ttl => '7 days'), kv_create_queue('mail', lease => '1 min');
	SELECT count(kv_set(kv_key('n', i), to_jsonb(i), expires_at => 'infinity')) FROM generate_series(1, 1000) i;
	SELECT kv_set_bytes('bytes', '\x00ff', ttl => '2 h'), kv_set('other', '1', store => 'other'), kv_set('gone', '1');
	SELECT kv_delete('gone');
	SELECT count(kv_snapshot_append('c', jsonb_build_object('step', i, 'text', repeat(md5(i::text), 200)))) FROM generate_series(1, 20) i;
	SELECT count(kv_enqueue('mail', to_jsonb(i), priority => i % 3, dedupe_key => 'd' || i)) FROM generate_series(1, 20) i;
	SELECT kv_nack(receipt, dead => true, error => 'no') FROM kv_dequeue('mail');
	CREATE INDEX by_value ON kvstore.s_default ((value::text));
	CREATE ROLE reader; GRANT SELECT ON kvstore.s_default TO reader};
my $contents = q{
	SELECT s FROM kvstore.s_default s ORDER BY key;
	SELECT s FROM kvstore.s_other s;
	SELECT p FROM kvstore.p_default p ORDER BY seq;
	SELECT q FROM kvstore.q_mail q ORDER BY id;
	SELECT d FROM kvstore.d_mail d ORDER BY id;
	SELECT store, owner, unlogged, default_ttl FROM kv_stores ORDER BY 1;
	SELECT store, default_ttl FROM kv_snapshot_stores;
	SELECT queue, lease FROM kv_queues;
	SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'kvstore' ORDER BY 1;
	SELECT oid::regclass, relacl FROM pg_class WHERE relnamespace = 'kvstore'::regnamespace ORDER BY relname;
	SELECT (SELECT extversion FROM pg_extension WHERE extname = 'kvstore'), (SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'kvstore'));
	SELECT kv_get(kv_key('n', 500)), kv_get_bytes('bytes'), kv_count(kv_key()), (SELECT state -> 'step' FROM kv_snapshot_latest('c'))};

# ---- pg_upgrade ----

my $old = kvs_node('old');
$old->safe_psql('postgres', 'CREATE DATABASE data');
$old->safe_psql('data', $fill);
my $highest = $old->safe_psql('data', q{SELECT kv_set('last', '1')});
$old->safe_psql('data', q{SELECT kv_delete('last')});
my $before = $old->safe_psql('data', $contents);
$old->stop;

my $new = kvs_node('new');
$new->stop;
chomp(my $bin = `pg_config --bindir`);
# It leaves files in the folder where it runs.
chdir ${PostgreSQL::Test::Utils::tmp_check};
command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin, '-s', $new->host, '-p', $old->port, '-P', $new->port ], 'pg_upgrade');
unlike(slurp_file($new->logfile), qr/kvstore\.state/, 'no counts of the other cluster are looked at');
$new->start;
is($new->safe_psql('data', $contents), $before, 'everything is there');
cmp_ok($new->safe_psql('data', q{SELECT kv_set('last', '1')}), '>', $highest, 'new versionstamps are above those given before');
is($new->safe_psql('data', q{SELECT payload FROM kv_dequeue('mail')}), '5', 'messages are delivered');
is($new->safe_psql('data', q{SELECT kv_snapshot_append('c', '"new"', hash => 'new'); SELECT hash FROM kv_snapshot_latest('c')}), "new\nnew", 'snapshots go on');
is($new->safe_psql('data', q{SELECT kv_set('soon', '1', ttl => '0.1 s') > 0}), 't', 'an entry that expires');
ok($new->poll_query_until('data', q{SELECT NOT EXISTS (SELECT FROM kvstore.s_default WHERE expires_at < now())}), 'is swept by the worker');
is($new->safe_psql('data', q{SELECT status FROM kv_health()}), 'ok', 'all is well');
$new->stop;

# ---- ALTER EXTENSION UPDATE ----

# An older version: without some functions, and with another view.  The library is the new one, as after an upgrade of the package.
chomp(my $dir = `pg_config --sharedir`);
$dir .= '/extension';
SKIP:
{
	skip "cannot write to $dir", 1 unless -w $dir;

	my ($version) = slurp_file("$dir/kvstore.control") =~ /default_version = '(.*?)'/;
	my $script = slurp_file("$dir/kvstore--$version.sql");
	my $update = '';
	for my $name ('kv_take', 'kv_metrics_prometheus', 'kv_snapshot_stats')
	{
		$update .= $1 while $script =~ s/^(CREATE FUNCTION $name\(.*?^(?:\$\$|    LANGUAGE c[^;]*);\nCOMMENT ON FUNCTION $name\(.*?;\n)//ms;
	}
	$script =~ s/^CREATE VIEW kv_snapshot_stores AS(.*?)^GRANT/CREATE VIEW kv_snapshot_stores AS SELECT NULL::text AS store;\nGRANT/ms or die;
	$update .= "DROP VIEW kv_snapshot_stores;\nCREATE VIEW kv_snapshot_stores AS$1GRANT SELECT ON kv_snapshot_stores TO PUBLIC;\n";
	append_to_file("$dir/kvstore--0.0.1.sql", $script);
	append_to_file("$dir/kvstore--0.0.1--$version.sql", $update);

	my $node = kvs_node('update');
	$node->safe_psql('postgres', "CREATE EXTENSION kvstore VERSION '0.0.1'");
	$node->safe_psql('postgres', $fill =~ s/CREATE EXTENSION kvstore;//r);
	is(kvs_outcome($node, "SELECT kv_take('bytes')"), 'ERROR 42883: function kv_take(unknown) does not exist', 'the older version lacks something');
	like($node->safe_psql('postgres', 'SELECT status, reason FROM kv_health()'), qr/^degraded\|the library is \Q$version\E, the extension 0\.0\.1: ALTER EXTENSION kvstore UPDATE/, 'kv_health() tells');

	my $data = "SELECT (SELECT string_agg(s::text, ',' ORDER BY key) FROM kvstore.s_default s), (SELECT string_agg(p::text, ',' ORDER BY seq) FROM kvstore.p_default p), (SELECT string_agg(q::text, ',' ORDER BY id) FROM kvstore.q_mail q)";
	my $stored = $node->safe_psql('postgres', $data);
	my $session = $node->background_psql('postgres');
	SKIP:
	{
		skip 'no background session in this version of the test modules', 3 unless $session->can('query_safe');
		is($session->query_safe("PREPARE g AS SELECT kv_get(kv_key('n', 7)); EXECUTE g"), '7', 'a session uses the older version');
		$session->query_safe("SELECT kv_set('live', '1') > 0");
		$node->safe_psql('postgres', "SELECT kv_delete('live')");
		$node->safe_psql('postgres', 'ALTER EXTENSION kvstore UPDATE');
		is($session->query_safe('EXECUTE g'), '7', 'and goes on over ALTER EXTENSION UPDATE');
		is($session->query_safe("SELECT kv_set('live', '\"after\"') > 0; SELECT kv_take('live')"), "t\n\"after\"", 'with what is new');
	}
	$session->quit;
	$node->safe_psql('postgres', 'ALTER EXTENSION kvstore UPDATE');
	is($node->safe_psql('postgres', $data), $stored, 'data are as they were');
	is($node->safe_psql('postgres', 'SELECT store, default_ttl FROM kv_snapshot_stores'), 'default|7 days', 'the view is the new one');
	is($node->safe_psql('postgres', 'SELECT status FROM kv_health()'), 'ok', 'all is well');

	# What an update leaves must be what a new installation has.
	$node->safe_psql('postgres', 'CREATE DATABASE fresh');
	$node->safe_psql('fresh', 'CREATE EXTENSION kvstore');
	my $members = q{SELECT string_agg(pg_describe_object(classid, objid, 0), E'\n' ORDER BY pg_describe_object(classid, objid, 0)) FROM pg_depend WHERE deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'kvstore')};
	is($node->safe_psql('postgres', $members), $node->safe_psql('fresh', $members), 'members are those of a new extension');
	$node->stop;
	unlink "$dir/kvstore--0.0.1.sql", "$dir/kvstore--0.0.1--$version.sql";
}

done_testing();
