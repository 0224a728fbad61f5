# What scripts of several shipped tasks share. Sourced, never run.
#
# A run copies one folder, and a link that leads out of it is refused: so packaging/stage puts this file into each task
# whose scripts source it.

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

# record NAME LINE: writes one line to a file of this run's folder $STATE, on the disk before anything else happens.
record() {
    mkdir -p "$STATE"
    printf '%s\n' "$2" >"$STATE/$1.tmp"
    sync "$STATE/$1.tmp"
    mv "$STATE/$1.tmp" "$STATE/$1"
    sync "$STATE" "${STATE%/*}"
}

# recorded NAME: the line, if there is one.
recorded() {
    [ -f "$STATE/$1" ] && cat "$STATE/$1"
}
