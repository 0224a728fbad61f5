//! A real journal, cut after every record and inside each: the replay reaches only states that were reached before,
//! and the real agent goes on from each of them to an end that the effects allow.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::path::{Path, PathBuf};

use hostler::domain::run::{Phase, State};
use hostler::ledger::Folder;
use hostler_testkit::Host;

fn host(name: &str) -> Host {
    let host = Host::on_dir(name);
    host.counting_task("three", "repeatable:a! undoable:b repeatable:c!", "0");
    host.counting_task("undone", "undoable:a repeatable:fail", "0");
    host
}

fn run(host: &Host) -> PathBuf {
    host.runs().pop().expect("a run")
}

/// The states that the journal leads to, one a line of it, the empty journal first.
fn states(run: &Path, journal: &[u8]) -> Vec<State> {
    let folder = Folder::at(run).expect("a folder");
    let plan = folder.plan().expect("a plan");
    let ends = journal.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(i, _)| i + 1);
    let mut states = Vec::new();
    for end in std::iter::once(0).chain(ends) {
        fs::write(folder.journal(), &journal[..end]).expect("a journal");
        states.push(folder.state(&plan).expect("a legal state"));
    }
    states
}

#[test]
fn a_journal_cut_at_any_byte_leads_to_a_state_that_was_reached() {
    for task in ["three", "undone"] {
        let mut host = host(&format!("cut-{task}"));
        host.start();
        host.order("o", &format!("task: {task}"));
        host.wait_for("o", &["succeeded", "undone"]);
        host.stop();
        let run = run(&host);
        let folder = Folder::at(&run).expect("a folder");
        let plan = folder.plan().expect("a plan");
        let journal = fs::read(folder.journal()).expect("the journal");
        let states = states(&run, &journal);
        assert!(states.len() > 5 && matches!(states.last().map(|state| &state.phase), Some(Phase::Ended(_))));
        for cut in 0..=journal.len() {
            fs::write(folder.journal(), &journal[..cut]).expect("a journal");
            let state = folder.state(&plan).expect("a cut is no damage");
            assert!(states.contains(&state), "{task} cut at {cut}: {:?}", state.phase);
        }
        // A bit that flipped before the last line is damage, and told.
        let mut damaged = journal.clone();
        damaged[12] ^= 1;
        fs::write(folder.journal(), damaged).expect("a journal");
        let error = folder.state(&plan).expect_err("damage").to_string();
        assert!(error.contains("damaged in line 1"), "{error}");
    }
}

/// Carries an order out, then puts the host back to the moment at which only the first `kept` lines of the journal
/// were written; the command under way at that moment had its effect, or had not. `None`: there are fewer lines.
fn put_back(task: &str, kept: usize, with_effect: bool) -> Option<Host> {
    let mut host = host(&format!("resume-{task}-{kept}-{with_effect}"));
    host.start();
    host.order("o", &format!("task: {task}"));
    host.wait_for("o", &["succeeded", "undone"]);
    host.stop();
    let path = run(&host).join("journal");
    let journal = fs::read_to_string(&path).expect("the journal");
    let lines: Vec<&str> = journal.split_inclusive('\n').collect();
    // With all of its lines the run is over, and nothing is left to go on from.
    let lines = lines.get(..kept).filter(|kept| kept.len() < lines.len())?;
    fs::write(&path, lines.concat()).expect("a journal");
    // The ledger of that moment: the run is prepared, and nobody has closed it.
    let ledger = fs::read_to_string(host.path("state/ledger")).expect("the ledger");
    let open: Vec<&str> = ledger.split_inclusive('\n').filter(|line| !line.contains("\"closed\"")).collect();
    fs::write(host.path("state/ledger"), open.concat()).expect("a ledger");
    // The effects of that moment: a command that ended well had one.
    let ended_well = lines.iter().filter(|line| line.contains("\"exit\":{\"code\":0}")).count();
    let under_way = lines.last().is_some_and(|line| line.contains("\"intended\""));
    let effects = fs::read_to_string(host.path("effects")).expect("the effects");
    let count = ended_well + usize::from(with_effect && under_way);
    let effects: Vec<&str> = effects.split_inclusive('\n').take(count).collect();
    fs::write(host.path("effects"), effects.concat()).expect("effects");
    Some(host)
}

#[test]
fn the_agent_goes_on_from_a_journal_that_was_cut_after_any_record() {
    for (task, with_effect) in [("three", false), ("three", true), ("undone", false), ("undone", true)] {
        let mut kept = 0;
        while let Some(mut host) = put_back(task, kept, with_effect) {
            host.start();
            let report = host.wait_until("o", "an end", |report| {
                report["epoch"].as_u64() > Some(1) && !report["ended"].is_null()
            });
            let effects = host.effects("o");
            let place = format!("{task} cut after {kept}, effect {with_effect}: {effects:?}; {report}");
            match (task, report["phase"].as_str()) {
                // `a` and `c` can tell that they are done; `b` cannot, and is undone rather than done again.
                ("three", Some("succeeded")) => assert_eq!(effects, ["a", "b", "c"], "{place}"),
                ("three", Some("undone")) => {
                    let b = effects.iter().filter(|effect| *effect == "b").count();
                    assert!(effects[0] == "a" && b <= 1 && effects.last().unwrap() == "undo-b", "{place}");
                }
                ("undone", Some("undone")) => {
                    let a = effects.iter().filter(|effect| *effect == "a").count();
                    assert!(a <= 1 && effects.last().unwrap() == "undo-a", "{place}");
                }
                _ => panic!("{place}"),
            }
            kept += 1;
        }
        assert!(kept > 5, "{task} has {kept} records");
    }
}
