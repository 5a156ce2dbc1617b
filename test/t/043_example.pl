# The example of a cache that is never stale runs: two clients, and what one saves the other one has at once.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $example = "$FindBin::RealBin/../../examples/cache.py";
my $python = '/usr/bin/python3';

plan skip_all => 'there is no examples/cache.py here' unless -r $example;
plan skip_all => 'python3-psycopg2 is not installed' if system("$python -c 'import psycopg2' 2>/dev/null") != 0;

my $node = kvs_node('example');
$node->safe_psql('postgres', 'CREATE EXTENSION kvstore');
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PGDATABASE} = 'postgres';
my ($out, $err);
my $ok = IPC::Run::run([ $python, $example ], '>', \$out, '2>', \$err, IPC::Run::timeout(120));
ok($ok, 'examples/cache.py runs') or diag("$out$err");
like($out, qr/^pod 2 has started and knows: first$/m, 'the second client has listed');
my ($median) = $out =~ /pod 2 had it in ([\d.]+) ms/;
cmp_ok($median // 999, '<', 100, 'what one saves the other one has at once: ' . ($median // '-') . ' ms (a machine with time to spare: below 1)');
like($out, qr/^after pod 1 has deleted all, pod 2 knows: \{\}$/m, 'and a deleted prefix is gone there too');
$node->stop;

done_testing();
