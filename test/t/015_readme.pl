# README.md tells the truth: its examples give the output it shows, its table of settings is that of the server.
#
# Examples: a fenced block "sql" that is followed by a fenced block "text", with nothing but empty lines between, holds what one types into
# psql and what psql then prints, on stdout and stderr, with command tags.  All of them are run in order by one psql in one new database.  What
# differs from one run to the next is compared in a normal form: a time is "<time>", spaces and lines of dashes have one length, lines that begin
# with "CONTEXT:" are left out, and a line "..." stands for any number of lines.
#
# Settings: a table with the columns "Setting" and "Default", and "Context" if there is one.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $file = "$FindBin::RealBin/../../README.md";
plan skip_all => 'there is no README.md here' unless -r $file;
my @lines = split /\n/, slurp_file($file);
my $node = kvs_node('readme');

# ---- Settings ----

sub cells
{
	my ($line) = @_;
	my @cells = split /(?<!\\)\|/, $line, -1;
	s/^\s+|\s+$//g for @cells;
	return @cells[ 1 .. $#cells - 1 ];
}

my %documented;
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

SKIP:
{
	skip 'README.md has no table of settings', 1 unless %documented;

	# As SHOW says it, in a server where nothing is set.
	my %actual = map { my ($name, $default, $context) = split /\|/; $name => { Default => $default, Context => $context } } split /\n/,
	  $node->safe_psql('postgres', q{LOAD 'kvstore'; SELECT name, current_setting(name), context FROM pg_settings WHERE name LIKE 'kvstore.%'});
	is_deeply([ sort keys %documented ], [ sort keys %actual ], 'the settings of the server are those of README.md');
	for my $name (sort grep { $actual{$_} } keys %documented)
	{
		is($documented{$name}{Default}, $actual{$name}{Default}, "$name: default");
		is($documented{$name}{Context}, $actual{$name}{Context}, "$name: context") if exists $documented{$name}{Context};
	}
}

# ---- Examples ----

# The fenced blocks, each with its language, its first line's number and what stands between it and the one before.
my @blocks;
my $between = '';
for (my $i = 0; $i < @lines; $i++)
{
	if ($lines[$i] !~ /^(\s*)```(\w*)/)
	{
		$between .= $lines[$i];
		next;
	}
	my ($indent, $block) = ($1, { language => $2, line => $i + 2, between => $between, text => [] });
	push @{ $block->{text} }, $lines[$i] =~ s/^$indent//r while ++$i < @lines && $lines[$i] !~ /^\s*```\s*$/;
	push @blocks, $block;
	$between = '';
}
my @examples;
for my $i (1 .. $#blocks)
{
	my ($sql, $text) = @blocks[ $i - 1, $i ];
	push @examples, { line => $sql->{line}, sql => $sql->{text}, text => $text->{text} } if $sql->{language} eq 'sql' && $text->{language} eq 'text' && $text->{between} !~ /\S/;
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

SKIP:
{
	skip 'README.md has no examples', 1 unless @examples;

	$node->safe_psql('postgres', 'CREATE DATABASE readme');
	my $marker = '---- example ends ----';
	my $script = join "\n", 'SET TimeZone = \'UTC\';', "\\echo $marker", map({ (@{ $_->{sql} }, "\\echo $marker") } @examples), '';
	my $output = '';
	IPC::Run::run [ 'psql', '-X', '-d', $node->connstr('readme') ], '<', \$script, '>', \$output, '2>&1';
	my @printed = split /\Q$marker\E\n/, $output, -1;
	shift @printed;
	is(scalar(@printed), @examples + 1, 'psql has come to the end of the last example');
	for my $i (0 .. $#examples)
	{
		my @shown = map { normal($_) } grep { !/^CONTEXT:/ } @{ $examples[$i]{text} };
		my @got = map { normal($_) } grep { !/^CONTEXT:/ } split /\n/, $printed[$i] // '';
		for my $part (\@shown, \@got)
		{
			pop @$part while @$part && $part->[-1] eq '';
			shift @$part while @$part && $part->[0] eq '';
		}
		ok(matches(\@shown, \@got), "README.md, line $examples[$i]{line}: the output is as shown")
		  || diag("shown:\n  ", join("\n  ", @shown), "\nprinted:\n  ", join("\n  ", @got));
	}
}
$node->stop;

done_testing();
