//! The words with which `tar` reads folders that are open: by their descriptors, under the names that they were named
//! by, and without Hostler's own folders.

use std::path::Path;

use super::folder::{Folder, Own};

/// The arguments of `tar`, which inherits the descriptors, to write an archive to its standard output.
pub fn words(folders: &[Folder], own: &Own) -> Vec<String> {
    let mut words: Vec<String> =
        ["tar", "--create", "--file=-", "--numeric-owner", "--acls", "--xattrs", "--absolute-names"]
            .map(str::to_owned)
            .to_vec();
    // Of an exclusion each character counts as it is, from the beginning of a name on.
    words.extend(["--anchored", "--no-wildcards"].map(str::to_owned));
    for folder in folders {
        let here = format!("{}/.", folder.name());
        words.extend(own.below(&folder.real).map(|own| format!("--exclude={}", inside(&here, own))));
        // Applied to names of members and to the targets of hard links, not to those of symbolic links.
        words.push(format!("--transform=flags=rSh;s,^{here},{},", escaped(&folder.path.to_string_lossy())));
    }
    words.push("--".to_owned());
    words.extend(folders.iter().map(|folder| format!("{}/.", folder.name())));
    words
}

fn inside(folder: &str, path: &Path) -> String {
    format!("{folder}/{}", path.display())
}

/// A text as the replacement of a substitution whose delimiter is a comma.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| matches!(c, '\\' | '&' | ',').then_some('\\').into_iter().chain([c])).collect()
}
