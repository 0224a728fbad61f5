//! Secrets from Vault (promise P7): they reach the step and nothing else, whatever Vault, agent and executor go through.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hostler_testkit::{Certificates, DEFAULT_TIMEOUT, FaultMode, Host, ROLE_ID, Vault, eventually, signal};
use nix::sys::signal::Signal;
use serde_json::json;

const TASK: &str = "version: 1
timeout: 60s
secrets:
  password: {path: \"secret/data/app/{{ host }}\", field: password}
  user: {path: \"secret/data/app/{{ host }}\", field: user}
  old: {path: kv1/app/old, field: key}
";

/// Says what it sees, but not the values; waits where it is told to.
const LOOK: &str = "#!/bin/sh
set -e
cd \"$HOSTLER_SECRETS\"
{ stat -c '%a %u %n' . password user old; cat password; echo; cat old; echo; cat; } > EFFECTS.$HOSTLER_ORDER
echo \"$HOSTLER_SECRETS\" > EFFECTS.folder
ulimit -c >> EFFECTS.folder
";

fn fill(vault: &Vault, host: &str) {
    vault.put(&format!("app/{host}"), json!({"password": "first-one", "user": "scott-tiger"}));
    vault.put(&format!("app/{host}"), json!({"password": "correct horse", "user": "scott-tiger"}));
    vault.put_v1("app/old", json!({"key": "battery staple"}));
}

fn seen(host: &Host, name: &str) -> String {
    fs::read_to_string(host.path(&format!("effects.{name}"))).unwrap_or_default()
}

/// All secret files of a host, by their paths.
fn secret_files(host: &Host) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["run/secrets", "run/grants"] {
        walk(&host.path(folder), &mut |path| found.push(path.to_owned()));
    }
    found
}

fn walk(folder: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, each);
        } else {
            each(&path);
        }
    }
}

fn with_secrets(host: &Host) {
    let steps = "steps:\n  - name: look\n    run: [./look]\n    effect: repeatable\n    stdin: '<p>{{ secrets.password | e }}</p>'\n";
    host.task("t", &format!("name: t\n{TASK}{steps}"), &[("look", LOOK)]);
}

#[test]
fn p7_a_step_finds_its_secrets_in_files_and_on_its_standard_input_and_nowhere_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::make(folder.path());
    let vault = Vault::start_tls(&certificates);
    fill(&vault, "v1");
    let mut host = Host::on_vault("v1", &vault, &format!("ca_file: {}", certificates.ca.display()));
    with_secrets(&host);
    host.order("o", "task: t");
    host.start();
    host.wait_for("o", &["succeeded"]);
    let text = seen(&host, "o");
    let owner = fs::metadata(host.path("state")).expect("the state").uid();
    for (mode, name) in [("500", "."), ("400", "password"), ("400", "user"), ("400", "old")] {
        assert!(text.contains(&format!("{mode} {owner} {name}\n")), "{text}");
    }
    assert!(text.ends_with("correct horse\nbattery staple\n<p>correct horse</p>"), "{text}");
    let about = seen(&host, "folder");
    let mut lines = about.lines();
    assert!(!Path::new(lines.next().expect("the folder")).exists(), "gone with the step");
    assert_eq!(lines.next(), Some("0"), "no core dumps");
    assert_eq!(secret_files(&host), Vec::<PathBuf>::new());
    // The version that was read stands in the run's record.
    let record = fs::read_to_string(host.runs()[0].join("secrets")).expect("the record");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["versions"], json!({"password": 2, "user": 2}));
    // One read for the two fields of one path, and the run's token was given up: only the agent's lives.
    eventually(DEFAULT_TIMEOUT, || {
        if vault.tokens() == 1 { Ok(()) } else { Err("the run's token lives".into()) }
    });
    let reads = vault.requests().iter().filter(|line| *line == "GET /v1/secret/data/app/v1").count();
    assert_eq!(reads, 1);
}

