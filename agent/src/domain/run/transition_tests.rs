//! Rows of the table, each as a line: the plan in short, what happens, where it leads.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::domain::downtime::{Downtime, Millis};
use crate::domain::plan::{Action, Command, RunPaths, Trigger};
use crate::domain::span::Span;
use crate::domain::task::{Limits, OnCancel, OnTimeout, Retry};

/// A plan in short: `p` a probe, `v` a verification, then the steps: `o`nce, `r`epeatable, `u`ndoable, `f`inal;
/// a capital letter has a `done`.
pub(crate) fn plan(short: &str) -> Plan {
    let command = || Some(Command { argv: vec!["true".into()], timeout: None, user: None });
    let steps = short.chars().filter(|c| !"pv".contains(*c)).enumerate().map(|(i, c)| Step {
        name: format!("s{i}"),
        action: Action::Run(vec!["true".into()]),
        user: None,
        effect: match c.to_ascii_lowercase() {
            'r' => Effect::Repeatable,
            'u' => Effect::Undoable,
            'f' => Effect::Final,
            _ => Effect::Once,
        },
        check: command().filter(|_| c.is_ascii_uppercase()),
        undo: command().filter(|_| c.eq_ignore_ascii_case(&'u')),
        guard: None,
        resumable: false,
        on_cancel: OnCancel::Kill,
        on_timeout: OnTimeout::Report,
        keep_processes: false,
        no_new_privileges: false,
        timeout: None,
        stdin: None,
        grace: Span::secs(1),
    });
    Plan {
        version: 1,
        run: crate::domain::ids::RunId::new(1, 1),
        order: "o".parse().unwrap(),
        source: "hosts/h".parse().unwrap(),
        identity: crate::domain::ids::InstructionHash::new([0; 32]),
        trigger: Trigger::Placed,
        host: "h".parse().unwrap(),
        task: "t@1".into(),
        task_digest: "sha256:0".into(),
        params: serde_json::Value::Null,
        dry_run: false,
        timeout: Span::secs(60),
        probe: command().filter(|_| short.contains('p')),
        steps: steps.collect(),
        verify: command().filter(|_| short.contains('v')),
        limits: Limits::default(),
        retry: Some(Retry { max: 2, initial: Span::secs(60), max_delay: Some(Span::secs(600)) }),
        max_reboots: 1,
        secrets: BTreeMap::new(),
        resources: Vec::new(),
        place: RunPaths { task_dir: "/".into(), runtime_dir: "/".into(), systemd: false },
        emergency: false,
    }
}

/// Events in short, separated by blanks: `b` begun (`b!` under a new boot), `stop`, `cancel`, `expired`, `cut`
/// (the act under way is interrupted), an exit status (intends what is next and ends it so), with its message behind a
/// colon, `do` (intends it only),
/// `late` (timed out), `oom`, `none` (not started), `arm` (its guard is armed), `lapse` (the guard of step 0 has fired
/// before it), `guarded` (ended, because that guard has fired).
pub(crate) fn play(plan: &Plan, script: &str) -> Result<State, Illegal> {
    let mut state = State::new(plan.steps.len());
    let mut boot = 0;
    let mut time = Timestamp::from_second(1_700_000_000).unwrap();
    let mut take = |state: &mut State, event| {
        time += Duration::from_secs(1);
        apply(plan, state, &Record { at: time, event })
    };
    for word in script.split_whitespace() {
        let act = match &state.phase {
            Phase::Next(act) | Phase::Running(act) => *act,
            _ => Operation::Probe,
        };
        match word {
            "b" | "b!" => {
                boot += u32::from(word == "b!");
                let epoch = state.epoch + 1;
                take(&mut state, Event::Begun { epoch, boot: boot.to_string() })?;
            }
            "stop" => take(&mut state, Event::Stopping)?,
            "cut" => take(&mut state, Event::Interrupted { act, spent_ms: 1000 })?,
            "cancel" => take(&mut state, Event::CancelAsked { by: "alice".into(), reason: "test".into() })?,
            "expired" => take(&mut state, Event::Expired)?,
            "arm" => take(&mut state, Event::Armed { step: act.step().unwrap_or_default(), clock_ms: 7 })?,
            "lapse" => take(&mut state, Event::Lapsed { step: 0 })?,
            "do" => take(&mut state, Event::Intended { act })?,
            ended => {
                let (exit, message) =
                    ended.split_once(':').map_or((ended, None), |(exit, said)| (exit, Some(said)));
                if matches!(state.phase, Phase::Next(_)) {
                    take(&mut state, Event::Intended { act })?;
                }
                let exit = match exit {
                    "late" => ExitKind::TimedOut,
                    "oom" => ExitKind::Oom,
                    "guarded" => ExitKind::Guarded(0),
                    "alive" => ExitKind::Survived("x (7)".into()),
                    "none" => ExitKind::NotStarted("no such file".into()),
                    code => ExitKind::Code(code.parse().unwrap()),
                };
                let ending = StepResult {
                    exit,
                    spent_ms: 1000,
                    outputs: BTreeMap::new(),
                    message: message.map(str::to_owned),
                    killed_processes: Vec::new(),
                    warnings: Vec::new(),
                };
                take(&mut state, Event::Finished { act, ending })?;
            }
        }
    }
    Ok(state)
}

