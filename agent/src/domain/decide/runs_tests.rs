//! A run whose executor is lost, row by row: what may start, after which pause, and when an operator has to look.

use super::tests::words::*;
use super::*;
use crate::domain::plan::Trigger;
use crate::domain::run::{self, Event, Operation, Record};
use crate::domain::state::{Closing, End};

const KEY: &str = "hosts/h/o";

/// One run that is in the ledger.
struct One {
    now: Timestamp,
    memory: LedgerState,
    view: RunView,
    /// The journal so far.
    records: Vec<Record>,
}

impl One {
    fn new(executor: ExecutorState) -> Self {
        let plan = Arc::new(run::plan_of("rr"));
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let (key, id): (OrderKey, RunId) = (KEY.parse().unwrap(), plan.run);
        let mut memory = LedgerState::default();
        memory.apply(LedgerEntry::HostJoined { at: now, unread: BTreeSet::new() });
        memory.apply(LedgerEntry::Activation {
            key: key.clone(),
            run: id,
            identity: plan.identity,
            index: 5,
            trigger: Trigger::Placed,
            at: now,
        });
        memory.apply(LedgerEntry::Prepared { key, run: id });
        let view = RunView {
            state: Ok(State::new(plan.steps.len())),
            plan,
            executor,
            launched: None,
            launches: 0,
            unready: false,
            leftovers: None,
            delivered: None,
            progress: (None, None),
            tail: None,
        };
        Self { now, memory, view, records: Vec::new() }
    }

    /// The executor wrote this.
    fn journal(&mut self, event: Event) {
        self.records.push(Record { at: self.now, event });
        self.view.state = Ok(run::replay(&self.view.plan, &self.records).unwrap());
    }

    fn begun(&mut self, epoch: u32) {
        self.journal(Event::Begun { epoch, boot: "b".into() });
    }

    fn wait(&mut self, seconds: i64) {
        self.now += jiff::SignedDuration::from_secs(seconds);
    }

    fn decide(&self) -> Decision {
        let host = "h".parse().unwrap();
        let sources = ["hosts/h".parse().unwrap()];
        let runs = BTreeMap::from([(self.view.plan.run, self.view.clone())]);
        let view = View {
            now: self.now,
            boot: "b",
            host: &host,
            sources: &sources,
            orders: Some(&BTreeMap::new()),
            unknown: &BTreeSet::new(),
            controls: &Controls::new(),
            freezes: &Freezes::new(),
            indexes: &BTreeMap::new(),
            memory: &self.memory,
            checked_orders: &BTreeMap::new(),
            runs: &runs,
            unready: &BTreeMap::new(),
            unread: &BTreeMap::new(),
            previous_format: None,
            starting: &BTreeMap::new(),
            parallel: 4,
            prior_reports: &BTreeMap::new(),
            start_block: None,
            full: None,
            quiet_until: None,
            clock: Clock::Synchronised,
            unreachable: false,
            confirmed: &BTreeMap::new(),
            vault: None,
            answers: &BTreeMap::new(),
            versions: &BTreeMap::new(),
        };
        let mut decision = Decision::default();
        let mut capacity = capacity::Capacity::of(&view);
        runs::decide(&view, &mut capacity, &mut decision);
        decision
    }

    /// What follows, in a word.
    fn follows(&self) -> String {
        let decision = self.decide();
        let words = decision.actions.iter().map(|action| match action {
            Action::Launch { epoch, .. } => format!("launch {epoch}"),
            Action::KillLeftovers { .. } => "search".into(),
            Action::Fence { epoch, .. } => format!("fence {epoch}"),
            Action::Reboot { .. } => "reboot".into(),
            Action::Record(LedgerEntry::Closed { closing: Closing { end, .. }, .. }) => end.as_str().into(),
            other => format!("{other:?}"),
        });
        let mut words: Vec<String> = words.collect();
        if let Some(wait) = decision.waits.get(&KEY.parse().unwrap()) {
            let until = wait.until.map_or(0, |until| until.as_second() - self.now.as_second());
            words.push(format!("{} {until}", wait.reason.as_str()));
            assert!(decision.wake.is_some(), "a wait that nothing ends");
        }
        words.join(", ")
    }
}

