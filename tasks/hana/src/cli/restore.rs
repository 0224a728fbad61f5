//! `restore` and `drill`.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::{BOOL, Options, print, print_json, run_id, span};
use crate::backup::Run;
use crate::drill::{self, Drill, Statement, Table};
use crate::error::Error;
use crate::neighbours::catalog::Database;
use crate::neighbours::hdbsql::Key;
use crate::neighbours::recovery::From;
use crate::report;
use crate::restore;
use crate::system::Sid;

#[derive(clap::Args)]
pub(super) struct Restore {
    /// The instant in UTC, such as 2026-11-21T01:00:00Z, or `latest`
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: Timestamp,
    /// Databases, separated by commas or said several times [default: SYSTEMDB and every tenant]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    database: Vec<Database>,
    /// Where the backups are
    #[arg(long, default_value = "backint")]
    from: From,
    /// Configuration of hostler-depot: cold parts are thawed first, and the exit code is 75 until they are
    #[arg(long, value_name = "FILE", value_parser = path)]
    thaw: Option<String>,
    /// Folder with the backup catalogs of all databases [default: as the system is configured]
    #[arg(long, value_name = "FOLDER", value_parser = path)]
    catalog: Option<String>,
    /// You say that the data is lost: the system is not asked which backups it has
    #[arg(long, action = clap::ArgAction::Set, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true)]
    data_lost: bool,
    /// Pacemaker's resources are in maintenance
    #[arg(long, action = clap::ArgAction::Set, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true)]
    cluster_in_maintenance: bool,
    /// Parameter file of Backint, for a system whose data is lost
    #[arg(long, value_name = "FILE", value_parser = path)]
    backint_parameters: Option<String>,
    /// Id of the run: a repetition with the same one goes on
    #[arg(long, value_name = "ID", env = "HOSTLER_RUN")]
    run: Option<Run>,
    /// How long the recovery of one database may take
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "48h")]
    timeout: Duration,
    /// Change nothing: ask whether everything is there that the recovery needs
    #[arg(long)]
    check: bool,
    /// Change nothing: ask whether this run has restored everything
    #[arg(long, conflicts_with = "check")]
    done: bool,
}

impl Restore {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let runner = options.runner(None)?;
        let wish = restore::Wish {
            key: options.key.clone(),
            databases: self.database,
            to: self.to,
            from: self.from,
            run: run_id(self.run)?,
            timeout: self.timeout,
            depot: self.thaw,
            catalog: self.catalog,
            parameters: self.backint_parameters,
            maintained: self.cluster_in_maintenance,
            lost: self.data_lost,
        };
        let restore = restore::Restore::new(&runner, &wish);
        if self.done {
            return restore.done();
        }
        if self.check {
            for needed in restore.check()? {
                let name = needed.data.database.as_str();
                print(&format!(
                    "{name:<20} begins with {} and reads {} backups",
                    needed.data.id,
                    needed.backups.len()
                ));
            }
            return Ok(());
        }
        let begun = Instant::now();
        let reached = restore.restore()?;
        let mut outputs = json!({"seconds": begun.elapsed().as_secs()});
        if let (Some(reached), Some(all)) = (reached, outputs.as_object_mut()) {
            print(&format!("reached {}, log position {}", reached.time, reached.position));
            all.insert("reached".to_owned(), json!(reached.time));
            all.insert("log_position".to_owned(), json!(reached.position));
        }
        report::outputs(&outputs)
    }
}

