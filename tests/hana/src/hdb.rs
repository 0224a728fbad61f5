//! `HDB`: start, stop, kill, info, version.

use crate::clock;
use crate::halt::{Ended, Halt};
use crate::root::Root;
use crate::system::{self, System};

/// The system whose tool this is: by the place of the program below `/usr/sap/SID/HDBNN`, else the only one.
pub(crate) fn own(root: &Root) -> Result<System, Halt> {
    let systems = system::all(root)?;
    let place = std::env::current_exe()?;
    let here = systems.iter().find(|system| {
        place.starts_with(system.instance(root))
            || place.starts_with(root.at(&system.sapmnt).join(&system.sid))
    });
    let only = systems.first().filter(|_| systems.len() == 1);
    here.or(only).cloned().ok_or_else(|| {
        Halt::new(1, "this tool lies in no system of this host, and the host has not just one")
    })
}

pub(crate) fn run(root: &Root, arguments: &[String]) -> Ended {
    let system = own(root)?;
    let number = &system.number;
    match arguments.first().map(String::as_str) {
        Some("start") => {
            println!("\nStartService\nImpromptu CCC initialization by 'rscpCInit'.\nOK\nOK");
            system::change(root, &system.sid, |system| system.service = true)?;
            println!(
                "Starting instance using: sapcontrol -prot NI_HTTP -nr {number} -function StartWait 2700 2"
            );
            crate::sapcontrol::run(root, &words(number, "StartWait 2700 2"))
        }
        Some("stop") => {
            println!("hdbdaemon will wait maximal 300 seconds for NewDB services finishing.");
            println!("Stopping instance using: sapcontrol -prot NI_HTTP -nr {number} -function Stop 400");
            let asked = crate::sapcontrol::run(root, &words(number, "Stop 400"))?;
            if asked != 0 {
                return Ok(asked);
            }
            println!(
                "Waiting for stopped instance using: sapcontrol -prot NI_HTTP -nr {number} -function WaitforStopped 600 2"
            );
            let stopped = crate::sapcontrol::run(root, &words(number, "WaitforStopped 600 2"))?;
            if stopped == 0 {
                println!("hdbdaemon is stopped.");
            }
            Ok(stopped)
        }
        Some("kill" | "kill-9") => {
            println!("killing HDB processes:");
            system.kill(root);
            Ok(0)
        }
        Some("info") => {
            println!("USER       PID  PPID %CPU   VSZ   RSS COMMAND");
            let user = format!("{}adm", system.sid.to_lowercase());
            for process in system.processes(root).iter().filter(|process| process.started.is_some()) {
                println!(
                    "{user}  {:>8}     1  0.0  1000  1000  {}",
                    system.pid(root).unwrap_or_default(),
                    process.name
                );
            }
            // 0 says that the system is installed, not that it runs.
            Ok(0)
        }
        Some("version") => {
            println!("HDB version info:");
            println!("  version:             {}.{}", system.version, system.build);
            println!("  branch:              fa/hana2sp{:0>2}", service_pack(&system.version));
            println!("  machine config:      linuxx86_64");
            println!("  git merge time:      {}", clock::form(system.installed_at, "%Y-%m-%d %H:%M:%S"));
            Ok(0)
        }
        _ => {
            println!("Usage: HDB {{ start|stop|kill|info|version }}");
            Ok(1)
        }
    }
}

fn words(number: &str, call: &str) -> Vec<String> {
    format!("-prot NI_HTTP -nr {number} -function {call}").split(' ').map(str::to_string).collect()
}

/// The service pack of a version: the tens of its revision.
pub(crate) fn service_pack(version: &str) -> u32 {
    version.split('.').nth(2).and_then(|revision| revision.parse::<u32>().ok()).unwrap_or_default() / 10
}
