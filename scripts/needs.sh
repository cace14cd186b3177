# shellcheck shell=sh
# needs.sh - what building and testing need, and how to get it. To be read with `.`, not run.
#
#   needs_install build     makes sure that the tree can be built, mounted and shown
#   needs_install test      and that everything in it can be tested
#   needs_fuse              tells whether this system mounts file systems of ours at all
#
# Looks for the thing itself, not for a package of some name, so what was installed in another way
# counts. Asks the package manager, and so the network, only when something is missing.

# LEVEL|WHAT IT IS|HOW TO SEE THAT IT IS THERE|Debian, Ubuntu|Fedora|Arch|Alpine
# `-` means: comes with another row there, or is not to be had; then it is not asked for.
needs_table='
build|C compiler|compiles cc|gcc libc6-dev|gcc glibc-devel|gcc|gcc musl-dev linux-headers
build|make|command make|make|make|make|make
build|pkg-config|command pkg-config|pkg-config|pkgconf-pkg-config|pkgconf|pkgconf
build|libfuse 3 headers|package fuse3|libfuse3-dev|fuse3-devel|fuse3|fuse3-dev
build|fusermount3|command fusermount3|fuse3|fuse3|fuse3|fuse3
build|od|command od|coreutils|coreutils|coreutils|coreutils
build|mountpoint, flock|command mountpoint flock|util-linux|util-linux|util-linux|util-linux util-linux-misc
test|gcc|compiles gcc|gcc libc6-dev|gcc glibc-devel|gcc|gcc musl-dev
test|cmocka|package cmocka|libcmocka-dev|libcmocka-devel|cmocka|cmocka-dev
test|clang|compiles clang|clang libc6-dev|clang|clang|clang
test|clang sanitizers|sanitizes clang|libclang-rt-dev|compiler-rt|compiler-rt|compiler-rt
test|llvm-symbolizer|command llvm-symbolizer|llvm|llvm|llvm|-
test|clang-format|command clang-format|clang-format|clang-tools-extra|clang|clang-extra-tools
test|clang-tidy|command clang-tidy|clang-tidy|clang-tools-extra|clang|clang-extra-tools
test|cppcheck|command cppcheck|cppcheck|cppcheck|cppcheck|cppcheck
test|shellcheck|command shellcheck|shellcheck|ShellCheck|shellcheck|shellcheck
test|valgrind|command valgrind|valgrind|valgrind|valgrind|valgrind
test|bash|command bash|bash|bash|bash|bash
test|dash|command dash|dash|dash|dash|dash
test|zsh|command zsh|zsh|zsh|zsh|zsh
test|python3|command python3|python3|python3|python|python3
test|prometheus_client|imports prometheus_client|python3-prometheus-client|-|-|-
test|perl|command perl|perl|perl|perl|perl
test|strace|command strace|strace|strace|strace|strace
test|mkfs.ext4|command mkfs.ext4|e2fsprogs|e2fsprogs|e2fsprogs|e2fsprogs
test|ssh, sftp, ssh-keygen|command ssh sftp ssh-keygen|openssh-client|openssh-clients|openssh|openssh
test|sshd|command sshd|openssh-server|-|openssh|openssh-server
test|sshfs|command sshfs|sshfs|fuse-sshfs|sshfs|sshfs
test|rsync|command rsync|rsync|rsync|rsync|rsync
test|socat|command socat|socat|socat|socat|socat
test|vim|either vim vim.tiny|vim-tiny|vim-enhanced|vim|vim
test|inotifywait|command inotifywait|inotify-tools|inotify-tools|inotify-tools|inotify-tools
test|mandoc|command mandoc|mandoc|mandoc|-|mandoc
test|lintian|command lintian|lintian|-|-|-
test|debootstrap, systemd-nspawn|command debootstrap systemd-nspawn|debootstrap systemd-container|-|-|-
test|setpriv, unshare, setarch|command setpriv unshare setarch|util-linux|util-linux|util-linux|util-linux setpriv
'

needs_fail()
{
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    return 1
}

# What a row's third column says. Each answers with its exit status, silently.

needs_command()
{
    for needs_name; do
        (PATH=$PATH:/usr/sbin:/sbin && command -v "$needs_name") >/dev/null 2>&1 || return 1
    done
}

needs_either()
{
    for needs_one; do
        needs_command "$needs_one" && return
    done
    return 1
}

needs_package()
{
    pkg-config --exists "$1" 2>/dev/null
}

# $1: a module of Python's. The system's packages are for the system's own Python, which need not
# be the first one in PATH.
needs_imports()
{
    python3 -c "import $1" 2>/dev/null || /usr/bin/python3 -c "import $1" 2>/dev/null
}

# $1: compiler, then its flags
needs_compiles()
{
    needs_command "$1" || return 1
    printf '#include <stdio.h>\nint main(void) { return 0; }\n' |
        "$@" -x c -o /dev/null - >/dev/null 2>&1
}