#[derive(clap::Args)]
pub(super) struct DrillArguments {
    /// The tenant whose newest complete backup is proved
    #[arg(long, value_name = "NAME")]
    tenant: Database,
    /// The tenant is of this other system, whose backups are in the same depot; needs --depot, and Backint
    #[arg(long, value_name = "SID", requires = "depot")]
    source: Option<Sid>,
    /// Configuration of hostler-depot, which is asked for the newest backup of the other system
    #[arg(long, value_name = "FILE", value_parser = path)]
    depot: Option<String>,
    /// Where the backup is
    #[arg(long, default_value = "backint")]
    from: From,
    /// Queries that must each return one value which is neither 0 nor empty, as JSON: ["SELECT …", …]
    #[arg(long, value_name = "JSON", value_parser = statements, requires = "tenant_key")]
    statements: Option<Statements>,
    /// Table whose rows are counted afterwards, as TABLE or SCHEMA.TABLE
    #[arg(long, value_name = "TABLE", requires = "tenant_key")]
    count: Option<Table>,
    /// Key in the user store of a user of the tenant, who counts
    #[arg(long, value_name = "KEY")]
    tenant_key: Option<Key>,
    /// The table must have as many rows at least
    #[arg(long, value_name = "ROWS", requires = "count")]
    at_least: Option<u64>,
    /// How long the recovery may take
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "20h")]
    timeout: Duration,
    /// Only remove what a drill has left
    #[arg(long, action = clap::ArgAction::Set, num_args = BOOL, require_equals = true, default_missing_value = "true", default_value_t = false, hide_default_value = true, hide_possible_values = true)]
    clear: bool,
}

impl DrillArguments {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let runner = options.runner(None)?;
        let wish = drill::Wish {
            key: options.key.clone(),
            tenant: self.tenant,
            source: self.source.zip(self.depot),
            from: self.from,
            tenant_key: self.tenant_key,
            count: self.count,
            statements: self.statements.map(|all| all.0).unwrap_or_default(),
            timeout: self.timeout,
        };
        if wish.source.is_some() && wish.from == From::File {
            return Err(Error::Config(
                "backups of another system come from Backint: leave --from out".to_owned(),
            ));
        }
        if wish.tenant.is_system() {
            return Err(Error::Config("a drill is of a tenant: SYSTEMDB has no scratch".to_owned()));
        }
        let drill = Drill::new(&runner, &wish);
        if self.clear {
            return drill.clear();
        }
        let proof = drill.carry_out()?;
        tell(&proof)?;
        if let Some(at) = proof.answers.iter().position(|value| !drill::is_true(value.as_deref())) {
            return Err(Error::No(format!(
                "statement {} does not hold in the backup {}: it returned {}",
                at + 1,
                proof.backup,
                proof.answers.get(at).and_then(Option::as_deref).unwrap_or("NULL")
            )));
        }
        if let (Some(wanted), Some(rows)) = (self.at_least, proof.rows)
            && rows < wanted
        {
            return Err(Error::No(format!("the table has {rows} rows in the backup, and not {wanted}")));
        }
        if options.json {
            return print_json(&proof);
        }
        print(&format!("the backup {} can be restored, in {} s", proof.backup, proof.seconds));
        Ok(())
    }
}

/// The outputs of a drill: what each statement returned has its number.
fn tell(proof: &drill::Proof) -> Result<(), Error> {
    let mut outputs = json!({"backup": proof.backup, "age": proof.age, "seconds": proof.seconds});
    if let Some(all) = outputs.as_object_mut() {
        all.extend(proof.rows.map(|rows| ("rows".to_owned(), json!(rows))));
        for (at, value) in proof.answers.iter().enumerate() {
            let short: String = value.as_deref().unwrap_or("NULL").chars().take(100).collect();
            all.insert(format!("statement_{}", at + 1), json!(short));
        }
    }
    report::outputs(&outputs)
}

/// Statements of one option.
#[derive(Clone, Debug)]
struct Statements(Vec<Statement>);

fn statements(text: &str) -> Result<Statements, String> {
    let all: Vec<String> =
        serde_json::from_str(text).map_err(|error| format!("no JSON list of texts: {error}"))?;
    if all.len() > 16 {
        return Err("16 statements are the most".to_owned());
    }
    all.iter().map(|one| one.parse()).collect::<Result<_, _>>().map(Statements)
}

/// Reads an instant; `latest` is one that HANA takes for the newest state.
fn instant(text: &str) -> Result<Timestamp, String> {
    if text == "latest" {
        return "2099-01-01T00:00:00Z".parse().map_err(|error| format!("{error}"));
    }
    text.parse().map_err(|_| format!("`{text}` is no instant: write 2026-11-21T01:00:00Z, or latest"))
}

/// An absolute path without odd letters.
pub(super) fn path(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/@=+-".contains(&byte);
    if !text.starts_with('/') || text.len() > 255 || !text.bytes().all(plain) {
        return Err("write an absolute path".to_owned());
    }
    Ok(text.to_owned())
}
