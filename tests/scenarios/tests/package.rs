//! The installed tasks `hello` and `package`, their scripts run as the executor runs them.
//!
//! `package` works here on a root of its own with a repository of three versions of one small package, made with
//! `dpkg-deb`: apt and dpkg are the machine's, its packages are not touched. It needs root, as dpkg does.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use hostler::catalog::{Catalog, Loaded, trust::OwnerRule};
use hostler::domain::task::Work;
use hostler::domain::template::{Context, Template, render};
use hostler_testkit::install_shipped;
use serde_json::{Value, json};

const RUN: &str = "01JD8000000000000000000001";

fn installed(name: &str) -> Loaded {
    // The tests of this file share one folder, below the build's.
    static TASKS: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shipped-tasks");
        for name in ["hello", "package", "hostler-upgrade"] {
            install_shipped(name, &folder.join(name));
        }
        folder.canonicalize().unwrap()
    });
    let tasks = TASKS.clone();
    Catalog::load(&[tasks], OwnerRule::of_process()).get(name).unwrap().clone()
}

/// Runs one command of a task: `probe`, `verify`, or `run`, `done`, `undo` of its only step.
fn command(task: &Loaded, which: &str, params: &Value, dir: &Path, env: &[(&str, &Path)]) -> Output {
    let params = task.task.schema.check(params).unwrap();
    let step = &task.task.steps[0];
    let argv: &[Template] = match (which, &step.work) {
        ("probe", _) => &task.task.probe.as_ref().unwrap().run,
        ("verify", _) => &task.task.verify.as_ref().unwrap().run,
        ("done", _) => &step.check.as_ref().unwrap().run,
        ("undo", _) => &step.undo.as_ref().unwrap().run,
        (_, Work::Run(run)) => run,
        (_, Work::Ansible(_)) => panic!("not a playbook"),
    };
    let context = Context { params: &params, host: "h", order: "o", run: RUN };
    let argv: Vec<String> = argv.iter().map(|template| render(template, &context).unwrap()).collect();
    let report = dir.join("report");
    fs::write(&report, "").unwrap();
    Command::new(task.folder.join(&argv[0]))
        .args(&argv[1..])
        .current_dir(&task.folder)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", dir)
        .env("HOSTLER_RUN", RUN)
        .env("HOSTLER_REPORT", report)
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

/// The outputs that a step gave, and its last message.
fn reported(dir: &Path) -> (Value, String) {
    let mut outputs = json!({});
    let mut message = String::new();
    for line in fs::read_to_string(dir.join("report")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        if let Some(output) = line["output"].as_object() {
            output.iter().for_each(|(key, value)| outputs[key] = value.clone());
        }
        message = line["message"].as_str().map_or(message, str::to_owned);
    }
    (outputs, message)
}

#[test]
fn hello_greets() {
    let dir = tempfile::tempdir().unwrap();
    let task = installed("hello");
    assert!(task.task.is_repeatable());
    let output = command(&task, "run", &json!({"name": "db1", "seconds": 0}), dir.path(), &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"Hello, db1!\n");
    assert_eq!(reported(dir.path()), (json!({"greeting": "Hello, db1!"}), "done".to_owned()));
    assert!(task.task.schema.check(&json!({"name": "\"; reboot"})).is_err());
}

/// A root with an empty package database and a repository.
struct Host {
    dir: tempfile::TempDir,
    task: Loaded,
}

impl Host {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "dpkg needs root: run this test as root or in a container");
        let dir = tempfile::tempdir().unwrap();
        let host = Self { task: installed("package"), dir };
        for folder in [
            "var/lib/dpkg/updates",
            "var/lib/dpkg/info",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "var/log/apt",
            "tmp",
            "usr",
        ] {
            fs::create_dir_all(host.path("root").join(folder)).unwrap();
        }
        fs::write(host.path("root/var/lib/dpkg/status"), "").unwrap();
        let (root, repo) = (host.path("root"), host.path("repo"));
        fs::create_dir(&repo).unwrap();
        fs::write(
            root.join("etc/apt/sources.list"),
            format!("deb [trusted=yes] file:{} ./\n", repo.display()),
        )
        .unwrap();
        let root = root.display();
        let config = format!(
            "Dir \"{root}/\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\nDir::Bin::methods \"/usr/lib/apt/methods\";\n\
             Dir::Bin::dpkg \"/usr/bin/dpkg\";\nDPkg::Options {{\"--root={root}\";}};\nAPT::Sandbox::User \"root\";\n"
        );
        fs::write(host.path("apt.conf"), config).unwrap();
        for version in ["1.0-1", "2.0-1", "3.0-1"] {
            host.build(version);
        }
        host.publish(&["1.0-1", "2.0-1"]);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn build(&self, version: &str) {
        let tree = self.path(&format!("build/{version}"));
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/hostler-test.conf"), format!("from {version}\n")).unwrap();
        fs::write(tree.join("DEBIAN/conffiles"), "/etc/hostler-test.conf\n").unwrap();
        let control = format!(
            "Package: hostler-test-one\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: a test\n"
        );
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        let made = Command::new("dpkg-deb")
            .args(["-b", "--root-owner-group"])
            .arg(&tree)
            .arg(self.deb(version))
            .output();
        assert!(made.unwrap().status.success());
    }

    fn deb(&self, version: &str) -> PathBuf {
        self.path(&format!("build/hostler-test-one_{version}_all.deb"))
    }

    /// What the repository offers from now on.
    fn publish(&self, versions: &[&str]) {
        let repo = self.path("repo");
        fs::remove_dir_all(&repo).unwrap();
        fs::create_dir(&repo).unwrap();
        for version in versions {
            let deb = self.deb(version);
            fs::copy(&deb, repo.join(deb.file_name().unwrap())).unwrap();
        }
        let index = Command::new("dpkg-scanpackages").args(["-m", "."]).current_dir(&repo).output().unwrap();
        assert!(index.status.success());
        fs::write(repo.join("Packages"), index.stdout).unwrap();
    }

    fn dpkg(&self, args: &[&str]) {
        let root = format!("--root={}", self.path("root").display());
        let output = Command::new("dpkg").arg(root).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn run(&self, which: &str, version: &str) -> (i32, Value, String) {
        self.run_as(which, json!({"name": "hostler-test-one", "version": version}))
    }

    fn run_as(&self, which: &str, params: Value) -> (i32, Value, String) {
        let (config, root, states) = (self.path("apt.conf"), self.path("root"), self.path("states"));
        let admit = self.admit();
        let env: [(&str, &Path); 4] = [
            ("APT_CONFIG", &config),
            ("DPKG_ROOT", &root),
            ("HOSTLER_PACKAGE_STATES", &states),
            ("HOSTLER_ADMIT", Path::new(&admit)),
        ];
        let output = command(&self.task, which, &params, self.dir.path(), &env);
        eprintln!("{which} {params}: {}", String::from_utf8_lossy(&output.stderr));
        let (outputs, message) = reported(self.dir.path());
        (output.status.code().unwrap_or(-1), outputs, message)
    }

    /// What the scripts ask whether a package is admitted: with this test's own word of root.
    fn admit(&self) -> String {
        let file = self.path("tasks.yml");
        if !file.exists() {
            fs::write(&file, "packages: {deny: [libc6]}\n").unwrap();
        }
        format!("{} admit --tasks-file {}", hostler_testkit::program().display(), file.display())
    }

    fn status(&self) -> String {
        let output = Command::new("dpkg-query")
            .args(["-W", "-f", "${db:Status-Abbrev}${Version}", "hostler-test-one"])
            .env("DPKG_ROOT", self.path("root"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn a_package_is_brought_to_its_version_and_held_there() {
    let host = Host::new();
    assert_eq!(host.run("probe", "newest").0, 2, "no lists yet: cannot tell");
    let (code, outputs, message) = host.run("run", "newest");
    assert_eq!((code, outputs), (0, json!({"version_before": "", "version": "2.0-1"})), "{message}");
    assert_eq!(host.status(), "hi 2.0-1");
    for which in ["probe", "done", "verify"] {
        assert_eq!(host.run(which, "newest").0, 0, "{which}");
    }
    assert_eq!(host.run("probe", "1.0-1").0, 1);
    let not_held = json!({"name": "hostler-test-one", "hold": false});
    assert_eq!(host.run_as("probe", not_held).0, 1);
}

#[test]
fn a_downgrade_keeps_the_admins_configuration_and_undo_takes_it_back() {
    let host = Host::new();
    let deb = host.deb("2.0-1");
    host.dpkg(&["-i", deb.to_str().unwrap()]);
    let conf = host.path("root/etc/hostler-test.conf");
    fs::write(&conf, "the admin's\n").unwrap();
    let (code, outputs, message) = host.run("run", "1.0-1");
    assert_eq!((code, outputs), (0, json!({"version_before": "2.0-1", "version": "1.0-1"})), "{message}");
    // The repository drops the version before: the undo has its own copy.
    host.publish(&["3.0-1"]);
    for _ in 0..2 {
        let (code, _, message) = host.run("undo", "1.0-1");
        assert_eq!((code, message.as_str()), (0, "hostler-test-one is back at 2.0-1"));
        assert_eq!(host.status(), "ii 2.0-1");
    }
    assert_eq!(fs::read_to_string(conf).unwrap(), "the admin's\n");
    assert_eq!(host.run("done", "1.0-1").0, 1);
}

#[test]
fn undo_removes_what_was_not_there_and_does_nothing_where_nothing_was_done() {
    let host = Host::new();
    assert_eq!(host.run("undo", "1.0-1").2, "nothing was changed");
    assert_eq!(host.run("done", "1.0-1").0, 1);
    assert_eq!(host.run("run", "1.0-1").0, 0);
    let (code, _, message) = host.run("undo", "1.0-1");
    assert_eq!((code, message.as_str()), (0, "hostler-test-one is back at no version"));
    assert!(!host.status().starts_with("ii"), "{}", host.status());
}

#[test]
fn a_second_attempt_remembers_what_the_first_found() {
    let host = Host::new();
    let deb = host.deb("1.0-1");
    host.dpkg(&["-i", deb.to_str().unwrap()]);
    assert_eq!(host.run("run", "2.0-1").0, 0);
    // The same run again, as after an interruption: still the first one's state before.
    let (code, outputs, _) = host.run("run", "2.0-1");
    assert_eq!((code, outputs), (0, json!({"version_before": "1.0-1", "version": "2.0-1"})));
    assert_eq!(host.run("undo", "2.0-1").0, 0);
    assert_eq!(host.status(), "ii 1.0-1");
}

#[test]
fn an_interrupted_installation_is_brought_to_its_end_first() {
    let host = Host::new();
    let deb = host.deb("1.0-1");
    host.dpkg(&["--unpack", deb.to_str().unwrap()]);
    assert_eq!(host.status(), "iU 1.0-1");
    assert_eq!(host.run("verify", "1.0-1").0, 1);
    assert_eq!(host.run("run", "2.0-1").0, 0);
    assert_eq!(host.status(), "hi 2.0-1");
}

#[test]
fn another_holder_of_the_lock_is_waited_for() {
    let host = Host::new();
    assert_eq!(host.run("run", "1.0-1").0, 0);
    let lock = fs::File::create(host.path("root/var/lib/dpkg/lock-frontend")).unwrap();
    let whole = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_SETLK(&whole)).unwrap();
    let (code, _, message) = host.run("run", "2.0-1");
    assert_eq!((code, message.as_str()), (75, "another program holds the package manager's lock"));
    assert_eq!(host.status(), "hi 1.0-1");
    drop(lock);
    assert_eq!(host.run("run", "2.0-1").0, 0);
}

#[test]
fn what_cannot_be_had_is_said_in_one_line() {
    let host = Host::new();
    let (code, _, message) = host.run("run", "9.9");
    assert_eq!(code, 1);
    assert!(
        message == "the repositories of this host have no package hostler-test-one in version 9.9",
        "{message}"
    );
    let (code, _, message) = host.run_as("run", json!({"name": "hostler-test-none"}));
    assert_eq!((code, message.as_str()), (1, "no repository of this host offers hostler-test-none"));
    for bad in
        [json!({"name": "-o"}), json!({"name": "a b"}), json!({"name": "a", "version": "--x"}), json!({})]
    {
        assert!(host.task.task.schema.check(&bad).is_err(), "{bad}");
    }
}

#[test]
fn from_a_database_that_cannot_be_read_nothing_follows() {
    let host = Host::new();
    let deb = host.deb("1.0-1");
    host.dpkg(&["-i", deb.to_str().unwrap()]);
    let database = host.path("root/var/lib/dpkg/status");
    let whole = fs::read(&database).unwrap();
    fs::write(&database, "nobody knows\n").unwrap();
    let (code, _, message) = host.run("probe", "2.0-1");
    assert_eq!((code, message.contains("cannot be read")), (2, true), "{message}");
    assert_ne!(host.run("run", "2.0-1").0, 0);
    // Had it been taken for a package that was not there before, it would be removed now.
    fs::write(&database, whole).unwrap();
    assert_eq!(host.run("undo", "2.0-1"), (0, json!({}), "nothing was changed".to_owned()));
    assert_eq!(host.status(), "ii 1.0-1");
}

/// A host of rpms, as far as the probe sees it: programs that say what rpm and dnf say there.
fn probe_of_rpms(rpm: &str, dnf: &str, version: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let programs = dir.path().join("bin");
    fs::create_dir(&programs).unwrap();
    // No apt-get among them, by which the scripts would take it for a host of debs.
    for name in ["awk", "sed", "head", "grep", "tr", "cut", "true"] {
        std::os::unix::fs::symlink(format!("/usr/bin/{name}"), programs.join(name)).unwrap();
    }
    for (name, says) in [("rpm", rpm), ("dnf", dnf)] {
        fs::write(dir.path().join(name), says).unwrap();
    }
    // Functions of the shell that runs the probe stand for the two.
    fs::write(dir.path().join("report"), "").unwrap();
    let task = installed("package");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let script = format!(
        "rpm() {{ (. {}); }}\ndnf() {{ (. {}); }}\nset -- lab-thing {version} false\n. ./probe\n",
        at("rpm"),
        at("dnf")
    );
    let output = Command::new("/bin/sh")
        .args(["-c", &script])
        .current_dir(&task.folder)
        .env_clear()
        .env("PATH", &programs)
        .env("HOSTLER_RUN", RUN)
        .env("HOSTLER_ADMIT", "true")
        .env("HOSTLER_REPORT", dir.path().join("report"))
        .output()
        .unwrap();
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), reported(dir.path()).1)
}

#[test]
fn a_query_of_rpm_or_dnf_that_fails_is_no_answer() {
    let there = "echo lab-thing 2.0-1";
    let not_there = "echo 'package lab-thing is not installed'; return 1";
    let broken =
        "echo 'error: cannot open Packages index' >&2; echo 'package lab-thing is not installed'; return 1";
    let offers = "case $* in *repoquery*) echo; echo lab-thing 0:2.0-1 ;; esac";
    let away = "echo 'Error: Failed to download metadata' >&2; return 1";
    for (rpm, dnf, version, code, said) in [
        (there, offers, "2.0", 0, ""),
        (there, offers, "newest", 0, ""),
        (there, offers, "1.0", 1, ""),
        (not_there, offers, "newest", 1, ""),
        ("echo 'warning: old'; echo 'package lab-thing is not installed'; return 1", offers, "2.0", 1, ""),
        (broken, offers, "2.0", 2, "the database of rpm cannot be read"),
        (there, away, "newest", 2, "the repositories cannot be asked"),
        // Another name in that version: rpm and dnf take NAME-VERSION apart in several ways.
        ("echo lab-thing-two 2.0-1", offers, "2.0", 1, ""),
        (there, "echo lab-thing-two 3.0-1", "newest", 2, "no repository of this host offers lab-thing"),
        (there, "return 0", "newest", 2, "no repository of this host offers lab-thing"),
    ] {
        let (got, message) = probe_of_rpms(rpm, dnf, version);
        assert_eq!(got, code, "{version}: {rpm}; {dnf}: {message}");
        assert!(message.starts_with(said) && message.is_empty() == said.is_empty(), "{message}");
    }
}

#[test]
fn an_order_to_install_removes_and_holds_nothing_else() {
    let host = Host::new();
    let deb = host.deb("1.0-1");
    host.dpkg(&["-i", deb.to_str().unwrap()]);
    // To apt a last `-` would mean "remove", and a name that it does not know would be a regular expression.
    let refused = |params: Value| {
        let admitted = host.task.task.schema.check(&params).is_ok();
        // What the schema admits would be carried out.
        if admitted {
            host.run_as("run", params.clone());
            assert_eq!(host.status(), "ii 1.0-1", "{params} was carried out");
        }
        assert!(!admitted, "{params}");
    };
    for bad in ["1.0-1-", "1.0-", "1.0-1+", "1.0~", "1.0-1:", "1.0-1^", "1.0-1_", "-1", "*", "1.*"] {
        refused(json!({"name": "hostler-test-one", "version": bad}));
    }
    for bad in ["hostler-test-one-", "hostler*", "hostler-test-on?", "^host", "hostler-test-one/stable", "a"]
    {
        refused(json!({"name": bad}));
    }
    for (name, version) in [
        ("hostler-test.one", "1.0-1"),
        ("hostler.test.one", "newest"),
        ("h.+e", "newest"),
        ("hostler-test-one+", "1.0-1"),
        ("hostler-test-on", "1.0-1"),
        ("hostler-test-one", "1.0"),
        ("hostler-test-one", "0"),
        ("hostler-test-one", "1.0-1x"),
    ] {
        for hold in [true, false] {
            let params = json!({"name": name, "version": version, "hold": hold});
            let (code, _, message) = host.run_as("run", params.clone());
            assert_eq!(code, 1, "{params}: {message}");
            assert!(message.contains("repositor"), "{message}");
            assert_eq!(host.run_as("undo", params).0, 0);
            assert_eq!(host.status(), "ii 1.0-1", "{name} {version}");
        }
    }
    // What root does not admit is not touched.
    fs::write(host.path("tasks.yml"), "packages: {deny: ['hostler-test*']}\n").unwrap();
    for which in ["probe", "run"] {
        let (code, _, message) = host.run(which, "2.0-1");
        assert_eq!(code, 2, "{message}");
        assert!(message.contains("packages.deny has hostler-test*"), "{message}");
    }
    assert_eq!(host.status(), "ii 1.0-1");
}

#[test]
fn a_version_of_hostler_itself_is_no_action() {
    let task = installed("hostler-upgrade");
    for bad in ["0.1.0-1-", "0.1.0-1+", "0.1.0~", "-0.1.0", "0.1*"] {
        assert!(task.task.schema.check(&json!({"version": bad})).is_err(), "{bad}");
    }
    assert!(task.task.schema.check(&json!({"version": "0.1.0-1"})).is_ok());
}
