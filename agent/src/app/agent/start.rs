//! How a run comes to be: made elsewhere, since that takes time, and in the ledger before an executor has it.
//!
//! While it is made its locks count as taken, so that nothing else takes its place. It begins only if its order still
//! wants it when it is made; otherwise its folder goes away, and no executor has known of it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::sleep;

use super::work::Made;
use super::{Agent, Event, NotMade, START_AGAIN, work};
use crate::domain::decide::Examined;
use crate::domain::ids::RunId;
use crate::domain::memory::{Fact, Stage};
use crate::domain::order::Document;
use crate::domain::plan::{Lock, Place};
use crate::domain::source::OrderKey;
use crate::exec::launcher::Launcher;
use crate::host::crash::{CrashPoint, here};
use crate::ledger::Folder;

impl Agent {
    pub(super) fn place(&self, task_dir: PathBuf) -> Place {
        let systemd = self.launcher == Launcher::Systemd;
        Place { task_dir, runtime_dir: self.settings.runtime_dir.clone(), systemd }
    }

    pub(super) fn start(&mut self, key: &OrderKey, run: RunId, locks: Vec<Lock>) {
        self.make_room_to_start(key);
        let Some(seen) = self.known(key) else { return };
        let Ok(Document::Order(order)) = &seen.document else { return };
        let Ok(loaded) = self.catalog.get(order.task.as_str()) else { return };
        let Some(Ok(needs)) = self.examined.get(key).map(|examined| &examined.finding) else { return };
        let Ok(ledger) = &self.ledger else { return };
        let remembered = ledger.memory().orders.get(key);
        let Some(occasion) = remembered.and_then(|order| order.current.as_ref()) else { return };
        // The last look is tried in any case; the copy counts only if the store gives no answer at all.
        let away = self.sighted.away && loaded.task.offline;
        let copy = remembered.and_then(|order| order.standing.confirmed.as_ref()).filter(|_| away);
        let job = work::Making {
            host: self.host.clone(),
            key: key.clone(),
            last: self.last_look(key, seen.index, &order.task),
            run,
            cause: occasion.cause.clone(),
            copy: copy.map(|copy| copy.document.clone()),
            task_folder: loaded.folder.clone(),
            state_dir: self.settings.state_dir.clone(),
            place: self.place(PathBuf::new()),
            rule: self.rule,
            version: needs.plan,
            copying: Arc::clone(&self.copying),
            launcher: self.launcher.clone(),
            program: self.program.clone(),
            bare: loaded.task.secrets.is_empty(),
        };
        self.starting.insert(run, locks);
        self.send(async move {
            let result = job.make().await;
            Event::Made { key: job.key, run, result }
        });
    }

    pub(super) fn made(&mut self, key: &OrderKey, run: RunId, result: Result<Made, NotMade>) {
        let still_open = self.ledger.as_ref().ok().and_then(|ledger| {
            let occasion = ledger.memory().orders.get(key)?.current.as_ref()?;
            (occasion.run == run && occasion.stage == Stage::Open).then_some(())
        });
        match result {
            Ok(Made { plan, ahead }) if still_open.is_some() => {
                here(CrashPoint::FolderMade);
                if self.remember(vec![Fact::Prepared { key: key.clone(), run }]) {
                    here(CrashPoint::Prepared);
                    tracing::info!(order = %key, run = %run, task = %plan.task, "starting");
                    self.runs.add(run, Arc::clone(&plan));
                    self.send_launch(plan, 1, ahead);
                } else {
                    self.again_later(run);
                }
            }
            Ok(_) => {
                self.starting.remove(&run);
                // A newer order came first; nobody knows of the folder.
                if let Err(error) = Folder::new(&self.settings.state_dir.join("runs"), run).remove() {
                    tracing::warn!(order = %key, run = %run, "{error}");
                }
            }
            Err(NotMade::Refused(why)) => {
                self.starting.remove(&run);
                if let Some(index) = self.known(key).map(|seen| seen.index) {
                    self.examined.insert(key.clone(), Examined { index, finding: Err(why) });
                }
            }
            Err(NotMade::Unexamined(why)) => {
                tracing::info!(order = %key, run = %run, "not started yet: {why}");
                self.starting.remove(&run);
                self.examined.remove(key);
            }
            Err(NotMade::NotNow(why)) => {
                tracing::info!(order = %key, run = %run, "not started yet: {why}");
                self.again_later(run);
            }
        }
    }

    fn again_later(&self, run: RunId) {
        self.send(async move {
            sleep(START_AGAIN).await;
            Event::Again(run)
        });
    }
}
