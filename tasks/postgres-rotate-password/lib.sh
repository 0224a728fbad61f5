# What the scripts of this task share; each begins with: . ./lib.sh "$@"
#
# No password is ever an argument or a variable: psql asks for it, and without a terminal, as a step is started, it reads
# the answer from its standard input. No password reaches the server either: `\password` sends its SCRAM verifier, so
# that a server which logs its statements logs nothing that lets anybody in.
set -eu

role=$1
database=$2
socket=$3
port=$4

say() {
    printf '{"message": "%s"}\n' "$1" >>"$HOSTLER_REPORT"
    printf '%s\n' "$1" >&2
}

# psql as the database's own administrator, by the socket.
admin() {
    psql --no-psqlrc --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 --no-password \
        --host="$socket" --port="$port" --dbname=postgres "$@"
}

# Whether a file holds something that psql can be told: one line, as long as older versions take it.
usable() {
    [ -s "$1" ] && [ "$(wc -l <"$1")" -eq 0 ] && [ "$(wc -c <"$1")" -lt 100 ]
}

# Whether somebody logs in by the network with what a file holds, or with what is read where there is none.
enters() {
    { cat "$@"; echo; } | psql --no-psqlrc --quiet --no-align --tuples-only --password --host=127.0.0.1 \
        --port="$port" --dbname="$database" --username="$role" --command='select 1' >/dev/null 2>&1
}

# Sets the role's password to what a file holds.
set_password() {
    { cat "$1"; echo; cat "$1"; echo; } |
        admin --command="set password_encryption = 'scram-sha-256'" --command="\\password $role" >/dev/null
}

answers() {
    pg_isready --quiet --host=127.0.0.1 --port="$port" && admin --command='select 1' >/dev/null
}
