//! The new cluster: made, configured as the old one, behind its fence, with the schema and without a row.
//!
//! A half-made cluster looks whole to Debian's tools, so nothing that a dead run has left is ever gone on with: a file
//! of intent is on the disk before the first change, another one in the data when all is done, and [`undo`] removes only
//! what the intent vouches for.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::intent::Intent;
use super::{Ends, Method, Pair, copy, fence, lock, replica, switch};
use crate::check;
use crate::crash::{CrashPoint, here};
use crate::durable;
use crate::error::Error;
use crate::exec;
use crate::layout::{self, Cluster};
use crate::report;
use crate::server::{Bounds, Session};

/// For the schema of a large database.
const SCHEMA: Duration = Duration::from_secs(6 * 3600);
/// For a server that is started.
const START: Duration = Duration::from_secs(120);
/// The longest line in front of the first database of a dump.
const LINE: u64 = 1 << 20;

/// The file in the data that says that the cluster was made whole.
pub fn marker(new: &Cluster) -> PathBuf {
    new.data.join("hostler.made")
}

/// Whether a cluster was made whole.
pub fn is_whole(new: &Cluster) -> bool {
    durable::read(&marker(new)).is_ok_and(|text| text.is_some())
}

/// Makes the new cluster.
///
/// # Errors
/// If something blocks the upgrade, a cluster of that name exists, or a part fails: then [`undo`] clears it away.
pub async fn run(pair: &Pair) -> Result<(), Error> {
    let name = &pair.old.name;
    if pair.mine() {
        return Err(Error::Refused(format!(
            "{} exists: an upgrade was begun; take it back with `upgrade undo prepare`",
            Intent::path(pair.to, name).display()
        )));
    }
    let _lock = lock::take(name)?;
    check::verdict(&pair.check().await?)?;
    let (conf, data) = (layout::conf(pair.to, name), layout::data(pair.to, name));
    if let Some(path) = [&conf, &data].into_iter().find(|path| layout::occupied(path)) {
        return Err(Error::Refused(format!(
            "{} exists: it is nothing of ours, so remove it first",
            path.display()
        )));
    }
    let admin = Session::open(&pair.old, "postgres", Bounds::LOOK).await?;
    let settings = settings(pair, &admin).await?;
    let port = pair.door.spare();
    let method = pair.method(&admin).await?;
    let intent = Intent::new(pair.old.configured, port, pair.door.is_bouncer(), method);
    intent.begin(pair.to, name, pair.old.owner)?;
    here(CrashPoint::Intended);
    report::progress(5, &format!("making {}/{name}, at port {port}", pair.to));
    layout::create(&pair.old, &admin, pair.to, port).await?;
    here(CrashPoint::Created);
    let new = layout::cluster(name, Some(pair.to)).await?;
    if method == Method::Standby {
        copy::fill(pair, &new).await?;
    }
    configure(&pair.old, &new, &settings)?;
    // The tool looks for some seconds whether the server stays; what follows need not wait for that.
    let (_, starting) = switch::start(&new, START).await?;
    here(CrashPoint::Started);
    if method == Method::Logical {
        report::progress(30, "loading roles and schema");
        load_schema(&pair.old, &new).await?;
        here(CrashPoint::SchemaLoaded);
    }
    for ends in pair.again().await?.ends().await? {
        same(&ends).await?;
    }
    access(&admin, &new).await?;
    starting.ended().await?;
    // From now on a reboot starts both, and the copy goes on by itself.
    layout::start_at_boot(&new, true).await?;
    durable::replace(&marker(&new), &intent.text(), new.owner)?;
    let ready =
        if method == Method::Standby { "has the rows of a moment ago" } else { "is ready for the rows" };
    report::progress(100, &format!("{} {ready}", new.title()));
    Ok(())
}

