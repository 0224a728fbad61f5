//! What the agent does to runs that have a folder: launches their epochs, tells their executors what an operator
//! wants, takes epochs back, ends leftovers, reboots.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::runs::LeftGuard;
use super::{Agent, Event, START_RETRY_INTERVAL, pre_start_check, prepare};
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::plan::Plan;
use crate::domain::source::OrderKey;
use crate::domain::state::{LedgerEntry, RunRequest};
use crate::exec::processes;
use crate::host::clock;
use crate::host::crash::{CrashPoint, here};
use crate::ledger::Tokens;

/// A host that was told to reboot is down by then; otherwise somebody keeps it from that.
const REBOOTS_WITHIN: Duration = Duration::from_secs(15 * 60);
/// A reboot that was refused is asked for again after this.
const REBOOT_RETRY_INTERVAL: Duration = Duration::from_secs(60);

impl Agent {
    pub(super) fn launch(&mut self, key: &OrderKey, run: RunId, epoch: u32, look: bool) {
        let Some(plan) = self.run_table.runs.plan(run) else { return };
        let task = match plan.task_name() {
            Ok(task) => task,
            Err(error) => {
                return tracing::error!(order = %key, run = %run, "cannot read the task name in its plan: {error}");
            }
        };
        self.run_table.starting.insert(run, plan.resources.clone());
        let seen = self.sync.desired.orders.get(key).map(|seen| seen.index);
        if !look {
            return self.send_launch(plan, epoch);
        }
        let Some(index) = seen else {
            // The order is gone, and nothing of the run has happened.
            let key = key.clone();
            return self.work.send(async move { Event::Changed { key, run, epoch } });
        };
        let (last, key) = (self.last_look(key, index, &task), key.clone());
        let launching = self.launching(plan, epoch);
        self.work.send(async move {
            match last.look().await {
                Ok(_) => launching.launch().await,
                Err(pre_start_check::PreStartError::Changed(_)) => Event::Changed { key, run, epoch },
                Err(look) => {
                    tracing::debug!(order = %key, run = %run, "the check before the start failed: {look}");
                    sleep(START_RETRY_INTERVAL).await;
                    Event::Again(run)
                }
            }
        });
    }

    pub(super) fn launching(&self, plan: Arc<Plan>, epoch: u32) -> prepare::LaunchRequest {
        let folder = self.config.run_folder(plan.run);
        prepare::LaunchRequest {
            launcher: self.run_table.launcher.clone(),
            program: self.identity.program.clone(),
            folder,
            epoch,
            plan,
            vault: self.vault.client.clone(),
            tokens: Tokens::of(&self.config.settings.state_dir),
        }
    }

    pub(super) fn send_launch(&mut self, plan: Arc<Plan>, epoch: u32) {
        self.run_table.runs.launching(plan.run, epoch);
        let launching = self.launching(plan, epoch);
        self.work.send(async move { launching.launch().await });
    }

    /// Starts watchers for guards that a dead executor left: what they end does not wait for the next epoch, which may
    /// wait for Vault, for its pace, or for processes to be ended.
    pub(super) fn watch_over_left_guards(&mut self) {
        // On a host that is not who it was, the state is another's.
        if self.start_block(clock::now()).is_some() {
            return;
        }
        for guard in self.run_table.runs.left_guards() {
            let (launcher, program) = (self.run_table.launcher.clone(), self.identity.program.clone());
            tokio::spawn(async move {
                let LeftGuard { plan, folder, epoch, step } = guard;
                tracing::warn!(run = %plan.run, order = %plan.order, "the executor of an armed guard is gone: firing the guard");
                let of = crate::exec::launcher::Epoch {
                    program: &program,
                    folder: folder.path(),
                    number: epoch,
                    plan: &plan,
                };
                let watcher = launcher.watch(of, step).await;
                let listed = watcher.and_then(|id| match id {
                    Some(id) => processes::list(&folder.path().join("left"), id).map_err(|e| e.to_string()),
                    None => Ok(()),
                });
                // Its own watcher may still be there, and have the name of the unit.
                listed.unwrap_or_else(
                    |why| tracing::info!(run = %plan.run, "starting no other watcher: {why}"),
                );
            });
        }
    }