#[test]
fn p7_no_vault_makes_a_run_wait_and_never_fail() {
    let mut vault = Vault::start();
    fill(&vault, "v2");
    let mut host = Host::on_vault("v2", &vault, "");
    with_secrets(&host);
    let ailments = [
        ("down", FaultMode::None, "cannot be reached"),
        ("sealed", FaultMode::None, "sealed"),
        ("later", FaultMode::TooMany(1), "429"),
        ("busy", FaultMode::Status(429, "rate limit quota exceeded".into()), "429"),
        (
            "starting",
            FaultMode::Status(500, "local node not active but active cluster node not found".into()),
            "500",
        ),
        ("garbage", FaultMode::Garbage, "the server is not Vault"),
        ("nothing", FaultMode::Silent, "no answer in time"),
        ("half", FaultMode::Half, "cannot be reached"),
    ];
    for (name, ailment, word) in ailments {
        if name == "down" {
            vault.stop();
        }
        vault.seal(name == "sealed");
        vault.ail(ailment);
        host.start();
        host.order(name, "task: t");
        host.wait_until(name, &format!("to wait for Vault, which says {word}"), |report| {
            report["reason"] == "vault" && report["message"].to_string().contains(word)
        });
        eventually(DEFAULT_TIMEOUT, || {
            let report = host.agent_report().unwrap_or_default().to_string();
            if report.contains("vault: ") { Ok(()) } else { Err(report) }
        });
        if name == "down" {
            vault.start_again();
        }
        vault.seal(false);
        vault.ail(FaultMode::None);
        host.wait_for(name, &["succeeded"]);
        host.kill();
    }
}

#[test]
fn p7_a_vault_that_goes_away_between_the_agent_and_the_executor_costs_a_wait() {
    let vault = Vault::start();
    fill(&vault, "v3");
    let mut host = Host::on_vault("v3", &vault, "");
    with_secrets(&host);
    host.start();
    eventually(DEFAULT_TIMEOUT, || if vault.tokens() == 1 { Ok(()) } else { Err("no login".into()) });
    // Whatever the agent holds is dead: it logs in once more, and the run starts.
    vault.revoke_all();
    host.order("o", "task: t");
    host.wait_for("o", &["succeeded"]);
    // Sealed after the login: the run waits, and the operator reads why.
    vault.seal(true);
    host.order("p", "task: t");
    host.wait_until("p", "to wait for a sealed Vault", |report| {
        report["reason"] == "vault" && report["message"].to_string().contains("is sealed")
    });
    vault.seal(false);
    host.wait_for("p", &["succeeded"]);
}

#[test]
fn p7_what_is_no_secret_for_this_run_is_told_before_anything_is_started() {
    let vault = Vault::start_with_database();
    vault.put("app/v4", json!({"password": "short", "user": "scott-tiger"}));
    vault.put_v1("app/old", json!({"key": "battery staple"}));
    let mut host = Host::on_vault("v4", &vault, "");
    let steps = "steps: [{name: a, run: [/bin/true]}]\n";
    let task = |name: &str, secret: &str| {
        host.task(name, &format!("name: {name}\nversion: 1\nsecrets: {{x: {{{secret}}}}}\n{steps}"), &[]);
    };
    task("short", "path: secret/data/app/v4, field: password");
    task("allowed", "path: secret/data/app/v4, field: password, allow_short_secret: true");
    task("field", "path: secret/data/app/v4, field: nothing");
    task("missing", "path: secret/data/app/none, field: x");
    task("denied", "path: secret/data/other, field: x");
    task("lease", "path: database/creds/app, field: password");
    vault.lease_ttl(60, Some(60));
    host.start();
    for (name, phase, word) in [
        ("short", "failed", "fewer than 6 bytes"),
        ("field", "failed", "no field `nothing`"),
        ("missing", "failed", "secret/data/app/none"),
        ("denied", "failed", "forbids to read secret/data/other"),
        ("lease", "failed", "lasts 60 s, the run may take 3600 s"),
        ("allowed", "succeeded", ""),
    ] {
        host.order(name, &format!("task: {name}"));
        let report = host.wait_for(name, &["failed", "succeeded"]);
        assert_eq!(report["phase"], phase, "{report}");
        assert!(report["error"].to_string().contains(word), "{report}");
    }
    eventually(
        DEFAULT_TIMEOUT,
        || if vault.leases().is_empty() { Ok(()) } else { Err("a lease lives".into()) },
    );
}

