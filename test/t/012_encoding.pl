# Keys are UTF-8, so only a database with that encoding can have the extension.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use KvsTest;

my $node = kvs_node('encoding');

for my $encoding (qw(LATIN1 SQL_ASCII EUC_JP))
{
	my $database = lc $encoding;
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0 ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C'");
	is(kvs_outcome($node, 'CREATE EXTENSION kvstore', $database), 'ERROR 0A000: kvstore needs a database with encoding UTF8', "$encoding: refused");
	my (undef, undef, $err) = $node->psql($database, 'CREATE EXTENSION kvstore');
	like($err, qr/DETAIL:  This database has encoding $encoding.*\nHINT:  Use a database made with CREATE DATABASE/, "$encoding: says why, and what to do");
	is($node->safe_psql($database, q{SELECT count(*) FROM pg_namespace WHERE nspname = 'kvstore'}), '0', "$encoding: nothing left behind");
}

$node->safe_psql('postgres', q{CREATE DATABASE utf8 TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'});
$node->safe_psql('utf8', q{CREATE EXTENSION kvstore; SELECT kv_create_store()});

# A client with another encoding: keys and messages are converted on the way, as everywhere.
is($node->safe_psql('utf8', qq{SET client_encoding = 'LATIN1';\nSELECT kv_set(E'\xe9', '"\xe9"');\nSET client_encoding = 'UTF8';\nSELECT kv_get(U&'\\00e9'), kv_get(chr(233)) = to_jsonb(chr(233))}),
	qq{1\n"\xc3\xa9"|t}, 'a client that speaks LATIN1');
is(kvs_outcome($node, qq{SELECT kv_get('\xff')}, 'utf8'), 'ERROR 22021: invalid byte sequence for encoding "UTF8": 0xff', 'not UTF-8: refused as everywhere');

# The file of one locale is not sorted by it: keys are in the order of their bytes.
is($node->safe_psql('utf8', q{SELECT count(kv_set(k, '1', store => 'default')) FROM unnest('{a,B,b,A,ä,Z}'::text[]) k; SELECT string_agg(key, ' ') FROM kv_list('') WHERE key <> chr(233)}), "6\nA B Z a b \xc3\xa4", 'order of bytes');
$node->stop;

done_testing();
