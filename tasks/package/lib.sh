# What the scripts of this task share. Sourced, never run.
#
# What undo needs to know is kept in $STATE, one folder a run, written and synced before the first change:
#   before   the version that was installed, empty for none
#   held     yes or no
#   target   the version that this run installs
#   *.deb    the package of the version before, for the day when the repository has dropped it
# The agent's own folders are not used, so that an undo works whatever became of them.

set -eu
umask 077
export LC_ALL=C DEBIAN_FRONTEND=noninteractive DEBIAN_PRIORITY=critical UCF_FORCE_CONFFOLD=1
export NEEDRESTART_SUSPEND=1 APT_LISTCHANGES_FRONTEND=none

STATES=${HOSTLER_PACKAGE_STATES:-/var/lib/hostler-package}
STATE=$STATES/${HOSTLER_RUN:?the agent sets HOSTLER_RUN}

# Says one line to the fleet.
say() {
    text=$(printf '%s' "$*" | tr -c '[:print:]' ' ' | cut -c1-500 | sed 's/[\\"]/\\&/g')
    printf '{"message": "%s"}\n' "$text" >>"${HOSTLER_REPORT:-/dev/null}"
    printf '%s\n' "$*" >&2
}

die() {
    say "$*"
    exit 1
}

# Ends this script unless root's /etc/hostler/tasks.yml admits the package. What it prints is the reason.
admitted() {
    why=$(${HOSTLER_GUARD:-/usr/bin/hostler guard} package "$1" 2>&1) || { say "$why"; exit 2; }
}

# Writes one line to a file of this run's state, on the disk before anything else happens.
record() {
    mkdir -p "$STATE"
    printf '%s\n' "$2" >"$STATE/$1.tmp"
    sync "$STATE/$1.tmp"
    mv "$STATE/$1.tmp" "$STATE/$1"
    sync "$STATE" "$STATES"
}

recorded() {
    [ -f "$STATE/$1" ] && cat "$STATE/$1"
}

# The states of the newest 50 runs are enough: their names sort by time.
prune() {
    [ -d "$STATES" ] || return 0
    ls -r "$STATES" | tail -n +51 | while IFS= read -r old; do rm -rf "${STATES:?}/$old"; done
}

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    . ./deb.sh
elif command -v dnf >/dev/null && command -v rpm >/dev/null; then
    . ./rpm.sh
else
    die "neither apt-get nor dnf is on this host"
fi

# held NAME yes|no: whether the package is held as wanted.
as_wanted() {
    now=$(held "$1") || return 2
    [ "$now" = "$2" ]
}

yes_no() {
    [ "$1" = true ] && echo yes || echo no
}
