# Fedora, Red Hat and their kin.

# The installed version with its release, and its epoch where it has one; or nothing. 2 where rpm cannot tell: from that
# nothing may follow, least of all that the package was not there before and is removed by an undo.
installed() {
    # A package that is not there has the status of an error, but for the words. rpm also finds NAME-VERSION: that is
    # another name.
    status=0
    found=$(rpm -q --qf '%{NAME} %{EVR}\n' "$1" 2>&1) || status=$?
    found=$(printf '%s\n' "$found" | sed '/^warning: /d')
    if [ "$status" -eq 0 ]; then
        printf '%s\n' "$found" | awk -v name="$1" '$1 == name { print $2; exit }'
    elif [ "$found" != "package $1 is not installed" ]; then
        say "the database of rpm cannot be read: $found"
        return 2
    fi
}

# A wanted version may leave out the release.
matches() {
    [ "$1" = "$2" ] || [ "$1" = "${2%-*}" ]
}

# The newest version that the repositories offer, or nothing. 2: cannot tell.
newest() {
    found=$(dnf -q repoquery --latest-limit=1 --qf '%{name} %{evr}\n' "$1") || {
        say "the repositories cannot be asked: run dnf repoquery $1"
        return 2
    }
    printf '%s\n' "$found" | awk -v name="$1" '$1 == name { sub(/^0:/, "", $2); print $2; exit }'
}

# known NAME VERSION: whether a repository, or the host, has exactly this name in this version. dnf takes NAME-VERSION
# apart in several ways: foo in version bar-1 would be foo-bar in version 1.
known() {
    if have=$(installed "$1") && matches "$2" "$have"; then return 0; fi
    dnf -q repoquery --qf '%{name} %{evr}\n' "$1" |
        awk -v name="$1" '$1 == name { sub(/^0:/, "", $2); print $2 }' |
        while IFS= read -r offered; do
            if matches "$2" "$offered"; then echo yes; fi
        done | grep -q yes
}

held() {
    list=$(dnf -q versionlock list 2>/dev/null) || return 2
    # A line is NAME-EPOCH:VERSION-RELEASE.*, in dnf 5 a heading with the name.
    pattern=$(printf '%s' "$1" | sed 's/[.+]/\\&/g')
    if printf '%s\n' "$list" | grep -Eq -e "^$pattern-[0-9]+:" -e "^Package name: $pattern\$"; then echo yes; else echo no; fi
}

hold() {
    # The name alone would lock each version that a repository offers, and a second lock would admit both.
    unhold "$1" || return
    run 0 dnf -q -y versionlock add "$1-$(installed "$1")"
}

unhold() {
    [ "$(held "$1")" = no ] || run 0 dnf -q -y versionlock delete "$1"
}

# run SECONDS COMMAND…: 75 when the lock was not to be had; dnf ends with 200 then, as it was told to.
run() {
    wait=$1
    shift
    log=$(mktemp)
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    cat "$log" >&2
    reason=$(grep '^Error:' "$log" | tail -n 1) || true
    rm -f "$log"
    [ "$status" -eq 200 ] && status=75
    if [ "$status" -eq 75 ] && [ "$wait" -gt 0 ]; then
        sleep 5
        run "$((wait - 5))" "$@"
        return
    fi
    return "$status"
}

manager() {
    wait=$1
    shift
    run "$wait" dnf -q -y --setopt=exit_on_lock=True "$@"
}

refresh() {
    status=0
    manager "$1" makecache || status=$?
    [ "$status" -eq 75 ] && return 75
    [ "$status" -eq 0 ] || say "the lists of the repositories could not all be refreshed: going on with what is there"
}

# A transaction that was cut short leaves doubled packages, which the transaction below replaces.
repair() {
    return 0
}

keep() {
    (cd "$STATE" && manager 0 download "$1-$2") >/dev/null 2>&1 && sync "$STATE"/*.rpm "$STATE" && return 0
    say "version $2 of $1 is in no repository: an undo will need it from elsewhere"
}

# change SECONDS NAME VERSION: install takes a lower version too when it is named.
change() {
    unhold "$2" || return
    manager "$1" install "$2-$3"
}

restore() {
    unhold "$2" || return
    for file in "$STATE"/*.rpm; do
        [ -f "$file" ] && manager "$1" install "$file" && return 0
    done
    change "$1" "$2" "$3"
}

remove() {
    unhold "$2" || return
    manager "$1" remove "$2"
}

sound() {
    [ "$(rpm -q --qf '%{NAME}\n' "$1" | grep -Fxc -e "$1")" -eq 1 ]
}
