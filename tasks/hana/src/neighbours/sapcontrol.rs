//! `sapcontrol`: whether the processes of an instance run.
//!
//! Its exit codes are the trap: 3 is the good answer of `GetProcessList`.

use std::time::Duration;

use crate::call::{As, Call, Input};
use crate::error::{Reading, quoted, unclear};
use crate::system::System;

/// The exit codes. Source: sapagent internal/processmetrics/sapcontrol/sapcontrol.go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: the call succeeded; for `GetProcessList`: neither all processes run nor all are stopped.
    Ok,
    /// 1: the call failed, or a parameter is wrong; also when no sapstartsrv answers.
    Failed,
    /// 2: a `…Wait` or `Waitfor…` did not reach its state in time.
    TimedOut,
    /// 3: all processes are GREEN.
    AllGreen,
    /// 4: all processes are stopped.
    AllStopped,
    /// Any other: not documented.
    Undocumented(i32),
}

impl From<i32> for Exit {
    fn from(code: i32) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::Failed,
            2 => Self::TimedOut,
            3 => Self::AllGreen,
            4 => Self::AllStopped,
            code => Self::Undocumented(code),
        }
    }
}

/// A process of the list.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Process {
    /// Such as `hdbindexserver`.
    pub name: String,
    /// What sapcontrol says of it.
    pub light: Light,
    /// Such as `Running` or `Scheduled`.
    pub text: String,
}

/// The documented values of `dispstatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Light {
    /// It runs.
    Green,
    /// It starts, stops, or has a problem.
    Yellow,
    /// It failed.
    Red,
    /// It is stopped.
    Gray,
}

/// What the process list says of the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// All processes run.
    Running(Vec<Process>),
    /// All processes are stopped.
    Stopped,
    /// Some run and some do not.
    Partly(Vec<Process>),
    /// No sapstartsrv answers, for this reason: nothing is known of the processes.
    NoAnswer(String),
}

/// `GetProcessList`.
pub fn process_list(system: &System) -> Call {
    Call {
        purpose: "list the processes of the instance",
        source: "SUSE/shaptools shaptools/hana.py; sapagent internal/processmetrics/sapcontrol/sapcontrol.go",
        user: As::Adm,
        program: system.exe().join("sapcontrol"),
        arguments: ["-nr", &system.number.to_string(), "-function", "GetProcessList"]
            .map(str::to_owned)
            .to_vec(),
        input: Input::Nothing,
        timeout: Duration::from_secs(30),
    }
}

fn waiting(system: &System, purpose: &'static str, function: &str, seconds: u64) -> Call {
    Call {
        purpose,
        source: "community.sap_operations roles/sap_control; yast-hana-update doc/algorithm.md",
        user: As::Adm,
        program: system.exe().join("sapcontrol"),
        // StartWait and StopWait: how long it waits, and how often it looks, in seconds
        arguments: ["-nr", &system.number.to_string(), "-function", function, &seconds.to_string(), "2"]
            .map(str::to_owned)
            .to_vec(),
        input: Input::Nothing,
        // sapcontrol ends by itself before.
        timeout: Duration::from_secs(seconds + 120),
    }
}

/// `StartWait`: starts the instance and waits until all processes run.
pub fn start(system: &System) -> Call {
    waiting(system, "start the instance and wait", "StartWait", 2700)
}

/// `StopWait`: stops the instance and waits until all processes are stopped.
pub fn stop(system: &System) -> Call {
    waiting(system, "stop the instance and wait", "StopWait", 2700)
}

/// Reads the answer of [`start`] and [`stop`]. `Ok(false)`: the time was over.
pub fn waited(exit: Exit, text: &str) -> Reading<bool> {
    match exit {
        Exit::Ok => Ok(true),
        Exit::TimedOut => Ok(false),
        other => unclear(format!("sapcontrol ended with {other:?} and printed {}", quoted(text.trim()))),
    }
}

