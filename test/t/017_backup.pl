# The chapter "Backup and restore" of doc/operations.md: each line of its fenced blocks "sh" is run, in order,
# by one shell a section, and what the chapter promises of a section is checked after it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $file = "$FindBin::RealBin/../../doc/operations.md";
plan skip_all => 'there is no doc/operations.md here' unless -r $file;
my ($chapter) = slurp_file($file) =~ /^## Backup and restore\n(.*?)^## /ms or die 'no such chapter';

my $node = kvs_node('backup', init => { allows_streaming => 'logical' }, conf => "autovacuum = off\n");
my $dir = PostgreSQL::Test::Utils::tempdir;
my $port = PostgreSQL::Test::Cluster::get_free_port();

sub sql { my ($database, $sql, %params) = @_; return $node->safe_psql($database, $sql, %params); }

# ---- What there is to back up ----

$node->safe_psql('postgres', 'CREATE ROLE app_owner LOGIN; CREATE ROLE app_pod; CREATE DATABASE app OWNER app_owner');
sql('app', q{CREATE EXTENSION kvstore; GRANT CREATE ON SCHEMA kvstore TO app_owner});
sql('app', q{
	SELECT kv_create_store('sessions', default_ttl => '30 min'), kv_create_queue('mail', lease => '5 min'), kv_create_snapshot_store('history', default_ttl => '7 days');
	SELECT count(kv_set('s' || i, to_jsonb(i), store => 'sessions')) FROM generate_series(1, 100) i;
	SELECT kv_set('deleted', '1', store => 'sessions'), kv_delete('deleted', store => 'sessions');
	SELECT kv_enqueue('mail', to_jsonb(i)) FROM generate_series(1, 4) i;
	SELECT kv_nack(receipt, error => 'no', dead => true) FROM kv_dequeue('mail');
	SELECT count(*) FROM kv_dequeue('mail');
	SELECT kv_snapshot_append('c', to_jsonb(i), store => 'history') FROM generate_series(1, 5) i;
	GRANT SELECT, INSERT, UPDATE ON kvstore.s_sessions TO app_pod;
	COMMENT ON TABLE kvstore.s_sessions IS 'ours'},
	extra_params => [ '-U', 'app_owner' ]);

# Tables with all their rows; settings; what is beside them.
my %part = (
	entries => q{SELECT string_agg(s::text, E'\n' ORDER BY key), count(*) FROM kvstore.s_sessions s},
	messages => q{SELECT string_agg(q::text, E'\n' ORDER BY id), count(*) FROM kvstore.q_mail q},
	dead => q{SELECT string_agg(d::text, E'\n' ORDER BY id), count(*) FROM kvstore.d_mail d},
	snapshots => q{SELECT string_agg(p::text, E'\n' ORDER BY seq), count(*) FROM kvstore.p_history p},
	settings => q{SELECT s.default_ttl, q.lease, p.default_ttl FROM kv_stores s, kv_queues q, kv_snapshot_stores p WHERE s.store = 'sessions' AND queue = 'mail' AND p.store = 'history'},
	view => q{SELECT count(*) FROM kvstore.v_sessions},
	grants => q{SELECT relname, relowner::regrole, relacl FROM pg_class WHERE relnamespace = 'kvstore'::regnamespace AND relname ~ '^[sqdp]_' AND relkind = 'r' ORDER BY relname},
	comment => q{SELECT obj_description('kvstore.s_sessions'::regclass)});
my %before = map { $_ => sql('app', $part{$_}) } keys %part;
is($before{settings}, '00:30:00|00:05:00|7 days', 'settings');
like($before{entries}, qr/\|100$/, 'entries');
like($before{messages}, qr/\|3$/, 'messages');
like($before{dead}, qr/\|1$/, 'dead letters');
my $highest = sql('app', q{SELECT last_value FROM kvstore.versionstamp});

sub check_parts
{
	my ($database, $how, @parts) = @_;

	is(sql($database, $part{$_}), $before{$_}, "$how: $_") for @parts;
}

