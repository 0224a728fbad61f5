//! What a task needs and this host does not have. The task may be meant for other hosts, so these are no faults.

use std::collections::BTreeSet;
use std::path::Path;

use crate::catalog::Loaded;
use crate::domain::downtime::{Objective, Service};
use crate::domain::task::Gate;
use crate::exec::ansible::PROGRAM;
use crate::exec::program::obstacle;
use crate::exec::user::User;

/// The agent's unit has folders of its own for temporary files, on the same file systems as the host's.
fn private(gate: &Gate) -> Option<String> {
    let Gate::DiskFree { path, .. } = gate else { return None };
    let own = ["/tmp", "/var/tmp"].into_iter().find(|own| path != Path::new(own) && path.starts_with(own))?;
    let shown = path.display();
    Some(format!(
        "the agent's unit does not see {shown} (PrivateTmp=), so this gate stays closed: use {own} itself"
    ))
}

/// A gate that asks for an error budget that no objective of this host gives; nothing where a parameter names the service.
fn unpromised(gate: &Gate, objectives: &[Objective]) -> Option<String> {
    let Gate::ErrorBudget { service, .. } = gate else { return None };
    let service: Service = service.source().parse().ok().filter(|_| service.is_plain())?;
    let covered = objectives.iter().any(|objective| objective.service.matches(&service));
    (!covered).then(|| {
        format!("no objective of this host covers {service}, so its gate error_budget stays closed: add one to `objectives`")
    })
}

/// A line for each program that does not start here, for each user that this host does not know, and for each gate that
/// cannot open here. Objectives: `None` if the configuration cannot be read.
pub(super) fn warnings(loaded: &Loaded, objectives: Option<&[Objective]>) -> Vec<String> {
    let Loaded { task, folder } = loaded;
    let commands = task.commands();
    let mut programs: BTreeSet<&str> =
        commands.iter().filter_map(|(_, argv)| argv.first()).map(|program| program.source()).collect();
    if !task.playbooks().is_empty() {
        programs.insert(PROGRAM);
    }
    let mut found: Vec<String> =
        programs.into_iter().filter_map(|program| obstacle(program, folder)).collect();
    found.extend(task.gates.iter().filter_map(private));
    let promised =
        objectives.into_iter().flat_map(|all| task.gates.iter().filter_map(|gate| unpromised(gate, all)));
    found.extend(promised);
    found.extend(task.users().into_iter().filter_map(|user| User::look_up(Some(user)).err()));
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::catalog;
    use crate::catalog::trust::OwnerRule;

    #[test]
    fn what_this_host_does_not_have_is_named_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("t");
        fs::create_dir(&folder).unwrap();
        let yaml = "name: t\nversion: 1\ngates:\n  - disk_free: {path: /var/tmp/big, percent: 5}\n  - disk_free: {path: /tmp, percent: 5}\n  - error_budget: {service: web}\n  - error_budget: {service: \"{{ host }}\"}\n\
                    probe: {run: [./go, x], user: no-such-user}\nsteps:\n  - name: a\n    run: [./go]\n    effect: undoable\n    \
                    undo: [/opt/no/such/tool]\n  - {name: b, run: [no-such-tool], user: root}\n  - {name: c, run: [./go, y], user: nor-this-one}\n  \
                    - {name: d, run: [sh, -c, \"true\"]}\n";
        fs::write(folder.join("task.yml"), yaml).unwrap();
        fs::write(folder.join("go"), "#!/usr/bin/no-such-interpreter\n").unwrap();
        fs::set_permissions(folder.join("go"), fs::Permissions::from_mode(0o755)).unwrap();
        for made in [dir.path(), &folder] {
            fs::set_permissions(made, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let loaded = catalog::load_one(&folder, OwnerRule::of_process()).unwrap();
        let said = warnings(&loaded, Some(&[]));
        let wanted = [
            "./go has the interpreter /usr/bin/no-such-interpreter, which does not exist on this host",
            "/opt/no/such/tool does not exist on this host",
            "there is no program no-such-tool on this host",
            "the agent's unit does not see /var/tmp/big (PrivateTmp=), so this gate stays closed: use /var/tmp itself",
            "no objective of this host covers web, so its gate error_budget stays closed: add one to `objectives`",
            "there is no user no-such-user on this host",
            "there is no user nor-this-one on this host",
        ];
        assert_eq!(said, wanted);
    }
}
