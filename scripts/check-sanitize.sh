#!/usr/bin/env bash
# make check-sanitize: the tests of make check, with the extension built with gcc's sanitizers of addresses and of undefined behaviour.
#
# The server is the stock one, which loads the sanitizers' libraries before its own.  Built is a copy of the sources, in .tools,
# with a tail that must not be touched behind each piece of memory that our code allocates (test/sanitize/tails.h).  Reports stand
# in the servers' logs; each log with a report is a failure.  Arithmetic is checked as ISO C has it, without the -fwrapv that
# PostgreSQL is built with.
#
# Environment: that of check.sh.  In a hurry, KVS_SKIP="013_load 031_databases 034_expiry_limits 064_cron" leaves out the TAP tests
# that take longest and mostly wait or measure.

# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

KVS_BUILD=$KVS_ROOT/.tools/sanitize
kvs_install_missing check
kvs_as_owner rm -rf "$KVS_BUILD"
kvs_as_owner mkdir -p "$KVS_BUILD"
(cd "$KVS_ROOT" && kvs_as_owner cp -R --parents Makefile kvstore.control README.md doc sql src test/sanitize "$KVS_BUILD/")

kvs_as_owner gcc -shared -fPIC -o "$KVS_BUILD/preload.so" "$KVS_BUILD/test/sanitize/preload.c"
KVS_SERVER_PRELOAD=$KVS_BUILD/preload.so:$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)
# Appended to PostgreSQL's own flags, of the compiler and of the linker.
COPT="-fsanitize=address,undefined,bounds-strict,float-cast-overflow -fsanitize-recover=address -fno-wrapv"
COPT+=" -O1 -g -fno-omit-frame-pointer -include test/sanitize/tails.h"
KVS_ONLY=${KVS_ONLY:-regress isolation tap pgtap}
export KVS_BUILD KVS_SERVER_PRELOAD COPT KVS_ONLY
exec "$KVS_ROOT/scripts/check.sh"
