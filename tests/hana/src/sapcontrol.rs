//! `sapcontrol`: the web methods of sapstartsrv, with its exit codes.
//!
//! 0 the call succeeded, 1 it failed, 2 a wait timed out, 3 GetProcessList: all GREEN, 4 GetProcessList: all GRAY.

use crate::clock;
use crate::halt::{Ended, Halt};
use crate::root::Root;
use crate::system::{self, Process, System};

const STARTSTOP: [&str; 10] = [
    "StartSystem",
    "Start",
    "StartWait",
    "StopSystem",
    "Stop",
    "StopWait",
    "RestartSystem",
    "RestartService",
    "StartService",
    "StopService",
];

pub(crate) fn run(root: &Root, arguments: &[String]) -> Ended {
    let option = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1).map(String::as_str)
    };
    let (Some(number), Some(place)) =
        (option("-nr"), arguments.iter().position(|argument| argument == "-function"))
    else {
        println!("Usage: sapcontrol [-prot NI_HTTP] -nr <NR> [-format list|script] -function <webmethod>");
        return Ok(1);
    };
    let function = arguments.get(place + 1).map_or("", String::as_str);
    let rest: Vec<&str> = arguments.iter().skip(place + 2).map(String::as_str).collect();
    let script = option("-format") == Some("script");
    let faults = root.faults();
    if faults.has("sapstartsrv-hangs") {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
    }
    let system = system::numbered(root, number)?.filter(|_| !faults.has("sapstartsrv-refuses"));
    let Some(system) = system.filter(|system| system.service || function == "StartService") else {
        head(function, "FAIL: NIECONN_REFUSED (Connection refused), NiRawConnect failed in plugin_fopen()");
        return Ok(1);
    };
    match function {
        "GetProcessList" => {
            let processes = system.processes(root);
            head(function, "OK");
            list(&system, root, &processes, script);
            Ok(code(&processes))
        }
        "GetSystemInstanceList" => {
            head(function, "OK");
            println!("hostname, instanceNr, httpPort, httpsPort, startPriority, features, dispstatus");
            let n: u32 = system.number.parse().unwrap_or_default();
            let light = overall(&system.processes(root));
            println!("{}, {n}, 5{number}13, 5{number}14, 0.3, HDB|HDB_WORKER, {light}", root.host());
            Ok(0)
        }
        "WaitforStarted" | "WaitforStopped" => {
            head(function, "OK");
            wait(root, &system, function == "WaitforStarted", &rest)
        }
        function if STARTSTOP.contains(&function) => start_stop(root, &system, function, &rest),
        _ => {
            head(function, "FAIL: Invalid web method");
            Ok(1)
        }
    }
}

fn start_stop(root: &Root, system: &System, function: &str, rest: &[&str]) -> Ended {
    head(function, "OK");
    match function {
        "StartService" => system::change(root, &system.sid, |system| system.service = true)?,
        "StopService" => system::change(root, &system.sid, |system| system.service = false)?,
        "StartSystem" | "Start" | "StartWait" => system.start(root)?,
        "StopSystem" | "Stop" | "StopWait" => system.stop(root)?,
        "RestartSystem" => {
            system.stop(root)?;
            system.wait_down(root, 600.0);
            system.start(root)?;
        }
        _ => {}
    }
    match function {
        "StartWait" => wait(root, system, true, rest),
        "StopWait" => wait(root, system, false, rest),
        _ => Ok(0),
    }
}

/// Waits as `WaitforStarted TIMEOUT DELAY` does: 0 when it came, 2 when it did not in time.
fn wait(root: &Root, system: &System, up: bool, rest: &[&str]) -> Ended {
    let Some(seconds) = rest.first().and_then(|text| text.parse::<f64>().ok()) else {
        return Err(Halt::new(1, "sapcontrol: a wait needs its timeout in seconds"));
    };
    let came = if up { system.wait_up(root, seconds)? } else { system.wait_down(root, seconds) };
    let name = if up { "WaitforStarted" } else { "WaitforStopped" };
    println!("\n{}\n{name}", clock::form(clock::now(), "%d.%m.%Y %H:%M:%S"));
    println!("{}", if came { "OK" } else { "FAIL: process timeout" });
    Ok(if came { 0 } else { 2 })
}

fn head(function: &str, result: &str) {
    println!("\n{}\n{function}\n{result}", clock::form(clock::now(), "%d.%m.%Y %H:%M:%S"));
}

/// The exit code of GetProcessList.
fn code(processes: &[Process]) -> i32 {
    let all = |light: &str| processes.iter().all(|process| process.light == light);
    match () {
        () if all("GREEN") => 3,
        () if all("GRAY") => 4,
        () => 0,
    }
}

fn overall(processes: &[Process]) -> &'static str {
    match code(processes) {
        3 => "GREEN",
        4 => "GRAY",
        _ => "YELLOW",
    }
}

fn list(system: &System, root: &Root, processes: &[Process], script: bool) {
    let first = system.pid(root).unwrap_or_default();
    if !script {
        println!("name, description, dispstatus, textstatus, starttime, elapsedtime, pid");
    }
    for (process, place) in processes.iter().zip(0..) {
        let Process { name, description, light, text, started } = process;
        let (start, elapsed, pid) = match started {
            Some(started) => {
                let seconds = (clock::now() - started) / 1_000_000;
                let elapsed = format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
                (clock::form(*started, "%Y %m %d %H:%M:%S"), elapsed, first + place)
            }
            None => (String::new(), String::new(), 0),
        };
        let row = [
            ("name", name.to_string()),
            ("description", description.to_string()),
            ("dispstatus", light.to_string()),
            ("textstatus", text.to_string()),
            ("starttime", start),
            ("elapsedtime", elapsed),
            ("pid", pid.to_string()),
        ];
        if script {
            for (key, value) in row {
                println!("{place} {key}: {value}");
            }
        } else {
            println!("{}", row.map(|(_, value)| value).join(", "));
        }
    }
}
