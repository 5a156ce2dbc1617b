# Every function against a model: a random sequence of calls over 20 keys of all part types, and a dictionary in this program that says what each must give.  The
# server is restarted between, also by a crash.  Versionstamps of a key only grow, and stay when nobody writes.
#
# KVS_MODEL_STEPS: how many calls, 10,000 by default; KVS_MODEL_SEED: the sequence, printed at the start, for having it again.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Open2;
use List::Util qw(first max min shuffle sum);
use Math::BigFloat;
use Math::BigInt;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use KvsTest;

my $steps = $ENV{KVS_MODEL_STEPS} // 10000;
my $seed = $ENV{KVS_MODEL_SEED} // int(rand(2**31));
srand($seed);
diag("model: KVS_MODEL_SEED=$seed KVS_MODEL_STEPS=$steps");

use constant BATCH => 100;    # calls in one round trip
use constant SHORT => 1;      # seconds, of an expiry that comes during the run
use constant HOUR => 3600;
use constant TOLERANCE => 300;    # of an expiry in hours: clocks agree, but a run on a busy machine is slow
use constant U64 => Math::BigInt->new(2)**64;

# ---- Keys ----

# As PostgreSQL writes the path; those of one string are plain-string keys too.
my @keys = ('[""]', '["a"]', '["a:1"]', '["a:2"]', '["ab"]', '["b"]', '["ключ"]', '["a", 1]', '["a", 2.5]', '["a", true]', '["a", {"bytes": "AAE="}]', '["a", 1, "deep"]',
	'["a:1", "x"]', '["b", {"bigint": "12345678901234567890"}]', '[1]', '[-1.5]', '[true]', '[{"bytes": ""}]', '[{"bigint": "-7"}]', '[{"number": "Infinity"}]');
my %position;    # in encoded order
my @prefixes = ('[]', '["a"]', '["a", 1]', '["a:1"]', '["b"]', '[1]', '["none"]');
my @text_prefixes = ('', 'a', 'a:', 'ab', 'b', 'кл', 'none');

# The string of a plain-string key, undef for other paths.
sub text_of { return $_[0] =~ /^\["([^"]*)"\]$/ ? $1 : undef }

