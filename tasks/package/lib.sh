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

. ./task.sh

# Ends this script unless root's /etc/hostler/tasks.yml admits the package. What it prints is the reason.
admitted() {
    why=$(${HOSTLER_ADMIT:-/usr/bin/hostler admit} package "$1" 2>&1) || { say "$why"; exit 2; }
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
