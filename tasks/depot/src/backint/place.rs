//! Where the backups of SAP HANA are in the bucket: `backint/USER/NAME/EBID`, with the name escaped.
//!
//! The escaped name is a path again, so that an operator finds it. An id is a ULID: unique, and it sorts by time.

use sha2::{Digest, Sha256};
use ulid::Ulid;

use crate::name::Name;

/// Longer names are told by their sum.
const MAX_BYTES: usize = 600;

fn escape(part: &str) -> String {
    let mut out = String::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"._@=+-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    match out.as_str() {
        "" => "%".to_owned(),
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        // Names that the depot uses itself.
        "manifest.json" | "thaw.json" => {
            format!("%{:02X}{}", out.as_bytes().first().unwrap_or(&0), out.get(1..).unwrap_or(""))
        }
        _ if out.starts_with("data.") => format!("%64{}", out.get(1..).unwrap_or("")),
        _ => out,
    }
}

/// What all of a user's backups begin with.
pub fn of_user(user: &str) -> String {
    format!("backint/{}/", escape(user))
}

/// What all backups of one object begin with. Others may begin so as well: `of_object` of a longer path does.
pub fn of_object(user: &str, object: &str) -> String {
    let path = match object.strip_prefix('/') {
        Some(path) => path.split('/').map(escape).collect::<Vec<_>>().join("/"),
        // Something relative must not be taken for the absolute path of the same letters.
        None => format!("%-/{}", object.split('/').map(escape).collect::<Vec<_>>().join("/")),
    };
    let path =
        if path.len() > MAX_BYTES { format!("sha256-{}", hex::encode(Sha256::digest(object))) } else { path };
    format!("{}{path}/", of_user(user))
}

/// The backup; `None` if that is no id of ours.
pub fn backup(user: &str, object: &str, ebid: &str) -> Option<Name> {
    Ulid::from_string(ebid).ok().filter(|id| id.to_string() == ebid)?;
    format!("{}{ebid}", of_object(user, object)).parse().ok()
}

/// The id of a backup of exactly this object.
pub fn ebid(below: &str, name: &Name) -> Option<Ulid> {
    let last = name.as_str().strip_prefix(below)?;
    Ulid::from_string(last).ok().filter(|id| id.to_string() == last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_name_has_a_place_of_its_own(one in "[ -~äß]{1,30}", other in "[ -~äß]{1,30}", long in "[a-z/]{600,900}") {
            let id = Ulid::generate().to_string();
            let place = backup("HDB", &one, &id).unwrap();
            prop_assert_eq!(ebid(&of_object("HDB", &one), &place).unwrap().to_string(), id.clone());
            if one != other {
                prop_assert_ne!(&place, &backup("HDB", &other, &id).unwrap());
                prop_assert_eq!(ebid(&of_object("HDB", &other), &place), None);
            }
            prop_assert_ne!(&place, &backup("DB@HDB", &one, &id).unwrap());
            prop_assert!(backup("HDB", &long, &id).is_some());
        }
    }

    #[test]
    fn odd_names_are_kept_apart() {
        let id = Ulid::generate().to_string();
        let names = [
            "/a",
            "a",
            "//a",
            "/a/",
            "/./a",
            "/../a",
            "/a/manifest.json",
            "/a/data.1",
            "/a/thaw.json",
            "/%2E/a",
        ];
        let places: std::collections::BTreeSet<_> =
            names.iter().map(|name| backup("HDB", name, &id).unwrap().as_str().to_owned()).collect();
        assert_eq!(places.len(), names.len(), "{places:?}");
        assert_eq!(backup("HDB", "/a", "../x"), None);
        assert_eq!(backup("HDB", "/a", &id.to_lowercase()), None);
    }
}
