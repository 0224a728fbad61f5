//! Rows for orders that watch secrets: which version of one is carried out, and which is not.

use super::recurring_tests::NIGHTLY;
use super::*;

const WATCHED: &str = "kv/data/hana/HDB";

/// An order that watches a secret; `more` are further terms.
fn watching(more: &str) -> String {
    format!("{{task: t, revision: r1, by: r1, spread: 0s, on_secret_change: ['{WATCHED}#password']{more}}}")
}

impl Model {
    /// Vault tells this version of the watched secret, written so many seconds after the epoch.
    fn tells(&mut self, number: u64, second: i64) {
        let created = Timestamp::from_second(second).unwrap();
        self.versions.insert(WATCHED.into(), SecretVersion { number, created });
        self.settle();
    }

    fn known(&self) -> Option<u64> {
        self.of(HOST).recurrence.secrets.get(WATCHED).map(|seen| seen.version.number)
    }
}

fn secret(number: u64) -> Vec<String> {
    vec![format!("hosts/h/o secret {number} of {WATCHED}")]
}

#[test]
fn a_new_version_of_a_watched_secret_is_carried_out_once_and_the_first_sight_of_one_is_not() {
    let mut model = Model::with(HOST, &watching(""));
    assert_eq!(model.started(), ["hosts/h/o r1"], "placed, it is carried out as any order");
    assert_eq!(model.wait_of(HOST).0, Reason::Secret);
    model.tells(3, 30);
    assert_eq!((model.known(), model.started().len()), (Some(3), 0));
    model.restart();
    model.tells(4, 40);
    assert_eq!(model.started(), secret(4));
    model.restart();
    model.settle();
    assert!(model.started().is_empty());
    // Several at once, or while the agent was down: the newest, once.
    model.tells(9, 90);
    model.restart();
    assert_eq!(model.started(), secret(9));
    // Vault away, or the secret out of sight, says nothing; nor does its coming back.
    model.versions.clear();
    model.settle();
    model.restart();
    model.tells(9, 90);
    assert!(model.started().is_empty());
}

#[test]
fn a_version_that_goes_back_starts_nothing_and_is_what_counts_from_then_on() {
    let mut model = Model::with(HOST, &watching(""));
    model.tells(5, 50);
    model.started();
    for (number, second, starts) in [
        (1, 60, None),    // Made anew.
        (2, 70, Some(2)), // And written once more.
        (2, 80, None),    // Made anew, with as many versions.
        (3, 90, Some(3)),
        (2, 80, None),     // A server that lags behind,
        (3, 90, None),     // and one that does not.
        (1, 10, None),     // A Vault from yesterday's snapshot,
        (3, 100, Some(3)), // and what was written into it.
        (4, 95, None),     // Written by a clock that is behind: no way to tell it from an old one.
    ] {
        model.tells(number, second);
        model.restart();
        let wanted = starts.map(secret).unwrap_or_default();
        assert_eq!(model.started(), wanted, "{number} at {second}");
        assert_eq!(model.known(), Some(number));
        let detail = &model.decision.waits[&HOST.parse().unwrap()].detail;
        assert_eq!(detail.is_some(), starts.is_none(), "{number} at {second}: {detail:?}");
    }
}

#[test]
fn what_was_known_before_an_absence_starts_nothing_when_a_server_that_lags_behind_answers_first() {
    let mut model = Model::with(HOST, &watching(""));
    model.tells(5, 50);
    model.tells(6, 60);
    assert_eq!(model.started().len(), 2);
    model.write(HOST, "skip: true");
    model.versions.clear();
    model.write(HOST, &watching(""));
    model.tells(5, 50);
    model.tells(6, 60);
    model.restart();
    assert!(model.started().is_empty());
    model.tells(7, 70);
    assert_eq!(model.started(), secret(7));
}

#[test]
fn a_new_version_waits_for_what_is_under_way_and_takes_the_place_of_an_older_one_that_waits() {
    let mut model = Model::with(HOST, &watching(""));
    model.tells(1, 10);
    model.started();
    model.ends = None;
    model.tells(2, 20);
    assert_eq!(model.started(), secret(2));
    model.tells(3, 30);
    model.tells(4, 40);
    model.restart();
    assert!(model.started().is_empty(), "it runs, and may have read either");
    assert_eq!(model.known(), Some(2));
    model.end_runs(End::Failed);
    assert_eq!(model.started(), secret(4));
    model.end_runs(End::NeedsOperator);
    model.tells(5, 50);
    assert!(model.started().is_empty(), "a person has to speak first");
    // In front of a closed window the newest takes the place of the older.
    let mut model = Model::with(HOST, &watching(", window: '20:00-21:00'"));
    model.live_until("2026-11-21T20:30:00Z");
    model.started();
    model.go_to("2026-11-21T22:00:00Z");
    model.tells(1, 10);
    model.tells(2, 20);
    model.tells(3, 30);
    assert!(model.started().is_empty());
    assert_eq!(model.wait_of(HOST).0, Reason::Window);
    model.live_until("2026-11-22T20:30:00Z");
    assert_eq!(model.started(), secret(3));
}

