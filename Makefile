# gprocfs - `make help` says what can be made and what can be set.
#
# lib/*.c is the library and nothing else: it is compiled without libfuse's flags, so that an include of
# it fails. fs/*.c is the daemon. Sources are found by wildcard; whatever is not there is not built.
# Every product is in $(OUT): build/, or build/san-... with SAN=.

VERSION   := 0.1.0
SOVERSION := 0

# Each may be given in capitals or by the name that GNU programs have for it, as in prefix=/usr.
prefix      ?= /usr/local
PREFIX      ?= $(prefix)
exec_prefix ?= $(PREFIX)
bindir      ?= $(exec_prefix)/bin
sbindir     ?= $(exec_prefix)/sbin
libdir      ?= $(exec_prefix)/lib
includedir  ?= $(PREFIX)/include
datarootdir ?= $(PREFIX)/share
datadir     ?= $(datarootdir)
mandir      ?= $(DATADIR)/man
BINDIR      ?= $(bindir)
SBINDIR     ?= $(sbindir)
LIBDIR      ?= $(libdir)
INCLUDEDIR  ?= $(includedir)
DATADIR     ?= $(datadir)
MANDIR      ?= $(mandir)
# Where systemd and the shells look; these need not be there.
SYSTEMDUNITDIR     ?= $(PREFIX)/lib/systemd/system
SYSTEMDUSERUNITDIR ?= $(PREFIX)/lib/systemd/user
TMPFILESDIR        ?= $(PREFIX)/lib/tmpfiles.d
BASHCOMPDIR        ?= $(DATADIR)/bash-completion/completions
ZSHCOMPDIR         ?= $(DATADIR)/zsh/site-functions

CFLAGS       ?= -O2 -g
CLANG        ?= clang
GCC          ?= gcc
CLANG_FORMAT ?= clang-format
CLANG_TIDY   ?= clang-tidy
CPPCHECK     ?= cppcheck
SHELLCHECK   ?= shellcheck
PKG_CONFIG   ?= pkg-config
INSTALL      ?= install
LDCONFIG     ?= ldconfig
BUILD        ?= build
SECONDS      ?= 60
KILL_EVERY   ?= 60

# V=1 shows the commands. WERROR=1 makes warnings errors. SAN=address,undefined or SAN=thread sanitizes.
V      ?=
WERROR ?=
SAN    ?=
# Set by the fuzz target for itself.
FUZZING ?=

.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:

comma := ,
quote := '
OUT   := $(BUILD)$(if $(FUZZING),/fuzz,$(if $(SAN),/san-$(subst $(comma),-,$(SAN))))
say    = $(if $(filter-out 0,$(V)),,@printf '  %-8s%s\n' '$(1)' '$(2)';)
# $(call once,NAME,TEXT): the value of NAME from now on is TEXT, expanded when it is first needed.
once   = $(eval $(1) := $(2))$($(1))
# $(call shell_quoted,TEXT)
shell_quoted = '$(subst $(quote),'\'',$(1))'

# --- sources ----------------------------------------------------------------------------------------