# Does a pod of today's go on working, with no warning?
sub check_works
{
	my ($database, $how, %expected) = @_;
	my ($status, $out, $err) = $node->psql($database, q{
		SELECT kv_set('s1', '"new"', store => 'sessions') > (SELECT max(versionstamp) FROM kvstore.s_sessions WHERE key = kv_key('s1'));
		SELECT expires_at > now() + '29 min' FROM kv_entry('s1', 'sessions');
		SELECT kv_enqueue('mail', '"new"') > 4, (SELECT leased_until > now() + '4 min' FROM kv_dequeue('mail'));
		SELECT kv_snapshot_append('c', '"new"', store => 'history') IS NOT NULL;
		SELECT state, expires_at > now() + '6 days' FROM kv_snapshot_latest('c', 'history')},
		extra_params => [ '-U', 'app_owner' ]);

	is($out, qq{t\nt\nt|t\nt\n"new"|t}, "$how: it goes on working");
	is($err, '', "$how: and nothing is said");
}

my %check = (
	'The whole database' => sub {
		check_parts('app_copy', $_[0], keys %part);
		is(sql('app_copy', q{SELECT last_value FROM kvstore.versionstamp}), $highest, 'versionstamps go on');
		check_works('app_copy', $_[0]);
	},
	'The whole database, by its owner' => sub {
		check_parts('app_owned', $_[0], keys %part);
		my $stored = sql('app_owned', q{SELECT max(versionstamp) FROM kvstore.s_sessions});
		cmp_ok(sql('app_owned', q{SELECT kv_set('brand new', '1', store => 'sessions')}), '>', $stored, 'versionstamps are above those stored');
		check_works('app_owned', $_[0]);
	},
	'Some stores and queues' => sub {
		check_parts('app_some', $_[0], qw(entries messages snapshots settings view));
		is(sql('app_some', q{SELECT relowner::regrole FROM pg_class WHERE relname IN ('d_mail', 'v_sessions')}), "app_owner\napp_owner", 'dead letters and view are the owner\'s');
		check_works('app_some', $_[0]);
	},
	'The schema kvstore' => sub {
		check_parts('app_schema', $_[0], keys %part);
		is(sql('app_schema', q{SELECT last_value FROM kvstore.versionstamp}), $highest, 'versionstamps go on');
		check_works('app_schema', $_[0]);
	},
	'The data alone' => sub {
		check_parts('app_data', $_[0], qw(entries messages dead snapshots settings view));
		is(sql('app_data', q{SELECT last_value FROM kvstore.versionstamp}), $highest, 'versionstamps go on');
		check_works('app_data', $_[0]);
	},
	'The whole server' => sub {
		my $copy = "host=" . $node->host . " port=$port dbname=app";
		my $there = sub { my $out; IPC::Run::run([ 'psql', '-XAtq', '-d', $copy, '-c', $_[0] ], '>', \$out) or die $_[0]; chomp $out; return $out };

		is($there->($part{$_}), $before{$_}, "$_[0]: $_") for sort keys %part;
		cmp_ok($there->(q{SELECT kv_set('s1', '1', store => 'sessions')}), '>', $highest + 16_000_000, 'versionstamps jump');
		is($there->(q{SELECT count(*) FROM kv_dequeue('mail', 10)}), '3', 'what was leased is delivered again');
		system_or_bail('pg_ctl', '-D', "$dir/backup", '-m', 'immediate', 'stop');
	});

# ---- The chapter ----