/// The configuration of the new cluster: what the old one's files say and its version takes, and what replication needs.
async fn settings(pair: &Pair, admin: &Session) -> Result<String, Error> {
    let carried = check::carried(admin).await?;
    let refused = check::refused_settings(pair.old.owner, pair.to, &carried).await?;
    let mut text = "# From the old cluster, by hostler-postgres.\n".to_owned();
    for (name, value) in carried.iter().filter(|(name, _)| !refused.contains(name)) {
        text.push_str(&check::line(name, value));
    }
    let databases = check::databases(admin).await?.len();
    text.push_str(
        "# What logical replication needs; a lost connection is made again within half a second.\n",
    );
    text.push_str(
        "wal_level = logical\nwal_retrieve_retry_interval = 500ms\nsynchronous_standby_names = ''\n",
    );
    let number = async |name: &str| {
        let text = admin.text(&format!("select current_setting('{name}')")).await?;
        text.parse::<usize>().map_err(|_| Error::Server(format!("{name} is no number: {text}")))
    };
    for (name, more) in [
        ("max_replication_slots", 2 * databases),
        ("max_wal_senders", 2 * databases),
        ("max_logical_replication_workers", 3 * databases),
        ("max_worker_processes", 3 * databases),
    ] {
        text.push_str(&format!("{name} = {}\n", number(name).await? + more));
    }
    Ok(text)
}

/// Gives the new cluster its settings, the old one's files beside them, and a fence.
pub(super) fn configure(old: &Cluster, new: &Cluster, settings: &str) -> Result<(), Error> {
    let main = new.conf.join("postgresql.conf");
    let text = durable::read(&main)?.unwrap_or_default();
    // Where createcluster.conf was replaced, clusters have no conf.d.
    if !text.lines().any(|line| line.trim_start().starts_with("include_dir")) {
        durable::replace(&main, &format!("{text}\ninclude_dir = 'conf.d'\n"), new.owner)?;
    }
    let more = new.conf.join("conf.d");
    if !more.exists() {
        std::fs::create_dir(&more).map_err(Error::local(more.display()))?;
        new.owner.give(&more)?;
    }
    durable::replace(&more.join("90-hostler.conf"), settings, new.owner)?;
    for name in ["pg_ident.conf", "environment"] {
        if let Some(text) = durable::read(&old.conf.join(name))? {
            durable::replace(&new.conf.join(name), &text, new.owner)?;
        }
    }
    let hba = durable::read(&old.hba())?.unwrap_or_default();
    durable::replace(&fence::kept(new), &hba, new.owner)?;
    durable::replace(&new.hba(), &fence::text(), new.owner)
}

/// Refuses access rules that the new version does not understand: it would keep the fence, and let nobody in.
async fn access(old: &Session, new: &Cluster) -> Result<(), Error> {
    // Of some mistakes only the line is shown; and what both complain of, such as TLS that is off, hinders neither.
    let question = "select format('line %s: %s', line_number, coalesce(error, 'not understood')) from pg_hba_file_rules \
         where error is not null or type is null";
    let known = old.rows(question).await?;
    let rules = durable::read(&fence::kept(new))?.unwrap_or_default();
    let admin = Session::open(new, "postgres", Bounds::LOOK).await?;
    // The view reads the file and not what is in force; the server is not told to read it.
    durable::replace(&new.hba(), &rules, new.owner)?;
    let wrong = admin.rows(question).await;
    durable::replace(&new.hba(), &fence::text(), new.owner)?;
    let wrong: Vec<_> = wrong?.into_iter().filter(|row| !known.contains(row)).flatten().flatten().collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "version {} does not take the old pg_hba.conf, {}: change it there first",
        new.version,
        wrong.join("; ")
    )))
}

/// Roles, tablespaces, databases and their schema, by the new version's own programs, as a stream.
async fn load_schema(old: &Cluster, new: &Cluster) -> Result<(), Error> {
    let (dump, psql) = (layout::program(new.version, "pg_dumpall"), layout::program(new.version, "psql"));
    let place = |cluster: &Cluster| {
        let socket = cluster.socket.display().to_string();
        vec![format!("--host={socket}"), format!("--port={}", cluster.port), "--no-password".to_owned()]
    };
    let mut from = place(old);
    // Not `--dbname`, which would be a connection string.
    from.extend(["--schema-only", "--username=postgres", "--database=postgres"].map(str::to_owned));
    let mut to = place(new);
    to.extend(
        ["-X", "-q", "-v", "ON_ERROR_STOP=1", "--username=postgres", "--dbname=postgres"].map(str::to_owned),
    );
    exec::pipe(old.owner, (&dump, &from), (&psql, &to), SCHEMA, async |out, into| {
        without_administrator(BufReader::new(out), into).await
    })
    .await
}