/// Reads the answer of `GetProcessList`. Where exit code and table contradict each other, nothing is certain.
pub fn state(exit: Exit, text: &str) -> Reading<State> {
    match exit {
        Exit::Failed => match body(text, "GetProcessList") {
            Ok(Body::Failed(reason)) => Ok(State::NoAnswer(reason)),
            _ => unclear(format!("sapcontrol ended with 1 and printed {}", quoted(text.trim()))),
        },
        Exit::Ok | Exit::AllGreen | Exit::AllStopped => {
            let processes = match body(text, "GetProcessList")? {
                Body::Table(lines) => table(&lines)?,
                Body::Failed(reason) => {
                    return unclear(format!("sapcontrol succeeded and printed FAIL: {}", quoted(&reason)));
                }
            };
            let all = |light| processes.iter().all(|process| process.light == light);
            match exit {
                Exit::AllGreen if all(Light::Green) => Ok(State::Running(processes)),
                Exit::AllStopped if all(Light::Gray) => Ok(State::Stopped),
                Exit::Ok if !all(Light::Green) && !all(Light::Gray) => Ok(State::Partly(processes)),
                _ => unclear("exit code and process list of sapcontrol contradict each other"),
            }
        }
        Exit::TimedOut => unclear("sapcontrol ended with 2, which GetProcessList does not"),
        Exit::Undocumented(code) => unclear(format!("sapcontrol ended with {code}, which is not documented")),
    }
}

enum Body<'a> {
    Table(Vec<&'a str>),
    Failed(String),
}

/// The frame of an answer: an empty line, the time, the function, `OK` or `FAIL: …`, then a table.
fn body<'a>(text: &'a str, function: &str) -> Reading<Body<'a>> {
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let time = lines.next().unwrap_or_default();
    let shape: String =
        time.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    if shape != "00.00.0000 00:00:00" {
        return unclear(format!(
            "an answer of sapcontrol begins with the time, and this is {}",
            quoted(time)
        ));
    }
    let name = lines.next().unwrap_or_default();
    if name != function {
        return unclear(format!("sapcontrol answers {} and not {function}", quoted(name)));
    }
    match lines.next().unwrap_or_default() {
        "OK" => Ok(Body::Table(lines.collect())),
        other => match other.strip_prefix("FAIL:") {
            Some(reason) => Ok(Body::Failed(reason.trim().to_owned())),
            None => unclear(format!("sapcontrol says {} and neither OK nor FAIL", quoted(other))),
        },
    }
}

