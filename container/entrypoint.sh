#!/bin/sh
# Runs styled as the user PUID and the group PGID, with UMASK. They are numbers and need not exist.
#
# Started as root, it drops all privileges. Started as another user (`user:` in compose.yaml), it
# stays that user, and PUID and PGID have no effect.
set -eu

fail() {
    echo "styled: $1" >&2
    exit 73
}

if [ "$(id -u)" = 0 ] && [ "${STYLED_USER:-}" = "" ]; then
    # New volumes belong to root. What is in use already is not touched.
    for folder in /config /inbox /outbox /archive /rejected /state /weights; do
        if [ -d "$folder" ] && [ "$(stat -c %u "$folder")" = 0 ] && [ -z "$(ls -A "$folder")" ]; then
            chown "$PUID:$PGID" "$folder" || true # not on drives without owners
        fi
    done
    export STYLED_USER="$PUID:$PGID"
    exec setpriv --reuid="$PUID" --regid="$PGID" --clear-groups --no-new-privs -- "$0" "$@"
fi

umask "$UMASK"
mkdir -p "$RUNTIME_DIRECTORY" # for heartbeats, which `styled health` reads

if [ "${1:-}" = run ]; then
    if [ ! -e /config/config.yaml ]; then
        [ -w /config ] || fail "/config is not there or not writable for user $(id -u):
mount a folder there that this user may write to, or set PUID and PGID to the folder's owner"
        styled init /config --folders / --weights "${WEIGHTS:-imagenet}"
    fi
    # Photos in a folder that is no volume would be lost with the container.
    for folder in inbox outbox archive rejected state; do
        if grep -q "^$folder: /$folder\$" /config/config.yaml && ! mountpoint -q "/$folder"; then
            fail "/$folder is no volume: mount a folder there, or change '$folder:' in config.yaml"
        fi
    done
fi

exec styled "$@"
