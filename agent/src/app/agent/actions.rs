//! How a run comes to be: made elsewhere, since that takes time, and in the ledger before an executor has it.
//!
//! While it is made its locks count as taken, so that nothing else takes its place. It begins only if its order still
//! wants it when it is made; otherwise its folder goes away, and no executor has known of it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::sleep;

use super::{Agent, Event, PrepareError, START_RETRY_INTERVAL, prepare};
use crate::domain::decide::CheckedOrder;
use crate::domain::ids::RunId;
use crate::domain::order::Document;
use crate::domain::plan::{Lock, Plan, RunPaths};
use crate::domain::source::OrderKey;
use crate::domain::state::{LedgerEntry, Stage};
use crate::exec::launcher::Launcher;
use crate::host::crash::{CrashPoint, here};

impl Agent {
    pub(super) fn place(&self, task_dir: PathBuf) -> RunPaths {
        let systemd = self.run_table.launcher == Launcher::Systemd;
        RunPaths { task_dir, runtime_dir: self.config.settings.runtime_dir.clone(), systemd }
    }

    pub(super) fn start(&mut self, key: &OrderKey, run: RunId, locks: Vec<Lock>) {
        self.make_room_to_start(key);
        let Some(seen) = self.known(key) else { return };
        let Ok(Document::Order(order)) = &seen.document else { return };
        let Ok(loaded) = self.orders.catalog.get(order.task.as_str()) else { return };
        let Some(Ok(needs)) = self.orders.checked.get(key).map(|checked_orders| &checked_orders.finding)
        else {
            return;
        };
        let Ok(ledger) = &self.durable.ledger else { return };
        let order_state = ledger.state().orders.get(key);
        let Some(activation) = order_state.and_then(|order| order.current.as_ref()) else { return };
        // The last look is tried in any case; the copy counts only if the store gives no answer at all.
        let away = self.sync.status.away && loaded.task.offline;
        let copy = order_state.and_then(|order| order.recurrence.confirmed.as_ref()).filter(|_| away);
        let job = prepare::PrepareRun {
            host: self.identity.host.clone(),
            key: key.clone(),
            last: self.last_look(key, seen.index, &order.task),
            run,
            trigger: activation.trigger.clone(),
            copy: copy.map(|copy| copy.document.clone()),
            task_folder: loaded.folder.clone(),
            state_dir: self.config.settings.state_dir.clone(),
            place: self.place(PathBuf::new()),
            rule: self.identity.rule,
            version: needs.plan,
            copying: Arc::clone(&self.run_table.copying),
        };
        self.run_table.starting.insert(run, locks);
        self.work.send(async move {
            let result = job.make().await;
            Event::RunPrepared { key: job.key, run, result }
        });
    }

    pub(super) fn made(&mut self, key: &OrderKey, run: RunId, result: Result<Arc<Plan>, PrepareError>) {
        let still_open = self.durable.ledger.as_ref().ok().and_then(|ledger| {
            let activation = ledger.state().orders.get(key)?.current.as_ref()?;
            (activation.run == run && activation.stage == Stage::Open).then_some(())
        });
        match result {
            Ok(plan) if still_open.is_some() => {
                here(CrashPoint::FolderMade);
                if self.record(vec![LedgerEntry::Prepared { key: key.clone(), run }]) {
                    here(CrashPoint::Prepared);
                    tracing::info!(order = %key, run = %run, task = %plan.task, "starting");
                    self.run_table.runs.add(run, Arc::clone(&plan));
                    self.send_launch(plan, 1);
                } else {
                    self.again_later(run);
                }
            }
            Ok(_) => {
                self.run_table.starting.remove(&run);
                // A newer order came first; nobody knows of the folder.
                if let Err(error) = self.config.run_folder(run).remove() {
                    tracing::warn!(order = %key, run = %run, "{error}");
                }
            }
            Err(PrepareError::Refused(why)) => {
                self.run_table.starting.remove(&run);
                if let Some(index) = self.known(key).map(|seen| seen.index) {
                    self.orders.checked.insert(key.clone(), CheckedOrder { index, finding: Err(why) });
                }
            }
            Err(PrepareError::Unexamined(why)) => {
                tracing::info!(order = %key, run = %run, "not started yet: {why}");
                self.run_table.starting.remove(&run);
                self.orders.checked.remove(key);
            }
            Err(PrepareError::NotNow(why)) => {
                tracing::info!(order = %key, run = %run, "not started yet: {why}");
                self.again_later(run);
            }
        }
    }

    fn again_later(&self, run: RunId) {
        self.work.send(async move {
            sleep(START_RETRY_INTERVAL).await;
            Event::Again(run)
        });
    }
}