#[test]
fn p7_a_lease_lives_as_long_as_its_run() {
    let vault = Vault::start_with_database();
    let mut host = Host::on_vault("v5", &vault, "");
    let yaml = "name: t\nversion: 1\ntimeout: 60s\nsecrets:\n  u: {path: database/creds/app, field: username}\n  \
                p: {path: database/creds/app, field: password}\nsteps:\n  - {name: a, run: [./wait]}\n";
    host.task(
        "t",
        yaml,
        &[(
            "wait",
            "#!/bin/sh\ncat $HOSTLER_SECRETS/u > EFFECTS\nuntil [ -e EFFECTS.go ]; do sleep 0.05; done\n",
        )],
    );
    host.order("o", "task: t");
    host.start();
    eventually(DEFAULT_TIMEOUT, || if host.path("effects").exists() { Ok(()) } else { Err(host.log_tail()) });
    assert_eq!(vault.leases().len(), 1, "one user for both fields");
    fs::write(host.path("effects.go"), "").expect("the word");
    host.wait_for("o", &["succeeded"]);
    eventually(DEFAULT_TIMEOUT, || {
        if vault.leases().is_empty() { Ok(()) } else { Err("the lease lives".into()) }
    });
}

#[test]
fn p7_a_wrapped_secret_id_is_unwrapped_once_and_a_stolen_one_is_told() {
    let vault = Vault::start();
    fill(&vault, "v6");
    let mut host = Host::on_dir("v6");
    fs::write(host.path("role_id"), ROLE_ID).expect("the role id");
    fs::write(host.path("wrapped"), "s.WrapToken000000000000023\n").expect("the wrapped secret id");
    let at = |name: &str| host.path(name).display().to_string();
    host.configure(&format!(
        "vault:\n  address: {}\n  auth: {{approle: {{role_id_file: {}, secret_id_file: {}, wrapped: true}}}}",
        vault.address(),
        at("role_id"),
        at("wrapped"),
    ));
    with_secrets(&host);
    host.start();
    host.order("o", "task: t");
    // Nobody wrapped it, or somebody was there before: both look the same.
    let report = host.wait_for("o", &["waiting vault"]);
    let report = if report.to_string().contains("stolen") {
        report
    } else {
        host.wait_until("o", "the theft told", |report| report.to_string().contains("stolen"))
    };
    assert!(report.to_string().contains("unwrapped by another client"), "{report}");
    let wrapping = vault.wrapped_secret_id();
    fs::write(host.path("wrapped"), format!("{wrapping}\n")).expect("the wrapped secret id");
    host.wait_for("o", &["succeeded"]);
    let unwraps = |vault: &Vault| vault.requests().iter().filter(|line| line.ends_with("/unwrap")).count();
    assert_eq!(unwraps(&vault), 2, "each token once");
    vault.revoke_all();
    host.order("p", "task: t");
    host.wait_for("p", &["succeeded"]);
    assert_eq!(unwraps(&vault), 2, "the secret id is remembered");
}

