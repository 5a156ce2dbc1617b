#!/usr/bin/env bash
# make check-versions: "make check" of what is committed here, on the newer versions of PostgreSQL that Debian has, each in a minimal Debian of a
# suite that brings it, made for it.  A warning of the compiler is a failure there.  The last line is "N passed, N failed" alone, the
# total; the exit status is 0 only when all passed on each.
#
# Environment: KVS_SUITES (default "trixie sid": PostgreSQL 17 and 18); KVS_ONLY and KVS_TESTS as in check.sh; see debian.sh for more.

# shellcheck source=scripts/debian.sh
. "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

KVS_SUITES=${KVS_SUITES:-trixie sid}
passed=0
failed=0
status=0

debian_begin KVS_SUITES KVS_ONLY KVS_TESTS
printf -v check 'COPT=-Werror KVS_ONLY=%q KVS_TESTS=%q make check' "${KVS_ONLY:-}" "${KVS_TESTS:-}"

for suite in $KVS_SUITES; do
	root=$DEBIAN_TMP/$suite
	debian_copy "$suite" "$root"
	debian_stage "$suite: make check" "$root" root "git clone -q /kvstore.bundle kvstore && cd kvstore && $check" || status=1
	passed=$((passed + DEBIAN_PASSED))
	failed=$((failed + DEBIAN_FAILED))
	# What a version lacks and the others have is to be seen.
	grep -E 'skipped' "$DEBIAN_TMP/log" || true
	debian_remove "$root"
done
say "$passed passed, $failed failed"
exit $status
