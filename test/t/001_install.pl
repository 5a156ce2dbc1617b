# The extension can be created, dropped and created again, with kvstore preloaded and without, also within one session; and it works behind other libraries.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

for my $preload (1, 0)
{
	my $how = $preload ? 'with preload' : 'without preload';
	my $node = kvs_node($preload ? 'preload' : 'noload', preload => $preload);
	my $installed = "SELECT count(*) FROM pg_extension WHERE extname = 'kvstore'";

	is($node->safe_psql('postgres', 'SHOW shared_preload_libraries'), $preload ? 'kvstore' : '', "$how: server started");

	$node->safe_psql('postgres', 'CREATE EXTENSION kvstore');
	is($node->safe_psql('postgres', $installed), '1', "$how: created");

	$node->safe_psql('postgres', 'DROP EXTENSION kvstore');
	is($node->safe_psql('postgres', $installed), '0', "$how: dropped");

	is($node->safe_psql('postgres', "CREATE EXTENSION kvstore; DROP EXTENSION kvstore; CREATE EXTENSION kvstore; $installed"),
		'1', "$how: created, dropped and created in one session");

	$node->restart;
	is($node->safe_psql('postgres', $installed), '1', "$how: there after a restart");
	$node->stop;
}

# Behind another library that hooks into the same places, as most servers have one: each passes on to the other.
SKIP:
{
	chomp(my $libraries = `pg_config --pkglibdir`);
	skip 'this PostgreSQL has no pg_stat_statements', 2 unless -e "$libraries/pg_stat_statements.so";
	my $node = kvs_node('behind', preload => 0, conf => "shared_preload_libraries = 'pg_stat_statements, kvstore'\n");

	is($node->safe_psql('postgres', q{CREATE EXTENSION pg_stat_statements; CREATE EXTENSION kvstore; SELECT kv_create_store();
		SELECT kv_set('a', '1') > 0; SELECT versionstamp > 0 FROM kv_watch('{a}', '{0}')}), "kvstore.s_default\nt\nt", 'behind pg_stat_statements: works');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_statements WHERE query LIKE 'SELECT kv_set(%'}), '1', 'behind pg_stat_statements: which works, too');
	$node->stop;
}

done_testing();
