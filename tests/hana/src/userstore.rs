//! `hdbuserstore`: keys for connections, a store per OS user and host.
//!
//! Of a password it keeps what `database::kept` makes of it.

use crate::database::kept;
use crate::files;
use crate::halt::{Ended, Halt};
use crate::root::Root;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

/// An entry of the store.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// `host:port` with an optional `@DATABASE`.
    pub(crate) env: String,
    pub(crate) user: String,
    pub(crate) kept: String,
}

type Store = BTreeMap<String, Entry>;

fn place(root: &Root) -> PathBuf {
    let user = nix::unistd::geteuid();
    root.state("userstore").join(user.to_string()).join(root.host()).join("SSFS_HDB.DAT")
}

/// The entry of a key.
pub(crate) fn find(root: &Root, key: &str) -> Result<Option<Entry>, Halt> {
    Ok(files::load::<Store>(&place(root))?.and_then(|store| store.get(key).cloned()))
}

pub(crate) fn run(root: &Root, arguments: &[String]) -> Ended {
    let ask = arguments.first().is_some_and(|first| first == "-i");
    let words: Vec<&str> = arguments.iter().skip(usize::from(ask)).map(String::as_str).collect();
    let place = place(root);
    let mut store = files::load::<Store>(&place)?.unwrap_or_default();
    let absent = |key: &str| Err(Halt::new(1, format!("KEY {key} NOT FOUND")));
    match words.as_slice() {
        [set, key, env, user, rest @ ..] if set.eq_ignore_ascii_case("SET") => {
            let password = match (ask, rest) {
                (true, []) => {
                    print!("Password: ");
                    let mut text = String::new();
                    std::io::stdin().read_to_string(&mut text)?;
                    text.lines().next().unwrap_or_default().to_string()
                }
                (false, [password]) => (*password).to_string(),
                _ => return usage(),
            };
            let entry = Entry { env: (*env).into(), user: (*user).into(), kept: kept(&password) };
            store.insert((*key).to_string(), entry);
            files::save(root, &place, &store)?;
            Ok(0)
        }
        [list] if list.eq_ignore_ascii_case("LIST") => {
            println!("DATA FILE       : {}", place.display());
            println!("KEY FILE        : {}\n", place.with_extension("KEY").display());
            for (key, entry) in &store {
                show(key, entry);
            }
            Ok(0)
        }
        [list, key] if list.eq_ignore_ascii_case("LIST") => match store.get(*key) {
            Some(entry) => {
                show(key, entry);
                Ok(0)
            }
            None => absent(key),
        },
        [delete, key] if delete.eq_ignore_ascii_case("DELETE") => {
            if store.remove(*key).is_none() {
                return absent(key);
            }
            files::save(root, &place, &store)?;
            Ok(0)
        }
        _ => usage(),
    }
}

fn show(key: &str, entry: &Entry) {
    println!("KEY {key}\n  ENV : {}\n  USER: {}", entry.env, entry.user);
}

fn usage() -> Ended {
    println!(
        "Usage: hdbuserstore [-i] SET <KEY> <ENV>[@<DATABASE>] <USERNAME> [<PASSWORD>] | LIST [<KEY>] | DELETE <KEY>"
    );
    Ok(1)
}