pub(crate) fn leads_to(state: &State) -> String {
    match &state.phase {
        Phase::New => "new".into(),
        Phase::Next(act) => format!("at {act:?}"),
        Phase::Running(act) => format!("doing {act:?}"),
        Phase::Suspended(Suspension::Retry { .. }) => "retry".into(),
        Phase::Suspended(Suspension::Paused { step, .. }) => format!("paused {step}"),
        Phase::Suspended(Suspension::Rebooting { step, .. }) => format!("rebooting {step}"),
        Phase::Suspended(Suspension::Stopped { act }) => format!("stopped {act:?}"),
        Phase::Ended(outcome) => match outcome {
            Outcome::Unchanged => "unchanged".into(),
            Outcome::Planned => "planned".into(),
            Outcome::Succeeded => "succeeded".into(),
            Outcome::Failed(failure) => format!("failed {}", failure.kind),
            Outcome::Undone(failure) => format!("undone {}", failure.kind),
            Outcome::UndoFailed { failure, .. } => format!("undo_failed {}", failure.kind),
            Outcome::Cancelled(_) => "cancelled".into(),
            Outcome::NeedsOperator(_) => "needs_operator".into(),
        },
    }
}

#[test]
fn the_time_of_an_interrupted_command_counts() {
    let plan = plan("r");
    let state = play(&plan, &format!("b {}", "do cut b ".repeat(59))).unwrap();
    assert!(matches!(next(&plan, &state), Next::Do(_)), "{:?}", state.spent);
    let state = play(&plan, &format!("b {}", "do cut b ".repeat(60))).unwrap();
    assert_eq!(next(&plan, &state), Next::Expire);
}