fn table(lines: &[&str]) -> Reading<Vec<Process>> {
    const HEADER: [&str; 7] =
        ["name", "description", "dispstatus", "textstatus", "starttime", "elapsedtime", "pid"];
    let cells = |line: &str| line.split(',').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let Some((header, rows)) = lines.split_first() else {
        return unclear("sapcontrol printed no process list");
    };
    if cells(header) != HEADER {
        return unclear(format!("the process list has the columns {}", quoted(header)));
    }
    let mut processes = Vec::new();
    for row in rows {
        let [name, _, light, text, _, _, _] = cells(row).try_into().or_else(|_| {
            unclear(format!("a line of the process list has not seven cells: {}", quoted(row)))
        })?;
        let light = match light.as_str() {
            "GREEN" => Light::Green,
            "YELLOW" => Light::Yellow,
            "RED" => Light::Red,
            "GRAY" => Light::Gray,
            other => {
                return unclear(format!("the process {name} is {}, which is not documented", quoted(other)));
            }
        };
        processes.push(Process { name, light, text });
    }
    if processes.is_empty() {
        return unclear("the process list of sapcontrol is empty");
    }
    Ok(processes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(rows: &[&str]) -> String {
        let mut text =
            "\n21.11.2026 04:05:06\nGetProcessList\nOK\nname, description, dispstatus, textstatus, \
                        starttime, elapsedtime, pid\n"
                .to_owned();
        for row in rows {
            text.push_str(row);
            text.push('\n');
        }
        text
    }

    const DAEMON: &str = "hdbdaemon, HDB Daemon, GREEN, Running, 2026 11 20 22:00:00, 6:05:06, 4242";
    const NAMES: &str = "hdbnameserver, HDB Nameserver, GREEN, Running, 2026 11 20 22:00:02, 6:05:04, 4260";
    const STARTING: &str =
        "hdbindexserver, HDB Indexserver-HDB, YELLOW, Initializing, 2026 11 21 04:05:00, 0:00:06, 99";
    const STOPPED: &str = "hdbdaemon, HDB Daemon, GRAY, Stopped, , , 0";

    #[test]
    fn every_documented_exit_code() {
        for (code, exit) in [
            (0, Exit::Ok),
            (1, Exit::Failed),
            (2, Exit::TimedOut),
            (3, Exit::AllGreen),
            (4, Exit::AllStopped),
            (5, Exit::Undocumented(5)),
            (-1, Exit::Undocumented(-1)),
        ] {
            assert_eq!(Exit::from(code), exit);
        }
    }

    #[test]
    fn a_wait_ends_or_times_out() {
        assert_eq!(waited(Exit::Ok, ""), Ok(true));
        assert_eq!(waited(Exit::TimedOut, ""), Ok(false));
        for exit in [Exit::Failed, Exit::AllGreen, Exit::AllStopped, Exit::Undocumented(9)] {
            assert!(waited(exit, "").is_err());
        }
    }

    #[test]
    fn three_is_healthy() {
        let Ok(State::Running(processes)) = state(Exit::AllGreen, &answer(&[DAEMON, NAMES])) else {
            panic!()
        };
        assert_eq!(processes.len(), 2);
        assert_eq!(state(Exit::AllStopped, &answer(&[STOPPED])), Ok(State::Stopped));
        let Ok(State::Partly(processes)) = state(Exit::Ok, &answer(&[DAEMON, STARTING])) else { panic!() };
        let slow = processes.iter().find(|process| process.light != Light::Green).unwrap();
        assert_eq!((slow.name.as_str(), slow.text.as_str()), ("hdbindexserver", "Initializing"));
        let refused = "\n21.11.2026 04:05:06\nGetProcessList\nFAIL: NIECONN_REFUSED (Connection refused)\n";
        assert_eq!(
            state(Exit::Failed, refused),
            Ok(State::NoAnswer("NIECONN_REFUSED (Connection refused)".to_owned()))
        );
    }

    #[test]
    fn what_is_not_understood_is_no_state() {
        let green = answer(&[DAEMON, NAMES]);
        let odd = [
            (Exit::Ok, green.clone()),
            (Exit::AllStopped, green.clone()),
            (Exit::AllGreen, answer(&[DAEMON, STARTING])),
            (Exit::AllGreen, answer(&[])),
            (Exit::AllGreen, String::new()),
            (Exit::AllGreen, "OK".to_owned()),
            (Exit::AllGreen, green.replace("GREEN", "BLUE")),
            (Exit::AllGreen, green.replace("dispstatus", "status")),
            (Exit::AllGreen, green.replace("GetProcessList", "StartSystem")),
            (Exit::AllGreen, green.replace(", 4242", "")),
            (Exit::AllGreen, green.replace("OK\n", "OKAY\n")),
            (Exit::AllGreen, "\n21.11.2026 04:05:06\nGetProcessList\nFAIL: no\n".to_owned()),
            (Exit::Failed, "something".to_owned()),
            (Exit::Failed, green.clone()),
            (Exit::TimedOut, green.clone()),
            (Exit::Undocumented(7), green.clone()),
        ];
        for (exit, text) in odd {
            assert!(state(exit, &text).is_err(), "{exit:?} {text}");
        }
    }
}
