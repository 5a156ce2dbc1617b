# What the TAP tests share.
#
# kvs_node(NAME, preload => 1, conf => TEXT): a started server of its own (PostgreSQL::Test::Cluster), with kvstore
# preloaded unless preload => 0.
#
# kvs_outcome(NODE, SQL, DATABASE): what a statement gives, or "ERROR" with its SQLSTATE and message in one line.
package KvsTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;

our @EXPORT = qw(kvs_node kvs_outcome);

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

sub kvs_outcome
{
	my ($node, $sql, $database) = @_;
	my ($status, $out, $err) = $node->psql($database // 'postgres', "\\set VERBOSITY verbose\n$sql");

	return $out if $status == 0;
	return $err =~ /^.*?ERROR:  (\w{5}): (.*)$/m ? "ERROR $1: $2" : $err;
}

1;