#[test]
fn terms_and_times_bound_what_new_versions_start() {
    // Not after its end.
    let mut model = Model::with(HOST, &watching(", not_after: 2026-11-22T00:00:00Z"));
    model.tells(1, 10);
    model.started();
    model.go_to("2026-11-22T00:00:01Z");
    model.tells(2, 20);
    assert_eq!((model.started().len(), model.known()), (0, Some(1)));
    // Beside a schedule each goes its own way; placing it starts nothing then.
    let mut model = Model::with(HOST, &watching(&format!(", schedule: '{NIGHTLY}'")));
    model.tells(1, 10);
    model.live_until("2026-11-22T03:00:00Z");
    assert_eq!(model.started(), ["hosts/h/o firing 2026-11-22T02:30:00Z"]);
    model.tells(2, 20);
    assert_eq!(model.started(), secret(2));
    model.live_until("2026-11-23T03:00:00Z");
    assert_eq!(model.started(), ["hosts/h/o firing 2026-11-23T02:30:00Z"]);
    // One that waits goes with what it came by.
    let mut model = Model::with(HOST, &watching(", window: '20:00-21:00'"));
    model.live_until("2026-11-21T20:30:00Z");
    model.go_to("2026-11-21T22:00:00Z");
    model.tells(1, 10);
    model.tells(2, 20);
    model.started();
    model.write(HOST, "{task: t, revision: r1, by: r1, on_secret_change: ['kv/data/other#x']}");
    model.live_until("2026-11-23T00:00:00Z");
    assert!(model.started().is_empty());
    // The hosts of a group come one after the other.
    let mut model = Model::with(ALL, &watching("").replace("spread: 0s", "spread: 30m"));
    model.live_until("2026-11-21T13:00:00Z");
    model.started();
    model.tells(1, 10);
    model.tells(2, 20);
    assert_eq!(model.wait_of(ALL).0, Reason::Spread);
    model.live_until("2026-11-21T13:30:00Z");
    assert_eq!(model.started(), [format!("groups/all/o secret 2 of {WATCHED}")]);
}

#[test]
fn two_secrets_that_change_at_once_start_one_run() {
    let order =
        "{task: t, revision: r1, by: r1, on_secret_change: ['kv/data/a#x', 'kv/data/a#y', 'kv/data/b#x']}";
    let mut model = Model::with(HOST, order);
    model.started();
    for number in 1..3 {
        for path in ["kv/data/a", "kv/data/b"] {
            let created = Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
            model.versions.insert(path.into(), SecretVersion { number, created });
        }
        model.settle();
    }
    model.restart();
    assert_eq!(model.started(), ["hosts/h/o secret 2 of kv/data/a"]);
    assert_eq!(model.of(HOST).recurrence.secrets.len(), 2);
}

/// Any history of a few operations with versions that come, go back and are told anew: each version that was written
/// starts one run at most, and none that was not written while the order stood.
#[test]
fn p2_no_version_starts_twice_in_any_short_history() {
    const OPERATIONS: usize = 9;
    // Every so manieth: each row of three operations is among them.
    for n in (0..OPERATIONS.pow(5)).step_by(23) {
        let mut model = Model::with(HOST, &watching(""));
        model.tells(5, 50);
        model.started();
        // What the server holds; when each was written makes it that version and no other.
        let (mut number, mut second, mut clock) = (5, 50, 50);
        let (mut code, mut begun) = (n, BTreeSet::new());
        for _ in 0..5 {
            let shown = (number, second);
            match code % OPERATIONS {
                0 | 1 => {
                    clock += 10;
                    (number, second) = (number + 1, clock);
                    model.tells(number, second);
                }
                2 => {
                    clock += 10;
                    (number, second) = (1, clock);
                    model.tells(number, second);
                }
                3 => {
                    // Another server answers, which lags behind; then the first one again.
                    model.tells(number - 1, second - 5);
                    model.tells(number, second);
                }
                4 => model.versions.clear(),
                5 => model.restart(),
                6 => model.write(HOST, "skip: true"),
                7 => model.write(HOST, &watching("")),
                _ => model.delete(HOST),
            }
            code /= OPERATIONS;
            model.settle();
            for started in model.started() {
                assert!(begun.insert(second), "history {n} starts {shown:?} twice: {started}");
                assert_eq!(started, secret(number)[0], "history {n}");
            }
        }
    }
}
