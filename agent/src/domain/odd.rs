//! Keys that look like orders, controls or freezes, and are none: each with its reason, so that none is ignored in
//! silence.

use super::control::ControlId;
use super::keys::Kind;
use super::name::{BadName, Name};
use super::source::Source;
use super::yaml::nearest;

/// A key for a message: in quotes where a blank or a control character could hide in it.
pub fn shown(key: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && c != '"';
    let head = super::text::head(key, 200);
    if head.chars().all(plain) { head } else { format!("{head:?}") }
}

/// Why the key of a host or group has no effect, by its part behind the prefix; `None`: it has one.
pub fn key(source: &Source, rest: &str) -> Option<String> {
    match (Kind::of(rest), source) {
        (Kind::Marker | Kind::Freeze, _) => None,
        (Kind::Order(name), _) => order(name),
        (Kind::Control(name), Source::Host(_)) => control(name),
        (Kind::Control(_), Source::Group(_)) => Some(
            "a group has no controls: hostler cancel --group and the like write one for each host".to_owned(),
        ),
        (Kind::Unknown, _) => Some(unknown(source, rest)),
    }
}

/// The freeze of a host or group that no agent obeys, for a reader who knows all hosts and groups.
pub fn freeze_of_nobody<'a>(source: &Source, known: impl Iterator<Item = &'a str>) -> String {
    let (what, name) = match source {
        Source::Host(name) => ("no host", name),
        Source::Group(name) => ("no host is in a group", name),
    };
    let meant = nearest(name.as_str(), known).map(|meant| format!("; did you mean {meant}?"));
    format!("{what} {name}: it freezes nothing{}", meant.unwrap_or_default())
}

/// Why the part of a key behind the orders' prefix names none; `None`: it does.
fn order(name: &str) -> Option<String> {
    if let Some((above, _)) = name.split_once('/') {
        return Some(format!("an order has no {} above it: move it up", shown(&format!("{above}/"))));
    }
    name.parse::<Name>().err().map(|error| bad(name, "order", &error))
}

/// The same for controls.
fn control(name: &str) -> Option<String> {
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

/// Why a key that is neither marker, order, control nor freeze has no effect.
fn unknown(source: &Source, rest: &str) -> String {
    let first = rest.split('/').next().unwrap_or_default();
    let meant = match nearest(first, ["orders", "control", "freeze"]) {
        Some(meant) if first == meant => {
            format!("; {meant} has {} below it", if meant == "freeze" { "nothing" } else { "names" })
        }
        Some(meant) => format!("; did you mean {meant}?"),
        None if rest.parse::<Name>().is_ok() => {
            format!("; is it an order? Write it as {source}/orders/{rest}")
        }
        None => String::new(),
    };
    format!(
        "below {source}/ are orders/, {}freeze and nothing else{meant}",
        if matches!(source, Source::Host(_)) { "control/, " } else { "" }
    )
}

fn bad(name: &str, what: &str, error: &BadName) -> String {
    let meant = name.trim().to_ascii_lowercase();
    match meant.parse::<Name>() {
        Ok(meant) => {
            format!("it is no name of an {what}; did you mean {meant}?")
        }
        Err(_) => format!("it is no name of an {what}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_effect_has_a_reason() {
        let (host, group): (Source, Source) = ("hosts/h1".parse().unwrap(), "groups/db".parse().unwrap());
        let id = ControlId::new(5, 7).to_string();
        for source in [&host, &group] {
            for (rest, wanted) in [
                ("orders/Backup", "backup?"),
                ("orders/backup ", "backup?"),
                ("orders/back up", "no name"),
                ("orders/x/y", "move it up"),
                ("orders/", "no name"),
                ("orders/_hostler", "no name"),
                ("backup", "/orders/backup"),
                ("order/backup", "did you mean orders?"),
                ("freeze/x", "freeze has nothing below it"),
                ("frieze", "did you mean freeze?"),
                ("grants/x", "and nothing else"),
            ] {
                let why = key(source, rest);
                assert!(why.as_ref().is_some_and(|why| why.contains(wanted)), "{rest:?}: {why:?}");
            }
            for rest in ["orders/backup", "freeze", "_hostler"] {
                assert_eq!(key(source, rest), None, "{rest}");
            }
        }
        for (rest, wanted) in
            [("backup", "ORDER/ID"), ("Backup/x", "backup?"), ("backup/x", "id of a run"), ("", "ORDER/ID")]
        {
            let why = key(&host, &format!("control/{rest}"));
            assert!(why.as_ref().is_some_and(|why| why.contains(wanted)), "{rest:?}: {why:?}");
        }
        assert_eq!(key(&host, &format!("control/backup/{id}")), None);
        assert!(key(&group, &format!("control/backup/{id}")).unwrap().contains("no controls"));
        for (source, wanted) in [
            ("groups/dbs", "no host is in a group dbs: it freezes nothing; did you mean db?"),
            ("groups/elsewhere", "no host is in a group elsewhere: it freezes nothing"),
            ("hosts/h2", "no host h2: it freezes nothing"),
        ] {
            assert_eq!(freeze_of_nobody(&source.parse().unwrap(), ["db"].into_iter()), wanted);
        }
        assert_eq!((shown("a/b").as_str(), shown("a/b ").as_str()), ("a/b", "\"a/b \""));
    }
}