my @sections = $chapter =~ /^### (.*)\n((?:(?!^### ).*\n)*)/mg;
my %seen;
while (my ($title, $text) = splice @sections, 0, 2)
{
	my @lines = $text =~ /^```sh\n(.*?)^```$/msg;
	is(scalar(() = $text =~ /^```/mg), 2 * @lines, "$title: all blocks are for the shell");
	next unless @lines;
	$seen{$title} = 1;
	my $script = join('', @lines) =~ s/\b5433\b/$port/gr;
	my $output;
	{
		local @ENV{qw(PGHOST PGPORT PGDATABASE)} = ($node->host, $node->port, 'postgres');
		ok(IPC::Run::run([ 'bash', '-euxc', "set -o pipefail; cd '$dir'\n$script" ], '>', \$output, '2>&1'), "$title: each line runs") or diag($output);
	}
	unlike($output, qr/WARNING|ERROR/, "$title: without a warning");
	$check{$title} ? $check{$title}->($title) : fail("$title: nothing is checked");
}
is_deeply([ sort keys %seen ], [ sort keys %check ], 'each section has been checked');

# ---- What the table says of the others ----

sub restored
{
	my ($database, @options) = @_;

	sql('postgres', "CREATE DATABASE $database");
	sql($database, 'CREATE EXTENSION kvstore; GRANT CREATE ON SCHEMA kvstore TO app_owner');
	command_ok([ 'pg_dump', @options, '-Fc', '-f', "$dir/$database", $node->connstr('app') ], "pg_dump @options");
	command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr($database), "$dir/$database" ], 'pg_restore');
}

# One warning a session for each that has no settings, which names it and says what to do.
sub check_warnings
{
	my ($database, $what) = @_;
	my ($status, $out, $err) = $node->psql($database, q{
		SELECT kv_get('s1', 'sessions'); SELECT kv_set('s1', '2', store => 'sessions') > 0;
		SELECT count(*) FROM kv_peek('mail'); SELECT count(*) FROM kv_dequeue('mail');
		SELECT hash IS NOT NULL FROM kv_snapshot_latest('c', 'history'); SELECT kv_snapshot_has('x', store => 'history')});

	is($status, 0, "$what: works");
	is(scalar(() = $err =~ /WARNING:/g), 3, "$what: three warnings");
	for ([ 'store', 'sessions', 'store' ], [ 'queue', 'mail', 'queue' ], [ 'snapshot store', 'history', 'snapshot_store' ])
	{
		like($err, qr/WARNING:  settings of $_->[0] "$_->[1]" are not known.*\n.*\nHINT:.*kv_alter_$_->[2]\('$_->[1]', \.\.\.\).*kv_create_$_->[2]\('$_->[1]'.*if_not_exists/, "$what: one of $_->[0]");
	}
}

restored('schema_alone', '-n', 'kvstore');
check_parts('schema_alone', '-n', qw(entries messages dead snapshots view grants));
check_warnings('schema_alone', '-n');
sql('schema_alone', q{SELECT kv_alter_store('sessions', default_ttl => '30 min'), kv_alter_queue('mail', lease => '5 min'), kv_alter_snapshot_store('history', default_ttl => '7 days')}, extra_params => [ '-U', 'app_owner' ]);
check_parts('schema_alone', '-n, altered', 'settings');
check_works('schema_alone', '-n, altered');

restored('table_alone', map { ('-t', "kvstore.$_") } qw(s_sessions q_mail p_history));
check_parts('table_alone', '-t', qw(entries messages snapshots));
check_warnings('table_alone', '-t');
is(sql('table_alone', q{SELECT to_regclass('kvstore.v_sessions'), to_regclass('kvstore.d_mail')}), '|', '-t: neither view nor dead letters');
sql('table_alone', q{SELECT kv_create_store('sessions', if_not_exists => true), kv_create_queue('mail', if_not_exists => true)}, extra_params => [ '-U', 'app_owner' ]);
is(sql('table_alone', q{SELECT count(*) FROM kvstore.v_sessions}), '100', '-t: the view is back');
is(sql('table_alone', q{SELECT count(*) FROM kv_dead_letters('mail')}), '0', '-t: and a table of dead letters');

# The worker and the log are spared.
unlike(slurp_file($node->logfile), qr/kvstore worker.*settings of/, 'no worker warns');

# ---- A publication of all tables has the registries, too; their rows on the other side are in nobody's way ----

sql('postgres', 'CREATE DATABASE follower');
sql('follower', q{CREATE EXTENSION kvstore; SELECT kv_create_store('sessions'), kv_create_queue('mail'), kv_create_snapshot_store('history')});
sql('app', q{CREATE PUBLICATION everything FOR ALL TABLES});
# within one server the slot must be made beforehand
sql('app', q{SELECT pg_create_logical_replication_slot('follower', 'pgoutput')});
sql('follower', sprintf(q{CREATE SUBSCRIPTION follower CONNECTION '%s' PUBLICATION everything WITH (create_slot = false)}, $node->connstr('app') =~ s/'/''/gr));
ok($node->poll_query_until('follower', q{SELECT count(*) = 7 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel}), 'all tables follow');
check_parts('follower', 'follower', 'settings');
sql('app', q{SELECT kv_alter_store('sessions', default_ttl => '1 hour'), kv_create_store('later', default_ttl => '1 min')});
ok($node->poll_query_until('follower', q{SELECT count(*) = 2 FROM kvstore.stores WHERE (store, default_ttl) IN (('sessions', '1 hour'), ('later', '1 min'))}), 'and so do settings that change');
sql('follower', 'ALTER SUBSCRIPTION follower DISABLE; ALTER SUBSCRIPTION follower SET (slot_name = NONE); DROP SUBSCRIPTION follower');

$node->stop;
done_testing();
