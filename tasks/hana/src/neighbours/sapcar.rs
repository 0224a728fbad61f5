//! `SAPCAR`: extracts SAP's archives.
//!
//! What it prints decides nothing: an archive is extracted when the exit code is 0 and what was wanted is there.

use std::path::Path;
use std::time::Duration;

use crate::call::{As, Call, Input};

/// Where SAP's host agent has it.
pub const PROGRAM: &str = "/usr/sap/hostctrl/exe/SAPCAR";
/// The file of the signature that SAPCAR takes out of the archive.
pub const SIGNATURE: &str = "SIGNATURE.SMF";

/// Extracts all of an archive into a folder, and its signature beside it.
pub fn extract(program: &Path, archive: &Path, into: &Path) -> Call {
    Call {
        purpose: "extract the media",
        source: "community.sap_install roles/sap_hana_install tasks/pre_tasks/extract_sarfile.yml",
        user: As::Myself,
        program: program.to_owned(),
        arguments: vec![
            "-R".to_owned(), // into which folder
            into.display().to_string(),
            "-xvf".to_owned(),
            archive.display().to_string(),
            "-manifest".to_owned(), // under which name the signature is written
            SIGNATURE.to_owned(),
        ],
        input: Input::Nothing,
        timeout: Duration::from_secs(4 * 3600),
    }
}
