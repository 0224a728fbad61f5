//! Credentials that a real Vault makes in a real PostgreSQL. The double makes none: this needs a real
//! server.

use std::fs;

use hostler_testkit::{DEFAULT_TIMEOUT, Host, Postgres, Vault, eventually};

/// Logs in with what it was given, says as whom, and waits.
const LOGIN: &str = "#!/bin/sh
set -e
cd \"$HOSTLER_SECRETS\"
{ cat p; echo; } | psql -X -q -A -t -W -h 127.0.0.1 -p PORT -U \"$(cat u)\" -d postgres -c 'select current_user' >EFFECTS.user
mv EFFECTS.user EFFECTS.in
until [ -e EFFECTS.go ]; do sleep 0.05; done
";

fn exists(database: &Postgres, role: &str) -> bool {
    database.sql(&format!("select count(*) from pg_roles where rolname = '{role}'")) == "1"
}

#[test]
fn p7_database_credentials_are_good_for_as_long_as_the_run_takes_and_gone_after_it() {
    let vault = Vault::start_with_database();
    let database = vault.database().expect("a real server: tests/install brings one");
    // Three lives of the lease.
    vault.lease_ttl(4, Some(600));
    let mut host = Host::on_vault("d1", &vault, "");
    let yaml = "name: t\nversion: 1\ntimeout: 4s\nsecrets:\n  u: {path: database/creds/app, field: username}\n  \
                p: {path: database/creds/app, field: password}\nsteps:\n  - {name: login, run: [./login], effect: final}\n";
    host.task("t", yaml, &[("login", &LOGIN.replace("PORT", &database.port().to_string()))]);
    host.order("o", "task: t");
    host.start();
    let role = eventually(DEFAULT_TIMEOUT, || match fs::read_to_string(host.path("effects.in")) {
        Ok(user) => Ok(user.trim().to_owned()),
        Err(_) => Err(host.log_tail()),
    });
    eventually(DEFAULT_TIMEOUT, || match vault.renewals() {
        4.. => Ok(()),
        n => Err(format!("{n} renewals")),
    });
    assert!(exists(database, &role));
    fs::write(host.path("effects.go"), "").expect("the word");
    host.wait_for("o", &["succeeded"]);
    eventually(
        DEFAULT_TIMEOUT,
        || if exists(database, &role) { Err(format!("{role} lives")) } else { Ok(()) },
    );
}
