//! The folder that a command of a run sees, and its environment: made anew for each command, because its user may be
//! another.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::downtime::Downtime;
use crate::domain::plan::Plan;
use crate::exec::feedback::StepReportReader;
use crate::exec::program;
use crate::exec::redact::Redactor;
use crate::exec::secret_mount;
use crate::exec::user::User;
use crate::host::{disk, process};

/// Where a command finds what it is given.
pub(super) struct Place<'a> {
    pub(super) plan: &'a Plan,
    /// Below the runtime folder, in a folder for its kind.
    pub(super) path: PathBuf,
    pub(super) epoch: u32,
}

impl Place<'_> {
    /// Makes the folder. What the command reports may hold secrets, so it goes where they are.
    pub(super) fn prepare(
        &self,
        user: &User,
        secrets: Option<&Path>,
        redactor: Option<Arc<Redactor>>,
    ) -> io::Result<StepReportReader> {
        disk::clear_away(&self.path)?;
        let all = disk::parent(&self.path);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(all)?;
        // An agent before this one may have made them for itself alone.
        for folder in [self.plan.place.runtime_dir.as_path(), all] {
            process::pass_through(folder).map_err(|error| error.source)?;
        }
        // Its user can enter it, and see by name only what it is told of.
        fs::DirBuilder::new().mode(0o711).create(&self.path)?;
        let params = self.path.join("params");
        disk::create(&params, self.plan.params.to_string().as_bytes(), 0o400).map_err(|e| e.source)?;
        user.own(&params)?;
        if secrets.is_none() {
            let secrets = self.path.join("secrets");
            fs::DirBuilder::new().mode(0o500).create(&secrets)?;
            user.own(&secrets)?;
        }
        let report = self.report(secrets);
        let feedback = StepReportReader::create(&report, redactor)?;
        user.own(&report)?;
        Ok(feedback)
    }

    /// What the command of a lost executor said of downtime, from the file that it left; nothing after a reboot.
    pub(super) fn left_behind(&self, redactor: Option<Arc<Redactor>>) -> Vec<Downtime> {
        let secrets = (!self.plan.secrets.is_empty())
            .then(|| secret_mount::folder(&self.plan.place.runtime_dir, self.plan.run));
        let left = StepReportReader::left_behind(&self.report(secrets.as_deref()), redactor);
        left.map(|mut left| {
            left.finish();
            left.downtime()
        })
        .unwrap_or_default()
    }

    fn report(&self, secrets: Option<&Path>) -> PathBuf {
        secrets.map_or_else(|| self.path.join("report"), |folder| folder.join(".report"))
    }

    pub(super) fn environment(&self, user: &User, secrets: Option<&Path>) -> Vec<(String, String)> {
        let plan = self.plan;
        let file = |name: &str| self.path.join(name).to_string_lossy().into_owned();
        [
            ("PATH", program::PATH.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", user.home.to_string_lossy().into_owned()),
            ("HOSTLER_RUN", plan.run.to_string()),
            ("HOSTLER_ORDER", plan.order.to_string()),
            ("HOSTLER_TASK", plan.task.clone()),
            ("HOSTLER_HOST", plan.host.to_string()),
            ("HOSTLER_EPOCH", self.epoch.to_string()),
            ("HOSTLER_PARAMS", file("params")),
            (
                "HOSTLER_SECRETS",
                secrets.map_or_else(|| file("secrets"), |path| path.to_string_lossy().into_owned()),
            ),
            ("HOSTLER_REPORT", self.report(secrets).to_string_lossy().into_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