needs_sanitizes()
{
    needs_compiles "$1" -fsanitize=address,undefined && needs_compiles "$1" -fsanitize=thread &&
        printf 'int LLVMFuzzerTestOneInput(void);\nint LLVMFuzzerTestOneInput(void) { return 0; }\n' |
        "$1" -fsanitize=fuzzer,address -x c -o /dev/null - >/dev/null 2>&1
}

# Prints apt, dnf, pacman or apk, or nothing.
needs_manager()
{
    for needs_name in apt-get dnf pacman apk; do
        if needs_command "$needs_name"; then
            echo "${needs_name%-get}"
            return
        fi
    done
}

# Prints the rows of level $1 that are not fulfilled. $2: the package manager, or nothing
needs_missing()
{
    printf '%s\n' "$needs_table" | while IFS='|' read -r level what test apt dnf pacman apk; do
        [ "$level" = build ] || { [ "$level" = "$1" ] && [ "$1" = test ]; } || continue
        case $2 in
            apt) packages=$apt ;;
            dnf) packages=$dnf ;;
            pacman) packages=$pacman ;;
            apk) packages=$apk ;;
            *) packages=$what ;;
        esac
        [ "$packages" != - ] || continue
        # shellcheck disable=SC2086 # a word and its arguments
        needs_$test </dev/null || printf '%s|%s\n' "$what" "$packages"
    done
}

# Installs packages for Debian so that a server among them neither starts, see policy-rc.d(8), nor will at
# the next boot. The rest as for needs_fetch.
needs_fetch_unstarted()
(
    needs_policy=/usr/sbin/policy-rc.d
    if [ ! -e "$needs_policy" ]; then
        trap '$needs_sudo rm -f "$needs_policy"' EXIT
        trap 'exit 1' INT TERM HUP
        printf '#!/bin/sh\nexit 101\n' | $needs_sudo tee "$needs_policy" >/dev/null
        $needs_sudo chmod 755 "$needs_policy"
    fi
    $needs_sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
        -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" || exit 1
    case " $* " in
        *' openssh-server '*) $needs_sudo /usr/sbin/update-rc.d ssh disable ;;
    esac
)

# $1: manager; the rest: packages. Needs root; `needs_sudo` is what gets it.
needs_fetch()
{
    needs_name=$1
    shift
    # shellcheck disable=SC2086 # needs_sudo is no word or several
    case $needs_name in
        apt)
            $needs_sudo apt-get -qq -o DPkg::Lock::Timeout=120 update || return 1
            # Older releases have clang's run-time in a package that clang itself brings.
            for needs_name; do
                shift
                case $needs_name in
                    libclang-rt-dev) apt-cache show "$needs_name" >/dev/null 2>&1 || continue ;;
                esac
                set -- "$@" "$needs_name"
            done
            needs_fetch_unstarted "$@"
            ;;
        dnf) $needs_sudo dnf -q -y --setopt=install_weak_deps=False install "$@" ;;
        # Arch knows no partial upgrade: a fresh list of packages goes with fresh packages.
        pacman) $needs_sudo pacman -Syu --needed --noconfirm "$@" ;;
        apk) $needs_sudo apk add --no-cache "$@" ;;
    esac
}

# $1: build or test. 0: all of it is there now. Otherwise 1, after a line that says what is not.
needs_install()
{
    needs_by=$(needs_manager)
    needs_rows=$(needs_missing "$1" "$needs_by")
    [ -n "$needs_rows" ] || return 0

    needs_what=$(printf '%s\n' "$needs_rows" | cut -d '|' -f 1 | paste -s -d ',' - | sed 's/,/, /g')
    needs_list=$(printf '%s\n' "$needs_rows" | cut -d '|' -f 2 | tr ' ' '\n' | sort -u | tr '\n' ' ')
    printf 'missing: %s\n' "$needs_what"

    if [ -z "$needs_by" ]; then
        needs_fail 'found none of apt-get, dnf, pacman, apk; please install these yourself'
        return 1
    fi
    if [ "$(id -u)" -eq 0 ]; then
        needs_sudo=
    elif needs_command sudo; then
        needs_sudo=sudo
        [ -t 0 ] || needs_sudo='sudo -n'
    else
        needs_fail "neither root nor sudo; please install, as root: $needs_list"
        return 1
    fi

    printf 'installing with %s: %s\n' "$needs_by" "$needs_list"
    # What it reports is only of interest when it fails.
    needs_log=$(mktemp) || return 1
    # shellcheck disable=SC2086 # a list
    if ! needs_fetch "$needs_by" $needs_list >"$needs_log" 2>&1 </dev/null; then
        tail -n 30 "$needs_log" >&2
        rm -f "$needs_log"
        needs_fail "$needs_by could not install them"
        return 1
    fi
    rm -f "$needs_log"

    needs_rows=$(needs_missing "$1" "$needs_by")
    if [ -n "$needs_rows" ]; then
        needs_fail "installed, but still missing: $(printf '%s\n' "$needs_rows" |
            cut -d '|' -f 1 | paste -s -d ',' -)"
        return 1
    fi
}

# As `[ -w ]` says yes to root whatever the kernel thinks of it: opens the device.
needs_fuse()
{
    [ -c /dev/fuse ] && (: <>/dev/fuse) 2>/dev/null
}
