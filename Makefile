# Makefile of kvstore, for PGXS (PostgreSQL's own way to build extensions outside its tree).
#
# For PostgreSQL users, as with every extension:
#	make && make install && make installcheck	(PG_CONFIG=... chooses the installation)
# (installcheck wants a server with the settings that scripts/check.sh gives its own: some tests look at rows that a background worker would remove)
# For everybody else, on a machine that need not have PostgreSQL yet (what is missing is installed first):
#	make demo		build, start a throw-away server, show what it does, leave a prompt
#	make check		build, run every test on private throw-away servers; the last line is "N passed, N failed"
#	make check-fresh	the same two, in a minimal Debian made for it
#	make check-versions	the tests on PostgreSQL 17 and 18, each in a minimal Debian made for it
#	make check-sanitize	the tests with the extension built with gcc's sanitizers
#	make check-fuzz		give made-up input to what reads input, 5,000,000 times each
#	make bench		measure
# For developers:
#	make warnings		compile with gcc and clang, all warnings, each one an error
#	make analyze		gcc's -fanalyzer, clang-tidy, cppcheck
#	make coverage		which lines and branches the tests run
#	make headerscheck	compile each header alone

# Goals that are scripts.  They must work where no pg_config is, so with one of them nothing of PGXS is read; the other
# goals of such a command line (make clean check) get a make of their own, in the order given.
SCRIPT_GOALS = demo check check-fresh check-versions check-sanitize check-fuzz bench analyze coverage

ifneq (,$(filter $(SCRIPT_GOALS),$(MAKECMDGOALS)))

.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)

$(filter $(SCRIPT_GOALS),$(MAKECMDGOALS)):
	@+scripts/$@.sh

$(sort $(filter-out $(SCRIPT_GOALS),$(MAKECMDGOALS))):
	+$(MAKE) $@

else

EXTENSION = kvstore
MODULE_big = kvstore

# The version stands in the control file alone; the library gets it too, to tell when the two differ.
KVS_VERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" kvstore.control)
ifeq (,$(KVS_VERSION))
$(error kvstore.control has no default_version)
endif

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))
HEADER_FILES = $(sort $(wildcard src/*/*.h))
SQL_PARTS = $(sort $(wildcard sql/[0-9]*.sql))
SQL_SCRIPT = kvstore--$(KVS_VERSION).sql
DATA_built = $(SQL_SCRIPT)
# Upgrade scripts, written by hand, lie at the top: kvstore--1.0.0--1.1.0.sql
DATA = $(filter-out $(SQL_SCRIPT),$(wildcard kvstore--*--*.sql))
# To $docdir/extension, side by side
DOCS = $(wildcard README.md doc/*.md)
PGFILEDESC = "kvstore - key-value store, watch and queues"

# The server's headers as system headers: their own warnings are not ours to mend.  (The -I that PGXS adds for the
# same folder is then ignored.)  Callbacks and SQL functions have parameters that they need not use, hence the one -Wno.
# No -fvisibility=hidden: in 15 PG_FUNCTION_INFO_V1 does not mark its functions as visible.  Prefixes do instead, tested.
PG_CPPFLAGS = -I$(srcdir)/src -isystem $(includedir_server) -DKVS_VERSION='"$(KVS_VERSION)"'
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter

# pg_regress prefers ./sql/NAME.sql to test/sql/NAME.sql: the install script's parts are numbered, tests are not.
# The encoding is given because only a UTF8 database can have the extension; the extension is there before the first test,
# so that each test also runs alone.
REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --encoding=UTF8 --load-extension=kvstore
ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. --encoding=UTF8 --load-extension=kvstore
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

# Objects of sources that have gone, too.
EXTRA_CLEAN = .tools .build-flags $(SQL_SCRIPT).tmp $(wildcard src/*.o src/*.bc src/*/*.o src/*/*.bc) results output_iso log regression.diffs regression.out

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq (,$(wildcard $(PGXS)))
$(error no PostgreSQL to build against: "$(PG_CONFIG) --pgxs" names no file; give PG_CONFIG=/path/to/pg_config, install \
the server's development package (Debian: postgresql-server-dev-15), or run "make demo", which does so)
endif
include $(PGXS)

# In parts, so that each stands beside its C module; one file in the end, as CREATE EXTENSION wants it.
$(SQL_SCRIPT): $(SQL_PARTS) kvstore.control Makefile
	cat $(SQL_PARTS) > $@.tmp
	mv $@.tmp $@

# PGXS tracks no headers: any header, all objects.
$(OBJS) $(OBJS:.o=.bc): $(HEADER_FILES)

# Objects made for another PostgreSQL, another version of kvstore or with other flags are no use, and make cannot tell
# from the times: it can from this file, which changes when they do.
BUILD_FLAGS = $(VERSION) $(CC) $(CPPFLAGS) $(CFLAGS)
$(OBJS) $(OBJS:.o=.bc): .build-flags
.build-flags: FORCE
	@printf '%s\n' '$(subst ','\'',$(BUILD_FLAGS))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(BUILD_FLAGS))' > $@
FORCE:

# In scratch folders, so that the build is left alone and both compilers see every file.  CFLAGS are those of the compiler
# that PostgreSQL was built with; clang does not know all of gcc's, and need not say so.
WARNINGS_gcc = -Werror
WARNINGS_clang = -Werror -Wno-unknown-warning-option -Wno-ignored-optimization-argument
warnings: headerscheck warnings-gcc warnings-clang
warnings-%:
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && status=0 && \
	for file in $(OBJS:.o=.c); do \
		$* $(CPPFLAGS) $(CFLAGS) $(WARNINGS_$*) -c -o "$$dir/object.o" $$file || status=1; \
	done && \
	[ $$status = 0 ] && echo "$*: no warnings"

headerscheck:
	@for header in $(HEADER_FILES); do \
		$(CC) $(CPPFLAGS) $(CFLAGS) -Werror -fsyntax-only -x c -include $$header /dev/null || exit 1; \
	done

# Those of the compiler, one a line, for other programs that read the sources.
flags:
	@printf '%s\n' $(CPPFLAGS) $(CFLAGS)

.PHONY: FORCE warnings headerscheck flags

endif
