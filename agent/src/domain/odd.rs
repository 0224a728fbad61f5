//! Keys that look like orders, controls or freezes, and are none: each with its reason, so that none is without effect
//! in silence.

use std::collections::BTreeSet;

use super::control::ControlId;
use super::keys::MARKER;
use super::name::{BadName, Name};
use super::yaml::nearest;

/// The group that every host is in.
const ALL: &str = "all";

/// A key for a message: in quotes where a blank or a control character could hide in it.
pub fn shown(key: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && c != '"';
    let head = super::text::head(key, 200);
    if head.chars().all(plain) { head } else { format!("{head:?}") }
}

/// Why the part of a key behind the place of orders names none; `None`: it does.
pub fn order(name: &str) -> Option<String> {
    if let Some((above, _)) = name.split_once('/') {
        return Some(format!("an order has no {} above it: move it up", shown(&format!("{above}/"))));
    }
    (name != MARKER).then(|| name.parse::<Name>().err()).flatten().map(|error| bad(name, "order", &error))
}

/// The same for controls.
pub fn control(name: &str) -> Option<String> {
    if name == MARKER {
        return None;
    }
    let Some((order, id)) = name.split_once('/') else {
        return Some(
            "a control is written as ORDER/ID: use hostler cancel, release, retry and so on".to_owned(),
        );
    };
    match order.parse::<Name>() {
        Err(error) => Some(bad(order, "order", &error)),
        Ok(_) => id.parse::<ControlId>().err().map(|error| error.to_string()),
    }
}

/// The same for freezes, on a host and with its groups.
pub fn freeze(name: &str, host: &Name, groups: &[Name]) -> Option<String> {
    match group_frozen(name)? {
        Err(why) => Some(why),
        Ok(name) if name == *host && !groups.contains(&name) => Some(OF_A_HOST.to_owned()),
        Ok(_) => None,
    }
}

/// The same for freezes, for whoever sees all hosts and groups.
pub fn freeze_of_fleet(name: &str, hosts: &BTreeSet<&Name>, groups: &BTreeSet<&Name>) -> Option<String> {
    let name = match group_frozen(name)? {
        Err(why) => return Some(why),
        Ok(name) if name.as_str() == ALL || groups.contains(&name) => return None,
        Ok(name) if hosts.contains(&name) => return Some(OF_A_HOST.to_owned()),
        Ok(name) => name,
    };
    let known = groups.iter().map(|group| group.as_str());
    let meant = nearest(name.as_str(), known).map(|meant| format!("; did you mean {meant}?"));
    Some(format!("no host is in a group {name}: it freezes nothing{}", meant.unwrap_or_default()))
}

const OF_A_HOST: &str = "a freeze is of a group, and this is the name of a host: it freezes nothing";

/// The group that is frozen, or why there is none; `None`: it is the marker.
fn group_frozen(name: &str) -> Option<Result<Name, String>> {
    if name == MARKER {
        return None;
    }
    if name.contains('/') {
        let why = "a freeze is of a group: write it as freeze/GROUP, or use hostler freeze GROUP";
        return Some(Err(why.to_owned()));
    }
    Some(name.parse::<Name>().map_err(|error| bad(name, "group", &error)))
}

fn bad(name: &str, what: &str, error: &BadName) -> String {
    let meant = name.trim().to_ascii_lowercase();
    match meant.parse::<Name>() {
        Ok(meant) => {
            format!("it is no name of an {what}; did you mean {meant}?").replace("an group", "a group")
        }
        Err(_) => format!("it is no name of an {what}: {error}").replace("an group", "a group"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_effect_has_a_reason() {
        let host: Name = "h1".parse().unwrap();
        let groups = ["db".parse().unwrap(), "all".parse().unwrap()];
        let id = ControlId::new(5, 7).to_string();
        for (name, wanted) in [
            ("Backup", "backup?"),
            ("backup ", "backup?"),
            ("back up", "no name"),
            ("x/y", "move it up"),
            ("", "no name"),
        ] {
            assert!(order(name).is_some_and(|why| why.contains(wanted)), "{name:?}: {:?}", order(name));
        }
        assert_eq!((order("backup"), order(MARKER)), (None, None));
        for (name, wanted) in [("backup", "ORDER/ID"), ("Backup/x", "backup?"), ("backup/x", "id of a run")] {
            assert!(control(name).is_some_and(|why| why.contains(wanted)), "{name:?}: {:?}", control(name));
        }
        assert_eq!((control(&format!("backup/{id}")), control(MARKER)), (None, None));
        for (name, wanted) in
            [("DB", "db?"), ("h1", "of a host"), ("hosts/h1", "of a group"), ("db/x", "of a group")]
        {
            let why = freeze(name, &host, &groups);
            assert!(why.as_ref().is_some_and(|why| why.contains(wanted)), "{name:?}: {why:?}");
        }
        assert_eq!((freeze("db", &host, &groups), freeze("other", &host, &groups)), (None, None));
        let (h2, db): (Name, Name) = ("h2".parse().unwrap(), "db".parse().unwrap());
        let (hosts, groups) = (BTreeSet::from([&host, &h2]), BTreeSet::from([&db]));
        for (name, wanted) in [
            ("dbs", "no host is in a group dbs: it freezes nothing; did you mean db?"),
            ("elsewhere", "no host is in a group elsewhere: it freezes nothing"),
            ("h2", "of a host"),
            ("DB", "db?"),
            ("hosts/h1", "of a group"),
        ] {
            let why = freeze_of_fleet(name, &hosts, &groups);
            assert!(why.as_ref().is_some_and(|why| why.ends_with(wanted) || why.contains(wanted)), "{why:?}");
        }
        for name in ["db", "all", MARKER] {
            assert_eq!(freeze_of_fleet(name, &hosts, &groups), None, "{name}");
        }
        assert_eq!((shown("a/b").as_str(), shown("a/b ").as_str()), ("a/b", "\"a/b \""));
    }
}