sub quoted { my ($s) = @_; $s =~ s/'/''/g; return "'$s'" }

# An argument: text or, also for plain strings, kvkey.
sub key_argument
{
	my ($key) = @_;
	my $text = text_of($key);
	return defined $text && rand() < 0.7 ? quoted($text) . '::text' : quoted($key) . '::kvkey';
}

# In JSON: a string or an array.
sub key_json
{
	my ($key) = @_;
	my $text = text_of($key);
	return defined $text && rand() < 0.5 ? "\"$text\"" : $key;
}

# Is the path strictly below the prefix?
sub is_below
{
	my ($key, $prefix) = @_;
	return 1 if $prefix eq '[]';
	return index($key, substr($prefix, 0, -1) . ', ') == 0;
}

sub starts_with { my ($key, $prefix) = @_; my $text = text_of($key); return defined $text && index($text, $prefix) == 0 }

sub pick { return $_[ rand @_ ] }
sub chance { return rand() < $_[0] }
sub some_keys { my ($most) = @_; return map { pick(@keys) } 1 .. int(rand($most + 1)) }

# ---- What is stored ----

# A value: json text as PostgreSQL writes it, hex of bytes, or decimal digits of u64.
sub some_json { return pick('null', 'true', '"text"', '""', '[]', '{}', '[1, null, "x"]', '{"a": {"b": [1]}}', map { int(rand(200)) - 100 } 1 .. 8) }
sub some_bytes { return join '', map { sprintf '%02x', rand 256 } 1 .. rand 6 }
sub some_u64 { return pick('0', '1', '18446744073709551615', '9223372036854775808', int(rand(1000))) }
sub some_number { return pick(int(rand(200)) - 100, '0.25', '-0.75', '1.50', '36893488147419103233', '1') }

sub is_number { return $_[0] =~ /^-?\d+(\.\d+)?$/ }

# Numbers without needless zeros, so that 1.50 and 1.5 compare as equal.
sub normal
{
	my ($value) = @_;
	return $value unless defined $value && is_number($value) && $value =~ /\./;
	$value =~ s/0+$//;
	$value =~ s/\.$//;
	return $value;
}

my %base64 = map { $_ => substr('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/', $_, 1) } 0 .. 63;
sub base64_of
{
	my ($hex) = @_;
	my $bits = unpack 'B*', pack 'H*', $hex;
	my $pad = (3 - length($hex) / 2 % 3) % 3;
	$bits .= '0' x (6 - length($bits) % 6) if length($bits) % 6;
	return join('', map { $base64{ oct "0b$_" } } $bits =~ /(.{6})/g) . '=' x $pad;
}

# ---- The model ----

# Of each store: what its keys hold, { kind, value, expires, stamp }, the highest stamp that each has ever had, and its default expiry in hours.
# expires: undef never, 'short', or a time in seconds.  stamp: that of the last write, undef until a call tells
# it, and the one that it is above.
my ($model, $store, $problem);

sub live { return $model->{entries}{ $_[0] } }
sub live_keys { return sort { $position{$a} <=> $position{$b} } grep { live($_) } @keys }

# What a call is to do with the expiry: what SQL says, and what the model makes of it.
sub default_expiry { return $model->{default} ? time + $model->{default} * HOUR : undef }

sub some_expiry
{
	my ($short) = @_;
	my $hours = 1 + int(rand(8));
	return pick(
		{ sql => '', of => sub { default_expiry() }, none => 1 },
		{ sql => '', of => sub { default_expiry() }, none => 1 },
		{ sql => ", ttl => '$hours hours'", of => sub { time + $hours * HOUR }, ms => $hours * HOUR * 1000 },
		{ sql => ", expires_at => clock_timestamp() + interval '$hours hours'", of => sub { time + $hours * HOUR }, ms => $hours * HOUR * 1000 },
		{ sql => ", expires_at => 'infinity'", of => sub { undef } },
		pick({ sql => ", ttl => '0'", of => sub { 'past' }, ms => 0 }, { sql => ", expires_at => '2001-01-01'", of => sub { 'past' }, ms => 0 }),
		$short ? { sql => ", ttl => '" . SHORT . " s'", of => sub { 'short' }, ms => SHORT * 1000 } : ());
}

sub wrong { $problem //= $_[0] }

sub grow
{
	my ($key, $stamp) = @_;
	wrong("versionstamp $stamp of $key is not above $model->{highest}{$key}") if $stamp <= ($model->{highest}{$key} // 0);
	$model->{highest}{$key} = $stamp;
}

# The key holds this from now on.  No stamp: the call did not tell it.
sub write_entry
{
	my ($key, $kind, $value, $expires, $stamp) = @_;
	my $above = $model->{highest}{$key} // 0;
	grow($key, $stamp) if defined $stamp;
	if (defined $expires && $expires eq 'past')
	{
		delete $model->{entries}{$key};
		return;
	}
	$model->{entries}{$key} = { kind => $kind, value => $value, expires => $expires, stamp => [ $stamp, $above ] };
}

sub delete_entry { delete $model->{entries}{ $_[0] } }

# Compare a row (value, bytes, kind, versionstamp, expires_at as seconds) with what the key holds.
sub check_row
{
	my ($key, $value, $bytes, $kind, $stamp, $expires, $keys_only) = @_;
	my $entry = live($key);
	my @is = map { $_ eq 'NULL' ? undef : $_ } $value, $bytes, $kind, $stamp, $expires;
	my $said = join ' ', map { $_ // 'NULL' } $key, @is;

	unless ($entry)
	{
		wrong("$said: is to be absent") if defined $is[2] || $stamp ne '0' || defined $is[0] || defined $is[1];
		return;
	}
	my $json = $entry->{kind} ne 'bytes';
	my $is = $json ? $is[0] : $is[1];
	my $other = $json ? $is[1] : $is[0];
	wrong("$said: is to be $entry->{kind} $entry->{value}") if ($is[2] // '') ne $entry->{kind} || defined $other || (!$keys_only && (normal($is) // 'NULL') ne normal($entry->{value}));
	wrong("$said: keys_only gives a value") if $keys_only && defined $is;
	if (defined $entry->{stamp}[0])
	{
		wrong("$said: its versionstamp is to be $entry->{stamp}[0]") if $entry->{stamp}[0] != $stamp;
	}
	else
	{
		wrong("$said: its versionstamp is not above $entry->{stamp}[1]") if $stamp <= $entry->{stamp}[1];
		$entry->{stamp}[0] = $stamp;
		$model->{highest}{$key} = max($stamp, $model->{highest}{$key} // 0);
	}
	check_expiry($said, $entry, $is[4]);
}

sub check_expiry
{
	my ($said, $entry, $expires) = @_;
	my $expected = $entry->{expires};
	if (!defined $expected || !defined $expires)
	{
		wrong("$said: expires differently, expected " . ($expected // 'never')) if defined $expected || defined $expires;
		return;
	}
	$expected = time if $expected eq 'short';
	wrong("$said: is to expire at $expected") if abs($expected - $expires) > TOLERANCE;
}

# ---- Arithmetic ----

# What the entry becomes, ('json' or 'u64', value), or an SQLSTATE alone.
sub arithmetic
{
	my ($operation, $entry, $operand) = @_;
	my ($kind, $value) = @$entry{qw(kind value)};
	return ('KV005') if $kind eq 'bytes' || !is_number($value);
	if ($kind eq 'u64')
	{
		return ('22023') if normal($operand) =~ /\./;
		return ('22023') if $operation ne 'sum' && (Math::BigInt->new($operand) < 0 || Math::BigInt->new($operand) >= U64);
	}
	my ($a, $b) = (Math::BigFloat->new($value), Math::BigFloat->new($operand));
	my $result = $operation eq 'sum' ? $a + $b : $operation eq 'min' ? ($b < $a ? $b : $a) : ($b > $a ? $b : $a);
	$result = Math::BigInt->new($result->bstr)->bmod(U64) if $kind eq 'u64';
	return ($kind, normal($result->bstr));
}

# ---- Steps ----

# Each makes a call: { sql, check => sub (SQLSTATE, rows) }.  It is made before those before it have run, so it must not look at the model except in check.
my $row = "value, encode(bytes, 'hex'), kind, versionstamp, ceil(extract(epoch FROM expires_at))";

# Which version a call asks for: what it has now (0 if absent), one that it never has, that it is absent, or none.  "before" is a statement that looks.
sub some_version
{
	my ($key, $name) = @_;
	return pick(
		{ sql => '', matches => sub { 1 } },
		{ sql => ", $name => :v", before => 'SELECT versionstamp AS v FROM kv_entry(' . quoted($key) . "::kvkey, '$store') \\gset\n", matches => sub { 1 }, current => 1 },
		{ sql => ", $name => 1", matches => sub { 0 } },
		{ sql => ", $name => 0", matches => sub { !live($key) } });
}

sub same_state
{
	my ($what, $state, @expected) = @_;
	wrong("$what: SQLSTATE $state, expected @expected") unless grep { $state eq $_ } @expected;
	return $state eq '00000';
}

sub one_line
{
	my ($what, $lines, $expected) = @_;
	wrong("$what: gave " . join(' / ', @$lines) . ", expected $expected") unless @$lines == 1 && normal($lines->[0]) eq normal($expected);
}

my %steps = (
	get => [ 6, sub {
		my $key = pick(@keys);
		return ("SELECT kv_get(" . key_argument($key) . ", '$store')", sub {
			my ($state, $lines) = @_;
			my $entry = live($key);
			same_state('kv_get', $state, $entry && $entry->{kind} eq 'bytes' ? 'KV005' : '00000')
				and one_line("kv_get $key", $lines, $entry ? $entry->{value} : 'NULL');
		});
	} ],
	get_bytes => [ 3, sub {
		my $key = pick(@keys);
		return ("SELECT encode(kv_get_bytes(" . key_argument($key) . ", '$store'), 'hex')", sub {
			my ($state, $lines) = @_;
			my $entry = live($key);
			same_state('kv_get_bytes', $state, $entry && $entry->{kind} ne 'bytes' ? 'KV005' : '00000')
				and one_line("kv_get_bytes $key", $lines, $entry ? $entry->{value} : 'NULL');
		});
	} ],
	exists => [ 3, sub {
		my $key = pick(@keys);
		return ("SELECT kv_exists(" . key_argument($key) . ", '$store')", sub {
			my ($state, $lines) = @_;
			same_state('kv_exists', $state, '00000') and one_line("kv_exists $key", $lines, live($key) ? 't' : 'f');
		});
	} ],
	entry => [ 8, sub {
		my $key = pick(@keys);
		return ("SELECT $row FROM kv_entry(" . key_argument($key) . ", '$store')", sub {
			my ($state, $lines) = @_;
			same_state('kv_entry', $state, '00000') and check_row($key, split /\|/, $lines->[0]);
		});
	} ],
	get_many => [ 4, sub {
		my @wanted = some_keys(12);
		my $texts = chance(0.5);
		@wanted = grep { defined text_of($_) } @wanted if $texts;
		my $sql = $texts ? 'kv_get_many(ARRAY[' . join(', ', map { quoted(text_of($_)) } @wanted) . ']::text[]'
			: 'kv_get_many_paths(' . quoted('[' . join(', ', map { key_json($_) } @wanted) . ']');
		return ("SELECT $row FROM $sql, '$store')", sub {
			my ($state, $lines) = @_;
			same_state('kv_get_many', $state, '00000') or return;
			wrong('kv_get_many: ' . @$lines . ' rows for ' . @wanted) if @$lines != @wanted;
			check_row($wanted[$_], split /\|/, $lines->[$_]) for 0 .. $#wanted;
		});
	} ],
	set => [ 14, sub {
		my ($short) = @_;
		my $key = pick(@keys);
		my $bytes = chance(0.2);
		my $value = $bytes ? some_bytes() : some_json();
		my $expiry = some_expiry($short);
		my $version = some_version($key, 'if_version');
		my $keep = chance(0.2);
		my $call = $bytes ? "kv_set_bytes(" . key_argument($key) . ", '\\x$value'" : "kv_set(" . key_argument($key) . ", '$value'";
		return (($version->{before} // '') . "SELECT $call$expiry->{sql}$version->{sql}" . ($keep ? ', keep_ttl => true' : '') . ", store => '$store')", sub {
			my ($state, $lines) = @_;
			my $entry = live($key);
			same_state('kv_set', $state, '00000') or return;
			if ($version->{matches}->())
			{
				wrong("kv_set $key: gave @$lines") if @$lines != 1 || $lines->[0] !~ /^\d+$/;
				write_entry($key, $bytes ? 'bytes' : 'json', $value, $keep && $entry ? $entry->{expires} : $expiry->{of}->(), $lines->[0]) unless $problem;
			}
			else
			{
				one_line("kv_set $key", $lines, 'NULL');
			}
		});
	} ],
	delete => [ 4, sub {
		my $key = pick(@keys);
		my $version = some_version($key, 'if_version');
		return (($version->{before} // '') . "SELECT kv_delete(" . key_argument($key) . "$version->{sql}, store => '$store')", sub {
			my ($state, $lines) = @_;
			my $deletes = live($key) && $version->{matches}->();
			same_state('kv_delete', $state, '00000') and one_line("kv_delete $key", $lines, $deletes ? 't' : 'f');
			delete_entry($key) if $deletes;
		});
	} ],
	take => [ 3, sub {
		my $key = pick(@keys);
		return ("SELECT kv_take(" . key_argument($key) . ", '$store')", sub {
			my ($state, $lines) = @_;
			my $entry = live($key);
			same_state('kv_take', $state, $entry && $entry->{kind} eq 'bytes' ? 'KV005' : '00000') or return;
			one_line("kv_take $key", $lines, $entry ? $entry->{value} : 'NULL');
			delete_entry($key);
		});
	} ],
	expire => [ 5, sub {
		my ($short) = @_;
		my $key = pick(@keys);
		my $expiry = some_expiry($short);
		my $version = some_version($key, 'if_version');
		return (($version->{before} // '') . "SELECT kv_expire(" . key_argument($key) . "$expiry->{sql}$version->{sql}, store => '$store')", sub {
			my ($state, $lines) = @_;
			my $entry = live($key);
			my $renews = $entry && $version->{matches}->();
			same_state('kv_expire', $state, '00000') and one_line("kv_expire $key", $lines, $renews ? 't' : 'f');
			return unless $renews;
			$entry->{expires} = $expiry->{none} ? undef : $expiry->{of}->();
			delete_entry($key) if ($entry->{expires} // '') eq 'past';
		});
	} ],
	incr => [ 8, sub {
		my ($short) = @_;
		my $key = pick(@keys);
		my $by = some_number();
		my $hours = 1 + int(rand(8));
		my $ttl = pick('', ", ttl => '$hours hours'");
		return ("SELECT kv_incr(" . key_argument($key) . ", $by$ttl, store => '$store')", sub {
			my ($state, $lines) = @_;
			my $entry = live($key);
			my @after = $entry ? arithmetic('sum', $entry, $by) : ('json', $by);
			same_state('kv_incr', $state, @after == 1 ? $after[0] : '00000') or return;
			one_line("kv_incr $key", $lines, $after[1]);
			write_entry($key, @after, $entry ? $entry->{expires} : $ttl ? time + $hours * HOUR : default_expiry());
		});
	} ],
	set_many => [ 4, sub {
		my ($short) = @_;
		my $texts = chance(0.5);
		my @wanted = grep { !$texts || defined text_of($_) } some_keys(8);
		my @values = map { some_json() } @wanted;
		my $expiry = some_expiry($short);
		my $call = $texts ? 'kv_set_many(ARRAY[' . join(', ', map { quoted(text_of($_)) } @wanted) . ']::text[], ARRAY[' . join(', ', map { quoted($_) } @values) . ']::jsonb[]'
			: 'kv_set_many_paths(' . quoted('[' . join(', ', map { key_json($_) } @wanted) . ']') . ', ' . quoted('[' . join(', ', @values) . ']');
		return ("SELECT $call$expiry->{sql}, store => '$store')", sub {
			my ($state, $lines) = @_;
			same_state('kv_set_many', $state, '00000') or return;
			my $expires = $expiry->{of}->();
			my %last = map { $wanted[$_] => $values[$_] } 0 .. $#wanted;
			wrong("kv_set_many: gave @$lines") if @$lines != 1 || $lines->[0] !~ /^\d+$/;
			write_entry($_, 'json', $last{$_}, $expires, $lines->[0]) for $problem ? () : keys %last;
		});
	} ],
	delete_many => [ 2, sub {
		my $texts = chance(0.5);
		my @wanted = grep { !$texts || defined text_of($_) } some_keys(6);
		my $call = $texts ? 'kv_delete_many(ARRAY[' . join(', ', map { quoted(text_of($_)) } @wanted) . ']::text[]'
			: 'kv_delete_many_paths(' . quoted('[' . join(', ', map { key_json($_) } @wanted) . ']');
		return ("SELECT $call, '$store')", sub {
			my ($state, $lines) = @_;
			my %there = map { $_ => 1 } grep { live($_) } @wanted;
			same_state('kv_delete_many', $state, '00000') and one_line('kv_delete_many', $lines, scalar keys %there);
			delete_entry($_) for keys %there;
		});
	} ],
	delete_prefix => [ 2, sub {
		my $texts = chance(0.5);
		my $prefix = $texts ? pick(grep { $_ ne '' } @text_prefixes) : pick(grep { $_ ne '[]' } @prefixes);
		return ('SELECT kv_delete_prefix(' . quoted($prefix) . ($texts ? '::text' : '::kvkey') . ", '$store')", sub {
			my ($state, $lines) = @_;
			my @there = grep { $texts ? starts_with($_, $prefix) : is_below($_, $prefix) } live_keys();
			same_state('kv_delete_prefix', $state, '00000') and one_line("kv_delete_prefix $prefix", $lines, scalar @there);
			delete_entry($_) for @there;
		});
	} ],
	clear => [ 0.3, sub {
		return ("SELECT kv_clear('$store')", sub {
			my ($state, $lines) = @_;
			my @there = live_keys();
			same_state('kv_clear', $state, '00000') and one_line('kv_clear', $lines, scalar @there);
			delete_entry($_) for @there;
		});
	} ],
	count => [ 3, sub {
		my $texts = chance(0.5);
		my $prefix = $texts ? pick(@text_prefixes) : pick(@prefixes);
		return ('SELECT kv_count(' . quoted($prefix) . ($texts ? '::text' : '::kvkey') . ", '$store')", sub {
			my ($state, $lines) = @_;
			same_state('kv_count', $state, '00000')
				and one_line("kv_count $prefix", $lines, scalar grep { $texts ? starts_with($_, $prefix) : is_below($_, $prefix) } live_keys());
		});
	} ],
	list => [ 8, sub {
		my $texts = chance(0.5);
		my $prefix = $texts ? pick(@text_prefixes) : pick(@prefixes);
		my %option;
		for my $bound (qw(start_key end_key after))
		{
			next if chance(0.7);
			$option{$bound} = pick(grep { !$texts || defined text_of($_) } @keys);
		}
		my $page_size = chance(0.5) ? 1 + int(rand(5)) : undef;
		my $reverse = chance(0.4);
		my $keys_only = chance(0.3);
		my $sql = 'kv_list(' . quoted($prefix) . ($texts ? '::text' : '::kvkey')
			. join('', map { ", $_ => " . ($texts ? quoted(text_of($option{$_})) . '::text' : quoted($option{$_}) . '::kvkey') } sort keys %option)
			. (defined $page_size ? ", page_size => $page_size" : '') . ($reverse ? ', reverse => true' : '') . ($keys_only ? ', keys_only => true' : '');
		return ("SELECT key, $row FROM $sql, store => '$store')", sub {
			my ($state, $lines) = @_;
			same_state('kv_list', $state, '00000') or return;
			my %at = map { $_ => $position{ $option{$_} } } keys %option;
			my @expected = grep { $texts ? starts_with($_, $prefix) : is_below($_, $prefix) } live_keys();
			@expected = grep { $position{$_} >= $at{start_key} } @expected if exists $at{start_key};
			@expected = grep { $position{$_} < $at{end_key} } @expected if exists $at{end_key};
			@expected = reverse @expected if $reverse;
			@expected = grep { $reverse ? $position{$_} < $at{after} : $position{$_} > $at{after} } @expected if exists $at{after};
			splice @expected, $page_size if defined $page_size && @expected > $page_size;
			my @rows = map { [ split /\|/ ] } @$lines;
			my @is = map { $texts ? "[\"$_->[0]\"]" : $_->[0] } @rows;
			wrong("$sql: gave @is, expected @expected") if "@is" ne "@expected";
			check_row($is[$_], @{ $rows[$_] }[ 1 .. 5 ], $keys_only) for $problem ? () : 0 .. $#rows;
		});
	} ],
	check => [ 3, sub {
		my $key = pick(@keys);
		my $version = pick(0, 1, ':v');
		my $before = 'SELECT versionstamp AS v FROM kv_entry(' . quoted($key) . "::kvkey, '$store') \\gset\n";
		return ("${before}SELECT kv_check(" . key_argument($key) . ", $version, '$store')", sub {
			my ($state, $lines) = @_;
			my $ok = $version eq ':v' || ($version eq '0' && !live($key));
			same_state('kv_check', $state, $ok ? '00000' : 'KV001') and one_line("kv_check $key", $lines, 't');
		});
	} ],
	atomic => [ 16, sub { return some_atomic(@_) } ],
	export => [ 2, sub {
		my $texts = chance(0.5);
		my $prefix = $texts ? pick(@text_prefixes) : pick(@prefixes);
		my $from = $texts ? 'jsonb_each(kv_export(' . quoted($prefix) . "::text, '$store')) AS e (key, value) ORDER BY kv_key(e.key)"
			: 'jsonb_array_elements(kv_export(' . quoted($prefix) . "::kvkey, '$store')) WITH ORDINALITY AS e (value, n) ORDER BY n";
		return ('SELECT ' . ($texts ? 'jsonb_build_array(e.key)' : "e.value -> 'key'") . ", e.value -> 'value', encode(decode(e.value ->> 'bytes', 'base64'), 'hex'), "
			. "e.value ->> 'u64', ceil((e.value ->> 'expiresAt')::numeric / 1000) FROM $from", sub {
			my ($state, $lines) = @_;
			same_state('kv_export', $state, '00000') or return;
			my @expected = grep { $texts ? starts_with($_, $prefix) : is_below($_, $prefix) } live_keys();
			my @rows = map { [ map { $_ eq 'NULL' ? undef : $_ } split /\|/ ] } @$lines;
			wrong("kv_export $prefix: gave " . join(' ', map { $_->[0] } @rows) . ", expected @expected") if join(' ', map { $_->[0] } @rows) ne "@expected";
			return if $problem;
			for my $i (0 .. $#rows)
			{
				my ($key, @is) = @{ $rows[$i] };
				my $entry = live($key);
				my %at = (json => 0, bytes => 1, u64 => 2);
				wrong("kv_export $key: gave " . join(' ', map { $_ // 'NULL' } @is) . ", expected $entry->{kind} $entry->{value}")
					if (normal($is[ $at{ $entry->{kind} } ]) // 'NULL') ne normal($entry->{value}) || 1 != grep { defined } @is[ 0 .. 2 ];
				check_expiry("kv_export $key", $entry, $is[3]);
			}
		});
	} ],
	import => [ 2, sub {
		my $texts = chance(0.5);
		my %said;
		for my $key (grep { !$texts || defined text_of($_) } some_keys(5))
		{
			my $kind = pick('json', 'json', 'bytes', 'u64');
			my $hours = pick(undef, 1 + int(rand(8)), -1);
			$said{$key} = { kind => $kind, hours => $hours, value => $kind eq 'json' ? some_json() : $kind eq 'bytes' ? some_bytes() : some_u64() };
		}
		my @documents;
		for my $key (sort keys %said)
		{
			my $entry = $said{$key};
			my $held = $entry->{kind} eq 'json' ? "\"value\": $entry->{value}" : $entry->{kind} eq 'u64' ? "\"u64\": \"$entry->{value}\"" : '"bytes": "' . base64_of($entry->{value}) . '"';
			$held .= sprintf ', "expiresAt": %d', (time + $entry->{hours} * HOUR) * 1000 if defined $entry->{hours};
			push @documents, $texts ? '"' . text_of($key) . "\": {$held}" : '{"key": ' . $key . ", $held}";
		}
		my $data = join ', ', @documents;
		return ('SELECT kv_import(' . quoted($texts ? "{$data}" : "[$data]") . ", '$store')", sub {
			my ($state, $lines) = @_;
			my @live = grep { ($said{$_}{hours} // 1) > 0 } keys %said;
			same_state('kv_import', $state, '00000') and one_line('kv_import', $lines, scalar @live);
			write_entry($_, $said{$_}{kind}, $said{$_}{value}, defined $said{$_}{hours} ? time + $said{$_}{hours} * HOUR : undef) for @live;
		});
	} ],
	# What was exported comes back the same.
	round_trip => [ 0.5, sub {
		return ("SELECT kv_import(kv_export(kv_key(), '$store'), '$store')", sub {
			my ($state, $lines) = @_;
			my @there = live_keys();
			same_state('kv_import', $state, '00000') and one_line('kv_import of kv_export', $lines, scalar @there);
			write_entry($_, @{ live($_) }{qw(kind value expires)}) for @there;
		});
	} ],
	vacuum => [ 0.1, sub { return ("VACUUM kvstore.s_$store", sub { same_state('VACUUM', $_[0], '00000', '25001') }) } ]);

# kv_atomic: up to eight operations, mostly on few keys, so that several meet on one.
sub some_atomic
{
	my ($short) = @_;
	my @few = map { pick(@keys) } 1 .. 4;
	my (@operations, @json);
	my $before = '';
	my $has_version = 0;

	for my $n (1 .. int(rand(9)))
	{
		my $key = pick(@few);
		my $name = pick('set', 'set', 'delete', 'sum', 'sum', 'min', 'max', 'check');
		my %operation = (name => $name, key => $key, position => $n);
		my $fields = '"key": ' . key_json($key);
		if ($name eq 'check')
		{
			# one key's version can be looked up before; others are asked for as absent
			$operation{version} = $has_version ? pick(0, 1, 0, 0) : pick(0, 1, 'current', 'current', 'current');
			if ($operation{version} eq 'current')
			{
				$has_version = 1;
				$before = 'SELECT versionstamp AS v FROM kv_entry(' . quoted($key) . "::kvkey, '$store') \\gset\n";
			}
			$fields .= ', "versionstamp": ' . ($operation{version} eq 'current' ? "' || :v || '" : chance(0.5) ? $operation{version} : "\"$operation{version}\"");
		}
		elsif ($name eq 'set')
		{
			my $expiry = some_expiry($short);
			$operation{kind} = pick('json', 'json', 'json', 'bytes', 'u64');
			$operation{value} = $operation{kind} eq 'json' ? some_json() : $operation{kind} eq 'bytes' ? some_bytes() : some_u64();
			$operation{expires} = defined $expiry->{ms} ? $expiry->{of} : sub { default_expiry() };
			$fields .= $operation{kind} eq 'json' ? ", \"value\": $operation{value}" : $operation{kind} eq 'u64' ? ", \"u64\": \"$operation{value}\"" : ', "bytes": "' . base64_of($operation{value}) . '"';
			$fields .= ", \"ttl_ms\": $expiry->{ms}" if defined $expiry->{ms};
		}
		elsif ($name ne 'delete')
		{
			$operation{kind} = pick('json', 'json', 'u64');
			$operation{value} = $operation{kind} eq 'u64' ? some_u64() : some_number();
			$fields .= $operation{kind} eq 'u64' ? ", \"u64\": \"$operation{value}\"" : ", \"value\": $operation{value}";
		}
		push @operations, \%operation;
		push @json, "{\"$name\": {$fields}}";
	}
	my $sql = "SELECT ok, versionstamp, failed_checks FROM kv_atomic(('[" . join(', ', @json) . "]')::jsonb, '$store')";
	return ("$before$sql", sub {
		my ($state, $lines) = @_;
		my @failed = map { $_->{position} } grep { $_->{name} eq 'check' && !($_->{version} eq 'current' || ($_->{version} eq '0' && !live($_->{key}))) } @operations;
		my (%after, %errors, %touched);
		for my $operation (grep { $_->{name} ne 'check' } @operations)
		{
			my ($key, $name) = @$operation{qw(key name)};
			$after{$key} = live($key) unless exists $after{$key};
			my $entry = $after{$key};
			$touched{$key} = 1;
			if ($name eq 'set') { $after{$key} = { kind => $operation->{kind}, value => $operation->{value}, expires => $operation->{expires}->() } }
			elsif ($name eq 'delete') { $after{$key} = undef }
			elsif (!$entry || ($entry->{expires} // '') eq 'past') { $after{$key} = { kind => $operation->{kind}, value => $operation->{value}, expires => default_expiry() } }
			else
			{
				my @result = arithmetic($name, $entry, $operation->{value});
				if (@result == 1) { $errors{ $result[0] } = 1 }
				else { $after{$key} = { kind => $result[0], value => $result[1], expires => $entry->{expires} } }
			}
		}
		# with both, what comes first is not promised
		my @states = (keys %errors, !%errors || @failed ? '00000' : ());
		same_state("kv_atomic ($sql)", $state, @states) or return;
		my ($ok, $stamp, $failed) = split /\|/, $lines->[0];
		if (@failed)
		{
			wrong("$sql: gave @$lines, expected failed checks @failed") if "$ok|$stamp|$failed" ne 'f|NULL|{' . join(',', @failed) . '}';
			return;
		}
		wrong("$sql: gave @$lines") if $ok ne 't' || $stamp !~ /^\d+$/ || $failed ne '{}';
		return if $problem;
		for my $key (keys %touched)
		{
			if ($after{$key}) { write_entry($key, @{ $after{$key} }{qw(kind value expires)}, $stamp) }
			else { delete_entry($key) }
		}
	});
}

# ---- Running ----

my ($node, $in, $out, $pid, %done);

sub connect_psql
{
	disconnect_psql();
	my $connection = $node->connstr('postgres');
	local $ENV{PGCLIENTENCODING} = 'UTF8';
	$pid = open2($out, $in, "exec psql -X -A -t -q -P null=NULL -v v=0 -d \"$connection\" 2> /dev/null");
}

sub disconnect_psql
{
	return unless $pid;
	print $in "\\q\n";
	close $in;
	close $out;
	waitpid $pid, 0;
	$pid = undef;
}

# Run SQL, with a mark and the SQLSTATE after each step; gives [ SQLSTATE, lines ] of each.
sub run_batch
{
	my ($file, @sql) = @_;
	my (@results, @lines);

	open my $handle, '>', $file or die "$file: $!";
	print $handle "$sql[$_];\n\\echo '# $_' :SQLSTATE\n" for 0 .. $#sql;
	close $handle;
	print $in "\\i $file\n\\echo '# end'\n";
	$in->flush;
	while (my $line = <$out>)
	{
		chomp $line;
		return @results if $line eq '# end';
		if ($line =~ /^# (\d+) (\w{5})$/)
		{
			push @results, [ $2, [@lines] ];
			@lines = ();
		}
		else { push @lines, $line }
	}
	die 'psql ended; see the log of the server';
}

my @names = sort keys %steps;
my $weight = sum map { $steps{$_}[0] } @names;
sub some_step
{
	my ($short) = @_;
	my $at = rand $weight;
	my $name = first { ($at -= $steps{$_}[0]) < 0 } @names;
	my ($sql, $check) = $steps{$name}[1]->($short);
	return { name => $name, sql => $sql, check => $check };
}

# A copy, for what may be rolled back; the highest versionstamps stay, and what is learnt of a write that stays (stamp is shared).
sub copy_entries { return { map { $_ => { %{ $model->{entries}{$_} } } } keys %{ $model->{entries} } } }

# Steps, some of them in transactions.
sub some_batch
{
	my ($short) = @_;
	my (@batch, $left);

	for (1 .. BATCH)
	{
		if (!$left && chance(0.03))
		{
			push @batch, { name => 'begin', sql => 'BEGIN ISOLATION LEVEL ' . pick('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE') };
			$left = 1 + int(rand(6));
		}
		push @batch, some_step($short);
		push @batch, { name => pick('commit', 'rollback') } if $left && !--$left;
	}
	push @batch, { name => 'commit' } if $left;
	$_->{sql} //= uc $_->{name} for @batch;
	return @batch;
}

# Compare what the steps gave with the model, which follows.
sub check_batch
{
	my ($batch, $results) = @_;
	my ($saved, $aborted);

	for my $i (0 .. $#$batch)
	{
		my $step = $batch->[$i];
		my ($state, $lines) = @{ $results->[$i] };
		my $name = $step->{name};
		if ($name eq 'begin') { ($saved, $aborted) = (copy_entries(), 0) }
		elsif ($name eq 'commit' || $name eq 'rollback')
		{
			$model->{entries} = $saved if $name eq 'rollback' || $aborted;
			$saved = undef;
		}
		elsif ($aborted && $saved) { same_state($name, $state, '25P02') }
		else
		{
			$step->{check}->($state, $lines);
			$aborted = 1 if $saved && $state ne '00000';
		}
		$done{$name}{$state}++;
		return $i if $problem;
	}
	return;
}

# Each model starts in a store of its own; "count" steps, the server restarted between in these ways.
sub run_model
{
	my ($name, $count, @restarts) = @_;
	$problem = undef;
	my %models = (
		"m_$name" => { entries => {}, highest => {}, default => 0 },
		"t_$name" => { entries => {}, highest => {}, default => 9 },
		# with an index of the owner's, so that everything goes by the executor and nothing the short way
		"i_$name" => { entries => {}, highest => {}, default => 0 });
	my $file = PostgreSQL::Test::Utils::tempdir . '/batch.sql';
	my $batches = max(1, int($count / BATCH));
	my %restart_at = map { int($batches * ($_ + 1) / (@restarts + 1)) => $restarts[$_] } 0 .. $#restarts;
	my ($expired, $short_batches) = (0, 0);

	$node->safe_psql('postgres', "SELECT kv_create_store('m_$name'); SELECT kv_create_store('t_$name', default_ttl => '9 hours');
		SELECT kv_create_store('i_$name'); CREATE INDEX ON kvstore.s_i_$name (kind)");
	connect_psql();
	# No sequence is so unlucky, nor a machine so slow, that nothing expires: batches are added until something has.
	for (my $number = 1; $number <= $batches || (!$expired && $number <= $batches + 100); $number++)
	{
		my $short = $number > $batches || chance(min(0.05, 25 / $batches));
		$store = pick(sort keys %models);
		$model = $models{$store};
		my @batch = some_batch($short);
		my $began = time;
		my @results = run_batch($file, map { $_->{sql} } @batch);
		my $ended = time;
		if ($short && $ended - $began > SHORT * 0.9)
		{
			# Too slow to tell what has expired: leave this store, and go on with a new one.
			note("batch $number took too long for entries that live " . SHORT . " s");
			delete $models{$store};
			$store = "s_${name}_$number";
			$node->safe_psql('postgres', "SELECT kv_create_store('$store')");
			$models{$store} = { entries => {}, highest => {}, default => 0 };
			next;
		}
		my $failed = check_batch(\@batch, \@results);
		if (defined $failed)
		{
			fail("$name: batch $number, step $failed");
			diag("KVS_MODEL_SEED=$seed: $problem");
			diag(join "\n", map { "$_: $batch[$_]{sql}" } max(0, $failed - 5) .. $failed);
			return;
		}
		if ($short)
		{
			my @short = grep { ($model->{entries}{$_}{expires} // '') eq 'short' } keys %{ $model->{entries} };
			sleep(max(0, $ended + SHORT + 0.02 - time)) if @short;
			delete_entry($_) for @short;
			$expired += @short;
			$short_batches++;
		}
		if (my $restart = $restart_at{$number})
		{
			disconnect_psql();
			$node->stop($restart);
			$node->start;
			connect_psql();
		}
		connect_psql() if chance(0.02);
	}
	pass("$name: " . $batches * BATCH . ' calls gave what the model says, ' . @restarts . ' restarts');
	cmp_ok($expired, '>', 0, "$name: $expired entries expired during the run, in $short_batches batches");
	disconnect_psql();
}

for my $preload (1, 0)
{
	my $name = $preload ? 'preload' : 'noload';
	# A worker that sweeps an expired row may cost a SERIALIZABLE transaction a 40001, which the model does not foresee: no worker.
	$node = kvs_node("model_$name", preload => $preload, conf => "fsync = off\nlog_statement = none\nmax_worker_processes = 0\n");
	$node->safe_psql('postgres', 'CREATE EXTENSION kvstore; SELECT kv_create_store(); SELECT kv_set_many(ARRAY[1, 2]::text[], ARRAY[1, 2]::text[]::jsonb[]), kv_clear()');
	%position = map { split /#/ } split /\n/, $node->safe_psql('postgres', "SELECT k::kvkey::jsonb::text || '#' || row_number() OVER (ORDER BY k::kvkey) FROM unnest(ARRAY["
		. join(', ', map { quoted($_) } @keys) . ']) k');
	is(scalar(grep { $position{$_} } @keys), 20, "$name: the keys are written as PostgreSQL writes them");
	run_model($name, $preload ? $steps * 0.8 : $steps * 0.2, $preload ? ('fast', 'immediate', 'fast', 'immediate') : ('fast'));
	$node->stop;
}

# Everything has happened, and in all its ways.
for my $name (@names)
{
	my $how = join ', ', map { "$_: $done{$name}{$_}" } sort keys %{ $done{$name} // {} };
	cmp_ok($done{$name}{'00000'} // 0, '>', 0, "$name: $how") if $steps >= 5000;
}
for my $state (qw(KV001 KV005 22023 25P02))
{
	my $times = sum map { $_->{$state} // 0 } values %done;
	cmp_ok($times, '>', 0, "$state: $times times") if $steps >= 5000;
}

done_testing();
