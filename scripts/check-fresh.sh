#!/usr/bin/env bash
# make check-fresh: proves that two commands are enough on a machine with nothing: "make demo" and "make check" of what is
# committed here, in a minimal Debian made for it, once as root and once as a user with sudo.
#
# The Debian lies in a folder (debootstrap, chroot), its mirrors are this machine's.  It holds git, make, sudo and
# certificates, without which nobody could clone; the rest is what the scripts under test must install.  A folder is copied
# for each of the two users, the made one is kept for the next time.  Everything is mounted in a mount namespace of its own
# and every process started in a process namespace of its own: both go when the stage ends, even by kill -9, so no
# forgotten mount leads the final rm out of the folder, and no server stays.
#
# Needs root (or sudo), debootstrap, and a Debian whose archive the suite is in.
# Environment: KVS_CACHE (default /var/cache/kvstore), KVS_SUITE (default bookworm), KVS_STAGES="root user".

set -euo pipefail
umask 022

KVS_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
KVS_CACHE=${KVS_CACHE:-/var/cache/kvstore}
KVS_SUITE=${KVS_SUITE:-bookworm}
KVS_STAGES=${KVS_STAGES:-root user}
BASE=$KVS_CACHE/$KVS_SUITE

say() { printf '%s\n' "$*"; }
die() { printf 'check-fresh: %s\n' "$*" >&2; exit 1; }

if [ "$(id -u)" != 0 ]; then
	command -v sudo > /dev/null || die "needs root, for debootstrap and chroot"
	exec sudo KVS_CACHE="$KVS_CACHE" KVS_SUITE="$KVS_SUITE" KVS_STAGES="$KVS_STAGES" TMPDIR="${TMPDIR:-/tmp}" "${BASH_SOURCE[0]}"
fi
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# ---- The minimal Debian ----

# Where this machine gets Debian from: LABEL (Debian, Debian-Security); the first mirror with it.
# shellcheck disable=SC2016 # the names are apt's
mirror() { apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | awk -v l="$1" '$1 == l { print $2; exit }'; }

# A proxy, should this machine's apt use one.
apt_proxy() { apt-config dump --format '%f "%v";%n' Acquire::http::Proxy Acquire::https::Proxy; }

make_base()
{
	local debian security new=$BASE.new
	debian=$(mirror Debian)
	security=$(mirror Debian-Security)
	[ -n "$debian" ] || die "this machine's apt knows no Debian mirror (apt-get update?)"
	if ! command -v debootstrap > /dev/null; then
		apt-get -q update
		apt-get -q install -y --no-install-recommends debootstrap
	fi
	mkdir -p "$KVS_CACHE"
	rm -rf "$new"
	http_proxy=$(apt-config dump --format '%v%n' Acquire::http::Proxy | head -n 1) \
		debootstrap --variant=minbase --include=ca-certificates,git,make,sudo "$KVS_SUITE" "$new" "$debian"
	{
		echo "deb $debian $KVS_SUITE main"
		case $KVS_SUITE in
			sid | unstable) ;;
			*)
				echo "deb $debian $KVS_SUITE-updates main"
				[ -z "$security" ] || echo "deb $security $KVS_SUITE-security main"
				;;
		esac
	} > "$new/etc/apt/sources.list"
	apt_proxy > "$new/etc/apt/apt.conf.d/90proxy"
	chroot "$new" useradd -m -s /bin/bash demo
	echo 'demo ALL=(ALL) NOPASSWD: ALL' > "$new/etc/sudoers.d/demo"
	chmod 440 "$new/etc/sudoers.d/demo"
	mv "$new" "$BASE"
}

# ---- One stage: a copy, a clone, a command ----