    /// Takes an epoch away from every executor, and opens the activation again; whether that is remembered.
    pub(super) fn revoke(&mut self, key: &OrderKey, run: RunId, epoch: u32) -> bool {
        let folder = self.config.run_folder(run);
        match prepare::fence(&folder, epoch) {
            Ok(true) => {
                let next = clock::new_run();
                let order_state =
                    self.record(vec![LedgerEntry::PreparationRevoked { key: key.clone(), run, next }]);
                if order_state {
                    self.run_table.runs.close(run, &BTreeSet::new());
                    // Nothing happened in it. An executor on its way finds neither plan nor claim, and leaves.
                    if let Err(error) = folder.remove() {
                        tracing::warn!(order = %key, run = %run, "{error}");
                    }
                    self.vault.give_back.notify_one();
                }
                return order_state;
            }
            Ok(false) => self.run_table.runs.look_at(run),
            Err(error) => tracing::warn!(order = %key, run = %run, "cannot revoke the preparation: {error}"),
        }
        false
    }

    /// Takes an epoch away from every executor that may still come, so that its run can be given up.
    pub(super) fn fence(&mut self, key: &OrderKey, run: RunId, epoch: u32) -> bool {
        let folder = self.config.run_folder(run);
        match prepare::fence(&folder, epoch) {
            Ok(_) => {
                self.run_table.runs.look_at(run);
                true
            }
            Err(error) => {
                tracing::warn!(order = %key, run = %run, "cannot fence the claim: {error}");
                false
            }
        }
    }

    /// Writes the request of an operator into the run's folder, where its executor, or the next one, finds it.
    pub(super) fn send_request(&mut self, run: RunId, request: RunRequest) -> bool {
        here(CrashPoint::RequestRecorded);
        let folder = self.config.run_folder(run);
        match folder.request(&request) {
            Ok(()) => {
                tracing::info!(run = %run, "sent to the executor: {request}");
                self.run_table.runs.delivered(run, request);
                true
            }
            Err(error) => {
                tracing::error!(run = %run, "cannot send the request {request} to the executor: {error}");
                false
            }
        }
    }

    pub(super) fn kill_leftovers(&mut self, run: RunId) {
        if !self.run_table.ending.insert(run) {
            return;
        }
        let folder = self.config.run_folder(run);
        let (launcher, runtime) = (self.run_table.launcher.clone(), self.config.settings.runtime_dir.clone());
        self.work.send(async move {
            let found = prepare::kill_leftovers(&launcher, &folder, &runtime).await;
            if let Err(why) = &found {
                tracing::error!(run = %run, "cannot tell whether processes of the run are alive: {why}");
            }
            Event::LeftoversKilled { run, found }
        });
    }

    pub(super) fn reboot(&mut self, run: RunId) {
        if std::mem::replace(&mut self.run_table.rebooting, true) {
            return;
        }
        tracing::warn!(run = %run, "rebooting the host at the request of the run");
        let launcher = self.run_table.launcher.clone();
        self.work.send(async move {
            // It may take minutes, in which this process has other things to do.
            let _ = tokio::task::spawn_blocking(nix::unistd::sync).await;
            let wait = match launcher.reboot().await {
                Ok(()) => REBOOTS_WITHIN,
                Err(error) => {
                    tracing::error!(run = %run, "cannot reboot the host: {error}");
                    REBOOT_RETRY_INTERVAL
                }
            };
            sleep(wait).await;
            Event::NotRebooted
        });
    }

    pub(super) fn last_look(
        &self,
        key: &OrderKey,
        index: u64,
        task: &Name,
    ) -> pre_start_check::PreStartCheck {
        let controls = self.sync.desired.controls.keys().filter(|(order, _)| *order == key.order);
        pre_start_check::PreStartCheck {
            store: Arc::clone(&self.sync.store),
            keys: self.config.settings.keys.clone(),
            host: self.identity.host.clone(),
            sources: self.sync.sources.clone(),
            key: key.clone(),
            index,
            task: task.clone(),
            known: controls.map(|(_, id)| *id).collect(),
            reread: Arc::clone(&self.sync.reread),
        }
    }
}
