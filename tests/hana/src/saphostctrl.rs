//! `saphostctrl`: which instances the host agent knows.
//!
//! It reads `/usr/sap/sapservices`: an installation that failed half-way is in it, and so may be one that was removed.

use crate::halt::Ended;
use crate::root::Root;
use std::fs;

pub(crate) fn run(root: &Root, arguments: &[String]) -> Ended {
    let function = arguments.iter().position(|argument| argument == "-function");
    match function.and_then(|place| arguments.get(place + 1)).map(String::as_str) {
        Some("ListInstances") => {
            let text = fs::read_to_string(root.at("/usr/sap/sapservices")).unwrap_or_default();
            for line in text.lines() {
                let profile = line.split("/SYS/profile/").nth(1).and_then(|rest| rest.split(' ').next());
                let mut parts = profile.unwrap_or_default().splitn(3, '_');
                if let (Some(sid), Some(instance), Some(host)) = (parts.next(), parts.next(), parts.next()) {
                    show(sid, instance.trim_start_matches("HDB"), host);
                }
            }
            if let Some(stale) = root.faults().find("stale-instance", |_| true) {
                let (sid, number) = stale.split_once(' ').unwrap_or((&stale, "00"));
                show(sid, number, &root.host());
            }
            Ok(0)
        }
        _ => {
            println!("Usage: saphostctrl -function ListInstances");
            Ok(1)
        }
    }
}

fn show(sid: &str, number: &str, host: &str) {
    println!(" Inst Info : {sid} - {number} - {host} - 793, patch 200, changelist 2226830");
}
