//! `hostler task package`: a deb and an rpm of an operator's own tasks, so that they reach hosts as Hostler itself does.
//!
//! What is packed was loaded and found without faults. The files belong to root in the package, whoever builds it, and
//! their times are those of the newest one among them: the same folders give the same deb.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::catalog::trust::{Entry, Kind, OwnerRule, walk};
use crate::catalog::{self, Loaded};
use crate::cli::exit::{Exit, fault};
use crate::cli::{Failure, show};
use crate::domain::name::Name;
use crate::exec::builder::{BuildError, build};
use crate::host::{clock, disk};

/// Where the tasks of packages are installed.
const INSTALLED: &str = "usr/share/hostler/tasks";

/// Reloads the agent, where one runs, so that its report names what is installed.
const RELOAD: &str = "[ ! -d /run/systemd/system ] || systemctl reload hostler.service >/dev/null 2>&1 || :";

/// A kind of package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For Debian and Ubuntu, by dpkg-deb
    Deb,
    /// For RHEL and SLES, by rpmbuild
    Rpm,
}

impl Format {
    /// How its builder is installed.
    fn cure(self) -> &'static str {
        match self {
            Self::Deb => "apt-get install dpkg, or leave it out: --format rpm",
            Self::Rpm => "apt-get install rpm or dnf install rpm-build, or leave it out: --format deb",
        }
    }
}

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The tasks' folders
    #[arg(value_name = "FOLDER", required = true)]
    folders: Vec<PathBuf>,
    /// The package's version, such as 1.4
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: String,
    /// The package's name
    #[arg(long, value_name = "PACKAGE", default_value = "hostler-tasks")]
    name: Name,
    /// One kind alone
    #[arg(long, value_name = "KIND")]
    format: Option<Format>,
    /// The folder for the packages
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What both kinds of packages take for a version.
fn version(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '~');
    match text.starts_with(|c: char| c.is_ascii_digit()) && text.len() <= 63 && text.chars().all(good) {
        true => Ok(text.to_owned()),
        false => Err("a version begins with a digit and has letters, digits, '.', '+' and '~'".to_owned()),
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let tasks = load(&arguments.folders)?;
    let staging = Staging(std::env::temp_dir().join(format!("hostler-package-{}", clock::new_run())));
    let root = staging.0.join("root");
    disk::make_dirs(&root)?;
    let mut newest = 0;
    for task in &tasks {
        newest = newest.max(copy(task, &root)?);
    }
    let package = Package { arguments, tasks: &tasks, work: &staging.0, root: &root, time: newest };
    let mut made = Vec::new();
    for format in Format::value_variants() {
        if arguments.format.is_none_or(|wanted| wanted == *format) {
            let file = match format {
                Format::Deb => package.deb(),
                Format::Rpm => package.rpm(),
            };
            made.push(file?);
        }
    }
    if arguments.json {
        let names: Vec<_> = tasks.iter().map(|loaded| &loaded.task.name).collect();
        show::json(&json!({"tasks": names, "packages": made}))?;
    } else {
        for file in made {
            show::line(file.display().to_string())?;
        }
        show::note(
            "next: publish them where your hosts get packages from; an agent takes new tasks up by itself",
        );
    }
    Ok(Exit::Success.into())
}

/// A folder that goes with this value.
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            show::note(format!("{} is left behind: {error}", self.0.display()));
        }
    }
}

/// The tasks, none twice, all without faults.
fn load(folders: &[PathBuf]) -> Result<Vec<Loaded>, Failure> {
    let mut tasks: Vec<Loaded> = Vec::new();
    for folder in folders {
        let there = folder.canonicalize();
        let there = there.map_err(|error| fault(Exit::NotFound, format!("{}: {error}", folder.display())))?;
        let loaded = catalog::load_one(&there, OwnerRule::of_process());
        let loaded = loaded.map_err(|broken| fault(Exit::ConfigError, broken.to_string()))?;
        if tasks.iter().any(|known| known.task.name == loaded.task.name) {
            return Err(fault(Exit::Usage, format!("the task {} is named twice", loaded.task.name)));
        }
        tasks.push(loaded);
    }
    Ok(tasks)
}

/// Copies a task below `root`, with the modes that are taken for trusted; when the newest file of it was changed, in
/// seconds since 1970.
fn copy(loaded: &Loaded, root: &Path) -> Result<u64, Failure> {
    let wrong = |faults: Vec<String>| fault(Exit::ConfigError, faults.join("; "));
    let into = root.join(INSTALLED).join(loaded.task.name.as_str());
    folders(root, &into)?;
    let mut newest = 0;
    for Entry { path, kind } in walk(&loaded.folder, OwnerRule::of_process()).map_err(wrong)? {
        let (from, to) = (loaded.folder.join(&path), into.join(&path));
        let changed = fs::symlink_metadata(&from)?.modified()?.duration_since(UNIX_EPOCH);
        newest = newest.max(changed.unwrap_or_default().as_secs());
        match kind {
            Kind::Folder => folders(root, &to)?,
            Kind::Link(text) => symlink(text, &to)?,
            Kind::File | Kind::Program => {
                fs::copy(&from, &to)?;
                disk::set_mode(&to, if kind == Kind::Program { 0o755 } else { 0o644 })?;
            }
        }
    }
    Ok(newest)
}