LIB_SRC     := $(wildcard lib/*.c)
EXAMPLE_SRC := $(wildcard lib/examples/*.c)
FS_SRC      := $(wildcard fs/*.c)
SUPPORT_SRC := $(wildcard tests/support/*.c)
UNIT_SRC    := $(wildcard tests/unit/test_*.c)
MOUNT_SRC   := $(wildcard tests/mount/test_*.c)
FUZZ_SRC    := $(wildcard tests/fuzz/fuzz_*.c)
MODEL_SRC   := $(wildcard tests/model/*.c)
BENCH_SRC   := $(wildcard tests/bench/*.c)
SOAK_SRC    := $(wildcard tests/soak/*.c)
ALL_SRC     := $(LIB_SRC) $(EXAMPLE_SRC) $(FS_SRC) $(SUPPORT_SRC) $(UNIT_SRC) $(MOUNT_SRC) \
               $(FUZZ_SRC) $(MODEL_SRC) $(BENCH_SRC) $(SOAK_SRC)
HEADERS     := $(wildcard lib/*.h lib/examples/*.h fs/*.h tests/*/*.h)
# What the shells run but zsh, which shellcheck does not know; one is for python3.
SCRIPTS     := $(filter-out %.service %.conf scripts/completion scripts/debian scripts/check-format,$(wildcard scripts/*)) \
               $(wildcard scripts/completion/*.bash .ci/run)

# Tests of the daemon's modules: those named for one. They, and only they, see fs/ and libfuse.
FS_UNIT_SRC := $(filter $(patsubst fs/%.c,tests/unit/test_%.c,$(FS_SRC)) \
               $(patsubst fs/%.c,tests/unit/test_%_faults.c,$(FS_SRC)),$(UNIT_SRC))
# And what only they use of the support.
FS_SUPPORT_SRC := tests/support/inside.c
# Fuzzers likewise; fuzz_names compares the names of both.
FS_FUZZ_SRC := $(filter $(patsubst fs/%.c,tests/fuzz/fuzz_%.c,$(FS_SRC)) %/fuzz_names.c,$(FUZZ_SRC))
# Tests in which calls fail: what they and the library call comes to tests/support/fault.c first.
FAULTS_SRC  := $(wildcard tests/unit/test_*_faults.c)
WRAPPED     := tests/support/fault.wrap

objects_of    = $(patsubst %.c,$(OUT)/obj/%.o,$(1))
programs_of   = $(patsubst %.c,$(OUT)/%,$(1))
LIB_OBJ      := $(call objects_of,$(LIB_SRC))
FS_OBJ       := $(call objects_of,$(FS_SRC))
SUPPORT_OBJ  := $(call objects_of,$(SUPPORT_SRC))
MODEL_OBJ    := $(call objects_of,$(MODEL_SRC))
FS_UNIT_OBJ  := $(call objects_of,$(FS_UNIT_SRC) $(FS_SUPPORT_SRC))
FS_FUZZ_OBJ  := $(call objects_of,$(FS_FUZZ_SRC))

STATIC_LIB := $(OUT)/libgproc.a
SHARED_LIB := $(OUT)/libgproc.so.$(VERSION)
DAEMON     := $(OUT)/gprocfs
# Not for others: what the tests link.
FS_PARTS   := $(OUT)/obj/fs-parts.a
SUPPORT    := $(OUT)/obj/support.a
MODEL_PARTS := $(OUT)/obj/model-parts.a

EXAMPLES    := $(patsubst lib/examples/%.c,$(OUT)/examples/%,$(EXAMPLE_SRC))
UNIT_TESTS  := $(call programs_of,$(UNIT_SRC))
MOUNT_TESTS := $(call programs_of,$(MOUNT_SRC))
FUZZERS     := $(patsubst tests/fuzz/%.c,$(OUT)/%,$(FUZZ_SRC))
FS_FUZZERS  := $(patsubst tests/fuzz/%.c,$(OUT)/%,$(FS_FUZZ_SRC))
MODEL       := $(call programs_of,$(filter %/model.c,$(MODEL_SRC)))
# One program of many parts, and the file system that it compares ours with.
EMPTYFS     := $(call programs_of,$(filter %/emptyfs.c,$(BENCH_SRC)))
BENCH       := $(call programs_of,$(filter %/bench.c,$(BENCH_SRC)))
EMPTYFS_OBJ := $(call objects_of,$(filter %/emptyfs.c,$(BENCH_SRC)))
BENCH_OBJ   := $(filter-out $(EMPTYFS_OBJ),$(call objects_of,$(BENCH_SRC)))
SOAK        := $(call programs_of,$(filter %/soak.c,$(SOAK_SRC)))

# --- flags ------------------------------------------------------------------------------------------
# CFLAGS, CPPFLAGS, LDFLAGS and LDLIBS are the user's; what the sources need is added to them.

WARNINGS := -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
            -Wwrite-strings -Wvla $(if $(filter-out 0,$(WERROR)),-Werror)

# Of these flags, the ones that the compiler takes without a word.
taken = $(shell for flag in $(1); do \
            printf '\043include <stdio.h>\nint main(void) { return 0; }\n' | \
            $(CC) -Werror -O2 -U_FORTIFY_SOURCE $$flag -x c -c -o /dev/null - 2>/dev/null && \
            echo " $$flag"; done)

# FORTIFY works in optimized code only, and warns elsewhere.
HARDENING = $(call once,HARDENING,-U_FORTIFY_SOURCE $(if $(filter-out -O0,$(filter -O%,$(CFLAGS))),\
    $(lastword $(call taken,-D_FORTIFY_SOURCE=2 -D_FORTIFY_SOURCE=3))) \
    $(call taken,-fstack-protector-strong -fstack-clash-protection -fcf-protection))
HARDENING_LINK := -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack

SANITIZE      := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
SANITIZE_LINK := $(if $(SAN),-fsanitize=$(SAN))

# FORTIFY and the sanitizers' interceptors do not know of each other.
BASE_CFLAGS  = -std=gnu11 -D_GNU_SOURCE -pthread $(WARNINGS) $(if $(SAN),$(SANITIZE),$(HARDENING)) \
               -DGPROC_VERSION='"$(VERSION)"' $(CPPFLAGS) $(CFLAGS)
BASE_LDFLAGS = -pthread $(SANITIZE_LINK) $(HARDENING_LINK) -Wl,--as-needed $(CFLAGS) $(LDFLAGS)

# Headers of others are not ours to warn about.
package_cflags = $(if $(shell $(PKG_CONFIG) --exists $(1) && echo yes),$(patsubst \
    -I%,-isystem %,$(shell $(PKG_CONFIG) --cflags $(1))),$(error $(1) was not found by $(PKG_CONFIG): \
    scripts/install-needs $(2) installs it))
FUSE_CFLAGS   = $(call once,FUSE_CFLAGS,$(call package_cflags,fuse3,build))
FUSE_LIBS     = $(call once,FUSE_LIBS,$(shell $(PKG_CONFIG) --libs fuse3))
CMOCKA_CFLAGS = $(call once,CMOCKA_CFLAGS,$(call package_cflags,cmocka,test))
CMOCKA_LIBS   = $(call once,CMOCKA_LIBS,$(shell $(PKG_CONFIG) --libs cmocka))

LIB_CFLAGS  = -fPIC
FS_CFLAGS   = -fPIE -Ilib $(FUSE_CFLAGS)
TEST_CFLAGS = -fPIE -Ilib -Itests/support -Itests/model $(CMOCKA_CFLAGS)

# --- targets ----------------------------------------------------------------------------------------

.PHONY: all library daemon examples tests unit-tests mount-tests objects check check-unit check-mount \
        check-memory lint lint-compile lint-format lint-tidy lint-cppcheck lint-scripts \
        model fuzz fuzzers fuzz-programs coverage coverage-run coverage-unit coverage-unit-run bench \
        soak install uninstall deb clean help FORCE

all: library daemon examples

library: $(if $(LIB_SRC),$(STATIC_LIB) $(SHARED_LIB) $(OUT)/libgproc.so.$(SOVERSION) $(OUT)/libgproc.so)
daemon: $(if $(FS_SRC),$(DAEMON))
examples: $(EXAMPLES)
unit-tests: $(UNIT_TESTS)
mount-tests: $(MOUNT_TESTS)
tests: unit-tests mount-tests
objects: $(call objects_of,$(ALL_SRC))

help:
	@echo 'make            the library, the daemon and the examples, in build/'
	@echo 'make check      build and run the unit tests and the mount tests'
	@echo 'make check-unit, check-mount, check-memory (the unit tests under valgrind)'
	@echo 'make lint       warnings of gcc and clang as errors, clang-tidy, cppcheck, clang-format, ...'
	@echo 'make fuzz       run every fuzzer for SECONDS= (60) seconds'
	@echo 'make model      random operations against a model, for SECONDS= (60) seconds, from SEED= on'
	@echo 'make coverage   which lines and branches of lib/ and fs/ the tests run (gcc, gcov);'
	@echo '                make coverage-unit: of lib/, the unit tests alone'
	@echo 'make bench      measure; the table is in build/bench.txt, too (under three minutes)'
	@echo 'make soak       mixed load for SECONDS= (60), the daemon killed every KILL_EVERY= (60) seconds'
	@echo 'make install    to PREFIX= (/usr/local) below DESTDIR= (/); make uninstall takes it away.'
	@echo '                BINDIR=, SBINDIR=, LIBDIR=, INCLUDEDIR=, DATADIR=, MANDIR=, or as bindir= ...'
	@echo 'make deb        a package for Debian and Ubuntu: build/gprocfs_VERSION_ARCH.deb'
	@echo 'make clean      remove build/'
	@echo
	@echo 'CC=, CFLAGS=, CPPFLAGS=, LDFLAGS= as usual; V=1 shows commands; WERROR=1 stops at warnings;'
	@echo 'SAN=address,undefined or SAN=thread builds sanitized, in a directory of its own in build/'

# A file that holds the text of flags, or the names of objects; it changes when they do, and then what
# depends on it is made again. $(call stamp,TEXT)
stamp = @mkdir -p $(@D); printf '%s\n' $(call shell_quoted,$(strip $(1))) >$@.new; \
    if cmp -s $@.new $@; then rm -f $@.new; else mv -f $@.new $@; fi

$(OUT)/obj/flags: FORCE
	$(call stamp,$(CC) $(BASE_CFLAGS) $(LIB_CFLAGS) | $(AR) | $(BASE_LDFLAGS) | $(LDLIBS))
$(OUT)/obj/flags-fs: FORCE
	$(call stamp,$(FS_CFLAGS) | $(FUSE_LIBS))
$(OUT)/obj/flags-test: FORCE
	$(call stamp,$(TEST_CFLAGS) | $(CMOCKA_LIBS))
$(OUT)/obj/flags-lib-objects: FORCE
	$(call stamp,$(LIB_OBJ))
$(OUT)/obj/flags-fs-objects: FORCE
	$(call stamp,$(FS_OBJ))
$(OUT)/obj/flags-support-objects: FORCE
	$(call stamp,$(SUPPORT_OBJ))
$(OUT)/obj/flags-model-objects: FORCE
	$(call stamp,$(MODEL_OBJ))

compile = $(CC) $(BASE_CFLAGS) $(1) -MMD -MP -c -o $@ $<
archive = rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)
link    = $(CC) $(BASE_LDFLAGS) -pie -o $@ $(filter %.o,$^) $(filter %.a,$^) $(1) $(LDLIBS)

$(OUT)/obj/lib/%.o: lib/%.c $(OUT)/obj/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(call compile,$(LIB_CFLAGS) $(MORE_CFLAGS))

$(OUT)/obj/fs/%.o: fs/%.c $(OUT)/obj/flags $(OUT)/obj/flags-fs
	@mkdir -p $(@D)
	$(call say,CC,$<)$(call compile,$(FS_CFLAGS))

$(OUT)/obj/tests/%.o: tests/%.c $(OUT)/obj/flags $(OUT)/obj/flags-test
	@mkdir -p $(@D)
	$(call say,CC,$<)$(call compile,$(TEST_CFLAGS) $(MORE_CFLAGS))

# What a sanitizer calls comes here, too, before it can bear to be called by what it has sanitized.
# Private: the flags that others are made again for are not its.
$(OUT)/obj/tests/support/fault.o: private SANITIZE =
$(FS_UNIT_OBJ): MORE_CFLAGS = -Ifs $(FUSE_CFLAGS)
$(EMPTYFS_OBJ): MORE_CFLAGS = $(FUSE_CFLAGS)
$(FS_UNIT_OBJ) $(FS_FUZZ_OBJ) $(EMPTYFS_OBJ): $(OUT)/obj/flags-fs
# Examples are written as users of the installed library would write them.
$(call objects_of,$(EXAMPLE_SRC)): MORE_CFLAGS = -Ilib
# The fuzzing engine's entry point is declared by no header.
$(call objects_of,$(FUZZ_SRC)): MORE_CFLAGS = -Wno-missing-prototypes
$(FS_FUZZ_OBJ): MORE_CFLAGS = -Wno-missing-prototypes -Ifs $(FUSE_CFLAGS)

$(STATIC_LIB): $(LIB_OBJ) $(OUT)/obj/flags-lib-objects
	$(call say,AR,$@)$(archive)
$(FS_PARTS): $(filter-out %/main.o,$(FS_OBJ)) $(OUT)/obj/flags-fs-objects
	$(call say,AR,$@)$(archive)
$(SUPPORT): $(SUPPORT_OBJ) $(OUT)/obj/flags-support-objects
	@mkdir -p $(@D)
	$(call say,AR,$@)$(archive)

$(MODEL_PARTS): $(filter-out %/model.o,$(MODEL_OBJ)) $(OUT)/obj/flags-model-objects
	@mkdir -p $(@D)
	$(call say,AR,$@)$(archive)

# A sanitizer's run-time is the program's, not the library's: its symbols stay undefined here.
$(SHARED_LIB): $(LIB_OBJ) lib/libgproc.map $(OUT)/obj/flags-lib-objects
	$(call say,LINK,$@)$(CC) $(BASE_LDFLAGS) $(if $(SAN),,-Wl$(comma)-z$(comma)defs) -shared \
	    -Wl,-soname,libgproc.so.$(SOVERSION) -Wl,--version-script=lib/libgproc.map \
	    -o $@ $(LIB_OBJ) $(LDLIBS)
$(OUT)/libgproc.so.$(SOVERSION): $(SHARED_LIB)
	$(call say,LN,$@)ln -sf $(<F) $@
$(OUT)/libgproc.so: $(OUT)/libgproc.so.$(SOVERSION)
	$(call say,LN,$@)ln -sf $(<F) $@

$(DAEMON): $(FS_OBJ) $(if $(LIB_SRC),$(STATIC_LIB)) $(OUT)/obj/flags-fs-objects
	$(call say,LINK,$@)$(call link,$(FUSE_LIBS))

$(OUT)/examples/%: $(OUT)/obj/lib/examples/%.o $(STATIC_LIB)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(call link)

$(call programs_of,$(FS_UNIT_SRC)): $(OUT)/%: $(OUT)/obj/%.o $(SUPPORT) $(FS_PARTS) $(STATIC_LIB)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(call link,$(WRAP) $(CMOCKA_LIBS) $(FUSE_LIBS))

$(filter-out $(call programs_of,$(FS_UNIT_SRC)),$(UNIT_TESTS)) $(MOUNT_TESTS): \
        $(OUT)/%: $(OUT)/obj/%.o $(MODEL_PARTS) $(SUPPORT) $(STATIC_LIB)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(call link,$(WRAP) $(CMOCKA_LIBS))
$(call programs_of,$(FAULTS_SRC)): WRAP = -Wl,@$(WRAPPED)
$(call programs_of,$(FAULTS_SRC)): $(WRAPPED)

$(MODEL): $(filter %/model.o,$(MODEL_OBJ)) $(MODEL_PARTS) $(SUPPORT) $(STATIC_LIB)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(call link,$(CMOCKA_LIBS))
$(BENCH): $(BENCH_OBJ) $(SUPPORT) $(STATIC_LIB)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(call link,$(CMOCKA_LIBS) -lrt)
$(SOAK): $(call objects_of,$(SOAK_SRC)) $(SUPPORT) $(STATIC_LIB)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(call link,$(CMOCKA_LIBS))
$(EMPTYFS): $(EMPTYFS_OBJ)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(call link,$(FUSE_LIBS))

$(FS_FUZZERS): $(OUT)/%: $(OUT)/obj/tests/fuzz/%.o $(SUPPORT) $(FS_PARTS) $(STATIC_LIB)
	$(call say,LINK,$@)$(call link,-fsanitize=fuzzer $(CMOCKA_LIBS) $(FUSE_LIBS))
$(filter-out $(FS_FUZZERS),$(FUZZERS)): $(OUT)/%: $(OUT)/obj/tests/fuzz/%.o $(SUPPORT) $(STATIC_LIB)
	$(call say,LINK,$@)$(call link,-fsanitize=fuzzer $(CMOCKA_LIBS))

-include $(patsubst %.o,%.d,$(wildcard $(call objects_of,$(ALL_SRC))))

# --- tests ------------------------------------------------------------------------------------------
# RUN_FLAGS go to scripts/run-tests: -j PROGRAMS AT ONCE, -t SECONDS EACH, -v. What the programs learn from
# the environment: GPROCFS, the daemon; GPROC_TEST_DATA, tests/data; GPROC_TEST_TOOL, what slows them down
# (none, valgrind, or what SAN= says).

run_tests = GPROCFS=$(call shell_quoted,$(CURDIR)/$(DAEMON)) \
    GPROC_TEST_DATA=$(call shell_quoted,$(CURDIR)/tests/data) \
    GPROC_TEST_TOOL=$(call shell_quoted,$(or $(1),$(SAN),none)) \
    scripts/run-tests $(RUN_FLAGS)

check: tests all
	@$(call run_tests) $(UNIT_TESTS) $(MOUNT_TESTS)
check-unit: unit-tests
	@$(call run_tests) $(UNIT_TESTS)
check-mount: mount-tests all
	@$(call run_tests) $(MOUNT_TESTS)
# Two make thousands of runs, which take minutes there; the address sanitizer has seen them.
check-memory: unit-tests
	@$(call run_tests,valgrind) -m $(filter-out %/test_inflight_faults %/test_scan_faults,$(UNIT_TESTS))

lint: lint-compile lint-format lint-tidy lint-cppcheck lint-scripts

lint-compile:
	@+$(MAKE) --no-print-directory CC=$(GCC) WERROR=1 SAN= BUILD=$(BUILD)/lint-gcc objects
	@+$(MAKE) --no-print-directory CC=$(CLANG) WERROR=1 SAN= BUILD=$(BUILD)/lint-clang objects
# One file at a time: clang-format 14 crashes when it complains of several.
lint-format:
	$(call say,FORMAT,lib fs tests)status=0; for file in $(ALL_SRC) $(HEADERS); do \
	    $(CLANG_FORMAT) --dry-run -Werror $$file || status=1; done; exit $$status
# Whatever a source includes, for all of them; one at a time, two at once. How many warnings there are in
# others' headers it says on stderr, and what it finds on stdout.
lint-tidy:
	$(call say,TIDY,lib fs tests)$(if $(ALL_SRC),printf '%s\n' $(ALL_SRC) | xargs -P 2 -I '{}' \
	    $(CLANG_TIDY) --quiet '{}' -- -std=gnu11 -D_GNU_SOURCE -DGPROC_VERSION='"$(VERSION)"' \
	    -Ilib -Ifs -Itests/support -Itests/model $(FUSE_CFLAGS) $(CMOCKA_CFLAGS) 2>/dev/null,:)
# NULL is a pointer wherever this builds, and cmocka's failures do not return.
lint-cppcheck:
	$(call say,CHECK,lib fs tests)$(if $(ALL_SRC),$(CPPCHECK) --quiet --std=c11 --language=c \
	    --enable=warning$(comma)performance$(comma)portability --inline-suppr --error-exitcode=1 \
	    --suppress=missingIncludeSystem --suppress=varFuncNullUB '-Dfail_msg(...)=abort()' \
	    '-Dfail()=abort()' -D_GNU_SOURCE -D__linux__ -DGPROC_VERSION='"$(VERSION)"' \
	    -Ilib -Itests/support -Itests/model $(ALL_SRC),:)
lint-scripts:
	$(call say,SHELL,scripts)$(if $(SCRIPTS),$(SHELLCHECK) -x $(SCRIPTS),:)

fuzz: fuzzers
	@$(if $(FUZZ_SRC),scripts/run-fuzzers $(RUN_FLAGS) $(SECONDS) \
	    $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC)),echo 'nothing to fuzz')
fuzzers:
	@+$(MAKE) --no-print-directory CC=$(CLANG) FUZZING=1 SAN=fuzzer-no-link,address,undefined \
	    fuzz-programs
fuzz-programs: $(FUZZERS)

model: $(MODEL) all
	@GPROCFS=$(call shell_quoted,$(CURDIR)/$(DAEMON)) $(MODEL) --seconds $(SECONDS) \
	    $(if $(SEED),--seed $(SEED))

# At -O0, where a line is a line. A test may become another user, whose daemon counts as well, in files
# that are there and his to write; where he cannot reach them he does not complain of it. As for
# sanitizers tests pass over failing calls, which would be those that write what was counted.
coverage coverage-unit:
	@+$(MAKE) --no-print-directory CC=$(GCC) SAN= BUILD=$(BUILD)/coverage \
	    CFLAGS='-O0 -g --coverage -fprofile-update=atomic' $@-run
count_nothing = find $(OUT)/obj -name '*.gcno' | while read -r notes; do \
    : >"$${notes%.gcno}.gcda" && chmod a+rw "$${notes%.gcno}.gcda"; done
coverage-run: tests all
	@$(count_nothing)
	-@GCOV_ERROR_FILE=/dev/null $(call run_tests,coverage) $(UNIT_TESTS) $(MOUNT_TESTS)
	@scripts/coverage $(OUT)
# Alone they run all of lib/.
coverage-unit-run: unit-tests
	@$(count_nothing)
	-@GCOV_ERROR_FILE=/dev/null $(call run_tests,coverage) $(UNIT_TESTS)
	@scripts/coverage $(OUT) $(LIB_SRC)

bench: $(BENCH) $(EMPTYFS) all
	@$(if $(BENCH),GPROCFS=$(call shell_quoted,$(CURDIR)/$(DAEMON)) $(BENCH) $(OUT)/bench.txt && \
	    echo && echo 'this is in $(OUT)/bench.txt',echo 'nothing to measure')

# The last report of an hour is in tests/soak/report.txt.
soak: $(SOAK) all
	@GPROCFS=$(call shell_quoted,$(CURDIR)/$(DAEMON)) GPROC_TEST_TOOL=$(call shell_quoted,$(or $(SAN),none)) \
	    $(SOAK) -k $(KILL_EVERY) -s $(SECONDS) $(OUT)/soak.txt; status=$$?; \
	    echo 'the report is in $(OUT)/soak.txt'; exit $$status

# --- installation -----------------------------------------------------------------------------------

MAN1 := $(wildcard fs/*.1)
MAN3 := $(wildcard lib/*.3)
MAN5 := $(wildcard lib/*.5)
MAN8 := $(wildcard fs/*.8)

$(OUT)/libgproc.pc: lib/libgproc.pc.in FORCE
	@mkdir -p $(@D)
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	    -e 's|@VERSION@|$(VERSION)|' $< >$@

# What is installed under another name than it has here. The units are told where the daemon is.
INSTALLED := $(OUT)/installed
ifneq ($(FS_SRC),)
UNIT      := $(INSTALLED)/system/gprocfs.service
USER_UNIT := $(INSTALLED)/user/gprocfs.service
TMPFILES  := $(INSTALLED)/gprocfs.conf
BASHCOMP  := $(INSTALLED)/gprocfs
ZSHCOMP   := scripts/completion/_gprocfs scripts/completion/_gproc_mailboxes
endif

$(INSTALLED)/system/gprocfs.service: scripts/gprocfs.service FORCE
	@mkdir -p $(@D)
	@sed -e 's|^ExecStart=gprocfs |ExecStart=$(BINDIR)/gprocfs |' $< >$@
$(INSTALLED)/user/gprocfs.service: scripts/gprocfs-user.service FORCE
	@mkdir -p $(@D)
	@sed -e 's|^ExecStart=gprocfs |ExecStart=$(BINDIR)/gprocfs |' $< >$@
$(INSTALLED)/gprocfs.conf: scripts/gprocfs.tmpfiles.conf
	@mkdir -p $(@D)
	@cp $< $@
$(INSTALLED)/gprocfs: scripts/completion/gprocfs.bash
	@mkdir -p $(@D)
	@cp $< $@

# $(call put,MODE,FILES,DIRECTORY): installs files, if any, into a directory below DESTDIR.
define put
$(if $(strip $(2)),$(call say,INSTALL,$(3))$(INSTALL) -d -m 755 "$(DESTDIR)$(3)" && \
    $(INSTALL) -m $(1) $(2) "$(DESTDIR)$(3)")

endef
# $(call take_away,FILES,DIRECTORY)
define take_away
$(if $(strip $(1)),$(call say,REMOVE,$(2))rm -f $(foreach file,$(notdir $(1)),"$(DESTDIR)$(2)/$(file)"))

endef

# mount(8) looks for mount.TYPE in /sbin: `mount -t gprocfs`. `-t fuse.gprocfs` needs no more than fuse3.
HELPER_TARGET = $(if $(filter $(PREFIX)/bin:$(PREFIX)/sbin,$(BINDIR):$(SBINDIR)),../bin,$(BINDIR))/gprocfs

# So that programs find the library at once. What is below a DESTDIR runs elsewhere.
define tell_loader
$(if $(DESTDIR),,@! [ -w /etc/ld.so.cache ] || PATH="$$PATH:/usr/sbin:/sbin" $(LDCONFIG))

endef

install: all $(OUT)/libgproc.pc $(UNIT) $(USER_UNIT) $(TMPFILES) $(BASHCOMP)
	$(call put,755,$(if $(FS_SRC),$(DAEMON)),$(BINDIR))
ifneq ($(FS_SRC),)
	$(call say,INSTALL,$(SBINDIR))$(INSTALL) -d -m 755 "$(DESTDIR)$(SBINDIR)" && \
	    ln -sf $(HELPER_TARGET) "$(DESTDIR)$(SBINDIR)/mount.gprocfs"
endif
ifneq ($(LIB_SRC),)
	$(call put,644,$(STATIC_LIB),$(LIBDIR))
	$(call put,755,$(SHARED_LIB),$(LIBDIR))
	@ln -sf libgproc.so.$(VERSION) "$(DESTDIR)$(LIBDIR)/libgproc.so.$(SOVERSION)"
	@ln -sf libgproc.so.$(SOVERSION) "$(DESTDIR)$(LIBDIR)/libgproc.so"
	$(call put,644,$(OUT)/libgproc.pc,$(LIBDIR)/pkgconfig)
	$(call put,644,$(wildcard lib/gproc.h),$(INCLUDEDIR))
endif
	$(call put,644,$(MAN1),$(MANDIR)/man1)
	$(call put,644,$(MAN3),$(MANDIR)/man3)
	$(call put,644,$(MAN5),$(MANDIR)/man5)
	$(call put,644,$(MAN8),$(MANDIR)/man8)
	$(call put,644,$(UNIT),$(SYSTEMDUNITDIR))
	$(call put,644,$(USER_UNIT),$(SYSTEMDUSERUNITDIR))
	$(call put,644,$(TMPFILES),$(TMPFILESDIR))
	$(call put,644,$(BASHCOMP),$(BASHCOMPDIR))
	$(call put,644,$(ZSHCOMP),$(ZSHCOMPDIR))
	$(tell_loader)

# The files that install puts, and no directory: those may be others' too.
uninstall:
	$(call take_away,gprocfs,$(BINDIR))
	$(call take_away,mount.gprocfs,$(SBINDIR))
	$(call take_away,libgproc.a libgproc.so.$(VERSION) libgproc.so.$(SOVERSION) libgproc.so,$(LIBDIR))
	$(call take_away,libgproc.pc,$(LIBDIR)/pkgconfig)
	$(call take_away,gproc.h,$(INCLUDEDIR))
	$(call take_away,$(MAN1),$(MANDIR)/man1)
	$(call take_away,$(MAN3),$(MANDIR)/man3)
	$(call take_away,$(MAN5),$(MANDIR)/man5)
	$(call take_away,$(MAN8),$(MANDIR)/man8)
	$(call take_away,$(UNIT),$(SYSTEMDUNITDIR))
	$(call take_away,$(USER_UNIT),$(SYSTEMDUSERUNITDIR))
	$(call take_away,$(TMPFILES),$(TMPFILESDIR))
	$(call take_away,$(BASHCOMP),$(BASHCOMPDIR))
	$(call take_away,$(ZSHCOMP),$(ZSHCOMPDIR))
	$(tell_loader)

# A package without debhelper. CFLAGS and the like are as for any build.
deb: all
	@VERSION=$(VERSION) BUILD=$(call shell_quoted,$(OUT)) CC=$(call shell_quoted,$(CC)) \
	    MAKE=$(call shell_quoted,$(MAKE)) scripts/make-deb

clean:
	$(call say,CLEAN,$(BUILD))rm -rf -- "$(BUILD)"
