# shellcheck shell=bash
# Sourced by the other scripts: installing what is missing, building, and running throw-away PostgreSQL servers.
#
# Three rules hold everywhere:
#  - The user's own PostgreSQL is never touched.  PostgreSQL 15 looks for extensions in its installation alone, so a copy
#    of the installation is made in a temporary folder (the server finds its files relative to its executable, so a copy
#    in another place works) and kvstore is installed into the copy.
#  - A server does not run as root.  Called by root, what runs servers runs as the user "postgres"; the clone may lie where
#    that user cannot read, so what he needs is copied into the temporary folder.
#  - Nothing stays behind: on exit, for whatever reason, each server whose data lie in the temporary folder is stopped by
#    its pid, then the folder is removed.  KVS_KEEP=1 keeps the folder and tells where it is.
#
# Environment: PG_CONFIG (which PostgreSQL; the distribution's own by default), TMPDIR, KVS_KEEP.  From check-sanitize.sh:
# KVS_BUILD, a copy of the sources that is built instead of the clone, and KVS_SERVER_PRELOAD=A:B, libraries that each server
# loads before its own.

set -euo pipefail
umask 022

KVS_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
KVS_BUILD=${KVS_BUILD:-$KVS_ROOT}
KVS_TMP=			# the temporary folder
KVS_TREE=			# in it, the copy of the installation
KVS_BIN=			# in that, the programs
KVS_CHILD=			# process group of the command that runs now, 0 or empty: none
KVS_USER=			# who runs servers, when that is not who called
KVS_HOME=			# the caller's home, where the settings of his npm are

# The oldest minor release that each major version is tested with.
kvs_oldest_minor() { case $1 in 15) echo 15.20 ;; *) echo "$1" ;; esac; }

say() { printf '%s\n' "$*"; }
note() { printf 'kvstore: %s\n' "$*" >&2; }
die() { note "$*"; exit 1; }
# START [END]
seconds_since() { awk -v a="$1" -v b="${2:-$EPOCHREALTIME}" 'BEGIN { printf "%.1f s", b - a }'; }

is_root() { [ "$(id -u)" = 0 ]; }

# ---- Installing what is missing ----

kvs_as_root()
{
	if is_root; then
		"$@"
	elif command -v sudo > /dev/null; then
		sudo "$@"
	else
		die "packages are missing and only root can install them; there is no sudo here.  As root: $*"
	fi
}

