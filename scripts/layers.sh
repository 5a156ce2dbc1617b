#!/usr/bin/env bash
# What the house asks of src/, whose folders src/LAYERS orders.  Run by the suite "static" of make check; by hand: scripts/layers.sh [BUILD]
#
#	includes	a file includes its own folder and the floors below it
#	symbols		the same of what an object needs: an extern in a low header, for a function above, passes the first rule
#	circles		no objects of a folder need each other in a circle
#	words		an extern name begins with kvs_<file>_, or with what the file says of itself: "Names: kvs_x_"
#	columns		no line of a comment is longer than 100 columns
#
# BUILD is a folder with the objects of a build, by default this clone.
set -u
cd "$(dirname "$0")/.." || exit
BUILD=${1:-.}
export LC_ALL=C

# FOLDER FLOOR lines
floors=$(grep -v '^#' src/LAYERS | awk '{ for (i = 1; i <= NF; i++) print $i, NR }')

# Lines "FROM FILE TO WHAT": those that are not allowed
upward()
{
	awk -v rule="$1" 'NR == FNR { floor[$1] = $2; next }
		$1 != $3 && !(floor[$3] + 0 > 0 && floor[$3] < floor[$1]) { print rule ": src/" $1 "/" $2 " uses " $4 " of " $3 "/, which is not below it" }' <(printf '%s\n' "$floors") -
}

folders() { (cd src && printf '%s\n' */ | tr -d / | awk 'NR == FNR { floor[$1] = 1; next } !($1 in floor) { print "src/" $1 " is not in src/LAYERS" }' <(printf '%s\n' "$floors") -); }

includes()
{
	grep -Ho '^#include "[a-z]*/[a-z0-9]*\.h"' src/*/*.[ch] |
		sed -E 's/^src\/([a-z]+)\/([a-z0-9.]+):#include "([a-z]+)\/([a-z0-9.]+)"/\1 \2 \3 \4/' |
		awk 'NR == FNR { floor[$1] = 1; next } $3 in floor' <(printf '%s\n' "$floors") - | upward includes
}

# FOLDER FILE KIND SYMBOL lines
objects()
{
	(cd "$BUILD" && nm -A src/*/*.o) | sed -nE 's/^src\/([a-z]+)\/([a-z0-9]+)\.o:[0-9a-f ]* ([A-Z]) ((kvs|kvstore)_.*)/\1 \2 \3 \4/p'
}

# FOLDER FILE HOME-FOLDER SYMBOL HOME-FILE lines: what an object needs of another
needs()
{
	awk '$3 != "U" { folder[$4] = $1; file[$4] = $2; next } { need[++n] = $0 }
		END { for (i = 1; i <= n; i++) { split(need[i], f, " "); if (f[4] in folder) print f[1], f[2], folder[f[4]], f[4], file[f[4]] } }' <<< "$symbols"
}

symbols() { needs | upward symbols; }

circles()
{
	local folder
	for folder in $(cut -d ' ' -f 1 <<< "$floors"); do
		needs | awk -v folder="$folder" '$1 == folder && $3 == folder && $2 != $5 { print $2, $5 }' | sort -u | tsort 2>&1 > /dev/null |
			sed -n "s/^tsort: \([a-z0-9]*\)$/circles: src\/$folder\/\1 is in one/p"
	done
}

words()
{
	{
		grep -Ho 'Names: kvs_.*' src/*/*.[ch] | sed -E 's/^src\/[a-z]+\/([a-z0-9]+)\.[ch]:Names: /\1 /; s/,//g'
		echo -
		awk '$3 ~ /[TDBR]/ && $4 ~ /^kvs_/' <<< "$symbols"
	} | awk '$1 == "-" { symbols = 1; next }
		!symbols { for (i = 2; i <= NF; i++) words[$1] = words[$1] " " $i; next }
		{
			if ($4 == "kvs_" $2) next
			n = split(words[$2] " kvs_" $2 "_", word, " ")
			for (i = 1; i <= n; i++) if (index($4, word[i]) == 1) next
			print "words: " $4 " is in src/" $1 "/" $2 ".c, which has not its word"
		}'
}

columns()
{
	local file
	for file in src/*.c src/*/*.[ch]; do
		expand -t 4 "$file" | awk -v file="$file" '
			{ inside = open || /^[ \t]*\/\*/; if (/\/\*/) open = 1; if (/\*\//) open = 0 }
			(inside || /\/\*/) && length($0) > 100 { print "columns: " file ":" NR }'
	done
}

symbols=$(objects)
faults=$(folders; includes; symbols; circles; words; columns)
[ -n "$symbols" ] || faults+="there are no objects in $BUILD/src"
[ -z "$faults" ] || { printf '%s\n' "$faults"; exit 1; }
