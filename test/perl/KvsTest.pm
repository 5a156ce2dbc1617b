# What the TAP tests share.
#
# kvs_node(NAME, preload => 1, conf => TEXT): a started server of its own (PostgreSQL::Test::Cluster), with kvstore
# preloaded unless preload => 0.
package KvsTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;

our @EXPORT = qw(kvs_node);

sub kvs_node
{
	my ($name, %args) = @_;
	my $preload = $args{preload} // 1;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%{ $args{init} // {} }, extra => [ '-E', 'UTF8', '--no-locale', @{ $args{initdb} // [] } ]);
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'kvstore'") if $preload;
	$node->append_conf('postgresql.conf', $args{conf}) if defined $args{conf};
	$node->start;
	return $node;
}

1;
