#!/bin/sh
# The command `styled` of the image: runs styled as the user PUID and the group PGID, with UMASK.
# They are numbers and need not exist.
#
# Started as root, it drops all privileges. Started as another user (`user:` in compose.yaml), it
# stays that user, and PUID and PGID have no effect.
set -eu

PUID="${PUID:-1000}" PGID="${PGID:-1000}" UMASK="${UMASK:-022}"

fail() {
    echo "styled: $1" >&2
    exit 73
}

if [ "$(id -u)" = 0 ] && [ "${STYLED_USER:-}" = "" ]; then
    if [ "${1:-}" = run ]; then
        # New volumes belong to root. What is in use already is not touched.
        for folder in /config /inbox /outbox /archive /rejected /state /weights; do
            if [ -d $folder ] && [ "$(stat -c %u $folder)" = 0 ] && [ -z "$(ls -A $folder)" ]; then
                chown "$PUID:$PGID" $folder || true # not on drives without owners
            fi
        done
    fi
    export STYLED_USER="$PUID:$PGID"
    exec setpriv --reuid="$PUID" --regid="$PGID" --clear-groups --no-new-privs -- "$0" "$@"
fi

umask "$UMASK"

if [ "${1:-}" = run ]; then
    mkdir -p "$RUNTIME_DIRECTORY" # for heartbeats, which `styled health` reads
    mountpoint -q /config || fail "/config is no volume: mount a folder there"
    if [ ! -e /config/config.yaml ]; then
        [ -w /config ] || fail "user $(id -u) may not write to /config:
set PUID and PGID to the owner of the folder that is mounted there, or change the owner"
        /opt/styled/bin/styled init /config --folders / --weights "${WEIGHTS:-imagenet}"
    fi
    # Photos in a folder that is no volume would be lost with the container.
    for folder in inbox outbox archive rejected state; do
        if grep -q "^$folder: /$folder\$" /config/config.yaml && ! mountpoint -q /$folder; then
            fail "/$folder is no volume: mount a folder there, or change '$folder:' in config.yaml"
        fi
    done
fi

exec /opt/styled/bin/styled "$@"
