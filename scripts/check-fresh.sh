#!/usr/bin/env bash
# make check-fresh: proves that two commands are enough on a machine with nothing: "make demo" and "make check" of what is
# committed here, in a minimal Debian made for it, once as root and once as a user with sudo.
#
# Environment: KVS_SUITE (default bookworm), KVS_STAGES="root user"; see debian.sh for more.

# shellcheck source=scripts/debian.sh
. "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

KVS_SUITE=${KVS_SUITE:-bookworm}
KVS_STAGES=${KVS_STAGES:-root user}
FAILED=0

stage() { debian_stage "$@" || { FAILED=1; return 1; }; }

debian_begin KVS_SUITE KVS_STAGES

for user in $KVS_STAGES; do
	case $user in root) account=root ;; user) account=demo ;; *) die "KVS_STAGES: root user" ;; esac
	root=$DEBIAN_TMP/$user
	debian_copy "$KVS_SUITE" "$root"
	if stage "$user: git clone" "$root" "$account" "git clone -q /kvstore.bundle kvstore"; then
		stage "$user: make demo" "$root" "$account" "cd kvstore && make demo" || true
		stage "$user: make check" "$root" "$account" "cd kvstore && make check" || true
		# Two more promises: no cluster that nobody asked for, no file in the clone that git does not know.
		stage "$user: nothing left behind" "$root" "$account" \
			"cd kvstore && [ -z \"\$(git status --porcelain)\" ] && [ -z \"\$(pg_lsclusters -h)\" ] && ! ls -d /tmp/kvstore.* 2> /dev/null && [ ! -e /etc/postgresql-common/createcluster.d ]" || true
	fi
	debian_remove "$root"
done
[ "$FAILED" = 0 ]
