#!/bin/sh
# The command `styled` of the image: runs styled as the user PUID and the group PGID, with UMASK.
# They are numbers and need not exist.
#
# Started as root, it drops all privileges. Started as another user (`user:` in compose.yaml), it
# stays that user, and PUID and PGID have no effect.
set -eu

PUID="${PUID:-1000}" PGID="${PGID:-1000}" UMASK="${UMASK:-022}" WEIGHTS="${WEIGHTS:-imagenet}"

fail() {
    echo "styled: $1" >&2
    sleep 3 # a container that is restarted at once, for ever, keeps the machine busy
    exit 73
}

is_of_digits() {
    case "$1" in "" | *[!0-9]*) return 1 ;; esac
}

is_of_digits "$PUID" && is_of_digits "$PGID" ||
    fail "PUID and PGID must be numbers, such as those that 'id' prints: '$PUID', '$PGID'"
is_of_digits "$UMASK" || fail "UMASK must be an octal number, such as 022 or 002: '$UMASK'"

VOLUMES="config inbox outbox archive rejected state weights"

if [ "$(id -u)" = 0 ] && [ "${STYLED_USER:-}" = "" ]; then
    if [ "${1:-}" = run ]; then
        # New volumes belong to root. What is in use already is not touched.
        for name in $VOLUMES; do
            folder=/$name
            if [ -w $folder ] && [ "$(stat -c %u $folder)" = 0 ] && [ -z "$(ls -A $folder)" ]; then
                if [ $name != state ]; then # the group may write where UMASK lets it
                    chmod "$(printf %o $((0777 & ~0$UMASK)))" $folder
                fi
                chown "$PUID:$PGID" $folder 2>/dev/null || true # not on drives without owners
            fi
        done
    fi
    export STYLED_USER="$PUID:$PGID"
    # Another user than root loses all capabilities in any case.
    limit=--bounding-set=-all
    setpriv $limit true 2>/dev/null || limit=
    exec setpriv --reuid="$PUID" --regid="$PGID" --clear-groups --no-new-privs $limit -- "$0" "$@"
fi

umask "$UMASK"

require_writable() {
    [ -w "$1" ] && return
    user="$(id -u):$(id -g)"
    if ! grep -q "^[^ ]* $1 [^ ]* rw" /proc/mounts; then
        fail "$1 is mounted read-only: mount it writable"
    fi
    fail "user $user may not write to $1, which belongs to $(stat -c %u:%g "$1"):
give the folder that is mounted there to that user (chown -R $user), or run styled as its owner
(PUID and PGID, or --user)"
}

if [ "${1:-}" = run ]; then
    # As process 1, a shell has to ask for the stop signal.
    trap 'exit 143' TERM INT
    mkdir -p "$RUNTIME_DIRECTORY" # for heartbeats, which `styled health` reads
    mountpoint -q /config || fail "/config is no volume: mount a folder there"
    if [ ! -e /config/config.yaml ]; then
        require_writable /config
        case "$WEIGHTS" in
            imagenet | untrained | /*) ;;
            *) fail "WEIGHTS must be imagenet, untrained, or the path of a file: '$WEIGHTS'" ;;
        esac
        /opt/styled/bin/styled init /config --folders / --weights "$WEIGHTS" >/dev/null &
        wait $!
        echo "made /config/config.yaml, with a first style"
    fi
    # Photos in a folder that is no volume would be lost with the container.
    for name in inbox outbox archive rejected state; do
        if grep -q "^$name: /$name\$" /config/config.yaml; then
            mountpoint -q /$name ||
                fail "/$name is no volume: mount a folder there, or change '$name:' in config.yaml"
            [ $name = inbox ] || require_writable /$name
        fi
    done
    if grep -q "^ *weights: imagenet\$" /config/config.yaml && ! mountpoint -q "$TORCH_HOME"; then
        fail "$TORCH_HOME is no volume: mount a folder there, or every new container downloads 548 MB"
    fi
    trap - TERM INT
fi

exec /opt/styled/bin/styled "$@"