# Run a command that is apt-get.  By itself that waits for dpkg's lock alone; those of the lists and of the downloaded packages may be held, too,
# by the updates that a machine makes when it has just started.
kvs_run_apt()
{
	local end=$((SECONDS + 300)) output
	until output=$(kvs_as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@" 2>&1 | tee >(cat >&2)); do
		[[ $output == *"Unable to lock "* && $SECONDS -lt $end ]] || return 1
		sleep 1
	done
}

kvs_apt() { kvs_run_apt apt-get -q -o DPkg::Lock::Timeout=300 "$@" || die "apt-get $1 failed; its messages are above"; }

# Refresh the package lists, once: installing from old ones fails on packages that have gone.
KVS_LISTS_FRESH=
kvs_apt_update()
{
	[ -n "$KVS_LISTS_FRESH" ] || kvs_apt update
	KVS_LISTS_FRESH=1
}

kvs_has_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
kvs_package_exists() { [ -n "$(apt-cache show --no-all-versions "$1" 2>/dev/null)" ]; }

# The major version of the distribution's own PostgreSQL: what its package "postgresql" depends on.
kvs_distribution_major()
{
	apt-cache depends postgresql 2>/dev/null | sed -n 's/^ *Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1
}

# Installing the server package would also make and start a cluster "main".  Nobody asked for it, so it is switched off
# for that moment, in the file that Debian has for it.
KVS_NO_CLUSTER=/etc/postgresql-common/createcluster.d/kvstore-no-main-cluster.conf
kvs_apt_install_without_cluster()
{
	kvs_run_apt sh -c "
		made_dir=; [ -d '${KVS_NO_CLUSTER%/*}' ] || made_dir=1
		mkdir -p '${KVS_NO_CLUSTER%/*}'
		trap 'rm -f $KVS_NO_CLUSTER; [ -z \"\$made_dir\" ] || rmdir ${KVS_NO_CLUSTER%/*} 2>/dev/null' EXIT
		trap 'exit 1' HUP INT TERM
		echo 'create_main_cluster = false' > '$KVS_NO_CLUSTER'
		apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $*" ||
		die "apt-get install failed; its messages are above"
}

# An installed server that is older than what we test with is upgraded, unless one of its clusters runs: an upgrade would
# restart it, which is for its administrator to decide.
kvs_upgrade_wanted()
{
	local major=$1 installed candidate oldest
	oldest=$(kvs_oldest_minor "$major")
	installed=$(dpkg-query -W -f '${Version}' "postgresql-$major" 2>/dev/null) || return 1
	dpkg --compare-versions "$installed" lt "$oldest" || return 1
	kvs_apt_update
	candidate=$(apt-cache policy "postgresql-$major" | sed -n 's/^ *Candidate: //p')
	dpkg --compare-versions "$candidate" gt "$installed" || return 1
	if pg_lsclusters -h 2>/dev/null | awk -v v="$major" '$1 == v && $4 ~ /online/ { found = 1 } END { exit !found }'; then
		note "postgresql-$major is $installed, $candidate is available; not upgraded, because a server of it is running"
		return 1
	fi
}

# Install what "demo", "bench", "check" or "analyze" needs and set PG_CONFIG: PURPOSE PROGRAMS... (more of them, each in a package of its name)
kvs_install_missing()
{
	local purpose=$1 major package program wanted=() optional=() missing=() own_server=
	shift

	[ -z "${PG_CONFIG:-}" ] || command -v "$PG_CONFIG" > /dev/null || die "PG_CONFIG=$PG_CONFIG is no program"
	if ! command -v apt-get > /dev/null; then
		PG_CONFIG=${PG_CONFIG:-pg_config}
		command -v "$PG_CONFIG" > /dev/null ||
			die "no pg_config: install PostgreSQL 15 or newer with its development files, or give PG_CONFIG=/path/to/pg_config"
		export PG_CONFIG
		for program in "$@"; do
			command -v "$program" > /dev/null || die "no $program: install it"
		done
		return
	fi

	for program in make gcc "$@"; do
		command -v "$program" > /dev/null || wanted+=("$program")
	done
	wanted+=(libc6-dev)
	case $purpose in
		bench | check)
			wanted+=(perl libipc-run-perl libyaml-pp-perl)
			optional+=(python3-psycopg2)
			;;
	esac
	if [ "$purpose" = check ]; then
		command -v node > /dev/null || optional+=(nodejs)
		command -v npm > /dev/null || optional+=(npm)
	fi
	[ "$purpose" != fuzz ] || wanted+=(clang libclang-rt-dev llvm)

	if [ -z "${PG_CONFIG:-}" ]; then
		major=$(kvs_distribution_major)
		if [ -z "$major" ]; then
			kvs_apt_update
			major=$(kvs_distribution_major)
		fi
		[ -n "$major" ] || die "this system offers no package \"postgresql\"; give PG_CONFIG=/path/to/pg_config"
		[ "$major" -ge 15 ] || die "this system's PostgreSQL is $major, kvstore needs 15; give PG_CONFIG=/path/to/pg_config"
		own_server=1
		wanted+=("postgresql-$major" "postgresql-server-dev-$major")
		case $purpose in bench | check) optional+=("postgresql-$major-pgtap" "postgresql-$major-cron") ;; esac
		PG_CONFIG=/usr/lib/postgresql/$major/bin/pg_config
	fi
	export PG_CONFIG

	for package in "${wanted[@]}"; do
		kvs_has_package "$package" || missing+=("$package")
	done
	for package in "${optional[@]}"; do
		kvs_has_package "$package" || missing+=("$package")
	done
	if [ -n "$own_server" ] && kvs_upgrade_wanted "$major"; then
		for package in "postgresql-$major" "postgresql-client-$major" "postgresql-server-dev-$major" libpq5 libpq-dev; do
			! kvs_has_package "$package" || missing+=("$package")
		done
	fi
	if [ ${#missing[@]} -gt 0 ]; then
		kvs_apt_update
		wanted=()
		for package in "${missing[@]}"; do
			if [[ " ${optional[*]} " == *" $package "* ]] && ! kvs_package_exists "$package"; then
				note "this system has no package $package; the tests that need it are skipped"
			else
				wanted+=("$package")
			fi
		done
		missing=("${wanted[@]}")
	fi
	if [ ${#missing[@]} -gt 0 ]; then
		say "Installing ${missing[*]}"
		kvs_apt_install_without_cluster "${missing[@]}"
	fi
}

# ---- Building ----

# As the owner of the clone: "sudo make check" leaves no files in it that he cannot remove.
kvs_as_owner()
{
	local owner
	owner=$(stat -c '%u' "$KVS_ROOT")
	if is_root && [ "$owner" != 0 ]; then
		setpriv --reuid="$owner" --regid="$(stat -c '%g' "$KVS_ROOT")" --clear-groups "$@"
	else
		"$@"
	fi
}

# A make of our own, not a part of the one that may have called us.  Bitcode is left out: it serves inlining into JIT
# expressions only, and doubles the time.
KVS_MAKE=(env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make --no-print-directory -s -C "$KVS_BUILD" with_llvm=no)

kvs_build() { kvs_as_owner "${KVS_MAKE[@]}" -j"$(nproc)" || die "the build failed"; }

# ---- The temporary folder ----

# Make it, and whatever then happens remove it.
kvs_make_tmp()
{
	local base=${TMPDIR:-/tmp} v

	# Nothing of the caller's may lead to another server than ours.
	for v in "${!PG@}"; do
		[ "$v" = PG_CONFIG ] || unset "$v"
	done
	export LC_ALL=C.UTF-8

	if is_root; then
		KVS_USER=postgres
		id "$KVS_USER" > /dev/null 2>&1 || KVS_USER=nobody
		# TMPDIR may be root's own.
		kvs_as_user test -w "$base" || base=/tmp
	fi
	# A socket's path has at most 107 bytes.
	[ ${#base} -le 40 ] || base=/tmp
	trap kvs_cleanup EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	KVS_TMP=$(mktemp -d "$base/kvstore.XXXXXX")
	[ -z "$KVS_USER" ] || chown "$KVS_USER:" "$KVS_TMP"
	# The servers' user, for whom the caller's folder may not exist.
	cd "$KVS_TMP"
	kvs_as_user mkdir -m 700 home tmp sock server work
	KVS_HOME=$HOME
	export HOME=$KVS_TMP/home TMPDIR=$KVS_TMP/tmp
}

# Run a command as the user who runs servers.
kvs_as_user()
{
	if [ -n "$KVS_USER" ]; then
		setpriv --reuid="$KVS_USER" --regid="$(id -g "$KVS_USER")" --init-groups "$@"
	else
		"$@"
	fi
}

# Start a command that takes long, as that user and in a process group of its own: KVS_CHILD, which cleanup ends.
kvs_start()
{
	if [ -n "$KVS_USER" ]; then
		setsid setpriv --reuid="$KVS_USER" --regid="$(id -g "$KVS_USER")" --init-groups "$@" < /dev/null &
	else
		setsid "$@" < /dev/null &
	fi
	KVS_CHILD=$!
}

# Wait for it in a way that a signal interrupts; returns its status.
kvs_wait()
{
	local status=0
	wait "$KVS_CHILD" || status=$?
	KVS_CHILD=
	return $status
}

kvs_run()
{
	kvs_start "$@"
	kvs_wait
}

# Copy parts of the clone to where the servers' user can read and write.
kvs_copy_in()
{
	local to=$KVS_TMP/work/$1 part
	shift
	mkdir -p "$to"
	for part in "$@"; do
		[ ! -e "$KVS_ROOT/$part" ] || cp -R "$KVS_ROOT/$part" "$to/"
	done
	[ -z "$KVS_USER" ] || chown -R "$KVS_USER:" "$to"
}

# Is this the pid of a postmaster of ours?  Its working folder is its data folder; a pid alone may have passed to another.
kvs_is_our_server()
{
	local cwd
	if [ -d /proc/self ]; then
		cwd=$(kvs_as_user readlink "/proc/$1/cwd" 2>/dev/null) || return 1
		[[ $cwd == "$KVS_TMP"/* ]]
	else
		kvs_as_user kill -0 "$1" 2>/dev/null
	fi
}

# Stop a server by its pid: fast, and at once if that takes more than 20 s.
kvs_stop_pid()
{
	local pid=$1 signal i
	for signal in INT QUIT KILL; do
		kvs_is_our_server "$pid" || return 0
		kvs_as_user kill -s "$signal" "$pid" 2>/dev/null || return 0
		for ((i = 0; i < 400; i++)); do
			kvs_is_our_server "$pid" || return 0
			sleep 0.05
		done
	done
	note "the server with pid $pid does not stop"
}

kvs_cleanup()
{
	local status=$? file i
	trap '' HUP INT TERM
	trap - EXIT
	set +e
	if [ -n "$KVS_CHILD" ]; then
		kill -TERM -- "-$KVS_CHILD" 2>/dev/null
		for ((i = 0; i < 100; i++)); do
			kill -0 -- "-$KVS_CHILD" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL -- "-$KVS_CHILD" 2>/dev/null
	fi
	if [ -n "$KVS_TMP" ] && [ -d "$KVS_TMP" ]; then
		# Ours and those that TAP tests started.
		while IFS= read -r file; do
			kvs_stop_pid "$(head -n 1 "$file")"
		done < <(find "$KVS_TMP" -name postmaster.pid)
		cd /
		if [ -n "${KVS_KEEP:-}" ]; then
			note "kept: $KVS_TMP"
		else
			rm -rf "$KVS_TMP"
		fi
	fi
	exit "$status"
}

# ---- What some tests need beside PostgreSQL ----

# Programs out of Debian's packages, which are unpacked and not installed, for that would start services; and packages of npm.  Each is kept in the clone, in
# .tools, until "make clean", and copied to where the servers' user can read it.  What cannot be had leaves its variable empty, and the tests that need it are
# skipped.

# Unpack Debian packages: FOLDER PACKAGE...
kvs_unpack()
{
	local dir=$1 package
	shift
	(cd "$dir" && apt-get -qq download "$@" 2> log && for package in *.deb; do dpkg -x "$package" .; done)
}

# The libraries that a package needs and this machine has not.
kvs_missing_libraries()
{
	local package
	for package in $(apt-cache depends "$1" | sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p'); do
		kvs_has_package "$package" || say "$package"
	done
}

# Keep a folder as .tools/NAME: FOLDER NAME; in two steps, so that half a copy is never used.
kvs_keep_tool()
{
	kvs_as_owner rm -rf "$KVS_ROOT/.tools/$2" "$KVS_ROOT/.tools/$2.new"
	kvs_as_owner mkdir -p "$KVS_ROOT/.tools"
	chmod -R a+rX "$1"
	kvs_as_owner cp -R "$1" "$KVS_ROOT/.tools/$2.new"
	kvs_as_owner mv "$KVS_ROOT/.tools/$2.new" "$KVS_ROOT/.tools/$2"
}

# NAME PACKAGE: sets KVS_PROGRAM to the installed program, or to the one in Debian's package: the one of the program's name where there is one.
kvs_program()
{
	local name=$1 package=$2 kept=$KVS_ROOT/.tools/$1 dir=$KVS_TMP/tools/$1.unpacked file
	KVS_PROGRAM=$(command -v "$name" || true)
	[ -z "$KVS_PROGRAM" ] || return 0
	if [ ! -d "$kept" ] && command -v apt-get > /dev/null; then
		kvs_package_exists "$package" || kvs_apt_update
		! kvs_package_exists "$name" || package=$name
		mkdir -p "$dir/kept"
		# shellcheck disable=SC2046 # names of packages
		if kvs_unpack "$dir" "$package" $(kvs_missing_libraries "$package") && file=$(find "$dir" -path "*bin/$name" -type f) && [ -n "$file" ]; then
			mv "$file" "$dir/kept/"
			find "$dir" -name '*.so.*' -exec mv -t "$dir/kept" '{}' +
			kvs_keep_tool "$dir/kept" "$name"
		else
			note "the package $package cannot be downloaded; what needs $name is skipped"
		fi
		rm -rf "$dir"
	fi
	[ -d "$kept" ] || return 0
	mkdir -p "$KVS_TMP/tools"
	cp -R "$kept" "$KVS_TMP/tools/$name"
	KVS_PROGRAM=$KVS_TMP/tools/$name.sh
	printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/%s "$@"\n' "$KVS_TMP/tools/$name" "$KVS_TMP/tools/$name" "$name" > "$KVS_PROGRAM"
	chmod 755 "$KVS_PROGRAM"
}

# What a Node program of ours needs from npm, from the registry that this machine's npm is set to: FOLDER (in the clone, with a lock file); sets
# KVS_NODE_MODULES.
kvs_node_modules()
{
	local from=$KVS_ROOT/$1 name=${1//\//-} dir=$KVS_TMP/tools/npm
	KVS_NODE_MODULES=
	command -v node > /dev/null || return 0
	if ! cmp -s "$from/package-lock.json" "$KVS_ROOT/.tools/$name/package-lock.json"; then
		command -v npm > /dev/null || return 0
		mkdir -p "$dir"
		cp "$from/package.json" "$from/package-lock.json" "$dir/"
		if (cd "$dir" && HOME=$KVS_HOME npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --cache "$dir/cache" > "$dir/log" 2>&1); then
			rm -rf "$dir/cache"
			kvs_keep_tool "$dir" "$name"
		else
			note "npm ci in $1 failed; its test is skipped: $(tail -n 1 "$dir/log")"
		fi
		rm -rf "$dir"
	fi
	[ -d "$KVS_ROOT/.tools/$name/node_modules" ] || return 0
	KVS_NODE_MODULES=$KVS_ROOT/.tools/$name/node_modules
}

# ---- A private copy of the installation, with kvstore in it ----

# Copies what a server and its clients need; left out are bitcode, development files and manual pages.
kvs_make_tree()
{
	local dir entry
	PG_BINDIR=$("$PG_CONFIG" --bindir)
	PG_PKGLIBDIR=$("$PG_CONFIG" --pkglibdir)
	PG_SHAREDIR=$("$PG_CONFIG" --sharedir)
	PG_MAJOR=$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
	PG_TESTDIR=$(dirname "$(dirname "$("$PG_CONFIG" --pgxs)")")/test
	[ -x "$PG_BINDIR/postgres" ] || die "$PG_CONFIG belongs to a PostgreSQL without a server"
	KVS_TREE=$KVS_TMP/tree
	KVS_BIN=$KVS_TREE$PG_BINDIR
	for dir in "$PG_BINDIR" "$PG_PKGLIBDIR" "$PG_SHAREDIR"; do
		mkdir -p "$KVS_TREE$dir"
		for entry in "$dir"/*; do
			case ${entry##*/} in
				bitcode | pgxs | man | locale | doc | contrib | *.a) ;;
				*) [ -e "$KVS_TREE$entry" ] || cp -RL --preserve=mode "$entry" "$KVS_TREE$dir/" ;;
			esac
		done
	done
	# Should the user have kvstore installed, his must not be tested.
	rm -f "$KVS_TREE$PG_PKGLIBDIR"/kvstore.* "$KVS_TREE$PG_SHAREDIR"/extension/kvstore{.control,--*}
	"${KVS_MAKE[@]}" install DESTDIR="$KVS_TREE" > "$KVS_TMP/install.log" 2>&1 || { cat "$KVS_TMP/install.log" >&2; die "make install failed"; }
	[ -z "${KVS_SERVER_PRELOAD:-}" ] || kvs_preload_servers
	export PATH=$KVS_BIN:$PATH PG_BINDIR PG_PKGLIBDIR PG_SHAREDIR PG_MAJOR PG_TESTDIR
}

# LD_PRELOAD in the environment would reach clients and shells too.  So the program "postgres" becomes a script, and the real
# one gets its name as argv[0], from which it finds its other files.
kvs_preload_servers()
{
	local library preload='' IFS=:
	for library in $KVS_SERVER_PRELOAD; do
		cp "$library" "$KVS_BIN/"
		preload+=:$KVS_BIN/${library##*/}
	done
	mv "$KVS_BIN/postgres" "$KVS_BIN/postgres.real"
	# shellcheck disable=SC2016 # for that script
	printf '#!/usr/bin/env bash\nLD_PRELOAD="%s" exec -a "$0" "%s" "$@"\n' "${preload#:}" "$KVS_BIN/postgres.real" > "$KVS_BIN/postgres"
	chmod 755 "$KVS_BIN/postgres"
}

# ---- Servers ----

kvs_port_is_free() { ! (exec 3<> "/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A database cluster that is copied for each server: initdb takes longer than all the rest.
kvs_initdb()
{
	[ ! -d "$KVS_TMP/server/template" ] || return 0
	# Trust within the socket's folder, which only this user may enter; TCP is open to all users of this machine.
	kvs_as_user sh -c "umask 077; od -An -N16 -tx1 /dev/urandom | tr -d ' \n' > '$KVS_TMP/home/password'"
	kvs_run "$KVS_BIN/initdb" -D "$KVS_TMP/server/template" -U postgres -E UTF8 --locale=C.UTF-8 --no-sync --no-instructions \
		--auth-local=trust --auth-host=scram-sha-256 --pwfile="$KVS_TMP/home/password" > "$KVS_TMP/initdb.log" 2>&1 ||
		{ cat "$KVS_TMP/initdb.log" >&2; die "initdb failed"; }
	kvs_as_user sh -c "umask 077; printf '*:*:*:postgres:%s\n' \"\$(cat '$KVS_TMP/home/password')\" > '$KVS_TMP/home/.pgpass'"
	kvs_as_user tee -a "$KVS_TMP/server/template/postgresql.conf" > /dev/null <<-CONF
		listen_addresses = '127.0.0.1'
		unix_socket_directories = '$KVS_TMP/sock'
		max_prepared_transactions = 2
		log_line_prefix = '%m [%p] %b %q%a '
		lc_messages = 'C'
	CONF
}

# Start a server: NAME, then lines for postgresql.conf.  Sets PGHOST, PGPORT and PGUSER to it.
kvs_server_start()
{
	local name=$1 data=$KVS_TMP/server/$1/data log=$KVS_TMP/server/$1/log line attempt
	shift
	kvs_initdb
	kvs_as_user mkdir -p "$KVS_TMP/server/$name"
	kvs_as_user cp -R --preserve=mode "$KVS_TMP/server/template" "$data"
	for line in "$@"; do
		printf '%s\n' "$line"
	done | kvs_as_user tee -a "$data/postgresql.conf" > /dev/null
	export PGHOST=$KVS_TMP/sock PGUSER=postgres PGDATABASE=postgres PGPASSFILE=$KVS_TMP/home/.pgpass
	# Below the range that the system gives to outgoing connections.  Somebody may take the port before we do: try another.
	for ((attempt = 1; attempt <= 5; attempt++)); do
		PGPORT=$((20000 + RANDOM % 12000))
		kvs_port_is_free $PGPORT || continue
		export PGPORT
		if kvs_run "$KVS_BIN/pg_ctl" -D "$data" -l "$log" -o "-p $PGPORT" -w -t 60 -s start > "$KVS_TMP/pg_ctl.log" 2>&1; then
			kvs_as_user tee "$KVS_TMP/server/$name/port" <<< "$PGPORT" > /dev/null
			return 0
		fi
		kvs_as_user grep -q 'could not bind' "$log" || break
	done
	cat "$KVS_TMP/pg_ctl.log" >&2
	kvs_log_tail "$name" >&2
	die "the server does not start; its log is above"
}

# Turn to a server that was started before.
kvs_server_use() { PGPORT=$(kvs_as_user cat "$KVS_TMP/server/$1/port"); export PGPORT; }

kvs_server_stop()
{
	local file=$KVS_TMP/server/$1/data/postmaster.pid
	[ ! -f "$file" ] || kvs_stop_pid "$(kvs_as_user head -n 1 "$file")"
}

kvs_log_tail()
{
	say "---- the last lines of the log of server \"$1\" ----"
	tail -n "${2:-40}" "$KVS_TMP/server/$1/log" 2>/dev/null || true
}

# psql without the user's settings; stops at the first error.
kvs_psql() { kvs_as_user "$KVS_BIN/psql" -X -v ON_ERROR_STOP=1 "$@"; }
