# A session that goes on while others drop the extension and create it again: what it remembers is of tables, types and functions that are gone.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

# Most of what there is, once; a line each.
my $use = <<'SQL';
SELECT 'stores', kv_create_store() IS NOT NULL, kv_create_snapshot_store() IS NOT NULL;
EXECUTE got('a');
SELECT 'set', kv_set('a', '1') > 0, kv_set('p1', '2') > 0, kv_set(kv_key('users', 1), '3') > 0;
EXECUTE got('a');
EXECUTE listed('p');
SELECT 'path', kv_get(kv_key('users', 1)), (SELECT count(*) FROM kv_list(kv_key('users')));
SELECT 'prefix', kv_delete_prefix('p');
SELECT 'expiry', kv_set('t', '1', ttl => '1 hour') > 0, kv_incr('n');
SELECT 'atomic', ok FROM kv_atomic('[{"set": {"key": "at", "value": 1}}]');
SELECT 'snapshot', count(*) FROM kv_snapshot_append('context', '{"a": 1}');
SQL
my $preloaded = <<'SQL';
SELECT 'queue', kv_create_queue('q') IS NOT NULL;
EXECUTE sent;
EXECUTE received;
EXECUTE sent;
CALL kv_wait_queue('q', '1 minute');
SELECT 'watch', count(*) FROM kv_watch('{a}', wait => '0');
SELECT 'counted', gets FROM pg_stat_kvstore WHERE store = 'default';
SQL
my $said = "stores|t|t\ngot|\nset|t|t|t\ngot|1\nlisted|p1\npath|3|1\nprefix|1\nexpiry|t|1\natomic|t\nsnapshot|1\n";
my $said_preloaded = "queue|t\nsent|t\nreceived|t\nsent|t\nwatch|1\ncounted|4\n";

for my $preload (1, 0)
{
	my $how = $preload ? 'with preload' : 'without preload';
	my $node = kvs_node("recreate$preload", preload => $preload, conf => "fsync = off\n");
	my $other = 'psql -X -q -d "' . $node->connstr('postgres') . '" -c "SET client_min_messages = error"';
	my $all = $preload ? $use . $preloaded : $use;
	my $expected = $preload ? $said . $said_preloaded : $said;

	$node->safe_psql('postgres', 'CREATE EXTENSION kvstore');
	my ($status, $out, $err) = $node->psql(
		'postgres', qq{
PREPARE got AS SELECT 'got', kv_get(\$1);
PREPARE listed AS SELECT 'listed', key FROM kv_list(\$1);
PREPARE sent AS SELECT 'sent', kv_enqueue('q', '1') > 0;
PREPARE received AS SELECT 'received', kv_ack(receipt) FROM kv_dequeue('q');
\\set VERBOSITY sqlstate
$all
\\echo ---- dropped
\\! $other -c "DROP EXTENSION kvstore CASCADE"
$all
\\echo ---- created
\\! $other -c "DROP SCHEMA IF EXISTS kvstore CASCADE" -c "CREATE EXTENSION kvstore"
\\warn ---- created
$all}, on_error_stop => 0);
	my ($before, $dropped, $created) = split /---- \w+\n/, "$out\n";
	my ($while_gone, $afterwards) = split /---- \w+\n?/, $err;
	is($before, $expected, "$how: at first");
	is($dropped, '', "$how: without the extension nothing has a result");
	my $missing = () = $while_gone =~ /ERROR:  (?:42883|42P01)$/mg;
	my $statements = () = $all =~ /^(?:SELECT|EXECUTE|CALL)/mg;
	is($missing, $statements, "$how: each says what does not exist") or diag($while_gone);
	is($created, $expected, "$how: with the new extension all is as at first");
	is($afterwards, '', "$how: and nothing fails") or diag($afterwards);
	$node->stop;
}
done_testing();
