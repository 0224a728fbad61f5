//! How far an installation or update came: the file that hdblcm leaves and resumes from.

use crate::files;
use crate::halt::Halt;
use crate::root::Root;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The state of an action that has begun and not ended.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) version: String,
    /// Names of the phases that are done.
    pub(crate) done: Vec<String>,
}

/// Where it is kept: `/hana/shared/SID/SID.hdbinstall` or `SID.hdblcm.update`.
pub(crate) fn place(shared: &Path, sid: &str, action: &str) -> PathBuf {
    shared.join(match action {
        "install" => format!("{sid}.hdbinstall"),
        _ => format!("{sid}.hdblcm.{action}"),
    })
}

/// An installation or update, with the phases that it consists of.
pub(crate) struct Action<'a> {
    /// `install` or `update`.
    pub(crate) name: &'a str,
    /// To which version it leads.
    pub(crate) version: &'a str,
    /// File that says how far it came.
    pub(crate) place: &'a Path,
    /// Names of the phases, and how many seconds each takes.
    pub(crate) phases: &'a [(&'a str, f64)],
    /// Ends behind the phase of this name; `None`: behind the last.
    pub(crate) only: Option<&'a str>,
}

/// Carries out the phases that are not done yet, in their order.
///
/// Behind each phase the state is on the disk, then the crash point `hdblcm.ACTION.PHASE` follows. The fault
/// `hdblcm-fails PHASE` ends before the phase with 1.
pub(crate) fn phases(
    root: &Root,
    action: &Action<'_>,
    mut carry_out: impl FnMut(&str) -> Result<(), Halt>,
) -> Result<(), Halt> {
    let Action { name: action, version, place, phases, only } = *action;
    let found = files::load::<State>(place)?;
    let mut state = found.unwrap_or_else(|| State { version: version.to_string(), done: Vec::new() });
    if state.version != version {
        return Err(Halt::new(
            1,
            format!(
                "{action} failed\n  Pending {action} to version {} was found in '{}'",
                state.version,
                place.display()
            ),
        ));
    }
    if state.done.is_empty() {
        files::save(root, place, &state)?;
    }
    for (phase, nominal) in phases {
        if !state.done.iter().any(|done| done == phase) {
            let fails = root.faults().find("hdblcm-fails", |named| named == *phase);
            root.sleep(*nominal);
            if fails.is_some() {
                return Err(Halt::new(1, format!("    Phase '{phase}' failed")));
            }
            carry_out(phase)?;
            state.done.push((*phase).to_string());
            files::save(root, place, &state)?;
            files::crash_point(root, &format!("hdblcm.{action}.{phase}"));
        }
        if only == Some(*phase) {
            return Ok(());
        }
    }
    std::fs::remove_file(place)?;
    Ok(())
}
