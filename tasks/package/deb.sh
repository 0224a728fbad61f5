# Debian and its kin.

# query FORMAT NAME: what dpkg knows of a package; nothing of one that it never had. 2 where it cannot tell: from that
# nothing may follow, least of all that the package was not there before and is removed by an undo.
query() {
    status=0
    known=$(dpkg-query -W -f "$1\n" "$2" 2>/dev/null) || status=$?
    [ "$status" -le 1 ] || { say "the database of dpkg cannot be read: run dpkg-query -W $2"; return 2; }
    printf '%s\n' "$known"
}

# The installed version, or nothing. 2: cannot tell.
installed() {
    found=$(query '${db:Status-Abbrev} ${Version}' "$1") || return
    printf '%s\n' "$found" | sed -n 's/^.i. *//p' | head -n 1
}

# Whether a wanted version is the one that is installed.
matches() {
    [ "$1" = "$2" ]
}

# The newest version that the repositories offer, or nothing. 2: cannot tell.
newest() {
    found=$(apt-cache policy "$1") || { say "the lists of the repositories cannot be read: run apt-cache policy $1"; return 2; }
    printf '%s\n' "$found" | sed -n '/^  Candidate: (none)$/d; s/^  Candidate: //p'
}

# known NAME VERSION: whether apt knows exactly this name in exactly this version. What it does not know it would take
# for a regular expression, and a last `-` or `+` for an action.
known() {
    apt-cache show "$1" 2>/dev/null |
        awk -v name="$1" -v version="$2" '
            /^$/ { here = 0 }
            $0 == "Package: " name { here = 1 }
            /^Version: / && here && substr($0, 10) == version { found = 1 }
            END { exit !found }'
}

held() {
    found=$(query '${db:Status-Want}' "$1") || return
    case $found in
        hold*) echo yes ;;
        *) echo no ;;
    esac
}

hold() {
    run 0 apt-mark -q hold "$1"
}

unhold() {
    run 0 apt-mark -q unhold "$1"
}

# run SECONDS COMMAND…: SECONDS is how long to wait for another's lock. 75: the lock was not to be had, nothing
# was changed; another status is the command's own. The manager has no status of its own for its lock.
run() {
    wait=$1
    shift
    log=$(mktemp)
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    cat "$log" >&2
    if [ "$status" -ne 0 ]; then
        if grep -Eq 'Could not get lock|Unable to lock|Unable to acquire the dpkg frontend lock|frontend lock was locked|status database area is locked|is locked by another process' "$log"; then
            status=75
        else
            reason=$(grep -E '^(E:|dpkg: error|dpkg: unrecoverable)' "$log" | tail -n 1) || true
        fi
    fi
    rm -f "$log"
    if [ "$status" -eq 75 ] && [ "$wait" -gt 0 ]; then
        sleep 5
        run "$((wait - 5))" "$@"
        return
    fi
    return "$status"
}

apt() {
    run "$1" apt-get -q -y -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 "$2" \
        --allow-downgrades --allow-change-held-packages "$3"
}

# refresh SECONDS: the lists of the repositories. An older list is no reason to fail: what is missing will be told.
refresh() {
    status=0
    run "$1" apt-get -q update || status=$?
    [ "$status" -eq 75 ] && return 75
    [ "$status" -eq 0 ] || say "the lists of the repositories could not all be refreshed: going on with what is there"
}

# repair SECONDS: an earlier run of the package manager that was cut short is brought to its end first.
repair() {
    [ -n "$(dpkg --audit 2>&1)" ] || [ -n "$(ls -A "${DPKG_ROOT:-}/var/lib/dpkg/updates" 2>/dev/null)" ] || return 0
    say "bringing an interrupted installation to its end"
    run "$1" dpkg --force-confold --configure -a
}

# keep NAME VERSION: the package of the version before, for an undo without the repository.
keep() {
    (cd "$STATE" && run 0 apt-get -q download "$1=$2") >/dev/null 2>&1 && sync "$STATE"/*.deb "$STATE" && return 0
    say "version $2 of $1 is in no repository: an undo will need it from elsewhere"
}

# change SECONDS NAME VERSION
change() {
    apt "$1" install "$2=$3"
}

# restore SECONDS NAME VERSION
restore() {
    for file in "$STATE"/*.deb; do
        [ -f "$file" ] && apt "$1" install "$file" && return 0
    done
    change "$1" "$2" "$3"
}

# remove SECONDS NAME
remove() {
    apt "$1" remove "$2"
}

sound() {
    [ -z "$(dpkg --audit "$1" 2>&1)" ]
}
