# The probes in doc/operations.md: they are YAML that Kubernetes would take, and their commands tell what they should.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use YAML::PP;

use KvsTest;

my $file = "$FindBin::RealBin/../../doc/operations.md";
plan skip_all => 'there is no doc/operations.md here' unless -r $file;
my ($yaml) = slurp_file($file) =~ /^```yaml\n(startupProbe:.*?)^```/ms;
my $probes = YAML::PP->new->load_string($yaml);

is_deeply([ sort keys %$probes ], [ 'readinessProbe', 'startupProbe' ], 'both probes are there');
for my $probe (values %$probes)
{
	is_deeply([ sort keys %$probe ], [qw(exec failureThreshold periodSeconds timeoutSeconds)], 'with the fields of a probe');
	is(ref $probe->{exec}{command}, 'ARRAY', 'and a command of several words');
	is(scalar(grep { ref || !/\S/ } @{ $probe->{exec}{command} }), 0, 'which are strings');
	like("$probe->{periodSeconds} $probe->{failureThreshold} $probe->{timeoutSeconds}", qr/^\d+ \d+ \d+$/, 'and numbers');
}

my $node = kvs_node('probes', init => { allows_streaming => 1 });
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PGDATABASE} = 'postgres';

# "ok" or "fails" for each probe
sub outcomes
{
	my $result = '';

	for my $name ('startupProbe', 'readinessProbe')
	{
		my ($out, $err);

		$result .= IPC::Run::run($probes->{$name}{exec}{command}, '>', \$out, '2>', \$err) ? ' ok' : ' fails';
	}
	return $result =~ s/^ //r;
}

is(outcomes(), 'ok fails', 'without the extension the server has started, and is not ready');
$node->safe_psql('postgres', 'CREATE EXTENSION kvstore');
ok($node->poll_query_until('postgres', 'SELECT worker_running FROM kv_health()'), 'the launcher runs');
is(outcomes(), 'ok ok', 'with it, it is');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
is(outcomes(), 'ok ok', 'degraded is ready');
$node->stop;
is(outcomes(), 'fails fails', 'stopped is nothing');
$node->set_standby_mode;
$node->start;
is(outcomes(), 'ok fails', 'a standby is not ready for pods that write');
$node->stop;

done_testing();
