# Counts: they are right, are reset, survive a clean restart and nothing else, forget what is gone.  Metrics: Prometheus's own promtool takes them and the alert
# rules; the collector file asks for what there is.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use YAML::PP;

use KvsTest;

my $node = kvs_node('metrics', init => { allows_streaming => 1 });
my $promtool = $ENV{KVS_PROMTOOL};
my $file = $node->data_dir . '/pg_stat/kvstore.state';

sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]); }
my $counts = 'SELECT store, gets, hits, lists, sets, deletes, conflicts, expired FROM pg_stat_kvstore WHERE store = \'default\'';
my $sum = 'SELECT COALESCE(sum(gets + hits + lists + sets + deletes + conflicts + expired), 0) FROM pg_stat_kvstore';
my $errors = q{SELECT string_agg(counter || '=' || count, ' ' ORDER BY counter) FROM kvstore.stat_counts() WHERE relid = 0 AND count > 0};

# What promtool says about the metrics of a database.
sub lint
{
	my ($name, $database) = @_;
	my $text = sql('SELECT kv_metrics_prometheus()', $database) . "\n";
	my ($out, $err) = ('', '');

  SKIP:
	{
		skip 'no promtool here', 1 unless $promtool;
		ok(IPC::Run::run([ $promtool, 'check', 'metrics' ], '<', \$text, '>', \$out, '2>', \$err) && $out . $err eq '', "promtool takes the metrics $name")
		  || diag($out, $err, $text);
	}
	return $text;
}

# ---- What is counted ----

sql('CREATE EXTENSION kvstore; CREATE ROLE nobody');
lint('of an empty database');
sql("SELECT kv_create_store(); SELECT kv_create_store('other'); SELECT kv_create_snapshot_store(); SELECT kv_create_queue('mail'); SELECT kv_enqueue('mail', '1')");
sql(q{
	SELECT kv_set('secret-key', '1'), kv_set('b', '2'), kv_set('b', '3', if_version => 1000000);
	SELECT kv_get('secret-key'), kv_get('none'), kv_exists('b');
	SELECT count(*) FROM kv_list('');
	SELECT kv_delete('b');
	SELECT kv_set('gone', '1', ttl => '0')});
ok($node->poll_query_until('postgres', q{SELECT expired = 1 FROM pg_stat_kvstore WHERE store = 'default'}), 'what was swept is counted');
# a session that has ended counts until it is gone
ok($node->poll_query_until('postgres', $counts, 'default|3|2|1|3|1|1|1'), 'counts of a store');
is(sql("SELECT swept > 0, since <= now() FROM pg_stat_kvstore WHERE store = 'default'"), 't|t', 'sweeps, too');
for my $bad ("SELECT kv_get('a', 'no_such_store')", "SELECT kv_get_bytes('secret-key')", "SELECT kv_get('secret-key'), 1 / (random() * 0)::int", "SELECT 1 / 0", "SET ROLE nobody; SELECT kv_get('a')",
	"SELECT kv_snapshot_append('c', '1', keep => 0)", "SELECT kv_check('secret-key', 5)")
{
	$node->psql('postgres', $bad);
}
is(sql($errors), '22=2 42=2 KV=2', 'errors of statements that use kvstore are counted by class, others are not');
$node->psql('postgres', "DO \$\$ BEGIN PERFORM kv_get('a', 'nowhere'); EXCEPTION WHEN undefined_table THEN NULL; END \$\$");
is(sql($errors), '22=2 42=2 KV=2', 'one that is caught is none');
sql('CREATE DATABASE second');
sql("CREATE EXTENSION kvstore; SELECT kv_create_store(); SELECT kv_set('a', '1')", 'second');
is(sql($counts, 'second'), 'default|0|0|0|1|0|0|0', 'another database has counts of its own');
is(sql($counts), 'default|5|3|1|3|1|2|1', 'and does not change ours');

# ---- Metrics ----