#[test]
fn nothing_starts_while_it_cannot_be_told_whether_anything_lives() {
    for doing in [false, true] {
        let mut one = One::new(ExecutorState::Lost { epoch: 1 });
        one.begun(1);
        if doing {
            one.journal(Event::Intended { act: Operation::Step(0) });
        }
        one.wait(5);
        assert_eq!(one.follows(), "search");
        let mut waited = 0;
        for times in 1..10 {
            one.view.leftovers = Some(Leftovers::Unknown { why: "EMFILE".into(), at: one.now, times });
            let said = one.follows();
            let pause: i64 = said.strip_prefix("lost ").and_then(|text| text.parse().ok()).unwrap();
            assert!(pause >= waited, "the pauses grow: {said}");
            waited = pause;
            one.wait(pause - 1);
            assert_eq!(one.follows(), "lost 1");
            one.wait(1);
            assert!(one.follows().starts_with("search"), "{}", one.follows());
        }
        one.view.leftovers = Some(Leftovers::Unknown { why: "EMFILE".into(), at: one.now, times: 10 });
        assert_eq!(one.follows(), "needs_operator");
        one.view.leftovers = Some(Leftovers::Counted(2));
        assert_eq!(one.follows(), "needs_operator");
    }
}

#[test]
fn an_executor_that_ends_before_it_did_anything_is_paced_and_given_up() {
    // It ends behind its claim, or behind its first record: in the journal these differ.
    for begins in [false, true] {
        let mut one = One::new(ExecutorState::Lost { epoch: 1 });
        let mut pauses = Vec::new();
        for epoch in 1.. {
            one.view.executor = ExecutorState::Lost { epoch };
            one.view.launched = Some(one.now);
            if begins {
                one.begun(epoch);
            }
            one.view.leftovers = None;
            assert_eq!(one.follows(), "search");
            one.view.leftovers = Some(Leftovers::Counted(0));
            let said = one.follows();
            if said == "needs_operator" {
                assert_eq!(epoch, 10);
                break;
            }
            let pause: i64 = said.strip_prefix("lost ").and_then(|text| text.parse().ok()).unwrap();
            pauses.push(pause);
            one.wait(pause);
            assert_eq!(one.follows(), format!("launch {}", epoch + 1));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256], "begins: {begins}");
    }
}

#[test]
fn what_an_earlier_agent_launched_goes_on_at_once() {
    let mut one = One::new(ExecutorState::Lost { epoch: 1 });
    one.view.leftovers = Some(Leftovers::Counted(0));
    assert_eq!(one.follows(), "launch 2", "neither journal nor agent knows since when");
}

#[test]
fn one_that_did_something_starts_the_count_again() {
    let mut one = One::new(ExecutorState::Lost { epoch: 9 });
    one.begun(8);
    one.begun(9);
    one.journal(Event::Intended { act: Operation::Step(0) });
    one.view.leftovers = Some(Leftovers::Counted(0));
    assert_eq!(one.follows(), "launch 10", "lost in a command, and for the first time");
}

#[test]
fn what_is_launched_in_vain_is_fenced_before_it_is_given_up() {
    let mut one = One::new(ExecutorState::Unclaimed { epoch: 2 });
    one.begun(1);
    one.journal(Event::Intended { act: Operation::Step(0) });
    one.view.launched = Some(one.now);
    one.view.launches = 1;
    one.wait(29);
    assert_eq!(one.follows(), "");
    one.wait(1);
    one.view.launches = 3;
    one.view.launched = Some(one.now);
    assert_eq!(one.follows(), "lost 120");
    one.view.launches = 10;
    one.wait(600);
    assert_eq!(one.follows(), "fence 2");
    one.view.executor = ExecutorState::Lost { epoch: 2 };
    assert_eq!(one.follows(), "search");
    one.view.leftovers = Some(Leftovers::Counted(0));
    assert_eq!(one.follows(), End::NeedsOperator.as_str());
}

#[test]
fn every_reason_is_among_all_of_them() {
    let words: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(words.len(), Reason::ALL.len());
    for (at, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, at, "{}", reason.as_str());
    }
    assert_eq!(Reason::ALL.len(), Reason::Starting as usize + 1, "the last one that is declared");
}
