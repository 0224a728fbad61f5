//! How programs are started: time-outs, bounds, secrets, and what is left behind.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hostler_hana::call::{As, Call, Input, Password};
use hostler_hana::runner::{End, Runner};
use hostler_hana::secret::Secrets;
use hostler_hana::system::System;

use crate::host::Host;
use crate::played::until;

fn runner(host: &Host, secrets: Option<PathBuf>) -> Runner {
    let system = System {
        sid: "HDB".parse().unwrap(),
        number: "00".parse().unwrap(),
        root: host.path().to_owned(),
        sapmnt: "/hana/shared".into(),
    };
    Runner::new(system, Secrets::new(secrets), None)
}

fn call(user: As, input: Input, timeout: Duration) -> Call {
    let arguments = vec!["a b".to_owned(), "$HOME".to_owned()];
    Call { purpose: "test", source: "test", user, program: "/tool".into(), arguments, input, timeout }
}

fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A process that nobody has waited for yet has ended all the same.
    !stat.is_empty() && !stat.contains(") Z ")
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn arguments_environment_and_exit_codes() {
    let host = Host::empty();
    host.script("tool", "printf '%s|' \"$1\" \"$2\" \"$SAPSYSTEMNAME\" \"$DIR_INSTANCE\" \"${SECRET-none}\"; cat; echo oops >&2; exit 149");
    let outcome = runner(&host, None).run(&call(As::Adm, Input::Nothing, LONG)).unwrap();
    let instance = host.path().join("usr/sap/HDB/HDB00");
    assert_eq!(outcome.out, format!("a b|$HOME|HDB|{}|none|", instance.display()));
    assert_eq!((outcome.end, outcome.err.as_str(), outcome.cut), (End::Code(149), "oops\n", false));
    host.script("tool", "kill -9 $$");
    assert_eq!(runner(&host, None).run(&call(As::Myself, Input::Nothing, LONG)).unwrap().end, End::Signal(9));
    fs::remove_file(host.path().join("tool")).unwrap();
    assert_eq!(runner(&host, None).run(&call(As::Myself, Input::Nothing, LONG)).unwrap_err().code(), 9);
}

#[test]
fn a_secret_goes_by_standard_input_alone() {
    let host = Host::empty();
    host.file("secrets/sidadm_password", "Canary]]>1\n");
    let seen = host.path().join("seen");
    host.script(
        "tool",
        &format!(
            "cat >'{0}'; tr '\\0' '\\n' </proc/$$/cmdline >>'{0}.args'; env >>'{0}.args'",
            seen.display()
        ),
    );
    let input = Input::PasswordXml(vec![Password { element: "password", secret: "sidadm_password" }]);
    let runner = runner(&host, Some(host.path().join("secrets")));
    let call = call(As::Adm, input, LONG);
    assert_eq!(runner.run(&call).unwrap().end, End::Code(0));
    assert!(
        fs::read_to_string(&seen)
            .unwrap()
            .contains("<password><![CDATA[Canary]]]]><![CDATA[>1]]></password>")
    );
    let arguments = fs::read_to_string(host.path().join("seen.args")).unwrap();
    assert!(arguments.contains("a b") && !arguments.contains("Canary"), "{arguments}");
    assert!(!format!("{call:?}{call}").contains("Canary"));
    // A program that does not read its input is not waited for.
    host.script("tool", "exec 0<&-; exit 7");
    assert_eq!(runner.run(&call).unwrap().end, End::Code(7));
}

#[test]
fn a_time_out_ends_the_whole_group() {
    let host = Host::empty();
    let pids = host.path().join("pids");
    host.script("tool", &format!("sleep 600 & echo $! >'{0}'; echo $$ >>'{0}'; wait", pids.display()));
    let outcome = runner(&host, None).run(&call(As::Myself, Input::Nothing, Duration::from_secs(2))).unwrap();
    assert_eq!(outcome.end, End::TimedOut);
    let pids = fs::read_to_string(&pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    until("the group ends", || !pids.lines().any(alive));
}

#[test]
fn output_has_a_bound_and_what_is_left_behind_holds_nobody_up() {
    let host = Host::empty();
    host.script("tool", "head -c 3000000 /dev/zero | tr '\\0' x; exit 0");
    let outcome = runner(&host, None).run(&call(As::Myself, Input::Nothing, LONG)).unwrap();
    assert_eq!((outcome.end, outcome.out.len(), outcome.cut), (End::Code(0), 1024 * 1024, true));
    assert!(outcome.code().is_err(), "no parser sees half a text");
    let pid = host.path().join("pid");
    host.script("tool", &format!("sleep 600 & echo $! >'{}'; echo done", pid.display()));
    let begun = Instant::now();
    let outcome = runner(&host, None).run(&call(As::Myself, Input::Nothing, LONG)).unwrap();
    assert_eq!((outcome.end, outcome.out.as_str()), (End::Code(0), "done\n"));
    assert!(begun.elapsed() < LONG);
    let pid = fs::read_to_string(&pid).unwrap();
    assert!(alive(pid.trim()), "what a program leaves behind when it ends well is its own");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.trim().parse().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

#[test]
fn a_signal_ends_what_was_started() {
    let host = Host::healthy();
    let pid = host.path().join("pid");
    let ended = host.path().join("ended");
    host.script(
        "usr/bin/timedatectl",
        &format!(
            "trap 'echo $$ >{}; exit' TERM; echo $$ >'{}'; while :; do sleep 1; done",
            ended.display(),
            pid.display()
        ),
    );
    let mut child = host
        .command(&["check"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("it is started", || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
    let number = i32::try_from(child.id()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(number), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let pid = fs::read_to_string(&pid).unwrap();
    until("what was started ends", || !alive(pid.trim()));
    assert_eq!(fs::read_to_string(&ended).unwrap(), pid, "it has the time to end by itself");
    assert!(!host.calls().contains("getent"), "nothing more is started: {}", host.calls());
}
