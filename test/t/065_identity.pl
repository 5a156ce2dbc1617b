# Whose rights does code have that an owner has put on a table?  Hooks of every kind on every kind of table tell who they run as, and whether they could become
# who the session belongs to.  Each function and each step of the worker may run them only as the list at the end of each call says, and must run those that it names.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('identity', conf => "log_line_prefix = '%b|'\nlog_statement = none\nkvstore.fallback_poll = '100 ms'");

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub sql_as { return $node->safe_psql('postgres', $_[1], extra_params => [ '-U', $_[0] ]); }

# ---- The hooks ----

# The tables, their owners, and a column of each that is never NULL.
my %owner = (q_x => 'queues', d_x => 'queues', s_x => 'stores', p_x => 'snapshots');
my %column = (q_x => 'id', d_x => 'id', s_x => 'kind', p_x => 'seq');

sql(q{
	CREATE EXTENSION kvstore;
	CREATE ROLE queues LOGIN; CREATE ROLE stores LOGIN; CREATE ROLE snapshots LOGIN; CREATE ROLE caller LOGIN;
	GRANT CREATE ON SCHEMA kvstore TO queues, stores, snapshots;
	CREATE SCHEMA spy;
	GRANT ALL ON SCHEMA spy TO PUBLIC;
	-- "free": it could become whoever the session belongs to
	CREATE FUNCTION spy.tell(hook text) RETURNS boolean LANGUAGE plpgsql AS $$
	DECLARE
		can text := 'bound';
	BEGIN
		BEGIN
			PERFORM set_config('role', 'none', true);
			RAISE EXCEPTION USING ERRCODE = 'KV999';
		EXCEPTION WHEN SQLSTATE 'KV999' THEN
			can := 'free';
		WHEN OTHERS THEN
			NULL;
		END;
		RAISE LOG 'spy: % % % %', hook, current_user, session_user, can;
		RETURN true;
	END $$;
	CREATE FUNCTION spy.constant(hook text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN spy.tell(hook); END $$;
	CREATE FUNCTION spy.value(hook text, value anyelement) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN spy.tell(hook); END $$;
	CREATE FUNCTION spy.preset(hook text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM spy.tell(hook); RETURN 'x'; END $$;
	CREATE FUNCTION spy.trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM spy.tell(format('%s %s-%s-%s', tg_table_name, lower(tg_when), lower(tg_level), lower(tg_op)));
		RETURN COALESCE(NEW, OLD);
	END $$});
sql_as('queues', q{SELECT kv_create_queue('x', lease => '300 ms', backoff => '{}'); GRANT ALL ON kvstore.q_x, kvstore.d_x TO caller});
sql_as('stores', q{SELECT kv_create_store('x'); GRANT ALL ON kvstore.s_x TO caller, queues});
sql_as('snapshots', q{SELECT kv_create_snapshot_store('x'); GRANT ALL ON kvstore.p_x TO caller; GRANT USAGE ON SEQUENCE kvstore.p_x_seq_seq TO caller});

for my $table (sort keys %owner)
{
	my $rel = "kvstore.$table";
	my $c = $column{$table};

	sql_as($owner{$table}, qq{
		CREATE DOMAIN spy.$table AS text CHECK (spy.value('$table domain', VALUE));
		ALTER TABLE $rel ADD spy_default text DEFAULT spy.preset('$table default'), ADD spy_domain spy.$table DEFAULT 'x',
			ADD spy_generated boolean GENERATED ALWAYS AS (spy.value('$table generated', $c)) STORED, ADD CHECK (spy.value('$table check', $c));
		CREATE INDEX ON $rel ((spy.value('$table index', $c)));
		CREATE INDEX ON $rel ($c) WHERE spy.value('$table predicate', $c);
		CREATE INDEX ON $rel ($c) WHERE spy.constant('$table constant') AND $c IS NOT NULL;
		CREATE STATISTICS spy.$table ON $c, (spy.value('$table statistics', $c)) FROM $rel;
		CREATE TRIGGER zz_1 BEFORE INSERT OR UPDATE OR DELETE ON $rel FOR EACH ROW EXECUTE FUNCTION spy.trigger();
		CREATE TRIGGER zz_2 AFTER INSERT OR UPDATE OR DELETE ON $rel FOR EACH ROW EXECUTE FUNCTION spy.trigger();
		CREATE TRIGGER zz_3 BEFORE INSERT OR UPDATE OR DELETE ON $rel FOR EACH STATEMENT EXECUTE FUNCTION spy.trigger();
		CREATE TRIGGER zz_4 AFTER INSERT OR UPDATE OR DELETE ON $rel FOR EACH STATEMENT EXECUTE FUNCTION spy.trigger();
		CREATE CONSTRAINT TRIGGER zz_5 AFTER INSERT OR UPDATE OR DELETE ON $rel DEFERRABLE FOR EACH ROW EXECUTE FUNCTION spy.trigger()});
}
# Of the kind that the shape of a queue needs: another one over dedupe_key, which is looked at whenever the queue is opened.
sql_as('queues', q{
	CREATE UNIQUE INDEX a_first ON kvstore.q_x (dedupe_key) WHERE spy.constant('q_x constant') AND dedupe_key IS NOT NULL;
	DROP INDEX kvstore.q_x_dedupe_key_idx;
	CREATE UNIQUE INDEX z_last ON kvstore.q_x (dedupe_key) WHERE dedupe_key IS NOT NULL});

my %written = map { my $event = $_; $event => [ map { "$_-$event" } qw(before-row after-row before-statement after-statement) ] } qw(insert update delete);
my @row = qw(generated check index predicate);
my @insert = (@{ $written{insert} }, @row, qw(default));
my @update = (@{ $written{update} }, qw(generated check ?index ?predicate));
# An upsert: its statement triggers run for both, whatever it does; before it finds the row it has tried to insert one.
my @upsert = (@insert, qw(?before-statement-update ?after-statement-update));
my @overwrite = (@update, qw(before-statement-insert after-statement-insert before-row-insert default));
my @delete = @{ $written{delete} };

# ---- What is run, and who may run what ----

# Do it, and look at what the log tells since then: "hook as user can", of this kind of backend.
sub heard
{
	my ($from, $backend) = @_;
	my $log = slurp_file($node->logfile, $from);
	my %heard;

	while ($log =~ /^\Q$backend\E\|LOG:  spy: (\w+) (\S+) (\w+) \w+ (\w+)$/mg)
	{
		$heard{$1}{$2}{"$3 $4"} = 1;
	}
	return \%heard;
}

# Compare with the list: table => { hook => who }, "who" being "user can" in words of the list.  Hooks with a '?' before them need not run.
sub compare
{
	my ($name, $heard, %allowed) = @_;
	my @wrong;

	for my $table (sort keys %{ { %$heard, %allowed } })
	{
		my %list = %{ $allowed{$table} // {} };

		for my $hook (sort keys %{ $heard->{$table} // {} })
		{
			my $who = join ', ', sort keys %{ $heard->{$table}{$hook} };
			my $may = delete $list{$hook} // delete $list{"?$hook"} // 'nobody';

			push @wrong, "$table $hook: $who, not $may" if $who ne $may;
		}
		push @wrong, map { "$table $_: does not run" } grep { !/^\?/ } sort keys %list;
	}
	is(join("\n", @wrong), '', $name);
}

# Hooks of the list that run as this user; what is evaluated when a statement is planned, or an index is opened first, may run or not.
sub as
{
	my ($who, @hooks) = @_;

	return map { $_ => $who } @hooks, '?constant', '?statistics', '?domain';
}

# A statement in a session of its own.
sub run_as
{
	my ($user, $statement, %allowed) = @_;
	my $from = -s $node->logfile;

	sql_as($user, $statement);
	compare(($user eq 'caller' ? '' : "$user: ") . $statement =~ s/\s+/ /gr, heard($from, 'client backend'), %allowed);
}

# What the worker does until a condition holds; whatever it runs, it runs as the owner of the table.
sub by_worker
{
	my ($name, $statement, $condition, %kinds) = @_;
	my $from = -s $node->logfile;

	sql_as('caller', $statement);
	ok($node->poll_query_until('postgres', $condition), "$name: done");
	compare("$name: by the worker", heard($from, 'kvstore worker'), map { $_ => { as("$owner{$_} bound", @{ $kinds{$_} }) } } keys %kinds);
}

my $me = $node->safe_psql('postgres', 'SELECT current_user');
my %user = (caller => 'caller free', $me => "$me free");

# Whoever calls a function that writes in their own name runs what is there, as in plain SQL.
for my $user ('caller', $me)
{
	my $who = $user{$user};

	run_as($user, q{SELECT kv_set('a', '1', store => 'x')}, s_x => { as($who, @upsert) });
	run_as($user, q{SELECT kv_set('a', '2', store => 'x')}, s_x => { as($who, @overwrite) });
	run_as($user, q{SELECT kv_delete('a', store => 'x')}, s_x => { as($who, @delete) });
	run_as($user, q{SELECT kv_snapshot_append('c', '1', store => 'x')}, p_x => { as($who, @upsert) });
	run_as($user, q{SELECT kv_snapshot_delete('c', store => 'x')}, p_x => { as($who, @delete) });
	run_as($user, q{SELECT kv_enqueue('x', '1', max_attempts => 1)}, q_x => { as($who, @insert) });
	run_as($user, q{SELECT count(kv_ack(receipt)) FROM kv_dequeue('x')}, q_x => { as($who, @delete) });
	run_as($user, q{SELECT kv_cancel('x', kv_enqueue('x', '1'))}, q_x => { as($who, @insert, @delete) });
	run_as($user, q{SELECT kv_enqueue('x', '1', dedupe_key => 'k'), kv_purge_queue('x')}, q_x => { as($who, @insert, @delete) });
	# What stands for the owner: a failure, and a message that has expired, in the way of another.
	run_as($user, q{SELECT kv_enqueue('x', '1')}, q_x => { as($who, @insert) });
	run_as($user, q{SELECT count(kv_nack(receipt)) FROM kv_dequeue('x')}, q_x => { as('queues bound', @update) });
	run_as($user, q{SELECT count(kv_release(receipt, delay => '1 ms')) FROM kv_dequeue('x')}, q_x => { as('queues bound', @update) });
	run_as($user, q{SELECT kv_purge_queue('x')}, q_x => { as($who, @delete) });
}

# Who only looks runs nothing at all, but what a statement's plan evaluates.
for my $statement (q{kv_get('a', 'x')}, q{kv_count('', 'x')}, q{(SELECT count(*) FROM kv_list('', store => 'x'))}, q{(SELECT count(*) FROM kv_queue_stats())}, q{(SELECT status FROM kv_health())},
	q{kv_metrics() IS NULL}, q{(SELECT count(*) FROM kv_leases)}, q{(SELECT count(*) FROM kv_dequeue('x'))}, q{kv_feed_position()}, q{(SELECT count(*) FROM kv_watch('{a}', NULL, '0', 'x'))},
	q{(SELECT count(*) FROM kv_stores)}, q{(SELECT count(*) FROM kv_queues)}, q{(SELECT count(*) FROM pg_stat_kvstore)}, q{kv_snapshot_has('h', store => 'x')})
{
	run_as($me, "SELECT $statement", $statement =~ /snapshot/ ? (p_x => { as($user{$me}) }) : ());
}
run_as($me, q{SELECT count(*) FROM kv_peek('x')}, q_x => { as($user{$me}) });
run_as($me, q{SELECT count(*) FROM kv_dead_letters('x')}, d_x => { as($user{$me}) });
run_as($me, q{SELECT kv_sweep(), kv_maintain()});
run_as('queues', q{SELECT kv_alter_queue('x', max_attempts => 3), kv_pause_queue('x'), kv_resume_queue('x')});
run_as('stores', q{SELECT kv_alter_store('x', max_value_size => 1000)});

# ---- The registries ----

# What the registries' owner has put there runs as that owner, and finds no function of the caller's: lower() of a schema that comes first.
sql(q{
	CREATE FUNCTION spy.registry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM spy.tell(tg_table_name || ' ' || lower(tg_op));
		RETURN NEW;
	END $$});
sql(qq{CREATE TRIGGER spy BEFORE INSERT OR UPDATE ON kvstore.$_ FOR EACH ROW EXECUTE FUNCTION spy.registry()}) for qw(stores queues snapshot_stores);
sql(q{CREATE SCHEMA hers AUTHORIZATION caller; GRANT CREATE ON SCHEMA kvstore TO caller});
sql_as('caller', q{CREATE FUNCTION hers.lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'spy: hers lower % % free', current_user, session_user; RETURN $1; END $$});
for my $kind (qw(store queue snapshot_store))
{
	my $registry = "${kind}s";
	my $who = { insert => "$me bound", '?update' => "$me bound" };

	run_as('caller', qq{SET search_path = hers, pg_catalog, public; SELECT kv_create_$kind('hers')}, $registry => $who);
}
run_as('caller', q{SET search_path = hers, pg_catalog, public; SELECT kv_alter_queue('hers', max_attempts => 3), kv_alter_store('hers', max_value_size => 9)},
	map { $_ => { insert => "$me bound", update => "$me bound" } } qw(queues stores));
sql_as('caller', q{SELECT kv_drop_store('hers'), kv_drop_queue('hers'), kv_drop_snapshot_store('hers')});
sql(qq{DROP TRIGGER spy ON kvstore.$_}) for qw(stores queues snapshot_stores);

# ---- The worker ----

by_worker('an expired entry', q{SELECT kv_set('e', '1', ttl => '1 ms', store => 'x')}, q{SELECT count(*) = 0 FROM kvstore.s_x WHERE key = kv_key('e')}, s_x => \@delete);
by_worker('an expired snapshot', q{SELECT kv_snapshot_append('e', '1', ttl => '1 ms', store => 'x')}, 'SELECT count(*) = 0 FROM kvstore.p_x', p_x => \@delete);
by_worker('an expired message', q{SELECT kv_enqueue('x', '1', ttl => '1 ms')}, 'SELECT count(*) = 0 FROM kvstore.q_x', q_x => \@delete);
by_worker('a message that is given up', q{SELECT kv_enqueue('x', '1', max_attempts => 1); SELECT count(*) FROM kv_dequeue('x')}, 'SELECT count(*) = 1 FROM kvstore.d_x', q_x => \@delete, d_x => \@insert);
run_as('caller', q{SELECT kv_dead_delete('x', id) FROM kv_dead_letters('x')}, d_x => { as('caller free', @delete) });
by_worker('undelivered keys', q{SELECT kv_enqueue('x', '1', max_attempts => 1, keys_if_undelivered => '["u"]', undelivered_store => 'x'); SELECT count(*) FROM kv_dequeue('x')},
	'SELECT count(*) = 1 FROM kvstore.d_x', q_x => \@delete, d_x => \@insert, s_x => \@upsert);
is(sql(q{SELECT kv_get('u', 'x'), (SELECT error FROM kvstore.d_x)}), '1|lease expired', '... are written');
by_worker('undelivered keys that are there', q{SELECT kv_dead_requeue('x', id) FROM kv_dead_letters('x'); SELECT count(kv_nack(receipt, dead => true, error => 'no')) FROM kv_dequeue('x')},
	q{SELECT count(*) = 1 FROM kvstore.d_x WHERE error = 'no'}, q_x => \@delete, d_x => \@insert,
	s_x => \@overwrite);
by_worker('failures that are written', q{SELECT kv_enqueue('x', '1', max_attempts => 5) FROM generate_series(1, 2); SELECT count(*) FROM kv_dequeue('x', 2); SELECT pg_sleep(0.4); SELECT count(*) FROM kv_dequeue('x', 2)},
	'SELECT min(attempts) > 0 FROM kvstore.q_x', q_x => \@update);
run_as('caller', q{SELECT kv_purge_queue('x'), kv_dead_purge('x')}, q_x => { as('caller free', @delete) }, d_x => { as('caller free', qw(before-row-delete after-row-delete before-statement-delete after-statement-delete)) });

# ---- Deferred triggers ----

# Where the server would run them at the commit it would be as whoever commits: so they run at once.
my %bound = map { $_ => "$owner{$_} bound" } keys %owner;

for my $table (sort keys %owner)
{
	sql_as($owner{$table}, "CREATE CONSTRAINT TRIGGER zz_6 AFTER INSERT OR UPDATE OR DELETE ON kvstore.$table DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION spy.trigger()");
}
by_worker('an expired entry', q{SELECT kv_set('e', '1', ttl => '1 ms', store => 'x')}, q{SELECT count(*) = 0 FROM kvstore.s_x WHERE key = kv_key('e')}, s_x => \@delete);
by_worker('an expired snapshot', q{SELECT kv_snapshot_append('e', '1', ttl => '1 ms', store => 'x')}, 'SELECT count(*) = 0 FROM kvstore.p_x', p_x => \@delete);
by_worker('a message that is given up', q{SELECT kv_enqueue('x', '1', max_attempts => 1); SELECT count(*) FROM kv_dequeue('x')}, 'SELECT count(*) = 1 FROM kvstore.d_x', q_x => \@delete, d_x => \@insert);
is(kvs_outcome($node, q{SELECT count(kv_nack(receipt)) FROM (SELECT kv_enqueue('x', '2', priority => 9)) s, kv_dequeue('x')}), '1', 'nor do they keep kv_nack() from its work');
run_as($me, 'SELECT kv_sweep()');
sql_as($owner{$_}, "DROP TRIGGER zz_6 ON kvstore.$_") for sort keys %owner;
sql(q{SELECT kv_purge_queue('x'), kv_dead_purge('x')});

# What a caller has pending is the caller's, whatever is done for others in the same transaction; the constraint triggers of others are not put off.
sql_as('caller', q{
	CREATE TABLE spy.own (i int);
	CREATE CONSTRAINT TRIGGER own AFTER INSERT ON spy.own DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION spy.trigger()});
run_as('caller', q{SELECT kv_set('e', '1', store => 'x')}, s_x => { as('caller free', @upsert) });
my $own = { as('caller free', 'after-row-insert') };
run_as('caller', q{BEGIN; INSERT INTO spy.own VALUES (1); SELECT kv_sweep(), kv_maintain(); COMMIT}, own => $own);
run_as('caller', q{BEGIN; INSERT INTO spy.own VALUES (1); SELECT kv_enqueue('x', '1'); SELECT count(kv_nack(receipt)) FROM kv_dequeue('x'); COMMIT}, own => $own,
	q_x => { as('caller free', @insert), map({ $_ => 'queues bound' } @{ $written{update} }), map({ $_ => 'caller free, queues bound' } qw(generated check)),
		map({ ("?$_" => 'caller free, queues bound', $_ => 'caller free, queues bound') } qw(index predicate)) });
run_as('caller', q{SELECT kv_purge_queue('x')}, q_x => { as('caller free', @delete) });

# ---- Tables that refer to one of ours, and policies ----

# The rows that go with an entry are their owner's, who gains nothing by it.
sql_as('caller', q{
	CREATE TABLE spy.child (key kvkey REFERENCES kvstore.s_x ON DELETE CASCADE);
	CREATE TRIGGER child BEFORE DELETE ON spy.child FOR EACH ROW EXECUTE FUNCTION spy.trigger();
	SELECT kv_set('parent', '1', ttl => '1 s', store => 'x');
	INSERT INTO spy.child SELECT key FROM kvstore.s_x WHERE key = kv_key('parent')});
my $from = -s $node->logfile;
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM spy.child'), 'an expired entry that is referred to: done');
compare('an expired entry that is referred to: by the worker', heard($from, 'kvstore worker'), s_x => { as($bound{s_x}, @delete) }, child => { 'before-row-delete' => 'caller bound' });
sql_as('caller', 'DROP TABLE spy.child');

# A policy is asked for whom it is made for, and no one else.
for my $table (qw(d_x s_x p_x))
{
	sql_as($owner{$table}, qq{CREATE POLICY spy ON kvstore.$table USING (spy.value('$table policy', $column{$table})); ALTER TABLE kvstore.$table ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY});
}
run_as('caller', q{SELECT kv_get('e', 'x')}, s_x => { as('caller free', 'policy') });
by_worker('an expired entry, with policies', q{SELECT kv_expire('e', '1 ms', store => 'x')}, q{SELECT count(*) = 0 FROM kvstore.s_x WHERE key = kv_key('e')}, s_x => \@delete);
by_worker('a message that is given up, with policies', q{SELECT kv_enqueue('x', '1', max_attempts => 1); SELECT count(*) FROM kv_dequeue('x')}, 'SELECT count(*) = 1 FROM kvstore.d_x', q_x => \@delete, d_x => \@insert);

# ---- Functions of a stranger's ----

# Who may create stores may create functions beside ours, with argument types that fit a careless call better.
sql(q{CREATE ROLE stranger LOGIN; GRANT CREATE ON SCHEMA kvstore TO stranger; SELECT kv_create_store('y'), kv_create_queue('y'), kv_create_snapshot_store('y')});
sql_as('stranger', q{
	DO $$
	DECLARE
		f record;
		i int;
		other text;
		types text[];
	BEGIN
		FOR f IN SELECT p.proname, string_to_array(oidvectortypes(p.proargtypes), ', ') AS types FROM pg_proc p
			WHERE p.pronamespace = 'kvstore'::regnamespace AND p.pronargs > 0
		LOOP
			FOR i IN 1 .. cardinality(f.types) LOOP
				FOREACH other IN ARRAY ARRAY['integer', 'smallint', 'numeric', 'double precision', 'text', 'character varying', 'name', 'json', 'timestamp with time zone', 'anyelement'] LOOP
					CONTINUE WHEN other = f.types[i];
					types := f.types;
					types[i] := other;
					BEGIN
						EXECUTE format('CREATE FUNCTION kvstore.%I(%s) RETURNS boolean LANGUAGE plpgsql AS %L', f.proname, array_to_string(types, ', '),
							format('BEGIN RAISE LOG ''spy: %s stranger %% %% free'', current_user, session_user; RETURN NULL; END', f.proname));
					EXCEPTION WHEN duplicate_function THEN NULL;
					END;
				END LOOP;
			END LOOP;
		END LOOP;
	END $$});
cmp_ok(sql(q{SELECT count(*) FROM pg_proc WHERE proowner = 'stranger'::regrole}), '>', 50, 'a stranger has made functions of the names of ours');
$from = -s $node->logfile;
for my $statement (q{kv_snapshot_append('c', '{"a": 1}', keep => 5, store => 'y')}, q{(SELECT count(*) FROM kv_snapshot_get('h', store => 'y'))}, q{(SELECT count(*) FROM kv_snapshot_latest('c', 'y'))},
	q{(SELECT count(*) FROM kv_snapshot_load('c', store => 'y'))}, q{kv_snapshot_has('h', store => 'y')}, q{(SELECT count(*) FROM kv_snapshot_hashes('c', 'y'))},
	q{(SELECT count(*) FROM kv_snapshot_stats('c', 'y'))}, q{kv_snapshot_fork('c', 'd', store => 'y')}, q{kv_snapshot_prune(now(), 1, 'y')}, q{kv_snapshot_delete('c', 'y')},
	q{kv_set('a', '1', store => 'y')}, q{kv_set('a', '2', keep_ttl => true, store => 'y')}, q{kv_incr('n', store => 'y')}, q{kv_incr('n', 2, store => 'y')}, q{kv_set_many('{a,b}', '{1,2}', store => 'y')},
	q{kv_delete_prefix('b', 'y')}, q{kv_delete_many('{a}', 'y')}, q{kv_clear('y')}, q{kv_enqueue('y', '1', dedupe_key => 'k')}, q{(SELECT count(kv_nack(receipt, dead => true)) FROM kv_dequeue('y'))},
	q{kv_dead_requeue_all('y')}, q{(SELECT count(*) FROM kv_queue_stats())}, q{(SELECT status FROM kv_health())}, q{kv_metrics() IS NULL}, q{kv_metrics_prometheus() IS NULL}, q{(SELECT count(*) FROM kv_leases)},
	q{(SELECT count(*) FROM kv_schedules)}, q{(SELECT count(*) FROM kv_stat_progress)}, q{(SELECT count(*) FROM pg_stat_kvstore_queue)}, q{kv_maintain()})
{
	my ($status, undef, $error) = $node->psql('postgres', "SELECT $statement");

	is($status, 0, "beside them: $statement") or diag($error);
}
compare('none of them was called', heard($from, 'client backend'));

$node->stop;
done_testing();