#[test]
fn every_row_of_the_table() {
    let rows = [
        // A run that goes well.
        ("oo", "b 0 0", "succeeded"),
        ("po", "b 0", "unchanged"),
        // A reboot that is cancelled before it came is not missed.
        ("ro", "b 194 cancel b", "cancelled"),
        ("ro", "b 194 cancel b!", "cancelled"),
        ("u", "b 194 cancel b", "at Undo(0)"),
        ("u", "b 194 b", "at Undo(0)"),
        ("rf", "b 0 194 cancel b!", "at Step(1)"),
        ("po", "b 1 0 0", "succeeded"),
        ("po", "b 1 0 1", "failed verify"),
        ("pvo", "b 1 0 0 0", "succeeded"),
        ("pvo", "b 1 0 0 1", "failed verify"),
        ("vu", "b 0 1 0", "undone verify"),
        // The probe decides only when it can tell.
        ("po", "b 2", "failed probe"),
        ("po", "b late", "failed probe"),
        ("po", "b do b", "at Probe"),
        // A failing step: its own undo first, then those before it, in reverse; the rest is left alone.
        ("oo", "b 0 1", "failed step"),
        ("uo", "b 0 1", "at Undo(0)"),
        ("uo", "b 0 1 0", "undone step"),
        ("uu", "b 0 1", "at Undo(1)"),
        ("uu", "b 0 1 0", "at Undo(0)"),
        ("uu", "b 0 1 0 0", "undone step"),
        ("uru", "b 0 0 late 0", "at Undo(0)"),
        ("uru", "b 0 0 late 0 0", "undone timeout"),
        ("uu", "b 0 1 3", "undo_failed step"),
        ("uu", "b 0 1 late", "undo_failed step"),
        ("o", "b oom", "failed oom"),
        ("u", "b oom 0", "undone oom"),
        ("uu", "b 0 alive", "needs_operator"),
        ("uu", "b 0 1 alive", "needs_operator"),
        // An undo may be repeated.
        ("uu", "b 0 1 do b", "at Undo(1)"),
        ("uu", "b 0 1 do stop cut b! 0 0", "undone step"),
        // The point of no return.
        ("uf", "b 0 1", "needs_operator"),
        ("uf", "b 0 late", "needs_operator"),
        // What could not even be started did nothing, unless it was tried before.
        ("uf", "b 0 none", "at Undo(0)"),
        ("f", "b none", "failed step"),
        ("u", "b none", "failed step"),
        ("uf", "b 0 194 b! none", "needs_operator"),
        ("ufo", "b 0 0 1", "failed step"),
        ("ufv", "b 0 0 1", "failed verify"),
        ("uf", "b 0 do b", "needs_operator"),
        ("uF", "b 0 do b 0", "succeeded"),
        ("uF", "b 0 do b 1", "needs_operator"),
        ("uf", "b 0 75 b cancel", "at Undo(0)"),
        ("uf", "b 0 do cancel 0", "succeeded"),
        // An executor that was lost in the middle of a step.
        ("oo", "b do b", "needs_operator"),
        ("ro", "b do b", "at Step(0)"),
        ("uo", "b do b", "at Undo(0)"),
        ("uo", "b do b 0", "undone step"),
        ("Oo", "b do b", "at Done(0)"),
        ("Oo", "b do b 0", "at Step(1)"),
        ("Oo", "b do b 1", "needs_operator"),
        ("Ro", "b do b 1", "at Step(0)"),
        ("Uo", "b do b 1", "at Undo(0)"),
        ("Ro", "b do b 2", "needs_operator"),
        ("Uo", "b do b late", "needs_operator"),
        ("Oo", "b do b do b", "at Done(0)"),
        ("oo", "b b", "at Step(0)"),
        ("oo", "b 0 b b", "at Step(1)"),
        // The host was stopped: no undo begins, `done` decides after the boot.
        ("uo", "b do stop cut", "stopped Step(0)"),
        ("oo", "b do stop cut b!", "needs_operator"),
        ("ro", "b do stop cut b!", "at Step(0)"),
        ("Oo", "b do stop cut b! 0", "at Step(1)"),
        ("oo", "b stop b!", "at Step(0)"),
        // Not now.
        ("oo", "b 75", "retry"),
        ("oo", "b 75 b", "at Step(0)"),
        ("po", "b 1 75 b", "at Probe"),
        ("oo", "b 0 75", "paused 1"),
        ("oo", "b 0 75 b", "at Step(1)"),
        ("oo", "b 75 b 75 b 75", "failed step"),
        ("uo", "b 0 75 b 75 b 75 0", "undone step"),
        // Reboots: only a new boot id counts, and only so many.
        ("oo", "b 0 194", "rebooting 1"),
        ("oo", "b 0 194 b!", "at Step(1)"),
        ("oo", "b 0 194 b! 194", "failed step"),
        ("oo", "b 0 194 b", "failed no reboot"),
        ("uo", "b 0 194 b 0", "undone no reboot"),
        // Cancelled: undone first.
        ("oo", "b cancel", "cancelled"),
        ("uo", "b 0 cancel", "at Undo(0)"),
        ("uo", "b 0 cancel 0", "cancelled"),
        ("uo", "b 0 do cancel 0 0", "cancelled"),
        ("uo", "b 0 do cancel 143 0", "cancelled"),
        ("uu", "b 0 1 cancel 0 0", "undone step"),
        // The run's time.
        ("uo", "b 0 expired", "at Undo(0)"),
        ("uo", "b 0 expired 0", "undone timeout"),
    ];
    for (short, script, expected) in rows {
        let state = play(&plan(short), script).unwrap_or_else(|error| panic!("{short} {script}: {error}"));
        assert_eq!(leads_to(&state), expected, "{short}: {script}");
    }
}

