# shellcheck shell=bash
# Completion of the command line of gprocfs for bash: its options, what follows -o, and directories.
# Mailboxes need none: below a mount they are files.

# $1: the end of a list of mount options. Bash takes = for a word of its own, so a value comes alone.
_gprocfs_mount_options()
{
    local done='' word
    local words='allow_other allow_root auto_unmount debug live lock_timeout= lockdir= max_message=
        noatime nodev noexec nosuid ro'

    [[ $1 != *,* ]] || done=${1%,*},
    while IFS= read -r word; do
        COMPREPLY+=("$done$word")
        [[ $word != *= ]] || compopt -o nospace 2>/dev/null
    done < <(compgen -W "$words" -- "${1##*,}")
}

_gprocfs_directories()
{
    mapfile -t COMPREPLY < <(compgen -d -- "$1")
    compopt -o filenames 2>/dev/null
}

_gprocfs()
{
    local word=${COMP_WORDS[COMP_CWORD]}
    local before=${COMP_WORDS[COMP_CWORD - 1]}
    local name=$before

    COMPREPLY=()
    # After NAME=
    if [[ $word == '=' || $before == '=' ]]; then
        [[ $word == '=' ]] || name=${COMP_WORDS[COMP_CWORD - 2]}
        [[ $word != '=' ]] || word=
        [[ ${name##*,} != lockdir && ${name##*,} != -olockdir ]] || _gprocfs_directories "$word"
    elif [[ $before == -o ]]; then
        _gprocfs_mount_options "$word"
    elif [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '-d -f -h -o -s -V --help --version' -- "$word")
    else
        _gprocfs_directories "$word"
    fi
}

complete -F _gprocfs gprocfs
