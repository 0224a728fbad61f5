# What the scripts of this task share; each begins with: . ./lib.sh "$@"
#
# No password is ever an argument or a variable, and none is sent before its receiver is proved:
# - the socket and the port are those of `postgres` in /etc/hostler/tasks.yml, which is root's;
# - a new password goes to the server's socket, whose owner must be `postgres`, as its SCRAM verifier (`\password`), so that
#   a server which logs its statements logs nothing that lets anybody in. psql asks for the password, and without a
#   terminal, as a step is started, it reads the answer from its standard input;
# - to log in, `hostler admit login` goes to the port only where the process that listens at that socket listens, and by
#   SCRAM only: what it sends does not hold the password.
set -eu

role=$1
database=$2
socket=$3
port=$4

. ./task.sh

# psql as the database's own administrator, by the socket.
admin() {
    PGREQUIREPEER=postgres psql --no-psqlrc --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 --no-password \
        --host="$socket" --port="$port" --dbname=postgres "$@"
}

# Whether a file holds something that psql can be told: one line, as long as older versions take it.
usable() {
    [ -s "$1" ] && [ "$(wc -l <"$1")" -eq 0 ] && [ "$(wc -c <"$1")" -lt 100 ]
}

admit() {
    ${HOSTLER_ADMIT:-/usr/bin/hostler admit} "$@"
}

# Whether the role logs in by the network with what a file holds: 0 yes, 1 no, 2 cannot tell, and `why`.
enters() {
    status=0
    why=$(admit login "$socket" "$port" "$role" "$database" "$1" 2>&1) || status=$?
    return "$status"
}

# Sets the role's password to what a file holds.
set_password() {
    { cat "$1"; echo; cat "$1"; echo; } |
        admin --command="set password_encryption = 'scram-sha-256'" --command="\\password $role" >/dev/null
}

# Whether the server itself answers by its socket and at its port.
answers() {
    why=$(admit server "$socket" "$port" 2>&1) && why="PostgreSQL does not answer on port $port" &&
        admin --command='select 1' >/dev/null
}