/// Makes a folder and those above it, each open to read for all.
fn folders(root: &Path, folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    for above in folder.ancestors().take_while(|above| above.starts_with(root)) {
        disk::set_mode(above, 0o755)?;
    }
    Ok(())
}

/// What the packages hold, and what they say of it.
struct Package<'a> {
    arguments: &'a Arguments,
    tasks: &'a [Loaded],
    /// A folder for what the builders need.
    work: &'a Path,
    root: &'a Path,
    /// Of the newest file, in seconds since 1970.
    time: u64,
}

impl Package<'_> {
    /// One line on what is in it.
    fn summary(&self) -> String {
        let names: Vec<&str> = self.tasks.iter().map(|loaded| loaded.task.name.as_str()).collect();
        format!("Tasks for Hostler: {}", names.join(", "))
    }

    fn deb(&self) -> Result<PathBuf, Failure> {
        let (name, version) = (&self.arguments.name, &self.arguments.version);
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: root <root@localhost>\n\
             Depends: hostler\nSection: admin\nPriority: optional\nDescription: {}\n",
            self.summary()
        );
        disk::make_dir(&self.root.join("DEBIAN"))?;
        disk::set_mode(&self.root.join("DEBIAN"), 0o755)?;
        disk::replace(&self.root.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
        for script in ["postinst", "postrm"] {
            let text = format!("#!/bin/sh\n{RELOAD}\n");
            disk::replace(&self.root.join("DEBIAN").join(script), text.as_bytes(), 0o755)?;
        }
        let file = self.file(&format!("{name}_{version}_all.deb"))?;
        let words = ["--root-owner-group", "--build"].map(str::to_owned).into_iter();
        let words: Vec<String> = words.chain([shown(self.root), shown(&file)]).collect();
        let made = self.made(Format::Deb, "dpkg-deb", &words);
        // rpmbuild finds nothing that the tasks do not have.
        fs::remove_dir_all(self.root.join("DEBIAN"))?;
        made.map(|()| file)
    }

    fn rpm(&self) -> Result<PathBuf, Failure> {
        let (name, version, root) = (&self.arguments.name, &self.arguments.version, shown(self.root));
        let summary = self.summary().replace('%', "%%");
        // Nothing is taken from the files but the files: no dependencies of scripts, no changed first lines, no links.
        let spec = format!(
            "%global __os_install_post %{{nil}}\n%global _build_id_links none\n%global debug_package %{{nil}}\n\
             Name: {name}\nVersion: {version}\nRelease: 1\nSummary: {summary}\nLicense: Proprietary\n\
             BuildArch: noarch\nRequires: hostler\nAutoReqProv: no\n%description\n{summary}\n\
             %post -p /bin/sh\n{RELOAD}\n%postun -p /bin/sh\n{RELOAD}\n%install\nmkdir -p %{{buildroot}}\ncp -a '{root}/.' %{{buildroot}}/\n%files\n%defattr(-,root,root,-)\n{}",
            self.tasks
                .iter()
                .map(|loaded| format!("/{INSTALLED}/{}\n", loaded.task.name))
                .collect::<String>()
        );
        let at = self.work.join("package.spec");
        disk::replace(&at, spec.as_bytes(), 0o644)?;
        let file = self.file(&format!("{name}-{version}-1.noarch.rpm"))?;
        let define = |name: &str, value: String| ["--define".to_owned(), format!("{name} {value}")];
        let out = file.parent().map(shown).unwrap_or_default();
        let words = ["--quiet".to_owned(), "-bb".to_owned(), shown(&at)].into_iter();
        let words = words.chain(define("_topdir", shown(&self.work.join("rpm"))));
        let words = words.chain(define("_rpmdir", out));
        let words: Vec<String> =
            words.chain(define("_rpmfilename", format!("{name}-{version}-1.noarch.rpm"))).collect();
        self.made(Format::Rpm, "rpmbuild", &words)?;
        Ok(file)
    }

    /// A file in the folder for packages, which is made if it is not there.
    fn file(&self, name: &str) -> Result<PathBuf, Failure> {
        let out = &self.arguments.out;
        let made = fs::create_dir_all(out).and_then(|()| out.canonicalize());
        let out = made.map_err(|error| fault(Exit::ConfigError, format!("{}: {error}", out.display())))?;
        Ok(out.join(name))
    }

    fn made(&self, format: Format, program: &str, words: &[String]) -> Result<(), Failure> {
        build(program, words, &[("SOURCE_DATE_EPOCH", self.time.to_string())]).map_err(|error| match error {
            BuildError::Missing { .. } => fault(Exit::NotFound, format!("{error}: {}", format.cure())),
            BuildError::Failed { .. } => fault(Exit::Failed, error.to_string()),
        })
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_one_for_both_kinds() {
        for good in ["1", "1.4", "2026.11.30", "1.0~rc1", "1.0+3"] {
            assert_eq!(version(good).as_deref(), Ok(good));
        }
        for bad in ["", "v1", "1-2", "1:2", "1 2", "1_2", "1\n2", &"1".repeat(64)] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