# This script again, started by unshare with namespaces of its own: FOLDER USER COMMAND
inside()
{
	local root=$1 user=$2 command=$3 node
	mount -t proc proc "$root/proc"
	mount -t sysfs -o ro sysfs "$root/sys"
	mount -t tmpfs -o mode=755 tmpfs "$root/dev"
	for node in null zero full random urandom tty; do
		touch "$root/dev/$node"
		mount --bind "/dev/$node" "$root/dev/$node"
	done
	ln -s /proc/self/fd "$root/dev/fd"
	ln -s /proc/self/fd/0 "$root/dev/stdin"
	ln -s /proc/self/fd/1 "$root/dev/stdout"
	ln -s /proc/self/fd/2 "$root/dev/stderr"
	mkdir "$root/dev/shm" "$root/dev/pts"
	mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
	mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
	ln -s pts/ptmx "$root/dev/ptmx"
	# Packages are fetched once.
	mount --bind "$KVS_CACHE/archives" "$root/var/cache/apt/archives"
	exec chroot "$root" setpriv --reuid="$user" --regid="$user" --init-groups env -i \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME="$(chroot "$root" getent passwd "$user" | cut -d: -f6)" \
		bash -c "cd && $command" < /dev/null
}

# NAME FOLDER USER COMMAND
stage()
{
	local name=$1 root=$2 user=$3 command=$4 start=$SECONDS status=0
	KVS_CACHE=$KVS_CACHE unshare --mount --pid --fork --kill-child \
		"${BASH_SOURCE[0]}" inside "$root" "$user" "$command" > "$TMP/log" 2>&1 || status=$?
	if [ $status = 0 ]; then
		printf '%-28s ok       %4d s   %s\n' "$name" $((SECONDS - start)) "$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$TMP/log" | tail -n 1 || true)"
	else
		printf '%-28s FAILED   %4d s   exit status %d; the last lines of its output:\n' "$name" $((SECONDS - start)) $status
		tail -n 100 "$TMP/log"
		FAILED=1
	fi
	return "$status"
}

cleanup()
{
	local status=$?
	trap '' HUP INT TERM
	trap - EXIT
	cd /
	# Nothing is mounted there outside the namespaces that are gone; should it be, rather leave a folder than empty a mount.
	rm -rf --one-file-system "$TMP"
	exit "$status"
}

# ---- main ----

if [ "${1:-}" = inside ]; then
	shift
	inside "$@"
fi

FAILED=0
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
TMP=$(mktemp -d "${TMPDIR:-/tmp}/kvstore-fresh.XXXXXX")
trap cleanup EXIT

start=$SECONDS
if [ -d "$BASE" ]; then
	say "minimal Debian ($KVS_SUITE): $BASE, made before"
else
	make_base > "$TMP/log" 2>&1 || { tail -n 50 "$TMP/log"; die "the minimal Debian could not be made"; }
	say "minimal Debian ($KVS_SUITE): $BASE, made in $((SECONDS - start)) s"
fi
mkdir -p "$KVS_CACHE/archives/partial"

# What is committed, and nothing else; a bundle, because git refuses to read a clone of another owner.
owner=$(stat -c '%u' "$KVS_ROOT")
setpriv --reuid="$owner" --regid="$(stat -c '%g' "$KVS_ROOT")" --clear-groups git -C "$KVS_ROOT" bundle create -q - HEAD > "$TMP/kvstore.bundle"

for user in $KVS_STAGES; do
	case $user in root) account=root ;; user) account=demo ;; *) die "KVS_STAGES: root user" ;; esac
	root=$TMP/$user
	cp -a "$BASE" "$root"
	cp "$TMP/kvstore.bundle" "$root/kvstore.bundle"
	cp /etc/resolv.conf "$root/etc/resolv.conf"
	if stage "$user: git clone" "$root" "$account" "git clone -q /kvstore.bundle kvstore"; then
		stage "$user: make demo" "$root" "$account" "cd kvstore && make demo" || true
		stage "$user: make check" "$root" "$account" "cd kvstore && make check" || true
		# Two more promises: no cluster that nobody asked for, no file in the clone that git does not know.
		stage "$user: nothing left behind" "$root" "$account" \
			"cd kvstore && [ -z \"\$(git status --porcelain)\" ] && [ -z \"\$(pg_lsclusters -h)\" ] && ! ls -d /tmp/kvstore.* 2> /dev/null && [ ! -e /etc/postgresql-common/createcluster.d ]" || true
	fi
	rm -rf --one-file-system "$root"
done
[ "$FAILED" = 0 ]
