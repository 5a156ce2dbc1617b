#!/usr/bin/env bash
# make analyze: gcc -fanalyzer, clang-tidy and cppcheck find nothing in src/.
#
# Each exception stands with its reason in .clang-tidy or .cppcheck-suppressions, or beside its line.
#
# The last line is "N passed, N failed", of tools; the exit status is 0 only when none failed.
# Environment: KVS_ONLY="gcc clang-tidy cppcheck" chooses tools; see common.sh for more.

# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PASSED=0
FAILED=0
TOOLS=${KVS_ONLY:-gcc clang-tidy cppcheck}

# TOOL COMMAND...: run it on each source file, on all processors.
analyze()
{
	local tool=$1 start=$EPOCHREALTIME result=clean
	shift
	# What a file got is printed in one piece, and only if there is something wrong: clang-tidy counts what it does not tell.
	# shellcheck disable=SC2016 # bash -c expands it
	if printf '%s\n' src/*.c src/*/*.c | xargs -n 1 -P "$(nproc)" bash -c 'output=$("$@" 2>&1) || { printf "%s\n" "$output"; exit 1; }' _ "$@"; then
		PASSED=$((PASSED + 1))
	else
		FAILED=$((FAILED + 1))
		result=FAILED
	fi
	printf '%-12s %-8s %s\n' "$tool" "$result" "$(seconds_since "$start")"
}

for tool in $TOOLS; do
	case $tool in gcc | clang-tidy | cppcheck) ;; *) die "KVS_ONLY: there is no tool \"$tool\" (gcc clang-tidy cppcheck)" ;; esac
done
kvs_install_missing analyze clang-tidy cppcheck
kvs_make_tmp
mapfile -t FLAGS < <("${KVS_MAKE[@]}" flags)
# Where clang-tidy looks for them; not all of gcc's are known to it.
printf '%s\n' "${FLAGS[@]}" -Wno-unknown-warning-option -Wno-ignored-optimization-argument > "$KVS_TMP/compile_flags.txt"
INCLUDE=$("$PG_CONFIG" --includedir-server)

cd "$KVS_ROOT"
for tool in $TOOLS; do
	case $tool in
		gcc)
			analyze gcc gcc "${FLAGS[@]}" -fanalyzer -Werror -S -o "$KVS_TMP/unused.s"
			;;
		clang-tidy)
			analyze clang-tidy clang-tidy --quiet -p "$KVS_TMP"
			;;
		cppcheck)
			# With the server's headers, without which it would guess what each macro is; what it finds in them is not ours to mend.
			analyze cppcheck cppcheck --quiet --error-exitcode=1 --std=c99 --enable=warning,style,performance,portability \
				--inline-suppr --suppressions-list=.cppcheck-suppressions --suppress="*:$INCLUDE/*" \
				-I"$INCLUDE" -DKVS_VERSION='""' -D__GNUC__
			;;
	esac
done
say "$PASSED passed, $FAILED failed"
[ "$FAILED" = 0 ]
