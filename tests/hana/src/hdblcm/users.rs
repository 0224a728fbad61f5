//! The OS user `<sid>adm` and its group, which hdblcm makes and removes: on a host whose root is `/` alone.

use super::options::Options;
use crate::halt::Halt;
use crate::root::Root;
use std::fs;
use std::process::{Command, Stdio};

/// The programs that make what is not there yet, with their arguments.
fn needed(sid: &str, options: &Options, groups: &str, users: &str) -> Vec<Vec<String>> {
    let named = |text: &str, name: &str| text.lines().any(|line| line.split(':').next() == Some(name));
    let user = format!("{}adm", sid.to_lowercase());
    let words = |text: String| text.split(' ').map(str::to_string).collect::<Vec<_>>();
    let mut needed = Vec::new();
    if !named(groups, "sapsys") {
        needed.push(words(format!("groupadd -g {} sapsys", options.or("groupid", "79"))));
    }
    if !named(users, &user) {
        let (id, shell) = (options.or("userid", "1001"), options.or("shell", "/bin/sh"));
        let home = options.or("home", &format!("/usr/sap/{sid}/home"));
        needed.push(words(format!("useradd -o -u {id} -g sapsys -M -d {home} -s {shell} {user}")));
    }
    needed
}

fn is_host(root: &Root) -> bool {
    root.at("x") == std::path::Path::new("/x") && nix::unistd::geteuid().is_root()
}

fn run(command: &[String]) -> Result<(), Halt> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(Halt::new(1, format!("    {} failed", command.join(" ")))) }
}

/// Makes the group and the user.
pub(crate) fn make(root: &Root, sid: &str, options: &Options) -> Result<(), Halt> {
    if is_host(root) {
        let (groups, users) = (fs::read_to_string("/etc/group")?, fs::read_to_string("/etc/passwd")?);
        for command in needed(sid, options, &groups, &users) {
            run(&command)?;
        }
    }
    Ok(())
}

/// Removes the user, unless `--keep_user`.
pub(crate) fn remove(root: &Root, sid: &str, options: &Options) -> Result<(), Halt> {
    let user = format!("{}adm", sid.to_lowercase());
    let known = |text: String| text.lines().any(|line| line.split(':').next() == Some(&user));
    if is_host(root) && !options.yes("keep_user") && known(fs::read_to_string("/etc/passwd")?) {
        run(&["userdel".to_string(), "-f".to_string(), user])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_made() {
        let root = Root::new(std::path::Path::new("/nowhere"));
        let options = Options::read(&root, &["--userid=1500".to_string()]).unwrap();
        let made = needed("HA1", &options, "root:x:0:\n", "root:x:0:0::/root:/bin/sh\n");
        let lines: Vec<String> = made.iter().map(|command| command.join(" ")).collect();
        let user = "useradd -o -u 1500 -g sapsys -M -d /usr/sap/HA1/home -s /bin/sh ha1adm";
        assert_eq!(lines, ["groupadd -g 79 sapsys", user]);
        assert!(needed("HA1", &options, "sapsys:x:79:\n", "ha1adm:x:1500:79::/:/bin/sh\n").is_empty());
    }
}