#[test]
fn a_status_is_that_of_the_newest_command_and_none_of_one_that_was_cut() {
    let rows = [
        ("oo", "b", None),
        ("oo", "b do", None),
        ("oo", "b 0", None),
        ("oo", "b 0 do", None),
        ("oo", "b 0 0", Some(0)),
        ("oo", "b 0 3", Some(3)),
        ("oo", "b 0 late", None),
        ("oo", "b 0 oom", None),
        ("oo", "b 0 none", None),
        ("oo", "b 0 alive", None),
        ("oo", "b 0 do b", None),
        ("ro", "b 0 do stop cut", None),
        ("ro", "b 0 do stop cut b!", None),
        ("oo", "b 0 cancel", None),
        ("oo", "b 0 do cancel 143", Some(143)),
        ("oo", "b 0 expired", None),
        ("oo", "b 0 75", Some(75)),
        ("oo", "b 0 75 b", None),
        ("oo", "b 0 194", Some(194)),
        // What failed, and not how it was undone.
        ("uu", "b 0 3", Some(3)),
        ("uu", "b 0 3 do", Some(3)),
        ("uu", "b 0 3 0 0", Some(3)),
        ("uu", "b 0 late 0 0", None),
        ("uu", "b 0 3 4", Some(3)),
        ("Oo", "b do b 0 0", Some(0)),
        ("O", "b do b 0", None),
        // The checks.
        ("po", "b 0", None),
        ("po", "b 2", None),
        ("po", "b 1 0", None),
        ("po", "b 1 0 0", Some(0)),
        ("po", "b 1 0 1", Some(1)),
        ("ov", "b 0 do", None),
        ("ov", "b 0 4", Some(4)),
        ("ov", "b 0 late", None),
    ];
    for (short, script, expected) in rows {
        let state = play(&plan(short), script).unwrap_or_else(|error| panic!("{short} {script}: {error}"));
        assert_eq!(state.exit_code, expected, "{short}: {script}");
    }
}

#[test]
fn a_question_that_was_answered_with_no_is_not_the_message_of_the_run() {
    for (short, script, expected) in [
        ("pU", "b 1:not-done 0", None),
        ("pU", "b 1:not-done 0:made", Some("made")),
        ("pU", "b 0:there", Some("there")),
        ("pU", "b 1:not-done do b! 0", None),
        ("U", "b do b! 0:is-done", Some("is-done")),
        ("U", "b do b! 1:not-done", None),
        ("U", "b do b! 1:not-done 0:taken-back", Some("taken-back")),
        ("ov", "b 0:made 1:wrong", Some("made")),
    ] {
        assert_eq!(play(&plan(short), script).unwrap().message.as_deref(), expected, "{short}: {script}");
    }
}