/// Passes a dump on without the statement that makes the role `postgres`, which exists. Behind the first `\connect` the
/// text belongs to databases, and is passed on as it is.
async fn without_administrator(
    mut dump: impl AsyncBufReadExt + Unpin,
    mut into: impl AsyncWriteExt + Unpin,
) -> io::Result<()> {
    use tokio::io::AsyncReadExt;
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut dump).take(LINE).read_until(b'\n', &mut line).await?;
        if line.is_empty() || line.starts_with(b"\\connect") {
            break;
        }
        if line != b"CREATE ROLE postgres;\n" {
            into.write_all(&line).await?;
        }
    }
    into.write_all(&line).await?;
    tokio::io::copy_buf(&mut dump, &mut into).await?;
    into.shutdown().await
}

/// Refuses a schema that did not arrive as it was.
async fn same(ends: &Ends) -> Result<(), Error> {
    let name = &ends.base.name;
    if replica::shape(&ends.old).await? != replica::shape(&ends.new).await? {
        return Err(Error::Refused(format!(
            "database {name}: the schema was changed while it was copied: try again"
        )));
    }
    let objects = "select (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where n.nspname !~ '^pg_' and n.nspname <> 'information_schema') || ' relations, ' || \
         (select count(*) from pg_constraint c join pg_namespace n on n.oid = c.connamespace \
         where contype <> 'n' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema') || ' constraints, ' || \
         (select count(*) from pg_trigger where not tgisinternal) || ' triggers'";
    let (old, new) = (ends.old.text(objects).await?, ends.new.text(objects).await?);
    if old != new {
        return Err(Error::Refused(format!("database {name} has {old}, but its copy has {new}")));
    }
    let roles = "select md5(string_agg(format('%s %s %s', rolname, rolcanlogin, coalesce(rolpassword, '')), ',' \
         order by rolname)) from pg_authid where rolname !~ '^pg_' and rolname <> 'postgres'";
    if ends.old.value(roles).await? != ends.new.value(roles).await? {
        return Err(Error::Refused("a role or its password did not arrive on the new cluster".to_owned()));
    }
    Ok(())
}

/// Removes the new cluster, whole or half-made.
///
/// # Errors
/// If clients belong to it, or it is not this program's work.
pub async fn undo(pair: &Pair) -> Result<(), Error> {
    if !pair.mine() {
        return match &pair.new {
            None => Ok(()),
            Some(new) => {
                Err(Error::Refused(format!("{} was not made by this upgrade: it stays", new.title())))
            }
        };
    }
    if pair.switched()? {
        return Err(Error::Refused(format!(
            "clients belong to {}/{}: bring them back first with `upgrade switch-back`",
            pair.to, pair.old.name
        )));
    }
    let lock = lock::take(&pair.old.name)?;
    super::follow::end(pair).await?;
    copy::clear_away(pair).await?;
    layout::clear_away(pair.to, &pair.old.name, pair.old.owner).await?;
    if pair.intent.as_ref().is_some_and(|intent| intent.method == Method::Standby) {
        copy::clear_spaces(pair)?;
    }
    Intent::forget(pair.to, &pair.old.name)?;
    drop(lock);
    report::message(&format!("{}/{} is removed", pair.to, pair.old.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::without_administrator;

    #[tokio::test(flavor = "current_thread")]
    async fn only_the_administrator_is_left_out_and_only_before_the_databases() {
        let dump = "--\nCREATE ROLE app;\nCREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\n\\connect a\n\
                    $$\nCREATE ROLE postgres;\n$$\nlast";
        let mut out = Vec::new();
        without_administrator(dump.as_bytes(), &mut out).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&out);
        assert_eq!(text, dump.replacen("CREATE ROLE postgres;\n", "", 1));
    }
}
