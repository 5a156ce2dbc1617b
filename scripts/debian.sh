# shellcheck shell=bash
# Sourced by the scripts that try what is committed here in a minimal Debian made for it.
#
# The Debian lies in a folder (debootstrap, chroot), its mirrors are this machine's.  It holds git, make, sudo and
# certificates, without which nobody could clone; the rest is what the scripts under test must install.  Work is done in
# copies, the made one is kept for the next time.  Everything is mounted in a mount namespace of its own and every process
# started in a process namespace of its own: both go when the stage ends, even by kill -9, so no forgotten mount leads the
# final rm out of the folder, and no server stays.
#
# Needs root (or sudo), debootstrap, and a Debian whose archive the suite is in.
# Environment: KVS_CACHE (default /var/cache/kvstore); runs at the same time need one each, for apt locks the packages in it.

# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

KVS_CACHE=${KVS_CACHE:-/var/cache/kvstore}
DEBIAN_TMP=			# the temporary folder, with the copies and the log of the stage
DEBIAN_PASSED=0		# what the last stage's log gives as its totals
DEBIAN_FAILED=0

# Where this machine gets Debian from: LABEL (Debian, Debian-Security); the first mirror with it.
# shellcheck disable=SC2016 # the names are apt's
debian_mirror() { apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | awk -v l="$1" '$1 == l { print $2; exit }'; }

# A proxy, should this machine's apt use one.
debian_proxy() { apt-config dump --format '%f "%v";%n' Acquire::http::Proxy Acquire::https::Proxy; }

# Make the minimal Debian: SUITE
debian_make()
{
	local suite=$1 debian security new=$KVS_CACHE/$1.new
	debian=$(debian_mirror Debian)
	security=$(debian_mirror Debian-Security)
	[ -n "$debian" ] || die "this machine's apt knows no Debian mirror (apt-get update?)"
	if ! command -v debootstrap > /dev/null; then
		kvs_apt_update
		kvs_apt install -y --no-install-recommends debootstrap
	fi
	mkdir -p "$KVS_CACHE"
	rm -rf "$new"
	http_proxy=$(apt-config dump --format '%v%n' Acquire::http::Proxy | head -n 1) DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
		debootstrap --variant=minbase --include=ca-certificates,git,make,sudo "$suite" "$new" "$debian"
	{
		case $suite in
			# A mirror may have sid from before a week, after which its signature, still checked, is no longer taken for new.
			sid | unstable) echo "deb [check-valid-until=no] $debian $suite main" ;;
			*)
				echo "deb $debian $suite main"
				echo "deb $debian $suite-updates main"
				[ -z "$security" ] || echo "deb $security $suite-security main"
				;;
		esac
	} > "$new/etc/apt/sources.list"
	debian_proxy > "$new/etc/apt/apt.conf.d/90proxy"
	chroot "$new" useradd -m -s /bin/bash demo
	echo 'demo ALL=(ALL) NOPASSWD: ALL' > "$new/etc/sudoers.d/demo"
	chmod 440 "$new/etc/sudoers.d/demo"
	mv "$new" "$KVS_CACHE/$suite"
}

# In namespaces of its own: FOLDER USER COMMAND
debian_inside()
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

debian_cleanup()
{
	local status=$?
	trap '' HUP INT TERM
	trap - EXIT
	cd /
	# Nothing is mounted there outside the namespaces that are gone; should it be, rather leave a folder than empty a mount.
	rm -rf --one-file-system "$DEBIAN_TMP"
	exit "$status"
}

# ---- What the scripts call ----

# First: become root, by starting the calling script again, and make the temporary folder.  VARIABLES that the script goes by
debian_begin()
{
	local name hand=()
	if ! is_root; then
		command -v sudo > /dev/null || die "needs root, for debootstrap and chroot"
		for name in KVS_CACHE TMPDIR "$@"; do
			hand+=("$name=${!name:-}")
		done
		exec sudo "${hand[@]}" "$0"
	fi
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	DEBIAN_TMP=$(mktemp -d "${TMPDIR:-/tmp}/kvstore-debian.XXXXXX")
	trap debian_cleanup EXIT
	# What is committed, and nothing else; a bundle, because git refuses to read a clone of another owner.
	kvs_as_owner git -C "$KVS_ROOT" bundle create -q - HEAD > "$DEBIAN_TMP/kvstore.bundle"
}

# A copy of the minimal Debian, which is made first if need be, with the bundle in it: SUITE FOLDER
debian_copy()
{
	local suite=$1 root=$2 start=$SECONDS
	if [ -d "$KVS_CACHE/$suite" ]; then
		say "minimal Debian ($suite): $KVS_CACHE/$suite, made before"
	else
		(debian_make "$suite") > "$DEBIAN_TMP/log" 2>&1 || { tail -n 50 "$DEBIAN_TMP/log"; die "the minimal Debian could not be made"; }
		say "minimal Debian ($suite): $KVS_CACHE/$suite, made in $((SECONDS - start)) s"
	fi
	mkdir -p "$KVS_CACHE/archives/partial"
	cp -a "$KVS_CACHE/$suite" "$root"
	# Whom this machine trusts beyond Debian's own: its npm registry may be reached through such a one.
	[ ! -d /usr/local/share/ca-certificates ] || cp -R /usr/local/share/ca-certificates "$root/usr/local/share/"
	chroot "$root" update-ca-certificates > /dev/null 2>&1
	cp "$DEBIAN_TMP/kvstore.bundle" "$root/kvstore.bundle"
	cp /etc/resolv.conf "$root/etc/resolv.conf"
}

debian_remove() { rm -rf --one-file-system "$1"; }

# Run a command in a copy and tell how it went: NAME FOLDER USER COMMAND
debian_stage()
{
	local name=$1 root=$2 user=$3 command=$4 start=$SECONDS status=0 log=$DEBIAN_TMP/log totals version
	# shellcheck disable=SC2016 # for the inner shell
	KVS_CACHE=$KVS_CACHE unshare --mount --pid --fork --kill-child \
		bash -c '. "$0"; debian_inside "$@"' "$KVS_ROOT/scripts/debian.sh" "$root" "$user" "$command" > "$log" 2>&1 || status=$?
	totals=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1 || true)
	version=$(sed -n 's/^kvstore on postgres (PostgreSQL) \([^ ,]*\).*/PostgreSQL \1: /p' "$log")
	read -r DEBIAN_PASSED _ DEBIAN_FAILED _ <<< "${totals:-0 - 0 -}"
	[ $status = 0 ] || [ "$DEBIAN_FAILED" -gt 0 ] || DEBIAN_FAILED=1
	printf '%-28s %-8s %4d s   %s\n' "$name" "$([ $status = 0 ] && echo ok || echo FAILED)" $((SECONDS - start)) "$version$totals"
	[ $status = 0 ] || {
		say "exit status $status; the last lines of its output:"
		tail -n 100 "$log"
	}
	return "$status"
}
