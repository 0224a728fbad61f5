//! Which systems a host has: those of `/usr/sap/sapservices`, and each `/usr/sap/SID/HDBNN`.
//!
//! A line of sapservices names the profile of an instance, `pf=/usr/sap/SID/SYS/profile/SID_HDBNN_HOST`, whether it starts
//! sapstartsrv itself or a unit of systemd. Source: SAPHanaSR ra/saphana-common-lib; trento-project/agent sapsystem.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::error::Error;
use crate::system::{Number, Sid, numbers};

/// Most systems that are looked at, and most that a list of services may hold.
const MAX_SYSTEMS: usize = 64;
const MAX_BYTES: u64 = 1024 * 1024;

/// The systems, each with its instance numbers on this host.
pub fn systems(root: &Path) -> Result<BTreeMap<Sid, Vec<Number>>, Error> {
    let mut found: BTreeMap<Sid, Vec<Number>> = BTreeMap::new();
    let home = root.join("usr/sap");
    match fs::read_dir(&home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::local(home.display())(error)),
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(Error::local(home.display()))?.file_name();
                let Some(Ok(sid)) = name.to_str().map(str::parse::<Sid>) else { continue };
                // A folder without an instance is of another product, or of a system that was removed.
                let instances = numbers(root, &sid)?;
                if !instances.is_empty() {
                    found.insert(sid, instances);
                }
            }
        }
    }
    let list = home.join("sapservices");
    let text = match fs::metadata(&list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Ok(there) if there.len() > MAX_BYTES => {
            return Err(Error::Unclear(format!("{} is larger than 1 MiB", list.display())));
        }
        _ => {
            let bytes = fs::read(&list).map_err(Error::local(list.display()))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    // A folder says which instance is on this host; where the folder is missing, the list still names the system.
    for (sid, number) in listed(&text) {
        found.entry(sid).or_insert_with(|| vec![number]);
    }
    if found.len() > MAX_SYSTEMS {
        return Err(Error::Unclear(format!("this host has {} systems", found.len())));
    }
    Ok(found)
}

/// The instances of HANA in the text of sapservices; lines of other products and comments are none.
fn listed(text: &str) -> impl Iterator<Item = (Sid, Number)> {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (_, profile) = line.split_once("pf=/usr/sap/")?;
        let profile = profile.split_whitespace().next()?;
        let (sid, file) = profile.split_once("/SYS/profile/")?;
        let mut parts = file.splitn(3, '_');
        let same = parts.next()? == sid;
        let number = parts.next()?.strip_prefix("HDB")?.parse().ok()?;
        let sid = sid.parse().ok()?;
        same.then_some((sid, number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_of_both_places() {
        let root = tempfile::tempdir().unwrap();
        assert!(systems(root.path()).unwrap().is_empty());
        for folder in
            ["HDB/HDB00", "HDB/SYS", "S4H/ASCS01", "hostctrl/exe", "QA1/HDB10", "QA1/HDB11", "SYS/HDB00"]
        {
            fs::create_dir_all(root.path().join("usr/sap").join(folder)).unwrap();
        }
        let list = "#!/bin/sh\n\
            LD_LIBRARY_PATH=/usr/sap/HDB/HDB00/exe:$LD_LIBRARY_PATH;export LD_LIBRARY_PATH;\
            /usr/sap/HDB/HDB00/exe/sapstartsrv pf=/usr/sap/HDB/SYS/profile/HDB_HDB00_east1 -D -u hdbadm\n\
            systemctl --no-ask-password start SAPGON_02 # sapstartsrv pf=/usr/sap/GON/SYS/profile/GON_HDB02_east1\n\
            #systemctl start SAPOLD_03 # sapstartsrv pf=/usr/sap/OLD/SYS/profile/OLD_HDB03_east1\n\
            /usr/sap/S4H/ASCS01/exe/sapstartsrv pf=/usr/sap/S4H/SYS/profile/S4H_ASCS01_east1 -D -u s4hadm\n\
            pf=/usr/sap/HD\npf=/usr/sap/BAD/SYS/profile/WRO_HDB00_h\npf=/usr/sap/BAD/SYS/profile/BAD_HDB99_h\n";
        fs::write(root.path().join("usr/sap/sapservices"), list).unwrap();
        let found = systems(root.path()).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(sid, numbers)| {
                let numbers: Vec<_> = numbers.iter().map(Number::to_string).collect();
                format!("{sid} {}", numbers.join("+"))
            })
            .collect();
        assert_eq!(found, ["GON 02", "HDB 00", "QA1 10+11"]);
    }
}
