# With the real pg_cron: a schedule sends messages; where kvstore is not preloaded, pg_cron calls kv_maintain().  pg_cron runs jobs once a minute at most, so
# this takes up to two.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use KvsTest;

chomp(my $dir = `pg_config --sharedir`);
plan skip_all => 'there is no pg_cron here' unless -e "$dir/extension/pg_cron.control";

my $conf = "cron.database_name = 'postgres'\ncron.use_background_workers = on\nmax_worker_processes = 20\n";
my $node = kvs_node('cron', preload => 0, conf => "shared_preload_libraries = 'kvstore, pg_cron'\n$conf");
my $plain = kvs_node('plain', preload => 0, conf => "shared_preload_libraries = 'pg_cron'\n$conf");

# ---- Without pg_cron in the database ----

$node->safe_psql('postgres', q{CREATE EXTENSION kvstore; SELECT kv_create_queue('reports'); CREATE ROLE nobody; CREATE ROLE sender LOGIN});
my ($status, $out, $err) = $node->psql('postgres', q{SELECT kv_schedule('a', '* * * * *', 'reports', '1')}, on_error_stop => 0);
like($err, qr/ERROR:  schedules need the extension pg_cron in this database\nHINT:  Install its package \(Debian: postgresql-\d+-cron\), put pg_cron into shared_preload_libraries and cron\.database_name = 'postgres'.*CREATE EXTENSION pg_cron\./,
	'without it the error says what to do');
like(kvs_outcome($node, q{SELECT kv_unschedule('a')}), qr/^ERROR 55000/, 'the same for unscheduling');
is($node->safe_psql('postgres', 'SELECT count(*) FROM kv_schedules'), '0', 'there are no schedules');

# ---- With it ----

$node->safe_psql('postgres', 'CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO sender; GRANT INSERT ON kvstore.q_reports TO sender');
for my $bad (
	[ q{kv_schedule('a', '* * * * *', 'none', '1')}, qr/^ERROR 42P01: queue "none" does not exist/ ],
	[ q{kv_schedule('a', '* * * * *', 'Bad name', '1')}, qr/^ERROR 22023/ ],
	[ q{kv_schedule('a', 'every day', 'reports', '1')}, qr/^ERROR \w{5}: .*schedule/ ],
	[ q{kv_schedule(repeat('a', 49), '* * * * *', 'reports', '1')}, qr/^ERROR 22023/ ],
	[ q{kv_schedule('a', '* * * * *', 'reports', NULL)}, qr/^ERROR 22004/ ])
{
	like(kvs_outcome($node, "SELECT $bad->[0]"), $bad->[1], $bad->[0]);
}
like(kvs_outcome($node, q{SET ROLE nobody; SELECT kv_schedule('a', '* * * * *', 'reports', '1')}), qr/^ERROR 42501/, 'a role without rights cannot schedule');
my $payload = q{{"it's": "a \\\\ \"quote\" $1 %s", "n": [1, null]}};
cmp_ok($node->safe_psql('postgres', qq{SELECT kv_schedule('nightly', '0 3 * * *', 'reports', '{"old": true}'); SELECT kv_schedule('nightly', '* * * * *', 'reports', \$p\$$payload\$p\$)}), '>', 0, 'a schedule is made, and replaced');
$node->safe_psql('postgres', q{SELECT kv_schedule('mine', '* * * * *', 'reports', '"from sender"')}, extra_params => [ '-U', 'sender' ]);
is($node->safe_psql('postgres', qq{SELECT name, cron, queue, payload = \$p\$$payload\$p\$, active FROM kv_schedules WHERE name = 'nightly'}), 'nightly|* * * * *|reports|t|t', 'the view shows it');
is($node->safe_psql('postgres', 'SELECT string_agg(name, \',\') FROM kv_schedules', extra_params => [ '-U', 'sender' ]), 'mine', 'to others only their own');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cron.job}), '2', 'a schedule of a name is one');
is($node->safe_psql('postgres', q{SET ROLE nobody; SELECT count(*) FROM kv_schedules}), '0', 'nobody sees none');

# Without preload: an entry and a snapshot that expired wait for pg_cron.
$plain->safe_psql('postgres', q{
	CREATE EXTENSION kvstore; CREATE EXTENSION pg_cron; SELECT kv_create_store(), kv_create_snapshot_store();
	SELECT kv_set('a', '1', ttl => '0'), kv_set('b', '1'), kv_snapshot_append('c', '1', ttl => '0')});
is($plain->safe_psql('postgres', 'SELECT (SELECT count(*) FROM kvstore.s_default), (SELECT count(*) FROM kvstore.p_default)'), '2|1', 'without preload expired rows stay');
$plain->safe_psql('postgres', q{SELECT cron.schedule('kvstore maintenance', '* * * * *', 'SELECT kv_maintain()')});

# Until a query gives "t", for up to three minutes.
sub comes
{
	my ($where, $query) = @_;
	my $start = time;

	usleep(300_000) until $where->safe_psql('postgres', $query) eq 't' || time - $start > 180;
	return $where->safe_psql('postgres', $query) eq 't';
}
ok(comes($plain, 'SELECT (SELECT count(*) FROM kvstore.s_default) = 1 AND (SELECT count(*) FROM kvstore.p_default) = 0'), 'pg_cron runs kv_maintain()');
ok(comes($node, q{SELECT count(DISTINCT payload) = 2 FROM kvstore.q_reports}), 'pg_cron sends the messages');
is($node->safe_psql('postgres', qq{SELECT payload = \$p\$$payload\$p\$ FROM kvstore.q_reports WHERE payload <> '"from sender"' LIMIT 1}), 't', 'as they were given');

# With a dedupe_key one waits at most, however late the consumers are.
$node->safe_psql('postgres', q{SELECT kv_schedule('once', '0 3 * * *', 'reports', '"o''nce"', dedupe_key => 'it''s')});
my $command = $node->safe_psql('postgres', q{SELECT command FROM cron.job WHERE jobname = 'kvstore:once'});
$node->safe_psql('postgres', "$command; $command");
is($node->safe_psql('postgres', q{SELECT count(*), min(payload #>> '{}') FROM kvstore.q_reports WHERE dedupe_key = 'it''s'}), "1|o'nce", 'one message of a schedule with a dedupe_key');
is($node->safe_psql('postgres', q{SELECT queue, payload FROM kv_schedules WHERE name = 'once'}), qq{reports|"o'nce"}, 'and the view shows it');
is($node->safe_psql('postgres', q{SELECT kv_unschedule('once')}), 't', 'it ends');

# ---- The end of a schedule ----

is($node->safe_psql('postgres', q{SELECT kv_unschedule('nightly'), kv_unschedule('nightly'), kv_unschedule('mine')}), 't|f|f', 'a schedule is ended once, and by its owner');
is($node->safe_psql('postgres', q{SELECT string_agg(name, ',') FROM kv_schedules}), 'mine', 'the other goes on');
is($node->safe_psql('postgres', q{SELECT kv_unschedule('mine')}, extra_params => [ '-U', 'sender' ]), 't', 'until its owner ends it');
$node->stop;
$plain->stop;

done_testing();
