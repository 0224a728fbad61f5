//! `hdbbackupdiag --check [-v] -d CATALOG_FOLDER`: is everything there that a recovery to the newest instant needs?

use crate::backint::Backint;
use crate::backup::unseal;
use crate::catalog::{Catalog, Piece};
use crate::halt::{Ended, Halt};
use crate::hdb;
use crate::root::Root;
use std::fs;
use std::path::Path;

pub(crate) fn run(root: &Root, arguments: &[String]) -> Ended {
    let place = arguments.iter().position(|argument| argument == "-d");
    let folder = place.and_then(|place| arguments.get(place + 1));
    let (true, Some(folder)) = (arguments.iter().any(|argument| argument == "--check"), folder) else {
        return Err(Halt::new(1, "Usage: hdbbackupdiag --check [-f] [-v] -d <catalog folder>"));
    };
    let catalog = newest(&root.at(folder))
        .ok_or_else(|| Halt::new(1, format!("ERROR: no readable backup catalog was found in {folder}")))?;
    let data = catalog
        .entries
        .iter()
        .filter(|entry| entry.kind == "complete data backup" && entry.state == "successful");
    let data = data
        .max_by_key(|entry| entry.backup_id)
        .ok_or_else(|| Halt::new(1, "ERROR: no data backup was found"))?;
    let logs = catalog
        .entries
        .iter()
        .filter(|entry| entry.kind == "log backup" && entry.branch == data.branch && entry.last > data.last);
    let pieces: Vec<&Piece> = std::iter::once(data).chain(logs).flat_map(|entry| &entry.pieces).collect();
    let mut missing = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.destination == "file") {
        if fs::metadata(&piece.path).map(|metadata| metadata.len()).ok() != Some(piece.size) {
            missing.push(piece.path.clone());
        }
    }
    let streams: Vec<(String, String)> = pieces
        .iter()
        .filter(|piece| piece.destination == "backint")
        .map(|piece| (piece.ebid.clone().unwrap_or_default(), piece.path.clone()))
        .collect();
    if !streams.is_empty() {
        let system = hdb::own(root)?;
        let backint =
            Backint { root, system: &system, database: &data.database, of: &system.sid, purpose: "data" };
        missing.extend(backint.missing(&streams).map_err(|text| Halt::new(1, text))?);
    }
    for piece in &pieces {
        let state = if missing.contains(&piece.path) { "not found" } else { "OK" };
        println!("{}: {state}", piece.path);
    }
    println!("{}", if missing.is_empty() { "Check successful" } else { "Check failed" });
    Ok(i32::from(!missing.is_empty()))
}

/// The newest catalog of a folder.
fn newest(folder: &Path) -> Option<Catalog> {
    let files = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        Some((name.strip_prefix("log_backup_0_0_0_0.")?.parse::<i64>().ok()?, entry.path()))
    });
    unseal(&fs::read(files.max()?.1).ok()?)
}
