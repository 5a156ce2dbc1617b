# README.md and the pages in doc/ tell the truth: their examples give the output they show, the table of settings is that of the server, the list
# of functions is complete, and each link leads somewhere.
#
# Examples: each fenced block "sql" holds what one types into psql.  If a fenced block "text" follows, with nothing but empty lines between, that is
# what psql then prints, on stdout and stderr, with command tags; otherwise no ERROR may be printed.  The blocks of a page are run in order, in a new
# database.  It has the extension and the store "default", unless the page creates the extension itself.  What differs from one run to the next is
# compared in a normal form: a time is "<time>", spaces and lines of dashes have one length, lines that begin with "CONTEXT:" are left out, and a
# line "..." stands for any number of lines.
#
# A comment <!-- test: ... --> before a block says where it is run: "needs pg_cron" only where that is installed; "on the subscriber" and "on both
# servers" on another server, or there too; "in a new database" in one that has nothing, not even the extension.
#
# Settings: a table with the columns "Setting", "Default", "Context" and "Memory of each".  A number there is the bytes of shared memory of a unit.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $root = "$FindBin::RealBin/../..";
plan skip_all => 'there is no README.md here' unless -r "$root/README.md";
my @pages = map { s/^\Q$root\E\///r } "$root/README.md", sort glob("$root/doc/*.md");
my %lines = map { $_ => [ split /\n/, slurp_file("$root/$_") ] } @pages, grep { -r "$root/$_" } qw(CONTRIBUTING.md SECURITY.md CHANGELOG.md);

chomp(my $sharedir = `pg_config --sharedir`);
my $has_cron = -e "$sharedir/extension/pg_cron.control";
my $node = kvs_node('readme', preload => 0, init => { allows_streaming => 'logical' }, conf => "shared_preload_libraries = 'kvstore" . ($has_cron ? ", pg_cron'\ncron.database_name = 'page_operations'" : "'")
	  . "\nmax_worker_processes = 16\n");
my $subscriber;

# ---- Settings ----

sub cells
{
	my ($line) = @_;
	my @cells = split /(?<!\\)\|/, $line, -1;
	s/^\s+|\s+$//g for @cells;
	return @cells[ 1 .. $#cells - 1 ];
}

my %documented;
for my $page (@pages)
{
	my @lines = @{ $lines{$page} };
	for my $i (0 .. $#lines)
	{
		next unless $lines[$i] =~ /^\|/;
		my @head = cells($lines[$i]);
		next unless grep({ $_ eq 'Setting' } @head) && grep({ $_ eq 'Default' } @head);
		for my $line (@lines[ $i + 2 .. $#lines ])
		{
			last unless $line =~ /^\|/;
			my %row;
			@row{@head} = map { s/`//gr } cells($line);
			$documented{ $row{Setting} } = \%row;
		}
	}
}

# As SHOW says it, in a server where nothing is set.
my %actual = map { my ($name, $default, $context) = split /\|/; $name => { Default => $default, Context => $context } } split /\n/,
  $node->safe_psql('postgres', q{LOAD 'kvstore'; SELECT name, current_setting(name), context FROM pg_settings WHERE name LIKE 'kvstore.%'});
is_deeply([ sort keys %documented ], [ sort keys %actual ], 'the settings of the server are those of the pages');
for my $name (sort grep { $actual{$_} } keys %documented)
{
	is($documented{$name}{Default}, $actual{$name}{Default}, "$name: default");
	is($documented{$name}{Context}, $actual{$name}{Context}, "$name: context");
}

# ---- Functions ----

$node->safe_psql('postgres', 'CREATE EXTENSION kvstore');
my @names = split /\n/, $node->safe_psql('postgres', q{SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'kv\_%'
	UNION SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v' AND relname ~ 'kv' ORDER BY 1});
my $reference = join "\n", @{ $lines{'doc/reference.md'} // [] };
cmp_ok(scalar(@names), '>', 80, 'there are functions and views');
is(join(' ', grep { $reference !~ /`(CALL )?\Q$_\E\b/ } @names), '', 'doc/reference.md has all of them');

# ---- Links ----

# The anchors of a page, as the sites that show Markdown make them of its headings.
sub anchors
{
	my ($page) = @_;
	my (%seen, $fenced);

	for my $line (@{ $lines{$page} })
	{
		$fenced = !$fenced if $line =~ /^\s*```/;
		next if $fenced || $line !~ /^#+ (.*?)\s*$/;
		my $anchor = lc($1) =~ s/[^\w\- ]//gr =~ tr/ /-/r;
		my $count = $seen{$anchor}++;
		$seen{"$anchor-$count"} = 1 if $count;
	}
	return \%seen;
}

my %linked;
for my $page (sort keys %lines)
{
	my $fenced;
	my @broken;
	for my $line (@{ $lines{$page} })
	{
		$fenced = !$fenced if $line =~ /^\s*```/;
		next if $fenced;
		for my $target ($line =~ /\]\(([^()\s]+)\)/g)
		{
			next if $target =~ /^https?:/;
			my ($path, $anchor) = split /#/, $target, 2;
			my $dir = $page =~ m{^(.*/)} ? $1 : '';
			my $file = $path eq '' ? $page : "$dir$path";
			1 while $file =~ s{[^/]+/\.\./}{};
			$linked{$file} = 1 if $page eq 'README.md';
			push @broken, $target unless -e "$root/$file" && (!defined $anchor || ($lines{$file} && anchors($file)->{$anchor}));
		}
	}
	is(join(' ', @broken), '', "$page: each link leads somewhere");
}
is(join(' ', grep { !$linked{$_} && $_ ne 'README.md' } @pages), '', 'README.md leads to each page');

chomp(my $docdir = `pg_config --docdir`);
is(join(' ', grep { !-r "$docdir/extension/" . s{.*/}{}r } @pages), '', 'make install has installed the pages');

# ---- Examples ----

# The fenced blocks of a page, each with its language, its first line's number and what stands between it and the one before.
sub blocks
{
	my @lines = @_;
	my @blocks;
	my $between = '';

	for (my $i = 0; $i < @lines; $i++)
	{
		if ($lines[$i] !~ /^(\s*)```(\w*)/)
		{
			$between .= "$lines[$i]\n";
			next;
		}
		my ($indent, $block) = ($1, { language => $2, line => $i + 2, between => $between, text => [] });
		push @{ $block->{text} }, $lines[$i] =~ s/^$indent//r while ++$i < @lines && $lines[$i] !~ /^\s*```\s*$/;
		push @blocks, $block;
		$between = '';
	}
	return @blocks;
}

# The lines outside of blocks.
sub outside
{
	my $fenced;

	return grep { $fenced = !$fenced if /^\s*```/; !$fenced } @_;
}

# Those to run: each with "where", a list of "here" and "there", and "shown", undefined if nothing is.
sub examples
{
	my @blocks = blocks(@_);
	my @examples;

	for my $i (0 .. $#blocks)
	{
		my ($sql, $text) = @blocks[ $i, $i + 1 ];
		next unless $sql->{language} eq 'sql';
		my $where = $sql->{between} =~ /<!-- test: (.*) -->\s*\z/ ? $1 : 'on the publisher';
		next if $where eq 'needs pg_cron' && !$has_cron;
		$sql->{where} = { 'on the subscriber' => 'there', 'on both servers' => 'here there', 'in a new database' => 'new' }->{$where} // 'here';
		$sql->{shown} = $text->{text} if $text && $text->{language} eq 'text' && $text->{between} !~ /\S/;
		push @examples, $sql;
	}
	return @examples;
}

sub normal
{
	my ($line) = @_;
	$line =~ s/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?([+-]\d\d(:\d\d)?)?/<time>/g;
	$line =~ s/-{2,}/--/g;
	$line =~ s/\s+/ /g;
	return $line =~ s/ $//r;
}

# Does the output match what is shown, with "..." for any number of lines?
sub matches
{
	my ($shown, $printed) = @_;
	my $pattern = join '', map { $_ eq '...' ? '(?:.*\n)*?' : quotemeta($_) . '\n' } @$shown;
	return join('', map { "$_\n" } @$printed) =~ /^$pattern\z/;
}

# Run some examples in one psql, and give what each has printed.
sub run_there
{
	my ($server, $database, @examples) = @_;
	my $marker = '---- example ends ----';
	my $script = join "\n", 'SET TimeZone = \'UTC\';', "\\echo $marker", map({ (@{ $_->{text} }, "\\echo $marker") } @examples), '';
	my $publisher = $node->connstr($database);
	my $output = '';

	$script =~ s/host=\.\.\. dbname=\.\.\./$publisher =~ s{'}{''}gr/e;
	IPC::Run::run [ 'psql', '-X', '-d', $server->connstr($database) ], '<', \$script, '>', \$output, '2>&1';
	my @printed = split /\Q$marker\E\n/, $output, -1;
	shift @printed;
	is(scalar(@printed), @examples + 1, "$database: psql has come to the end of the last example");
	return @printed;
}

sub judge
{
	my ($page, $example, $printed) = @_;
	my @got = map { normal($_) } grep { !/^CONTEXT:/ } split /\n/, $printed // 'nothing at all';

	if (!$example->{shown})
	{
		ok(!grep({ /^(ERROR|FATAL|PANIC):|^invalid command|^psql: / } @got) && defined $printed, "$page, line $example->{line}: no error")
		  || diag("printed:\n  ", join("\n  ", @got));
		return;
	}
	my @shown = map { normal($_) } grep { !/^CONTEXT:/ } @{ $example->{shown} };
	for my $part (\@shown, \@got)
	{
		pop @$part while @$part && $part->[-1] eq '';
		shift @$part while @$part && $part->[0] eq '';
	}
	ok(matches(\@shown, \@got), "$page, line $example->{line}: the output is as shown")
	  || diag("shown:\n  ", join("\n  ", @shown), "\nprinted:\n  ", join("\n  ", @got));
}

# Roles that the pages speak of.
$node->safe_psql('postgres', 'CREATE ROLE app_owner; CREATE ROLE app_pod');
for my $page (@pages)
{
	my @apart_from_blocks = grep { /^ {4,}(SELECT|CALL|CREATE|ALTER|DROP|GRANT|INSERT|UPDATE|DELETE|BEGIN|SET)\b.*;/ } outside(@{ $lines{$page} });
	is(join("\n", @apart_from_blocks), '', "$page: SQL stands in blocks, which are run");

	my @examples = examples(@{ $lines{$page} });
	next unless @examples;
	my $database = 'page_' . lc($page =~ s{.*/|\.md$}{}gr);
	my $makes_it = grep { /^CREATE EXTENSION kvstore/ } map { @{ $_->{text} } } grep { $_->{where} eq 'here' } @examples;
	my $setup = $makes_it ? '' : 'CREATE EXTENSION kvstore; SELECT kv_create_store()';

	$subscriber //= kvs_node('subscriber') if grep { $_->{where} =~ /there/ } @examples;
	for my $server ($node, grep { defined } $subscriber)
	{
		$server->safe_psql('postgres', "CREATE DATABASE $database");
		$server->safe_psql($database, $setup);
	}
	# What stands apart comes first, all of it in one session.
	if (my @apart = grep { $_->{where} eq 'new' } @examples)
	{
		$node->safe_psql('postgres', "CREATE DATABASE ${database}_new");
		my @printed = run_there($node, "${database}_new", @apart);
		judge($page, $apart[$_], $printed[$_]) for 0 .. $#apart;
		@examples = grep { $_->{where} ne 'new' } @examples;
	}
	while (@examples)
	{
		my $where = $examples[0]{where};
		my @together;
		push @together, shift @examples while @examples && $examples[0]{where} eq $where;
		for my $server (split / /, $where)
		{
			my @printed = run_there($server eq 'here' ? $node : $subscriber, $database, @together);
			judge($page, $together[$_], $printed[$_]) for 0 .. $#together;
		}
	}
}
$_->stop for grep { defined } $subscriber, $node;

# ---- Memory ----

# What the server would take, in MB; many units make the difference plain.
sub shared_memory
{
	my ($out, $err);

	IPC::Run::run([ 'postgres', '-D', $node->data_dir, '-C', 'shared_memory_size', @_ ], '>', \$out, '2>', \$err) or die $err;
	return $out =~ s/\D//gr;
}

my $normal = shared_memory();
for my $name (sort grep { ($documented{$_}{'Memory of each'} // '') =~ /^[\d.]+$/ } keys %documented)
{
	my $more = $name =~ /max_queues|max_waiters/ ? 50_000 : 4_000_000;
	my $bytes = (shared_memory('-c', "$name=" . ($actual{$name}{Default} + $more)) - $normal) * 1024 * 1024 / $more;
	my $told = $documented{$name}{'Memory of each'};

	ok(abs($bytes - $told) < 0.1 * $told, "$name: a unit takes $told bytes") || diag("it takes $bytes");
}
my ($told) = $reference =~ /At\s+default\s+settings\s+it\s+is\s+about\s+(\d+)\s+MB/;
my $ours = $normal - shared_memory('-c', 'shared_preload_libraries=' . ($has_cron ? 'pg_cron' : ''));
ok(abs($ours - $told) < 0.1 * $told, "at default settings it is about $told MB") || diag("it is $ours");

done_testing();
