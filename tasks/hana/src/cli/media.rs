//! `media`.

use std::path::PathBuf;

use serde_json::json;

use super::{Options, print, print_json};
use crate::error::Error;
use crate::neighbours::sapcar;
use crate::report;
use crate::system::Version;
use crate::unpack::{self, Archive, Checksum, Wish};

#[derive(clap::Args)]
pub(super) struct MediaArguments {
    /// Folder of the media: it is made when an archive is named, and looked at when none is
    #[arg(long, value_name = "FOLDER")]
    media: PathBuf,
    /// SAP's archive of the database server
    #[arg(long, value_name = "FILE", requires = "sha256")]
    archive: Option<PathBuf>,
    /// SHA-256 of the archive, as SAP shows it where the archive is downloaded
    #[arg(long, value_name = "DIGITS", requires = "archive")]
    sha256: Option<Checksum>,
    /// Version that the media must have, such as 2.00.079.00
    #[arg(long, value_name = "VERSION")]
    media_version: Option<Version>,
    /// The program that extracts
    #[arg(long, value_name = "FILE", default_value = sapcar::PROGRAM)]
    sapcar: PathBuf,
    /// Change nothing: ask whether the media is there as wanted
    #[arg(long)]
    probe: bool,
}

impl MediaArguments {
    pub(super) fn run(self, options: &Options) -> Result<(), Error> {
        let first = "00".parse().map_err(Error::Config)?;
        let runner = options.runner(Some(first))?;
        for path in [Some(&self.media), self.archive.as_ref(), Some(&self.sapcar)].into_iter().flatten() {
            if !path.is_absolute() {
                return Err(Error::Config(format!("{}: write an absolute path", path.display())));
            }
        }
        let archive = self.archive.zip(self.sha256);
        let archive = archive.map(|(path, sha256)| Archive { path, sha256, sapcar: self.sapcar });
        let wish = Wish { folder: self.media, archive, version: self.media_version };
        let version =
            if self.probe { unpack::is_there(&runner, &wish)? } else { unpack::carry_out(&runner, &wish)? };
        if !self.probe {
            report::outputs(&json!({"media_version": version.to_string()}))?;
        }
        if options.json {
            return print_json(&json!({"media": wish.folder, "version": version}));
        }
        print(&format!("{} is {version}", wish.folder.display()));
        Ok(())
    }
}
