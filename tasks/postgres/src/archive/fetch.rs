//! `restore_command`: one file of the archive for a server that recovers.
//!
//! The server takes every exit status from 1 to 125 for "the archive ends here", and opens. So that answer is given only
//! when the store says that there is nothing of that name and nothing comes after it either; everything else ends with
//! [`STOP`], which stops the server.

use std::path::Path;

use super::{data, header, key, shelf};
use crate::depot::Depot;
use crate::error::Error;
use crate::wal::{self, Name};

/// The exit status for whatever is not known to be the end of the archive.
pub const STOP: u8 = 126;

/// Gives the server the file of this name at `to`.
///
/// # Errors
/// [`Error::No`] if the archive ends before it; every other error has to stop the recovery.
pub async fn run(depot: &Depot, name: &str, to: &Path) -> Result<(), Error> {
    let refused = |why: String| Error::Refused(format!("{name}: {why}"));
    let system = wal::system(&data(to))?;
    let (Some(kind), Some(key)) = (Name::parse(name), key(&depot.place, system, name)) else {
        return Err(refused("no file of WAL has such a name".to_owned()));
    };
    match depot.get(&key, to).await {
        Ok(()) => {}
        Err(Error::Missing(_)) => return end(depot, system, name, kind).await,
        Err(Error::Cold(why)) => {
            return Err(Error::Cold(format!(
                "{name} is in cold storage: thaw it before the restore ({why})"
            )));
        }
        Err(error) => return Err(error),
    }
    let wrong = match kind {
        Name::Segment { .. } | Name::Partial { .. } => {
            let mut file = std::fs::File::open(to).map_err(Error::local(to.display()))?;
            let length = file.metadata().map_err(Error::local(to.display()))?.len();
            wal::check(name, system, length, &header(&mut file, to)?).err()
        }
        Name::History { timeline } => {
            let text = std::fs::read_to_string(to).map_err(Error::local(to.display()))?;
            wal::history(timeline, &text).err()
        }
        Name::Label { .. } => None,
    };
    let Some(wrong) = wrong else { return Ok(()) };
    let _ = std::fs::remove_file(to);
    Err(Error::Damaged(format!("{key}: what is archived under this name is not it: {wrong}")))
}

/// The archive has nothing of this name: whether it ends here.
async fn end(depot: &Depot, system: u64, name: &str, kind: Name) -> Result<(), Error> {
    let missing =
        |what: String| Error::Damaged(format!("{name} is missing in the archive, and {what} is there"));
    match kind {
        Name::Segment { timeline, .. } => {
            if let Some(later) = shelf::first_after(depot, system, timeline, name).await? {
                return Err(missing(later));
            }
        }
        // The first timeline has none, and is asked for when another one is begun from it.
        Name::History { timeline: 1 } => {}
        Name::History { timeline } => {
            // Whatever has a higher number was begun from a timeline that had a history.
            if let Some(later) = shelf::timelines(depot, system).await?.into_iter().find(|it| *it >= timeline)
            {
                return Err(missing(format!("WAL of the timeline {later}")));
            }
        }
        Name::Partial { .. } | Name::Label { .. } => {}
    }
    Err(Error::No(format!("{name} is not in the archive, which ends before it")))
}