#[test]
fn what_is_not_in_the_table_is_an_error_and_changes_nothing() {
    for (short, before, last) in [
        ("o", "", "do"),
        ("o", "b 0", "b"),
        ("o", "b", "cut"),
        ("o", "b 75", "expired"),
        ("o", "b 75", "cancel"),
        ("u", "b 1", "expired"),
    ] {
        let plan = plan(short);
        let before_state = play(&plan, before).unwrap();
        assert!(play(&plan, &format!("{before} {last}")).is_err(), "{short}: {before} {last}");
        assert_eq!(before_state, play(&plan, before).unwrap());
    }
    let plan = plan("oo");
    let mut state = play(&plan, "b do").unwrap();
    let clone = state.clone();
    let event = Event::Intended { act: Operation::Step(1) };
    assert!(apply(&plan, &mut state, &Record { at: Timestamp::UNIX_EPOCH, event }).is_err());
    assert_eq!(state, clone);
}

#[test]
fn a_spent_budget_expires_the_run_but_not_its_undos_nor_what_follows_a_final_step() {
    let mut undoable = plan("uo");
    undoable.timeout = Span::secs(1);
    assert_eq!(next(&undoable, &play(&undoable, "b 0").unwrap()), Next::Expire);
    assert_eq!(next(&undoable, &play(&undoable, "b 0 expired").unwrap()), Next::Do(Operation::Undo(0)));
    let mut last = plan("fo");
    last.timeout = Span::secs(1);
    assert_eq!(next(&last, &play(&last, "b 0").unwrap()), Next::Do(Operation::Step(1)));
}

#[test]
fn a_dry_run_probes_and_does_nothing() {
    for (short, script, expected) in
        [("o", "b", "planned"), ("po", "b 1", "planned"), ("po", "b 0", "unchanged")]
    {
        let mut plan = plan(short);
        plan.dry_run = true;
        assert_eq!(leads_to(&play(&plan, script).unwrap()), expected, "{short}");
    }
}

#[test]
fn what_took_too_long_says_which_limit_it_met() {
    // A command of the tests ends after a second.
    let of = |own: Option<Span>| {
        let mut plan = plan("u");
        plan.timeout = Span::secs(60);
        plan.steps[0].timeout = own;
        let state = play(&plan, "b late").unwrap();
        let failure = state.failure.unwrap_or_else(|| panic!("no failure in {:?}", state.phase));
        failure.text
    };
    assert_eq!(of(Some(Span::secs(1))), "step s0 took too long and was ended: its `timeout` is 1s");
    // The run's time was up first.
    assert_eq!(of(Some(Span::secs(30))), "step s0 took too long and was ended: the run's `timeout` is 1m");
    assert_eq!(of(None), "step s0 took too long and was ended: the run's `timeout` is 1m");
}

#[test]
fn downtimes_are_numbered_within_their_epoch_and_change_nothing_else() {
    let plan = plan("r");
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let downtime = |ms: u64| Downtime {
        service: "web".parse().unwrap(),
        seconds: Millis(ms),
        from: None,
        to: None,
        failed: 0,
    };
    let said = |ms: &[u64]| Event::Downtime { downtime: ms.iter().copied().map(downtime).collect() };
    let mut state = State::new(1);
    let mut take = |event: Event| {
        let before = state.clone();
        let taken = apply(&plan, &mut state, &Record { at, event });
        let numbers: Vec<_> = state.downtime.iter().map(|one| (one.epoch, one.number)).collect();
        (taken.is_ok(), before.phase == state.phase && before.acted == state.acted, numbers)
    };
    assert!(!take(said(&[1])).0, "nobody has taken the run up");
    assert!(take(Event::Begun { epoch: 1, boot: "b".into() }).0);
    assert_eq!(take(said(&[1, 2])), (true, true, vec![(1, 1), (1, 2)]));
    take(Event::Intended { act: Operation::Step(0) });
    assert_eq!(take(said(&[3])), (true, true, vec![(1, 1), (1, 2), (1, 3)]));
    take(Event::Begun { epoch: 2, boot: "b".into() });
    assert_eq!(take(said(&[4])).2, [(1, 1), (1, 2), (1, 3), (2, 1)]);
    let many = vec![5; 2_000];
    assert_eq!(take(said(&many)).2.len(), 1_000, "and no more");
    assert!(state.warnings.last().unwrap().contains("more than 1000 downtimes"));
}