#[test]
fn p7_a_killed_executor_leaves_no_secret_behind() {
    let vault = Vault::start();
    fill(&vault, "v7");
    let mut host = Host::on_vault("v7", &vault, "");
    let yaml = format!("name: t\n{TASK}steps:\n  - {{name: a, run: [./wait], effect: once}}\n");
    host.task("t", &yaml, &[("wait", "#!/bin/sh\necho > EFFECTS.up\nexec sleep 600\n")]);
    host.order("o", "task: t");
    host.start();
    eventually(
        DEFAULT_TIMEOUT,
        || if host.path("effects.up").exists() { Ok(()) } else { Err(host.log_tail()) },
    );
    let files = secret_files(&host);
    assert_eq!(files.len(), 5, "three secrets, Ansible's file and the report: {files:?}");
    // Both at once, as memory that runs out may do; the agent finds the rest at its next start.
    let executors = host.executors();
    host.kill();
    executors.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    assert!(!executors.is_empty());
    assert!(!secret_files(&host).is_empty(), "nobody was there to remove them");
    host.start();
    eventually(DEFAULT_TIMEOUT, || match secret_files(&host) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    host.wait_for("o", &["needs_operator"]);
    assert_eq!(secret_files(&host), Vec::<PathBuf>::new());
}

/// Prints what it is given in every way that it knows, in one piece and byte by byte.
const CANARY: &str = r#"#!/usr/bin/env python3
import base64, json, os, shlex, sys, time, urllib.parse
folder = os.environ["HOSTLER_SECRETS"]
secret = open(folder + "/canary", "rb").read()
text = secret.decode()
forms = [secret]
for before in (b"", b"x", b"xy"):
    forms += [base64.b64encode(before + secret + b"tail"), base64.urlsafe_b64encode(before + secret)]
forms += [f.encode() for f in (
    urllib.parse.quote(text), urllib.parse.quote(text, safe=""), urllib.parse.quote_plus(text),
    json.dumps(text), json.dumps(text, ensure_ascii=False), shlex.quote(text), secret.hex(),
)]
for out in (sys.stdout.buffer, sys.stderr.buffer):
    for form in forms:
        out.write(b"<" + form + b">\n")
        out.flush()
    for form in forms:
        for size in (1, 3, 7):
            for at in range(0, len(form), size):
                out.write(form[at:at + size])
                out.flush()
            out.write(b"\n")
with open(os.environ["HOSTLER_REPORT"], "a") as report:
    for form in forms:
        said = form.decode(errors="replace")
        report.write(json.dumps({"message": "it is " + said}) + "\n")
        report.write(json.dumps({"output": {"o": said}}) + "\n")
    report.write(json.dumps({"message": "last: " + text}) + "\n")
open("EFFECTS.printed", "w").close()
while not os.path.exists("EFFECTS.go"):
    time.sleep(0.02)
sys.exit(text + " is the error message")
"#;

#[test]
fn p7_a_canary_is_found_nowhere() {
    let vault = Vault::start();
    let mut random = [0; 12];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).expect("random bytes");
    let core = hex::encode(random);
    let secret = format!("p'ä \"$w/<&\\+{core}=~end");
    vault.put("app/canary", json!({"value": secret}));
    let mut host = Host::on_vault("v8", &vault, "");
    let yaml = "name: t\nversion: 1\ntimeout: 60s\nsecrets: {canary: {path: secret/data/app/canary, field: value}}\n\
                steps: [{name: a, run: [./canary], stdin: '{{ secrets.canary }}'}]\n";
    host.task("t", yaml, &[("canary", CANARY)]);
    host.set_env("HOSTLER_LOG", "trace");
    host.order("o", "task: t");
    host.start();
    let needles = needles(&core);
    let mut sampled = 0;
    eventually(DEFAULT_TIMEOUT, || {
        sampled += sample(&needles);
        if host.path("effects.printed").exists() { Ok(()) } else { Err(host.log_tail()) }
    });
    sampled += sample(&needles);
    assert!(sampled > 10, "processes were looked at");
    let up = host.executors();
    assert_eq!(up.len(), 1);
    let inherited = fs::read_dir(format!("/proc/{}/fd", up[0])).into_iter().flatten().flatten();
    let open: Vec<_> = inherited.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    assert!(!open.iter().any(|link| link.to_string_lossy().contains("memfd")), "{open:?}");
    fs::write(host.path("effects.go"), "").expect("the word");
    let report = host.wait_for("o", &["failed"]);
    assert!(report.to_string().contains("[redacted]"), "{report}");
    host.stop();
    let mut files = 0;
    walk(&host.path("."), &mut |path| {
        files += 1;
        let bytes = fs::read(path).unwrap_or_default();
        for needle in &needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{} holds {needle}", path.display());
        }
    });
    assert!(files > 10, "the state, the store and the log were looked at");
    let output = fs::read_to_string(host.runs()[0].join("output")).expect("the output");
    assert!(
        output.contains("<[redacted]>") && output.contains("[redacted] is the error message"),
        "{output}"
    );
}

#[test]
fn p7_no_piece_of_a_secret_shows_where_a_torrent_of_output_was_cut() {
    let vault = Vault::start();
    let secret = "Xq7-Zr2-Wk9-Vj4-Tm6-Ps8";
    vault.put("app/canary", json!({"value": secret}));
    let mut host = Host::on_vault("v17", &vault, "");
    let yaml = "name: t\nversion: 1\ntimeout: 60s\nsecrets: {canary: {path: secret/data/app/canary, field: value}}\n\
                steps: [{name: a, run: [./torrent]}]\n";
    let torrent = "#!/bin/sh\nyes \"$(cat \"$HOSTLER_SECRETS/canary\")\" | head -c 60000000\necho the end\n";
    host.task("t", yaml, &[("torrent", torrent)]);
    host.start();
    host.order("o", "task: t");
    host.wait_for("o", &["succeeded"]);
    let mut text = String::new();
    for part in ["output", "output.prev", "output.last"] {
        text += &fs::read_to_string(host.runs()[0].join(part)).unwrap_or_default();
    }
    assert!(text.contains(" bytes were left out here]\n") && text.ends_with("the end\n"), "{}", text.len());
    for piece in secret.as_bytes().windows(4).map(String::from_utf8_lossy) {
        assert!(!text.contains(&*piece), "{piece}");
    }
    assert!(text.len() < 3 << 20, "{}", text.len());
}

