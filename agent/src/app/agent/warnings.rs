//! Conditions in the log: each is a warning when it comes up, so that `journalctl -p warning` finds it, and is not
//! repeated while it lasts.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::condition::{Condition, Kind};

/// So many texts of one kind are logged while there is any condition of it: a text that changes all the time must not fill the log.
const MAX_WARNINGS: usize = 32;

/// What was logged of the conditions that last.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    logged: BTreeMap<Kind, BTreeSet<String>>,
}

impl Warnings {
    /// Logs what is new among the conditions, and that none of a kind is left.
    pub(super) fn log(&mut self, conditions: &[Condition]) {
        for condition in self.news(conditions) {
            tracing::warn!("{}", condition.text);
        }
        self.logged.retain(|kind, _| {
            let lasts = conditions.iter().any(|condition| condition.kind == *kind);
            if !lasts {
                tracing::info!("condition {} cleared", kind.as_str());
            }
            lasts
        });
    }

    fn news<'a>(&mut self, conditions: &'a [Condition]) -> Vec<&'a Condition> {
        let mut news = Vec::new();
        for condition in conditions {
            let logged = self.logged.entry(condition.kind).or_default();
            if logged.len() < MAX_WARNINGS && logged.insert(condition.text.clone()) {
                news.push(condition);
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_logged_when_it_comes_up_and_not_while_it_lasts() {
        let mut warnings = Warnings::default();
        let store = |text: &str| Condition::new(Kind::Store, text);
        let mut logged = |conditions: &[Condition]| {
            let news = warnings.news(conditions).len();
            warnings.log(conditions);
            news
        };
        let (away, denied) = (store("store: away"), Condition::new(Kind::NotVisible, "not visible: a"));
        assert_eq!(logged(&[away.clone(), away.clone()]), 1);
        assert_eq!(logged(&[away.clone(), denied.clone()]), 1);
        // Two texts by turns.
        assert_eq!(logged(&[store("store: no leader")]), 1);
        assert_eq!(logged(std::slice::from_ref(&away)), 0);
        assert_eq!(logged(&[]), 0);
        assert_eq!(logged(&[away, denied]), 2, "they come up again");
        let many: Vec<Condition> = (0..1000).map(|n| store(&format!("store: {n}"))).collect();
        assert!(many.iter().map(|one| logged(std::slice::from_ref(one))).sum::<usize>() < MAX_WARNINGS + 1);
    }
}
