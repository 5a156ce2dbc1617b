# The extension can be created, dropped and created again, with kvstore preloaded and without, also within one session.
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

done_testing();