/// What gives the canary away, in whatever encoding; and the tokens.
fn needles(core: &str) -> Vec<String> {
    let hex = hex::encode(core.as_bytes());
    let mut all = vec![
        core.to_owned(),
        hex,
        "s.ChildToken".to_owned(),
        "s.HostToken".to_owned(),
        "s.WrapToken".to_owned(),
    ];
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for before in 0..3 {
        // Base64 of the core's middle, at each of the three places.
        let bits: String = core.bytes().skip(before).take(18).map(|byte| format!("{byte:08b}")).collect();
        let groups =
            (0..bits.len() / 6).map(|at| usize::from_str_radix(&bits[at * 6..at * 6 + 6], 2).expect("bits"));
        all.push(groups.map(|group| char::from(letters[group])).collect());
    }
    all
}

/// Looks at every process; the double's own, which is this one, knows the secret by right.
fn sample(needles: &[String]) -> usize {
    let mut count = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        count += 1;
        for name in ["cmdline", "environ"] {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            for needle in needles {
                let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
                assert!(!found, "process {pid} has {needle} in its {name}");
            }
        }
    }
    count
}

#[test]
fn check_tells_who_the_agent_is_in_vault_and_what_its_tasks_may_read() {
    let vault = Vault::start();
    let mut host = Host::on_vault("v9", &vault, "");
    with_secrets(&host);
    let steps = "steps: [{name: a, run: [/bin/true]}]\n";
    host.task(
        "u",
        &format!("name: u\nversion: 1\nsecrets: {{x: {{path: secret/data/b, field: x}}}}\n{steps}"),
        &[],
    );
    let (_, said) = host.hostler(&["check"]);
    for line in [
        "approle (role host)",
        // Cut to whole seconds: 3600 or 3599.
        "with the policies agent, default, for 3",
        "may make tokens for runs",
        "may read secret password of task t: secret/data/app/v9",
        "may not read secret x of task u: secret/data/b",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(vault.tokens(), 0, "the token for the question was given up");
    assert!(!vault.requests().iter().any(|line| line.contains("/secret/")), "nothing was read");
    vault.seal(true);
    let (_, said) = host.hostler(&["check"]);
    assert!(said.contains("is sealed"), "{said}");
    host.stop();
}

#[test]
fn the_agents_token_is_renewed_and_a_new_login_comes_before_its_longest_life_ends() {
    let vault = Vault::start();
    fill(&vault, "v10");
    vault.token_ttl(3, Some(5));
    let mut host = Host::on_vault("v10", &vault, "");
    with_secrets(&host);
    host.start();
    let count = |end: &str| vault.requests().iter().filter(|line| line.ends_with(end)).count();
    eventually(DEFAULT_TIMEOUT, || {
        let (logins, renewals) = (count("/approle/login"), count("/renew-self"));
        if logins >= 3 && renewals >= 2 {
            Ok(())
        } else {
            Err(format!("{logins} logins, {renewals} renewals"))
        }
    });
    let report = host.agent_report().expect("the agent's report").to_string();
    assert!(!report.contains("vault: "), "nobody has to look at that: {report}");
    host.order("o", "task: t");
    host.wait_for("o", &["succeeded"]);
}

#[test]
fn a_token_file_is_read_again_when_its_token_is_dead() {
    let vault = Vault::start();
    fill(&vault, "v11");
    let mut host = Host::on_dir("v11");
    let file = host.path("token");
    host.configure(&format!(
        "vault: {{address: \"{}\", auth: {{token_file: {}}}}}",
        vault.address(),
        file.display()
    ));
    with_secrets(&host);
    host.start();
    host.order("o", "task: t");
    host.wait_until("o", "to wait for the file", |report| {
        report["message"].to_string().contains("there is no file")
    });
    vault.token("token-of-the-host-1", &["agent", "default"], 3600);
    fs::write(&file, "token-of-the-host-1\n").expect("the token");
    host.wait_for("o", &["succeeded"]);
    vault.revoke_all();
    vault.token("token-of-the-host-2", &["agent", "default"], 3600);
    fs::write(&file, "token-of-the-host-2\n").expect("the token");
    host.order("p", "task: t");
    host.wait_for("p", &["succeeded"]);
}

#[test]
fn each_epoch_reads_the_version_that_the_first_one_read() {
    let vault = Vault::start();
    fill(&vault, "v12");
    let mut host = Host::on_vault("v12", &vault, "");
    let yaml = format!("name: t\n{TASK}steps:\n  - {{name: a, run: [./twice], effect: repeatable}}\n");
    let twice = "#!/bin/sh\ncat $HOSTLER_SECRETS/password >> EFFECTS.read\necho $HOSTLER_EPOCH >> EFFECTS.read\n\
                 [ $HOSTLER_EPOCH != 1 ] || exec sleep 600\n";
    host.task("t", &yaml, &[("twice", twice)]);
    host.order("o", "task: t");
    host.start();
    let read = |host: &Host| fs::read_to_string(host.path("effects.read")).unwrap_or_default();
    eventually(DEFAULT_TIMEOUT, || if read(&host).ends_with("1\n") { Ok(()) } else { Err(host.log_tail()) });
    vault.put("app/v12", json!({"password": "changed meanwhile", "user": "scott-tiger"}));
    host.executors().iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    host.wait_for("o", &["succeeded"]);
    assert_eq!(read(&host), "correct horse1\ncorrect horse2\n");
}

#[test]
fn a_playbook_has_the_secrets_as_data_and_its_output_is_filtered() {
    let vault = Vault::start();
    fill(&vault, "v13");
    vault.put_v1("app/old", json!({"key": "{{ 1 + 1 }} staple"}));
    let mut host = Host::on_vault("v13", &vault, "");
    let play = "- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.copy:\n        \
                content: \"{{ secrets.password }}|{{ secrets.old }}\"\n        dest: EFFECTS.copied\n    \
                - ansible.builtin.debug:\n        msg: \"it is {{ secrets.password }}\"\n    \
                - ansible.builtin.script: say.sh\n    - ansible.builtin.shell: env >EFFECTS.env\n";
    host.task(
        "t",
        &format!("name: t\n{TASK}steps:\n  - {{name: a, ansible: play.yml}}\n"),
        &[("play.yml", play), ("say.sh", "#!/bin/sh\necho \"$0\" >EFFECTS.script\n")],
    );
    host.order("o", "task: t");
    host.start();
    let report = host.wait_for("o", &["succeeded", "failed"]);
    let output = fs::read_to_string(host.runs()[0].join("output")).unwrap_or_default();
    assert_eq!(report["phase"], "succeeded", "{output}");
    let copied = fs::read_to_string(host.path("effects.copied")).expect("the copy");
    assert_eq!(copied, "correct horse|{{ 1 + 1 }} staple");
    // What Ansible writes, and what it reports, is on the memory of the secrets; a script can be started there.
    let secrets = host.path("run/secrets").display().to_string();
    assert!(seen(&host, "script").starts_with(&secrets), "{}", seen(&host, "script"));
    for name in ["ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP", "ANSIBLE_HOME", "HOSTLER_REPORT"] {
        let line = format!("{name}={secrets}/");
        assert!(seen(&host, "env").contains(&line), "{line}: {}", seen(&host, "env"));
    }
    assert!(output.contains("it is [redacted]") && !output.contains("correct horse"), "{output}");
}

#[test]
fn an_agent_that_may_not_make_tokens_says_so_and_does_not_go_round() {
    let vault = Vault::start();
    fill(&vault, "v14");
    vault.policy("agent", &[("secret/data/app/*", &["read"]), ("kv1/app/*", &["read"])]);
    let mut host = Host::on_vault("v14", &vault, "");
    with_secrets(&host);
    host.order("o", "task: t");
    host.start();
    host.wait_until("o", "to name the right that is missing", |report| {
        report["reason"] == "vault" && report["message"].to_string().contains("update on auth/token/create")
    });
    let asked = || vault.requests().iter().filter(|line| line.ends_with("/token/create")).count();
    eventually(DEFAULT_TIMEOUT, || if asked() >= 3 { Ok(()) } else { Err(format!("{} attempts", asked())) });
    assert!(vault.requests().len() < 20, "{:?}", vault.requests());
    vault.policy(
        "agent",
        &[("secret/data/app/*", &["read"]), ("kv1/app/*", &["read"]), ("auth/token/create", &["update"])],
    );
    host.wait_for("o", &["succeeded"]);
}
