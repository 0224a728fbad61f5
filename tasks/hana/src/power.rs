//! `start` and `stop`, with waiting, and the truth about which process did not come.

use crate::call::Call;
use crate::error::Error;
use crate::neighbours::sapcontrol::{self, Light, State};
use crate::runner::Runner;

fn state(runner: &Runner) -> Result<State, Error> {
    let outcome = runner.run(&sapcontrol::process_list(runner.system()))?;
    Ok(sapcontrol::state(outcome.code()?.into(), &outcome.out)?)
}

fn wait(runner: &Runner, call: &Call) -> Result<bool, Error> {
    let outcome = runner.run(call)?;
    Ok(sapcontrol::waited(outcome.code()?.into(), &outcome.out)?)
}

/// Starts the instance, if it does not run, and waits until all processes do.
pub fn start(runner: &Runner) -> Result<(), Error> {
    if matches!(state(runner)?, State::Running(_)) {
        return Ok(());
    }
    let came = wait(runner, &sapcontrol::start(runner.system()))?;
    // What the wait says decides nothing: the processes do.
    match state(runner)? {
        State::Running(_) => Ok(()),
        State::Partly(processes) => {
            let late = processes.iter().filter(|process| process.light != Light::Green);
            let late: Vec<_> = late
                .map(|process| format!("{} is {:?} ({})", process.name, process.light, process.text))
                .collect();
            let how = if came { "ended well" } else { "timed out" };
            Err(Error::Tool(format!("the start {how}, and {}", late.join(", "))))
        }
        other => Err(Error::Tool(format!("the instance was started, and is {other:?}"))),
    }
}

/// Stops the instance, if anything of it runs, and waits until nothing does.
pub fn stop(runner: &Runner) -> Result<(), Error> {
    if state(runner)? == State::Stopped {
        return Ok(());
    }
    let ended = wait(runner, &sapcontrol::stop(runner.system()))?;
    match state(runner)? {
        State::Stopped => Ok(()),
        other => {
            let how = if ended { "ended well" } else { "timed out" };
            Err(Error::Tool(format!("the stop {how}, and the instance is {other:?}")))
        }
    }
}

/// Whether all processes run, or none does. `Err`: cannot tell.
pub fn is(runner: &Runner, running: bool) -> Result<bool, Error> {
    let state = state(runner)?;
    Ok(if running { matches!(state, State::Running(_)) } else { state == State::Stopped })
}
