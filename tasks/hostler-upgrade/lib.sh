# What the scripts of this task share. Sourced, never run.
#
# The way back is kept in $STATE before the first change, one folder a run: `before` (the version that was installed)
# and its package. The agent's own folders are not used: the way back must not depend on what is being replaced.

set -eu
umask 077
export LC_ALL=C DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1

STATE=${HOSTLER_UPGRADE_STATES:-/var/lib/hostler-upgrade}/${HOSTLER_RUN:?the agent sets HOSTLER_RUN}

. ./task.sh

if command -v dpkg-query >/dev/null && dpkg-query -W hostler >/dev/null 2>&1; then
    installed() { dpkg-query -W -f '${Version}\n' hostler; }
    same_version() { [ "$1" = "$2" ]; }
    # What apt does not know exactly it would take for more than a version.
    known() { apt-cache show hostler | grep -Fxq -e "Version: $1"; }
    sound() { [ -z "$(dpkg --audit hostler 2>&1)" ]; }
    refresh() { apt-get -q update; }
    # apt reaches for what it has, then for the repositories.
    keep() { (cd "$STATE" && apt-get -q download "hostler=$1" && mv ./*.deb before.package); }
    apt_install() {
        apt-get -q -y -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 install \
            --allow-downgrades --allow-change-held-packages "$1"
    }
    change() { apt_install "hostler=$1"; }
    # dpkg alone: a way back that asks nobody.
    restore() {
        # Another package that it cannot configure is no reason to leave this one as it is: the last line decides.
        dpkg --force-confold --configure -a || true
        cp "$STATE/before.package" "$STATE/before.deb"
        dpkg --force-confold --force-downgrade --install "$STATE/before.deb"
    }
    locked() { grep -Eq 'Could not get lock|[Uu]nable to (lock|acquire)|is locked by another process|frontend lock was locked' "$1"; }
elif command -v rpm >/dev/null && rpm -q hostler >/dev/null 2>&1; then
    installed() { rpm -q --qf '%{EVR}\n' hostler | tail -n 1; }
    # A wanted version may leave out the release.
    same_version() { [ "$1" = "$2" ] || [ "$1" = "${2%-*}" ]; }
    sound() { [ "$(rpm -q hostler | wc -l)" -eq 1 ]; }
    # dnf takes NAME-VERSION apart in several ways.
    known() {
        { installed; dnf -q repoquery --qf '%{name} %{evr}\n' hostler | sed -n 's/^hostler \(0:\)\{0,1\}//p'; } |
            while IFS= read -r offered; do if same_version "$1" "$offered"; then echo yes; fi; done | grep -q yes
    }
    refresh() { dnf -q -y makecache; }
    # Nothing is reinstalled: this is how dnf fetches without its plugins.
    keep() { dnf -q -y reinstall --downloadonly --downloaddir="$STATE" "hostler-$1" && mv "$STATE"/*.rpm "$STATE/before.package"; }
    change() { dnf -q -y --setopt=exit_on_lock=True install "hostler-$1"; }
    restore() { rpm --upgrade --oldpackage --replacepkgs "$STATE/before.package"; }
    locked() { grep -Eq 'waiting for process|[Cc]an.t (create|get) .*lock|exit_on_lock' "$1"; }
else
    die "Hostler is not installed from a package of this host"
fi

# run COMMAND...: 75 when another program holds the package manager's lock, else the command's own status.
run() {
    log=$STATE/log
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    cat "$log" >&2
    [ "$status" -eq 0 ] || ! locked "$log" || status=75
    return "$status"
}
