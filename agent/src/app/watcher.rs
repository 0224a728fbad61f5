//! The watcher of an armed guard: a process of its own that fires it when the executor is gone, or `within` is over.
//!
//! ```text
//! arming read -> connected to the executor: "w" -> the link ends | `within` is over
//!                                                       \____________/
//!        somebody has fired, or the journal says disarmed: leaves  <- lock of the arming -> fires, again and again
//! ```
//!
//! The link is a socket. Its end tells the watcher that the executor has ended, or wants nothing of it any more; which of
//! both it is, the journal says. Its other end tells the executor that the watcher has ended. What comes over it is one
//! byte each: the watcher watches, and the first attempt of a guard whose `within` was over has ended.
//!
//! A TERM does not end a watcher. A host that stops ends executors first, and what they guard is ended then.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::firing::{Fired, Firing};
use super::watcher_link::{OVER, WATCHES, link};
use crate::app::executor::ExecutorError;
use crate::domain::plan::Plan;
use crate::domain::run::Arming;
use crate::exec::processes::ProcessSelector;
use crate::exec::step::Interrupt;
use crate::host::crash::{CrashPoint, here};
use crate::host::{clock, machine};
use crate::ledger::{ArmingFolder, Folder};

/// A sleep does not count the time that the host sleeps, so it is never longer.
const MAX_SLEEP: Duration = Duration::from_secs(20);
/// What an executor that goes on after a lost watcher may take to listen.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);

/// Watches over the guard of a step (counted from 0) of the run in `folder` that was armed in this epoch.
pub async fn watch(folder: &Path, epoch: u32, step: usize) -> Result<(), ExecutorError> {
    let folder = Folder::at(folder)?;
    let plan = folder.plan()?;
    let Some(guard) = plan.steps.get(step).and_then(|step| step.guard.as_ref()) else { return Ok(()) };
    let Some((arming, boot)) = armed(&folder, &plan, epoch, step) else { return Ok(()) };
    // Kept for as long as this process lives: the signal is taken, and nothing follows from it.
    let _term = signal(SignalKind::terminate())?;
    // What its command leaves is found by descent.
    nix::sys::prctl::set_child_subreaper(true).map_err(std::io::Error::from)?;
    here(CrashPoint::WatcherStarted);
    let mut executor = match timeout(CONNECTS_WITHIN, UnixStream::connect(link(&plan, epoch, step))).await {
        Ok(Ok(mut executor)) => executor.write_all(&[WATCHES]).await.ok().map(|()| executor),
        Ok(Err(_)) | Err(_) => None,
    };
    let until = arming.since.saturating_add(guard.within.0);
    let why = tokio::select! {
        // What is true of both is that nobody is there.
        biased;
        () = end_of(&mut executor) => "its executor is gone".to_owned(),
        () = over(until, boot == machine::boot_id()) => format!("its `within` of {} is over", guard.within),
    };
    let (_sender, mut interrupts) = watch::channel(Interrupt::None);
    let firing = Firing {
        plan: &plan,
        folder: &folder,
        step,
        guard,
        arming: ArmingFolder::of(&folder, epoch, step),
        epoch,
        why: &why,
    };
    let mut lock = match firing.lock(&interrupts).await {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(()),
        // A run that is tried by hand takes its folder away when it has ended.
        Err(_) if !folder.path().exists() => return Ok(()),
        Err(error) => return Err(std::io::Error::other(error).into()),
    };
    // Under the lock: whatever the executor has recorded since stands in the journal.
    if armed(&folder, &plan, epoch, step).is_none() {
        return Ok(());
    }
    let mut mark = ProcessSelector {
        executor: true,
        systemd: false,
        ..ProcessSelector::of(folder.path(), plan.run, false)?
    };
    mark.sessions.clear();
    mark.left.clear();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut on_attempt = || {
        let _ = tell.send(());
    };
    let fire = firing.fire(&mut lock, &mut mark, &mut interrupts, &mut on_attempt);
    tokio::pin!(fire);
    let fired = loop {
        tokio::select! {
            fired = &mut fire => break fired,
            Some(()) = told.recv() => say_over(&mut executor).await,
        }
    };
    say_over(&mut executor).await;
    match fired.map_err(std::io::Error::other)? {
        Fired::Succeeded(n) => tracing::info!("the guard fired successfully on attempt {n}"),
        Fired::GivenUp(how) => tracing::error!("the guard has not succeeded: {how}"),
        Fired::Stopped => {}
    }
    Ok(())
}

/// The arming and the boot that it belongs to, as long as it stands. A journal that cannot be read disarms nothing.
fn armed(folder: &Folder, plan: &Plan, epoch: u32, step: usize) -> Option<(Arming, String)> {
    match folder.state(plan) {
        Ok(state) => {
            let mut armed = state.armed();
            let (_, arming) = armed.find(|(armed, arming)| *armed == step && arming.epoch == epoch)?;
            Some((arming, state.boot.clone()))
        }
        Err(error) => {
            tracing::error!("cannot tell from the journal whether the guard is disarmed: {error}");
            Some((Arming { epoch, since: Duration::ZERO }, String::new()))
        }
    }
}

async fn say_over(executor: &mut Option<UnixStream>) {
    if let Some(link) = executor {
        let _ = link.write_all(&[OVER]).await;
        *executor = None;
    }
}

/// Waits until the executor's end of the link is closed; it never writes anything.
async fn end_of(executor: &mut Option<UnixStream>) {
    let Some(link) = executor else { return };
    while matches!(link.read(&mut [0]).await, Ok(n) if n > 0) {}
}

/// Waits for an instant of the clock that counts from the boot, of this boot or of one that is over.
async fn over(until: Duration, this_boot: bool) {
    let left = || if this_boot { until.saturating_sub(clock::since_boot()) } else { Duration::ZERO };
    while !left().is_zero() {
        sleep(left().min(MAX_SLEEP)).await;
    }
}