my $text = lint('of stores');
like($text, qr/^kvstore_sets_total\{store="default"\} 3$/m, 'a counter of a store');
like($text, qr/^kvstore_sets_total\{store="other"\} 0$/m, 'a store that nobody has used has zeros');
like($text, qr/^kvstore_queue_enqueued_total\{queue="mail"\} 1$/m, 'a counter of a queue');
like($text, qr/^kvstore_errors_total\{class="22"\} 2$/m, 'errors by class');
like($text, qr/^kvstore_(healthy|preloaded|worker_running) 1$/m, 'health');
unlike($text, qr/secret/, 'no key');
unlike($text, qr/^kvstore_(?!\w+(\{(store|queue|class|version|what)="\w[\w.]*"\})? [-\d.e]+$)/m, 'every sample has at most the labels store, queue, class, version, what');
is(sql(q{SELECT m -> 'sets_total' ->> 'default', m -> 'stores', m ->> 'healthy', jsonb_typeof(m -> 'errors_total') FROM kv_metrics() m}), '3|2|1|object', 'the same as JSON');
is(sql('SET ROLE nobody; SELECT kv_metrics() IS NOT NULL'), 't', 'everybody may see them');
# A table that is no store of ours, with a name made to break the format.
sql(q{CREATE TABLE kvstore."s_odd""\\name
x" (key kvkey)});
like(lint('with an odd name'), qr/store="odd\\"\\\\name\\nx"/, 'names are quoted');
sql(q{DROP TABLE kvstore."s_odd""\\name
x"});
is(sql(q{SELECT count(*) FROM (SELECT metric, label_value FROM kvstore.metrics() GROUP BY 1, 2 HAVING count(*) > 1) d}), '0', 'no sample is there twice');

# ---- Alert rules and the collector file ----

my $extras = "$FindBin::RealBin/../../extras";
SKIP:
{
	skip 'no extras here', 1 unless -d $extras;
	my $rules = YAML::PP->new->load_file("$extras/kvstore.rules.yml");
	my %known = map { $_ => 1 } split /\n/, sql('SELECT DISTINCT metric FROM kvstore.metrics()');
	my @used = map { $_->{expr} =~ /\b(kvstore_\w+)/g } map { @{ $_->{rules} } } @{ $rules->{groups} };

	cmp_ok(scalar @used, '>', 3, 'rules use metrics');
	is(join(' ', grep { !$known{$_} } @used), '', 'that exist');
	if ($promtool)
	{
		my ($out, $err);

		ok(IPC::Run::run([ $promtool, 'check', 'rules', "$extras/kvstore.rules.yml" ], '>', \$out, '2>', \$err), 'promtool takes the rules') || diag($out, $err);
	}

	my $collector = YAML::PP->new->load_file("$extras/kvstore.collector.yml");
	my %columns;

	for my $query (@{ $collector->{queries} })
	{
		my $names = sql("CREATE TEMP VIEW q AS $query->{query}; SELECT string_agg(attname, ' ') FROM pg_attribute WHERE attrelid = 'q'::regclass");

		$columns{ $query->{query_name} } = { map { $_ => 1 } split / /, $names };
		ok(defined sql($query->{query}), "query $query->{query_name}");
	}
	my @missing;
	for my $metric (@{ $collector->{metrics} })
	{
		push @missing, grep { !$columns{ $metric->{query_ref} }{$_} } @{ $metric->{values} }, @{ $metric->{key_labels} // [] };
		my $described = sql("SELECT DISTINCT type || ': ' || help FROM kvstore.metrics() WHERE metric = '$metric->{metric_name}'");

		is("$metric->{type}: $metric->{help}", $described, "$metric->{metric_name} is described as in kv_metrics_prometheus()");
	}
	is("@missing", '', 'metrics use columns that their queries have');
}

# ---- Restarts ----

my $before = sql($counts);
$node->stop;
ok(-f $file, 'a clean stop leaves a file');
is((stat $file)[2] & 07777, 0600, 'which nobody else can read');
$node->start;
ok(!-e $file, 'the start takes it away');
is(sql($counts), $before, 'counts survive a clean restart');
is(sql($errors), '22=2 42=2 KV=2', 'errors, too');
is(sql($counts, 'second'), 'default|0|0|0|1|0|0|0', 'in every database');
sql("SELECT kv_get('secret-key')");
$node->stop('immediate');
ok(!-e $file, 'an immediate stop leaves none');
$node->start;
is(sql($sum), '0', 'after it counting begins anew');
unlike(slurp_file($node->logfile), qr/kvstore\.state/, 'and nothing is logged about files');

# A bad file is a line in the log, and the server starts with nothing.
my $contents;
sub restart_with_file
{
	my ($name, $message, $change) = @_;
	my $from = -s $node->logfile;

	sql("SELECT kv_set('a', '1')");
	$node->stop;
	$contents = slurp_file($file);
	my $changed = $change->($contents);
	open my $out, '>:raw', $file or die $!;
	print $out $changed;
	close $out;
	$node->start;
	like(slurp_file($node->logfile, $from), qr/LOG:  kvstore: file "pg_stat\/kvstore\.state" is ignored: $message/, "$name: a line in the log");
	is(sql($sum), '0', "$name: nothing is taken from it");
	ok(!-e $file, "$name: it is gone");
}
restart_with_file('a changed byte', 'its checksum is wrong', sub { my $c = $_[0]; substr($c, 100, 1) ^= "\x01"; return $c; });
restart_with_file('a truncated file', 'its checksum is wrong', sub { substr($_[0], 0, 150) });
restart_with_file('an empty file', 'it is too short', sub { '' });
my $old = $contents;

# The checksum is right, but a section is not what this version of the library reads: the section is lost, and nothing else.
sub crc32c
{
	my $crc = 0xFFFFFFFF;

	for my $byte (unpack 'C*', $_[0])
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0x82F63B78 : $crc >> 1 for 1 .. 8;
	}
	return $crc ^ 0xFFFFFFFF;
}
sql("SELECT kv_set('a', '1')");
$node->stop;
$contents = substr slurp_file($file), 0, -4;
is(unpack('N', substr slurp_file($file), -4), crc32c($contents), 'the checksum is a CRC-32C');
$contents =~ s/(statistics\0....)..../$1\x7F\xFF\xFF\xFF/s or die;
open my $out, '>:raw', $file or die $!;
print $out $contents, pack 'N', crc32c($contents);
close $out;
my $start = -s $node->logfile;
$node->start;
like(slurp_file($node->logfile, $start), qr/LOG:  kvstore: "statistics" in file "pg_stat\/kvstore\.state" is ignored: /, 'a section that cannot be read: a line in the log');
is(sql($sum), '0', 'nothing is taken from it');
is(kvs_outcome($node, q{SET statement_timeout = '100 ms'; SELECT pg_sleep(20)}), 'ERROR 57014: canceling statement due to statement timeout', 'and sessions can be interrupted');

restart_with_file('the file of an earlier stop', 'it is not from the last shutdown of this cluster', sub { $old });
sql("SELECT kv_set('a', '1')");
$node->stop;
rename $file, "$file.kept" or die $!;
$node->start;
$node->stop('immediate');
rename "$file.kept", $file or die $!;
my $from = -s $node->logfile;
$node->start;
like(slurp_file($node->logfile, $from), qr/is ignored: the server was not shut down cleanly after it was written/, 'a file from before a crash: a line in the log');
is(sql($sum), '0', 'and nothing is taken from it');

# ---- Reset ----

sql("SELECT kv_set('a', '1')");
is(kvs_outcome($node, 'SET ROLE nobody; SELECT kv_stat_reset()'), 'ERROR 42501: permission denied for function kv_stat_reset', 'not everybody may reset');
is(sql('SELECT kv_stat_reset()'), 't', 'a superuser may');
is(sql($sum), '0', 'all counts are 0');
sql("GRANT EXECUTE ON FUNCTION kv_stat_reset() TO nobody; SELECT kv_set('a', '1')");
is(sql('SET ROLE nobody; SELECT kv_stat_reset()'), 't', 'and whom he allows it');
is(sql($sum), '0', 'does it');

# ---- What is gone is forgotten: a thousand stores do not use up the places ----

sql("SELECT kv_create_store('t' || i) FROM generate_series(1, 50) i");
sql("SELECT kv_set('a', '1', store => 't' || i) FROM generate_series(1, 50) i");
is(sql('SELECT count(DISTINCT relid) > 50 FROM kvstore.stat_counts()'), 't', 'fifty stores are counted');
sql("SELECT kv_drop_store('t' || i) FROM generate_series(1, 50) i");
# the worker may have counts of them that it is yet to tell
ok($node->poll_query_until('postgres', 'SELECT kv_maintain(); SELECT count(DISTINCT relid) < 10 FROM kvstore.stat_counts()', "0\nt"), 'dropped, they are not');

# ---- A standby, and without preload ----

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$standby->safe_psql('postgres', "SELECT kv_get('secret-key')");
is($standby->safe_psql('postgres', 'SELECT gets FROM pg_stat_kvstore'), '1', 'a standby counts for itself');
$standby->restart;
is($standby->safe_psql('postgres', 'SELECT gets FROM pg_stat_kvstore'), '1', 'and keeps that over a restart');
$standby->stop;
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
unlike(lint('without preload'), qr/_total/, 'without preload there are no counters');
is(sql('SELECT kv_stat_reset()'), 'f', 'and nothing to reset');
$node->stop;

done_testing();
