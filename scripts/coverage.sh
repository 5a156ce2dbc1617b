#!/usr/bin/env bash
# make coverage: how much of src/ the suites of "make check" run: lines and branches of each file and of all; results/coverage/index.html shows which.
#
# The clone is copied, the copy is built with gcov's counters and without optimization, so that no line is folded into another, and the copy's own
# scripts/check.sh runs as it always does; the ordinary build is left alone.  A process adds its counts to those of the objects when it exits: what a
# server did that is killed, or stopped at once, does not count.
#
# A branch is each outcome of each condition in the lines of src/: both of "if", "?:", "&&", "||", each case of a switch.  Those in macros count, too
# (ereport, PG_TRY, CHECK_FOR_INTERRUPTS: 1 branch in 15), although no test can choose that an interrupt is pending, or that ereport(ERROR) returns:
# 100 % are not to be had.
#
# The last line is "lines N %, branches N %"; the exit status is 0 only when no test failed and both reach their target.
# Environment: that of check.sh (KVS_ONLY, KVS_TESTS); see common.sh for more.

# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

LINES_TARGET=92
BRANCHES_TARGET=80
FIGURES=$KVS_ROOT/results/coverage

kvs_install_missing check gcovr
kvs_make_tmp
# The servers' user owns the copy: it is servers that write the counts.
kvs_copy_in coverage .tools Makefile META.json README.md doc CONTRIBUTING.md SECURITY.md CHANGELOG.md LICENSE examples expected extras kvstore.control scripts sql src test
COPY=$KVS_TMP/work/coverage
rm -f "$COPY"/src/{.,*}/*.{o,bc}

# Not "static": it runs nothing of src/, and gcov's symbols have no prefix.  As who called, as ever: check.sh itself knows as whom servers run.
failed=0
export KVS_ONLY=${KVS_ONLY:-regress isolation tap pgtap} PROFILE='--coverage -O0'
KVS_USER='' kvs_run env HOME="$KVS_HOME" "$COPY/scripts/check.sh" || failed=1

cd "$COPY"
mkdir html
gcovr --root . --filter src/ --csv figures.csv --html-details html/index.html src
kvs_as_owner rm -rf "$FIGURES"
kvs_as_owner mkdir -p "$FIGURES"
tar -C html -cf - . | kvs_as_owner tar -C "$FIGURES" --no-same-owner -xf -

awk -F , -v lines_target=$LINES_TARGET -v branches_target=$BRANCHES_TARGET -v failed=$failed '
	function percent(covered, total) { return total ? int(1000 * covered / total) / 10 : 100 }
	function figures(name, l, lt, b, bt) {
		printf "%-28s %5d of %5d lines %5.1f %%   %5d of %5d branches %5.1f %%\n", name, l, lt, percent(l, lt), b, bt, percent(b, bt)
	}
	NR > 1 { figures($1, $3, $2, $6, $5); lt += $2; l += $3; bt += $5; b += $6 }
	END {
		figures("all", l, lt, b, bt)
		if (failed) print "a test failed, see above"
		if (percent(l, lt) < lines_target) { print "fewer lines than " lines_target " %"; failed = 1 }
		if (percent(b, bt) < branches_target) { print "fewer branches than " branches_target " %"; failed = 1 }
		printf "lines %.1f %%, branches %.1f %%\n", percent(l, lt), percent(b, bt)
		exit failed
	}' figures.csv
