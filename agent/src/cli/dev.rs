//! `hostler dev`: the whole loop in one command, on a folder below the current one, without a server.
//!
//! Nothing outside that folder is written. It goes on until Ctrl-C, so that more orders can be placed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::agent::stopped;
use super::{Failure, env, log, runtime, show};
use crate::app::agent::reload::ReloadContext;
use crate::app::agent::{Agent, identity};
use crate::app::open;
use crate::config::{Settings, load};
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::domain::source::{OrderKey, Source};
use crate::exec::init;
use crate::host::clock;
use crate::host::logging::Level;
use crate::host::notify::Notify;
use crate::host::process;
use crate::report::document::{self, OrderReport};
use crate::store::{Store, When};

/// The task that every binary brings along, so that `dev` needs nothing else.
const HELLO: [(&str, &str, u32); 2] = [
    ("task.yml", include_str!("../../../tasks/hello/task.yml"), 0o644),
    ("greet", include_str!("../../../tasks/hello/greet"), 0o755),
];

/// How long the first run takes for a breath, so that its progress can be seen.
const SECONDS: u64 = 3;

/// How long `--once` waits for the result.
const RESULT_WITHIN: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(super) struct Arguments {
    /// End after the first result, with its status.
    #[arg(long)]
    once: bool,
    /// The folder that everything is kept in.
    #[arg(long, value_name = "FOLDER", default_value = "hostler-dev")]
    dir: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let Some(status) = init::instead_of_first()? {
        return Ok(status.into());
    }
    process::usual_signals()?;
    let level = log("warn");
    let config = set_up(&arguments.dir)?;
    let settings = load(Some(&config), &env)?;
    let runtime = runtime()?;
    let code = runtime.block_on(work(settings, &config, level, arguments.once))?;
    runtime.shutdown_background();
    Ok(code)
}

/// The folder with its configuration and the task; what is there already is left alone, but for the task.
fn set_up(dir: &Path) -> io::Result<PathBuf> {
    let task = dir.join("tasks/hello");
    fs::create_dir_all(&task)?;
    let dir = fs::canonicalize(dir)?;
    for (name, contents, mode) in HELLO {
        let path = task.join(name);
        fs::write(&path, contents)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    for folder in [&dir, &dir.join("tasks"), &dir.join("tasks/hello")] {
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let config = dir.join("hostler.yml");
    if !config.exists() {
        let at = |name: &str| serde_json::Value::from(dir.join(name).to_string_lossy().into_owned());
        let text = format!(
            "# Made by `hostler dev`; yours to change.\nhost: dev\nstate_dir: {}\nruntime_dir: {}\n\
             task_dirs: [{}]\nstore: dir\ndir: {{path: {}}}\nlauncher: detached\n\
             # A laptop or a container rarely has a clock that the kernel calls synchronised; a schedule fires here anyway.\n\
             clock: trusted\n\
             # Nobody measures it, and there may be another one.\n\
             telemetry: {{listen: null}}\n",
            at("state"),
            at("run"),
            at("tasks"),
            at("store")
        );
        fs::write(&config, text)?;
    }
    Ok(config)
}

async fn work(settings: Settings, config: &Path, level: Level, once: bool) -> Result<ExitCode, Failure> {
    let opened = open::opened(&settings)?;
    let store = Arc::clone(&opened.store);
    let file = config.to_owned();
    let reload_context = ReloadContext { load: Box::new(move || load(Some(&file), &env)), level };
    let keys = settings.keys.clone();
    let mut notify = Notify::from_env();
    let who = identity::resolve(&settings, &*store, &mut notify).await?;
    let agent = Agent::build(settings, opened, who, notify, reload_context)?;
    let host = agent.host().clone();
    enroll(&*store, &keys, &host).await?;
    let order: Name = "hello".parse()?;
    let revision = clock::now().to_string();
    let document = format!(
        "task: hello\nparams: {{name: you, seconds: {SECONDS}}}\nrevision: \"{revision}\"\nby: hostler dev\non_preexisting: run\n"
    );
    let key = keys.order(&OrderKey { source: Source::Host(host.clone()), order: order.clone() });
    show::line(format!(
        "An agent for host {host} starts here, on the folder {}.",
        store_path(config).display()
    ))?;
    show::line(format!("Placing an order, as an operator would:\n\n  {key}"))?;
    document.lines().try_for_each(|line| show::line(format!("    {line}")))?;
    show::line("")?;
    store.put(&key, document.into_bytes(), When::Always).await?;
    let (stop, stopping) = oneshot::channel::<()>();
    let agent = tokio::spawn(agent.run(async move {
        // A sender that is gone means the same as a word from it.
        let _ = stopping.await;
    }));
    let report = keys.order_report(&host, &order);
    let shown = tokio::select! {
        shown = timeout(RESULT_WITHIN, follow(&*store, &report, &revision)) => {
            shown.map_err(|_| format!("no result within {} s", RESULT_WITHIN.as_secs()))??
        }
        () = stopped() => return Ok(ExitCode::FAILURE),
    };
    if !once {
        what_next(config, &host)?;
        stopped().await;
    }
    let _ = stop.send(());
    agent.await??;
    let good = matches!(shown.phase.as_str(), "succeeded" | "unchanged");
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn store_path(config: &Path) -> PathBuf {
    config.parent().unwrap_or(Path::new(".")).join("store")
}

async fn enroll(store: &dyn Store, keys: &Keys, host: &Name) -> Result<(), Failure> {
    for source in [Source::Host(host.clone()), Source::Group(Name::all())] {
        store.put(&keys.marker(&source), b"{}".to_vec(), When::Unchanged(0)).await?;
    }
    Ok(())
}

/// Shows the report as it changes, until the order that was placed now is over.
async fn follow(store: &dyn Store, key: &str, revision: &str) -> Result<OrderReport, Failure> {
    let mut last = String::new();
    let begun: jiff::Timestamp = revision.parse()?;
    loop {
        let listing = store.list(key).await?;
        let report = listing.entries.first().and_then(|entry| document::read(&entry.value).ok());
        let report: OrderReport = report.unwrap_or_default();
        // One from an earlier time that the folder was used is not the answer to this order.
        if report.since.is_some_and(|since| since >= begun) {
            let line = line(&report);
            if line != last {
                show::line(format!("  {line}"))?;
                last = line;
            }
            if report.ended.is_some() {
                show::line("")?;
                return Ok(report);
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn line(report: &OrderReport) -> String {
    let step = report.step.as_ref().map(|step| format!("step {}/{} {}", step.index, step.count, step.name));
    let parts = [
        report.reason.clone(),
        step,
        report.progress.map(|percent| format!("{percent} %")),
        report.message.clone(),
        report.error.clone(),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{:<10} {}", report.phase, parts.join(", "))
}

fn what_next(config: &Path, host: &Name) -> io::Result<()> {
    let program = std::env::args().next().unwrap_or_else(|| "hostler".into());
    let config = config.display();
    show::line("The agent goes on until Ctrl-C. In another terminal:\n")?;
    show::line(format!("  {program} status --config {config}"))?;
    show::line(format!("  {program} run hello --host {host} --param name=again --config {config}"))?;
    show::line(format!("  {program} order put greeting --host {host} --task hello --config {config}"))?;
    show::line("\nYour own tasks: docs/writing-tasks.md. With Consul: README.md.")
}
