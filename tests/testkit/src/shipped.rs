//! The tasks as packages install them: each with what its scripts source from `tasks/lib`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The files of a task, by their names.
pub fn shipped_task(name: &str) -> BTreeMap<String, String> {
    let tasks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tasks");
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(tasks.join(name)).expect("the task") {
        let entry = entry.expect("a file of the task");
        let text = fs::read_to_string(entry.path()).expect("a file of the task");
        files.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    if files.values().any(|text| text.lines().any(|line| line == ". ./task.sh")) {
        let library = fs::read_to_string(tasks.join("lib/task.sh")).expect("the library");
        files.insert("task.sh".to_owned(), library);
    }
    files
}

/// Writes a task into a new folder.
pub fn install_shipped(name: &str, folder: &Path) {
    fs::create_dir_all(folder).expect("the task's folder");
    for (name, text) in shipped_task(name) {
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        fs::write(folder.join(&name), text).expect("a file of the task");
        fs::set_permissions(folder.join(&name), fs::Permissions::from_mode(mode)).expect("its mode");
    }
}
